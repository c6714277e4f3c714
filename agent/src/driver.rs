//! The loop between the agent's machine and its shells: event in, commit, then effects out.

use std::{collections::HashMap, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use xene_schemas::{
    meta::{AgentName, Epoch, Labels, PipelineKey, RunName, SpecHash},
    pipeline::CompiledPipeline,
    wire::{
        control::{AgentMessage, ControllerMessage},
        logs::LogHeader,
    },
};

use crate::{
    bounds::BoundFiles,
    clock::{self, Alarm},
    commits::Commits,
    content::ContentStore,
    decide::{
        Agent, Config,
        event::{Effect, Effects, Event, JournalChange, RunRow},
    },
    exec::{Exec, ExecConfig, ExecEvent, Held, find_cgroup, sweep_stale},
    journal::{Journal, JournalError},
    lmdb::{CommitError, DataLock, LockError},
    logs::{Limits, Logs, RunLog},
    memory::Trim,
    renewal::RenewalFile,
    session::{
        Transports,
        artifacts::ArtifactUploads,
        client::{self, ClientConfig, ClientEvent},
        download::Downloads,
        frames::Outgoing,
        identity::{Identity, IdentityError},
        token::{JoinToken, TokenError},
        upload::{LogSource, Uploads},
    },
    told::ToldFiles,
};

/// Facts of the session and of processes wait here while the machine is busy: a controller that says more slows down
/// by flow control, and a process that ends waits to be noticed.
const EVENTS: usize = 256;

/// How long processes may take to end after SIGKILL; longer ones are stuck in the kernel.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// How long after a spec has gone its files go, and how old they must be.
const SWEEP_AFTER: Duration = Duration::from_secs(10 * 60);

/// What an operator sets.
#[derive(Debug, Clone)]
pub struct Options {
    /// `HOST:PORT` of the controller.
    pub controller: String,
    /// By what it is reached.
    pub transports: Transports,
    /// Needed once; afterwards the stored identity serves.
    pub token: Option<String>,
    /// The name to enrol under.
    pub name: AgentName,
    /// Beside `os`, `arch`, `hostname`.
    pub labels: Labels,
    /// How many tasks run at once.
    pub slots: u32,
    /// Where everything is kept.
    pub data_dir: PathBuf,
}

/// Why an agent can't start, or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The data folder can't be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It has no identity, or can't get one.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is neither an identity nor a token.
    #[error("this agent has not joined yet: give it a join token with --token")]
    NotJoined,
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The journal can't be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal can't be written: nothing more may start.
    #[error("the journal can't be written")]
    Commit(#[from] CommitError),
    /// The controller refuses this identity for good; a sentence says why.
    #[error("{0}")]
    Refused(String),
    /// The system refuses something that every agent needs.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// How an agent is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// Go on.
    No,
    /// Give everything back, finish what runs (the first SIGTERM).
    Drain,
    /// Cancel what runs (the second).
    Stop,
    /// End at once, and leave what runs to the next process (SIGHUP).
    Leave,
}

impl Ending {
    /// What one more SIGTERM or Ctrl-C means.
    pub fn next(self) -> Self {
        match self {
            Self::No => Self::Drain,
            Self::Drain | Self::Stop => Self::Stop,
            Self::Leave => Self::Leave,
        }
    }
}

/// The built-in labels with an operator's own, which win.
pub fn labels(own: &Labels) -> Labels {
    let mut labels = Labels::new();
    labels.insert("os".into(), std::env::consts::OS.into());
    labels.insert("arch".into(), std::env::consts::ARCH.into());
    labels.insert("hostname".into(), rustix::system::uname().nodename().to_string_lossy().into_owned());
    labels.extend(own.clone());
    labels
}

/// Runs an agent to its end.
///
/// # Errors
/// If it can't start, or can't go on.
pub async fn run(options: Options, mut ending: watch::Receiver<Ending>) -> Result<(), AgentError> {
    let _lock = DataLock::acquire(&options.data_dir)?;
    let folder = options.data_dir.join("identity");
    let identity = match Identity::load(&folder)? {
        Some(identity) => identity,
        None => {
            let token: JoinToken = options.token.as_deref().ok_or(AgentError::NotJoined)?.parse()?;
            let labels = labels(&options.labels);
            let controller = (&*options.controller, options.transports);
            tokio::select! {
                enrolled = Identity::enrol(controller, &token, options.name.clone(), labels, &folder) => enrolled?,
                // It has nothing yet that it would give back.
                Ok(_) = ending.wait_for(|ending| *ending != Ending::No) => return Ok(()),
            }
        }
    };
    Driver::new(options, Arc::new(identity))?.run(ending).await
}

/// The loop: owns the machine, takes one event after the other, and never waits for the disk.
#[derive(Debug)]
struct Driver {
    agent: Agent,
    journal: Journal,
    exec: Exec,
    logs: Logs,
    uploads: Uploads<SpoolSource>,
    files: ContentStore,
    downloads: Downloads,
    artifacts: ArtifactUploads,
    told: ToldFiles,
    renewal: RenewalFile,
    bounds: BoundFiles,
    /// Specs all of whose files are here.
    complete: mpsc::UnboundedReceiver<SpecHash>,
    /// When files that nobody needs are looked for; `None`: no spec has gone since.
    sweep_at: Option<tokio::time::Instant>,
    identity: Arc<Identity>,
    session: Option<Outgoing<AgentMessage>>,
    sessions: mpsc::Receiver<ClientEvent>,
    processes: mpsc::Receiver<ExecEvent>,
    commits: Commits<Effect>,
    /// From the journal's writer; as many as there are commits, which events bound.
    committed: (mpsc::UnboundedSender<Committing>, mpsc::UnboundedReceiver<Committing>),
    /// Whether the journal waits for room on the disk.
    full: watch::Receiver<bool>,
    alarm: Alarm,
    trim: Trim,
    /// Runs whose log is not wholly at the controller: what their log stream says first.
    open_logs: HashMap<RunName, (PipelineKey, Epoch)>,
    exit: bool,
    /// Why the controller will never let this identity in again.
    refused: Option<String>,
}

/// What came of the commit of this number.
type Committing = (u64, Result<(), CommitError>);

impl Driver {
    fn new(options: Options, identity: Arc<Identity>) -> Result<Self, AgentError> {
        let system = |what| move |source| AgentError::System { what, source };
        let data = &options.data_dir;
        let files = ContentStore::open(&data.join("cache/files")).map_err(system("files can't be kept"))?;
        let work = ExecConfig {
            work_dir: data.join("work"),
            cache_dir: data.join("cache"),
            files: files.clone(),
            cgroup: find_cgroup(&data.join("work")),
            outlives: true,
            bounds: Some(data.join("bounds")),
        };
        let (journal, mut recovered) = Journal::open(data)?;
        let full = journal.full();
        // A spec without its files is none: it is asked for again.
        recovered.specs.retain(|_, bytes| {
            CompiledPipeline::decode(bytes).is_ok_and(|spec| spec.files.iter().all(|file| files.has(&file.hash)))
        });
        let told = ToldFiles::open(&data.join("told"));
        let (mut told, found) = told.map_err(system("what runs were told can't be kept"))?;
        for run in told.runs(&found).into_iter().filter(|run| !recovered.runs.contains_key(run)) {
            told.forget(run);
        }
        recovered.told = found;
        let (bounds, bound) = BoundFiles::open(&data.join("bounds")).map_err(system("bounds of runs can't be kept"))?;
        for run in bound.keys().filter(|run| !recovered.runs.contains_key(run)) {
            bounds.forget(*run);
        }
        recovered.bounds = bound;
        let boot_id = clock::boot_id().map_err(system("the host's boot can't be told"))?;
        let (renewal, kept) = RenewalFile::open(&data.join("renewal"));
        recovered.renewal = kept;
        let logs = Logs::open(&data.join("logs"), Limits::default()).map_err(system("logs can't be kept"))?;

        let mut open_logs = HashMap::new();
        let uploads = Uploads::default();
        for (run, row) in &recovered.runs {
            open_logs.insert(*run, (row.spec.key(), row.epoch));
        }
        for found in logs.found() {
            let Some((pipeline, epoch)) = open_logs.get(&found.run).cloned() else {
                // Its row went with the last acknowledgement; the crash came before the file went too.
                drop(logs.remove(found.run));
                continue;
            };
            let header = LogHeader { run: found.run, pipeline, epoch, offset: 0, settled: false };
            uploads.add(header, SpoolSource(logs.create(found.run)));
        }

        let config = Config {
            name: identity.name(),
            labels: labels(&options.labels),
            slots: options.slots,
            software: env!("CARGO_PKG_VERSION").into(),
            instance: random().map_err(system("the system gives no random bytes"))?,
            boot_id,
            seed: random().map_err(system("the system gives no random bytes"))?,
            #[cfg(feature = "mutants")]
            mutant: None,
        };
        let (agent, effects) = Agent::new(clock::now(), config, recovered);
        let swept = sweep_stale(&work, |run| agent.goes_on(run));
        let swept = swept.map_err(system("what a crash left can't be swept"))?;
        if !swept.is_empty() {
            tracing::warn!(processes = swept.join(", "), "ended what an agent that crashed had left running");
        }
        let (sender, processes) = mpsc::channel(EVENTS);
        let exec = Exec::new(work, sender).map_err(system("steps can't be run"))?;
        let (sender, sessions) = mpsc::channel(EVENTS);
        let client = ClientConfig { transports: options.transports, ..ClientConfig::new(options.controller) };
        let artifacts = ArtifactUploads::new(files.clone());
        let (completed, complete) = mpsc::unbounded_channel();
        let downloads = Downloads::new(files.clone(), completed);
        tokio::spawn(client::run(
            client,
            Arc::clone(&identity),
            (uploads.clone(), downloads.clone(), artifacts.clone()),
            sender,
        ));
        let mut driver = Self {
            agent,
            journal,
            exec,
            logs,
            uploads,
            files,
            downloads,
            artifacts,
            told,
            renewal,
            bounds,
            complete,
            sweep_at: Some(tokio::time::Instant::now() + SWEEP_AFTER),
            identity,
            session: None,
            sessions,
            processes,
            commits: Commits::default(),
            committed: mpsc::unbounded_channel(),
            full,
            alarm: Alarm::new().map_err(system("the system gives no timer"))?,
            trim: Trim::after_start(),
            open_logs,
            exit: false,
            refused: None,
        };
        driver.carry_out(effects);
        Ok(driver)
    }

    async fn run(mut self, mut ending: watch::Receiver<Ending>) -> Result<(), AgentError> {
        let timer = |source| AgentError::System { what: "the system gives no timer", source };
        let mut told = Ending::No;
        loop {
            self.speak();
            if let Some(message) = self.refused.take() {
                self.end_steps().await;
                return Err(AgentError::Refused(message));
            }
            if self.exit {
                break;
            }
            self.alarm.set(self.agent.next_timeout()).map_err(timer)?;
            let event = tokio::select! {
                biased;
                Some((number, result)) = self.committed.1.recv() => {
                    // What runs goes on: a process that can write the journal finds it.
                    result?;
                    self.commits.durable(number);
                    continue;
                }
                Some(ExecEvent { id, exit, held }) = self.processes.recv() => {
                    self.take(Event::StepExited { id, exit });
                    held.inspect(Held::release);
                    continue;
                }
                Ok(()) = self.full.changed() => match *self.full.borrow_and_update() {
                    true => Event::JournalFailed,
                    false => Event::JournalWorks,
                },
                Some(spec) = self.complete.recv() => Event::FilesReady(spec),
                Some(event) = self.sessions.recv() => match self.session_event(event) {
                    Some(event) => event,
                    None => continue,
                },
                () = self.alarm.due() => {
                    let effects = self.agent.handle_timeout(clock::now());
                    self.carry_out(effects);
                    continue;
                }
                () = sleep_until(self.sweep_at) => {
                    self.sweep_at = None;
                    self.sweep_files();
                    continue;
                }
                changed = ending.changed() => {
                    let wanted = if changed.is_ok() { *ending.borrow_and_update() } else { Ending::Stop };
                    if wanted <= told {
                        continue;
                    }
                    told = wanted;
                    match wanted {
                        Ending::No => continue,
                        Ending::Drain => Event::DrainRequested,
                        Ending::Stop => Event::StopRequested,
                        Ending::Leave => break,
                    }
                }
            };
            self.take(event);
        }
        if let Some(session) = self.session.take() {
            session.close(client::ENDING);
            // The controller, which gets the last bytes, ends the session.
            let ended = async {
                while let Some(event) = self.sessions.recv().await {
                    if matches!(event, ClientEvent::Disconnected(_)) {
                        break;
                    }
                }
            };
            drop(tokio::time::timeout(Duration::from_secs(3), ended).await);
        }
        Ok(())
    }

    /// Kills every step, and waits until their trees are gone.
    async fn end_steps(&mut self) {
        self.exec.kill_all();
        let ended = async {
            while self.exec.running() > 0
                && let Some(event) = self.processes.recv().await
            {
                event.held.inspect(Held::release);
            }
        };
        if tokio::time::timeout(KILLED_WITHIN, ended).await.is_err() {
            tracing::error!("processes of steps do not end");
        }
    }

    fn session_event(&mut self, event: ClientEvent) -> Option<Event> {
        Some(match event {
            ClientEvent::Connected(session) => {
                self.session = Some(session);
                self.logs.set_connected(true);
                Event::Connected
            }
            ClientEvent::Message(message) => {
                if let ControllerMessage::Refused(refused) = &message
                    && !refused.retry
                {
                    self.refused = Some(refused.message.clone());
                }
                Event::Message(message)
            }
            ClientEvent::Disconnected(_) => {
                self.logs.set_connected(false);
                self.session = None;
                Event::Disconnected
            }
        })
    }

    fn take(&mut self, event: Event) {
        let effects = self.agent.handle(clock::now(), event);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Effects) {
        let Effects { now, commit, then } = effects;
        for change in &commit {
            match change {
                JournalChange::PutRun(run, RunRow { spec, epoch, .. }) => {
                    self.open_logs.entry(*run).or_insert_with(|| (spec.key(), *epoch));
                }
                JournalChange::DeleteRun(run) => {
                    drop(self.open_logs.remove(run));
                    self.sweep_at.get_or_insert_with(|| tokio::time::Instant::now() + SWEEP_AFTER);
                }
                JournalChange::DeleteSpec(_) => {
                    self.sweep_at.get_or_insert_with(|| tokio::time::Instant::now() + SWEEP_AFTER);
                }
                _ => {}
            }
        }
        for effect in now {
            self.carry_out_one(effect);
        }
        if commit.is_empty() {
            if !then.is_empty() {
                self.commits.push(then, true);
            }
            return;
        }
        self.trim.worked(commit.len());
        let number = self.commits.push(then, false);
        let done = self.committed.0.clone();
        // The loop may be gone by then: it has nothing more to say.
        self.journal.commit(commit, move |result| drop(done.send((number, result))));
    }

    /// Carries out what follows the commits that are durable, in their order.
    fn speak(&mut self) {
        while let Some(effects) = self.commits.next_durable() {
            for effect in effects {
                self.carry_out_one(effect);
            }
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Send(message) => {
                if let Some(session) = &self.session {
                    // A session that has just ended tells so itself.
                    let _ = session.send(&message);
                }
            }
            Effect::Disconnect => {
                if let Some(session) = &self.session {
                    session.close("the agent begins anew");
                }
            }
            Effect::ConfirmIntent(run) => self.take(Event::IntentDurable(run)),
            Effect::Remember { run, told } => self.told.remember(run, &told),
            Effect::BoundRun { run, until } => self.bounds.bound(run, until),
            Effect::KeepRenewal(renewal) => self.renewal.keep(&renewal),
            Effect::SpawnStep(command) => {
                let log = self.log(command.id.run);
                self.exec.spawn(*command, log);
            }
            Effect::SignalStep { id, signal } => self.exec.signal(&id, signal),
            Effect::FetchFiles { spec, files } => self.downloads.want(spec, &files),
            Effect::ForgetFiles(spec) => self.downloads.forget(&spec),
            Effect::UploadArtifacts { run, artifacts } => self.artifacts.add(run, &artifacts),
            Effect::ArtifactStored { run, hash } => self.artifacts.stored(run, hash),
            Effect::LogNote { run, text } => self.log(run).note(&text),
            Effect::FinishRun { run, keep_workspace } => {
                self.log(run).seal();
                self.told.forget(run);
                self.bounds.forget(run);
                drop(self.exec.finish_run(run, keep_workspace));
                self.check_delivered(run);
            }
            Effect::SettleRun(run) => self.uploads.settle(run),
            Effect::ForgetRun(run) => {
                self.uploads.remove(run);
                if let Err(error) = self.logs.remove(run) {
                    tracing::warn!(%run, %error, "a log can't be removed");
                }
            }
            Effect::InstallCertificate(chain) => {
                if let Err(error) = self.identity.install(&chain) {
                    tracing::error!(%error, "the new certificate can't be used");
                }
            }
            Effect::LogAcknowledged { run, offset } => {
                self.uploads.acknowledged(run, offset);
                if let Some(log) = self.logs.get(run) {
                    log.acknowledged(offset);
                }
                self.check_delivered(run);
            }
            Effect::Exit => self.exit = true,
            Effect::Alert(text) => tracing::warn!("{text}"),
        }
    }

    /// Removes files that no spec names any more, in the background.
    fn sweep_files(&self) {
        let (files, used) = (self.files.clone(), self.agent.files_in_use());
        tokio::task::spawn_blocking(move || {
            // What was asked for since is younger than that.
            match files.sweep(SWEEP_AFTER, |hash| used.contains(hash)) {
                Ok(removed) => tracing::debug!(removed, "files that no spec names were removed"),
                Err(error) => tracing::warn!(%error, "files that no spec names were not removed"),
            }
        });
    }

    /// The run's log, on its way to the controller from its first record on.
    fn log(&mut self, run: RunName) -> Arc<RunLog> {
        if let Some(log) = self.logs.get(run) {
            return log;
        }
        let log = self.logs.create(run);
        if let Some((pipeline, epoch)) = self.open_logs.get(&run).cloned() {
            let header = LogHeader { run, pipeline, epoch, offset: 0, settled: false };
            self.uploads.add(header, SpoolSource(Arc::clone(&log)));
        }
        log
    }

    fn check_delivered(&mut self, run: RunName) {
        if self.logs.get(run).is_some_and(|log| log.is_delivered()) {
            self.take(Event::LogDelivered(run));
        }
    }
}

/// A run's log as the session reads it.
#[derive(Debug)]
struct SpoolSource(Arc<RunLog>);

impl LogSource for SpoolSource {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }

    async fn wait_for(&self, offset: u64) {
        self.0.wait_for(offset).await;
    }

    fn is_sealed(&self) -> bool {
        self.0.is_sealed()
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::from)
}
