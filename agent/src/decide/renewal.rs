//! What an answered renewal gave outlives the process, within one boot of the host: the lease, the slot clock, the token.
//!
//! The lease is kept with a digest of what was listed. The next process has it if its journal holds just these claims, so
//! it never gets one for what was granted, lost or given back since: that waits for the next answer, as it does here.

use super::{
    Agent,
    event::{Effect, Effects, KeptLease, Renewal},
    is_step,
    time::Now,
};

impl Agent {
    /// An earlier process of the agent had this.
    pub(super) fn recover_lease(&mut self, now: Now, renewal: &Renewal, fx: &mut Effects) {
        let digest = self.claims_digest();
        if let Some(lease) = renewal.lease.filter(|lease| lease.claims == digest && lease.from <= now.boot)
            && !is_step(renewal.at, now)
        {
            self.lease.go_on(lease.from, self.claims_version);
        }
        // What is worth nothing now is not to be found by the process after this one.
        self.keep_renewal(now, fx);
    }

    /// Has it written down for the next process.
    pub(super) fn keep_renewal(&mut self, now: Now, fx: &mut Effects) {
        let granted = self.lease.granted(self.claims_version);
        let lease = granted.map(|from| KeptLease { from, claims: self.claims_digest() });
        fx.now.push(Effect::KeepRenewal(Renewal {
            boot_id: self.config.boot_id.clone(),
            at: now,
            token: self.tokens.and_then(|tokens| tokens.renewal),
            lease,
            clock: self.lease.clock(),
        }));
    }

    /// No start until the next answer, by this process or another.
    pub(super) fn void_lease(&mut self, now: Now, fx: &mut Effects) {
        self.lease.void();
        self.keep_renewal(now, fx);
    }

    /// Of the pipelines that are claimed and their epochs.
    fn claims_digest(&mut self) -> [u8; 32] {
        if let Some((_, digest)) = self.claims_digest.filter(|(version, _)| *version == self.claims_version) {
            return digest;
        }
        let mut hasher = blake3::Hasher::new();
        for (key, claim) in self.claims.iter().filter(|(_, claim)| claim.row.claimed) {
            hasher.update(format!("{key} {}\n", claim.row.epoch.0).as_bytes());
        }
        let digest = hasher.finalize().into();
        self.claims_digest = Some((self.claims_version, digest));
        digest
    }
}
