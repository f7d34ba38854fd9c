//! Deliberate bugs, one at a time, to prove that tests and the simulator can fail.
//!
//! They exist only with the `canary` feature; without it [`Canary`] is empty and never sings.

/// A deliberate bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A request that was applied before is applied again.
    ApplyRetriedRequest,
    /// Entries that change no key consume a revision.
    InternalEntryConsumesRevision,
    /// Ending a lease leaves its last key behind.
    RevokeLeavesKey,
    /// A watcher that caught up misses the event right after.
    WatchSkipsAtResync,
    /// A new leader halves the time that leases have left.
    LeaseExpiresEarly,
    /// A delete that finds nothing consumes a revision.
    EmptyDeleteConsumesRevision,
}

/// Which bug is in force, if any.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Canary(#[cfg(feature = "canary")] Option<Bug>);

impl Canary {
    /// No bug.
    pub const NONE: Canary = Canary(
        #[cfg(feature = "canary")]
        None,
    );

    /// This bug.
    #[cfg(feature = "canary")]
    pub const fn of(bug: Bug) -> Canary {
        Canary(Some(bug))
    }

    #[cfg(feature = "canary")]
    pub(crate) fn sings(self, bug: Bug) -> bool {
        self.0 == Some(bug)
    }

    #[cfg(not(feature = "canary"))]
    #[inline(always)]
    pub(crate) fn sings(self, _bug: Bug) -> bool {
        false
    }
}
