//! Mutants: rules of ownership left out one at a time, so that the simulator can show that it would notice.
//!
//! Without the feature `mutants` nothing can be left out, and the questions compile to `false`.

/// A rule of ownership, left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A lease begins when the answer comes, not when the question was sent.
    LeaseFromReceipt,
    /// A grant starts a lease: no renewal is waited for.
    GrantStartsLease,
    /// A restarted controller does not wait before it takes over.
    RestartWithoutWaiting,
    /// A lease survives a reboot of the agent's host.
    LeaseKeptOverReboot,
    /// After an unplanned takeover old slots are caught up.
    CatchUpAfterTakeover,
    /// The intent is written after the start.
    IntentAfterStart,
    /// An agent accepts epochs below the highest that it has seen.
    NoHighestEpoch,
    /// A restored store is taken for the newest.
    RestoreTrustsTable,
    /// After a restore a claim is adopted though its lease has run out.
    RecoveryAdoptsDeadClaim,
    /// The newest watermark that is told counts, not the highest.
    WatermarksNotMerged,
    /// Pipelines are taken from most agents at once.
    BreakerOff,
    /// A controller that stood still judges leases by what it has not heard.
    StallUnnoticed,
    /// What a fenced agent had goes to others under the epoch that it had.
    FenceKeepsEpoch,
    /// A shorter L counts before the limit that was given under the longer one has passed.
    ShorterAtOnce,
    /// Runs of exclusive pipelines keep the bound that a longer L gave them when L becomes shorter.
    BoundsKeepLongerL,
    /// Whatever tokens an agent shows, it is taken for the one that it says it is.
    AnyToken,
    /// Runs of exclusive pipelines go on when the lease has ended, and when their pipeline is given back.
    RunsOutliveLease,
    /// A run is started again as soon as its agent is silent, though that may still run it, and report it.
    RetryTooEarly,
    /// How often a run was started again is not counted.
    RetryUncounted,
    /// Due times that a lost agent may have started are started again, whatever their pipeline says.
    AmbiguousByDefault,
    /// They are started again under the names that their runs may have had.
    AmbiguousUnderItsName,
    /// A notifier's message goes from the store when it sets out, not when its destination has taken it.
    MessageGoneTooEarly,
    /// The last check before a start wants more of the lease than there needs to be.
    LastCheckDoubts,
    /// What changed in the set of an agent gives no pipeline another spec.
    DeltaKeepsSpec,
    /// What was replaced is started for as long as renewals are answered, though what replaces it has not come.
    ReplacedSpecGoesOn,
    /// The session of an agent that is revoked goes on.
    RevokedIsAnswered,
    /// A workflow that is edited keeps the row that it had.
    WorkflowRowStays,
    /// A pipeline is taken from a silent owner after L: nothing is added for clocks that differ, nor for pauses.
    TakeoverAtL,
    /// What agents tell is acknowledged before it is durable.
    AcknowledgedEarly,
    /// The journal of an agent is not synced. Of the machines none asks: the disks of the simulator's hosts do.
    JournalUnsynced,
}

/// The rule that is left out, if one is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mutants {
    #[cfg(feature = "mutants")]
    only: Option<Mutant>,
}

impl Mutants {
    /// Leaves out `only`, or nothing.
    #[cfg(feature = "mutants")]
    pub const fn new(only: Option<Mutant>) -> Self {
        Self { only }
    }

    /// True if `mutant` is on.
    #[cfg(feature = "mutants")]
    pub fn is(self, mutant: Mutant) -> bool {
        self.only == Some(mutant)
    }

    /// Without the feature: never.
    #[cfg(not(feature = "mutants"))]
    pub const fn is(self, _mutant: Mutant) -> bool {
        false
    }
}
