//! What runs while there are faults: pipelines of each autonomy, whose steps leave word outside of xene.

use std::{fs, path::Path};

use jiff::{SignedDuration, Timestamp};

/// The agents.
pub(crate) const AGENTS: [&str; 3] = ["a", "b", "c"];
/// Short times, so that a takeover takes seconds.
pub(crate) const CONTROLLER: [&str; 4] = ["--min-autonomy", "2s", "--pause-margin", "2s"];
/// What each agent is started with.
pub(crate) const AGENT: [&str; 2] = ["--slots", "24"];
/// How many lines a run of `lines` prints.
pub(crate) const LINES: u64 = 4000;

/// A pipeline that cron starts.
pub(crate) struct Cron {
    pub name: &'static str,
    /// Its due times are the whole multiples of so many seconds.
    pub every: i64,
}

/// Those whose due times are accounted for.
pub(crate) const CRON: [Cron; 5] = [
    Cron { name: "forever", every: 1 },
    Cron { name: "brief", every: 2 },
    Cron { name: "alone", every: 3 },
    Cron { name: "lines", every: 6 },
    Cron { name: "long", every: 15 },
];

/// What a step does to leave word of its start, for [`starts`].
pub(crate) fn note(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"echo "$XENE_PIPELINE ${{XENE_SCHEDULED_TIME:--}} $XENE_RUN_ID $XENE_EPOCH $XENE_AGENT" >> {folder}/starts"#
    )
}

/// All pipelines, as a file of the source. `edition` changes the spec of each, and nothing that they do.
pub(crate) fn workflow(folder: &Path, edition: u64, suspend: bool) -> String {
    let common = "history: {runs: 200000}, timeout: 1m, gracePeriod: 1s";
    let note = note(folder);
    let folder = folder.display();
    let beat = format!(
        r#"for i in 0 1 2 3 4 5 6 7 8 9 10 11; do read up rest < /proc/uptime; echo "$XENE_RUN_ID $XENE_AGENT $up" >> {folder}/beats; sleep 0.1; done"#
    );
    let print = format!(
        r#"for i in 0 1 2 3; do seq -f "$XENE_RUN_ID line %g" $((i * {part} + 1)) $((i * {part} + {part})); sleep 0.2; done; seq 1000 > out"#,
        part = LINES / 4
    );
    format!(
        r#"apiVersion: xene/v1
kind: Workflow
metadata: {{name: chaos}}
spec:
  suspend: {suspend}
  env: {{EDITION: "{edition}"}}
  triggers:
    first: {{type: cron, schedule: "* * * * * *", catchUp: All}}
    second: {{type: cron, schedule: "*/2 * * * * *", catchUp: Latest}}
    third: {{type: cron, schedule: "*/3 * * * * *", catchUp: Skip}}
    sixth: {{type: cron, schedule: "*/6 * * * * *", catchUp: All}}
    seldom: {{type: cron, schedule: "*/15 * * * * *", catchUp: Latest}}
    request: {{type: webhook}}
  pipelines:
    forever: {{trigger: first, autonomy: Forever, concurrency: {{max: 8}}, {common}, tasks: {{t: {{steps: ['{note}']}}}}}}
    brief: {{trigger: second, autonomy: 4s, concurrency: {{max: 2}}, {common}, tasks: {{t: {{steps: ['{note}']}}}}}}
    alone: {{trigger: third, autonomy: 6s, exclusive: true, {common}, tasks: {{t: {{steps: ['{note}', '{beat}']}}}}}}
    lines: {{trigger: sixth, autonomy: 12s, concurrency: {{max: 2}}, {common}, tasks: {{t: {{steps: ['{note}', '{print}'], artifacts: {{save: [out]}}}}}}}}
    long: {{trigger: seldom, autonomy: 5m, concurrency: {{max: 3}}, {common}, tasks: {{t: {{steps: ['{note}', "trap '' TERM; setsid sleep 300 & sleep 9"]}}}}}}
    hand: {{autonomy: 20s, concurrency: {{max: 8}}, {common}, tasks: {{t: {{steps: ['{note}']}}}}}}
    hook: {{trigger: request, autonomy: 20s, concurrency: {{max: 8}}, {common}, tasks: {{t: {{steps: ['{note}']}}}}}}
"#
    )
}

/// Another workflow, which comes and goes.
pub(crate) const EXTRA: &str = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: extra}
spec:
  triggers: {second: {type: cron, schedule: "*/2 * * * * *"}}
  pipelines:
    more: {trigger: second, autonomy: 4s, tasks: {t: {steps: ["true"]}}}
"#;

/// The word that a first step left.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub pipeline: String,
    /// The due time, if cron started it.
    pub slot: Option<Timestamp>,
    pub run: String,
    pub epoch: u64,
    pub agent: String,
}

/// All that first steps wrote, in order.
pub(crate) fn starts(folder: &Path) -> Vec<Start> {
    let text = fs::read_to_string(folder.join("starts")).unwrap_or_default();
    let read = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let [pipeline, slot, run, epoch, agent] = words[..] else { panic!("half a line: {line:?}") };
        let slot = (slot != "-").then(|| slot.parse().unwrap());
        let pipeline = pipeline.rsplit('/').next().unwrap().to_owned();
        Start { pipeline, slot, run: run.into(), epoch: epoch.parse().unwrap(), agent: agent.into() }
    };
    text.lines().map(read).collect()
}

/// The starts of one pipeline that are due by a clock, in the order of their due times.
pub(crate) fn due(folder: &Path, pipeline: &str) -> Vec<(Timestamp, Start)> {
    let starts = starts(folder).into_iter().filter(|start| start.pipeline == pipeline);
    let mut due: Vec<_> = starts.map(|start| (start.slot.expect("it has no other trigger"), start)).collect();
    due.sort_by_key(|(slot, _)| *slot);
    due
}

/// No due time of a pipeline that is due each second was started twice. Gives the due times before and after each gap.
pub(crate) fn gaps(folder: &Path, pipeline: &str) -> Vec<(Timestamp, Timestamp)> {
    let mut gaps = Vec::new();
    let due = due(folder, pipeline);
    for pair in due.windows(2) {
        let (before, after) = (pair[0].0, pair[1].0);
        assert_ne!(before, after, "started twice: {pair:?}");
        if after.duration_since(before) != SignedDuration::from_secs(1) {
            gaps.push((before, after));
        }
    }
    gaps
}

/// What exclusive runs wrote: the run, its agent, and seconds since the boot.
pub(crate) fn beats(folder: &Path) -> Vec<(String, String, f64)> {
    let text = fs::read_to_string(folder.join("beats")).unwrap_or_default();
    let read = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let [run, agent, up] = words[..] else { panic!("half a line: {line:?}") };
        (run.to_owned(), agent.to_owned(), up.parse().unwrap())
    };
    text.lines().map(read).collect()
}
