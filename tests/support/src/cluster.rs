//! A controller and agents as real processes on loopback, and the command line that speaks to them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    eventually,
    process::{Ended, Process, binary, end_steps_below, run, xene},
    repository::Repository,
};

/// A controller, its repository, its agents. Everything lies in one temporary folder and ends with it.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    /// The source.
    pub repository: Repository,
    /// The controller, while it runs.
    pub controller: Option<Process>,
    /// The agents that run, by name.
    pub agents: BTreeMap<String, Process>,
    http: String,
    quic: String,
    /// What the controller is started with beside the usual flags, from its next start on.
    pub flags: Vec<String>,
    /// Where an agent dials that does not dial the controller itself, by name.
    pub dials: BTreeMap<String, SocketAddr>,
    /// The program that controller and agents are, from their next start on.
    pub program: PathBuf,
}

/// A loopback address for one cluster. Ports of other tests are free on it, so that a controller gets its ports again
/// when it is started a second time.
fn own_address() -> Ipv4Addr {
    static CLUSTERS: AtomicU32 = AtomicU32::new(0);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let [.., cluster] = CLUSTERS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, high.max(1), low, cluster.clamp(1, 254))
}

impl Cluster {
    /// A controller on an empty repository, with these flags beside the usual ones.
    ///
    /// # Panics
    /// If it does not come up.
    #[track_caller]
    pub fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let repository = Repository::new(&folder.path().join("repository"));
        let address = own_address();
        let mut cluster = Self {
            folder,
            repository,
            controller: None,
            agents: BTreeMap::new(),
            http: format!("{address}:0"),
            quic: format!("{address}:0"),
            flags: flags.iter().map(ToString::to_string).collect(),
            dials: BTreeMap::new(),
            program: binary(),
        };
        cluster.start_controller();
        cluster
    }

    /// The folder that all lies in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The controller's data folder.
    pub fn data(&self) -> PathBuf {
        self.folder().join("controller")
    }

    /// Where the HTTP API is, as `http://HOST:PORT`.
    pub fn server(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Where agents dial, as `HOST:PORT`.
    pub fn quic(&self) -> &str {
        &self.quic
    }

    /// The admin token.
    ///
    /// # Panics
    /// If the controller has not made it.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.data().join("admin.token")).expect("the admin token").trim().to_owned()
    }

    /// Starts the controller; a second time on the same ports and data.
    #[track_caller]
    pub fn start_controller(&mut self) {
        self.launch_controller(&[]);
        let controller = self.controller.as_mut().expect("it was just launched");
        self.http = controller.line_after("http://").split_whitespace().next().unwrap_or_default().to_owned();
        self.quic = controller.line_after("agents dial ").split_whitespace().next().unwrap_or_default().to_owned();
    }

    /// [`Self::start_controller`] with these variables in its environment; waits for nothing.
    pub fn launch_controller(&mut self, environment: &[(&str, &str)]) {
        let mut command = self.program();
        command.envs(environment.iter().copied());
        command.arg("controller").arg("--source").arg(self.repository.folder());
        command.arg("--data-dir").arg(self.data()).args(["--http", &self.http, "--quic", &self.quic]);
        command.args(&self.flags);
        self.controller = Some(Process::spawn("controller", command));
    }

    /// SIGKILL to the controller.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill_controller(&mut self) {
        self.controller.take().expect("a controller").kill();
    }

    /// A new join token.
    #[track_caller]
    pub fn join_token(&self, arguments: &[&str]) -> String {
        let mut all = vec!["agents", "token", "create"];
        all.extend(arguments);
        self.run(&all).expect(0).stdout.trim().to_owned()
    }

    /// Enrols and starts an agent; waits until it is connected.
    #[track_caller]
    pub fn start_agent(&mut self, name: &str, flags: &[&str]) {
        let token = self.join_token(&[]);
        let mut all = vec!["--token", &token];
        all.extend(flags);
        self.restart_agent(name, &all);
    }

    /// Starts an agent with what it has in its data folder; waits until it is connected.
    #[track_caller]
    pub fn restart_agent(&mut self, name: &str, flags: &[&str]) {
        let process = Process::spawn(name, self.agent_command(name, flags));
        self.agents.insert(name.into(), process);
        self.until(&format!("agent {name} is connected"), &["get", "agents", name], |agent| {
            agent["status"]["phase"] == "Connected"
        });
    }

    /// The command that starts an agent.
    pub fn agent_command(&self, name: &str, flags: &[&str]) -> Command {
        let mut command = self.program();
        let dials = self.dials.get(name).map_or_else(|| self.quic.clone(), ToString::to_string);
        command.args(["agent", "--controller", &dials, "--name", name]).args(flags);
        command.arg("--data-dir").arg(self.folder().join(format!("agent-{name}")));
        command
    }

    /// Starts an agent with what it has in its data folder, and these variables in its environment; waits for nothing.
    pub fn launch_agent(&mut self, name: &str, flags: &[&str], environment: &[(&str, &str)]) {
        let mut command = self.agent_command(name, flags);
        command.envs(environment.iter().copied());
        self.agents.insert(name.into(), Process::spawn(name, command));
    }

    fn program(&self) -> Command {
        let clean = xene(self.folder());
        let mut command = Command::new(&self.program);
        command.env_clear().envs(clean.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.folder()).stdin(Stdio::null());
        command
    }

    /// SIGKILL to an agent.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill_agent(&mut self, name: &str) {
        self.agents.remove(name).expect("an agent").kill();
    }

    /// A command of xene that speaks to this controller.
    pub fn command(&self) -> Command {
        let mut command = xene(self.folder());
        command.env("XENE_SERVER", self.server()).env("XENE_TOKEN", self.token());
        command
    }

    /// Runs a command of xene to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ended {
        run(self.command(), arguments)
    }

    /// Runs a command with `-o json` and reads what it prints.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        self.run(&all).expect(0).json()
    }

    /// Asks again until the JSON that a command prints is as it should be, and gives it.
    #[track_caller]
    pub fn until(&self, what: &str, arguments: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        eventually(what, || {
            let ended = self.run(&all);
            let value = serde_json::from_str(&ended.stdout).map_err(|_| format!("{ended:#?}"))?;
            if ended.code == 0 && holds(&value) { Ok(value) } else { Err(format!("{value:#}")) }
        })
    }

    /// Commits, and waits until the commit is in effect.
    #[track_caller]
    pub fn commit(&self, subject: &str) -> String {
        let revision = self.repository.commit(subject);
        self.until(&format!("{subject} is in effect"), &["status"], |source| {
            source["status"]["revision"] == revision.as_str()
        });
        revision
    }

    /// Waits until a pipeline has an agent, and gives it.
    #[track_caller]
    pub fn scheduled(&self, pipeline: &str) -> Value {
        self.until(&format!("{pipeline} is scheduled"), &["get", "pipelines", pipeline], |pipeline| {
            pipeline["status"]["phase"] == "Scheduled"
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Steps outlive their agent.
        self.agents.clear();
        end_steps_below(self.folder());
    }
}
