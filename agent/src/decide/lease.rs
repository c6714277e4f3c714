//! The lease: which renewals were answered, until when runs may start, and the slot clock that answers carry.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use xene_schemas::{pipeline::Autonomy, wire::control::Renewed};

use super::{
    mutant::{Mutant, Mutants},
    time::{BootTime, Now, after, before},
};

/// The longest time between two heartbeats, before jitter.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Renewals that are remembered while unanswered: more than a live session ever has.
const UNANSWERED: usize = 16;

/// G: how long before the end of a lease the last start is; also the heartbeat: min(10 s, L/6).
pub(super) fn guard(autonomy: Autonomy) -> Duration {
    match autonomy {
        Autonomy::For(l) => (Duration::from(l) / 6).min(HEARTBEAT),
        Autonomy::Forever => HEARTBEAT,
    }
}

/// Until when a renewal that was sent then lets runs start.
pub(super) fn end(sent: BootTime, autonomy: Autonomy) -> BootTime {
    match autonomy {
        Autonomy::For(l) => (sent + Duration::from(l) * 19 / 20) - guard(autonomy),
        Autonomy::Forever => BootTime::from_nanos(u64::MAX),
    }
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    seq: u64,
    at: BootTime,
    version: u64,
}

/// What an answered renewal gives: a lease from when it was *sent*, for the claims that it listed.
#[derive(Debug, Clone, Copy)]
struct Granted {
    from: BootTime,
    version: u64,
}

/// One lease for all claims of an agent, and its conversation.
#[derive(Debug, Default)]
pub(super) struct Lease {
    nonce: u64,
    seq: u64,
    answered: u64,
    sent: VecDeque<Sent>,
    granted: Option<Granted>,
    /// The version of the claims that this session's controller holds.
    held: Option<u64>,
    clock: Option<(BootTime, Timestamp)>,
}

/// What to write into the next Renew.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextRenew {
    pub(super) seq: u64,
    pub(super) nonce: u64,
    pub(super) answered: u64,
    pub(super) with_claims: bool,
}

impl Lease {
    /// Without one, and with the slot clock of an earlier process in the same boot.
    pub(super) fn resumed(clock: Option<(BootTime, Timestamp)>) -> Self {
        Self { clock, ..Self::default() }
    }

    /// The lease of an earlier process goes on, for claims listed by `version` of the list.
    pub(super) fn go_on(&mut self, from: BootTime, version: u64) {
        self.granted = Some(Granted { from, version });
    }

    /// From when on there is a lease for all that `version` of the list has.
    pub(super) fn granted(&self, version: u64) -> Option<BootTime> {
        self.granted.filter(|granted| granted.version == version).map(|granted| granted.from)
    }

    /// The slot clock: what it showed when.
    pub(super) fn clock(&self) -> Option<(BootTime, Timestamp)> {
        self.clock
    }

    /// A new session with the controller process that drew `nonce`. The lease itself goes on.
    pub(super) fn open(&mut self, nonce: u64) {
        (self.nonce, self.seq, self.answered, self.held) = (nonce, 0, 0, None);
        self.sent.clear();
    }

    /// Notes that a Renew for `version` of the claims is sent now.
    pub(super) fn renew(&mut self, now: Now, version: u64) -> NextRenew {
        self.seq += 1;
        if self.sent.len() == UNANSWERED {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { seq: self.seq, at: now.boot, version });
        let with_claims = self.held != Some(version);
        NextRenew { seq: self.seq, nonce: self.nonce, answered: self.answered, with_claims }
    }

    /// True if no answer to a later Renew of this session has come.
    pub(super) fn is_newest(&self, answer: &Renewed) -> bool {
        answer.seq > self.answered
    }

    /// Takes an answer. Returns the version of the claims that it renews, or `None` if it renews nothing.
    pub(super) fn renewed(&mut self, now: Now, answer: &Renewed, mutants: Mutants) -> Option<u64> {
        self.answered = self.answered.max(answer.seq);
        let at = self.sent.iter().position(|sent| sent.seq == answer.seq)?;
        let sent = self.sent.drain(..=at).next_back()?;
        // The controller read its clock between sending and receiving: the middle is wrong by half of that at most.
        let middle = sent.at + now.boot.since(sent.at) / 2;
        self.clock = Some((middle, answer.wall));
        self.held = Some(answer.claims_version);
        if answer.claims_version != sent.version {
            return None;
        }
        let from = if mutants.is(Mutant::LeaseFromReceipt) { now.boot } else { sent.at };
        if self.granted.is_none_or(|granted| granted.from <= from) {
            self.granted = Some(Granted { from, version: sent.version });
        }
        Some(sent.version)
    }

    /// True if the controller holds another list of claims than `version`, and no renewal is on its way that tells.
    pub(super) fn wants_list(&self, version: u64) -> bool {
        self.sent.is_empty() && self.held.is_some_and(|held| held != version)
    }

    /// No start until the next answer: the host stood still, or its clock was moved.
    pub(super) fn void(&mut self) {
        self.granted = None;
        self.sent.clear();
    }

    /// A lease out of nothing; only mutants have one.
    pub(super) fn assume(&mut self, now: Now) {
        self.granted = Some(Granted { from: now.boot, version: u64::MAX });
        self.clock.get_or_insert((now.boot, now.wall));
    }

    /// Until when a claim of this L, listed since `version`, may start runs; `None`: not at all.
    pub(super) fn limit(&self, autonomy: Autonomy, version: u64) -> Option<BootTime> {
        let granted = self.granted.filter(|granted| granted.version >= version)?;
        Some(end(granted.from, autonomy))
    }

    /// Begins the slot clock from the local wall clock, for claims without end after a reboot.
    pub(super) fn begin_clock(&mut self, now: Now) {
        self.clock.get_or_insert((now.boot, now.wall));
    }

    /// The controller's wall time, carried forward by elapsed time; `None` before it is known.
    pub(super) fn slot_now(&self, now: Now) -> Option<Timestamp> {
        self.clock.map(|(boot, wall)| after(wall, now.boot.since(boot)))
    }

    /// When the slot clock will show `slot`.
    pub(super) fn boot_of(&self, slot: Timestamp) -> Option<BootTime> {
        let (boot, wall) = self.clock?;
        let ahead = Duration::try_from(slot.duration_since(wall)).unwrap_or_default();
        Some(boot + ahead)
    }

    /// How far the local wall clock is from the slot clock.
    pub(super) fn skew(&self, now: Now) -> Option<Duration> {
        let slot_now = self.slot_now(now)?;
        Some(now.wall.duration_since(slot_now).unsigned_abs())
    }
}

/// The watermark of an owner whose first slot is `not_before`.
pub(super) fn below(not_before: Timestamp) -> Timestamp {
    before(not_before, Duration::from_nanos(1))
}
