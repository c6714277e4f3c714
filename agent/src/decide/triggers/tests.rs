//! Due times and what becomes of them.

use proptest::prelude::*;

use super::*;

fn spec(cron: &str, suspend: bool) -> CompiledPipeline {
    serde_json::from_str(&format!(
        r#"{{"key":"w/p","suspend":{suspend},"env":{{}},"params":{{}},
            "triggers":{{"t":{{"type":"cron",{cron}}}}},
            "spec":{{"triggers":["t"],"tasks":{{"t":{{"steps":["true"]}}}}}}}}"#
    ))
    .unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn looks(cron: &str, suspend: bool, seconds: &[i64]) -> (Vec<Slot>, Vec<Passed>, Hosted) {
    let (mut hosted, refused) = host(&spec(cron, suspend), at(0), at(0));
    assert!(refused.is_empty());
    let mut hosted = hosted.remove(0);
    let (mut start, mut skipped) = (Vec::new(), Vec::new());
    for second in seconds {
        let mut come = Come::default();
        hosted.come(at(*second), &mut come);
        start.extend(come.start);
        skipped.extend(come.skipped);
    }
    (start, skipped, hosted)
}

fn told(passed: &[Passed]) -> Vec<(i64, &str, Option<i64>, Option<u32>)> {
    let second = |at: Timestamp| at.as_second() - 1_800_000_000;
    passed.iter().map(|p| (second(p.slot.at), p.reason.as_str(), p.until.map(second), p.count)).collect()
}

#[test]
fn what_is_more_than_is_started_at_once_is_one_row() {
    let all = r#""schedule":"* * * * *","catchUp":"All","startingDeadline":"24h""#;
    let (start, skipped, _) = looks(all, false, &[180 * 60]);
    assert_eq!((start.len(), start[0].at, start[99].at), (100, at(81 * 60), at(180 * 60)));
    assert_eq!(told(&skipped), [(60, "Missed", Some(80 * 60), Some(80))]);

    let latest = all.replace("All", "Latest");
    let (start, skipped, _) = looks(&latest, false, &[180 * 60]);
    assert_eq!(start.len(), 1);
    assert_eq!(told(&skipped)[0], (60, "Coalesced", Some(80 * 60), Some(80)));
    assert_eq!(skipped.len(), 100, "each of the newest has a row of its own");

    let (start, skipped, _) = looks(&latest, true, &[150 * 60]);
    assert!(start.is_empty() && skipped.iter().all(|passed| passed.reason == Reason::SUSPENDED));
}

#[test]
fn what_is_too_late_is_one_row() {
    let hour = r#""schedule":"* * * * *""#;
    let (start, skipped, _) = looks(hour, false, &[10 * 3600]);
    assert_eq!(start.len(), 1);
    let first = &told(&skipped)[0];
    assert_eq!((first.0, first.1, first.3), (60, "TooLate", None));
    let skip = r#""schedule":"0 * * * *","catchUp":"Skip""#;
    let (start, skipped, _) = looks(skip, false, &[3000, 5000]);
    assert!(start.is_empty());
    assert_eq!(told(&skipped), [(3600, "TooLate", None, None)], "one is not several");
}

#[test]
fn an_edit_passes_over_what_nobody_looked_at() {
    let (_, _, mut hosted) = looks(r#""schedule":"* * * * *""#, false, &[60]);
    let passed = hosted.pass_over(at(300)).unwrap();
    assert_eq!(told(&[passed]), [(120, "TriggerEdited", Some(300), None)]);
    assert!(hosted.pass_over(at(300)).is_none(), "only once");
}

proptest! {
    #[test]
    fn each_due_time_comes_to_exactly_one_end(
        schedule in prop::sample::select(vec!["* * * * *", "*/7 * * * *", "0 * * * *", "*/20 * * * * *"]),
        catch_up in prop::sample::select(vec!["Skip", "Latest", "All"]),
        deadline in prop::sample::select(vec!["0s", "30s", "10m", "2h"]),
        jitter in prop::sample::select(vec!["0s", "90s"]),
        suspend: bool,
        gaps in prop::collection::vec(1..9_000i64, 1..5),
    ) {
        let cron = format!(
            r#""schedule":"{schedule}","catchUp":"{catch_up}","startingDeadline":"{deadline}","jitter":"{jitter}""#
        );
        let times: Vec<i64> = gaps.iter().scan(0, |now, gap| { *now += gap; Some(*now) }).collect();
        let end = at(*times.last().unwrap());
        let (start, skipped, hosted) = looks(&cron, suspend, &times);
        let mut due = hosted.schedule.next_after(at(0));
        while let Some(slot) = due.filter(|slot| after(*slot, hosted.jitter) <= end) {
            let starts = start.iter().filter(|start| start.at == slot).count();
            let rows = skipped.iter().filter(|p| p.slot.at == slot || (p.slot.at < slot && p.until.is_some_and(|u| slot <= u)));
            prop_assert_eq!(starts + rows.count(), 1, "{}", slot);
            due = hosted.schedule.next_after(slot);
        }
        prop_assert_eq!(hosted.next, due, "nothing beyond");
        prop_assert!(!suspend || start.is_empty());
        prop_assert!(skipped.iter().filter_map(|p| p.count).all(|count| count > 0));
    }
}
