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
        08:04:44 a          starts the run of w0/p0 that is due 08:04:00
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
