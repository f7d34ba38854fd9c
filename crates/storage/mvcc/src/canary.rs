//! Deliberate bugs that the tests and the simulator must catch.
//!
//! They exist only with the `canary` feature; without it [`Canary`] is empty and costs nothing.

/// A bug that can be planted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// The header with the applied index is written in a batch of its own, before the rest.
    AppliedIndexApart,
    /// Scrubbing removes the latest version not above the compacted revision.
    CompactionDropsLatest,
    /// A range at an old revision forgets the keys that were deleted since.
    OldRangeForgetsDeleted,
    /// A received state is taken whatever its fingerprint says.
    BelieveSnapshot,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Bug; 4] = [
        Bug::AppliedIndexApart,
        Bug::CompactionDropsLatest,
        Bug::OldRangeForgetsDeleted,
        Bug::BelieveSnapshot,
    ];
}

/// Which bug is in force, if any.
pub type Canary = quorate_base::Canary<Bug>;
