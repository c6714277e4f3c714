//! Masks of retries and timeouts against a virtual clock: a second, simpler account of when a task is tried and how it
//! ends, in whole seconds.

use proptest::prelude::*;

use super::*;

/// How one try of the only step goes: it exits after so many seconds with this code.
#[derive(Debug, Clone, Copy)]
struct Try {
    takes: u64,
    code: i32,
}

#[derive(Debug, Clone)]
struct Mask {
    tries: Vec<Try>,
    step: Option<Again>,
    task: Option<Again>,
    step_timeout: Option<u64>,
    task_timeout: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Again {
    attempts: u32,
    delay: u64,
    backoff: u64,
    max_delay: u64,
    only_75: bool,
}

impl Again {
    fn json(self) -> Value {
        let codes = if self.only_75 { vec![75] } else { vec![] };
        json!({
            "attempts": self.attempts, "delay": format!("{}s", self.delay), "backoff": self.backoff,
            "maxDelay": format!("{}s", self.max_delay), "onExitCodes": codes,
        })
    }

    /// Seconds until the next try, after `failed` of them.
    fn delay(self, failed: u32, code: Option<i32>) -> Option<u64> {
        let again = failed <= self.attempts && (!self.only_75 || code == Some(75));
        again.then(|| (0..failed - 1).fold(self.delay, |delay, _| delay * self.backoff).min(self.max_delay))
    }
}

/// When each try begins, in seconds; and when the run ends, and whether well.
fn oracle(mask: &Mask) -> (Vec<u64>, u64, bool) {
    let (mut now, mut begun, mut tries) = (0, Vec::new(), mask.tries.iter().copied());
    let mut attempt = 1;
    loop {
        let attempt_ends = mask.task_timeout.map(|timeout| now + timeout);
        let mut step_attempt = 1;
        let code = loop {
            begun.push(now);
            let one = tries.next().unwrap_or(Try { takes: 1, code: 0 });
            let exits = now + one.takes;
            let step_ends = mask.step_timeout.map(|timeout| now + timeout);
            let stopped = [step_ends, attempt_ends].into_iter().flatten().min().filter(|at| *at <= exits);
            now = stopped.unwrap_or(exits);
            let code = stopped.is_none().then_some(one.code);
            if code == Some(0) {
                return (begun, now, true);
            }
            if stopped.is_some() && stopped == attempt_ends {
                break None;
            }
            let Some(delay) = mask.step.and_then(|again| again.delay(step_attempt, code)) else { break code };
            // The step's wait is cut short by the end of the attempt.
            if let Some(at) = attempt_ends.filter(|at| *at <= now + delay) {
                now = at;
                break None;
            }
            now += delay;
            step_attempt += 1;
        };
        let Some(delay) = mask.task.and_then(|again| again.delay(attempt, code)) else {
            return (begun, now, false);
        };
        now += delay;
        attempt += 1;
    }
}

fn again() -> impl Strategy<Value = Option<Again>> {
    let some = (1_u32..4, 1_u64..6, 1_u64..4, 2_u64..9, any::<bool>()).prop_map(
        |(attempts, delay, backoff, max_delay, only_75)| Again { attempts, delay, backoff, max_delay, only_75 },
    );
    proptest::option::of(some)
}

fn mask() -> impl Strategy<Value = Mask> {
    let one = (0_u64..20, proptest::sample::select(vec![0, 1, 1, 75, 75])).prop_map(|(takes, code)| Try {
        // Odd times for processes and even ones for limits, so that no two things happen at once.
        takes: takes * 2 + 1,
        code,
    });
    let limit = || proptest::option::of((1_u64..15).prop_map(|limit| limit * 2));
    (proptest::collection::vec(one, 1..12), again(), again(), limit(), limit()).prop_map(
        |(tries, step, task, step_timeout, task_timeout)| Mask { tries, step, task, step_timeout, task_timeout },
    )
}

/// The machine's account of the same.
fn machine(mask: &Mask) -> (Vec<u64>, u64, bool) {
    let seconds = |limit: Option<u64>| limit.map(|limit| format!("{limit}s"));
    let mut sim = Sim::started(pipeline(json!({
        "gracePeriod": "0s",
        "tasks": {"a": {
            "retry": mask.task.map(Again::json), "timeout": seconds(mask.task_timeout),
            "steps": [{"run": "x", "retry": mask.step.map(Again::json), "timeout": seconds(mask.step_timeout)}],
        }},
    })));
    let second = |sim: &Sim| sim.nanos / 1_000_000_000;
    let (mut begun, mut tries) = (Vec::new(), mask.tries.iter().copied());
    while !sim.machine.is_ended() {
        let Some(id) = sim.processes.keys().next().cloned() else {
            let at = sim.machine.next_timeout().unwrap().as_nanos();
            sim.pass(Duration::from_nanos(at - sim.nanos));
            continue;
        };
        begun.push(second(&sim));
        let one = tries.next().unwrap_or(Try { takes: 1, code: 0 });
        let end = sim.nanos + one.takes * 1_000_000_000;
        // A process that is told to end does so at once.
        let told = loop {
            match sim.machine.next_timeout().map(BootTime::as_nanos).filter(|at| *at <= end) {
                Some(at) => {
                    sim.pass(Duration::from_nanos(at - sim.nanos));
                    if sim.signalled.contains(&(id.clone(), false)) {
                        break true;
                    }
                }
                None => break false,
            }
        };
        if told {
            sim.end(id, ExitStatus::Signal(15), &[]);
        } else {
            sim.pass(Duration::from_nanos(end - sim.nanos));
            sim.end(id, ExitStatus::Code(one.code), &[]);
        }
    }
    (begun, second(&sim), sim.record.status.phase == RunPhase::Success)
}

proptest! {
    #[test]
    fn tries_and_their_times_agree_with_the_oracle(mask in mask()) {
        prop_assert_eq!(machine(&mask), oracle(&mask));
    }
}
