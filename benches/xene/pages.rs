//! The web UI in a browser: when its pages are first painted, how late a line of a log shows, how long a search takes.

use std::{
    fs,
    time::{Duration, Instant},
};

use xene_test_support::{browser::Browser, cluster::Cluster, within};

use crate::{
    LONG, cluster,
    measure::{Spread, row},
    run_many, settle, usage, workflow,
    yardstick::Yardsticks,
};

const RUNS: usize = 10_000;
const LOADS: usize = 20;
const LINES: usize = 40;
const LONG_LOG_MB: usize = 1_000;
const LONG_LINE: &str = "0123456789 of a log that is longer than anybody reads, with an end that is looked for";

/// What a page's own clock says once something is painted: ms until then, and from the request to the first byte.
const PAINTED: &str = "
    const done = arguments[arguments.length - 1];
    const look = () => {
      const paint = performance.getEntriesByName('first-contentful-paint')[0];
      const load = performance.getEntriesByType('navigation')[0];
      if (paint && load.loadEventEnd) done([paint.startTime, load.responseStart - load.requestStart]);
      else setTimeout(look, 5);
    };
    look();";

pub(crate) fn pages(yard: &Yardsticks) {
    let (cluster, api) = cluster();
    let gate = cluster.folder().join("gate");
    let body = format!(
        "  pipelines:
    p:
      concurrency: {{max: 2}}
      history: {{runs: 20000}}
      tasks: {{t: {{steps: ['echo hello']}}}}
    ticking:
      tasks: {{t: {{steps: ['while [ ! -e {} ]; do sleep 0.02; done; for i in $(seq {LINES}); do date +%s%3N; sleep 0.05; done']}}}}
    long:
      tasks: {{t: {{steps: ['yes \"{LONG_LINE}\" | head -n {}; echo the needle']}}}}
",
        gate.display(),
        LONG_LOG_MB * 1_000_000 / (LONG_LINE.len() + 1)
    );
    cluster.repository.write("xene.d/w.yaml", &workflow("w", &body));
    cluster.repository.commit("w");
    for pipeline in ["w/p", "w/ticking", "w/long"] {
        within(LONG, "it is scheduled", || api.scheduled(pipeline));
    }
    run_many(&api, RUNS);
    let run = api.start("w", "p");
    api.ended(&run);
    settle(&cluster);
    let browser = Browser::start();
    browser.open(cluster.run(&["ui"]).expect(0).stdout.trim());
    browser.shows("h1", "Overview");
    for path in [
        "/",
        "/workflows",
        "/workflows/w",
        "/workflows/w/history",
        "/workflows/w/p/start",
        "/runs",
        "/runs?phase=Error",
        &format!("/runs/{run}"),
        "/agents",
        "/agents/a",
        "/notifiers",
        "/events",
        "/source",
    ] {
        first_paint(&cluster, &browser, path);
    }
    let run = api.start("w", "ticking");
    browser.open(&format!("{}/runs/{run}", cluster.server()));
    browser.shows("#r-tasks", "Running");
    browser.shows("#live", "Live");
    browser.time_lines();
    let before = usage(&cluster);
    fs::write(&gate, "").unwrap();
    let delays = within(LONG, "all lines came", || browser.delays_of(LINES));
    let spread = Spread::of(delays.into_iter().map(Duration::from_millis).collect());
    row("a printed line, on the page after", &spread, ("sh -c true", yard.spawn), usage(&cluster).since(before));

    let run = api.start("w", "long");
    api.ended(&run);
    settle(&cluster);
    let (start, before) = (Instant::now(), usage(&cluster));
    within(LONG, "all of the log was looked at", || {
        browser.open(&format!("{}/runs/{run}", cluster.server()));
        let looking = browser.text("#log-looking");
        if looking.is_empty() { Ok(()) } else { Err(looking) }
    });
    let first = Spread::of(vec![start.elapsed()]);
    row("1 GB of log, until all was looked at", &first, ("sh -c true", yard.spawn), usage(&cluster).since(before));
    let before = usage(&cluster);
    let times = (0..3).map(|_| {
        let start = Instant::now();
        browser.open(&format!("{}/runs/{run}?q=the+needle", cluster.server()));
        browser.shows(".hits", "1 line holds");
        start.elapsed()
    });
    let spread = Spread::of(times.collect());
    row(
        "a search through it",
        &spread,
        ("10 × pipe of 100 MB", yard.pipe_100_mb * 10),
        usage(&cluster).since(before) / 3,
    );
}

/// When the page is first painted, by its own clock; beside it when its first byte came.
fn first_paint(cluster: &Cluster, browser: &Browser, path: &str) {
    let before = usage(cluster);
    let (mut paints, mut bytes) = (Vec::new(), Vec::new());
    for _ in 0..LOADS {
        browser.open(&format!("{}{path}", cluster.server()));
        let told = browser.script_async(PAINTED);
        let ms = |at: usize| Duration::from_secs_f64(told[at].as_f64().unwrap() / 1e3);
        paints.push(ms(0));
        bytes.push(ms(1));
    }
    let cpu = usage(cluster).since(before) / u32::try_from(LOADS).unwrap();
    let title = format!("first paint of {}", path.split_inclusive("/runs/").next().unwrap_or(path));
    row(&title, &Spread::of(paints), ("its first byte", Spread::of(bytes).median), cpu);
}
