//! What can happen to a node, and what it then wants done: the driver's two halves.

use crate::peer::PeerMessage;
use bytes::Bytes;
use quorate_base::{Ballot, GroupId, Index, Instant, NodeId, RequestId};
use quorate_replicated_log::{Base, Change, Entries, Epoch, Protocol, Role, StepDown};
use quorate_service::{Applied, SnapshotChunk};
use quorate_wal::{Batch, BatchId};
use std::fmt;

/// Names a client request on this node. The caller's to choose; answered exactly once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// Something that happened.
#[derive(Debug)]
pub enum Event<R, P> {
    /// A peer's message arrived.
    Peer {
        /// Whose.
        from: NodeId,
        /// What.
        message: PeerMessage,
    },
    /// The connection to a peer broke.
    PeerLost {
        /// Which.
        node: NodeId,
    },
    /// A client of this node wants something.
    Request {
        /// Names it.
        token: Token,
        /// Of which group.
        group: GroupId,
        /// Answered with `DeadlineExceeded` or `Unavailable` after this.
        deadline: Instant,
        /// What.
        request: Request,
    },
    /// The log finished a batch; failing is final for the node.
    LogDone {
        /// Which.
        batch: BatchId,
        /// How it went: the text of the failure.
        result: Result<(), String>,
    },
    /// The log has grown long, and these groups keep it from giving its oldest segment up.
    LogHeld {
        /// Each with the index that its log's base has to reach.
        by: Vec<(GroupId, Index)>,
    },
    /// The service finished some work.
    ServiceDone {
        /// Of which group.
        group: GroupId,
        /// What.
        done: Done<R, P>,
    },
}

/// What a client may want.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Replicate and apply this command (the service's own encoding, without envelope).
    Propose(Bytes),
    /// Tell when this node's service may answer a linearizable read.
    Read,
    /// Ask the leader's service something.
    Query(Bytes),
    /// Change the members; the context is a command for the service, applied with the change.
    Change {
        /// The change.
        change: Change,
        /// What this node had applied when the change was found to make sense: it is refused if
        /// the members have changed since.
        judged: Index,
        /// The command.
        context: Bytes,
    },
    /// Hand leadership to this node.
    Transfer(NodeId),
    /// End the epoch; the log goes on under another protocol.
    Switch {
        /// The other protocol.
        to: Protocol,
        /// The epoch that is to end: refused in any other.
        judged: Epoch,
    },
}

/// The answer to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer<R> {
    /// The command was applied here, with this reply.
    Applied(R),
    /// This node's service has applied enough; this was the index.
    Readable(Index),
    /// What the leader's service said.
    Told(Bytes),
    /// Leadership is where it was wanted.
    Transferred,
    /// This node has opened the next epoch.
    Switched {
        /// Which.
        epoch: Epoch,
        /// Its protocol.
        protocol: Protocol,
    },
}

/// Why a request was not answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestError {
    /// No leader could be reached in time; the request was certainly not applied.
    Unavailable,
    /// The deadline passed; the command may or may not be applied, now or later.
    DeadlineExceeded,
    /// This node has too much under way; nothing was done.
    TooManyRequests,
    /// The command is larger than the limit; nothing was done.
    TooLarge,
    /// The group is not on this node.
    UnknownGroup,
    /// A change of members is already under way; nothing was done.
    ChangeInProgress,
    /// The change makes no sense (the group has the protocol already, say); nothing was done.
    BadChange,
    /// The members, or the epoch, changed after the change was judged: judge it again.
    Outdated,
    /// The learner to be promoted lacks too much of the log; nothing was done.
    NotReady,
    /// The transfer's target is not a voter or did not take over in time.
    TransferFailed,
    /// The node is stopping or its disk failed.
    Stopped,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RequestError::Unavailable => "no leader could be reached in time; nothing was done",
            RequestError::DeadlineExceeded => "there was no answer in time; it may be done yet",
            RequestError::TooManyRequests => "this node has too much under way; nothing was done",
            RequestError::TooLarge => "it is larger than the limit; nothing was done",
            RequestError::UnknownGroup => "its group is not on this node",
            RequestError::ChangeInProgress => "a change of members is already under way",
            RequestError::BadChange => "the change makes no sense",
            RequestError::Outdated => "the members or the epoch changed meanwhile",
            RequestError::NotReady => "the learner lacks too much of the log",
            RequestError::TransferFailed => "leadership could not be handed over in time",
            RequestError::Stopped => "the node is stopping, or its disk failed",
        })
    }
}

impl std::error::Error for RequestError {}

/// Work for a group's service, done in order.
#[derive(Debug)]
pub enum Work {
    /// Apply these.
    Apply(Entries),
    /// This replica leads now, and has applied all that came before.
    Lead,
    /// It no longer leads.
    Follow,
    /// Its timeout has come: answer with the commands it calls for.
    Tick,
    /// Answer this.
    Query {
        /// To be handed back.
        id: u64,
        /// The question.
        question: Bytes,
    },
    /// Make all that was applied so far durable, beside further work.
    Persist,
    /// Take a snapshot for this follower and produce its first part; later parts on request.
    SnapshotOpen {
        /// The follower.
        to: NodeId,
        /// To be handed back.
        session: u64,
    },
    /// Produce this part.
    SnapshotPart {
        /// The follower.
        to: NodeId,
        /// The session.
        session: u64,
        /// Number of the part.
        part: u64,
    },
    /// The snapshot for this follower is no longer needed.
    SnapshotClose {
        /// The follower.
        to: NodeId,
    },
    /// Take this part of a snapshot; part 0 begins one, the last installs it.
    Receive {
        /// From whom.
        from: NodeId,
        /// The session.
        session: u64,
        /// Where the snapshot ends.
        base: Base,
        /// Number of the part.
        part: u64,
        /// The part.
        chunk: SnapshotChunk,
    },
}

/// Work that a service finished.
#[derive(Debug)]
pub enum Done<R, P> {
    /// Entries were applied.
    Applied {
        /// Up to this position; a snapshot taken now would end here.
        base: Base,
        /// What came of it. The publications are for the caller; the driver passes them by.
        applied: Applied<R, P>,
    },
    /// Time called for these commands (leader only).
    Ticked {
        /// Their bodies.
        commands: Vec<Bytes>,
    },
    /// A question was answered.
    Told {
        /// Which.
        id: u64,
        /// The answer, or nothing if it made no sense.
        answer: Option<Bytes>,
    },
    /// Everything up to this index is durable in the service.
    Persisted {
        /// The index.
        index: Index,
    },
    /// A part of a snapshot is ready.
    SnapshotPart {
        /// For this follower.
        to: NodeId,
        /// The session.
        session: u64,
        /// Where the snapshot ends.
        base: Base,
        /// Number of the part.
        part: u64,
        /// The part, or nothing if it could not be read.
        chunk: Option<SnapshotChunk>,
    },
    /// A part of a snapshot was taken.
    Received {
        /// From whom.
        from: NodeId,
        /// The session.
        session: u64,
        /// Where the snapshot ends.
        base: Base,
        /// What to ask of the leader.
        state: ReceiveState,
    },
    /// The service cannot go on; nor can the node.
    Failed {
        /// Why.
        reason: String,
    },
    /// When the service next wants a tick, if it leads. Comes with every other kind of work.
    Timeout {
        /// When, or never.
        at: Option<Instant>,
    },
}

/// Where receiving a snapshot stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceiveState {
    /// This part is wanted next.
    Wants(u64),
    /// It is installed, durably.
    Installed,
    /// It was refused.
    Failed,
}

/// A batch of things a node wants done. Reused: the caller drains it and hands it back.
#[derive(Debug)]
pub struct Outputs<R> {
    /// For the log thread: at most one batch per poll.
    pub batch: Option<Batch>,
    /// For the network, in order per peer.
    pub sends: Vec<(NodeId, PeerMessage)>,
    /// For the services, in order per group.
    pub work: Vec<(GroupId, Work)>,
    /// Answers to requests.
    pub replies: Vec<(Token, Result<Answer<R>, RequestError>)>,
    /// For logs, metrics and tests.
    pub notices: Vec<Notice>,
}

impl<R> Default for Outputs<R> {
    fn default() -> Self {
        Outputs {
            batch: None,
            sends: Vec::new(),
            work: Vec::new(),
            replies: Vec::new(),
            notices: Vec::new(),
        }
    }
}

/// Something worth telling people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A replica's role, ballot or leader changed.
    RoleChanged {
        /// The group.
        group: GroupId,
        /// Its role now.
        role: Role,
        /// The ballot now.
        ballot: Ballot,
        /// Who leads, if known.
        leader: NodeId,
        /// The epoch that this is about.
        epoch: Epoch,
    },
    /// A replica's log goes on in another epoch.
    EpochOpened {
        /// The group.
        group: GroupId,
        /// After this.
        base: Base,
    },
    /// Nothing is served: entries that may have been committed cannot be read on enough of the
    /// replicas that can be reached.
    Blocked {
        /// The group.
        group: GroupId,
        /// The first of the entries.
        first: Index,
        /// The last.
        last: Index,
    },
    /// A leader gave up by itself.
    SteppedDown {
        /// The group.
        group: GroupId,
        /// Why.
        reason: StepDown,
    },
    /// The members changed (the entry was applied).
    MembersChanged {
        /// The group.
        group: GroupId,
        /// Where, and who they are.
        base: Base,
    },
    /// A request's command was proposed more than once, after a change of leader.
    Retried {
        /// The group.
        group: GroupId,
        /// Which.
        request: RequestId,
    },
    /// A peer forwarded a command that cannot be read; it was not proposed.
    Unreadable {
        /// The group.
        group: GroupId,
        /// The peer.
        from: NodeId,
        /// What is wrong with it.
        reason: String,
    },
    /// The node cannot go on and must stop.
    Fatal {
        /// Why, for people.
        reason: String,
    },
}
