//! Deliberate bugs, compiled in by the `canary` feature alone.

/// One deliberate bug: of what waits for what, of request identities, or of a change of epochs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Canary {
    /// No bug.
    #[default]
    None,
    /// Send before what a message rests on is durable.
    IgnoreGates,
    /// Forget the promised ballot when the log begins anew.
    ForgetPromise,
    /// Follow others into their epoch without knowing how the last one ended.
    DropTail,
    /// Make the state durable where an epoch has ended when it would be anyway, not at once.
    PersistLater,
    /// Give up entries of the log that the service has applied and not yet persisted.
    CompactUnpersisted,
    /// Serve a read once its index is confirmed, before the service has applied it.
    ReadBeforeApplied,
    /// Number the requests of every run of a node alike.
    ReuseRequestIds,
    /// Take what an earlier run of the node asked for to be this run's.
    AnswerOtherRuns,
}

impl Canary {
    /// Every deliberate bug.
    pub const ALL: [Canary; 8] = [
        Canary::IgnoreGates,
        Canary::ForgetPromise,
        Canary::DropTail,
        Canary::PersistLater,
        Canary::CompactUnpersisted,
        Canary::ReadBeforeApplied,
        Canary::ReuseRequestIds,
        Canary::AnswerOtherRuns,
    ];
}
