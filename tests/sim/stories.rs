//! Failover, told by worlds without chance: who starts what, and when. Times are seconds of true time.

use expect_test::{Expect, expect};
use xene_test_support::sim::story::{Story, fires};

fn check(story: Story, expect: &Expect) {
    expect.assert_eq(&story.tell());
}

#[test]
fn an_agent_that_is_lost_is_replaced_after_w() {
    let mut story = Story::begin(2, fires("0 * * * * *").autonomy("60s"));
    story.pass(90);
    story.power_off(0);
    story.pass(240);
    check(
        story,
        &expect![[r#"
            08:01:40 controller starts
            08:01:40 a          starts
            08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
            08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
            08:01:42 b          starts
            08:02:00 a          starts the run of w0/p0 that is due 08:02:00
            08:03:00 a          starts the run of w0/p0 that is due 08:03:00
            08:03:14 a          dies, 0 changes get to the disk
            08:05:14 store      no run of w0/p0 at 08:03:59: Unknown
            08:05:14 store      w0/p0 is b's under epoch 2, slots from 08:05:14
            08:06:00 b          starts the run of w0/p0 that is due 08:06:00
            08:07:00 b          starts the run of w0/p0 that is due 08:07:00
        "#]],
    );
}

#[test]
fn a_drained_agent_hands_over_at_once() {
    let mut story = Story::begin(2, fires("*/20 * * * * *").autonomy("5m"));
    story.pass(30);
    story.drain(0);
    story.pass(60);
    check(
        story,
        &expect![[r#"
            08:01:40 controller starts
            08:01:40 a          starts
            08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
            08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
            08:01:42 b          starts
            08:02:00 a          starts the run of w0/p0 that is due 08:02:00
            08:02:14 a          is drained
            08:02:14 store      w0/p0 is a's under epoch 1, slots from 08:01:40, Moving
            08:02:14 store      w0/p0 is nobody's, Moving
            08:02:14 store      w0/p0 is b's under epoch 2, slots from 08:02:00
            08:02:20 b          starts the run of w0/p0 that is due 08:02:20
            08:02:40 b          starts the run of w0/p0 that is due 08:02:40
            08:03:00 b          starts the run of w0/p0 that is due 08:03:00
        "#]],
    );
}

#[test]
fn a_controller_may_be_away_for_as_long_as_the_lease_runs() {
    let mut story = Story::begin(2, fires("0 * * * * *").autonomy("2m"));
    story.pass(30);
    story.stop_controller();
    story.pass(240);
    story.start_controller();
    story.pass(90);
    check(
        story,
        &expect![[r#"
            08:01:40 controller starts
            08:01:40 a          starts
            08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
            08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
            08:01:42 b          starts
            08:02:00 a          starts the run of w0/p0 that is due 08:02:00
            08:02:14 controller dies, 0 changes get to the disk
            08:03:00 a          starts the run of w0/p0 that is due 08:03:00
            08:06:14 controller starts
            08:06:14 a          starts the run of w0/p0 that is due 08:06:00
            08:06:14 store      no run of w0/p0 at 08:04:00: Coalesced
            08:06:14 store      no run of w0/p0 at 08:05:00: Coalesced
            08:07:00 a          starts the run of w0/p0 that is due 08:07:00
        "#]],
    );
}

#[test]
fn a_claim_without_end_outlives_a_reboot_and_the_controller() {
    let mut story = Story::begin(2, fires("0 * * * * *").autonomy("Forever"));
    story.pass(30);
    story.stop_controller();
    story.pass(60);
    story.reboot(0, 90);
    story.pass(300);
    check(
        story,
        &expect![[r#"
        08:01:40 controller starts
        08:01:40 a          starts
        08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
        08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
        08:01:42 b          starts
        08:02:00 a          starts the run of w0/p0 that is due 08:02:00
        08:02:14 controller dies, 0 changes get to the disk
        08:03:00 a          starts the run of w0/p0 that is due 08:03:00
        08:03:14 a          dies, 0 changes get to the disk
        08:03:14 a          its host reboots
        08:04:44 a          starts
        08:04:49 a          starts the run of w0/p0 that is due 08:04:00
        08:05:00 a          starts the run of w0/p0 that is due 08:05:00
        08:06:00 a          starts the run of w0/p0 that is due 08:06:00
        08:07:00 a          starts the run of w0/p0 that is due 08:07:00
        08:08:00 a          starts the run of w0/p0 that is due 08:08:00
    "#]],
    );
}

#[test]
fn a_grant_that_comes_late_starts_nothing() {
    let mut story = Story::begin(2, fires("0 * * * * *").autonomy("60s"));
    story.pass(30);
    story.stand_still(1, 240);
    story.drain(0);
    story.pass(10);
    story.undrain(0);
    story.pass(300);
    check(
        story,
        &expect![[r#"
            08:01:40 controller starts
            08:01:40 a          starts
            08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
            08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
            08:01:42 b          starts
            08:02:00 a          starts the run of w0/p0 that is due 08:02:00
            08:02:14 b          stands still
            08:02:14 a          is drained
            08:02:14 store      w0/p0 is a's under epoch 1, slots from 08:01:40, Moving
            08:02:14 store      w0/p0 is nobody's, Moving
            08:02:14 store      w0/p0 is b's under epoch 2, slots from 08:02:00
            08:02:24 a          is undrained
            08:04:17 store      no run of w0/p0 at 08:02:59: Unknown
            08:04:17 store      w0/p0 is a's under epoch 3, slots from 08:04:17
            08:05:00 a          starts the run of w0/p0 that is due 08:05:00
            08:06:00 a          starts the run of w0/p0 that is due 08:06:00
            08:06:14 b          goes on
            08:07:00 a          starts the run of w0/p0 that is due 08:07:00
        "#]],
    );
}

#[test]
fn nothing_is_taken_from_most_agents_at_once() {
    let mut story = Story::begin_with(5, 5, fires("0 */2 * * * *").autonomy("60s"));
    story.drain(0);
    story.pass(2);
    story.undrain(0);
    story.pass(60);
    story.cut_off(&[1, 2, 3], 600);
    story.pass(800);
    check(
        story,
        &expect![[r#"
            08:01:40 controller starts
            08:01:40 a          starts
            08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
            08:01:40 store      w1/p0 is nobody's, NoAgentAvailable
            08:01:40 store      w2/p0 is nobody's, NoAgentAvailable
            08:01:40 store      w3/p0 is nobody's, NoAgentAvailable
            08:01:40 store      w4/p0 is nobody's, NoAgentAvailable
            08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
            08:01:40 store      w1/p0 is a's under epoch 1, slots from 08:01:40
            08:01:40 store      w2/p0 is a's under epoch 1, slots from 08:01:40
            08:01:40 store      w3/p0 is a's under epoch 1, slots from 08:01:40
            08:01:40 store      w4/p0 is a's under epoch 1, slots from 08:01:40
            08:01:42 b          starts
            08:01:44 c          starts
            08:01:46 d          starts
            08:01:48 e          starts
            08:01:50 a          is drained
            08:01:50 store      w0/p0 is a's under epoch 1, slots from 08:01:40, Moving
            08:01:50 store      w1/p0 is a's under epoch 1, slots from 08:01:40, Moving
            08:01:50 store      w2/p0 is a's under epoch 1, slots from 08:01:40, Moving
            08:01:50 store      w3/p0 is a's under epoch 1, slots from 08:01:40, Moving
            08:01:50 store      w4/p0 is a's under epoch 1, slots from 08:01:40, Moving
            08:01:50 store      w0/p0 is nobody's, Moving
            08:01:50 store      w0/p0 is b's under epoch 2, slots from 08:01:40
            08:01:50 store      w1/p0 is nobody's, Moving
            08:01:50 store      w1/p0 is c's under epoch 2, slots from 08:01:40
            08:01:50 store      w2/p0 is nobody's, Moving
            08:01:50 store      w2/p0 is d's under epoch 2, slots from 08:01:40
            08:01:50 store      w3/p0 is nobody's, Moving
            08:01:50 store      w3/p0 is e's under epoch 2, slots from 08:01:40
            08:01:50 store      w4/p0 is nobody's, Moving
            08:01:50 store      w4/p0 is b's under epoch 2, slots from 08:01:40
            08:01:52 a          is undrained
            08:01:59 d          starts the run of w2/p0 that is due 08:02:00
            08:01:59 e          starts the run of w3/p0 that is due 08:02:00
            08:02:00 b          starts the run of w0/p0 that is due 08:02:00
            08:02:00 b          starts the run of w4/p0 that is due 08:02:00
            08:02:00 c          starts the run of w1/p0 that is due 08:02:00
            08:02:52 b          is cut off
            08:02:52 c          is cut off
            08:02:52 d          is cut off
            08:04:00 e          starts the run of w3/p0 that is due 08:04:00
            08:04:44 store      w0/p0 is b's under epoch 2, slots from 08:01:40, OwnerSilent
            08:04:44 store      w4/p0 is b's under epoch 2, slots from 08:01:40, OwnerSilent
            08:04:46 store      w2/p0 is d's under epoch 2, slots from 08:01:40, OwnerSilent
            08:04:54 store      w1/p0 is c's under epoch 2, slots from 08:01:40, OwnerSilent
            08:06:00 e          starts the run of w3/p0 that is due 08:06:00
            08:08:00 e          starts the run of w3/p0 that is due 08:08:00
            08:10:00 e          starts the run of w3/p0 that is due 08:10:00
            08:12:00 e          starts the run of w3/p0 that is due 08:12:00
            08:12:52 c          starts the run of w1/p0 that is due 08:12:00
            08:12:52 store      w1/p0 is c's under epoch 2, slots from 08:01:40
            08:12:52 store      w0/p0 is b's under epoch 2, slots from 08:01:40, OwnerSilent
            08:12:52 store      w4/p0 is b's under epoch 2, slots from 08:01:40, OwnerSilent
            08:12:52 store      w2/p0 is d's under epoch 2, slots from 08:01:40, OwnerSilent
            08:12:52 store      no run of w1/p0 at 08:04:00: Coalesced
            08:12:52 store      no run of w1/p0 at 08:06:00: Coalesced
            08:12:52 store      no run of w1/p0 at 08:08:00: Coalesced
            08:12:52 store      no run of w1/p0 at 08:10:00: Coalesced
            08:12:53 d          starts the run of w2/p0 that is due 08:12:00
            08:12:53 store      w2/p0 is d's under epoch 2, slots from 08:01:40
            08:12:53 store      no run of w2/p0 at 08:04:00: Coalesced
            08:12:53 store      no run of w2/p0 at 08:06:00: Coalesced
            08:12:53 store      no run of w2/p0 at 08:08:00: Coalesced
            08:12:53 store      no run of w2/p0 at 08:10:00: Coalesced
            08:12:53 store      w0/p0 is b's under epoch 2, slots from 08:01:40
            08:12:53 store      w4/p0 is b's under epoch 2, slots from 08:01:40
            08:12:53 b          starts the run of w0/p0 that is due 08:12:00
            08:12:53 b          starts the run of w4/p0 that is due 08:12:00
            08:12:53 store      no run of w0/p0 at 08:04:00: Coalesced
            08:12:53 store      no run of w0/p0 at 08:06:00: Coalesced
            08:12:53 store      no run of w0/p0 at 08:08:00: Coalesced
            08:12:53 store      no run of w0/p0 at 08:10:00: Coalesced
            08:12:53 store      no run of w4/p0 at 08:04:00: Coalesced
            08:12:53 store      no run of w4/p0 at 08:06:00: Coalesced
            08:12:53 store      no run of w4/p0 at 08:08:00: Coalesced
            08:12:53 store      no run of w4/p0 at 08:10:00: Coalesced
            08:14:00 e          starts the run of w3/p0 that is due 08:14:00
            08:14:00 d          starts the run of w2/p0 that is due 08:14:00
            08:14:00 c          starts the run of w1/p0 that is due 08:14:00
            08:14:00 b          starts the run of w0/p0 that is due 08:14:00
            08:14:00 b          starts the run of w4/p0 that is due 08:14:00
            08:16:00 e          starts the run of w3/p0 that is due 08:16:00
            08:16:00 c          starts the run of w1/p0 that is due 08:16:00
            08:16:00 b          starts the run of w0/p0 that is due 08:16:00
            08:16:00 b          starts the run of w4/p0 that is due 08:16:00
            08:16:00 d          starts the run of w2/p0 that is due 08:16:00
        "#]],
    );
}

#[test]
fn a_fenced_agent_is_replaced_at_once() {
    let mut story = Story::begin(2, fires("0 * * * * *").autonomy("5m"));
    story.pass(90);
    story.power_off(0);
    story.pass(35);
    story.fence(0);
    story.pass(120);
    story.power_on(0);
    story.pass(90);
    check(
        story,
        &expect![[r#"
            08:01:40 controller starts
            08:01:40 a          starts
            08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
            08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
            08:01:42 b          starts
            08:02:00 a          starts the run of w0/p0 that is due 08:02:00
            08:03:00 a          starts the run of w0/p0 that is due 08:03:00
            08:03:14 a          dies, 0 changes get to the disk
            08:03:49 a          is fenced
            08:03:49 store      w0/p0 is b's under epoch 2, slots from 08:03:52
            08:04:00 b          starts the run of w0/p0 that is due 08:04:00
            08:05:00 b          starts the run of w0/p0 that is due 08:05:00
            08:05:49 a          its host reboots
            08:05:49 a          starts
            08:06:00 b          starts the run of w0/p0 that is due 08:06:00
            08:06:59 b          starts the run of w0/p0 that is due 08:07:00
        "#]],
    );
}

#[test]
fn a_controller_that_stood_still_takes_nothing() {
    let mut story = Story::begin(2, fires("0 * * * * *").autonomy("60s"));
    story.pass(30);
    story.controller_stands_still(125);
    story.pass(300);
    check(
        story,
        &expect![[r#"
        08:01:40 controller starts
        08:01:40 a          starts
        08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
        08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
        08:01:42 b          starts
        08:02:00 a          starts the run of w0/p0 that is due 08:02:00
        08:04:19 a          starts the run of w0/p0 that is due 08:04:00
        08:04:19 store      no run of w0/p0 at 08:03:00: Coalesced
        08:05:00 a          starts the run of w0/p0 that is due 08:05:00
        08:06:00 a          starts the run of w0/p0 that is due 08:06:00
        08:07:00 a          starts the run of w0/p0 that is due 08:07:00
    "#]],
    );
}

#[test]
fn agents_go_on_alone_while_the_controller_is_away_as_announced() {
    let mut story = Story::begin(2, fires("0 */10 * * * *").autonomy("60s"));
    story.pass(30);
    story.announce(3600);
    story.pass(5);
    story.stop_controller();
    story.pass(3500);
    story.start_controller();
    story.pass(120);
    story.power_off(0);
    story.pass(1200);
    check(
        story,
        &expect![[r#"
            08:01:40 controller starts
            08:01:40 a          starts
            08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
            08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
            08:01:42 b          starts
            08:02:14 controller may be away for 3600 s
            08:02:14 store      w0/p0 is a's under epoch 1, slots from 08:01:40
            08:02:19 controller dies, 0 changes get to the disk
            08:10:00 a          starts the run of w0/p0 that is due 08:10:00
            08:20:00 a          starts the run of w0/p0 that is due 08:20:00
            08:30:00 a          starts the run of w0/p0 that is due 08:30:00
            08:40:00 a          starts the run of w0/p0 that is due 08:40:00
            08:50:00 a          starts the run of w0/p0 that is due 08:50:00
            09:00:00 a          starts the run of w0/p0 that is due 09:00:00
            09:00:39 controller starts
            09:02:14 store      w0/p0 is a's under epoch 1, slots from 08:01:40
            09:02:14 store      w0/p0 is a's under epoch 1, slots from 08:01:40
            09:02:39 a          dies, 0 changes get to the disk
            09:04:35 store      w0/p0 is b's under epoch 2, slots from 09:04:35
            09:10:00 b          starts the run of w0/p0 that is due 09:10:00
            09:20:00 b          starts the run of w0/p0 that is due 09:20:00
        "#]],
    );
}

#[test]
fn an_agent_that_is_there_twice_is_refused_both_times_and_replaced_after_w() {
    let mut story = Story::begin(2, fires("0 * * * * *").autonomy("60s"));
    story.pass(20);
    story.copy(0);
    story.pass(280);
    check(
        story,
        &expect![[r#"
            08:01:40 controller starts
            08:01:40 a          starts
            08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
            08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
            08:01:42 b          starts
            08:02:00 a          starts the run of w0/p0 that is due 08:02:00
            08:02:04 a          is copied
            08:02:15 a          has a copy, which is switched on
            08:02:15 a          starts
            08:02:15 a          is there twice
            08:02:24 a          dies, 0 changes get to the disk
            08:02:24 a          dies, 0 changes get to the disk
            08:04:08 store      no run of w0/p0 at 08:02:59: Unknown
            08:04:08 store      w0/p0 is b's under epoch 2, slots from 08:04:08
            08:05:00 b          starts the run of w0/p0 that is due 08:05:00
            08:06:00 b          starts the run of w0/p0 that is due 08:06:00
        "#]],
    );
}

#[test]
fn an_exclusive_run_of_an_agent_that_is_cut_off_ends_before_the_next_owner_starts() {
    let mut story = Story::begin(2, fires("0 * * * * *").autonomy("60s").exclusive());
    story.pass(22);
    story.cut_off(&[0], 600);
    story.pass(5);
    story.tell_bounds(0);
    story.pass(240);
    check(
        story,
        &expect![[r#"
            08:01:40 controller starts
            08:01:40 a          starts
            08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
            08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
            08:01:42 b          starts
            08:02:00 a          starts the run of w0/p0 that is due 08:02:00
            08:02:06 a          is cut off
            08:02:11 a          the run that was due 08:02:00 ends by 08:02:52
            08:04:03 store      no run of w0/p0 at 08:02:59: Unknown
            08:04:03 store      w0/p0 is b's under epoch 2, slots from 08:04:03
            08:05:00 b          starts the run of w0/p0 that is due 08:05:00
            08:06:00 b          starts the run of w0/p0 that is due 08:06:00
        "#]],
    );
}

#[test]
fn a_start_in_hand_is_finished_before_a_planned_move() {
    let mut story = Story::begin(2, fires("0 * * * * *").autonomy("5m"));
    story.pass(15);
    story.slow_disk(0, 3);
    story.pass(2);
    story.drain(0);
    story.pass(60);
    check(
        story,
        &expect![[r#"
        08:01:40 controller starts
        08:01:40 a          starts
        08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
        08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
        08:01:42 b          starts
        08:02:01 a          is drained
        08:02:01 store      w0/p0 is a's under epoch 1, slots from 08:01:40, Moving
        08:02:03 a          starts the run of w0/p0 that is due 08:02:00
        08:02:06 store      w0/p0 is nobody's, Moving
        08:02:06 store      w0/p0 is b's under epoch 2, slots from 08:02:00
        08:03:00 b          starts the run of w0/p0 that is due 08:03:00
    "#]],
    );
}

#[test]
fn a_controller_whose_clock_leaps_by_a_day_starts_each_due_time_once() {
    let mut story = Story::begin(2, fires("0 * * * * *").autonomy("60s"));
    story.pass(30);
    for ahead in [86_400, 0, -86_400, 0] {
        story.controllers_clock(ahead);
        story.pass(60);
    }
    let due: Vec<String> = (2..=6).map(|minute| format!("08:0{minute}:00 run")).collect();
    assert_eq!(story.ledger(), due);
    check(
        story,
        &expect![[r#"
        08:01:40 controller starts
        08:01:40 a          starts
        08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
        08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
        08:01:42 b          starts
        08:02:00 a          starts the run of w0/p0 that is due 08:02:00
        08:02:14 controller its clock is 86400 s ahead
        08:03:00 a          starts the run of w0/p0 that is due 08:03:00
        08:03:14 controller its clock is 0 s ahead
        08:04:00 a          starts the run of w0/p0 that is due 08:04:00
        08:04:14 controller its clock is -86400 s ahead
        08:05:00 a          starts the run of w0/p0 that is due 08:05:00
        08:05:14 controller its clock is 0 s ahead
        08:06:00 a          starts the run of w0/p0 that is due 08:06:00
    "#]],
    );
}

#[test]
fn an_authority_is_replaced_while_one_agent_is_away() {
    let mut story = Story::begin(3, fires("0 0 0 1 1 *").autonomy("60s"));
    story.power_off(2);
    story.rotate();
    story.tell_rotation();
    story.pass(20);
    story.stop_controller();
    story.start_controller();
    story.pass(40);
    story.tell_rotation();
    story.power_on(2);
    story.pass(20);
    story.tell_rotation();
    check(
        story,
        &expect![[r#"
            08:01:40 controller starts
            08:01:40 a          starts
            08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
            08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
            08:01:42 b          starts
            08:01:44 c          starts
            08:01:46 c          dies, 0 changes get to the disk
            08:01:46 controller has a new authority beside the old one
            08:01:46 controller trusts two authorities, and waits for a, b, c
            08:01:47 a          has a certificate of the new authority
            08:01:47 b          has a certificate of the new authority
            08:02:06 controller dies, 0 changes get to the disk
            08:02:06 controller starts
            08:02:46 controller trusts two authorities, and waits for c
            08:02:46 c          its host reboots
            08:02:46 c          starts
            08:02:47 c          has a certificate of the new authority
            08:02:48 controller all agents have come by the new one
            08:03:06 controller trusts one authority
        "#]],
    );
}

#[test]
fn who_is_away_for_all_of_a_rotation_is_not_let_in_any_more() {
    let mut story = Story::begin(2, fires("0 0 0 1 1 *").autonomy("60s"));
    story.power_off(1);
    story.rotate();
    story.pass(60);
    story.tell_rotation();
    story.pass(48 * 3600);
    story.tell_rotation();
    story.power_on(1);
    story.pass(60);
    check(
        story,
        &expect![[r#"
        08:01:40 controller starts
        08:01:40 a          starts
        08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
        08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
        08:01:42 b          starts
        08:01:44 b          dies, 0 changes get to the disk
        08:01:44 controller has a new authority beside the old one
        08:01:45 a          has a certificate of the new authority
        08:02:44 controller trusts two authorities, and waits for b
        08:01:44 controller its time is over
        08:02:44 controller trusts one authority
        08:02:44 b          its host reboots
        08:02:44 b          starts
        08:02:44 b          is not let in: nobody trusts its authority any more
    "#]],
    );
}

#[test]
fn an_agent_that_comes_back_while_the_controllers_disk_is_full_keeps_its_lease() {
    let mut story = Story::begin(2, fires("0 * * * * *").autonomy("60s"));
    story.pass(30);
    story.fill_disk(240);
    story.pass(10);
    story.break_session(0);
    story.pass(70);
    story.break_session(0);
    story.pass(180);
    check(
        story,
        &expect![[r#"
        08:01:40 controller starts
        08:01:40 a          starts
        08:01:40 store      w0/p0 is nobody's, NoAgentAvailable
        08:01:40 store      w0/p0 is a's under epoch 1, slots from 08:01:40
        08:01:42 b          starts
        08:02:00 a          starts the run of w0/p0 that is due 08:02:00
        08:02:14 controller has a full disk
        08:02:24 a          loses its session
        08:03:00 a          starts the run of w0/p0 that is due 08:03:00
        08:03:34 a          loses its session
        08:04:00 a          starts the run of w0/p0 that is due 08:04:00
        08:04:59 a          starts the run of w0/p0 that is due 08:05:00
        08:06:00 a          starts the run of w0/p0 that is due 08:06:00
        08:06:14 controller has room again
    "#]],
    );
}
