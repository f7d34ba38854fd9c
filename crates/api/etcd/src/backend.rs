//! What the API needs of a node: the one seam between wire formats and everything below.
//!
//! Invariant: nothing here knows gRPC. Calls return plain futures (no boxing), and reads are the
//! keyspace's own, on the caller's thread.

mod host;

pub use host::HostBackend;

use quorate_base::{ClusterId, Index, NodeId};
use quorate_keyspace::command::{Command, MemberChange};
use quorate_keyspace::{EventBatch, LeaseAnswer, Question, Reader, Reply};
use quorate_mvcc::Engine;
use quorate_service::SnapshotSource;
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// A node, as the API sees it. Cloning is cheap.
pub trait Backend: Clone + Send + Sync + 'static {
    /// What the keyspace is stored in.
    type Engine: Engine;

    /// The same node, with another keyspace.
    ///
    /// # Errors
    /// [`NoKeyspace`], if it cannot serve that.
    fn keyspace(&self, _name: &str) -> Result<Self, NoKeyspace> {
        Err(NoKeyspace::Unknown)
    }

    /// Whether the keyspace has gone from this node: it was dropped, or moved to others.
    fn is_closed(&self) -> bool {
        false
    }

    /// Which node of which cluster this is. Never changes.
    fn identity(&self) -> Identity;

    /// How consensus stands, as this node sees it. Cheap: asked with every request.
    fn consensus(&self) -> Consensus;

    /// How the storage stands.
    fn storage(&self) -> Storage;

    /// Whether a write that adds so many bytes still fits this member's quota.
    fn fits(&self, bytes: u64) -> bool;

    /// Reads this node's state.
    fn reader(&self) -> &Reader<Self::Engine>;

    /// Replicates and applies a command; answers once this node has applied it.
    fn propose(
        &self,
        command: Command,
        timeout: Duration,
    ) -> impl Future<Output = Result<Reply, BackendError>> + Send;

    /// Returns once reads on this node see everything acknowledged before the call.
    fn read_barrier(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Asks the leader's keyspace about a lease.
    fn query(
        &self,
        question: Question,
        timeout: Duration,
    ) -> impl Future<Output = Result<LeaseAnswer, BackendError>> + Send;

    /// Changes the members; answers once this node has applied the change.
    fn change_members(
        &self,
        change: MemberChange,
        timeout: Duration,
    ) -> impl Future<Output = Result<Reply, BackendError>> + Send;

    /// Hands leadership to another voter.
    fn transfer_leadership(
        &self,
        to: NodeId,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Gives disk space back.
    fn defragment(&self) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Starts to read out the whole state.
    fn snapshot(
        &self,
    ) -> impl Future<Output = Result<Box<dyn SnapshotSource>, BackendError>> + Send;

    /// Tells `listener` of every applied change from now on, in order, until what is returned is
    /// dropped.
    fn subscribe(&self, listener: Arc<dyn Listener>) -> Subscription;
}

/// Hears of applied changes. Called from the node's apply thread: must not block.
pub trait Listener: Send + Sync + 'static {
    /// These were applied, in order, without a gap since the last call or [`Listener::jump`].
    fn publish(&self, batches: &[EventBatch]);

    /// A snapshot replaced the state: what led to it was not published.
    fn jump(&self);
}

/// Keeps a [`Listener`] told.
pub struct Subscription {
    _kept: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

impl Subscription {
    /// Wraps whatever has to be kept.
    pub fn new(kept: impl Any + Send + Sync) -> Subscription {
        Subscription { _kept: Box::new(kept) }
    }
}

/// Who a node is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub member: NodeId,
}

/// Why a node does not serve a keyspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoKeyspace {
    /// There is none of that name.
    Unknown,
    /// It is not for clients: the node's own.
    Reserved,
    /// It is on other nodes; the text names them.
    Elsewhere(String),
    /// The node does not know yet, or is about to open it.
    NotYet,
}

/// How consensus stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Consensus {
    /// Whom the node takes for the leader, or nobody.
    pub leader: NodeId,
    /// The term (round).
    pub term: u64,
    /// Committed up to here.
    pub commit: Index,
    /// Applied up to here.
    pub applied: Index,
    /// Whether the node is a learner.
    pub is_learner: bool,
}

/// How the storage stands. Sizes in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Storage {
    /// On disk.
    pub size: u64,
    /// Allowed; zero means without limit.
    pub quota: u64,
}

/// Why a node did not do what was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BackendError {
    /// No leader could be reached; certainly nothing was done.
    NoLeader,
    /// It took too long; it may have been done, or may yet be.
    Timeout,
    /// Too much is under way; nothing was done.
    TooManyRequests,
    /// The command is too large; nothing was done.
    TooLarge,
    /// Another change of members is under way; nothing was done.
    ChangeInProgress,
    /// The change would leave too few voters, or makes no sense; nothing was done.
    BadChange,
    /// The learner to promote is too far behind; nothing was done.
    LearnerNotReady,
    /// It cannot be done as things stand: the text says why, and what to do.
    Impossible(String),
    /// The keyspace refuses it, as could be seen beforehand.
    Refused(quorate_keyspace::KeyspaceError),
    /// Leadership did not move.
    TransferFailed,
    /// The node is stopping.
    Stopped,
    /// The node failed, through no fault of the caller.
    Internal(String),
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendError::NoLeader => f.write_str("no leader could be reached"),
            BackendError::Timeout => f.write_str("the request timed out"),
            BackendError::TooManyRequests => f.write_str("too many requests are under way"),
            BackendError::TooLarge => f.write_str("the command is too large"),
            BackendError::ChangeInProgress => f.write_str("a change of members is under way"),
            BackendError::BadChange => f.write_str("the change of members makes no sense"),
            BackendError::LearnerNotReady => f.write_str("the learner is too far behind"),
            BackendError::Impossible(why) => f.write_str(why),
            BackendError::Refused(why) => write!(f, "the keyspace refused: {why:?}"),
            BackendError::TransferFailed => f.write_str("leadership did not move"),
            BackendError::Stopped => f.write_str("the node is stopping"),
            BackendError::Internal(why) => write!(f, "the node failed: {why}"),
        }
    }
}

impl std::error::Error for BackendError {}
