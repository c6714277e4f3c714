//! Approvals.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn asking(approval: Value) -> CompiledPipeline {
    pipeline(json!({
        "tasks": {"build": {"steps": ["x"]}, "deploy": {"steps": ["x"]}, "tell": {"steps": ["x"]}},
        "connectors": [
            {"from": "build", "to": "deploy", "approval": approval},
            {"from": "deploy", "to": "tell"},
        ],
        "finally": {"tidy": {"steps": ["x"]}},
    }))
}

#[test]
fn a_task_waits_for_consent_without_a_slot() {
    let mut sim = Sim::started(asking(json!({"message": "Ship it?"})));
    sim.decide("deploy", true);
    sim.lines();
    sim.exit("build", 0);
    assert_eq!(sim.lines(), ["build.0 Success", "build returns", "build Success", "deploy wants approval"]);
    assert!(sim.holding.is_empty() && sim.asking.is_empty(), "what was said before it was asked does not count");
    assert_eq!(sim.task("deploy"), "NotExecuted WaitingForApproval");
    assert_eq!(sim.message("deploy"), "Ship it?");
    sim.pass(MINUTE * 60);
    sim.decide("tell", true);
    sim.decide("nobody", true);
    assert_eq!(sim.lines(), [""; 0], "it waits as long as the run may take");
    sim.decide("deploy", true);
    sim.decide("deploy", false);
    assert_eq!(
        sim.lines(),
        [
            "deploy approved by ann",
            "deploy asks",
            "deploy started, attempt 1",
            "deploy.0 started",
            "spawn deploy.0 (1.1)"
        ]
    );
    let approval = sim.record.status.tasks["deploy"].approval.clone().unwrap();
    assert_eq!((approval.approved, approval.by.as_deref()), (Some(true), Some("ann")));
    sim.finish();
    assert_eq!(sim.verdict(), "Success");
}

#[test]
fn a_rejection_is_the_verdict_of_the_run_unless_the_task_may_fail() {
    for (may_fail, verdict) in [(false, "Error | Rejected | task deploy: rejected by ann"), (true, "Success")] {
        let mut sim = Sim::started(pipeline(json!({
            "tasks": {
                "build": {"steps": ["x"]}, "deploy": {"steps": ["x"], "allowFailure": may_fail}, "tell": {"steps": ["x"]},
            },
            "connectors": [{"from": "build", "to": "deploy", "approval": {}}, {"from": "deploy", "to": "tell"}],
            "finally": {"tidy": {"steps": ["x"]}},
        })));
        sim.exit("build", 0);
        sim.decide("deploy", false);
        assert_eq!(sim.task("deploy"), "NotExecuted Rejected");
        assert_eq!(sim.message("deploy"), "rejected by ann");
        assert_eq!(sim.task("tell"), "NotExecuted UpstreamFailed");
        sim.exit("tidy", 0);
        assert_eq!(sim.verdict(), verdict);
    }
}

#[test]
fn silence_rejects_or_approves() {
    for (silence, expected) in [(json!(null), "NotExecuted Rejected"), (json!("Approve"), "Running")] {
        let mut sim = Sim::started(asking(json!({"timeout": "10m", "onTimeout": silence})));
        sim.exit("build", 0);
        let until = sim.record.status.tasks["deploy"].approval.clone().unwrap().until.unwrap();
        assert_eq!(until.duration_since(sim.now().wall).as_secs(), 600);
        sim.pass(MINUTE * 10 - Duration::from_secs(1));
        assert_eq!(sim.task("deploy"), "NotExecuted WaitingForApproval");
        sim.pass(Duration::from_secs(1));
        assert_eq!(sim.task("deploy"), expected);
        let by = sim.record.status.tasks["deploy"].approval.clone().unwrap().by;
        assert_eq!(by.as_deref(), Some("timeout"));
        sim.finish();
        assert!(sim.machine.is_ended());
    }
}

#[test]
fn a_cancel_ends_the_waiting() {
    let mut sim = Sim::started(asking(json!({"timeout": "10m"})));
    sim.exit("build", 0);
    sim.input(Input::Cancel("enough".into()));
    assert_eq!(sim.task("deploy"), "NotExecuted Cancelled");
    sim.decide("deploy", true);
    sim.exit("tidy", 0);
    assert_eq!(sim.verdict(), "Error | Cancelled | enough");
}

#[test]
fn the_timeout_of_the_run_ends_the_waiting() {
    let mut spec = asking(json!({}));
    spec.spec.timeout = Some("1h".parse().unwrap());
    let mut sim = Sim::started(spec);
    sim.exit("build", 0);
    sim.pass(MINUTE * 60);
    assert_eq!(sim.task("deploy"), "NotExecuted TimedOut");
}

#[test]
fn people_are_asked_once_all_else_has_passed() {
    let spec = |when: &str| {
        pipeline(json!({
            "tasks": {"a": {"steps": ["x"]}, "b": {"steps": ["x"]}, "c": {"when": when, "steps": ["x"]}},
            "connectors": [
                {"from": "a", "to": "c", "approval": {"message": "A?", "timeout": "2h", "onTimeout": "Approve"}},
                {"from": "b", "to": "c", "approval": {"message": "B?", "timeout": "1h"}},
            ],
        }))
    };
    let mut sim = Sim::started(spec("true"));
    sim.exit("a", 0);
    assert_eq!(sim.task("c"), "NotExecuted");
    sim.exit("b", 0);
    assert_eq!(sim.message("c"), "A?; B?");
    sim.pass(MINUTE * 60);
    assert_eq!(sim.task("c"), "NotExecuted Rejected", "the shorter time and the stricter silence count");
    let mut sim = Sim::started(spec("false"));
    sim.exit("a", 0);
    sim.exit("b", 0);
    assert_eq!(sim.task("c"), "NotExecuted Skipped", "nobody is asked for what is left out");
    let mut sim = Sim::started(spec("true"));
    sim.exit("a", 0);
    sim.exit("b", 1);
    assert_eq!(sim.task("c"), "NotExecuted UpstreamFailed");
}
