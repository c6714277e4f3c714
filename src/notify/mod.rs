//! Delivers messages of notifiers: looks their credential up, writes them as their destination wants, sends them once.
//!
//! Whether, when and how often is decided elsewhere. A commit chooses a credential by name; where it leads, and what it
//! opens, is in a file of the operator's, which is read anew for each message.

mod credentials;
mod http;
mod mail;
mod text;
mod written;

#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};

use self::credentials::Credential;
use crate::decide::event::{Delivery, Outcome};

/// So many messages are on their way at a time, each on a thread of its own.
const AT_ONCE: usize = 8;
/// What one message may take, from the first name that is looked up to the last byte of the answer.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// So much of what is answered is shown, in characters.
const SHOWN: usize = 300;

/// What an operator sets.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The folder of credentials.
    pub secrets: Option<PathBuf>,
    /// Where people find the web UI, without a slash at its end.
    pub public_url: Option<String>,
    /// Certificates (PEM) that vouch for destinations.
    pub certificates: Option<PathBuf>,
}

/// The way out. Cheap to clone; nothing runs while no message is on its way.
#[derive(Debug, Clone)]
pub struct Outgoing {
    config: Arc<Config>,
    places: Arc<Semaphore>,
}

/// Why a message was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In a sentence, without secrets.
    pub why: String,
    /// False if it would fail again.
    pub retry: bool,
    /// How long the destination asks to wait.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// It may go well another time.
    fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), retry: true, retry_after: None }
    }

    /// It never will.
    fn lasting(why: impl Into<String>) -> Self {
        Self { why: why.into(), retry: false, retry_after: None }
    }
}

impl Outgoing {
    /// A way out with these settings.
    pub fn new(config: Config) -> Self {
        Self { config: Arc::new(config), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Sends a message from a thread, and tells what came of it. Must be called within the runtime.
    pub fn start(&self, delivery: Box<Delivery>, done: impl FnOnce(Outcome) + Send + 'static) {
        let outgoing = self.clone();
        tokio::spawn(async move {
            // It is never closed.
            let _place = outgoing.places.acquire().await;
            let sent = outgoing.try_now(delivery).await;
            done(match sent {
                Ok(_) => Outcome::Delivered,
                Err(Failure { why, retry: false, .. }) => Outcome::Refused(why),
                Err(Failure { why, retry_after, .. }) => Outcome::Failed { why, retry_after },
            });
        });
    }

    /// Sends a message now, and says what its destination answered.
    ///
    /// # Errors
    /// If it was not delivered.
    pub async fn try_now(&self, delivery: Box<Delivery>) -> Result<String, Failure> {
        let (sender, sent) = oneshot::channel();
        let config = self.config.clone();
        // Not one of the runtime's: a process that ends does not wait for it.
        let thread =
            thread::Builder::new().name("notify".into()).spawn(move || drop(sender.send(send(&config, &delivery))));
        match thread {
            // Whoever answers drop by drop is left with the thread alone.
            Ok(_) => match timeout(TIME_LIMIT + Duration::from_secs(1), sent).await {
                Ok(sent) => sent.unwrap_or_else(|_| Err(Failure::passing("the delivery broke off"))),
                Err(_) => Err(Failure::passing(format!("it took longer than {} seconds", TIME_LIMIT.as_secs()))),
            },
            Err(error) => Err(Failure::passing(format!("the system gives no thread: {error}"))),
        }
    }
}

fn send(config: &Config, delivery: &Delivery) -> Result<String, Failure> {
    let spec = &delivery.spec;
    let names = [
        spec.cloud_events.as_ref().map(|to| &to.credential),
        spec.slack.as_ref().map(|to| &to.credential),
        spec.email.as_ref().map(|to| &to.credential),
        spec.commit_status.as_ref().map(|to| &to.credential),
    ];
    let name = names.into_iter().flatten().next().ok_or_else(|| Failure::lasting("it has no destination"))?;
    let credential = Credential::read(config.secrets.as_deref(), name).map_err(Failure::passing)?;
    let sent = send_with(config, delivery, &credential);
    // An answer, or a library's error, may repeat what it was given.
    let shown = |text: &str| text::plain(&credential.without_secrets(text), SHOWN);
    sent.map(|said| shown(&said)).map_err(|failure| Failure { why: shown(&failure.why), ..failure })
}

fn send_with(config: &Config, delivery: &Delivery, credential: &Credential) -> Result<String, Failure> {
    let (spec, url) = (&delivery.spec, config.public_url.as_deref());
    if let Some(to) = &spec.cloud_events {
        let credential = credential.cloud_events().map_err(Failure::passing)?;
        http::send(config, written::cloud_event(delivery, to.mode, credential, url)?)
    } else if let Some(_slack) = &spec.slack {
        let credential = credential.slack().map_err(Failure::passing)?;
        http::send(config, written::slack(delivery, credential, url)?)
    } else if let Some(to) = &spec.commit_status {
        let credential = credential.commit_status(&to.repository).map_err(Failure::passing)?;
        let Some(request) = written::commit_status(delivery, to, credential, url)? else {
            return Err(Failure::lasting(
                "there is no commit whose status it could be: is the source a git repository?",
            ));
        };
        http::send(config, request)
    } else if let Some(to) = &spec.email {
        let credential = credential.email(&to.to).map_err(Failure::passing)?;
        mail::send(delivery, to, credential, url)
    } else {
        Err(Failure::lasting("it has no destination"))
    }
}
