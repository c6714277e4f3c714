//! The checker: what steps left outside of xene, and what was acknowledged, against what the API says now.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use xene_test_support::process::{shims_below, steps_below};

use crate::{
    client::{Acknowledged, Api},
    world::{AGENTS, CRON, Cron, LINES, Start, beats, starts},
};

/// What an agent that is killed has read from a pipe and not written yet may be lost, and nothing more.
const IN_HAND: usize = 128 << 10;

/// What the plan knows of what it did.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// From when on all pipelines had an agent.
    pub since: Timestamp,
    /// Until when their triggers fired.
    pub until: Timestamp,
    pub folder: PathBuf,
    /// When which agent was killed.
    kills: Vec<(&'static str, Timestamp)>,
    /// How often the disk of an agent became full.
    pub full_disks: u32,
    /// What went wrong meanwhile.
    pub broken: Vec<String>,
}

impl Seen {
    pub(crate) fn killed(&mut self, agent: &'static str) {
        self.kills.push((agent, Timestamp::now()));
    }
}

/// Every promise that was broken; `Err` if that can't be told.
pub(crate) fn check(api: &Api, seen: &Seen, acknowledged: &Acknowledged) -> Result<Vec<String>, String> {
    let starts = starts(&seen.folder);
    let mut broken = seen.broken.clone();
    let runs: BTreeMap<String, Value> = api
        .all("/api/v1/runs?")?
        .into_iter()
        .map(|run| (run["metadata"]["name"].as_str().unwrap_or_default().to_owned(), run))
        .collect();
    at_most_once(&starts, &mut broken);
    one_agent_for_each_epoch(&starts, &mut broken);
    never_beside_another(&seen.folder, &mut broken);
    nothing_is_lost(&starts, acknowledged, &runs, &mut broken);
    every_run_has_ended(&starts, &runs, &mut broken);
    for cron in &CRON {
        let rows = api.all(&format!("/api/v1/pipelines/chaos/{}/firings?", cron.name))?;
        every_due_time_is_told(cron, &rows, seen, &mut broken);
        the_ledger_knows_every_start(cron, &rows, &starts, &mut broken);
    }
    for (name, run) in runs.iter().filter(|(_, run)| run["spec"]["pipeline"] == "lines") {
        what_it_printed_is_there(api, name, run, seen, acknowledged, &mut broken)?;
    }
    nothing_runs_any_more(&seen.folder, &mut broken);
    println!("looked at {} runs and {} starts", runs.len(), starts.len());
    Ok(broken)
}

fn at_most_once(starts: &[Start], broken: &mut Vec<String>) {
    let (mut runs, mut slots) = (BTreeMap::new(), BTreeMap::new());
    for start in starts {
        if let Some(other) = runs.insert(&start.run, start) {
            broken.push(format!("a run started twice: {other:?} {start:?}"));
        }
        if start.slot.is_some()
            && let Some(other) = slots.insert((&start.pipeline, start.slot), start)
        {
            broken.push(format!("a due time started twice: {other:?} {start:?}"));
        }
    }
}

fn one_agent_for_each_epoch(starts: &[Start], broken: &mut Vec<String>) {
    let mut owners = BTreeMap::new();
    for start in starts {
        let owner = owners.entry((&start.pipeline, start.epoch)).or_insert(&start.agent);
        if **owner != start.agent {
            broken.push(format!("{owner} had that epoch, too: {start:?}"));
        }
    }
}

fn never_beside_another(folder: &std::path::Path, broken: &mut Vec<String>) {
    let mut spans: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (run, agent, up) in beats(folder) {
        let span = spans.entry(format!("{run} on {agent}")).or_insert((up, up));
        span.1 = span.1.max(up);
    }
    let mut spans: Vec<_> = spans.into_iter().collect();
    spans.sort_by(|a, b| a.1.0.total_cmp(&b.1.0));
    for pair in spans.windows(2) {
        if pair[0].1.1 >= pair[1].1.0 {
            broken.push(format!("exclusive runs overlap: {pair:?}"));
        }
    }
}

fn nothing_is_lost(
    starts: &[Start],
    acknowledged: &Acknowledged,
    runs: &BTreeMap<String, Value>,
    broken: &mut Vec<String>,
) {
    for start in starts.iter().filter(|start| !runs.contains_key(&start.run)) {
        broken.push(format!("a start has no record: {start:?}"));
    }
    for run in acknowledged.runs.iter().filter(|run| !runs.contains_key(*run)) {
        broken.push(format!("a run that was acknowledged has no record: {run}"));
    }
    let mut of_deliveries = BTreeSet::new();
    for (delivery, answers) in &acknowledged.deliveries {
        let one: BTreeSet<_> = answers.iter().collect();
        if one.len() != 1 {
            broken.push(format!("delivery {delivery} gave several runs: {one:?}"));
        }
        for run in one {
            if !runs.contains_key(run) {
                broken.push(format!("delivery {delivery} was acknowledged, and its run has no record: {run}"));
            }
            if !of_deliveries.insert(run) {
                broken.push(format!("two deliveries gave one run: {run}"));
            }
        }
    }
}

fn every_run_has_ended(starts: &[Start], runs: &BTreeMap<String, Value>, broken: &mut Vec<String>) {
    let started: BTreeSet<_> = starts.iter().map(|start| start.run.as_str()).collect();
    for (name, run) in runs {
        let status = &run["status"];
        let of_ours = run["spec"]["workflow"] == "chaos";
        match status["phase"].as_str().unwrap_or_default() {
            "Success" if of_ours && !started.contains(name.as_str()) => {
                broken.push(format!("a run succeeded that no step of knows: {run:#}"));
            }
            "Success" | "Error" if status["finishedAt"].is_string() => {}
            "Unknown" if status["reason"] == "AgentLost" => {}
            _ => broken.push(format!("a run has no end: {run:#}")),
        }
    }
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// Each due time between begin and end has a row, or a row that stands for it; under `Forever` a run.
fn every_due_time_is_told(cron: &Cron, rows: &[Value], seen: &Seen, broken: &mut Vec<String>) {
    let by_time: BTreeMap<Timestamp, &Value> =
        rows.iter().filter_map(|row| Some((time(&row["scheduledTime"])?, row))).collect();
    let ranges: Vec<_> =
        rows.iter().filter_map(|row| Some((time(&row["scheduledTime"])?, time(&row["until"])?, row))).collect();
    let first = seen.since.as_second() + cron.every - seen.since.as_second().rem_euclid(cron.every);
    let mut slots = (first..seen.until.as_second()).step_by(usize::try_from(cron.every).unwrap_or(1));
    let mut told = BTreeMap::<String, u32>::new();
    let mut untold = Vec::new();
    for slot in &mut slots {
        let at = Timestamp::from_second(slot).unwrap();
        let row = by_time
            .get(&at)
            .copied()
            .or_else(|| ranges.iter().find(|(from, until, _)| *from <= at && at <= *until).map(|(.., row)| *row));
        let Some(row) = row else {
            untold.push(at.to_string());
            continue;
        };
        let outcome = row["outcome"].as_str().unwrap_or_default();
        *told.entry(format!("{outcome} {}", row["reason"].as_str().unwrap_or_default())).or_default() += 1;
        // Fewer than a hundred pass while anybody is away.
        if outcome == "Missed" {
            broken.push(format!("{} has a due time that nobody looked at: {row:#}", cron.name));
        }
        // Its due times are caught up, and its owner keeps it: a start may come late, but none is left out, save the one
        // that is in hand when its agent's disk becomes full.
        if cron.name == "forever" && outcome != "Fired" && row["reason"] != "AgentDisk" {
            broken.push(format!("forever left out a due time: {row:#}"));
        }
    }
    println!("{}: {told:?}", cron.name);
    let in_hand = told.get("Skipped AgentDisk").copied().unwrap_or_default();
    if cron.name == "forever" && in_hand > seen.full_disks {
        broken.push(format!("forever left out {in_hand} due times for {} full disks", seen.full_disks));
    }
    if !untold.is_empty() {
        broken.push(format!("{}: the ledger has nothing of {} due times: {untold:?}", cron.name, untold.len()));
    }
}

fn the_ledger_knows_every_start(cron: &Cron, rows: &[Value], starts: &[Start], broken: &mut Vec<String>) {
    let fired: BTreeMap<Timestamp, &Value> = rows
        .iter()
        .filter(|row| row["outcome"] == "Fired")
        .filter_map(|row| Some((time(&row["scheduledTime"])?, &row["run"])))
        .collect();
    for start in starts.iter().filter(|start| start.pipeline == cron.name) {
        let Some(slot) = start.slot else { continue };
        if fired.get(&slot).is_none_or(|run| *run != start.run.as_str()) {
            broken.push(format!("a start is not in the ledger: {start:?}"));
        }
    }
}

/// All lines in their order, none twice, none missing but what was in the hands of an agent that was killed.
fn what_it_printed_is_there(
    api: &Api,
    name: &str,
    run: &Value,
    seen: &Seen,
    acknowledged: &Acknowledged,
    broken: &mut Vec<String>,
) -> Result<(), String> {
    let log = api.get(&format!("/api/v1/runs/{name}/logs"))?;
    if let Some(before) = acknowledged.logs.get(name)
        && !log.starts_with(before)
    {
        broken.push(format!("the log of {name} does not begin any more as it did: {} bytes then", before.len()));
    }
    let text = String::from_utf8_lossy(&log);
    let (mut last, mut missing, mut noted) = (0, 0, false);
    for line in text.lines() {
        if line.starts_with("xene: ") {
            noted = true;
            continue;
        }
        // Beside what is missing there may be half a line.
        let number = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(" line ")?.parse::<u64>().ok());
        let Some(number) = number else {
            missing += line.len();
            continue;
        };
        if number <= last {
            broken.push(format!("in the log of {name}, line {number} comes after {last}"));
            return Ok(());
        }
        missing += usize::try_from(number - last - 1).unwrap_or_default() * (name.len() + 10);
        last = number;
    }
    if run["status"]["phase"] != "Success" {
        return Ok(());
    }
    missing += usize::try_from(LINES - last).unwrap_or_default() * (name.len() + 10);
    let (began, ended) = (time(&run["status"]["startedAt"]), time(&run["status"]["finishedAt"]));
    let second = SignedDuration::from_secs(1);
    let killed = seen.kills.iter().filter(|(agent, at)| {
        run["status"]["agent"] == *agent
            && began.is_some_and(|began| began - second <= *at)
            && ended.is_some_and(|ended| *at <= ended + second)
    });
    let may_miss = killed.count() * IN_HAND;
    if missing > may_miss && !noted {
        broken.push(format!("about {missing} bytes are missing in the log of {name}, where {may_miss} may: {run:#}"));
    }
    let saved = api.get(&format!("/api/v1/runs/{name}/artifacts/t/out"))?;
    let expected: String = (1..=1000).map(|n| format!("{n}\n")).collect();
    if saved != expected.as_bytes() {
        broken.push(format!("the artifact of {name} is not what it saved: {} bytes", saved.len()));
    }
    Ok(())
}

fn nothing_runs_any_more(folder: &std::path::Path, broken: &mut Vec<String>) {
    let steps = steps_below(folder);
    if !steps.is_empty() {
        let lines = steps.iter().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default());
        broken.push(format!("processes of steps are left: {:?}", lines.collect::<Vec<_>>()));
    }
    // Each agent keeps the one that starts them.
    let shims = shims_below(folder);
    if shims.len() > AGENTS.len() {
        broken.push(format!("processes above steps are left: {shims:?}"));
    }
}
