//! Keeps one session with the controller: dials, hands messages over in both directions, dials again.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use quinn::{ConnectionError, RecvStream};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use xene_schemas::wire::{
    MAX_FRAME,
    control::{AgentMessage, CertificateWanted, ControllerMessage},
};

use super::{
    artifacts::ArtifactUploads,
    dial::{Dialed, Transports, Why, dial},
    download::Downloads,
    frames::{FrameReader, Outgoing},
    identity::{Certified, Identity},
    reconnect::Reconnect,
    tls,
    transport::{Liveness, codes},
    tunnel::Broken,
    upload::{LogSource, Uploads},
};
use crate::clock;

/// How long the last bytes of a session may take to arrive.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// Why a session ends that the agent ends itself, which is no outage.
pub const ENDING: &str = "this agent is ending";

/// What an operator sets.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `HOST:PORT`; the name is resolved at each attempt.
    pub controller: String,
    /// By what it is reached.
    pub transports: Transports,
    /// How long one attempt to dial may take.
    pub patience: Duration,
    /// How soon a dead controller is noticed.
    pub liveness: Liveness,
}

impl ClientConfig {
    /// The defaults, for a controller at `HOST:PORT`.
    pub fn new(controller: impl Into<String>) -> Self {
        Self {
            controller: controller.into(),
            transports: Transports::default(),
            patience: Duration::from_secs(10),
            liveness: Liveness::default(),
        }
    }
}

/// What happens to the session.
#[derive(Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "almost all events are messages: a box would be one more allocation each"
)]
pub enum ClientEvent {
    /// A session stands: say Hello in it. What is sent after its end is dropped; [`Outgoing::close`] ends it once all
    /// that was queued has arrived.
    Connected(Outgoing<AgentMessage>),
    /// The controller said something.
    Message(ControllerMessage),
    /// The session ended, or an attempt to dial failed; a sentence says why.
    Disconnected(String),
}

/// Keeps a session until the receiver of `events` is dropped. A receiver that does not keep up slows the controller
/// down, not this agent's memory.
pub async fn run<L: LogSource>(
    config: ClientConfig,
    identity: Arc<Identity>,
    (uploads, downloads, artifacts): (Uploads<L>, Downloads, ArtifactUploads),
    events: mpsc::Sender<ClientEvent>,
) {
    let mut reconnect = Reconnect::default();
    // An outage is told once, not at each attempt.
    let mut told = String::new();
    loop {
        let reason = match connect(&config, &identity).await {
            Ok((dialed, why, shown)) => {
                let mut session =
                    Session { dialed: &dialed, identity: &identity, shown, reconnect: &mut reconnect, events: &events };
                let (reason, stood) = session.run(&uploads, (&downloads, &artifacts), &why).await;
                if stood {
                    told.clear();
                }
                let _ = timeout(CLOSE_PATIENCE, dialed.endpoint.wait_idle()).await;
                reason
            }
            Err(reason) => reason,
        };
        if reason == told || reason == ENDING {
            tracing::debug!(controller = config.controller, reason, "no session");
        } else {
            tracing::warn!(controller = config.controller, reason, "no session");
            told.clone_from(&reason);
        }
        if events.send(ClientEvent::Disconnected(reason)).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(reconnect.next(random())) => {}
            () = events.closed() => return,
        }
    }
}

async fn connect(config: &ClientConfig, identity: &Identity) -> Result<(Dialed, Why, Arc<Certified>), String> {
    let shown = identity.certified().borrow().clone();
    let why = Why::Session(shown.facts.not_after);
    let configs = identity.configs(config.liveness).map_err(|error| error.to_string())?;
    let dialed = dial(&config.controller, config.transports, &configs, config.patience, &why).await;
    Ok((dialed.map_err(|error| error.to_string())?, why, shown))
}

fn random() -> u64 {
    // Without random bytes the whole span is waited.
    getrandom::u64().unwrap_or(u64::MAX)
}

struct Session<'a> {
    dialed: &'a Dialed,
    identity: &'a Identity,
    /// What was shown when this session was opened.
    shown: Arc<Certified>,
    reconnect: &'a mut Reconnect,
    events: &'a mpsc::Sender<ClientEvent>,
}

impl Session<'_> {
    /// Runs the session to its end; returns why it ended, and whether the controller had welcomed this agent.
    async fn run<L: LogSource>(
        &mut self,
        uploads: &Uploads<L>,
        (downloads, artifacts): (&Downloads, &ArtifactUploads),
        why: &Why,
    ) -> (String, bool) {
        let connection = &self.dialed.connection;
        let (mut send, recv) = match connection.open_bi().await {
            Ok(stream) => stream,
            Err(error) => return (why.sentence(&error), false),
        };
        let outgoing = Outgoing::default();
        if self.events.send(ClientEvent::Connected(outgoing.clone())).await.is_err() {
            return (ENDING.into(), false);
        }
        let (welcomed, controllers) = (watch::Sender::new(false), WallClock::default());
        let (identity, events) = (self.identity, self.events);
        let shown = self.shown.clone();
        let after_welcome = async {
            // The sender outlives this.
            let _ = welcomed.subscribe().wait_for(|welcomed| *welcomed).await;
            tokio::join!(
                uploads.run(connection),
                downloads.run(connection, &outgoing),
                artifacts.run(connection),
                renew_certificate(identity, &outgoing, &shown, &controllers)
            );
        };
        let closing = async {
            outgoing.closing().await;
            // The controller, which gets the last bytes, closes; after that it is too late for them.
            tokio::time::sleep(CLOSE_PATIENCE).await;
        };
        let writing = async {
            let end = outgoing.write_to(&mut send).await;
            // From here on the controller's end of the connection decides, or the patience of `closing`.
            tracing::debug!(%end, "nothing more to say");
            std::future::pending::<()>().await;
        };
        let read = tokio::select! {
            reason = self.read(recv, &welcomed, &controllers) => Some(reason),
            () = closing => None,
            () = events.closed() => Some(ENDING.into()),
            () = writing => None,
            () = after_welcome => None,
        };
        let broken = self.dialed.broken.as_ref().and_then(Broken::reason);
        let reason = match (connection.close_reason(), outgoing.reason()) {
            // The controller closes when all is said, whoever wanted it.
            (Some(ConnectionError::ApplicationClosed(close)), Some(reason)) if close.error_code == codes::DONE => {
                reason
            }
            (Some(ConnectionError::LocallyClosed), _) if let Some(broken) = broken => {
                format!("the connection to the controller broke: {broken}")
            }
            (Some(reason), _) => why.sentence(&reason),
            (None, reason) => read.or(reason).unwrap_or_else(|| ENDING.into()),
        };
        outgoing.close(reason.as_str());
        connection.close(codes::DONE, b"");
        (reason, *welcomed.borrow())
    }

    /// Hands messages on until the controller has said its last; returns why there is no more.
    async fn read(&mut self, recv: RecvStream, welcomed: &watch::Sender<bool>, controllers: &WallClock) -> String {
        let mut reader = FrameReader::new(recv, MAX_FRAME);
        let mut reason = "the controller ended the session".to_owned();
        loop {
            let message = match reader.next().await {
                Ok(Some(message)) => message,
                Ok(None) => return reason,
                Err(error) => return format!("the controller can't be understood: {error}"),
            };
            match &message {
                ControllerMessage::Welcome(welcome) => {
                    self.reconnect.stood(Duration::from_millis(welcome.reconnect_span_ms));
                    let transport = self.dialed.transport();
                    tracing::info!(name = %welcome.name, software = welcome.software, %transport, "session with the controller");
                    welcomed.send_replace(true);
                }
                ControllerMessage::Renewed(renewed) => controllers.tell(renewed.wall),
                ControllerMessage::Refused(refused) => {
                    reason = format!("the controller refused this agent: {}", refused.message);
                    if !refused.retry {
                        self.reconnect.refused();
                    }
                }
                ControllerMessage::Roots(roots) => {
                    if let Err(error) = self.identity.install_roots(&roots.roots) {
                        tracing::error!(%error, "can't trust the controller's new certificate authority");
                    }
                }
                _ => {}
            }
            if self.events.send(ClientEvent::Message(message)).await.is_err() {
                return ENDING.into();
            }
        }
    }
}

/// The controller's wall clock: its time when this host's elapsed time began, once it has told.
#[derive(Debug)]
struct WallClock(watch::Sender<Option<Timestamp>>);

impl Default for WallClock {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl WallClock {
    /// What is that much off changes nothing.
    const EXACT: SignedDuration = SignedDuration::from_secs(10);

    fn tell(&self, wall: Timestamp) {
        let Ok(start) = wall.checked_sub(elapsed()) else { return };
        self.0.send_if_modified(|told| {
            let differs = told.is_none_or(|told| start.duration_since(told).abs() > Self::EXACT);
            if differs {
                *told = Some(start);
            }
            differs
        });
    }

    /// The later of its time and this host's: the controller judges by its own, and a certificate that is renewed too
    /// early costs nothing.
    fn latest(told: Option<Timestamp>) -> Timestamp {
        let own = clock::now().wall;
        told.and_then(|start| start.checked_add(elapsed()).ok()).map_or(own, |told| told.max(own))
    }
}

fn elapsed() -> Duration {
    Duration::from_nanos(clock::now().boot.as_nanos())
}

/// Asks for a new certificate at two thirds of the life of the one that stands, or at once where that is of an authority
/// that was replaced; for ever. One of a new authority is shown at once, in a session of its own: until then the
/// controller can't let go of the old one.
async fn renew_certificate(
    identity: &Identity,
    outgoing: &Outgoing<AgentMessage>,
    shown: &Certified,
    controllers: &WallClock,
) {
    let (mut certified, mut told) = (identity.certified(), controllers.0.subscribe());
    loop {
        if certified.borrow().is_of_newest() && !is_of_same(&certified.borrow(), shown) {
            outgoing.close("this agent comes again with a certificate of the controller's new authority");
            return;
        }
        let now = WallClock::latest(*told.borrow_and_update());
        let wait = until_renewal(&certified.borrow_and_update(), now);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = certified.changed() => continue,
            _ = told.changed() => continue,
        }
        match identity.certificate_request() {
            Ok(csr) => {
                // An ended session ends this, too.
                let _ = outgoing.send(&AgentMessage::CertificateWanted(CertificateWanted { csr }));
            }
            Err(error) => tracing::error!(%error, "can't ask for a new certificate"),
        }
        // If there is no answer, again after the least span.
        let again = least_span(&certified.borrow());
        let _ = timeout(again, certified.changed()).await;
    }
}

/// A clock that is far ahead finds each certificate past its time: even so, not more often than this.
fn least_span(certified: &Certified) -> Duration {
    life(certified) / 30
}

fn life(certified: &Certified) -> Duration {
    let facts = &certified.facts;
    facts.not_after.duration_since(facts.not_before).unsigned_abs()
}

/// True if one authority signed both.
fn is_of_same(certified: &Certified, other: &Certified) -> bool {
    certified
        .roots
        .iter()
        .any(|root| tls::is_issued_by(&certified.chain[0], root) && tls::is_issued_by(&other.chain[0], root))
}

fn until_renewal(certified: &Certified, now: Timestamp) -> Duration {
    if !certified.is_of_newest() {
        return Duration::ZERO;
    }
    let left = certified.facts.not_after.duration_since(now);
    let left = Duration::try_from(left).unwrap_or(Duration::ZERO);
    left.saturating_sub(life(certified) / 3)
}
