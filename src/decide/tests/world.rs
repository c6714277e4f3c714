//! The world: stores and journals that keep what was committed, links that can be cut, processes that end when told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use indexmap::IndexMap;
use jiff::{SignedDuration, Timestamp};
use xene_agent::decide::{
    self as agent,
    event::{ExitStatus, JournalChange, Program, Recovered, StepExit, StepId},
    resume::Told,
    time::{BootTime, Now, after},
};
use xene_schemas::{
    meta::{AgentName, FileHash, Name, ObjectMeta, PipelineKey, Revision, RunName, SpecHash},
    phase::Transport,
    pipeline::{CompiledPipeline, PipelineFile, PipelineSpec},
    run::{Artifact, Run, RunTrigger, TriggerType},
    source::SourceKind,
    suspension::Suspension,
    trigger::Trigger,
    wire::control::{AgentMessage, ControllerMessage, Hello, Refused, Specs, StoreSeen, Tokens},
    workflow::WorkflowSpec,
};

use crate::decide::{
    Config, Controller,
    desired::{Desired, DesiredNotifier, DesiredWorkflow, SourceHealth, SourceOrigin, WorkflowBody},
    event::{
        Again, Answer, Authority, Command, Delivery, Effect, Effects, Event, Refusal, RequestId, RunOrder, SessionId,
    },
    rows::{
        AgentRow, Batch, Change, Fate, JoinTokenRow, LedgerRow, Loaded, MessageRow, NewEvent, NotifierHealth,
        NotifierRow, OwnerRow, RunRow, Suspendable,
    },
};

pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// A start that happened: when, where, of what run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) at: u64,
    pub(super) agent: String,
    pub(super) run: RunName,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Store {
    pub(super) loaded: Loaded,
    pub(super) owners: BTreeMap<PipelineKey, OwnerRow>,
    pub(super) agents: BTreeMap<AgentName, AgentRow>,
    pub(super) runs: BTreeMap<RunName, RunRow>,
    pub(super) specs: BTreeMap<SpecHash, Arc<[u8]>>,
    pub(super) ledger: Vec<LedgerRow>,
    pub(super) events: Vec<NewEvent>,
    pub(super) workflows: BTreeMap<Name, crate::decide::rows::WorkflowRow>,
    pub(super) pipelines: BTreeMap<PipelineKey, crate::decide::rows::PipelineRow>,
    pub(super) notifiers: BTreeMap<Name, NotifierRow>,
    pub(super) messages: BTreeMap<u64, MessageRow>,
    pub(super) notifier_health: BTreeMap<Name, NotifierHealth>,
    pub(super) fates: Vec<Fate>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) machine: Option<agent::Agent>,
    pub(super) journal: Recovered,
    pub(super) session: Option<SessionId>,
    pub(super) reachable: bool,
    /// Messages from the controller are lost.
    pub(super) deaf: bool,
    pub(super) boot_id: String,
    pub(super) exited: bool,
    /// How far its wall clock is ahead of the controller's.
    pub(super) ahead: SignedDuration,
    running: BTreeSet<StepId>,
    /// What outlives the process, but not the boot.
    told: BTreeMap<RunName, Vec<Told>>,
    labels: IndexMap<String, String>,
}

#[derive(Debug)]
enum Wire {
    ToController(SessionId, AgentMessage),
    ToAgent(SessionId, ControllerMessage),
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) seconds: u64,
    nanos: u64,
    /// How far the wall clock of the controller's host is ahead.
    pub(super) leapt: SignedDuration,
    pub(super) controller: Option<Controller>,
    pub(super) store: Store,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) starts: Vec<Start>,
    started_runs: BTreeSet<RunName>,
    /// The controller starts on a backup.
    pub(super) recover: bool,
    /// Logs do not get to the controller.
    pub(super) withhold_logs: bool,
    /// Steps do not end by themselves.
    pub(super) slow: bool,
    /// Steps fail.
    pub(super) fails: bool,
    /// Files do not come by themselves.
    pub(super) hold_files: bool,
    held_files: Vec<(String, SpecHash)>,
    /// Intents do not become durable by themselves.
    pub(super) hold_intents: bool,
    held_intents: Vec<(String, RunName)>,
    /// Artifacts that agents send.
    pub(super) uploads: Vec<(String, RunName, FileHash)>,
    pub(super) alerts: Vec<String>,
    pub(super) authority: Authority,
    /// Agents whose certificate is of an authority that was replaced.
    pub(super) outdated: BTreeSet<String>,
    /// Messages of notifiers that set out.
    pub(super) deliveries: Vec<Delivery>,
    /// Runs of which an agent's log says that all facts are at the controller.
    pub(super) settled: Vec<RunName>,
    pub(super) replies: BTreeMap<RequestId, Result<Answer, Refusal>>,
    /// What came of each Hello.
    pub(super) answers: BTreeMap<SessionId, Result<(), Refused>>,
    wire: VecDeque<Wire>,
    /// What happens on an agent once it has done what it is at.
    local: VecDeque<(String, agent::event::Event)>,
    sessions: u64,
    requests: u64,
    workflows: BTreeMap<Name, Arc<WorkflowBody>>,
    pub(super) notifiers: BTreeMap<Name, DesiredNotifier>,
    revision: u64,
    #[cfg(feature = "mutants")]
    pub(super) mutant: Option<agent::mutant::Mutant>,
}

pub(super) fn key(text: &str) -> PipelineKey {
    text.parse().unwrap()
}

impl World {
    pub(super) fn new(agents: &[&str]) -> Self {
        let mut world = Self::empty();
        agents.iter().for_each(|agent| world.add(agent));
        world
    }

    /// A controller with a new store, and nobody else.
    pub(super) fn empty() -> Self {
        let mut world = Self {
            seconds: 1_000,
            nanos: 0,
            leapt: SignedDuration::ZERO,
            controller: None,
            store: Store::default(),
            nodes: BTreeMap::new(),
            starts: Vec::new(),
            started_runs: BTreeSet::new(),
            recover: false,
            withhold_logs: false,
            slow: false,
            fails: false,
            hold_files: false,
            held_files: Vec::new(),
            hold_intents: false,
            held_intents: Vec::new(),
            uploads: Vec::new(),
            alerts: Vec::new(),
            authority: Authority::default(),
            outdated: BTreeSet::new(),
            deliveries: Vec::new(),
            settled: Vec::new(),
            replies: BTreeMap::new(),
            answers: BTreeMap::new(),
            wire: VecDeque::new(),
            local: VecDeque::new(),
            sessions: 0,
            requests: 0,
            workflows: BTreeMap::new(),
            notifiers: BTreeMap::new(),
            revision: 0,
            #[cfg(feature = "mutants")]
            mutant: None,
        };
        world.start_controller();
        world
    }

    pub(super) fn now(&self) -> Now {
        let boot = self.seconds * 1_000_000_000 + self.nanos;
        let wall = after(Timestamp::from_second(1_800_000_000).unwrap(), Duration::from_nanos(boot));
        Now { boot: BootTime::from_nanos(boot), wall }
    }

    /// As the controller's host tells the time.
    fn now_here(&self) -> Now {
        let now = self.now();
        Now { wall: now.wall + self.leapt, ..now }
    }

    /// As an agent's host tells the time.
    fn now_at(&self, name: &str) -> Now {
        let now = self.now();
        Now { wall: now.wall.saturating_add(self.nodes[name].ahead).unwrap(), ..now }
    }

    pub(super) fn start_controller(&mut self) {
        let config = Config {
            pause_margin: MINUTE,
            min_autonomy: Duration::from_secs(30),
            nonce: self.seconds,
            secret: [7; 32],
            recover: self.recover,
            software: "test".into(),
            store_id: format!("store-{}", self.seconds),
            boot_id: "boot".into(),
            source: SourceOrigin { kind: SourceKind::Git, url: "here".into(), branch: None, path: None },
            authority: self.authority.clone(),
            #[cfg(feature = "mutants")]
            mutant: self.mutant,
        };
        let mut loaded = self.store.loaded.clone();
        loaded.owners = self.store.owners.clone().into_iter().collect();
        loaded.agents = self.store.agents.values().cloned().collect();
        loaded.workflows = self.store.workflows.values().cloned().collect();
        loaded.pipelines = self.store.pipelines.values().cloned().collect();
        loaded.notifiers = self.store.notifiers.values().cloned().collect();
        loaded.messages = self.store.messages.values().cloned().collect();
        loaded.notifier_health = self.store.notifier_health.clone().into_iter().collect();
        let active = self.store.runs.values().filter(|row| !row.run.status.phase.is_final());
        loaded.active_runs = active.cloned().collect();
        for row in self.store.runs.values().filter(|row| row.run.status.phase.is_final()) {
            loaded
                .ended_runs
                .entry(row.run.spec.key())
                .or_default()
                .push(crate::decide::rows::EndedRun::new(&row.run, Timestamp::UNIX_EPOCH));
        }
        let (controller, fx) = Controller::new(self.now_here(), config, loaded);
        self.controller = Some(controller);
        self.carry_out(fx);
        for name in self.names() {
            self.connect(&name);
        }
        self.settle();
    }

    pub(super) fn stop_controller(&mut self) {
        self.controller = None;
        for name in self.names() {
            self.hang_up(&name);
        }
        self.settle();
    }

    fn names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    pub(super) fn add(&mut self, name: &str) {
        let id = format!("token-{name}");
        let expires_at = after(self.now().wall, MINUTE);
        let token = Command::CreateJoinToken(JoinTokenRow {
            id: id.clone(),
            secret_hash: "hash".into(),
            created_at: None,
            created_by: None,
            expires_at,
            uses_left: 1,
            labels: None,
            name: None,
        });
        self.ask(token).unwrap();
        let labels: IndexMap<String, String> = [("os".to_owned(), "linux".to_owned())].into_iter().collect();
        let enrol = Command::Enrol {
            id,
            secret_hash: "hash".into(),
            key: "key".into(),
            name: name.parse().unwrap(),
            labels: labels.clone(),
        };
        assert_eq!(self.ask(enrol).unwrap(), Answer::Enrolled(name.parse().unwrap()));
        self.ask(Command::Certify { agent: name.parse().unwrap(), fingerprint: String::new() }).unwrap();
        let node = Node {
            machine: None,
            journal: Recovered::default(),
            session: None,
            reachable: true,
            deaf: false,
            boot_id: "boot-1".into(),
            exited: false,
            ahead: SignedDuration::ZERO,
            running: BTreeSet::new(),
            told: BTreeMap::new(),
            labels,
        };
        self.nodes.insert(name.to_owned(), node);
        self.start_agent(name);
    }

    pub(super) fn label(&mut self, name: &str, label: &str, value: &str) {
        self.nodes.get_mut(name).unwrap().labels.insert(label.into(), value.into());
        self.crash(name);
        self.start_agent(name);
    }

    pub(super) fn start_agent(&mut self, name: &str) {
        let node = &self.nodes[name];
        let config = agent::Config {
            name: name.parse().unwrap(),
            labels: node.labels.clone(),
            slots: 4,
            software: "test".into(),
            instance: self.seconds,
            boot_id: node.boot_id.clone(),
            seed: 7,
            #[cfg(feature = "mutants")]
            mutant: self.mutant,
        };
        let recovered = Recovered { told: node.told.clone(), ..node.journal.clone() };
        let (machine, fx) = agent::Agent::new(self.now_at(name), config, recovered);
        self.nodes.get_mut(name).unwrap().machine = Some(machine);
        self.carry_out_at(name, fx);
        self.connect(name);
        self.settle();
    }

    /// The agent ends, and all steps with it.
    pub(super) fn crash(&mut self, name: &str) {
        let node = self.nodes.get_mut(name).unwrap();
        node.running.clear();
        node.told.clear();
        self.kill(name);
    }

    /// The agent ends, and steps go on.
    pub(super) fn kill(&mut self, name: &str) {
        self.nodes.get_mut(name).unwrap().machine = None;
        self.local.retain(|(of, _)| of != name);
        self.hang_up(name);
        self.settle();
    }

    pub(super) fn cut(&mut self, name: &str) {
        self.nodes.get_mut(name).unwrap().reachable = false;
        self.hang_up(name);
        self.settle();
    }

    pub(super) fn heal(&mut self, name: &str) {
        let node = self.nodes.get_mut(name).unwrap();
        (node.reachable, node.deaf) = (true, false);
        self.hang_up(name);
        self.connect(name);
        self.settle();
    }

    pub(super) fn connect(&mut self, name: &str) {
        let node = self.nodes.get_mut(name).unwrap();
        if self.controller.is_none() || node.machine.is_none() || !node.reachable || node.session.is_some() {
            return;
        }
        self.sessions += 1;
        node.session = Some(SessionId(self.sessions));
        self.tell_agent(name, agent::event::Event::Connected);
        let ended: Vec<RunName> = self.nodes[name].journal.runs.keys().copied().collect();
        for run in if self.withhold_logs { Vec::new() } else { ended } {
            self.tell_agent(name, agent::event::Event::LogDelivered(run));
        }
    }

    /// A session with this certificate is opened and closed at once: what the controller says against it.
    pub(super) fn refuses(&mut self, name: &str, fingerprint: &str) -> Option<Refused> {
        self.is_refused(name, fingerprint, None)
    }

    /// The same of another process that shows these tokens.
    pub(super) fn is_refused(&mut self, name: &str, fingerprint: &str, tokens: Option<Tokens>) -> Option<Refused> {
        let session = self.says_hello(name, fingerprint, tokens);
        let answer = self.answers.remove(&session);
        self.tell(Event::SessionClosed(session));
        answer.and_then(Result::err)
    }

    /// Another process with an agent's name opens a session.
    pub(super) fn says_hello(&mut self, name: &str, fingerprint: &str, tokens: Option<Tokens>) -> SessionId {
        self.says_hello_of(name, fingerprint, tokens, None)
    }

    /// The same, with a journal of this store.
    pub(super) fn says_hello_of(
        &mut self,
        name: &str,
        fingerprint: &str,
        tokens: Option<Tokens>,
        store: Option<StoreSeen>,
    ) -> SessionId {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let hello = Hello {
            version: 1,
            software: String::new(),
            instance: 1,
            boot_id: String::new(),
            labels: IndexMap::new(),
            slots: 1,
            claims: Vec::new(),
            wall: self.now().wall,
            store,
            runs: Vec::new(),
            tokens,
        };
        let (agent, fingerprint, address) = (name.parse().unwrap(), fingerprint.into(), "there".into());
        let (authority, transport, hello) = (String::new(), Transport::Quic, Box::new(hello));
        self.tell(Event::SessionOpened { session, agent, fingerprint, authority, address, transport, hello });
        session
    }

    fn hang_up(&mut self, name: &str) {
        let Some(session) = self.nodes.get_mut(name).and_then(|node| node.session.take()) else { return };
        self.wire.retain(|wire| !matches!(wire, Wire::ToController(s, _) | Wire::ToAgent(s, _) if *s == session));
        if self.nodes[name].machine.is_some() {
            self.tell_agent(name, agent::event::Event::Disconnected);
        }
        if self.controller.is_some() {
            self.tell(Event::SessionClosed(session));
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        let now = self.now_here();
        if let Some(controller) = &mut self.controller {
            let fx = controller.handle(now, event);
            self.carry_out(fx);
        }
    }

    pub(super) fn tell_agent(&mut self, name: &str, event: agent::event::Event) {
        let now = self.now_at(name);
        if let Some(machine) = self.nodes.get_mut(name).and_then(|node| node.machine.as_mut()) {
            let fx = machine.handle(now, event);
            self.carry_out_at(name, fx);
        }
    }

    pub(super) fn set_authority(&mut self, authority: Authority, by: &str) {
        self.authority = authority.clone();
        self.tell(Event::Authority { authority, by: by.into() });
    }

    pub(super) fn ask(&mut self, command: Command) -> Result<Answer, Refusal> {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.tell(Event::Asked { request, command });
        self.settle();
        self.replies.remove(&request).expect("a reply")
    }

    pub(super) fn start(&mut self, pipeline: &str, n: u128) -> Result<RunName, Refusal> {
        self.start_with(pipeline, n, &[])
    }

    pub(super) fn start_with(&mut self, pipeline: &str, n: u128, params: &[(&str, &str)]) -> Result<RunName, Refusal> {
        let order = self.order(pipeline, n, params);
        let run = order.run;
        self.ask(Command::StartRun(order)).map(|_| run)
    }

    /// A run that is started by hand.
    pub(super) fn order(&self, pipeline: &str, n: u128, params: &[(&str, &str)]) -> RunOrder {
        let pipeline = key(pipeline);
        let spec_hash = self.store.pipelines.get(&pipeline).map_or(SpecHash([0; 32]), |row| row.spec_hash);
        let trigger = RunTrigger { kind: TriggerType::Manual, name: None, scheduled_time: None, by: None };
        let run = RunName::new(Timestamp::from_second(1_800_000_000).unwrap(), n);
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        RunOrder { pipeline, spec_hash, run, trigger, params, payload: None, delivery: None, force: false }
    }

    /// Commits a workflow with one pipeline `p`: extra fields of the pipeline and, if given, a cron trigger.
    pub(super) fn commit(&mut self, workflow: &str, pipeline: &str, cron: Option<&str>) {
        self.commit_all(workflow, &[("p", pipeline)], cron, "{}");
    }

    /// Commits a workflow with these pipelines, of one task if they have none themselves, and these params of all.
    pub(super) fn commit_all(&mut self, workflow: &str, pipelines: &[(&str, &str)], cron: Option<&str>, params: &str) {
        let name: Name = workflow.parse().unwrap();
        let triggers = if cron.is_some() { r#","triggers":["tick"]"# } else { "" };
        let cron = cron.map(|cron| {
            let trigger: Trigger = serde_json::from_str(&format!(r#"{{"type":"cron",{cron}}}"#)).unwrap();
            ("tick".parse::<Name>().unwrap(), trigger)
        });
        let mut spec = WorkflowSpec {
            suspend: false,
            env: Default::default(),
            params: serde_json::from_str(params).unwrap(),
            files: Vec::new(),
            triggers: cron.into_iter().collect(),
            pipelines: Default::default(),
        };
        let mut compiled = BTreeMap::new();
        let mut all = Vec::new();
        for (pipeline, text) in pipelines {
            let tasks = if text.contains("\"tasks\"") { "" } else { r#","tasks":{"t":{"steps":["true"]}}"# };
            let text = format!("{{{}}}", format!("{tasks}{triggers}{text}").trim_start_matches(','));
            let of: PipelineSpec = serde_json::from_str(&text).unwrap();
            let pipeline: Name = pipeline.parse().unwrap();
            let entry = CompiledPipeline {
                key: PipelineKey { workflow: name.clone(), pipeline: pipeline.clone() },
                suspend: of.suspend,
                env: Default::default(),
                params: crate::compile::params::overlay(&spec.params, &of.params),
                triggers: spec.triggers.clone(),
                spec: of.clone(),
                files: vec![],
            };
            compiled.insert(pipeline.clone(), entry);
            all.push((pipeline, of));
        }
        spec.pipelines = all.into_iter().collect();
        let metadata = ObjectMeta {
            name: name.clone(),
            description: None,
            labels: Default::default(),
            annotations: Default::default(),
        };
        let body = WorkflowBody { metadata, spec, pipelines: compiled };
        self.workflows.insert(name, Arc::new(body));
        self.sync();
    }

    /// Commits another text of the one file that travels with a workflow.
    pub(super) fn commit_file(&mut self, workflow: &str, text: &str) {
        let body = Arc::make_mut(self.workflows.get_mut(workflow).unwrap());
        let hash = FileHash::of(text.as_bytes());
        let file = PipelineFile { path: "file".into(), hash, size: text.len() as u64, executable: false };
        body.pipelines.values_mut().for_each(|pipeline| pipeline.files = vec![file.clone()]);
        self.sync();
    }

    /// The files that agents wait for have come.
    pub(super) fn bring_files(&mut self) {
        self.hold_files = false;
        for (name, spec) in std::mem::take(&mut self.held_files) {
            self.tell_agent(&name, agent::event::Event::FilesReady(spec));
        }
        self.settle();
    }

    /// The intents that were held are durable.
    pub(super) fn let_intents(&mut self) {
        self.hold_intents = false;
        for (name, run) in std::mem::take(&mut self.held_intents) {
            self.tell_agent(&name, agent::event::Event::IntentDurable(run));
        }
        self.settle();
    }

    pub(super) fn remove(&mut self, workflow: &str) {
        self.workflows.remove(workflow);
        self.sync();
    }

    /// Commits the annotation that keeps a workflow once no file declares it.
    pub(super) fn keep(&mut self, workflow: &str) {
        let body = Arc::make_mut(self.workflows.get_mut(workflow).unwrap());
        body.metadata.annotations = [("xene/prune".to_owned(), "disabled".to_owned())].into_iter().collect();
        // Its hash is that of its spec.
        body.spec.files = vec!["kept".into()];
        self.sync();
    }

    pub(super) fn remove_all(&mut self, workflows: &[&str]) {
        workflows.iter().for_each(|workflow| drop(self.workflows.remove(*workflow)));
        self.sync();
    }

    /// The source was looked at, and this is its newest.
    pub(super) fn observe(&mut self) {
        let seen = Some(Revision(format!("r{}", self.revision)));
        let at = self.now().wall;
        self.tell(Event::Source(SourceHealth::Observed { seen, at, dirty: 0 }));
    }

    pub(super) fn suspend(&mut self, what: Suspendable, until: Option<Timestamp>) {
        let suspension = Suspension { by: "me".into(), since: self.now().wall, why: None, until };
        self.ask(Command::Suspend { what, suspension }).unwrap();
    }

    pub(super) fn rerun(&mut self, run: RunName, n: u128) -> Result<RunName, Refusal> {
        let original = self.store.runs[&run].clone();
        let run = RunName::new(self.now().wall, n);
        let again = Again { original, run, failed: false, by: "me".into(), delivery: None, force: false };
        self.ask(Command::Rerun(Box::new(again))).map(|_| run)
    }

    pub(super) fn sync(&mut self) {
        let desired = self.compile();
        self.tell(Event::Compiled(Box::new(desired)));
        self.settle();
    }

    /// The next revision, which nobody is told of yet.
    pub(super) fn compile(&mut self) -> Desired {
        self.revision += 1;
        let workflows = self.workflows.iter().map(|(name, body)| {
            let files: Vec<_> = body.pipelines.values().map(|pipeline| &pipeline.files).collect();
            let hash = SpecHash::of(&serde_json::to_vec(&(&body.spec, files)).unwrap());
            let path = format!("{name}.yaml");
            (name.clone(), DesiredWorkflow { hash, path, line: 1, valid: true, body: Some(body.clone()) })
        });
        Desired {
            revision: Revision(format!("r{}", self.revision)),
            base: None,
            author: None,
            subject: None,
            folder: String::new(),
            workflows: workflows.collect(),
            notifiers: self.notifiers.clone(),
            complete: true,
            files: BTreeMap::new(),
            problems: Vec::new(),
            ignored: 0,
        }
    }

    /// Lets the time pass; everything that is due on the way happens at its time.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now().boot + time;
        for round in 0.. {
            assert!(round < 1_000_000, "timers for ever");
            self.settle();
            let controller = self.controller.as_ref().and_then(Controller::next_timeout);
            let nodes = self.nodes.values().filter_map(|node| node.machine.as_ref()?.next_timeout());
            let next = nodes.chain(controller).min().filter(|next| *next <= end);
            let at = next.unwrap_or(end).max(self.now().boot);
            (self.seconds, self.nanos) = (at.as_nanos() / 1_000_000_000, at.as_nanos() % 1_000_000_000);
            let Some(_) = next else { break };
            let now = self.now_here();
            if let Some(controller) = self.controller.as_mut()
                && controller.next_timeout().is_some_and(|due| due <= now.boot)
            {
                let fx = controller.handle_timeout(now);
                self.carry_out(fx);
            }
            for name in self.names() {
                let now = self.now_at(&name);
                if let Some(machine) = self.nodes.get_mut(&name).unwrap().machine.as_mut()
                    && machine.next_timeout().is_some_and(|due| due <= now.boot)
                {
                    let fx = machine.handle_timeout(now);
                    assert!(machine.next_timeout().is_none_or(|due| due > now.boot), "a timer that never ends");
                    self.carry_out_at(&name, fx);
                }
            }
            self.check();
        }
        self.check();
    }

    /// Delivers what is on the wire, and what agents have still to hear of themselves.
    pub(super) fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 100_000, "they talk for ever: {:?}", self.wire.front());
            if let Some((name, event)) = self.local.pop_front() {
                self.tell_agent(&name, event);
                continue;
            }
            let Some(wire) = self.wire.pop_front() else { break };
            match wire {
                Wire::ToController(session, AgentMessage::Hello(hello)) => {
                    let Some(name) = self.name_of(session) else { continue };
                    self.tell(Event::SessionOpened {
                        session,
                        agent: name.parse().unwrap(),
                        fingerprint: String::new(),
                        authority: if self.outdated.contains(&name) {
                            "old".into()
                        } else {
                            self.authority.fingerprint.clone()
                        },
                        address: "here".into(),
                        transport: Transport::Quic,
                        hello: Box::new(hello),
                    });
                }
                Wire::ToController(session, message) => self.tell(Event::Message { session, message }),
                Wire::ToAgent(session, message) => {
                    let Some(name) = self.name_of(session).filter(|name| !self.nodes[name].deaf) else { continue };
                    self.tell_agent(&name, agent::event::Event::Message(message));
                }
            }
        }
        self.check();
    }

    fn name_of(&self, session: SessionId) -> Option<String> {
        self.nodes.iter().find(|(_, node)| node.session == Some(session)).map(|(name, _)| name.clone())
    }

    pub(super) fn carry_out(&mut self, fx: Effects) {
        fx.now.into_iter().for_each(|effect| self.effect(effect));
        self.store.apply(fx.commit);
        fx.then.into_iter().for_each(|effect| self.effect(effect));
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Send { session, message } => {
                match &message {
                    ControllerMessage::Welcome(_) => _ = self.answers.insert(session, Ok(())),
                    ControllerMessage::Refused(refused) => _ = self.answers.insert(session, Err(refused.clone())),
                    _ => {}
                }
                self.wire.push_back(Wire::ToAgent(session, message));
            }
            Effect::SendSpecs { session, hashes } => {
                let specs = hashes.iter().map(|hash| self.store.specs[hash].to_vec()).collect();
                self.wire.push_back(Wire::ToAgent(session, ControllerMessage::Specs(Specs { specs })));
            }
            Effect::Close { session, .. } => {
                if let Some(name) = self.name_of(session) {
                    self.hang_up(&name);
                }
            }
            Effect::Reply { request, result } => _ = self.replies.insert(request, *result),
            Effect::Alert(alert) => self.alerts.push(alert),
            Effect::SendFiles { .. }
            | Effect::DeleteLogs(_)
            | Effect::SignCertificate { .. }
            | Effect::SendRoots(_) => {}
            Effect::FinishRotation { newest, why } => {
                assert_eq!(newest, self.authority.fingerprint);
                self.set_authority(Authority { before: None, ..self.authority.clone() }, why)
            }
            Effect::Deliver(delivery) => self.deliveries.push(*delivery),
        }
    }

    fn carry_out_at(&mut self, name: &str, fx: agent::event::Effects) {
        fx.now.into_iter().for_each(|effect| self.agent_effect(name, effect));
        apply(&mut self.nodes.get_mut(name).unwrap().journal, fx.commit);
        fx.then.into_iter().for_each(|effect| self.agent_effect(name, effect));
    }

    fn agent_effect(&mut self, name: &str, effect: agent::event::Effect) {
        use agent::event::{Effect, Event};
        let seconds = self.seconds;
        let node = self.nodes.get_mut(name).unwrap();
        match effect {
            Effect::Send(message) => {
                if let Some(session) = node.session {
                    self.wire.push_back(Wire::ToController(session, message));
                }
            }
            Effect::Disconnect => self.hang_up(name),
            Effect::ConfirmIntent(run) if self.hold_intents => self.held_intents.push((name.to_owned(), run)),
            Effect::ConfirmIntent(run) => self.local.push_back((name.to_owned(), Event::IntentDurable(run))),
            Effect::Remember { run, told } => node.told.entry(run).or_default().push(told),
            Effect::SpawnStep(command) if node.running.contains(&command.id) => {}
            Effect::SpawnStep(command) if matches!(command.program, Program::Save(_)) => {
                let text = b"saved";
                let (size, hash) = (text.len() as u64, FileHash::of(text));
                let saved = vec![Artifact { path: "saved".into(), size, hash, executable: false }];
                let exit = StepExit { status: ExitStatus::Saved(saved), outputs: Ok(vec![]), leftovers: vec![] };
                self.local.push_back((name.to_owned(), Event::StepExited { id: command.id, exit }));
            }
            Effect::SpawnStep(command) if command.id.task != "t" => {
                node.running.insert(command.id);
                self.end_steps(name);
            }
            Effect::SpawnStep(command) => {
                assert!(self.started_runs.insert(command.id.run), "I2: {} starts twice", command.id.run);
                self.starts.push(Start { at: seconds, agent: name.to_owned(), run: command.id.run });
                node.running.insert(command.id);
                if !self.slow {
                    self.end_steps(name);
                }
            }
            Effect::SignalStep { id, .. } => {
                if node.running.remove(&id) {
                    let exit = StepExit { status: ExitStatus::Signal(15), outputs: Ok(vec![]), leftovers: vec![] };
                    self.local.push_back((name.to_owned(), Event::StepExited { id, exit }));
                }
            }
            Effect::FinishRun { run, .. } => {
                node.told.remove(&run);
                if node.session.is_some() && !self.withhold_logs {
                    self.local.push_back((name.to_owned(), Event::LogDelivered(run)));
                }
            }
            Effect::SettleRun(run) => self.settled.push(run),
            Effect::BoundRun { run, until } => _ = node.journal.bounds.insert(run, until),
            Effect::KeepRenewal(renewal) => node.journal.renewal = Some(renewal),
            Effect::Exit => node.exited = true,
            Effect::Alert(alert) => self.alerts.push(alert),
            Effect::FetchFiles { spec, .. } if self.hold_files => self.held_files.push((name.to_owned(), spec)),
            Effect::FetchFiles { spec, .. } => self.local.push_back((name.to_owned(), Event::FilesReady(spec))),
            Effect::UploadArtifacts { run, artifacts } => {
                self.uploads.extend(artifacts.iter().map(|artifact| (name.to_owned(), run, artifact.hash)));
            }
            Effect::ForgetFiles(_)
            | Effect::ArtifactStored { .. }
            | Effect::LogNote { .. }
            | Effect::ForgetRun(_)
            | Effect::InstallCertificate(_)
            | Effect::LogAcknowledged { .. } => {}
        }
    }

    pub(super) fn end_steps(&mut self, name: &str) {
        let code = i32::from(self.fails);
        for id in std::mem::take(&mut self.nodes.get_mut(name).unwrap().running) {
            let exit = StepExit { status: ExitStatus::Code(code), outputs: Ok(vec![]), leftovers: vec![] };
            self.local.push_back((name.to_owned(), agent::event::Event::StepExited { id, exit }));
        }
    }

    /// I1 after every step; I2 is asserted where steps start, I3 and I10 where rows are applied.
    fn check(&self) {
        let now = self.now();
        for key in self.store.owners.keys() {
            let able: Vec<&String> = self
                .nodes
                .iter()
                .filter(|(_, node)| node.machine.as_ref().is_some_and(|machine| machine.may_start(now, key)))
                .map(|(name, _)| name)
                .collect();
            assert!(able.len() <= 1, "I1: {able:?} may start {key}");
        }
    }

    /// True if a step runs on an agent's host.
    pub(super) fn runs_on(&self, name: &str) -> bool {
        !self.nodes[name].running.is_empty()
    }

    pub(super) fn run(&self, run: RunName) -> &Run {
        &self.store.runs[&run].run
    }

    pub(super) fn owner(&self, pipeline: &str) -> Option<String> {
        self.store.owners.get(&key(pipeline))?.owner.as_ref().map(ToString::to_string)
    }

    /// When runs started on an agent, in seconds of the world.
    pub(super) fn started(&self, agent: &str) -> Vec<u64> {
        self.starts.iter().filter(|start| start.agent == agent).map(|start| start.at).collect()
    }
}

impl Store {
    pub(super) fn pipelines_known(&self) -> usize {
        self.pipelines.len()
    }

    fn apply(&mut self, batch: Batch) {
        for change in batch {
            match change {
                Change::PutWorkflow(row) => _ = self.workflows.insert(row.metadata.name.clone(), *row),
                Change::DeleteWorkflow(name) => _ = self.workflows.remove(&name),
                Change::PutPipeline(row) => _ = self.pipelines.insert(row.key.clone(), *row),
                Change::DeletePipeline(key) => _ = self.pipelines.remove(&key),
                Change::PutSpec(hash, bytes) => _ = self.specs.insert(hash, bytes),
                Change::PutOwner(key, row) => {
                    if let Some(old) = self.owners.get(&key) {
                        assert!(old.epoch <= row.epoch, "I3: the epoch of {key} fell");
                        assert!(old.watermark <= row.watermark, "I10: the watermark of {key} fell");
                    }
                    self.owners.insert(key, row);
                }
                Change::PutAgent(row) => _ = self.agents.insert(row.name.clone(), *row),
                Change::DeleteAgent(name) => _ = self.agents.remove(&name),
                Change::PutForgotten(agents) => self.loaded.forgotten = agents,
                Change::PutRun(row) => _ = self.runs.insert(row.run.metadata.name, *row),
                Change::DeleteRun(run) => _ = self.runs.remove(&run),
                Change::PutSource(status) => self.loaded.source = Some(*status),
                Change::PutLedger(row) => self.ledger.push(row),
                Change::PutController(row) => self.loaded.controller = Some(row),
                Change::PutAfter(key, row) => {
                    self.loaded.after.retain(|(of, _)| *of != key);
                    self.loaded.after.extend(row.map(|row| (key, row)));
                }
                Change::PutSuspension(row) => {
                    self.loaded.suspensions.retain(|old| old.what != row.what);
                    self.loaded.suspensions.push(row);
                }
                Change::Redigest => {}
                Change::DeleteSuspension(what) => self.loaded.suspensions.retain(|row| row.what != what),
                Change::AddEvent(event) => self.events.push(event),
                Change::PutNotifier(row) => _ = self.notifiers.insert(row.metadata.name.clone(), *row),
                Change::DeleteNotifier(name) => {
                    self.notifiers.remove(&name);
                    self.notifier_health.remove(&name);
                }
                Change::PutMessage(row) => _ = self.messages.insert(row.number, *row),
                Change::DeleteMessage(_, number, fate) => {
                    self.messages.remove(&number);
                    self.fates.push(fate);
                }
                Change::PutNotifierHealth(name, row) => _ = self.notifier_health.insert(name, row),
                Change::PutFile(..)
                | Change::PutJoinToken(_)
                | Change::DeleteJoinToken(_)
                | Change::PutApiToken(_)
                | Change::DeleteApiToken(_)
                | Change::PutDelivery(..) => {}
            }
        }
    }
}

fn apply(journal: &mut Recovered, changes: Vec<JournalChange>) {
    for change in changes {
        match change {
            JournalChange::PutClaim(key, row) => {
                if let Some(old) = journal.claims.get(&key) {
                    assert!(old.epoch <= row.epoch && old.watermark <= row.watermark, "I3, I10: {key}");
                }
                journal.claims.insert(key, row);
            }
            JournalChange::PutRun(run, row) => {
                if let Some(facts) = journal.facts.get_mut(&run) {
                    facts.retain(|index, _| *index >= row.acknowledged);
                }
                journal.runs.insert(run, row);
            }
            JournalChange::PutFact(run, index, event) => {
                journal.facts.entry(run).or_default().insert(index, event);
            }
            JournalChange::DeleteRun(run) => {
                journal.runs.remove(&run);
                journal.facts.remove(&run);
            }
            JournalChange::PutSpec(hash, bytes) => _ = journal.specs.insert(hash, bytes),
            JournalChange::DeleteSpec(hash) => _ = journal.specs.remove(&hash),
            JournalChange::PutSkipped(number, row) => _ = journal.skipped.insert(number, row),
            JournalChange::DeleteSkipped(next) => journal.skipped.retain(|number, _| *number >= next),
            JournalChange::PutStore(store) => journal.store = Some(store),
            JournalChange::PutBoot(boot) => journal.boot_id = Some(boot),
            JournalChange::PutName(name) => journal.name = Some(name),
            JournalChange::PutToken(token) => journal.token = Some(token),
        }
    }
}
