//! A thousand who watch: each hears what happens, the controller's memory stays bounded, and so does their number.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use xene_test_support::{cluster::Cluster, within};

const WATCHERS: usize = 1_000;
/// What the controller takes at a time: `CONNECTIONS` in src/http/serve.rs.
const CONNECTIONS: usize = 2_048;
/// More than a watcher takes, in kB, without the optimizer; docs/design/web-ui.md has what the release build takes.
const MOST_EACH: u64 = 150;

fn workflow(name: &str) -> String {
    format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: {name}}}\nspec: {{pipelines: {{p: {{tasks: {{t: {{steps: ['true']}}}}}}}}}}\n"
    )
}

/// Somebody who watches workflows, and what came so far.
struct Watcher {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Watcher {
    fn connect(cluster: &Cluster, token: &str) -> Self {
        let server = cluster.server();
        let host = server.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_nonblocking(true).unwrap();
        let path = "/api/v1/watch?kinds=workflow";
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n").unwrap();
        Self { stream, heard: Vec::new() }
    }

    /// Takes what is there; an error is what was heard so far, without `text`.
    fn hears(&mut self, text: &str) -> Result<(), String> {
        let mut piece = [0; 8 << 10];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => panic!("it ended: {}", String::from_utf8_lossy(&self.heard)),
                Ok(read) => self.heard.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        let heard = String::from_utf8_lossy(&self.heard);
        if heard.contains(text) { Ok(()) } else { Err(heard.into_owned()) }
    }
}

fn all_hear(watchers: &mut [Watcher], text: &str) {
    within(Duration::from_secs(30), &format!("all hear {text:?}"), || {
        let deaf: Vec<String> = watchers.iter_mut().filter_map(|watcher| watcher.hears(text).err()).collect();
        deaf.first().map_or(Ok(()), |heard| Err(format!("{} have not, one has heard {heard}", deaf.len())))
    });
}

/// Memory that a process shares with nobody and no file, in kB.
fn anonymous(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_thousand_who_watch_each_hear_what_happens() {
    // This process holds as many sockets as the controller, which sees to its own limit by itself.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let cluster = Cluster::start(&[]);
    cluster.repository.write("xene.d/first.yaml", &workflow("first"));
    cluster.commit("first");
    let token = cluster.token();
    let controller = cluster.controller.as_ref().unwrap().id();
    let before = anonymous(controller);
    let connect = |_| Watcher::connect(&cluster, &token);
    let mut watchers: Vec<Watcher> = (0..WATCHERS).map(connect).collect();
    all_hear(&mut watchers, ": changes from here on");
    let waiting = anonymous(controller);

    // The API answers others meanwhile, and what they do is told.
    cluster.repository.write("xene.d/second.yaml", &workflow("second"));
    cluster.commit("second");
    all_hear(&mut watchers, "\"name\":\"second\"");
    let told = anonymous(controller);
    let each = |kb: u64| kb.saturating_sub(before) as f64 / WATCHERS as f64;
    println!("a watcher takes {:.1} kB, {:.1} kB once it was told something", each(waiting), each(told));
    assert!(told < before + WATCHERS as u64 * MOST_EACH, "{before} kB, {waiting} kB, then {told} kB");

    // All places are taken: who comes then waits, and is served once somebody goes.
    watchers.extend((WATCHERS..CONNECTIONS).map(connect));
    all_hear(&mut watchers, ": changes from here on");
    let mut late = connect(0);
    assert_eq!(late.hears("HTTP/1.1 200").unwrap_err(), "", "there is no place");
    drop(watchers.pop());
    within(Duration::from_secs(30), "there is a place", || late.hears(": changes from here on"));
}
