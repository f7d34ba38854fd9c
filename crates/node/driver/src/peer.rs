//! What nodes say to each other. Its bytes are the transport's concern.

use bytes::Bytes;
use quorate_base::{GroupId, Index, NodeId, RequestId};
use quorate_replicated_log::{Base, Change, Epoch, Message, Protocol, Refusal};
use quorate_service::SnapshotChunk;

/// One message from node to node. Any of them may be lost, repeated or overtaken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerMessage {
    /// From a group's replica to another.
    Log {
        /// The group.
        group: GroupId,
        /// The message.
        message: Message,
    },
    /// To the leader: propose these enveloped commands. The sender answers its own clients when
    /// it applies them itself; nothing comes back, unless it is refused.
    Forward {
        /// The group.
        group: GroupId,
        /// The commands.
        commands: Vec<Bytes>,
    },
    /// To the leader: propose this change of members, whose context is an enveloped command.
    ForwardChange {
        /// The group.
        group: GroupId,
        /// The change.
        change: Change,
        /// What the sender had applied when the change was found to make sense.
        judged: Index,
        /// The enveloped context.
        context: Bytes,
    },
    /// To the leader: hand leadership to this node.
    ForwardTransfer {
        /// The group.
        group: GroupId,
        /// The node.
        to: NodeId,
    },
    /// These forwarded requests were not proposed.
    ForwardRefused {
        /// The group.
        group: GroupId,
        /// Which.
        requests: Vec<RequestId>,
        /// Why.
        reason: ForwardRefusal,
    },
    /// To the leader: a question to its service.
    Query {
        /// The group.
        group: GroupId,
        /// The asker's number of the question.
        id: u64,
        /// The service's own encoding.
        question: Bytes,
    },
    /// Its answer; nothing where it is not, or may no longer be, the leader.
    QueryReply {
        /// The group.
        group: GroupId,
        /// The asker's number of the question.
        id: u64,
        /// The service's own encoding.
        answer: Option<Bytes>,
    },
    /// To the leader: end the epoch; the log goes on under another protocol.
    Switch {
        /// The group.
        group: GroupId,
        /// The other protocol.
        next: Protocol,
        /// The epoch that is to end.
        judged: Epoch,
    },
    /// The epoch is not ended.
    SwitchRefused {
        /// The group.
        group: GroupId,
        /// The epoch that was to end.
        judged: Epoch,
        /// Why.
        reason: ForwardRefusal,
    },
    /// The sender's log is in this epoch.
    Opened {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
    },
    /// The sender's log is still in this epoch; it wants the state of one that has gone on.
    CatchUp {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
    },
    /// A part of a snapshot. Travels on a stream of its own.
    Snapshot {
        /// The group.
        group: GroupId,
        /// As in `SnapshotWanted`.
        session: u64,
        /// Where the snapshot ends.
        base: Base,
        /// Number of the part, from 0.
        part: u64,
        /// The part.
        chunk: SnapshotChunk,
    },
    /// What became of a part of a snapshot.
    SnapshotReply {
        /// The group.
        group: GroupId,
        /// As in the part.
        session: u64,
        /// The index at which that snapshot ends.
        index: Index,
        /// What the follower wants now.
        outcome: SnapshotOutcome,
    },
}

/// What a follower answers to a part of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotOutcome {
    /// Send this part next: the one after the last that was taken.
    Next(u64),
    /// It is installed, or not needed.
    Done,
    /// It was damaged, or there is no room: give up.
    Failed,
}

/// Why a forwarded request was not proposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardRefusal {
    /// The receiver does not lead. It knows this leader (or none).
    NotLeader(NodeId),
    /// The leader has too much under way.
    Full,
    /// A change of members is already under way.
    ChangeInProgress,
    /// The change makes no sense.
    BadChange,
    /// The members changed after the change was judged.
    Outdated,
    /// The learner to be promoted lacks too much of the log.
    NotReady,
    /// Leadership is being handed over.
    Transferring,
}

impl From<Refusal> for ForwardRefusal {
    fn from(reason: Refusal) -> ForwardRefusal {
        match reason {
            Refusal::NotLeader { leader } => ForwardRefusal::NotLeader(leader),
            Refusal::Full => ForwardRefusal::Full,
            Refusal::ChangeInProgress => ForwardRefusal::ChangeInProgress,
            Refusal::BadChange => ForwardRefusal::BadChange,
            Refusal::Outdated => ForwardRefusal::Outdated,
            Refusal::NotReady => ForwardRefusal::NotReady,
            // Both end by themselves, and with them whoever asks asks again.
            Refusal::Transferring | Refusal::Sealed => ForwardRefusal::Transferring,
        }
    }
}

impl PeerMessage {
    /// Whether it belongs on the stream for bulk data, where it delays nothing else.
    pub fn is_bulk(&self) -> bool {
        matches!(self, PeerMessage::Snapshot { .. })
    }

    /// The group it concerns.
    pub fn group(&self) -> GroupId {
        match self {
            PeerMessage::Log { group, .. }
            | PeerMessage::Forward { group, .. }
            | PeerMessage::ForwardChange { group, .. }
            | PeerMessage::ForwardTransfer { group, .. }
            | PeerMessage::ForwardRefused { group, .. }
            | PeerMessage::Query { group, .. }
            | PeerMessage::QueryReply { group, .. }
            | PeerMessage::Switch { group, .. }
            | PeerMessage::SwitchRefused { group, .. }
            | PeerMessage::Opened { group, .. }
            | PeerMessage::CatchUp { group, .. }
            | PeerMessage::Snapshot { group, .. }
            | PeerMessage::SnapshotReply { group, .. } => *group,
        }
    }
}
