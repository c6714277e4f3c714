//! The loop between the controller's machine and its shells: event in, commit, then effects out.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use xene_agent::{
    clock::{self, Alarm},
    decide::time::Now,
};
use xene_schemas::wire::control::{Certificate, ControllerMessage, Specs};

use crate::{
    decide::{
        Config, Controller,
        event::{Answer, Command, Effect, Effects, Event, Refusal, RequestId},
    },
    session::{Sessions, pki::Pki},
    store::{Committed, Store, StoreError, logs::LogStore},
};

/// Inputs wait here while the machine is busy. A thousand messages are a few milliseconds of work; a session or a
/// request that finds it full waits, and so slows its sender, not the memory.
const INPUTS: usize = 1024;

/// While this many commits wait for the disk, no input is taken: a slow disk slows senders, not the memory.
const COMMITS: usize = 4096;

/// What can be asked of a running controller. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    requests: Arc<AtomicU64>,
    watch: broadcast::Sender<Arc<Committed>>,
    store: Store,
    logs: LogStore,
}

/// The controller is shutting down and takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the controller is shutting down")]
pub struct Closed;

type View = Box<dyn FnOnce(&Controller, Now) + Send>;

#[expect(clippy::large_enum_variant, reason = "an input is moved a few times and never kept")]
enum Input {
    Event(Event),
    Ask(RequestId, Command, oneshot::Sender<Result<Answer, Refusal>>),
    View(View),
}

impl Handle {
    /// Tells the machine what happened.
    ///
    /// # Errors
    /// If the controller is shutting down.
    pub async fn tell(&self, event: Event) -> Result<(), Closed> {
        self.inputs.send(Input::Event(event)).await.map_err(|_| Closed)
    }

    /// [`Self::tell`] from a thread that is not async.
    ///
    /// # Errors
    /// If the controller is shutting down.
    pub fn tell_blocking(&self, event: Event) -> Result<(), Closed> {
        self.inputs.blocking_send(Input::Event(event)).map_err(|_| Closed)
    }

    /// Asks for something and waits until it is durable, or refused.
    ///
    /// # Errors
    /// If the controller is shutting down.
    pub async fn ask(&self, command: Command) -> Result<Result<Answer, Refusal>, Closed> {
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
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
        self.watch.subscribe()
    }

    /// The store, for reading.
    pub fn store(&self) -> &Store {
        &self.store
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
    /// Tells watchers what was committed; the store sends to it.
    pub watch: broadcast::Sender<Arc<Committed>>,
    /// The agents' sessions.
    pub sessions: Sessions,
    /// The certificate authority.
    pub pki: Arc<Pki>,
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
    controller: Controller,
    shells: Shells,
    inputs: mpsc::Receiver<Input>,
    replies: HashMap<RequestId, oneshot::Sender<Result<Answer, Refusal>>>,
    commits: Commits,
    alarm: Alarm,
}

/// Commits on their way to the disk, in order, with the effects that follow each.
#[derive(Debug)]
struct Commits {
    waiting: VecDeque<Waiting>,
    /// The number of the first one that waits.
    first: u64,
    done: mpsc::UnboundedSender<(u64, Result<(), StoreError>)>,
    arrived: mpsc::UnboundedReceiver<(u64, Result<(), StoreError>)>,
}

#[derive(Debug)]
struct Waiting {
    durable: bool,
    then: Vec<Effect>,
}

impl Driver {
    /// A machine that starts with what the store holds, and the handle to it. [`Self::run`] sets it going.
    ///
    /// # Errors
    /// If the store can't be read, or the system gives no timer.
    pub fn new(shells: Shells, config: Config) -> Result<(Self, Handle), DriverError> {
        let loaded = shells.store.load()?;
        let (controller, effects) = Controller::new(clock::now(), config, loaded);
        let (sender, inputs) = mpsc::channel(INPUTS);
        let (done, arrived) = mpsc::unbounded_channel();
        let handle = Handle {
            inputs: sender,
            requests: Arc::default(),
            watch: shells.watch.clone(),
            store: shells.store.clone(),
            logs: shells.logs.clone(),
        };
        let mut driver = Self {
            controller,
            shells,
            inputs,
            replies: HashMap::new(),
            commits: Commits { waiting: VecDeque::new(), first: 0, done, arrived },
            alarm: Alarm::new().map_err(DriverError::Timer)?,
        };
        driver.carry_out(effects);
        Ok((driver, handle))
    }

    /// Goes on until `stop` changes or its sender is gone; then takes nothing more, and ends once all that was
    /// decided is durable and said.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), DriverError> {
        loop {
            self.alarm.set(self.controller.next_timeout()).map_err(DriverError::Timer)?;
            tokio::select! {
                biased;
                Some((number, result)) = self.commits.arrived.recv() => self.committed(number, result)?,
                _ = stop.changed() => break,
                input = self.inputs.recv(), if self.commits.waiting.len() < COMMITS => match input {
                    Some(input) => self.take(input),
                    None => break,
                },
                () = self.alarm.due() => {
                    let effects = self.controller.handle_timeout(clock::now());
                    self.carry_out(effects);
                }
            }
        }
        self.inputs.close();
        while !self.commits.waiting.is_empty() {
            let Some((number, result)) = self.commits.arrived.recv().await else { break };
            self.committed(number, result)?;
        }
        Ok(())
    }

    fn take(&mut self, input: Input) {
        let now = clock::now();
        let event = match input {
            Input::View(look) => return look(&self.controller, now),
            Input::Event(event) => event,
            Input::Ask(request, command, reply) => {
                self.replies.insert(request, reply);
                Event::Asked { request, command }
            }
        };
        let effects = self.controller.handle(now, event);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Effects) {
        let Effects { now, commit, then } = effects;
        for effect in now {
            self.carry_out_one(effect);
        }
        if commit.is_empty() && then.is_empty() {
            return;
        }
        let durable = commit.is_empty();
        self.commits.waiting.push_back(Waiting { durable, then });
        if durable {
            return self.speak();
        }
        let number = self.commits.first + self.commits.waiting.len() as u64 - 1;
        let done = self.commits.done.clone();
        // The loop may be gone by then: it has nothing more to say.
        self.shells.store.commit(commit, move |result| drop(done.send((number, result))));
    }

    fn committed(&mut self, number: u64, result: Result<(), StoreError>) -> Result<(), DriverError> {
        result?;
        let at = usize::try_from(number - self.commits.first).unwrap_or(usize::MAX);
        if let Some(waiting) = self.commits.waiting.get_mut(at) {
            waiting.durable = true;
        }
        self.speak();
        Ok(())
    }

    /// Carries out what follows the commits that are durable, in their order.
    fn speak(&mut self) {
        while self.commits.waiting.front().is_some_and(|waiting| waiting.durable) {
            let Some(waiting) = self.commits.waiting.pop_front() else { return };
            self.commits.first += 1;
            for effect in waiting.then {
                self.carry_out_one(effect);
            }
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Send { session, message } => self.shells.sessions.send(session, message),
            Effect::Close { session, reason } => self.shells.sessions.close(session, reason),
            Effect::SendSpecs { session, hashes } => {
                let mut specs = Vec::with_capacity(hashes.len());
                for hash in hashes {
                    match self.shells.store.spec(hash) {
                        Ok(Some(spec)) => specs.push(spec),
                        Ok(None) => tracing::warn!(%hash, "an agent wants a spec that the store does not have"),
                        Err(error) => tracing::error!(%error, "the store can't be read"),
                    }
                }
                self.shells.sessions.send(session, ControllerMessage::Specs(Specs { specs }));
            }
            Effect::SignCertificate { session, agent, csr } => match self.shells.pki.sign(&csr, &agent) {
                Ok(issued) => {
                    let certificate = Certificate { chain: issued.chain };
                    self.shells.sessions.send(session, ControllerMessage::Certificate(certificate));
                    let event = Event::CertificateIssued { agent, fingerprint: issued.fingerprint };
                    let effects = self.controller.handle(clock::now(), event);
                    self.carry_out(effects);
                }
                Err(error) => tracing::warn!(%agent, %error, "a certificate request was refused"),
            },
            Effect::Reply { request, result } => {
                if let Some(reply) = self.replies.remove(&request) {
                    // Who asked may have gone away.
                    drop(reply.send(*result));
                }
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
