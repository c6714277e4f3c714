//! Plays the commands of a document as a person would type them, and compares what they print.
//!
//! A block of a document takes part if the word after its language names the session:
//!
//! - ```` ```sh SESSION ```` is run as it stands and must succeed;
//! - ```` ```console SESSION ```` holds commands after `$ `, each with its output, standard error included;
//! - ```` ```console SESSION background ```` holds commands that go on until the session ends; all lines below one must
//!   appear in its output.

use std::{fs, path::Path, process::Command, sync::Mutex};

use tempfile::TempDir;
use xene_test_support::{
    eventually,
    process::{Ended, Process, binary, run, search_path},
};

use crate::{blesses, normal, path, read};

/// What the documents call the home folder.
const HOME: &str = "/home/ada";

/// Where the documents have the controller, and what a test puts in place of it.
const HTTP: &str = "127.0.0.1:7420";
const QUIC: &str = "127.0.0.1:7421";

static BLESSING: Mutex<()> = Mutex::new(());

/// One person's shells: they share a home, a working folder and variables.
pub(crate) struct Session {
    // Before the folder, so that they end before it goes.
    background: Vec<Process>,
    http: Option<String>,
    quic: Option<String>,
    folder: TempDir,
}

impl Session {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        Self { background: Vec::new(), http: None, quic: None, folder }
    }

    fn home(&self) -> std::path::PathBuf {
        self.folder.path().join("home")
    }

    /// Puts a copy of a folder of this repository into the home folder.
    pub(crate) fn copy(&self, folder: &str) {
        let to = self.home().join(folder);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(path(folder)).unwrap().flatten() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }

    /// Puts a file into the home folder.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.home().join(name), text).unwrap();
    }

    /// Plays all blocks of a session.
    ///
    /// # Panics
    /// If one prints something else than its document says, unless it is blessed.
    #[track_caller]
    pub(crate) fn play(&mut self, document: &str, session: &str) {
        // Two that bless one document at once would undo each other.
        let _one_at_a_time = blesses().then(|| BLESSING.lock());
        let text = read(document);
        let (mut fresh, mut block, mut wrong, mut blocks) = (String::new(), None::<Block>, Vec::new(), 0);
        for line in text.lines() {
            match &mut block {
                None => block = Block::opened_by(line, session),
                Some(open) if line == "```" => {
                    blocks += 1;
                    self.play_block(open, &mut wrong);
                    open.commands.iter().for_each(|command| command.write(&mut fresh));
                    block = None;
                }
                Some(open) => {
                    open.add(line);
                    continue;
                }
            }
            fresh += line;
            fresh.push('\n');
        }
        assert!(blocks > 0, "{document} has no block of session {session}");
        if blesses() && fresh != text {
            fs::write(path(document), fresh).unwrap();
        } else {
            assert!(wrong.is_empty(), "{document}; XENE_BLESS=1 writes what is printed:\n{}", wrong.join("\n"));
        }
    }

    fn play_block(&mut self, block: &mut Block, wrong: &mut Vec<String>) {
        for command in &mut block.commands {
            let printed = match block.kind {
                BlockKind::Script => {
                    self.run(&command.text).expect(0);
                    continue;
                }
                BlockKind::Console => self.foreground(command),
                BlockKind::Background => self.start(command),
            };
            let Err(printed) = printed else { continue };
            wrong.push(format!("$ {}\n--- expected\n{}\n--- printed\n{printed}", command.text, command.output));
            command.output = printed;
        }
    }

    /// Runs a command. One that only reads is asked again until it prints what is expected, or gives up.
    fn foreground(&self, command: &Cmd) -> Result<(), String> {
        let expected = normal::text(&command.output);
        let reads =
            ["get", "status", "describe", "logs"].iter().any(|w| command.text.starts_with(&format!("xene {w}")));
        let mut printed = String::new();
        // Blessed output has to settle, checked output has to come.
        let tries = match (reads, blesses()) {
            (false, _) => 1,
            (true, true) => 10,
            (true, false) => 300,
        };
        for again in 0..tries {
            if again > 0 {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            let ended = self.run(&command.text);
            printed = self.as_documented(&ended.stdout);
            if normal::text(&printed) == expected {
                return Ok(());
            }
        }
        Err(printed)
    }

    /// Starts a command that goes on, and waits for the lines that it should print.
    fn start(&mut self, command: &Cmd) -> Result<(), String> {
        let mut process = Process::spawn(&command.text, self.shell(&format!("exec {}", command.text)));
        if self.http.is_none() {
            let address = |line: String| line.split_whitespace().next().unwrap_or_default().to_owned();
            self.http = Some(address(process.line_after("http://")));
            // `xene dev` has no line for agents.
            let is_controller = command.text.starts_with("xene controller");
            self.quic = is_controller.then(|| address(process.line_after("agents dial ")));
        }
        let missing = |output: &str| {
            let printed: Vec<_> = output.lines().map(normal::line).collect();
            let mut wanted = command.output.lines().map(normal::line);
            wanted.find(|line| !printed.contains(line))
        };
        if blesses() {
            let settled = std::time::Duration::from_secs(2);
            std::thread::sleep(settled);
        } else {
            eventually(&format!("`{}` prints what it should", command.text), || {
                let output = self.as_documented(&process.output());
                missing(&output).map_or(Ok(()), |line| Err(format!("no line {line:?} in\n{output}")))
            });
        }
        let output = self.as_documented(&process.output());
        let is_true = missing(&output).is_none() && !command.output.is_empty();
        self.background.push(process);
        if is_true { Ok(()) } else { Err(output) }
    }

    fn run(&self, text: &str) -> Ended {
        // Variables and folder outlive the command, as in a shell.
        let state = self.folder.path().join("state");
        let state = state.display();
        let script = format!(
            "[ -e {state} ] && . {state}\nexec 2>&1\nset -a\n{text}\nstatus=$?\n\
             {{ export -p; printf 'cd %q\\n' \"$PWD\"; }} > {state}\nexit $status"
        );
        run(self.shell(&script), &[] as &[&str])
    }

    /// A shell with this script, with the test's addresses in place of the documents'.
    fn shell(&self, script: &str) -> Command {
        let mut script = script.to_owned();
        for (documented, real) in [(HTTP, &self.http), (QUIC, &self.quic)] {
            script = real.iter().fold(script, |script, real| script.replace(documented, real));
        }
        let mut command = match script.strip_prefix("exec ") {
            // It becomes the process itself, which then ends with the session.
            Some(_) => {
                let mut command = Command::new("bash");
                let state = self.folder.path().join("state");
                command.arg("-c").arg(format!("[ -e {0} ] && . {0}; {script}", state.display()));
                command
            }
            None => {
                let mut command = Command::new("timeout");
                command.args(["120", "bash", "-c", &script]);
                command
            }
        };
        let xene = binary();
        let mut paths = vec![xene.parent().map(Path::to_owned).unwrap_or_default()];
        paths.extend(std::env::split_paths(&search_path()));
        command.env_clear().env("PATH", std::env::join_paths(paths).unwrap()).env("HOME", self.home());
        command.env("LANG", "C.UTF-8").env("NO_COLOR", "1").current_dir(self.home());
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Ada").env(format!("GIT_{role}_EMAIL"), "ada@example.org");
        }
        command.env("XENE_HTTP", "127.0.0.1:0").env("XENE_QUIC", "127.0.0.1:0");
        command.envs(self.http.iter().map(|http| ("XENE_SERVER", format!("http://{http}"))));
        command
    }

    /// What was printed, with the document's addresses and folders.
    fn as_documented(&self, printed: &str) -> String {
        let mut text = printed.replace(&self.home().display().to_string(), HOME);
        for (documented, real) in [(HTTP, &self.http), (QUIC, &self.quic)] {
            text = real.iter().fold(text, |text, real| text.replace(real, documented));
        }
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        lines.join("\n").trim_end().to_owned()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BlockKind {
    Script,
    Console,
    Background,
}

struct Block {
    kind: BlockKind,
    commands: Vec<Cmd>,
}

struct Cmd {
    kind: BlockKind,
    text: String,
    output: String,
}

impl Block {
    fn opened_by(line: &str, session: &str) -> Option<Self> {
        let words: Vec<_> = line.strip_prefix("```")?.split(' ').collect();
        let kind = match words[..] {
            ["sh", named] if named == session => BlockKind::Script,
            ["console", named] if named == session => BlockKind::Console,
            ["console", named, "background"] if named == session => BlockKind::Background,
            _ => return None,
        };
        Some(Self { kind, commands: Vec::new() })
    }

    fn add(&mut self, line: &str) {
        let kind = self.kind;
        match (kind, line.strip_prefix("$ "), self.commands.last_mut()) {
            (BlockKind::Script, _, Some(script)) => script.text += &format!("\n{line}"),
            (BlockKind::Script, _, None) => {
                self.commands.push(Cmd { kind, text: line.into(), output: String::new() });
            }
            (_, Some(text), _) => self.commands.push(Cmd { kind, text: text.into(), output: String::new() }),
            (_, None, Some(command)) => {
                command.output += line;
                command.output.push('\n');
            }
            (_, None, None) => panic!("a console block begins with a command: {line}"),
        }
    }
}

impl Cmd {
    fn write(&self, text: &mut String) {
        if self.kind == BlockKind::Script {
            *text += &self.text;
        } else {
            *text += &format!("$ {}\n", self.text);
            *text += self.output.trim_end();
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
}
