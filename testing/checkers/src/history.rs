//! What clients asked and were told, in terms of a revisioned key-value store.

use crate::store::Kv;
use bytes::Bytes;
use quorate_base::Instant;

/// A set of keys: one, or from the first (included) to the second (excluded).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span {
    /// The first key.
    pub from: Bytes,
    /// The end; `None` means the first key alone.
    pub to: Option<Bytes>,
}

impl Span {
    /// One key.
    pub fn one(key: Bytes) -> Span {
        Span { from: key, to: None }
    }

    /// Whether `key` is in the set.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.to {
            None => key == self.from,
            Some(to) => key >= &self.from[..] && key < &to[..],
        }
    }
}

/// One operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Write a key. Values of different requests differ.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The lease to attach it to, or zero.
        lease: i64,
    },
    /// Delete keys.
    Delete(Span),
    /// Read keys.
    Range(Span),
}

/// What a compare looks at; all compare for equality.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The value; a key that does not exist never equals.
    Value(Bytes),
    /// The revision of the last change; zero for a key that does not exist.
    Mod(u64),
    /// The revision of the creation; zero for a key that does not exist.
    Create(u64),
    /// The number of changes; zero for a key that does not exist.
    Version(u64),
}

/// A condition of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compare {
    /// Of which key.
    pub key: Bytes,
    /// What it must equal.
    pub target: Target,
}

/// What a client asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// One operation.
    Op(Op),
    /// Read keys from whatever the node has, or as of an old revision (not zero).
    Old {
        /// The keys.
        span: Span,
        /// The revision, or zero for the node's present one.
        revision: u64,
    },
    /// Compare, then do one list or the other.
    Txn {
        /// The conditions.
        compares: Vec<Compare>,
        /// Done if all hold.
        success: Vec<Op>,
        /// Done otherwise.
        failure: Vec<Op>,
    },
    /// Forget history before this revision.
    Compact {
        /// The revision.
        revision: u64,
    },
    /// Make a lease.
    Grant {
        /// Its id.
        id: i64,
    },
    /// End a lease and delete its keys.
    Revoke {
        /// Its id.
        id: i64,
    },
}

/// What a request did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A key was written, a lease made or ended, history compacted.
    Done,
    /// So many keys were deleted.
    Deleted(u64),
    /// These keys were found.
    Found(Vec<Kv>),
    /// A transaction was done.
    Txn {
        /// Whether its conditions held.
        succeeded: bool,
        /// What its operations did.
        outcomes: Vec<Outcome>,
    },
    /// Nothing was done, and this is why.
    Refused(Refusal),
}

/// Why a store refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The revision was compacted.
    Compacted,
    /// The revision is yet to come.
    Future,
    /// No such lease.
    LeaseNotFound,
    /// The lease exists.
    LeaseExists,
    /// No room.
    NoSpace,
}

/// A store's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The store's revision right after the request.
    pub revision: u64,
    /// What the request did.
    pub outcome: Outcome,
}

/// How a request ended for its client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// It was answered.
    Answered {
        /// When.
        at: Instant,
        /// With what.
        reply: Reply,
    },
    /// It was certainly not done.
    NotDone,
    /// It may be done, now or later.
    Unknown,
}

/// A request and its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// When it was made.
    pub called: Instant,
    /// What was asked.
    pub request: Request,
    /// How it ended.
    pub end: End,
}

impl Operation {
    /// The answer and its moment, if there was one.
    pub fn answer(&self) -> Option<(Instant, &Reply)> {
        match &self.end {
            End::Answered { at, reply } => Some((*at, reply)),
            End::NotDone | End::Unknown => None,
        }
    }
}

impl Request {
    /// Whether it could change keys.
    pub fn writes(&self) -> bool {
        let changes = |op: &Op| !matches!(op, Op::Range(_));
        match self {
            Request::Op(op) => changes(op),
            Request::Txn { success, failure, .. } => success.iter().chain(failure).any(changes),
            Request::Revoke { .. } => true,
            Request::Old { .. } | Request::Compact { .. } | Request::Grant { .. } => false,
        }
    }
}
