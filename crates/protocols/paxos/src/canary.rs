//! Deliberate bugs, compiled in by the `canary` feature alone.

/// One deliberate bug: the breach of one rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Canary {
    /// Accept a ballot lower than the promised one.
    AcceptLowerBallot,
    /// Promise a lower ballot than the promised one.
    PromiseLowerBallot,
    /// Forget the promise at a restart.
    ForgetPromise,
    /// Speak before the promise or the accepted value is durable.
    ReplyBeforeWritten,
    /// Propose one's own value though another was accepted.
    IgnoreAccepted,
    /// Take the value of the lowest accepted ballot instead of the highest.
    TakeLowestBallot,
    /// Count a minority as a quorum.
    CountMinority,
    /// Count acceptances of different ballots together.
    MixBallots,
    /// Take as chosen what was accepted under another ballot than the leader's.
    CommitOtherBallots,
    /// Fill what a damaged acceptor cannot read with nothing.
    DenyDamaged,
    /// Answer a read without asking a quorum.
    ReadWithoutQuorum,
    /// Count the leader's own entries before they are durable.
    CountBeforeWritten,
    /// Go on in phase 1 with the old members when new ones were found.
    IgnoreFoundMembers,
}

impl Canary {
    /// Every deliberate bug.
    pub const ALL: [Canary; 13] = [
        Canary::AcceptLowerBallot,
        Canary::PromiseLowerBallot,
        Canary::ForgetPromise,
        Canary::ReplyBeforeWritten,
        Canary::IgnoreAccepted,
        Canary::TakeLowestBallot,
        Canary::CountMinority,
        Canary::MixBallots,
        Canary::CommitOtherBallots,
        Canary::DenyDamaged,
        Canary::ReadWithoutQuorum,
        Canary::CountBeforeWritten,
        Canary::IgnoreFoundMembers,
    ];
}
