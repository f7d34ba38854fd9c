//! What can happen to a replicated log.

use crate::effects::WriteId;
use crate::entry::Base;
use crate::epoch::Epoch;
use crate::interface::Protocol;
use crate::membership::Change;
use crate::message::Message;
use alloc::vec::Vec;
use bytes::Bytes;
use core::ops::RangeInclusive;
use quorate_base::{Index, NodeId};

/// Names a proposal in the events that answer it. The caller's to choose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProposalId(pub u64);

/// Names one attempt to read. Fresh for every attempt: a late answer to an earlier attempt must
/// not satisfy a later one (etcd issue 20418).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadId(pub u64);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed. Every input tells the time; this one says nothing else.
    Tick,
    /// A peer said something.
    Message {
        /// Who.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// Append these commands, in order, under one id. Answered by `Event::Proposed` with the
    /// indexes they got or by `Event::Refused`; being proposed is not being committed.
    Propose {
        /// Names the proposal.
        id: ProposalId,
        /// The commands, at least one.
        commands: Vec<Bytes>,
    },
    /// Find an index such that a service that has applied it may answer a linearizable read.
    /// Any replica may be asked. Answered in `Effects::reads` or by `Event::ReadFailed`.
    Read {
        /// Names the attempt.
        id: ReadId,
    },
    /// This write and all before it are durable.
    Written {
        /// The write.
        id: WriteId,
    },
    /// The service has executed every entry up to this index.
    Applied {
        /// The index.
        index: Index,
    },
    /// Entries up to this index are no longer needed here: the service's durable state has them.
    Compact {
        /// The index; at most the applied one.
        index: Index,
    },
    /// Change the members. Answered like a proposal.
    Change {
        /// Names the proposal.
        id: ProposalId,
        /// What is to change.
        change: Change,
        /// Whoever asks had applied the log up to here when it found that the change makes sense.
        /// Refused if the members have changed since: a late request must not undo what came
        /// after it (add again who was removed, say).
        judged: Index,
        /// For the service.
        context: Bytes,
    },
    /// End the epoch; the log goes on under another protocol. Answered like a proposal.
    Seal {
        /// Names the proposal.
        id: ProposalId,
        /// The protocol of the next epoch.
        next: Protocol,
        /// The epoch that is to end: refused in any other, for a late request must not end a
        /// later one.
        judged: Epoch,
    },
    /// Stand for election now, if nobody is known to lead: everybody is ready.
    Campaign,
    /// Hand leadership to this voter.
    Transfer {
        /// The voter.
        to: NodeId,
    },
    /// The connection to a peer broke: a hint that it may be dead.
    PeerLost {
        /// The peer.
        node: NodeId,
    },
    /// The service's state was replaced, durably, by a snapshot that ends at `base`; or it is there
    /// already, further than this log knows to be committed, and a snapshot showed that it matters.
    SnapshotInstalled {
        /// Where the snapshot ends.
        base: Base,
        /// The leader that sent it.
        from: NodeId,
        /// The session it was sent under.
        session: u64,
    },
    /// A snapshot wanted by `Effects::snapshots` reached the follower, or will not.
    SnapshotSent {
        /// The follower.
        to: NodeId,
        /// The index it ended at, or nothing if it failed.
        index: Option<Index>,
    },
    /// These entries turned out unreadable. They may have been promised; they may not be denied.
    Damaged {
        /// Which.
        range: RangeInclusive<Index>,
    },
}
