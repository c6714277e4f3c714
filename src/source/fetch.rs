//! Runs `git` for the network only: hardened, with a deadline, in a process group that ends with it.
//!
//! The child brings people's ssh configuration, agents and proxies along. It reads no git configuration, runs no hook, asks
//! nobody, and gets credentials by its environment, never by its arguments.

use std::{
    fs,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use xene_agent::clock;

use super::{
    config::{Credentials, Password},
    health::{Failure, Reason},
    location::{RemoteUrl, Scheme, redact},
};

/// Speaks to one remote.
#[derive(Debug)]
pub(super) struct Fetch {
    pub url: RemoteUrl,
    pub credentials: Credentials,
    /// A child that says nothing for this long is ended.
    pub silence: Duration,
}

/// Why a fetch brought nothing.
#[derive(Debug)]
pub(super) enum FetchError {
    /// The server has no such ref.
    NoSuchRef,
    /// Our mirror is at fault: make it anew.
    Mirror(String),
    /// Anything else.
    Failed(Failure),
}

impl From<Failure> for FetchError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Fetch {
    /// Brings the ref `from` of the remote, whole, to the ref `to` of the bare repository `mirror`, whatever that was.
    pub(super) fn fetch(&self, mirror: &Path, from: &str, to: &str, stop: &AtomicBool) -> Result<(), FetchError> {
        let mut git = self.git()?;
        git.arg("--git-dir").arg(mirror);
        git.args(["fetch", "--progress", "--force", "--no-tags", "--no-recurse-submodules"]);
        git.args(["--no-write-fetch-head", "--no-auto-maintenance", "--"]);
        git.arg(&self.url.url).arg(format!("+{from}:{to}"));
        let output = self.run(git, stop)?;
        if output.success { Ok(()) } else { Err(self.classify(&output.errors)) }
    }

    /// The branches of the remote.
    pub(super) fn branches(&self, stop: &AtomicBool) -> Result<Vec<String>, Failure> {
        let mut git = self.git()?;
        git.args(["ls-remote", "--heads", "--"]).arg(&self.url.url);
        let output = self.run(git, stop)?;
        if output.success {
            let name = |line: &str| line.split_once("refs/heads/").map(|(_, name)| name.to_owned());
            return Ok(output.out.lines().filter_map(name).collect());
        }
        match self.classify(&output.errors) {
            FetchError::Failed(failure) => Err(failure),
            FetchError::NoSuchRef | FetchError::Mirror(_) => Err(self.unreachable(&output.errors)),
        }
    }

    /// Packs what many fetches left in `mirror`.
    pub(super) fn tidy(&self, mirror: &Path, stop: &AtomicBool) -> Result<(), Failure> {
        let mut git = hardened();
        git.arg("--git-dir").arg(mirror).args(["-c", "gc.autoDetach=false", "gc", "--auto", "--quiet"]);
        run(git, TIDY, stop).map(drop).map_err(|error| self.not_run(&error))
    }

    fn git(&self) -> Result<Command, Failure> {
        let mut git = hardened();
        let protocol = format!("protocol.{}.allow=always", self.url.scheme.as_str());
        git.args(["-c", "protocol.allow=never", "-c", &protocol]);
        match self.url.scheme {
            Scheme::Git => {}
            Scheme::Ssh => {
                git.env("GIT_SSH_VARIANT", "ssh").env("GIT_SSH_COMMAND", self.ssh_command()?);
            }
            Scheme::Http | Scheme::Https => self.answer_by_environment(&mut git)?,
        }
        Ok(git)
    }

    /// A credential helper that is bound to the remote's origin and prints two variables.
    fn answer_by_environment(&self, git: &mut Command) -> Result<(), Failure> {
        let Some(password) = self.password()? else {
            return Ok(());
        };
        let username = self.credentials.username.as_deref().or(self.url.username.as_deref()).unwrap_or("git");
        if username.contains(['\n', '\0']) || password.contains(['\n', '\0']) {
            return Err(Failure::new(Reason::AuthFailed, "user name and password must be one line each"));
        }
        git.env(USERNAME, username).env(PASSWORD, password);
        git.args(["-c", &format!("credential.{}.helper={HELPER}", self.url.origin)]);
        Ok(())
    }

    fn password(&self) -> Result<Option<String>, Failure> {
        match self.credentials.password.as_ref().or(self.url.password.as_ref()) {
            None => Ok(None),
            Some(Password::Value(value)) => Ok(Some(value.clone())),
            Some(Password::File(path)) => {
                let text = fs::read_to_string(path).map_err(|error| {
                    let message = format!("the password file {} can't be read: {error}", path.display());
                    Failure::new(Reason::AuthFailed, message)
                })?;
                Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
            }
        }
    }

    fn ssh_command(&self) -> Result<String, Failure> {
        let seconds = self.silence.as_secs().max(1);
        let mut command = format!(
            "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout={seconds} -o ServerAliveInterval=10 \
             -o ControlPath=none -o ForwardAgent=no -o ClearAllForwardings=yes -o PermitLocalCommand=no"
        );
        let mut add = |option: &str, path: &Path| {
            let text = path.to_str().filter(|text| !text.contains(['\'', '"', '\n']));
            let text = text.ok_or_else(|| {
                Failure::new(Reason::AuthFailed, format!("{} has quotes or no UTF-8 in its name", path.display()))
            })?;
            // ssh itself splits some values at blanks, hence two kinds of quotes.
            command.extend([" -o '", option, "=\"", text, "\"'"]);
            Ok::<(), Failure>(())
        };
        if let Some(path) = &self.credentials.known_hosts {
            add("UserKnownHostsFile", path)?;
            add("GlobalKnownHostsFile", Path::new("/dev/null"))?;
        }
        if let Some(path) = &self.credentials.ssh_key {
            if let Err(error) = fs::File::open(path) {
                let message = format!("the SSH key {} can't be read: {error}", path.display());
                return Err(Failure::new(Reason::AuthFailed, message));
            }
            add("IdentityFile", path)?;
            command.push_str(" -o IdentitiesOnly=yes");
        }
        Ok(command)
    }

    fn run(&self, git: Command, stop: &AtomicBool) -> Result<Output, Failure> {
        match run(git, self.silence, stop) {
            Ok(output) if output.timed_out => {
                let seconds = self.silence.as_secs_f64();
                let message = format!("{} sent nothing for {seconds} s; {RETRIED}", self.url.url);
                Err(Failure::new(Reason::Unreachable, message))
            }
            Ok(output) => Ok(output),
            Err(error) => Err(self.not_run(&error)),
        }
    }

    fn not_run(&self, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::NotFound => Failure::new(
                Reason::GitMissing,
                format!("to read {} the controller needs `git`, which is not installed here", self.url.url),
            ),
            io::ErrorKind::Interrupted => Failure::new(Reason::Stopped, "the source was stopped"),
            _ => Failure::new(Reason::Unreachable, format!("`git` can't be run: {error}")),
        }
    }

    /// What git's errors mean. They are in English: the child's locale is `C`.
    fn classify(&self, errors: &str) -> FetchError {
        let has = |parts: &[&str]| parts.iter().any(|part| errors.contains(part));
        let url = &self.url.url;
        let failed = |reason, message| FetchError::Failed(Failure::new(reason, message));
        if has(&["couldn't find remote ref"]) {
            FetchError::NoSuchRef
        } else if has(&["Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED"]) {
            failed(
                Reason::AuthFailed,
                format!("{url} is not the server that is known: put its host key into the known_hosts file"),
            )
        } else if has(&["Permission denied", "Too many authentication failures"]) {
            failed(Reason::AuthFailed, format!("{url} refuses the SSH key; check the key and its permissions there"))
        } else if has(&[
            "Authentication failed",
            "could not read Username",
            "could not read Password",
            "terminal prompts disabled",
            "error: 401",
            "error: 403",
        ]) {
            failed(Reason::AuthFailed, format!("{url} refuses the credentials; check user name and password or token"))
        } else if has(&["certificate"]) {
            failed(Reason::AuthFailed, format!("the certificate of {url} is not valid: {}", first_line(errors)))
        } else if has(&[
            "unable to update url base from redirection",
            "error: 301",
            "error: 302",
            "error: 307",
            "error: 308",
        ]) {
            failed(Reason::Unreachable, format!("{url} has moved, and redirects are not followed; name its new URL"))
        } else if has(&["early EOF", "hung up", "reset by peer", "Could not resolve host"]) {
            FetchError::Failed(self.unreachable(errors))
        } else if has(MIRROR_ERRORS) {
            FetchError::Mirror(first_line(errors))
        } else {
            FetchError::Failed(self.unreachable(errors))
        }
    }

    fn unreachable(&self, errors: &str) -> Failure {
        Failure::new(Reason::Unreachable, format!("{} can't be read: {}; {RETRIED}", self.url.url, first_line(errors)))
    }
}

/// What our own repository is at fault for.
const MIRROR_ERRORS: &[&str] = &[
    "Unable to create",
    "cannot lock ref",
    "unable to lock",
    "not a git repository",
    "corrupt",
    "bad object",
    "missing blob",
    "missing tree",
    "unable to read tree",
    "did not send all necessary objects",
    "unresolved delta",
    "unable to resolve reference",
    "does not point to a valid object",
];

/// What a child said.
struct Output {
    success: bool,
    timed_out: bool,
    out: String,
    errors: String,
}

/// A `git` that nothing on this machine can make do more than it was told.
fn hardened() -> Command {
    let mut git = Command::new("git");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("GIT_") || name.starts_with("XENE_")) {
            git.env_remove(name);
        }
    }
    git.env("LC_ALL", "C").env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    git.env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "")
        .env("SSH_ASKPASS", "")
        .env("SSH_ASKPASS_REQUIRE", "never");
    for setting in [
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "credential.helper=",
        "http.followRedirects=false",
        "transfer.bundleURI=false",
        "fetch.bundleURI=",
        "fetch.writeCommitGraph=false",
        "gc.auto=6700",
    ] {
        git.args(["-c", setting]);
    }
    git
}

/// Runs a child until it ends, or says nothing for `silence`, or `stop` is set (`Interrupted`).
fn run(mut command: Command, silence: Duration, stop: &AtomicBool) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut group = Group(command.spawn()?);
    // Unbounded by count, bounded by MAX_OUTPUT: the readers stop there.
    let (said, heard) = mpsc::channel();
    if let Some(out) = group.0.stdout.take() {
        listen(out, true, said.clone());
    }
    if let Some(errors) = group.0.stderr.take() {
        listen(errors, false, said);
    }
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let mut last_heard = clock::now().boot;
    let mut ended = None;
    let timed_out = loop {
        match heard.recv_timeout(STOP_CHECK) {
            Ok((is_out, bytes)) => {
                last_heard = clock::now().boot;
                let kept = if is_out { &mut out } else { &mut errors };
                if kept.len() < MAX_OUTPUT {
                    kept.extend(bytes);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Acquire) => {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Err(RecvTimeoutError::Timeout) if clock::now().boot.since(last_heard) >= silence => break true,
            Err(RecvTimeoutError::Timeout) if group.0.try_wait()?.is_some() => {
                // A grandchild may hold the pipes; the leader's end is what counts, once its last words are heard.
                let now = clock::now().boot;
                if now.since(*ended.get_or_insert(now)) >= LAST_WORDS {
                    break false;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    };
    let success = !timed_out && group.0.wait()?.success();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Output { success, timed_out, out: text(out), errors: text(errors) })
}

/// A child and its process group, which ends with this value.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Before the leader is waited for: until then nobody else can have its number. Gone already is as good.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

fn listen(mut pipe: impl Read + Send + 'static, is_out: bool, said: mpsc::Sender<(bool, Vec<u8>)>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            if said.send((is_out, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
    });
}

/// The first line that says what is wrong, and what follows its colon, without progress and credentials.
fn first_line(errors: &str) -> String {
    let lines = || errors.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    let from = lines().position(|line| line.starts_with("fatal:") || line.starts_with("error:")).unwrap_or(0);
    let mut telling = lines().skip(from);
    let line = telling.next().unwrap_or("no reason was given");
    let mut line = line.trim_start_matches("fatal:").trim_start_matches("error:").trim().to_owned();
    if line.ends_with(':')
        && let Some(cause) = telling.next()
    {
        line.extend([" ", cause]);
    }
    let words: Vec<String> = line.split(' ').map(redact).collect();
    let mut line = words.join(" ");
    line.retain(|c| !c.is_control());
    line
}

const USERNAME: &str = "XENE_GIT_USERNAME";
const PASSWORD: &str = "XENE_GIT_PASSWORD";
/// `git` runs this by a shell, with `get`, `store` or `erase` after it.
const HELPER: &str =
    r#"!f() { test "$1" = get && printf 'username=%s\npassword=%s\n' "$XENE_GIT_USERNAME" "$XENE_GIT_PASSWORD"; }; f"#;

const RETRIED: &str = "it is tried again, and what was in effect stays";
/// Enough for the names of tens of thousands of branches.
const MAX_OUTPUT: usize = 4 << 20;
/// After its end, what a child wrote is waited for this long.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How soon a stop ends a child.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// Packing a large mirror takes time and says nothing.
const TIDY: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_on_the_next_line_is_told_too() {
        for (errors, told) in [
            (
                "Cloning\nfatal: unable to connect to h:\nh[0: 127.0.0.1]: errno=Connection refused\n\n",
                "unable to connect to h: h[0: 127.0.0.1]: errno=Connection refused",
            ),
            ("remote: hello\nerror: a thing\nfatal: another", "a thing"),
            ("fatal: nothing more:", "nothing more:"),
            ("fatal: this:\nhttps://bot:secret@host/x is away", "this: https://host/x is away"),
            ("", "no reason was given"),
        ] {
            assert_eq!(first_line(errors), told);
        }
    }
}
