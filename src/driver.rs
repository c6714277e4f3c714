//! The loop between the controller's machine and its shells: event in, commit, then effects out.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use xene_agent::{
    clock::{self, Alarm},
    commits::Commits,
    decide::time::Now,
    memory::Trim,
};
use xene_schemas::{
    pipeline::CompiledPipeline,
    wire::control::{AgentMessage, ControllerMessage, Roots, Specs},
};

use crate::{
    decide::{
        Config, Controller,
        event::{Answer, Command, Effect, Effects, Event, Refusal, RequestId, SessionId},
        rows::Loaded,
    },
    metrics::Counters,
    notify::Outgoing,
    session::{Sessions, Signed, pki::Pki},
    store::{Committed, Store, StoreError, logs::LogStore},
};

/// Inputs wait here while the machine is busy. A thousand messages are a few milliseconds of work; a session or a
/// request that finds it full waits, and so slows its sender, not the memory.
const INPUTS: usize = 1024;

/// While this many commits wait for the disk, no input is taken: a slow disk slows senders, not the memory.
const COMMITS: usize = 4096;

/// From so many commits on that wait it is looked whether that is for lack of room.
const MANY_COMMITS: usize = 16;

/// What can be asked of a running controller. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    requests: Arc<AtomicU64>,
    store: Store,
    logs: LogStore,
    counters: Arc<Counters>,
    /// The machine's wall clock when the host's elapsed time began, in milliseconds of Unix time.
    boot_wall: Arc<AtomicI64>,
}

/// The controller is shutting down and takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the controller is shutting down")]
pub struct Closed;

type View = Box<dyn FnOnce(&Controller, Now) + Send>;

enum Input {
    Event(Event, Option<oneshot::Sender<()>>),
    Ask(RequestId, Command, oneshot::Sender<Result<Answer, Refusal>>),
    View(View),
}

impl Handle {
    /// Tells the machine what happened.
    ///
    /// # Errors
    /// If the controller is shutting down.
    pub async fn tell(&self, event: Event) -> Result<(), Closed> {
        self.inputs.send(Input::Event(event, None)).await.map_err(|_| Closed)
    }

    /// [`Self::tell`] from a thread that may block; returns once everything that was decided on it is durable.
    ///
    /// # Errors
    /// If the controller is shutting down.
    pub fn settle(&self, event: Event) -> Result<(), Closed> {
        let (settled, wait) = oneshot::channel();
        self.inputs.blocking_send(Input::Event(event, Some(settled))).map_err(|_| Closed)?;
        wait.blocking_recv().map_err(|_| Closed)
    }

    /// Asks for something and waits until it is durable, or refused.
    ///
    /// # Errors
    /// If the controller is shutting down.
    pub async fn ask(&self, command: Command) -> Result<Result<Answer, Refusal>, Closed> {
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        if self.store.is_full() && !command.is_urgent() {
            return Ok(Err(Refusal::DiskFull));
        }
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::Ask(request, command, reply)).await.map_err(|_| Closed)?;
        answer.await.map_err(|_| Closed)
    }

    /// Looks at the machine; `look` must be quick.
    ///
    /// # Errors
    /// If the controller is shutting down.
    pub async fn view<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Controller, Now) -> T + Send + 'static,
    ) -> Result<T, Closed> {
        let (reply, answer) = oneshot::channel();
        let view: View = Box::new(move |controller, now| drop(reply.send(look(controller, now))));
        self.inputs.send(Input::View(view)).await.map_err(|_| Closed)?;
        answer.await.map_err(|_| Closed)
    }

    /// What is committed from now on. A watcher that falls behind gets `Lagged`, and must read the store anew.
    pub fn watch(&self) -> broadcast::Receiver<Arc<Committed>> {
        self.store.committed().subscribe()
    }

    /// The wall time that the controller goes by, which does not follow a leap of the host's clock.
    pub fn wall(&self) -> Timestamp {
        let boot = clock::now().boot.as_nanos() / 1_000_000;
        let millis = self.boot_wall.load(Ordering::Relaxed).saturating_add_unsigned(boot);
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
    }

    /// The store, for reading.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What has been counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The logs.
    pub fn logs(&self) -> &LogStore {
        &self.logs
    }
}

/// What the loop needs beside the machine.
#[derive(Debug)]
pub struct Shells {
    /// Where rows go.
    pub store: Store,
    /// Where logs go.
    pub logs: LogStore,
    /// The agents' sessions.
    pub sessions: Sessions,
    /// The certificate authority.
    pub pki: Arc<Pki>,
    /// Where messages of notifiers go.
    pub outgoing: Outgoing,
}

/// Why the controller can't go on.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// What the store held can't be read, or what it should hold can't be written: nothing more is acknowledged.
    #[error("the store can't be used")]
    Store(#[from] StoreError),
    /// The system gives no timer.
    #[error("the system gives no timer")]
    Timer(#[source] io::Error),
}

/// The loop: owns the machine, takes one input after the other, and never waits for the disk.
#[derive(Debug)]
pub struct Driver {
    counters: Arc<Counters>,
    boot_wall: Arc<AtomicI64>,
    controller: Controller,
    shells: Shells,
    inputs: mpsc::Receiver<Input>,
    replies: HashMap<RequestId, oneshot::Sender<Result<Answer, Refusal>>>,
    commits: Commits<Then>,
    /// From the store's writer; as many as there are commits, which are bounded.
    committed: (mpsc::UnboundedSender<Committing>, mpsc::UnboundedReceiver<Committing>),
    /// What came of messages; as many as there are notifiers.
    delivered: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    /// Sessions of which something was not taken since the disk is full: ended once there is room, and said again then.
    unheard: BTreeSet<SessionId>,
    /// What the machine knows of the store's disk.
    full: bool,
    alarm: Alarm,
    trim: Trim,
}

/// What follows a commit.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most are effects, and few wait at a time")]
enum Then {
    CarryOut(Effect),
    Settled(oneshot::Sender<()>),
}

/// What came of the commit of this number.
type Committing = (u64, Result<(), StoreError>);

impl Driver {
    /// A machine that starts with what the store holds, and the handle to it. [`Self::run`] sets it going.
    ///
    /// # Errors
    /// If the system gives no timer.
    pub fn new(shells: Shells, config: Config, loaded: Loaded) -> Result<(Self, Handle), DriverError> {
        let counters = Arc::new(Counters::new(&loaded.active_runs));
        let (controller, effects) = Controller::new(clock::now(), config, loaded);
        let (sender, inputs) = mpsc::channel(INPUTS);
        let handle = Handle {
            inputs: sender,
            requests: Arc::default(),
            store: shells.store.clone(),
            logs: shells.logs.clone(),
            counters: counters.clone(),
            boot_wall: Arc::default(),
        };
        let mut driver = Self {
            counters,
            boot_wall: handle.boot_wall.clone(),
            controller,
            shells,
            inputs,
            replies: HashMap::new(),
            commits: Commits::default(),
            committed: mpsc::unbounded_channel(),
            delivered: mpsc::unbounded_channel(),
            unheard: BTreeSet::new(),
            full: false,
            alarm: Alarm::new().map_err(DriverError::Timer)?,
            trim: Trim::default(),
        };
        driver.boot_wall.store(driver.controller.boot_wall(), Ordering::Relaxed);
        driver.carry_out(effects);
        Ok((driver, handle))
    }

    /// Goes on until `stop` changes or its sender is gone; then takes nothing more, and ends once all that was
    /// decided is durable and said.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), DriverError> {
        self.trim = Trim::after_start();
        loop {
            self.speak();
            self.boot_wall.store(self.controller.boot_wall(), Ordering::Relaxed);
            self.alarm.set(self.controller.next_timeout()).map_err(DriverError::Timer)?;
            tokio::select! {
                biased;
                Some((number, result)) = self.committed.1.recv() => {
                    result?;
                    self.commits.durable(number);
                    self.hear_again();
                }
                _ = stop.changed() => break,
                Some(event) = self.delivered.1.recv() => {
                    let effects = self.controller.handle(clock::now(), event);
                    self.carry_out(effects);
                }
                input = self.inputs.recv(), if self.commits.len() < COMMITS => match input {
                    Some(input) => self.take(input),
                    None => break,
                },
                // While nothing is heard nobody's silence counts: afterwards the machine finds that it stood still.
                () = self.alarm.due(), if self.commits.len() < COMMITS => {
                    let effects = self.controller.handle_timeout(clock::now());
                    self.carry_out(effects);
                }
            }
        }
        self.inputs.close();
        while !self.commits.is_empty() {
            let Some((number, result)) = self.committed.1.recv().await else { break };
            result?;
            self.commits.durable(number);
            self.speak();
        }
        Ok(())
    }

    /// The session of what can't be written, where there is no room, and is said again in its next one. So leases are
    /// renewed and the API answers meanwhile: such messages don't fill the queue of commits.
    fn must_wait(&self, input: &Input) -> Option<SessionId> {
        let Input::Event(Event::Message { session, message }, None) = input else { return None };
        let is_written = matches!(message, AgentMessage::Report(_) | AgentMessage::Skipped(_));
        let has_no_room = || self.commits.len() >= MANY_COMMITS && self.shells.store.is_full();
        (is_written && (self.unheard.contains(session) || has_no_room())).then_some(*session)
    }

    /// There is room again: who was not heard says it anew.
    fn hear_again(&mut self) {
        if self.unheard.is_empty() || self.commits.len() >= MANY_COMMITS {
            return;
        }
        for session in std::mem::take(&mut self.unheard) {
            self.shells.sessions.close(session, "the controller's disk was full, and has room again");
        }
    }

    /// How an agent is welcomed hangs on whether commits wait for room.
    fn look_for_room(&mut self, now: Now) {
        let full = !self.commits.is_empty() && self.shells.store.is_full();
        if std::mem::replace(&mut self.full, full) != full {
            let effects = self.controller.handle(now, Event::StoreFull(full));
            self.carry_out(effects);
        }
    }

    fn take(&mut self, input: Input) {
        let now = clock::now();
        if let Some(session) = self.must_wait(&input) {
            self.unheard.insert(session);
            return;
        }
        if let Input::Event(Event::SessionOpened { .. }, _) = &input {
            self.look_for_room(now);
        }
        let (event, settled) = match input {
            Input::View(look) => return look(&self.controller, self.controller.guarded(now)),
            Input::Event(event, settled) => (event, settled),
            Input::Ask(request, command, reply) => {
                self.replies.insert(request, reply);
                (Event::Asked { request, command }, None)
            }
        };
        let effects = self.controller.handle(now, event);
        self.carry_out(effects);
        if let Some(settled) = settled {
            self.commits.push(vec![Then::Settled(settled)], true);
        }
    }

    fn carry_out(&mut self, effects: Effects) {
        let Effects { now, commit, then, urgent } = effects;
        for effect in now {
            self.carry_out_one(effect);
        }
        let then: Vec<_> = then.into_iter().map(Then::CarryOut).collect();
        if commit.is_empty() {
            if !then.is_empty() {
                self.commits.push(then, true);
            }
            return;
        }
        let store = &self.shells.store;
        self.counters.count(&commit, |row| store.has_due_time(row).unwrap_or(false));
        self.trim.worked(commit.len());
        let number = self.commits.push(then, false);
        let done = self.committed.0.clone();
        // The loop may be gone by then: it has nothing more to say.
        let done = move |result| drop(done.send((number, result)));
        match urgent {
            true => self.shells.store.commit_urgent(commit, done),
            false => self.shells.store.commit(commit, done),
        }
    }

    /// Carries out what follows the commits that are durable, in their order.
    fn speak(&mut self) {
        while let Some(then) = self.commits.next_durable() {
            for then in then {
                match then {
                    Then::CarryOut(effect) => self.carry_out_one(effect),
                    // The source may have been stopped.
                    Then::Settled(settled) => drop(settled.send(())),
                }
            }
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Send { session, message } => self.shells.sessions.send(session, &message),
            Effect::Close { session, reason } => self.shells.sessions.close(session, &reason),
            Effect::SendSpecs { session, hashes } => {
                let mut specs = Vec::with_capacity(hashes.len());
                for hash in hashes {
                    match self.shells.store.spec(&hash) {
                        Ok(Some(spec)) => specs.push(spec),
                        Ok(None) => tracing::warn!(%hash, "an agent wants a spec that the store does not have"),
                        Err(error) => tracing::error!(%error, "the store can't be read"),
                    }
                }
                self.shells.sessions.send(session, &ControllerMessage::Specs(Specs { specs }));
            }
            Effect::SendFiles { session, spec, hashes } => {
                let found =
                    self.shells.store.spec(&spec).map(|bytes| bytes.map(|bytes| CompiledPipeline::decode(&bytes)));
                match found {
                    Ok(Some(Ok(pipeline))) => {
                        let mut files = pipeline.files;
                        files.retain(|file| hashes.contains(&file.hash));
                        self.shells.sessions.send_files(session, files);
                    }
                    Ok(None | Some(Err(_))) => tracing::warn!(%spec, "an agent wants files of a spec that is not here"),
                    Err(error) => tracing::error!(%error, "the store can't be read"),
                }
            }
            Effect::SignCertificate { session, agent, csr } => {
                match self.shells.pki.sign(&csr, &agent, self.controller.guarded(clock::now()).wall) {
                    Ok(issued) => {
                        let Signed { chain, fingerprint } = issued;
                        let event = Event::CertificateIssued { session, agent, fingerprint, chain };
                        let effects = self.controller.handle(clock::now(), event);
                        self.carry_out(effects);
                    }
                    Err(error) => tracing::warn!(%agent, %error, "a certificate request was refused"),
                }
            }
            Effect::SendRoots(session) => {
                let roots = Roots { roots: self.shells.pki.roots() };
                self.shells.sessions.send(session, &ControllerMessage::Roots(roots));
            }
            // Of a rotation that has ended meanwhile, and perhaps another begun.
            Effect::FinishRotation { newest, .. } if self.shells.pki.authority().fingerprint != newest => {}
            Effect::FinishRotation { why, .. } => {
                // Two small files, once in a rotation.
                match self.shells.pki.finish_rotation(self.controller.guarded(clock::now()).wall) {
                    Ok(()) => {
                        let event = Event::Authority { authority: self.shells.pki.authority(), by: why.into() };
                        let effects = self.controller.handle(clock::now(), event);
                        self.carry_out(effects);
                    }
                    Err(error) => tracing::error!(%error, "the old certificate authority stays trusted"),
                }
            }
            Effect::Reply { request, mut result } => {
                // Of a run that has ended the machine knows little; the store has all of it.
                if let Ok(Answer::Run(run)) = &mut *result
                    && run.status.phase.is_final()
                {
                    match self.shells.store.run(run.metadata.name) {
                        Ok(Some(row)) => **run = row.run,
                        Ok(None) => {}
                        Err(error) => tracing::error!(%error, "the store can't be read"),
                    }
                }
                if let Some(reply) = self.replies.remove(&request) {
                    // Who asked may have gone away.
                    drop(reply.send(*result));
                }
            }
            Effect::Deliver(delivery) => {
                let (notifier, number, done) = (delivery.notifier.clone(), delivery.number, self.delivered.0.clone());
                // The loop may be gone by then: the next one sends it again.
                self.shells.outgoing.start(delivery, move |outcome| {
                    drop(done.send(Event::Delivered { notifier, number, outcome }));
                });
            }
            Effect::DeleteLogs(runs) => {
                let logs = self.shells.logs.clone();
                tokio::task::spawn_blocking(move || {
                    for run in runs {
                        if let Err(error) = logs.delete(run) {
                            tracing::warn!(%run, %error, "a log can't be removed");
                        }
                    }
                });
            }
            Effect::Alert(text) => tracing::warn!("{text}"),
        }
    }
}

#[cfg(test)]
impl Handle {
    /// A handle to a machine that holds what is `loaded`, for tests: `answer` takes its commands, events are dropped.
    pub(crate) fn for_tests(
        store: Store,
        logs: LogStore,
        loaded: Loaded,
        mut answer: impl FnMut(Command) -> Result<Answer, Refusal> + Send + 'static,
    ) -> Self {
        let (inputs, mut asked) = mpsc::channel(INPUTS);
        let config = Config {
            pause_margin: std::time::Duration::from_secs(60),
            min_autonomy: std::time::Duration::from_secs(30),
            nonce: 1,
            secret: [0; 32],
            software: "0".into(),
            store_id: "test".into(),
            boot_id: "boot".into(),
            source: crate::decide::desired::SourceOrigin {
                kind: xene_schemas::source::SourceKind::Git,
                url: "test".into(),
                branch: None,
                path: None,
            },
            authority: crate::decide::event::Authority { fingerprint: "ab".repeat(32), before: None },
            recover: false,
            #[cfg(feature = "mutants")]
            mutant: None,
        };
        let (machine, _) = Controller::new(clock::now(), config, loaded);
        let boot_wall = Arc::new(AtomicI64::new(machine.boot_wall()));
        tokio::spawn(async move {
            while let Some(input) = asked.recv().await {
                match input {
                    Input::Ask(_, command, reply) => drop(reply.send(answer(command))),
                    Input::View(look) => look(&machine, clock::now()),
                    Input::Event(..) => {}
                }
            }
        });
        Self { inputs, requests: Arc::default(), store, logs, counters: Arc::default(), boot_wall }
    }
}
