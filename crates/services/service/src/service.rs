//! The interface every service implements.

use bytes::Bytes;
use quorate_base::codec::DecodeError;
use quorate_base::{Index, Instant, RequestId};
use quorate_replicated_log::{Base, Entries};
use std::fmt;

/// A deterministic state machine with durable state of its own.
pub trait Service: Send + 'static {
    /// The answer to one request, for whoever made it on this node.
    type Reply: Send + 'static;
    /// What local subscribers are told of applied entries (watch events, say).
    type Publication: Send + 'static;

    /// Whether [`Service::apply`] could read this command's body. Asked before a command that a
    /// peer forwarded is proposed: once committed, an unreadable one stops every replica.
    fn check(body: &Bytes) -> Result<(), DecodeError>
    where
        Self: Sized;

    /// The last applied position and the members in force there.
    fn base(&self) -> Base;

    /// Executes committed entries, which follow the base without a gap. No sync: the log still
    /// has them. An error means that this replica cannot go on.
    fn apply(
        &mut self,
        entries: &Entries,
        applied: &mut Applied<Self::Reply, Self::Publication>,
    ) -> Result<(), ServiceError>;

    /// A job that makes everything applied so far durable, to be run beside later applies, and
    /// returns the index up to which it did.
    fn persist(&mut self) -> Persist;

    /// This replica now leads its group and has applied all that came before.
    fn lead(&mut self, now: Instant);

    /// This replica no longer leads.
    fn follow(&mut self);

    /// Leader only: adds the bodies of commands that time calls for (expired leases, say).
    fn tick(&mut self, now: Instant, commands: &mut Vec<Bytes>);

    /// Leader only: when the next tick is due.
    fn next_timeout(&self) -> Option<Instant>;

    /// Leader only, its leadership confirmed after the question arrived: answers from state that
    /// is not replicated (how long a lease still lives, say), and may change that state.
    fn query(&mut self, now: Instant, question: Bytes) -> Result<Bytes, ServiceError>;

    /// The whole state as of [`Service::base`], unaffected by later applies.
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, ServiceError>;

    /// Starts to receive another replica's whole state, beside the present one.
    fn receive(&mut self, base: Base) -> Result<Box<dyn SnapshotSink>, ServiceError>;

    /// Replaces the state, durably and all at once, by what was received.
    fn install(&mut self, received: Box<dyn SnapshotSink>) -> Result<(), ServiceError>;
}

/// What applying brought forth.
#[derive(Debug)]
pub struct Applied<R, P> {
    /// Answers, in order of application. A request not admitted again has none.
    pub replies: Vec<(RequestId, R)>,
    /// News for local subscribers, in order.
    pub publications: Vec<P>,
}

impl<R, P> Default for Applied<R, P> {
    fn default() -> Self {
        Applied { replies: Vec::new(), publications: Vec::new() }
    }
}

/// See [`Service::persist`].
pub type Persist = Box<dyn FnOnce() -> Result<Index, ServiceError> + Send>;

/// A part of a snapshot. Parts are numbered from 0 so that a broken stream can be resumed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotChunk {
    /// The content, at most as large as was asked for and one item.
    pub bytes: Bytes,
    /// CRC32C of the content.
    pub checksum: u32,
    /// Whether it is the last.
    pub last: bool,
}

/// A state being read out.
pub trait SnapshotSource: Send {
    /// Where the state ends.
    fn base(&self) -> Base;

    /// The next part, of about `max_bytes`.
    fn next_chunk(&mut self, max_bytes: usize) -> Result<SnapshotChunk, ServiceError>;
}

/// A state being received. Dropped before it is installed, it leaves nothing behind.
pub trait SnapshotSink: Send {
    /// Where the state will end.
    fn base(&self) -> Base;

    /// Takes the next part, in order; checks it before believing it.
    fn write_chunk(&mut self, chunk: SnapshotChunk) -> Result<(), ServiceError>;

    /// For [`Service::install`], which knows what it made.
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any>;
}

/// Why a service could not do its work, and who is to blame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServiceError {
    /// The caller sent something that makes no sense.
    Caller(String),
    /// A peer sent something that makes no sense (a damaged snapshot, say).
    Peer(String),
    /// The disk failed or lied.
    Disk(String),
    /// The durable state cannot be read: it must be replaced by another replica's.
    Damaged(String),
    /// The disk is full.
    Full(String),
    /// A committed command cannot be read: it was written by a newer version, or by a bug.
    Command(String),
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServiceError::Caller(why) => write!(f, "the request is wrong: {why}"),
            ServiceError::Peer(why) => write!(f, "a peer misbehaved: {why}"),
            ServiceError::Disk(why) => write!(f, "the disk failed: {why}"),
            ServiceError::Damaged(why) => f.write_str(why),
            ServiceError::Full(why) => write!(f, "the disk is full: {why}"),
            ServiceError::Command(why) => write!(f, "a committed command is unreadable: {why}"),
        }
    }
}

impl std::error::Error for ServiceError {}
