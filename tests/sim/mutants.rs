//! A rule that is left out is noticed: some world breaks a law, and with the rule the same worlds do not.

use xene_agent::decide::mutant::Mutant;
use xene_test_support::sim::{Random, Setup, explore};

/// Each mutant is found within as many worlds.
const WORLDS: u64 = 2_000;
/// With the rule, so many of the same worlds hold, and at least all that it took to find the mutant.
const HOLD: u64 = 100;

macro_rules! noticed {
    ($($test:ident: $mutant:ident $(by $law:literal)?,)+) => {$(
        #[test]
        fn $test() {
            fn without(random: &mut Random) -> Setup {
                Setup::without(Mutant::$mutant, random)
            }
            fn with(random: &mut Random) -> Setup {
                Setup { mutant: None, ..Setup::without(Mutant::$mutant, random) }
            }
            // Others may be broken by it before the law that it is about; where none is named, any will do.
            let law = concat!("" $(, $law)?);
            let mut first = 1;
            let found = loop {
                match explore(without, first, (WORLDS + 1).saturating_sub(first)) {
                    Ok(_) => panic!("{WORLDS} worlds hold without the rule: {law}"),
                    Err(found) if found.violation.law.starts_with(law) => break found,
                    Err(found) => first = found.seed + 1,
                }
            };
            if let Err(found) = explore(with, 1, HOLD.max(found.seed)) {
                panic!("with the rule:\n{}", found.tell(with));
            }
            println!("{:?} in world {}: {}", Mutant::$mutant, found.seed, found.violation);
        }
    )+};
}

noticed! {
    a_lease_from_receipt_is_noticed: LeaseFromReceipt,
    a_grant_that_starts_a_lease_is_noticed: GrantStartsLease,
    a_restart_without_waiting_is_noticed: RestartWithoutWaiting,
    a_lease_kept_over_a_reboot_is_noticed: LeaseKeptOverReboot,
    catching_up_after_a_takeover_is_noticed: CatchUpAfterTakeover,
    an_intent_written_after_the_start_is_noticed: IntentAfterStart,
    no_check_of_the_highest_epoch_is_noticed: NoHighestEpoch,
    a_restored_store_that_is_trusted_is_noticed: RestoreTrustsTable,
    a_dead_claim_that_is_adopted_is_noticed: RecoveryAdoptsDeadClaim,
    watermarks_that_are_not_merged_are_noticed: WatermarksNotMerged,
    takeovers_from_most_agents_at_once_are_noticed: BreakerOff,
    a_stall_that_goes_unnoticed_is_noticed: StallUnnoticed,
    a_fence_that_keeps_the_epoch_is_noticed: FenceKeepsEpoch,
    a_shorter_autonomy_that_counts_at_once_is_noticed: ShorterAtOnce,
    bounds_that_keep_a_longer_autonomy_are_noticed: BoundsKeepLongerL,
    a_copy_that_is_let_in_is_noticed: AnyToken,
    exclusive_runs_that_outlive_the_lease_are_noticed: RunsOutliveLease,
    a_retry_while_the_lost_agent_may_still_run_it_is_noticed: RetryTooEarly,
    retries_that_are_not_counted_are_noticed: RetryUncounted,
    ambiguous_due_times_that_are_started_by_default_are_noticed: AmbiguousByDefault,
    messages_that_are_deleted_before_they_are_delivered_are_noticed: MessageGoneTooEarly,
    ambiguous_due_times_that_are_started_under_their_names_are_noticed: AmbiguousUnderItsName,
    a_due_time_that_is_skipped_under_a_lease_is_noticed: LastCheckDoubts by "I8",
    a_pipeline_that_keeps_its_old_spec_is_noticed: DeltaKeepsSpec by "I9",
    a_replaced_spec_that_goes_on_is_noticed: ReplacedSpecGoesOn by "I9",
    a_revoked_agent_that_is_answered_is_noticed: RevokedIsAnswered by "I11",
    a_workflow_that_keeps_its_old_row_is_noticed: WorkflowRowStays by "I15",
    a_takeover_after_no_more_than_the_autonomy_is_noticed: TakeoverAtL by "I1 ",
    what_is_acknowledged_before_it_is_durable_is_noticed: AcknowledgedEarly by "I5 what is acknowledged",
    a_journal_that_is_not_synced_is_noticed: JournalUnsynced by "I2",
}
