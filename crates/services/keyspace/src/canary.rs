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
    /// What a leader wanted ended is ended, whoever leads by now.
    ObeyDeposedLeader,
    /// A part of a snapshot is taken whatever its checksum says.
    BelieveSnapshot,
    /// A watcher that is owed what was compacted goes on with what is left and is not told.
    WatchSkipsCompacted,
    /// Linearizable reads do not see the locks of branches.
    ReadIgnoresLocks,
    /// Commands that are not branches do not see the locks of branches.
    WriteIgnoresLocks,
    /// A branch has no locks once it is prepared.
    LocksReleasedAtPrepare,
    /// The operations of a branch are committed at a revision each.
    CommitAtTwoRevisions,
    /// A branch waits for younger ones.
    OlderWaits,
    /// A rollback of a branch never heard of is not remembered.
    TombstoneSkipped,
    /// What a branch only reads or compares is not locked.
    ComparesNotLocked,
    /// Commands of an earlier attempt are obeyed.
    OldEpochAccepted,
    /// Prepared branches are not part of what is read back after a crash.
    LocksLostAtRestart,
    /// A participant that has waited long rolls prepared branches back by itself.
    PreparedDecidesAlone,
}

impl Bug {
    /// Every deliberate bug outside of branches.
    pub const ALL: [Bug; 9] = [
        Bug::ApplyRetriedRequest,
        Bug::InternalEntryConsumesRevision,
        Bug::RevokeLeavesKey,
        Bug::WatchSkipsAtResync,
        Bug::LeaseExpiresEarly,
        Bug::EmptyDeleteConsumesRevision,
        Bug::ObeyDeposedLeader,
        Bug::BelieveSnapshot,
        Bug::WatchSkipsCompacted,
    ];

    /// Every deliberate bug of branches.
    pub const BRANCHES: [Bug; 10] = [
        Bug::ReadIgnoresLocks,
        Bug::WriteIgnoresLocks,
        Bug::LocksReleasedAtPrepare,
        Bug::CommitAtTwoRevisions,
        Bug::OlderWaits,
        Bug::TombstoneSkipped,
        Bug::ComparesNotLocked,
        Bug::OldEpochAccepted,
        Bug::LocksLostAtRestart,
        Bug::PreparedDecidesAlone,
    ];
}

/// Which bug is in force, if any.
pub type Canary = quorate_base::Canary<Bug>;
