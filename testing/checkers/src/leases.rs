//! Leases: never ended early, and ended at last.

use crate::revisions::Expiry;
use crate::violation::Violation;
use quorate_base::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// What clients were promised about leases.
#[derive(Clone, Default, Debug)]
pub struct LeaseBook(BTreeMap<i64, LeaseTerms>);

/// What was promised about one lease.
#[derive(Clone, Default, Debug)]
pub struct LeaseTerms {
    /// Grants and renewals that were acknowledged: when asked for, when answered, for how long.
    pub renewals: Vec<(Instant, Instant, Duration)>,
    /// Since when somebody wanted it revoked.
    pub revoke_asked: Option<Instant>,
}

impl LeaseBook {
    /// A lease was granted, or renewed: asked for at `called`, answered at `at`.
    pub fn renewed(&mut self, lease: i64, ttl: Duration, called: Instant, at: Instant) {
        self.0.entry(lease).or_default().renewals.push((called, at, ttl));
    }

    /// Somebody asked to revoke it.
    pub fn revoke_asked(&mut self, lease: i64, at: Instant) {
        self.0.entry(lease).or_default().revoke_asked.get_or_insert(at);
    }

    /// Whether an expiry respects every promise made before it. `drift_ppm` is how much faster
    /// than true time a node's clock may run.
    pub fn check(&self, expiry: &Expiry, drift_ppm: u32) -> Result<(), Violation> {
        let Some(terms) = self.0.get(&expiry.lease) else { return Ok(()) };
        if terms.revoke_asked.is_some_and(|at| at <= expiry.at) {
            return Ok(());
        }
        for &(called, answered, ttl) in &terms.renewals {
            let least = ttl.mul_f64(1.0 - f64::from(drift_ppm) / 1e6);
            if answered < expiry.at && expiry.at < called + least {
                let text = format!(
                    "lease {} ended at {:?} (revision {}) though renewed between {called:?} and \
                     {answered:?} for {:?}",
                    expiry.lease, expiry.at, expiry.revision, ttl
                );
                return Err(Violation::new("lease never expired early", text));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_acknowledged_renewal_holds_from_when_it_was_asked_for() {
        let mut book = LeaseBook::default();
        let at = |seconds: u64| Instant(seconds * SECOND);
        book.renewed(1, Duration::from_secs(5), at(0), at(1));
        book.renewed(1, Duration::from_secs(5), at(4), at(6));
        let expiry = |seconds| Expiry { lease: 1, revision: 9, at: at(seconds) };
        assert!(book.check(&expiry(4), 0).is_err(), "within the grant");
        assert!(book.check(&expiry(5), 0).is_ok(), "the renewal was not yet answered");
        assert!(book.check(&expiry(8), 0).is_err(), "within the renewal");
        assert!(book.check(&expiry(9), 0).is_ok());
        book.revoke_asked(1, at(7));
        assert!(book.check(&expiry(8), 0).is_ok());
    }
}
