//! Deliberate bugs, compiled in by the `canary` feature alone: a simulator that finds none of them
//! proves nothing.

/// One deliberate bug. Each is a known failure of a real system or the breach of one rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Canary {
    /// Commit an earlier round's entry by counting (Raft paper, figure 8).
    CommitEarlierRound,
    /// Vote again in a round in which another already has the vote.
    VoteTwice,
    /// Forget the promised round at a restart.
    ForgetVote,
    /// Take answers of an earlier session for this one's (the rejoin bug).
    SkipSession,
    /// Answer a read without asking a quorum.
    ReadWithoutQuorum,
    /// Count the leader's own entry before it is durable.
    CountBeforeWritten,
    /// Answer an append before it is durable.
    ReplyBeforeWritten,
    /// Vote for a candidate whose log is behind.
    IgnoreLogInVote,
    /// Truncate at every append, also where nothing conflicts: a late append undoes a newer one.
    TruncateAlways,
    /// Commit what the leader committed, though this log does not yet agree that far.
    CommitUnmatched,
    /// Number read attempts from the same start in every run.
    ReuseReadIds,
    /// Decide by the new voters alone while the group is in joint consensus.
    SingleQuorumInJoint,
    /// Vote for another while the leader lives.
    NoStickiness,
    /// Commit and hand out what follows the end of an epoch.
    GoOnAfterSeal,
    /// Answer reads, by lease above all, though the epoch may have ended.
    ReadAfterSeal,
    /// Say that a vote was given before it is durable.
    VoteBeforeWritten,
    /// Take what cannot be read for what never was.
    DenyDamaged,
    /// Fill a hole with an entry of another ballot than the one that was lost.
    MendAnyBallot,
    /// Cut the log before a lost entry as soon as one replica denies it.
    CutAtOneDenial,
    /// Commit by a heartbeat though this log was made to agree with another since.
    HeartbeatAfterPull,
    /// Pull what contradicts what is known to be committed.
    PullOverCommitted,
    /// Pull from a log that is not ahead.
    PullBehind,
}

impl Canary {
    /// Every deliberate bug.
    pub const ALL: [Canary; 22] = [
        Canary::CommitEarlierRound,
        Canary::VoteTwice,
        Canary::ForgetVote,
        Canary::SkipSession,
        Canary::ReadWithoutQuorum,
        Canary::CountBeforeWritten,
        Canary::ReplyBeforeWritten,
        Canary::IgnoreLogInVote,
        Canary::TruncateAlways,
        Canary::CommitUnmatched,
        Canary::ReuseReadIds,
        Canary::SingleQuorumInJoint,
        Canary::NoStickiness,
        Canary::GoOnAfterSeal,
        Canary::ReadAfterSeal,
        Canary::VoteBeforeWritten,
        Canary::DenyDamaged,
        Canary::MendAnyBallot,
        Canary::CutAtOneDenial,
        Canary::HeartbeatAfterPull,
        Canary::PullOverCommitted,
        Canary::PullBehind,
    ];
}
