//! A log of a hundred megabytes in the web UI: its pages stay windows, its end is found, the controller's memory stays as it
//! was. With `XENE_LOG_MB=1000` the same with a gigabyte.

use std::{
    fs,
    io::Read as _,
    time::{Duration, Instant},
};

use xene_test_support::{cluster::Cluster, within};

const LINE: &str = "0123456789 of a log that is longer than anybody reads, with an end that is looked for";
/// Longer pages would not be windows.
const LONGEST: usize = 1 << 20;
/// More memory than looking at a log may take, in kB: its index, and what is read at a time.
const MOST: u64 = 64 << 10;

/// A browser without a screen: signed in, and how long each page took.
struct Reader {
    agent: ureq::Agent,
    server: String,
    cookie: String,
}

/// A page, when its first byte came, when its last.
struct Page {
    text: String,
    first: Duration,
    last: Duration,
}

impl Reader {
    fn signed_in(cluster: &Cluster) -> Self {
        let config = ureq::Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(Duration::from_secs(300)));
        let agent: ureq::Agent = config.build().into();
        let server = cluster.server();
        let form = [("secret", cluster.token())];
        let answer = agent.post(format!("{server}/sign-in")).send_form(form).unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        Self { agent, server, cookie }
    }

    fn page(&self, path: &str) -> Page {
        let began = Instant::now();
        let asked = self.agent.get(format!("{}{path}", self.server)).header("cookie", &self.cookie);
        let mut body = asked.call().unwrap_or_else(|error| panic!("{path}: {error}")).into_body().into_reader();
        let mut bytes = vec![0];
        body.read_exact(&mut bytes).unwrap();
        let first = began.elapsed();
        body.read_to_end(&mut bytes).unwrap();
        let (text, last) = (String::from_utf8(bytes).unwrap(), began.elapsed());
        assert!(text.len() < LONGEST, "{path} has {} bytes", text.len());
        Page { text, first, last }
    }
}

/// Memory that a process shares with nobody and no file, in kB.
fn anonymous(cluster: &Cluster) -> u64 {
    let pid = cluster.controller.as_ref().unwrap().id();
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_long_log_is_shown_in_windows_and_its_end_is_found() {
    let megabytes: usize =
        std::env::var_os("XENE_LOG_MB").map_or(100, |text| text.into_string().unwrap().parse().unwrap());
    let lines = megabytes * 1_000_000 / (LINE.len() + 1);
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    cluster.repository.write(
        "xene.d/long.yaml",
        &format!(
            "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: long}}\nspec: {{pipelines: {{p: {{tasks: {{t: {{steps: [\
             'yes \"{LINE}\" | head -n {lines}; echo the needle']}}}}}}}}}}\n"
        ),
    );
    cluster.commit("long");
    cluster.scheduled("long/p");
    let began = Instant::now();
    let run = cluster.run(&["trigger", "long/p", "--wait"]).stdout.trim().to_owned();
    println!("{megabytes} MB were printed and stored in {:.1?}", began.elapsed());
    let reader = Reader::signed_in(&cluster);
    let look = |path: String| {
        let page = reader.page(&path);
        let (first, last, kb) = (page.first, page.last, page.text.len() / 1000);
        println!("{path}: first byte after {first:.0?}, last after {last:.0?}, {kb} kB");
        page
    };
    let before = anonymous(&cluster);

    // The page does not wait until all of the log was looked at.
    let page = look(format!("/runs/{run}"));
    assert!(page.first < Duration::from_secs(2), "{:?}", page.first);
    let section = within(Duration::from_secs(120), "its section is known", || {
        let page = look(format!("/runs/{run}?log=1"));
        let told = page.text.split("data-section=\"").nth(1).and_then(|rest| rest.split('"').next());
        told.map(str::to_owned).ok_or(page.text)
    });
    let end = within(Duration::from_secs(300), "its end is there", || {
        let page = look(format!("/runs/{run}/log/{section}"));
        if page.text.contains("the needle") { Ok(page) } else { Err(page.text) }
    });
    assert!(end.text.matches("<li").count() <= 500, "a window");
    for from in [1, lines / 2, lines - 600] {
        let window = look(format!("/runs/{run}/log/{section}?from={from}"));
        assert!(window.text.contains(&format!("id=\"L{section}-{from}\"")), "line {from}");
        assert!(window.last < Duration::from_secs(2), "{:?}", window.last);
    }
    // What is at its end is found, and its address leads there.
    let found = look(format!("/runs/{run}?q=the+needle"));
    assert!(found.text.contains("1 line holds"), "{}", found.text);
    let hit = format!("#L{section}-{}\"", lines + 1);
    let link = found.text.split("<a href=\"").find(|rest| rest.contains(&hit)).unwrap();
    let address = link.split('#').next().unwrap().replace("&amp;", "&");
    let there = look(format!("/runs/{run}{address}"));
    assert!(there.text.contains(&format!("id=\"L{section}-{}\"", lines + 1)), "{}", there.text);

    let after = anonymous(&cluster);
    println!("the controller has {} kB more than before", after.saturating_sub(before));
    assert!(after < before + MOST, "{before} kB, then {after} kB");
}
