//! Wall clocks that are wrong: that of the controller leaps, that of an agent is off.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp, ToSpan, tz::TimeZone};
use serde_json::Value;
use xene_test_support::{
    cluster::Cluster,
    eventually,
    process::{Process, run},
};

use crate::{
    client::Api,
    tools::{FakeClock, tamper},
    world::{due, gaps, note, starts},
};

const SHORT: [&str; 4] = ["--min-autonomy", "2s", "--pause-margin", "1s"];
/// Later than this nothing starts that is due each second: a machine that builds meanwhile is not as late as that.
const DEADLINE: i64 = 30;

/// A pipeline that is due each second, and one that is due each day at this hour. W is 11½ s.
fn workflow(cluster: &Cluster, hour: i8) -> String {
    let note = note(cluster.folder());
    format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  triggers:\n    \
         second: {{type: cron, schedule: \"* * * * * *\", catchUp: All, startingDeadline: {DEADLINE}s}}\n    \
         day: {{type: cron, schedule: \"0 {hour} * * *\", startingDeadline: 96h}}\n  pipelines:\n    \
         tick: {{trigger: second, autonomy: 10s, concurrency: {{max: 8}}, tasks: {{t: {{steps: ['{note}']}}}}}}\n    \
         daily: {{trigger: day, autonomy: 10s, tasks: {{t: {{steps: ['{note}']}}}}}}\n"
    )
}

fn until_ticks(cluster: &Cluster, more: usize) {
    let seen = due(cluster.folder(), "tick").len();
    eventually("it ticks on", || match due(cluster.folder(), "tick").len() {
        now if now >= seen + more => Ok(()),
        now => Err(format!("{seen} then {now}")),
    });
}

fn assert_none_left_out(cluster: &Cluster) {
    // Of two steps that start at nearly the same time the later may be the first that leaves word.
    eventually("no due time is left out", || match &gaps(cluster.folder(), "tick")[..] {
        [] => Ok(()),
        gaps => Err(format!("{gaps:?}")),
    });
}

/// All that ever started was started by this agent, in the epoch that the pipelines have now.
fn assert_one_owner(cluster: &Cluster, agent: &str) {
    let names = ["daily", "tick"];
    let ours = starts(cluster.folder()).into_iter().filter(|start| names.contains(&start.pipeline.as_str()));
    let owners: BTreeSet<_> = ours.map(|start| (start.pipeline, start.agent, start.epoch)).collect();
    let now = names.map(|name| {
        let pipeline = cluster.json(&["get", "pipelines", &format!("w/{name}")]);
        assert_eq!(pipeline["status"]["agent"], agent, "{pipeline:#}");
        (name.to_owned(), agent.to_owned(), pipeline["status"]["epoch"].as_u64().unwrap())
    });
    assert!(owners.is_subset(&now.into()), "{owners:?}");
}

/// By how many seconds the controller says that its clock leapt.
fn leap(cluster: &Cluster) -> Option<i64> {
    Api::of(cluster).json("/api/v1/controller").unwrap()["status"]["clockLeap"]["aheadSeconds"].as_i64()
}

fn leaps_by(cluster: &Cluster, hours: i64) {
    eventually("the leap is noticed", || match leap(cluster) {
        Some(seconds) if (seconds - hours * 3600).abs() <= 2 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn has_event(cluster: &Cluster, reason: &str) {
    cluster.until(&format!("{reason} is an event"), &["get", "events", "--limit", "500"], |events| {
        events["items"].as_array().unwrap().iter().any(|event: &Value| event["reason"] == reason)
    });
}

/// A controller that goes by a clock of its own, which no time service says to be right.
struct Leaping {
    clock: FakeClock,
    /// Has the host say that it is not synchronized, where it is.
    tracer: Option<Process>,
}

impl Leaping {
    fn begin(cluster: &mut Cluster) -> Option<Self> {
        let mut leaping = Self { clock: FakeClock::new(&cluster.folder().join("clock"))?, tracer: None };
        leaping.restart(cluster);
        if xene_agent::clock::is_synchronized() {
            leaping.tracer = Some(tamper(cluster.controller.as_ref()?, "adjtimex,clock_adjtime", "retval=5")?);
        }
        Some(leaping)
    }

    fn restart(&mut self, cluster: &mut Cluster) {
        cluster.kill_controller();
        cluster.launch_controller(&self.clock.environment());
        cluster.controller.as_mut().unwrap().line_after("agents dial ");
    }
}

/// The only agent gets both pipelines; it ticks.
fn begin(cluster: &Cluster, hour: i8) {
    cluster.repository.write("xene.d/w.yaml", &workflow(cluster, hour));
    cluster.commit("w");
    for pipeline in ["w/tick", "w/daily"] {
        assert_eq!(cluster.scheduled(pipeline)["status"]["agent"], "a");
    }
    until_ticks(cluster, 2);
}

/// An hour that does not begin while a test runs.
fn far_hour() -> i8 {
    Timestamp::now().to_zoned(TimeZone::UTC).checked_add(12.hours()).unwrap().hour()
}

#[test]
fn a_leap_of_the_controllers_clock_is_followed_once_a_person_confirms_it() {
    let mut cluster = Cluster::start(&SHORT);
    let Some(mut leaping) = Leaping::begin(&mut cluster) else { return };
    let hour = far_hour();
    cluster.start_agent("a", &[]);
    begin(&cluster, hour);
    // Who could take over.
    cluster.start_agent("b", &[]);
    assert_eq!(leap(&cluster), None);

    let token = cluster.run(&["token", "create", "eye", "--role", "viewer", "--ttl", "1h"]).expect(0).stdout;

    leaping.clock.set("+2h");
    leaps_by(&cluster, 2);
    let told = cluster.controller.as_mut().unwrap().line_after("clock leapt ahead by");
    assert!(told.contains("xene confirm-clock"), "{told}");
    let status = cluster.run(&["status"]).expect(0).stdout;
    let line = status.lines().find(|line| line.starts_with("clock leapt"));
    assert!(line.is_some_and(|line| line.contains("leapt ahead by")), "{status}");
    has_event(&cluster, "ClockLeapt");
    until_ticks(&cluster, 3);
    if leaping.tracer.is_none() {
        // Nor does the next process believe it: it goes on by elapsed time from where this one was.
        leaping.restart(&mut cluster);
        for agent in ["a", "b"] {
            cluster.until("it is back", &["get", "agents", agent], |agent| agent["status"]["phase"] == "Connected");
        }
        leaps_by(&cluster, 2);
        until_ticks(&cluster, 2);
    }
    leaping.clock.set("+72h");
    leaps_by(&cluster, 72);
    until_ticks(&cluster, 3);
    // Nor is anybody's certificate too old by it, and new ones are good for agents whose clocks are right.
    cluster.start_agent("late", &[]);
    for agent in ["b", "late"] {
        cluster.kill_agent(agent);
        cluster.launch_agent(agent, &[], &[]);
        cluster.agents.get_mut(agent).unwrap().line_after("session with the controller");
    }
    // Nor is an API token.
    let mut by_token = cluster.command();
    by_token.env("XENE_TOKEN", token.trim());
    run(by_token, &["get", "runs"]).expect(0);
    assert_none_left_out(&cluster);
    let (newest, now) = (due(cluster.folder(), "tick").pop().unwrap().0, Timestamp::now());
    let late = now.duration_since(newest);
    assert!((-1..DEADLINE).contains(&late.as_secs()), "what is due is due by elapsed time: {newest} at {now}");
    assert!(due(cluster.folder(), "daily").is_empty(), "nothing of those three days");
    assert_one_owner(&cluster, "a");

    cluster.run(&["confirm-clock"]).expect(0);
    assert_eq!(leap(&cluster), None);
    assert!(!cluster.run(&["status"]).expect(0).stdout.contains("clock leapt"));
    has_event(&cluster, "ClockConfirmed");
    let again = cluster.run(&["confirm-clock"]).expect(1);
    assert!(again.stderr.contains("did not leap"), "{again:?}");
    let confirmed = Timestamp::now() + 72.hours();
    eventually("it ticks by the new time", || match due(cluster.folder(), "tick").pop() {
        Some((newest, _)) if newest >= confirmed + 2.seconds() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let daily = eventually("what was due meanwhile is caught up", || match &due(cluster.folder(), "daily")[..] {
        [one] => Ok(one.0),
        other => Err(format!("{other:?}")),
    });
    assert!(daily <= confirmed && daily > confirmed - 24.hours(), "the newest of those days: {daily}");
    assert_eq!(daily.to_zoned(TimeZone::UTC).hour(), hour, "{daily}");
    let (before, after) = eventually("one leap, and no more", || match gaps(cluster.folder(), "tick")[..] {
        [gap] => Ok(gap),
        ref gaps => Err(format!("{gaps:?}")),
    });
    assert!(after.duration_since(before) > SignedDuration::from_hours(71), "{before} {after}");
    assert!(after >= confirmed - SignedDuration::from_secs(DEADLINE + 10), "later than its deadline: {after}");
    assert_eq!(due(cluster.folder(), "daily").len(), 1);
    assert_one_owner(&cluster, "a");
}

#[test]
fn a_controllers_clock_that_is_set_back_has_no_due_time_start_again() {
    let mut cluster = Cluster::start(&SHORT);
    let Some(mut leaping) = Leaping::begin(&mut cluster) else { return };
    cluster.start_agent("a", &[]);
    begin(&cluster, far_hour());
    cluster.start_agent("b", &[]);

    leaping.clock.set("-48h");
    leaps_by(&cluster, -48);
    let status = cluster.run(&["status"]).expect(0).stdout;
    assert!(status.contains("leapt back by"), "{status}");
    until_ticks(&cluster, 3);
    // To the clock as it stands its certificate begins tomorrow, and no join token is good for any time.
    cluster.start_agent("c", &[]);
    leaping.clock.set("+0");
    eventually("it is right again", || leap(&cluster).map_or(Ok(()), |by| Err(by.to_string())));
    has_event(&cluster, "ClockCameBack");
    until_ticks(&cluster, 1);

    leaping.clock.set("-48h");
    leaps_by(&cluster, -48);
    cluster.run(&["confirm-clock"]).expect(0);
    assert_eq!(leap(&cluster), None);
    until_ticks(&cluster, 3);
    leaping.restart(&mut cluster);
    for agent in ["a", "b", "c"] {
        cluster.until("it is back", &["get", "agents", agent], |agent| agent["status"]["phase"] == "Connected");
    }
    until_ticks(&cluster, 3);
    assert_none_left_out(&cluster);
    assert!(due(cluster.folder(), "daily").is_empty());
    assert_one_owner(&cluster, "a");
}

#[test]
fn an_agents_clock_that_is_off_is_told_of_and_moves_no_due_time() {
    let mut cluster = Cluster::start(&SHORT);
    let Some(clock) = FakeClock::new(&cluster.folder().join("clock")) else { return };
    clock.set("+40");
    let token = cluster.join_token(&[]);
    cluster.launch_agent("a", &["--token", &token], &clock.environment());
    let about = |told: &str| told.split(' ').next().unwrap().parse::<i64>().unwrap();
    let told = cluster.controller.as_mut().unwrap().line_after("the clock of a is ");
    assert!((35..=41).contains(&about(&told)) && told.contains("away from this host's"), "{told}");
    let told = cluster.agents.get_mut("a").unwrap().line_after("this host's clock is ");
    assert!((39..=41).contains(&about(&told)) && told.contains("away from the controller's"), "{told}");
    let agent = cluster.json(&["get", "agents", "a"]);
    assert_eq!(agent["status"]["phase"], "Connected", "{agent:#}");
    assert!(agent["status"].get("reason").is_none(), "less than a minute keeps nothing from it: {agent:#}");

    begin(&cluster, far_hour());
    // Each is due by the right time, also when the agent's clock is moved to the other side of it.
    let is_on_time = |cluster: &Cluster| {
        let (newest, now) = (due(cluster.folder(), "tick").pop().unwrap().0, Timestamp::now());
        let late = now.duration_since(newest).as_millis();
        assert!((-500..20_000).contains(&late), "{newest} at {now}");
    };
    for offset in ["+40", "-40", "+59"] {
        clock.set(offset);
        until_ticks(&cluster, 3);
        is_on_time(&cluster);
    }
    let agent = cluster.json(&["get", "agents", "a"]);
    assert!(agent["status"].get("reason").is_none(), "{agent:#}");

    clock.set("+90");
    let agent = cluster.until("it is told", &["get", "agents", "a"], |agent| agent["status"]["reason"] == "ClockSkew");
    assert!(agent["status"]["message"].as_str().unwrap().contains("s off"), "{agent:#}");
    let more = workflow(&cluster, far_hour()).replace("{name: w}", "{name: more}").replace("tick:", "tock:");
    cluster.repository.write("xene.d/more.yaml", &more);
    cluster.commit("more");
    let waits = cluster.json(&["get", "pipelines", "more/tock"]);
    assert_eq!(waits["status"]["phase"], "NotScheduled", "it gets nothing new: {waits:#}");
    until_ticks(&cluster, 3);
    is_on_time(&cluster);
    clock.set("+0");
    assert_eq!(cluster.scheduled("more/tock")["status"]["agent"], "a", "its clock is right");
    until_ticks(&cluster, 1);
    assert_none_left_out(&cluster);
    assert_one_owner(&cluster, "a");
}
