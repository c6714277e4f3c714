//! A random plan of faults over one cluster, from its seed; then everything is healed, and becomes quiet.

use std::{
    collections::BTreeMap,
    fmt,
    fs::OpenOptions,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use xene_test_support::{
    cluster::Cluster,
    disk::SmallDisk,
    process::shims_below,
    relay::{Link, Relay, Way},
    sim::Random,
    within,
};

use crate::{
    check::{self, Seen},
    client::{Acknowledged, Api, Client},
    tools::FakeClock,
    world::{AGENT, AGENTS, CONTROLLER, CRON, EXTRA, due, workflow},
};

/// How long agents may take to be connected again, and runs to end, once everything is healed.
const QUIET: Duration = Duration::from_secs(120);

/// Who a fault happens to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Controller,
    Agent(&'static str),
    /// The network of an agent.
    Link(&'static str),
    /// Whether an agent may own anything.
    Place(&'static str),
    /// The disk of the controller, or of an agent.
    Disk(&'static str),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller => f.write_str("controller"),
            Self::Agent(name) => write!(f, "agent {name}"),
            Self::Link(name) => write!(f, "link of {name}"),
            Self::Place(name) => write!(f, "place of {name}"),
            Self::Disk(name) => write!(f, "disk of {name}"),
        }
    }
}

/// What ends a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cure {
    Start,
    Continue,
    /// A second SIGTERM, in case it still waits for what runs.
    Urge,
    /// It has been urged: it is started again once it has ended, and killed if that is not so by then.
    Reap(Instant),
    Mend,
    FreeDisk,
    SetClockRight,
    Undrain,
}

/// A cluster, and what is done to it.
pub(crate) struct Chaos {
    /// Unmounted before the cluster removes its folder.
    disks: BTreeMap<&'static str, SmallDisk>,
    cluster: Cluster,
    random: Random,
    began: Instant,
    ends: Instant,
    relays: BTreeMap<&'static str, Relay>,
    /// The agents' clocks, where the machine can fake them.
    clocks: BTreeMap<&'static str, FakeClock>,
    cures: Vec<(Instant, Who, Cure)>,
    client: Option<Client>,
    edition: u64,
    seen: Seen,
    acknowledged: Acknowledged,
}

impl Chaos {
    /// A whole cluster of this program, in which everything has begun to run.
    pub(crate) fn begin(seed: u64, lasts: Duration, program: PathBuf) -> Self {
        let mut random = Random::new(seed);
        let mut cluster = Cluster::start(&CONTROLLER);
        cluster.program = program;
        cluster.controller.take().unwrap().terminate();
        std::fs::remove_dir_all(cluster.data()).unwrap();
        let mut disks = BTreeMap::new();
        for (name, folder) in [("controller", cluster.data()), ("c", cluster.folder().join("agent-c"))] {
            disks.extend(SmallDisk::mount(&folder, "512m").map(|disk| (name, disk)));
        }
        if disks.is_empty() {
            println!("no file system can be mounted here: no disk becomes full");
        }
        let clock = |name| Some((name, FakeClock::new(&cluster.folder().join(format!("clock-{name}")))?));
        let clocks = AGENTS.into_iter().filter_map(clock).collect();
        cluster.start_controller();
        let mut relays = BTreeMap::new();
        for name in AGENTS {
            let relay = Relay::to(cluster.quic().parse().unwrap(), random.draw());
            cluster.dials.insert(name.into(), relay.address());
            relays.insert(name, relay);
        }
        for name in AGENTS {
            cluster.start_agent(name, &AGENT);
        }
        let now = Instant::now();
        let mut chaos = Self {
            disks,
            cluster,
            random,
            began: now,
            ends: now + lasts,
            relays,
            clocks,
            cures: Vec::new(),
            client: None,
            edition: 0,
            seen: Seen::default(),
            acknowledged: Acknowledged::default(),
        };
        chaos.write_workflow(false);
        chaos.write_others();
        // There is something to go back to.
        chaos.cluster.repository.commit("first");
        chaos.write_workflow(false);
        chaos.cluster.commit("begin");
        for pipeline in CRON.iter().map(|cron| cron.name).chain(["hand", "hook"]) {
            chaos.cluster.scheduled(&format!("chaos/{pipeline}"));
        }
        chaos.seen.since = Timestamp::now();
        chaos.client = Some(Client::start(Api::of(&chaos.cluster), seed));
        chaos.began = Instant::now();
        chaos.ends = chaos.began + lasts;
        chaos
    }

    /// A fault every few seconds, until the time is over.
    pub(crate) fn go_on(mut self) -> Self {
        let mut next = Instant::now();
        while Instant::now() < self.ends {
            self.cure_what_is_due(false);
            self.find_the_dead();
            if Instant::now() >= next {
                self.disturb();
                next = Instant::now() + Duration::from_millis(self.random.between(600, 3_000));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self
    }

    /// Ends every fault, and waits until all runs have ended.
    pub(crate) fn heal(mut self) -> Self {
        self.tell("healing");
        while !self.cures.is_empty() {
            self.cure_what_is_due(true);
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.find_the_dead();
        self.acknowledged = self.client.take().unwrap().stop();
        let api = Api::of(&self.cluster);
        within(QUIET, "all agents are connected again", || {
            let agents = api.all("/api/v1/agents?")?;
            for agent in agents.iter().filter(|agent| agent["status"]["phase"] == "Draining") {
                // A call that had no answer was carried out after all.
                self.ask_of_agent(agent["metadata"]["name"].as_str().unwrap(), "undrain");
            }
            let well = agents.iter().filter(|agent| agent["status"]["phase"] == "Connected").count();
            if well == AGENTS.len() { Ok(()) } else { Err(format!("{agents:#?}")) }
        });
        self.tell("all agents are connected");
        // Whatever the source was left with, it heals by a commit.
        self.write_workflow(false);
        self.write_others();
        self.cluster.commit("heal");
        for cron in &CRON {
            let name = format!("/api/v1/pipelines/chaos/{}", cron.name);
            within(QUIET, &format!("{} has an agent again", cron.name), || {
                let pipeline = api.json(&name)?;
                if pipeline["status"]["phase"] == "Scheduled" { Ok(()) } else { Err(format!("{pipeline:#}")) }
            });
        }
        self.tell("all pipelines have an agent");
        // One that was killed a moment ago may still be taken for connected, by the session of the process before: what it
        // owes is to be caught up before it is suspended.
        let healed = Timestamp::now();
        within(QUIET, "forever goes on", || match due(self.cluster.folder(), "forever").pop() {
            Some((slot, _)) if slot > healed => Ok(()),
            last => Err(format!("{healed}: {last:?}")),
        });
        self.seen.until = Timestamp::now();
        self.write_workflow(true);
        self.cluster.commit("suspend");
        within(QUIET, "all runs have ended", || {
            let active = api.all("/api/v1/runs?active=true&")?;
            if active.is_empty() { Ok(()) } else { Err(format!("{active:#?}")) }
        });
        self
    }

    /// Has the controller die at this place, or agent `a`, and starts it again.
    pub(crate) fn crash_at(&mut self, place: &str, agent: bool) {
        self.tell(&format!("crash at {place}"));
        let environment = [("XENE_CRASH_AT", place)];
        if agent {
            self.seen.killed("a");
            self.cluster.kill_agent("a");
            self.cluster.launch_agent("a", &AGENT, &environment);
        } else {
            self.cluster.kill_controller();
            self.cluster.launch_controller(&environment);
        }
        // Cron, hooks and people bring what the rest needs: this brings an edit, and a pipeline that has no agent yet.
        self.write_workflow(false);
        let extra = EXTRA.replace("more", &format!("more-{}", self.edition));
        self.cluster.repository.write("xene.d/extra.yaml", &extra);
        self.cluster.repository.commit(place);
        let api = Api::of(&self.cluster);
        let drains = place.starts_with("released");
        let process = if agent { self.cluster.agents.get_mut("a") } else { self.cluster.controller.as_mut() };
        let process = process.unwrap();
        let status = within(QUIET, &format!("it dies at {place}"), || {
            if drains {
                drop(api.post("/api/v1/agents/a/drain", ("accept", "*/*"), &json!({})));
            }
            process.ended().ok_or_else(|| process.output())
        });
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{place}: {}", process.output());
        if agent {
            self.cluster.launch_agent("a", &AGENT, &[]);
        } else {
            self.cluster.start_controller();
        }
        within(QUIET, "all agents are connected again", || {
            if drains {
                drop(api.post("/api/v1/agents/a/undrain", ("accept", "*/*"), &json!({})));
            }
            let agents = api.all("/api/v1/agents?")?;
            let well = agents.iter().filter(|a| a["status"]["phase"] == "Connected").count();
            if well == AGENTS.len() { Ok(()) } else { Err(format!("{agents:#?}")) }
        });
    }

    /// Compares all that was seen from outside with what the API says.
    pub(crate) fn check(mut self) {
        let api = Api::of(&self.cluster);
        self.seen.folder = self.cluster.folder().to_owned();
        self.tell("checking");
        let deadline = Instant::now() + Duration::from_secs(40);
        // What agents tell last may be on its way.
        let found = within(Duration::from_secs(60), "the checker could look", || {
            let found = check::check(&api, &self.seen, &self.acknowledged)?;
            if found.is_empty() || Instant::now() > deadline { Ok(found) } else { Err(found.join("\n")) }
        });
        if !found.is_empty() {
            panic!("{} promises were broken:\n{}", found.len(), found.join("\n"));
        }
        self.tell("done");
    }

    fn tell(&self, what: &str) {
        println!("{:>7.2} {} {what}", self.began.elapsed().as_secs_f64(), Timestamp::now());
    }

    fn write_workflow(&mut self, suspend: bool) {
        self.edition += 1;
        let text = workflow(self.cluster.folder(), self.edition, suspend);
        self.cluster.repository.write("xene.d/chaos.yaml", &text);
    }

    /// Three others are so many that nothing goes when the tree is empty.
    fn write_others(&self) {
        self.cluster.repository.write("xene.d/extra.yaml", EXTRA);
        for name in ["one", "two", "three"] {
            self.cluster
                .repository
                .write(&format!("xene.d/{name}.yaml"), &EXTRA.replace("extra", name).replace("*/2", "0"));
        }
    }

    fn is_busy(&self, who: &Who) -> bool {
        self.cures.iter().any(|(_, ill, _)| ill == who)
    }

    fn later(&mut self, low: u64, high: u64, who: Who, cure: Cure) {
        let due = Instant::now() + Duration::from_millis(self.random.between(low, high));
        self.cures.push((due, who, cure));
    }

    /// One fault.
    fn disturb(&mut self) {
        let name = self.random.pick(&AGENTS);
        match self.random.between(0, 20) {
            0..=2 => self.disturb_controller(),
            3..=10 => self.disturb_agent(name),
            11..=16 => self.disturb_link(name),
            17..=19 => self.push(),
            _ => self.drain(name),
        }
    }

    /// A planned move of all that an agent has.
    fn drain(&mut self, name: &'static str) {
        let who = Who::Place(name);
        if !self.is_busy(&who) {
            self.tell(&format!("drain agent {name}"));
            // Without an answer it may have happened, too.
            self.ask_of_agent(name, "drain");
            self.later(500, 9_000, who, Cure::Undrain);
        }
    }

    fn ask_of_agent(&self, name: &str, action: &str) -> bool {
        let api = Api::of(&self.cluster);
        api.post(&format!("/api/v1/agents/{name}/{action}"), ("accept", "*/*"), &json!({})).is_ok()
    }

    fn disturb_controller(&mut self) {
        if self.is_busy(&Who::Controller) {
            return;
        }
        let who = Who::Controller;
        match self.random.between(0, 6) {
            0..=2 => {
                self.tell("kill -9 controller");
                self.note_words("controller", &self.cluster.controller.as_ref().unwrap().output());
                self.cluster.kill_controller();
                self.later(0, 5_000, who, Cure::Start);
            }
            3 => {
                self.tell("terminate controller");
                let mut controller = self.cluster.controller.take().unwrap();
                let status = controller.terminate();
                // It may just have been started, and not listen to signals yet; or have had no room for what it was told.
                if !self.is_busy(&Who::Disk("controller"))
                    && !status.success()
                    && status.signal() != Some(Signal::TERM.as_raw())
                {
                    self.seen
                        .broken
                        .push(format!("the controller did not end in order, {status}: {}", controller.output()));
                }
                self.later(0, 2_000, who, Cure::Start);
            }
            4 | 5 => {
                self.tell("stop controller");
                self.cluster.controller.as_ref().unwrap().signal(Signal::STOP);
                self.later(500, 9_000, who, Cure::Continue);
            }
            _ => self.fill_disk("controller"),
        }
    }

    fn fill_disk(&mut self, name: &'static str) {
        let who = Who::Disk(name);
        if !self.is_busy(&who)
            && let Some(disk) = self.disks.get(name)
        {
            disk.fill();
            self.seen.full_disks += u32::from(name != "controller");
            self.tell(&format!("{who} is full"));
            self.later(1_000, 9_000, who, Cure::FreeDisk);
        }
    }

    fn disturb_agent(&mut self, name: &'static str) {
        let who = Who::Agent(name);
        if self.is_busy(&who) {
            return;
        }
        match self.random.between(0, 11) {
            0..=3 => {
                self.tell(&format!("kill -9 agent {name}"));
                self.kill_agent(name);
                self.later(0, 9_000, who, Cure::Start);
            }
            4 => {
                self.tell(&format!("kill -9 agent {name} and what is above its steps"));
                self.kill_agent(name);
                for shim in shims_below(&self.cluster.folder().join(format!("agent-{name}"))) {
                    let _ = kill_process(Pid::from_raw(shim.cast_signed()).unwrap(), Signal::KILL);
                }
                // What no shim bounds any more is ended by the next process of the agent.
                self.later(0, 500, who, Cure::Start);
            }
            5..=7 => {
                self.tell(&format!("stop agent {name}"));
                self.cluster.agents[name].signal(Signal::STOP);
                self.later(500, 14_000, who, Cure::Continue);
            }
            8 => {
                self.tell(&format!("terminate agent {name}"));
                self.cluster.agents[name].signal(Signal::TERM);
                self.later(0, 5_000, who, Cure::Urge);
            }
            9 => {
                self.tell(&format!("hang up agent {name}"));
                self.cluster.agents[name].signal(Signal::HUP);
                let deadline = Instant::now() + Duration::from_secs(20);
                self.later(0, 1, who, Cure::Reap(deadline));
            }
            10 => self.fill_disk(name),
            _ => {
                if self.clocks.contains_key(name) {
                    let hours = self.random.pick(&["-1h", "+1h", "+24h"]);
                    self.tell(&format!("the clock of agent {name} jumps by {hours}"));
                    self.clocks[name].set(hours);
                    self.later(2_000, 9_000, who, Cure::SetClockRight);
                }
            }
        }
    }

    fn disturb_link(&mut self, name: &'static str) {
        let who = Who::Link(name);
        if self.is_busy(&who) {
            return;
        }
        let lossy = Way { loss: 200, ..Way::default() };
        let wild = Way { doubled: 50, late: (30, 70), ..Way::default() };
        let (what, link) = match self.random.between(0, 6) {
            0 => ("loses a fifth", Link { up: lossy, down: lossy }),
            1 => ("delays, doubles and reorders", Link { up: wild, down: wild }),
            2 => ("is cut from the agent on", Link { up: Way::CUT, ..Link::default() }),
            3 => ("is cut towards the agent", Link { down: Way::CUT, ..Link::default() }),
            4 => {
                self.tell(&format!("link of {name} comes from another port"));
                self.relays[name].rebind();
                return;
            }
            _ => ("is cut", Link { up: Way::CUT, down: Way::CUT }),
        };
        self.tell(&format!("{who} {what}"));
        self.relays[name].set(link);
        self.later(500, 16_000, who, Cure::Mend);
    }

    /// A commit: an edit, a file that is broken, a removal, a revert, a rewritten history, an empty tree.
    fn push(&mut self) {
        let repository = &self.cluster.repository;
        match self.random.between(0, 7) {
            0 => {
                self.tell("push: a broken workflow");
                self.cluster.repository.write("xene.d/chaos.yaml", "apiVersion: xene/v1\nkind: Workflow\n  {{{");
                self.cluster.repository.commit("broken");
                return;
            }
            1 => {
                self.tell("push: another workflow is gone");
                drop(std::fs::remove_file(repository.folder().join("xene.d/extra.yaml")));
                self.cluster.repository.commit("gone");
                return;
            }
            2 => {
                self.tell("push: revert");
                repository.git(&["read-tree", "-u", "--reset", "HEAD~1"]);
                repository.commit("revert");
                return;
            }
            3 => {
                self.tell("push: history is rewritten");
                repository.git(&["commit", "--quiet", "--amend", "--allow-empty", "-m", "rewritten"]);
                return;
            }
            4 => {
                self.tell("push: an empty tree");
                repository.git(&["rm", "-r", "--quiet", "--ignore-unmatch", "."]);
                self.cluster.repository.commit("empty");
                return;
            }
            _ => {}
        }
        self.tell("push: an edit");
        self.write_workflow(false);
        self.write_others();
        self.cluster.repository.commit("edit");
    }

    /// Whoever has ended by itself should not have, and is noted.
    fn find_the_dead(&mut self) {
        let mut dead = Vec::new();
        for name in AGENTS {
            if !self.is_busy(&Who::Agent(name))
                && let Some(agent) = self.cluster.agents.get_mut(name)
                && let Some(status) = agent.ended()
            {
                dead.push(format!("agent {name} ended by itself, {status}:\n{}", agent.output()));
                self.start_agent(name);
            }
        }
        if !self.is_busy(&Who::Controller)
            && let Some(controller) = &mut self.cluster.controller
            && let Some(status) = controller.ended()
        {
            dead.push(format!("the controller ended by itself, {status}:\n{}", controller.output()));
            self.cluster.launch_controller(&[]);
        }
        self.seen.broken.extend(dead);
    }

    fn start_agent(&mut self, name: &'static str) {
        if let Some(before) = self.cluster.agents.get(name) {
            self.note_words(name, &before.output());
        }
        let clock = self.clocks.get(name);
        clock.inspect(|clock| clock.set("+0"));
        let environment = clock.map(|clock| clock.environment().to_vec()).unwrap_or_default();
        self.cluster.launch_agent(name, &AGENT, &environment);
    }

    fn kill_agent(&mut self, name: &'static str) {
        self.seen.killed(name);
        self.note_words(name, &self.cluster.agents[name].output());
        self.cluster.kill_agent(name);
    }

    /// What a process said that is not there any more, for `XENE_KEEP`.
    fn note_words(&self, name: &str, words: &str) {
        let file =
            OpenOptions::new().append(true).create(true).open(self.cluster.folder().join(format!("words-{name}")));
        let _ = file.and_then(|mut file| writeln!(file, "{words}"));
    }

    fn cure_what_is_due(&mut self, all: bool) {
        let now = Instant::now();
        let (due, rest) = std::mem::take(&mut self.cures).into_iter().partition(|(due, ..)| all || *due <= now);
        self.cures = rest;
        for (_, who, cure) in due {
            self.cure(who, cure);
        }
    }

    fn cure(&mut self, who: Who, cure: Cure) {
        match (&who, cure) {
            (Who::Controller, Cure::Start) => {
                self.tell("start controller");
                // Its addresses are known, and it may wait for room on its disk.
                self.cluster.launch_controller(&[]);
            }
            (Who::Agent(name), Cure::Start) => {
                self.tell(&format!("start agent {name}"));
                self.start_agent(name);
            }
            (Who::Controller, Cure::Continue) => {
                self.tell("continue controller");
                self.cluster.controller.as_ref().unwrap().signal(Signal::CONT);
            }
            (Who::Agent(name), Cure::Continue) => {
                self.tell(&format!("continue agent {name}"));
                self.cluster.agents[*name].signal(Signal::CONT);
            }
            (Who::Agent(name), Cure::Urge) => {
                let agent = self.cluster.agents.get_mut(*name).unwrap();
                if agent.ended().is_none() {
                    agent.signal(Signal::TERM);
                }
                let deadline = Instant::now() + Duration::from_secs(25);
                self.later(0, 1, who, Cure::Reap(deadline));
            }
            (Who::Agent(name), Cure::Reap(deadline)) => {
                let agent = self.cluster.agents.get_mut(*name).unwrap();
                match agent.ended() {
                    Some(status) if !status.success() => {
                        let word = format!("agent {name} did not end in order, {status}:\n{}", agent.output());
                        self.seen.broken.push(word);
                    }
                    Some(_) => {}
                    None if Instant::now() < deadline => return self.later(50, 100, who, cure),
                    // It can't say all it has to while it is cut off.
                    None => {
                        self.tell(&format!("agent {name} does not end: kill -9"));
                        self.kill_agent(name);
                    }
                }
                self.tell(&format!("start agent {name}"));
                self.start_agent(name);
            }
            (Who::Link(name), _) => {
                self.tell(&format!("{who} is well"));
                self.relays[*name].set(Link::default());
            }
            (Who::Disk(name), _) => {
                self.tell(&format!("{who} has room"));
                self.disks[*name].free();
            }
            (Who::Agent(name), Cure::SetClockRight) => {
                self.tell(&format!("the clock of agent {name} is right"));
                self.clocks[*name].set("+0");
            }
            (Who::Place(name), _) => {
                if !self.ask_of_agent(name, "undrain") {
                    return self.later(200, 400, who, cure);
                }
                self.tell(&format!("undrain agent {name}"));
            }
            (_, cure) => unreachable!("{who} is not cured by {cure:?}"),
        }
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(to) = std::env::var("XENE_KEEP")
        {
            drop(Command::new("cp").arg("-a").arg(self.cluster.folder()).arg(to).status());
        }
        // Before the disks go: whoever runs writes to them.
        self.cluster.agents.clear();
        self.cluster.controller = None;
    }
}
