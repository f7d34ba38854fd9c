//! What replicas say to each other. One enum for both engines: an engine ignores what is not its.

use crate::entry::Entries;
use crate::epoch::Epoch;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use quorate_base::{Ballot, Index, Position};

/// One message between two replicas of a group.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Message {
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// From a leader or candidate: its ballot. In a reply: the replier's promised ballot.
    pub ballot: Ballot,
    /// The rest.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Body {
    /// Would you vote for me? Changes nothing (Ongaro's thesis, section 9.6). The message's
    /// ballot is the one the sender would ask for.
    PreVote {
        /// End of the sender's log.
        last: Position,
    },
    /// Answer to a pre-vote; `ballot` is the asked one if granted, else the replier's own.
    PreVoteReply {
        /// Whether it would.
        granted: bool,
    },
    /// Vote for me.
    Vote {
        /// End of the sender's log.
        last: Position,
        /// The leader itself asked the sender to stand: stickiness does not apply.
        transfer: bool,
    },
    /// Answer to a vote.
    VoteReply {
        /// Whether it did.
        granted: bool,
    },
    /// The leader's entries.
    Append(Append),
    /// Answer to an append.
    AppendReply(AppendReply),
    /// The leader lives, and asks whether it still leads.
    Heartbeat {
        /// The session with this follower.
        session: u64,
        /// At most what this follower is known to hold of the committed log.
        commit: Index,
        /// Number of the latest leadership probe. Zero asks nothing: the message only tells the
        /// commit index and is not answered.
        probe: u64,
    },
    /// Answer to a heartbeat.
    HeartbeatReply {
        /// The heartbeat's session.
        session: u64,
        /// The heartbeat's probe: the sender followed this leader when it was sent.
        probe: u64,
    },
    /// A follower asks the leader for a read index.
    ReadIndex {
        /// The follower's id of the attempt.
        id: u64,
    },
    /// Answer to a read index request.
    ReadIndexReply {
        /// The attempt.
        id: u64,
        /// The index, or nothing: ask again, elsewhere perhaps.
        index: Option<Index>,
    },
    /// Stand for election at once: the leader hands over to you.
    TimeoutNow,
    /// Raft: a candidate that was refused asks a voter for what its own log lacks.
    Pull {
        /// The attempt.
        id: u64,
        /// Where its log ends, or may agree with the voter's.
        last: Position,
    },
    /// Answer to a pull: entries that follow `previous`.
    Pulled {
        /// The attempt.
        id: u64,
        /// The position just before the entries.
        previous: Position,
        /// The entries.
        entries: Entries,
        /// Where the voter's log ends.
        last: Position,
    },
    /// Raft: an elected candidate whose disk lost entries asks for these very ones.
    Mend {
        /// Index of the first.
        first: Index,
        /// Their ballots, in order; at least one.
        ballots: Vec<Ballot>,
    },
    /// Answer to that.
    Mended {
        /// The first index that was asked for.
        first: Index,
        /// Those that the sender can read, in order, possibly with gaps.
        entries: Vec<Entries>,
        /// The sender's log certainly has another entry, or none, at `first`.
        denied: bool,
    },
    /// Paxos, phase 1a for every slot from `from` on: promise this message's ballot, and tell what
    /// was accepted there.
    Prepare {
        /// The first slot the sender does not know to be chosen; under the same ballot again with
        /// a higher one it asks for the next part of the answer.
        from: Index,
        /// The leader itself asked the sender to stand: stickiness does not apply.
        transfer: bool,
    },
    /// Paxos, phase 1b.
    Promise(Promise),
    /// Paxos, phase 2a.
    Accept(Accept),
    /// Paxos, phase 2b.
    Accepted(Accepted),
}

/// An acceptor's promise and a part of what it has accepted.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Promise {
    /// The first slot that was asked for.
    pub from: Index,
    /// Up to here the sender knows what is chosen; what it sends of that is chosen.
    pub commit: Index,
    /// What it has accepted from `from` on, in order, possibly with gaps.
    pub entries: Vec<Entries>,
    /// Slots of which it may have accepted something that it cannot read any more.
    pub damaged: Vec<RangeInclusive<Index>>,
    /// More is to be asked for from here on; nothing: that was all.
    pub next: Option<Index>,
    /// The sender's log begins after this. From an earlier slot on it can only give the service's
    /// state, which it sends.
    pub base: Index,
}

/// Values for consecutive slots, or none.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Accept {
    /// As in an append.
    pub session: u64,
    /// The slots, all under the message's ballot.
    pub entries: Entries,
    /// The leader knows what is chosen up to here.
    pub commit: Index,
    /// As in a heartbeat.
    pub probe: u64,
}

/// Answer to an accept.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Accepted {
    /// The accept's session.
    pub session: u64,
    /// The accept's probe.
    pub probe: u64,
    /// Every slot up to here is accepted under this ballot, or known to be chosen.
    pub upto: Index,
    /// These are accepted too, beyond a gap: the first and the last; an empty range is none.
    pub beyond: (Index, Index),
}

/// Entries that follow `previous`, or none: then it asks only whether `previous` matches.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Append {
    /// Names this leader's relation to this follower from the follower's adding to its removal.
    /// A reply of an earlier session is ignored (the rejoin bug).
    pub session: u64,
    /// The position just before the entries.
    pub previous: Position,
    /// The entries.
    pub entries: Entries,
    /// The leader's commit index.
    pub commit: Index,
    /// As in a heartbeat.
    pub probe: u64,
}

/// Answer to an append.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AppendReply {
    /// The append's session.
    pub session: u64,
    /// The append's probe.
    pub probe: u64,
    /// What became of it.
    pub outcome: AppendOutcome,
}

/// What became of an append.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum AppendOutcome {
    /// The follower's durable log agrees with the leader's up to here.
    Accepted {
        /// The last index that agrees.
        matched: Index,
    },
    /// `previous` did not match.
    Rejected {
        /// The index of the `previous` that did not.
        previous: Index,
        /// The follower's best guess of where the logs may agree: the leader probes from here.
        hint: Position,
    },
}
