//! Deliberate bugs, compiled in by the `canary` feature alone.

/// One deliberate bug: the breach of one rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Canary {
    /// Participant: say Yes before the prepared record is durable (rule 1).
    VoteBeforeWritten,
    /// Coordinator: say commit before the commit record is durable (rule 2).
    CommitBeforeWritten,
    /// A prepared participant that waits too long rolls back (rule 3).
    PreparedGivesUp,
    /// Answer abort for want of a record without writing a tombstone (rule 4).
    NoTombstone,
    /// Forget the decision once one participant has proven that it applied it (rule 5).
    ForgetEarly,
    /// Acknowledge a commit before it is applied (rule 5).
    AcknowledgeEarly,
    /// Apply a message of an earlier attempt (rule 6).
    IgnoreEpoch,
    /// Commit without waiting for the last vote (AC3).
    CommitWithoutLast,
    /// Take silence until the deadline for a Yes (AC3).
    SilenceIsYes,
    /// A coordinator that left the decision to the only participant decides when that is late.
    DecideForTheOther,
    /// A participant that lost its record says No to a coordinator that has its Yes, and rolls
    /// back what it has prepared.
    ForgetPrepared,
    /// Three-phase: whoever finds a pre-commit, of any ballot, goes for commit.
    AnyPreCommitWins,
    /// Three-phase: a minority elects, and a minority's acceptances decide.
    MinorityDecides,
    /// Three-phase: accept a ballot lower than the promised one.
    AcceptLowerBallot,
    /// Three-phase, Paxos Commit: forget the promise at a restart.
    ForgetPromise,
    /// Three-phase, Paxos Commit: answer before the promise or the acceptance is durable.
    AnswerBeforeWritten,
    /// Paxos Commit: a new leader proposes No though a vote was accepted.
    IgnoreAccepted,
    /// Paxos Commit: count a vote as chosen when one acceptor has it.
    CountOneAcceptor,
    /// Paxos Commit: a refusal that is not durable is told to the leader.
    RefuseBeforeWritten,
}

impl Canary {
    /// Every deliberate bug.
    pub const ALL: [Canary; 19] = [
        Canary::VoteBeforeWritten,
        Canary::CommitBeforeWritten,
        Canary::PreparedGivesUp,
        Canary::NoTombstone,
        Canary::ForgetEarly,
        Canary::AcknowledgeEarly,
        Canary::IgnoreEpoch,
        Canary::CommitWithoutLast,
        Canary::SilenceIsYes,
        Canary::DecideForTheOther,
        Canary::ForgetPrepared,
        Canary::AnyPreCommitWins,
        Canary::MinorityDecides,
        Canary::AcceptLowerBallot,
        Canary::ForgetPromise,
        Canary::AnswerBeforeWritten,
        Canary::IgnoreAccepted,
        Canary::CountOneAcceptor,
        Canary::RefuseBeforeWritten,
    ];
}
