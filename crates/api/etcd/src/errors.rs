//! What clients are told when something is refused: one table of codes and texts.
//!
//! Invariant: code and text are etcd's, to the letter. Clients (clientv3, Patroni, Kubernetes)
//! compare the text, so a better wording would be a bug. Facts from etcd's
//! `api/v3rpc/rpctypes/error.go` of 3.7; a golden test pins the table.

use crate::backend::BackendError;
use quorate_keyspace::{KeyspaceError, ReadError};
use tonic::{Code, Status};

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:ident, $text:literal;)*) => {
        /// Every way in which a request is refused.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Refusal {
            $($(#[$doc])* $name,)*
        }

        impl Refusal {
            /// All of them, in order of the table.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name,)*];

            /// The gRPC code.
            pub const fn code(self) -> Code {
                match self { $(Refusal::$name => Code::$code,)* }
            }

            /// The text clients compare.
            pub const fn text(self) -> &'static str {
                match self { $(Refusal::$name => $text,)* }
            }
        }
    };
}

refusals! {
    /// A key is empty.
    EmptyKey = InvalidArgument, "etcdserver: key is not provided";
    /// A key, or the end of a range, is longer than the store takes. Ours: etcd has no limit.
    KeyTooLong = InvalidArgument,
        "quorate: a key, or the end of a range, has more than 32000 bytes";
    /// `ignore_value` or `ignore_lease` on a key that is not there; also an empty operation.
    KeyNotFound = InvalidArgument, "etcdserver: key not found";
    /// A value beside `ignore_value`.
    ValueProvided = InvalidArgument, "etcdserver: value is provided";
    /// A lease beside `ignore_lease`.
    LeaseProvided = InvalidArgument, "etcdserver: lease is provided";
    /// A transaction beyond the limit.
    TooManyOps = InvalidArgument, "etcdserver: too many operations in txn request";
    /// A transaction that changes a key twice.
    DuplicateKey = InvalidArgument, "etcdserver: duplicate key given in txn request";
    /// `client-api-version` is not text.
    InvalidClientApiVersion = InvalidArgument, "etcdserver: invalid client api version";
    /// A sort order or target that does not exist.
    InvalidSortOption = InvalidArgument, "etcdserver: invalid sort option";
    /// History was compacted past the revision.
    Compacted = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    /// The revision is yet to come.
    FutureRevision = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    /// The quota is used up.
    NoSpace = ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    /// No such lease.
    LeaseNotFound = NotFound, "etcdserver: requested lease not found";
    /// A lease of that id exists.
    LeaseExist = FailedPrecondition, "etcdserver: lease already exists";
    /// The time to live is too long.
    LeaseTtlTooLarge = OutOfRange, "etcdserver: too large lease TTL";
    /// The watch stream was ended.
    WatchCanceled = Cancelled, "etcdserver: watch canceled";
    /// A member of that id exists.
    MemberExist = FailedPrecondition, "etcdserver: member ID already exist";
    /// Another member has that peer address.
    PeerUrlExist = FailedPrecondition, "etcdserver: Peer URLs already exists";
    /// Too few members run for that change to be safe.
    MemberNotEnoughStarted = FailedPrecondition,
        "etcdserver: re-configuration failed due to not enough started members";
    /// The peer addresses make no sense.
    MemberBadUrls = InvalidArgument, "etcdserver: given member URLs are invalid";
    /// No such member.
    MemberNotFound = NotFound, "etcdserver: member not found";
    /// The member to promote has a vote already.
    MemberNotLearner = FailedPrecondition, "etcdserver: can only promote a learner member";
    /// The learner to promote is behind.
    LearnerNotReady = FailedPrecondition,
        "etcdserver: can only promote a learner member which is in sync with leader";
    /// There are as many learners as may be.
    TooManyLearners = FailedPrecondition, "etcdserver: too many learner members in cluster";
    /// The request comes from another cluster.
    ClusterIdMismatch = FailedPrecondition, "etcdserver: cluster ID mismatch";
    /// Larger than a request may be.
    RequestTooLarge = InvalidArgument, "etcdserver: request is too large";
    /// The server has too much under way.
    TooManyRequests = ResourceExhausted, "etcdserver: too many requests";
    /// Authentication is not enabled.
    AuthNotEnabled = FailedPrecondition, "etcdserver: authentication is not enabled";
    /// Nobody leads.
    NoLeader = Unavailable, "etcdserver: no leader";
    /// Only the leader can do that.
    NotLeader = FailedPrecondition, "etcdserver: not leader";
    /// The leader changed meanwhile.
    LeaderChanged = Unavailable, "etcdserver: leader changed";
    /// The cluster is too old for that.
    NotCapable = FailedPrecondition, "etcdserver: not capable";
    /// The server is stopping.
    Stopped = Unavailable, "etcdserver: server stopped";
    /// It took too long; it may have been done, or may yet be.
    Timeout = Unavailable, "etcdserver: request timed out";
    /// The same, beside a change of leader.
    TimeoutLeaderFail = Unavailable,
        "etcdserver: request timed out, possibly due to previous leader failure";
    /// The same, beside a broken connection.
    TimeoutConnectionLost = Unavailable,
        "etcdserver: request timed out, possibly due to connection lost";
    /// The member took too long to catch up.
    TimeoutWaitApplied = Unavailable,
        "etcdserver: request timed out, waiting for the applied index took too long";
    /// Too few members are well.
    Unhealthy = Unavailable, "etcdserver: unhealthy cluster";
    /// The members' data disagrees.
    Corrupt = DataLoss, "etcdserver: corrupt cluster";
    /// A learner does not serve that.
    NotSupportedForLearner = FailedPrecondition, "etcdserver: rpc not supported for learner";
    /// Leadership cannot go to that member.
    BadLeaderTransferee = FailedPrecondition, "etcdserver: bad leader transferee";
    /// The caller went away.
    Canceled = Cancelled, "etcdserver: request canceled";
    /// The caller's own deadline passed.
    DeadlineExceeded = DeadlineExceeded, "etcdserver: context deadline exceeded";
    /// `RangeStream` answers in order of key only.
    StreamSort = Unimplemented, "RangeStream does not support custom sort orders";
    /// `RangeStream` does not filter.
    StreamFilter = Unimplemented, "RangeStream does not support revision filters";
    /// A campaign's `LeaderKey` is missing.
    LeaderKeyMissing = Unknown, "\"leader\" field must be provided";
    /// The caller does not lead that election (any more).
    ElectionNotLeader = Unknown, "election: not leader";
    /// Nobody leads that election.
    ElectionNoLeader = Unknown, "election: no leader";
    /// The lease ended while waiting for the lock.
    LockSessionExpired = Unknown, "mutex: session is expired";
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        Status::new(refusal.code(), refusal.text())
    }
}

impl From<KeyspaceError> for Refusal {
    fn from(error: KeyspaceError) -> Refusal {
        match error {
            KeyspaceError::Compacted => Refusal::Compacted,
            KeyspaceError::FutureRevision => Refusal::FutureRevision,
            KeyspaceError::KeyNotFound => Refusal::KeyNotFound,
            KeyspaceError::LeaseNotFound => Refusal::LeaseNotFound,
            KeyspaceError::LeaseExists => Refusal::LeaseExist,
            KeyspaceError::LeaseTtlTooLarge => Refusal::LeaseTtlTooLarge,
            KeyspaceError::NoSpace => Refusal::NoSpace,
            KeyspaceError::Corrupt => Refusal::Corrupt,
            KeyspaceError::MemberNotFound => Refusal::MemberNotFound,
            KeyspaceError::MemberExists => Refusal::MemberExist,
            KeyspaceError::PeerUrlExists => Refusal::PeerUrlExist,
            KeyspaceError::NotLearner => Refusal::MemberNotLearner,
            KeyspaceError::TooManyLearners => Refusal::TooManyLearners,
            // It waited for the outcome of a transaction, which did not come.
            KeyspaceError::Locked => Refusal::Timeout,
            KeyspaceError::TooManyWaiting => Refusal::TooManyRequests,
            KeyspaceError::Unsupported => Refusal::NotCapable,
        }
    }
}

impl From<BackendError> for Status {
    fn from(error: BackendError) -> Status {
        match error {
            BackendError::NoLeader => Refusal::NoLeader.into(),
            BackendError::Timeout => Refusal::Timeout.into(),
            BackendError::TooManyRequests => Refusal::TooManyRequests.into(),
            BackendError::TooLarge => Refusal::RequestTooLarge.into(),
            BackendError::ChangeInProgress => Refusal::Unhealthy.into(),
            BackendError::BadChange => Refusal::MemberNotEnoughStarted.into(),
            BackendError::LearnerNotReady => Refusal::LearnerNotReady.into(),
            BackendError::Impossible(why) => Status::failed_precondition(format!("quorate: {why}")),
            BackendError::Refused(why) => Refusal::from(why).into(),
            BackendError::TransferFailed => Refusal::BadLeaderTransferee.into(),
            BackendError::Stopped => Refusal::Stopped.into(),
            BackendError::Internal(why) => Status::internal(why),
        }
    }
}

/// What is told where the state could not be read.
pub(crate) fn unread(error: ReadError) -> Status {
    match error {
        ReadError::Refused(refused) => Refusal::from(refused).into(),
        ReadError::Failed(why) => Status::internal(why.to_string()),
        ReadError::Closed => Refusal::Stopped.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn the_table_is_the_golden_one() {
        let mut table = String::new();
        for refusal in Refusal::ALL {
            let (code, text) = (refusal.code() as i32, refusal.text());
            writeln!(table, "{refusal:?} | {code} | {text}").unwrap();
        }
        assert_eq!(table, include_str!("../testdata/errors.txt"));
    }
}
