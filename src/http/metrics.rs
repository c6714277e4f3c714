//! `/metrics`: OpenMetrics text. All names are in one list; docs/reference/metrics.md says the same.

use std::{fmt::Write as _, fs, sync::Arc};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use rustix::time::{ClockId, clock_gettime};
use xene_schemas::{phase::RunPhase, source::ConditionStatus};

use super::{Api, body::Proven, identity::identify, problem::Problem};
use crate::{
    decide::rows::Fate,
    metrics::{Counts, DURATIONS},
};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A name, and what it means.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
}

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal, $help:literal;)+) => {
        $(const $id: Family = Family { name: $name, kind: stringify!($kind), help: $help };)+
        /// All of them, for the test of their page.
        #[cfg(test)]
        pub(super) const FAMILIES: &[(&str, &str, &str)] = &[$(($name, stringify!($kind), $help)),+];
    };
}

families! {
    BUILD = info "xene_build", "The version that runs";
    RUNS = gauge "xene_runs", "Runs that have not ended";
    RUNS_WAITING = gauge "xene_runs_waiting", "Runs that have not begun, by what they wait for";
    RUNS_CREATED = counter "xene_runs_created", "Runs that were made, by what started them";
    RUNS_ENDED = counter "xene_runs_ended", "Runs that ended";
    RUN_DURATION = histogram "xene_run_duration_seconds", "From the start of a run to its end";
    MISSED = counter "xene_missed", "Due times without a run, by the reason";
    EVENTS = counter "xene_events", "Events";
    MESSAGES = counter "xene_notifications", "Messages of notifiers that wait no more, by what became of them";
    MESSAGES_WAITING = gauge "xene_notifications_waiting", "Messages of notifiers that wait to be delivered";
    AGENTS = gauge "xene_agents", "Agents that have joined";
    SESSIONS = gauge "xene_sessions", "Sessions of agents that stand, by what carries them";
    SLOTS = gauge "xene_agent_slots", "Tasks that the connected agents run at once, at most";
    BUSY = gauge "xene_agent_slots_busy", "Tasks that they run";
    WORKFLOWS = gauge "xene_workflows", "Workflows in effect";
    PIPELINES = gauge "xene_pipelines", "Pipelines in effect";
    SUSPENDED = gauge "xene_suspended", "Workflows, pipelines and sources that are suspended by command";
    LEASES = gauge "xene_leases", "Pipelines that agents hold and renew";
    SOURCE_READY = gauge "xene_source_ready", "1 while the source can be read and is in effect";
    SOURCE_LAG = gauge "xene_source_lag_seconds", "For how long the newest revision has not been in effect; 0 while it is";
    SOURCE_PROBLEMS = gauge "xene_source_problems", "Problems of the source's files";
    SOURCE_OBSERVED = gauge "xene_source_observed_timestamp_seconds", "When the source was last looked at";
    SOURCE_SYNCED = gauge "xene_source_synced_timestamp_seconds", "When the source last came into effect";
    STORE_BYTES = gauge "xene_store_bytes", "Size of the store's file";
    STORE_USED = gauge "xene_store_used_bytes", "Bytes of the store that hold something";
    STORE_LIMIT = gauge "xene_store_limit_bytes", "Bytes that they may come to on the store's disk";
    STORE_FULL = gauge "xene_store_full", "1 while nothing new is taken because the disk is full";
    STORE_COMMITS = counter "xene_store_commits", "Batches that were committed, for the life of the store";
    STORE_COMMIT = summary "xene_store_commit_seconds", "How long writing to the store's disk takes, each time";
    LOG_BYTES = counter "xene_log_bytes", "Bytes of logs that came from agents";
    REQUESTS = counter "xene_http_requests", "Requests that were answered";
    CPU = counter "process_cpu_seconds", "Processor time of the controller";
    MEMORY = gauge "process_resident_memory_bytes", "Memory of the controller";
}

/// The text, as it grows.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, family: &Family) {
        let Family { name, kind, help } = family;
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample, of a family that has several.
    fn sample(&mut self, family: &Family, suffix: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.extend([family.name, suffix]);
        for (i, (name, value)) in labels.iter().enumerate() {
            self.0.extend([if i == 0 { "{" } else { "," }, name, "=\""]);
            for letter in value.chars() {
                match letter {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    letter => self.0.push(letter),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A family of one sample.
    fn one(&mut self, family: &Family, value: impl std::fmt::Display) {
        self.family(family);
        let suffix = if family.kind == "counter" { "_total" } else { "" };
        self.sample(family, suffix, &[], value);
    }

    /// A family with a sample for each value of a label.
    fn each<K: AsRef<str>>(&mut self, family: &Family, label: &str, values: impl IntoIterator<Item = (K, u64)>) {
        self.family(family);
        let suffix = if family.kind == "counter" { "_total" } else { "" };
        for (value, count) in values {
            self.sample(family, suffix, &[(label, value.as_ref())], count);
        }
    }
}

/// Whoever may read may read this too; all may, if the operator says so.
pub(super) async fn metrics(
    State(api): State<Arc<Api>>,
    proven: Option<Extension<Proven>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if !api.config.metrics_public {
        identify(&api, &headers)?;
        if let Some(Extension(proven)) = proven {
            proven.now();
        }
    }
    let gauges = api.handle.view(|controller, now| controller.gauges(now)).await?;
    let store = api.handle.store();
    let (mut source, commits, bytes) = (store.source()?, store.revision()?, store.bytes());
    let lag = gauges.source.lag;
    if let Some(source) = &mut source {
        gauges.source.add_to(source);
    }
    let mut page = Page::default();
    page.family(&BUILD);
    page.sample(&BUILD, "_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    api.handle.counters().look(|counts| runs(&mut page, counts));
    api.handle.counters().look(|counts| {
        let fate = |fate: &Fate| match fate {
            Fate::Delivered => "Delivered",
            Fate::GivenUp => "GivenUp",
            Fate::Dropped => "Dropped",
            Fate::Superseded => "Superseded",
        };
        page.each(&MESSAGES, "fate", counts.messages.iter().map(|(of, count)| (fate(of), *count)));
    });
    page.one(&MESSAGES_WAITING, gauges.messages);
    page.each(&AGENTS, "phase", gauges.agents.iter().map(|(phase, count)| (phase.as_str(), *count)));
    let by_transport = gauges.sessions.iter().map(|(transport, count)| (transport.as_str(), *count));
    page.each(&SESSIONS, "transport", by_transport);
    page.one(&SLOTS, gauges.slots);
    page.one(&BUSY, gauges.busy);
    page.one(&WORKFLOWS, gauges.workflows);
    page.each(&PIPELINES, "phase", gauges.pipelines.iter().map(|(phase, count)| (phase.as_str(), *count)));
    page.one(&SUSPENDED, gauges.suspended);
    page.one(&LEASES, gauges.leases);
    let ready = |condition: &xene_schemas::source::Condition| {
        condition.kind == "Ready" && condition.status == ConditionStatus::True
    };
    page.one(&SOURCE_READY, u8::from(source.as_ref().is_some_and(|source| source.conditions.iter().any(ready))));
    page.one(&SOURCE_LAG, lag.as_secs_f64());
    page.one(&SOURCE_PROBLEMS, source.as_ref().map_or(0, |source| source.problems.len()));
    for (family, at) in [
        (&SOURCE_OBSERVED, source.as_ref().and_then(|source| source.observed_at)),
        (&SOURCE_SYNCED, source.as_ref().and_then(|source| source.synced_at)),
    ] {
        page.family(family);
        if let Some(at) = at {
            page.sample(family, "", &[], at.as_second());
        }
    }
    page.one(&STORE_BYTES, bytes);
    let size = store.size()?;
    page.one(&STORE_USED, size.used);
    page.one(&STORE_LIMIT, size.limit);
    page.one(&STORE_FULL, u8::from(store.is_full()));
    page.one(&STORE_COMMITS, commits);
    let (commits, took) = store.commits();
    page.family(&STORE_COMMIT);
    page.sample(&STORE_COMMIT, "_sum", &[], took.as_secs_f64());
    page.sample(&STORE_COMMIT, "_count", &[], commits);
    page.one(&LOG_BYTES, api.handle.counters().log_bytes());
    api.handle.counters().look(|counts| {
        page.family(&REQUESTS);
        for ((method, status), count) in &counts.requests {
            page.sample(&REQUESTS, "_total", &[("method", method), ("code", &status.to_string())], count);
        }
    });
    process(&mut page);
    page.0.push_str("# EOF\n");
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    Ok(([kind], page.0).into_response())
}

fn runs(page: &mut Page, counts: &Counts) {
    let active = RunPhase::ALL.iter().filter(|phase| !phase.is_final());
    page.each(&RUNS, "phase", active.map(|phase| (phase.as_str(), counts.active.get(phase).copied().unwrap_or(0))));
    page.each(&RUNS_WAITING, "reason", counts.waiting.iter().map(|(reason, count)| (reason, *count)));
    page.each(&RUNS_CREATED, "trigger", counts.created.iter().map(|(kind, count)| (kind, *count)));
    page.each(&RUNS_ENDED, "phase", counts.ended.iter().map(|(phase, count)| (phase.as_str(), *count)));
    page.family(&RUN_DURATION);
    for (bound, within) in DURATIONS.iter().zip(counts.within) {
        page.sample(&RUN_DURATION, "_bucket", &[("le", &format!("{bound}.0"))], within);
    }
    page.sample(&RUN_DURATION, "_bucket", &[("le", "+Inf")], counts.ended_in_all());
    page.sample(&RUN_DURATION, "_sum", &[], counts.seconds);
    page.sample(&RUN_DURATION, "_count", &[], counts.ended_in_all());
    page.each(&MISSED, "reason", counts.missed.iter().map(|(reason, count)| (reason, *count)));
    page.each(&EVENTS, "type", counts.events.iter().map(|(kind, count)| (kind, *count)));
}

/// What the kernel says of this process.
fn process(page: &mut Page) {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    page.one(&CPU, format_args!("{}.{:03}", used.tv_sec, used.tv_nsec / 1_000_000));
    page.family(&MEMORY);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    if let Some(kilobytes) = resident {
        let kilobytes: u64 = kilobytes;
        page.sample(&MEMORY, "", &[], kilobytes * 1_024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_can_hold_anything() {
        let mut page = Page::default();
        page.sample(&EVENTS, "_total", &[("type", "a\"b\\c\nd"), ("x", "é")], 3);
        assert_eq!(page.0, "xene_events_total{type=\"a\\\"b\\\\c\\nd\",x=\"é\"} 3\n");
    }
}
