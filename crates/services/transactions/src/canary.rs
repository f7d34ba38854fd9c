//! Deliberate bugs, one at a time, to prove that tests and the simulator can fail.
//!
//! They exist only with the `canary` feature; without it [`Canary`] is empty and never sings.

/// A deliberate bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A transaction that the votes decide commits before its record is there.
    DecideBeforeRecord,
    /// A two-phase commit is told before it is on record.
    CommitUnrecorded,
    /// Whoever takes a transaction over that the votes decide aborts it without closing them.
    TakeOverAborts,
    /// Whoever takes a transaction over goes on in the epoch of who had it.
    TakeOverKeepsEpoch,
    /// A bundle that was refused its record rolls back what it has asked for, though it may have
    /// been committed by whoever took it over.
    WithdrawStaked,
}

impl Bug {
    /// Every deliberate bug.
    pub const ALL: [Bug; 5] = [
        Bug::DecideBeforeRecord,
        Bug::CommitUnrecorded,
        Bug::TakeOverAborts,
        Bug::TakeOverKeepsEpoch,
        Bug::WithdrawStaked,
    ];
}

/// Which bug is in force, if any.
pub type Canary = quorate_base::Canary<Bug>;
