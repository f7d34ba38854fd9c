//! What a keyspace answers.

use crate::branch::BranchOutcome;
use crate::command::{Alarm, Member};
use quorate_base::NodeId;
use quorate_mvcc::{KeyValue, LeaseId, Revision};
use std::fmt;

/// The answer to a command, with the revision of the store right after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The store's revision.
    pub revision: Revision,
    /// What was asked for, or why it was not done (then nothing changed).
    pub result: Result<Outcome, KeyspaceError>,
}

/// What a command did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A key was written.
    Put(PutOutcome),
    /// Keys were deleted.
    Delete(DeleteOutcome),
    /// A transaction was done.
    Txn(TxnOutcome),
    /// History was compacted.
    Compacted,
    /// A lease was made.
    LeaseGranted {
        /// Its id.
        id: LeaseId,
        /// Its time to live.
        ttl_seconds: i64,
    },
    /// A lease was ended.
    LeaseRevoked,
    /// Remaining times were noted.
    LeaseCheckpointed,
    /// The alarms that are raised now.
    Alarms(Vec<(NodeId, Alarm)>),
    /// The members now.
    Members(Vec<Member>),
    /// How a branch stands now.
    Branch(BranchOutcome),
    /// Nothing was locked at this revision.
    Barrier,
    /// Those who had waited long enough were sent away.
    Unqueued,
}

/// What a put did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PutOutcome {
    /// The key as it was, if asked for and if it was.
    pub previous: Option<KeyValue>,
}

/// What a delete did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DeleteOutcome {
    /// How many keys were deleted.
    pub deleted: u64,
    /// The keys as they were, if asked for.
    pub previous: Vec<KeyValue>,
}

/// What a range found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RangeOutcome {
    /// The keys, in the order asked for.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut some off.
    pub more: bool,
    /// How many keys there are in the range, whatever the limit.
    pub count: u64,
    /// The store's latest revision when it was read: what a response's header says.
    pub revision: Revision,
}

/// What a transaction did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TxnOutcome {
    /// Whether every compare held.
    pub succeeded: bool,
    /// The operations' outcomes, in order.
    pub responses: Vec<OperationOutcome>,
}

/// What one operation of a transaction did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OperationOutcome {
    /// It read.
    Range(RangeOutcome),
    /// It wrote.
    Put(PutOutcome),
    /// It deleted.
    Delete(DeleteOutcome),
    /// It compared again.
    Txn(TxnOutcome),
}

/// Why a keyspace refused. The caller's doing, every one; the texts clients see are the api's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyspaceError {
    /// The revision asked for was compacted.
    Compacted,
    /// The revision asked for is yet to come.
    FutureRevision,
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    KeyNotFound,
    /// No such lease.
    LeaseNotFound,
    /// The lease exists already.
    LeaseExists,
    /// The time to live is too large.
    LeaseTtlTooLarge,
    /// The storage quota is used up.
    NoSpace,
    /// The data of the members disagrees.
    Corrupt,
    /// No such member.
    MemberNotFound,
    /// The member exists already (by id).
    MemberExists,
    /// Another member has that peer address.
    PeerUrlExists,
    /// The member is not a learner.
    NotLearner,
    /// There are as many learners as allowed.
    TooManyLearners,
    /// It waited too long for keys that a branch of a transaction has locked.
    Locked,
    /// It met a lock, and too many commands wait already.
    TooManyWaiting,
    /// Nothing a keyspace can do: a key longer than the store takes, or a change of members that
    /// did not come with the log's own.
    Unsupported,
}

/// For our own callers; clients of etcd's API have etcd's texts.
impl fmt::Display for KeyspaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyspaceError::Compacted => "the revision asked for was compacted",
            KeyspaceError::FutureRevision => "the revision asked for is yet to come",
            KeyspaceError::KeyNotFound => "the key is not there",
            KeyspaceError::LeaseNotFound => "the lease is not there",
            KeyspaceError::LeaseExists => "the lease is there already",
            KeyspaceError::LeaseTtlTooLarge => "the lease's time to live is too large",
            KeyspaceError::NoSpace => {
                "its storage quota is used up: delete and compact, or raise it"
            }
            KeyspaceError::Corrupt => "the data of its members disagrees",
            KeyspaceError::MemberNotFound => "there is no such member",
            KeyspaceError::MemberExists => "the member is there already",
            KeyspaceError::PeerUrlExists => "another member has that peer address",
            KeyspaceError::NotLearner => "the member is no learner",
            KeyspaceError::TooManyLearners => "there are as many learners as allowed",
            KeyspaceError::Locked => "it waited too long for keys that another branch has locked",
            KeyspaceError::TooManyWaiting => "too many wait for locks there already",
            KeyspaceError::Unsupported => "a keyspace cannot do that",
        })
    }
}
