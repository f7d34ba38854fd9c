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
    /// Take what it had accepted for chosen as far as the service's state goes, after a start.
    BelieveOwnSlots,
    /// Propose an earlier leader's first value again behind a later one's.
    RepeatAnyLead,
    /// Commit and hand out what follows the end of an epoch.
    GoOnAfterSeal,
    /// Answer reads, by lease above all, though the epoch may have ended.
    ReadAfterSeal,
    /// Let a removed voter go as soon as its removal is chosen.
    PartAtOnce,
}

impl Canary {
    /// Every deliberate bug.
    pub const ALL: [Canary; 18] = [
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
        Canary::BelieveOwnSlots,
        Canary::RepeatAnyLead,
        Canary::GoOnAfterSeal,
        Canary::ReadAfterSeal,
        Canary::PartAtOnce,
    ];
}
