//! `xene why RUN | WORKFLOW/PIPELINE[@TIME]`: what the controller knows of a decision.

use jiff::Timestamp;
use xene_schemas::{
    firing::Firing,
    meta::RunName,
    plan::DueTime,
    why::{CommitWhy, InstantWhy, PipelineWhy, RunWhy, Verdict},
};

use super::{
    Error,
    client::Client,
    escape,
    output::{Ui, painted, phase_style},
    status::{parse, short},
    time::{exact, relative},
};
use crate::percent::encode;

/// Arguments of `xene why`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "RUN: what started it, from which commit, on which agent, and what it waits for.\n\
                        WORKFLOW/PIPELINE: which agent has it and why, or why none; its triggers and last due times.\n\
                        WORKFLOW/PIPELINE@TIME: what became of that instant, such as site/build@2026-11-26T03:00:00Z.")]
pub struct Args {
    /// A run, a pipeline, or an instant of a pipeline.
    #[arg(value_name = "RUN|WORKFLOW/PIPELINE[@TIME]")]
    pub what: String,
}

/// What is asked about.
#[derive(Debug, PartialEq, Eq)]
enum What<'a> {
    Run(&'a str),
    Pipeline(&'a str, &'a str),
    Instant(&'a str, &'a str, Timestamp),
}

impl<'a> What<'a> {
    /// `None` if it is neither a run's name nor a pipeline's.
    fn parse(text: &'a str) -> Result<Option<Self>, Error> {
        let bare = text.strip_prefix("run/").filter(|name| !name.contains('/'));
        // A pipeline may belong to a workflow named `pipeline`.
        let bare = bare.or_else(|| text.strip_prefix("pipeline/").filter(|name| name.contains('/')));
        let text = bare.unwrap_or(text);
        let (name, time) = text.split_once('@').map_or((text, None), |(name, time)| (name, Some(time)));
        match (name.split_once('/'), time) {
            (Some((workflow, pipeline)), None) => Ok(Some(Self::Pipeline(workflow, pipeline))),
            (Some((workflow, pipeline)), Some(time)) => match time.parse() {
                Ok(at) => Ok(Some(Self::Instant(workflow, pipeline, at))),
                Err(_) => Err(Error::usage_with_hint(
                    format!("{time:?} is not a time"),
                    "expected RFC 3339 with a zone, such as 2026-11-26T03:00:00Z or 2026-11-26T04:00:00+01:00",
                )),
            },
            (None, None) if name.parse::<RunName>().is_ok() => Ok(Some(Self::Run(name))),
            (None, _) => Ok(None),
        }
    }
}

/// There is no such thing; perhaps pipelines are meant that have this name, or are of the workflow that has it.
fn neither(name: &str, client: &Client) -> Result<Error, Error> {
    let list = client.list("/api/v1/pipelines", &[])?;
    let names = list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str());
    let meant: Vec<&str> = names.filter(|full| full.split('/').any(|part| part == name)).take(3).collect();
    let hint = if meant.is_empty() {
        "expected a run's name, WORKFLOW/PIPELINE, or WORKFLOW/PIPELINE@TIME; see `xene get runs` and `xene get pipelines`".into()
    } else {
        format!("did you mean {}?", meant.join(" or "))
    };
    Ok(Error::NotFound { message: format!("there is no run named {name:?}, and no pipeline"), hint: Some(hint) })
}

/// Asks, and prints the answer.
///
/// # Errors
/// If the controller refuses.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let Some(what) = What::parse(&args.what)? else { return Err(neither(&args.what, client)?) };
    let pipeline = |workflow, pipeline| format!("/api/v1/pipelines/{}/{}/why", encode(workflow), encode(pipeline));
    let answer = match what {
        What::Run(name) => client.get(&format!("/api/v1/runs/{}/why", encode(name)), &[])?,
        What::Pipeline(w, p) => client.get(&pipeline(w, p), &[])?,
        What::Instant(w, p, at) => client.get(&pipeline(w, p), &[("at", &exact(at))])?,
    };
    if !ui.is_human() {
        return ui.value(&answer);
    }
    let mut page = Page { text: String::new(), now: ui.now(), colored: ui.out.colored };
    match what {
        What::Run(_) => page.run(&parse(&answer)?),
        What::Pipeline(..) => page.pipeline(&parse(&answer)?),
        What::Instant(..) => page.instant(&parse(&answer)?),
    }
    ui.out.write(page.text)
}

/// Sentences, and lists below titles.
struct Page {
    text: String,
    now: Timestamp,
    colored: bool,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.text += escape::line(text).trim_end();
        self.text.push('\n');
    }

    fn section(&mut self, title: &str) {
        let title = painted(title, anstyle::Style::new().bold(), self.colored);
        self.text.extend(["\n", &title, "\n"]);
    }

    fn head(&mut self, name: &str, phase: &str, reason: Option<&str>, message: Option<&str>) {
        let word = painted(phase, phase_style(phase), self.colored);
        let reason = reason.map(|reason| format!(" ({})", escape::line(reason))).unwrap_or_default();
        let message = message.map(|message| format!(": {}", escape::line(message))).unwrap_or_default();
        self.text.extend([escape::line(name).as_str(), " is ", &word, &reason, &message, "\n"]);
    }

    fn when(&self, at: Timestamp) -> String {
        format!("{} ({})", relative(at, self.now), exact(at))
    }

    fn run(&mut self, why: &RunWhy) {
        let reason = why.reason.as_ref().map(|reason| reason.as_str());
        self.head(&format!("run {}", why.metadata.name), why.phase.as_str(), reason, why.message.as_deref());
        let trigger = &why.trigger;
        let name = trigger.name.as_ref().map(|name| format!(" trigger {name}")).unwrap_or_default();
        let by = trigger.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let due = trigger.scheduled_time.map(|at| format!(", due {}", self.when(at))).unwrap_or_default();
        self.line(&format!("  started by  {}{name}{by}{due}", trigger.kind.as_str()));
        self.line(&format!("  pipeline    {}", why.pipeline));
        self.commit(&why.commit);
        if let Some(agent) = &why.agent {
            let because = why.placement.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
            self.line(&format!("  agent       {agent}{because}"));
        }
        if !why.waits.is_empty() {
            self.section("Waits for");
            for wait in &why.waits {
                let since = wait.since.map(|at| format!(", since {}", self.when(at))).unwrap_or_default();
                let until = wait.until.map(|at| format!(", at most until {}", exact(at))).unwrap_or_default();
                self.line(&format!("  {}{since}{until}", wait.message));
            }
        }
        if !why.tasks.is_empty() {
            self.section("Tasks");
            for task in &why.tasks {
                let attempt = if task.attempt > 1 { format!(", attempt {}", task.attempt) } else { String::new() };
                let reason = task.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                let message = task.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
                self.line(&format!("  {} is {}{reason}{attempt}{message}", task.name, task.phase));
            }
        }
    }

    fn commit(&mut self, commit: &CommitWhy) {
        let author = commit.author.as_deref().map(|author| format!(" by {author}")).unwrap_or_default();
        let subject = commit.subject.as_deref().map(|subject| format!(": {subject}")).unwrap_or_default();
        self.line(&format!("  commit      {}{author}{subject}", short(Some(&commit.revision))));
        if let (Some(path), Some(line)) = (&commit.path, commit.line) {
            self.line(&format!("  file        {path}:{line}"));
        }
    }

    fn pipeline(&mut self, why: &PipelineWhy) {
        let reason = why.reason.as_ref().map(|reason| reason.as_str());
        let name = format!("pipeline {}", why.metadata.name);
        self.head(&name, why.phase.as_str(), reason, why.message.as_deref());
        self.commit(&why.commit);
        if let Some(agent) = &why.agent {
            self.line(&format!("  agent       {agent}"));
        }
        if why.suspended {
            self.line("  suspended   its triggers do not fire");
        }
        let labels: Vec<String> = why.labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
        if !labels.is_empty() {
            self.line(&format!("  asks for    {}", labels.join(", ")));
        }
        for run in &why.runs {
            self.line(&format!("  in flight   {run}"));
        }
        self.section("Agents");
        if why.agents.is_empty() {
            self.line("  none has joined");
        }
        for agent in &why.agents {
            let mark = if agent.verdict == Verdict::Owner { '*' } else { ' ' };
            let since = agent.since.map(|at| format!(", last heard {}", self.when(at))).unwrap_or_default();
            self.line(&format!("{mark} {}: {}{since}", agent.agent, agent.message));
        }
        if !why.triggers.is_empty() {
            self.section("Triggers");
        }
        for trigger in &why.triggers {
            let schedule = trigger.schedule.as_ref().map(|schedule| format!(" {schedule}")).unwrap_or_default();
            let next = match (trigger.suspended, trigger.next_fire) {
                (true, _) => ", suspended".into(),
                (false, Some(at)) => format!(", next {}", self.when(at)),
                (false, None) => String::new(),
            };
            self.line(&format!("  {}: {}{schedule}{next}", trigger.name, trigger.kind));
        }
        if !why.after.is_empty() {
            self.section("After");
        }
        for after in &why.after {
            let run = match (after.run, after.finished_at) {
                (Some(run), Some(at)) => format!("run {run} ended in Success {}", self.when(at)),
                _ => "waits for its next Success".into(),
            };
            self.line(&format!("  {}: {run}", after.pipeline));
        }
        if !why.firings.is_empty() {
            self.section("Last due times");
        }
        for firing in &why.firings {
            self.firing(firing);
        }
    }

    fn firing(&mut self, firing: &Firing) {
        self.line(&format!("  {}", line_of(firing)));
    }

    fn instant(&mut self, why: &InstantWhy) {
        self.line(&format!("{} at {}: {}", why.metadata.name, exact(why.at), why.message));
        for firing in &why.firings {
            self.firing(firing);
        }
        let mut near = |word: &str, due: &Option<DueTime>| {
            if let Some(due) = due {
                let when = self.when(due.at);
                self.line(&format!("  {word}  {} {when}", due.trigger));
            }
        };
        near("before", &why.previous);
        near("after ", &why.next);
    }
}

/// `2026-11-26T03:00:00.000Z nightly: Skipped (TooLate), …`.
pub(super) fn line_of(firing: &Firing) -> String {
    let reason = firing.reason.as_ref().filter(|reason| reason.as_str() != firing.outcome.as_str());
    let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let count = firing.count.map(|count| format!(", {count} in all")).unwrap_or_default();
    let until = firing.until.map(|until| format!(", and all up to {}{count}", exact(until))).unwrap_or_default();
    let run = firing.run.map(|run| format!(" {run}")).unwrap_or_default();
    format!("{} {}: {}{reason}{run}{until}", exact(firing.scheduled_time), firing.trigger, firing.outcome.as_str())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::{
        fake::{Fake, Reply},
        fixtures,
        output::{Format, testing},
    };

    fn check(what: &str, answer: Value, target: &str, expected: &Expect) {
        let fake = Fake::start(move |_, _| Reply::Json(200, answer.clone()));
        let (mut ui, out, _) = testing::ui(Format::Table);
        run(&Args { what: what.into() }, &fake.client(), &mut ui).unwrap();
        assert_eq!(fake.requests()[0].target, target);
        expected.assert_eq(&out.text());
    }

    fn commit() -> Value {
        json!({"revision": "1a2b3c4d5e6f", "author": "Ada <ada@example.com>", "subject": "Build\x1b[2J nightly",
               "path": "xene.d/site.yaml", "line": 1})
    }

    #[test]
    fn a_run_says_what_it_waits_for() {
        let answer = json!({
            "metadata": {"name": "01m89973qg000000000000000b"}, "pipeline": "site/build", "phase": "StartingUp",
            "reason": "Queued", "message": "it waits for an earlier run of this pipeline",
            "trigger": {"type": "cron", "name": "nightly", "scheduledTime": "2026-11-25T11:57:00.000Z"},
            "commit": commit(), "agent": "agent-1", "placement": "agent-1 has what it takes",
            "waits": [{"for": "Run", "run": "01m8991xq0000000000000000a", "since": "2026-11-25T11:57:01.000Z",
                       "message": "run 01m8991xq0000000000000000a is Running; at most 1 of the pipeline run at once"}],
            "tasks": [{"name": "compile", "phase": "Running", "attempt": 2}],
        });
        check(
            "run/01m89973qg000000000000000b",
            answer,
            "/api/v1/runs/01m89973qg000000000000000b/why",
            &expect![[r#"
                run 01m89973qg000000000000000b is StartingUp (Queued): it waits for an earlier run of this pipeline
                  started by  cron trigger nightly, due 3m ago (2026-11-25T11:57:00.000Z)
                  pipeline    site/build
                  commit      1a2b3c4 by Ada <ada@example.com>: Build\x1b[2J nightly
                  file        xene.d/site.yaml:1
                  agent       agent-1: agent-1 has what it takes

                Waits for
                  run 01m8991xq0000000000000000a is Running; at most 1 of the pipeline run at once, since 2m ago (2026-11-25T11:57:01.000Z)

                Tasks
                  compile is Running, attempt 2
            "#]],
        );
    }

    #[test]
    fn a_pipeline_without_an_agent_names_each_and_what_it_lacks() {
        let answer = json!({
            "metadata": {"name": "site/deploy"}, "phase": "NotScheduled", "reason": "NoMatchingAgent",
            "message": "no agent has the labels zone=dmz", "commit": commit(), "suspended": false, "labels": {"zone": "dmz"},
            "agents": [
                {"agent": "agent-1", "verdict": "MissingLabels", "missing": {"zone": "dmz"}, "pipelines": 1, "slots": 4,
                 "message": "it lacks zone=dmz"},
                {"agent": "agent-2", "verdict": "Disconnected", "since": "2026-11-25T09:00:00.000Z", "pipelines": 0, "slots": 2,
                 "message": "it is disconnected"},
            ],
            "triggers": [{"name": "nightly", "type": "cron", "schedule": "0 3 * * * (UTC)", "nextFire": "2026-11-26T03:00:00.000Z"}],
            "after": [
                {"pipeline": "build", "run": "01m8991xq0000000000000000a", "finishedAt": "2026-11-25T09:00:00.000Z"},
                {"pipeline": "test"},
            ],
            "firings": [
                {"metadata": {"name": "nightly@2026-11-25T03:00:00.000Z"}, "pipeline": "site/deploy", "trigger": "nightly",
                 "scheduledTime": "2026-11-25T03:00:00.000Z", "outcome": "Fired", "message": "it started",
                 "run": "01m8991xq0000000000000000a"},
                {"metadata": {"name": "nightly@2026-11-22T03:00:00.000Z"}, "pipeline": "site/deploy", "trigger": "nightly",
                 "scheduledTime": "2026-11-22T03:00:00.000Z", "until": "2026-11-24T03:00:00.000Z", "outcome": "Unknown",
                 "reason": "Unknown", "message": "nobody can tell"},
            ],
        });
        check(
            "site/deploy",
            answer,
            "/api/v1/pipelines/site/deploy/why",
            &expect![[r#"
                pipeline site/deploy is NotScheduled (NoMatchingAgent): no agent has the labels zone=dmz
                  commit      1a2b3c4 by Ada <ada@example.com>: Build\x1b[2J nightly
                  file        xene.d/site.yaml:1
                  asks for    zone=dmz

                Agents
                  agent-1: it lacks zone=dmz
                  agent-2: it is disconnected, last heard 3h ago (2026-11-25T09:00:00.000Z)

                Triggers
                  nightly: cron 0 3 * * * (UTC), next in 15h (2026-11-26T03:00:00.000Z)

                After
                  build: run 01m8991xq0000000000000000a ended in Success 3h ago (2026-11-25T09:00:00.000Z)
                  test: waits for its next Success

                Last due times
                  2026-11-25T03:00:00.000Z nightly: Fired 01m8991xq0000000000000000a
                  2026-11-22T03:00:00.000Z nightly: Unknown, and all up to 2026-11-24T03:00:00.000Z
            "#]],
        );
    }

    #[test]
    fn an_instant_without_a_due_time_names_its_neighbours() {
        let answer = json!({
            "metadata": {"name": "site/build"}, "at": "2026-11-25T03:30:00.000Z", "verdict": "NotDue",
            "message": "no trigger is due at this instant",
            "previous": {"trigger": "nightly", "at": "2026-11-25T03:00:00.000Z"},
            "next": {"trigger": "nightly", "at": "2026-11-26T03:00:00.000Z"},
        });
        check(
            "site/build@2026-11-25T04:30:00+01:00",
            answer,
            "/api/v1/pipelines/site/build/why?at=2026-11-25T03%3A30%3A00.000Z",
            &expect![[r#"
                site/build at 2026-11-25T03:30:00.000Z: no trigger is due at this instant
                  before  nightly 9h ago (2026-11-25T03:00:00.000Z)
                  after   nightly in 15h (2026-11-26T03:00:00.000Z)
            "#]],
        );
    }

    #[test]
    fn what_is_neither_run_nor_pipeline_is_told_what_it_may_be() {
        let fake = Fake::start(|_, _| Reply::Json(200, fixtures::list(&fixtures::pipelines())));
        let error = |what: &str| {
            let (mut ui, ..) = testing::ui(Format::Table);
            run(&Args { what: what.into() }, &fake.client(), &mut ui).unwrap_err()
        };
        for what in ["agent-1", "nonsense@2026-11-25T03:30:00Z", ""] {
            assert_eq!((error(what).status(), error(what).hint().is_some()), (4, true), "{what}");
        }
        assert_eq!(error("agent-1").to_string(), "there is no run named \"agent-1\", and no pipeline");
        assert_eq!(error("deploy").hint().as_deref(), Some("did you mean site/deploy?"));
        assert_eq!(error("a/b@yesterday").status(), 2);
        assert_eq!(What::parse("pipeline/a/b").unwrap(), Some(What::Pipeline("a", "b")));
        assert_eq!(What::parse("pipeline/b").unwrap(), Some(What::Pipeline("pipeline", "b")));
    }
}
