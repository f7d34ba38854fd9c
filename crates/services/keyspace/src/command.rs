//! What can be asked of a keyspace. Plain types; their bytes are the codec's concern.

use crate::branch::BranchCommand;
use bytes::Bytes;
use quorate_base::{Ballot, Index, NodeId};
use quorate_mvcc::{KeyRange, LeaseId, Revision};

/// A change of a keyspace, replicated and applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Write one key.
    Put(Put),
    /// Delete keys.
    Delete(Delete),
    /// Compare, then do one list of operations or the other.
    Txn(Txn),
    /// Forget the history before this revision.
    Compact {
        /// The revision.
        revision: Revision,
    },
    /// Make a lease.
    LeaseGrant {
        /// Its id, chosen by the proposer; never zero.
        id: LeaseId,
        /// Its time to live.
        ttl_seconds: i64,
    },
    /// End a lease and delete its keys at one revision.
    LeaseRevoke {
        /// The lease.
        id: LeaseId,
    },
    /// End a lease whose time has run out, by the clock of the leader of this ballot: void in an
    /// entry of any other ballot, whose leader keeps a clock of its own.
    LeaseExpire {
        /// The lease.
        id: LeaseId,
        /// The ballot of the leader that proposes it.
        ballot: Ballot,
    },
    /// Remember how long leases had left, so that a new leader does not start them afresh. Void
    /// in an entry of another ballot, and after a checkpoint of a higher number.
    LeaseCheckpoint {
        /// The ballot of the leader that proposes it.
        ballot: Ballot,
        /// Numbers that leader's checkpoints.
        number: u64,
        /// Leases and their remaining seconds; zero: as long as when granted.
        remaining: Vec<(LeaseId, i64)>,
    },
    /// Raise or clear an alarm.
    Alarm {
        /// Raise (true) or clear.
        raise: bool,
        /// Of which member.
        member: NodeId,
        /// Which.
        alarm: Alarm,
    },
    /// The context of a change of members, or of none.
    Member(MemberChange),
    /// A branch of a distributed transaction: prepare, commit, rollback or forget.
    Branch(BranchCommand),
    /// Do nothing, once no branch has a lock of these keys: what is read at the revision of the
    /// reply is linearizable.
    Barrier {
        /// The keys.
        ranges: Vec<KeyRange>,
    },
    /// These have waited for locks long enough, by the leader's clock.
    Unqueue {
        /// The entries that brought them.
        entries: Vec<Index>,
    },
    /// Found the directory of keyspaces, a group of its own, on these nodes. The first counts.
    FoundDirectory {
        /// Its first voters.
        voters: Vec<NodeId>,
    },
}

/// Writes one key.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease to attach it to, or zero.
    pub lease: LeaseId,
    /// Whether the reply has the key as it was.
    pub prev_kv: bool,
    /// Keep the value the key has.
    pub ignore_value: bool,
    /// Keep the lease the key has.
    pub ignore_lease: bool,
}

/// Deletes keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delete {
    /// Which.
    pub range: KeyRange,
    /// Whether the reply has the keys as they were.
    pub prev_kv: bool,
}

/// Reads keys. By itself it is not a command: any replica that is current enough answers it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    /// Which keys.
    pub range: KeyRange,
    /// At most so many; zero means all.
    pub limit: u64,
    /// As of this revision; zero means now.
    pub revision: Revision,
    /// In which order; `None` is by ascending key.
    pub sort: Option<(SortTarget, bool)>,
    /// Without the values.
    pub keys_only: bool,
    /// Only how many there are.
    pub count_only: bool,
    /// Bounds of `mod_revision` (zero: unbounded).
    pub mod_revision: (Revision, Revision),
    /// Bounds of `create_revision` (zero: unbounded).
    pub create_revision: (Revision, Revision),
}

impl Range {
    /// All of `range`, now.
    pub fn of(range: KeyRange) -> Range {
        Range {
            range,
            limit: 0,
            revision: 0,
            sort: None,
            keys_only: false,
            count_only: false,
            mod_revision: (0, 0),
            create_revision: (0, 0),
        }
    }
}

/// What a range is sorted by; the flag beside it means "descending".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SortTarget {
    /// The key.
    Key,
    /// The version.
    Version,
    /// The creating revision.
    Create,
    /// The last changing revision.
    Mod,
    /// The value.
    Value,
}

/// Compares, then does one list of operations or the other, all at one revision.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Txn {
    /// All must hold for `success` to be done.
    pub compare: Vec<Compare>,
    /// Done if they do.
    pub success: Vec<Operation>,
    /// Done if they do not.
    pub failure: Vec<Operation>,
}

impl Txn {
    /// Whether it has anything to do with claims.
    pub fn has_claims(&self) -> bool {
        let compares = |compare: &Compare| matches!(compare.target, CompareTarget::Claim(_));
        let claims = |operation: &Operation| match operation {
            Operation::Claim(_) | Operation::Release(_) => true,
            Operation::Txn(inner) => inner.has_claims(),
            Operation::Range(_) | Operation::Put(_) | Operation::Delete(_) => false,
        };
        self.compare.iter().any(compares) || self.success.iter().chain(&self.failure).any(claims)
    }
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Read.
    Range(Range),
    /// Write.
    Put(Put),
    /// Delete.
    Delete(Delete),
    /// Compare again.
    Txn(Txn),
    /// Take a name. It answers nothing.
    Claim(Claim),
    /// Let go of a name, if it is this holder's. It answers nothing.
    Release(Claim),
}

/// A name that somebody holds: beside the keys, without a history, events, or a place in the quota.
/// Of our own services: etcd knows nothing of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The name: any bytes, as many as a key may have.
    pub name: Bytes,
    /// Who holds it.
    pub holder: Bytes,
}

/// One condition. Over several keys it must hold for each; over none it fails only for a value
/// (etcd's rule: a missing key has zeros, but no value).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compare {
    /// The keys.
    pub range: KeyRange,
    /// How to compare.
    pub operator: CompareOperator,
    /// With what.
    pub target: CompareTarget,
}

/// How to compare what is stored (left) with what is given (right).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompareOperator {
    /// The same.
    Equal,
    /// More.
    Greater,
    /// Less.
    Less,
    /// Not the same.
    NotEqual,
}

/// What to compare with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CompareTarget {
    /// The version.
    Version(i64),
    /// The creating revision.
    Create(i64),
    /// The last changing revision.
    Mod(i64),
    /// The value.
    Value(Bytes),
    /// The lease.
    Lease(LeaseId),
    /// Of one name, not of a key: the revision at which it was last taken; zero: nobody has it.
    Claim(i64),
}

/// Why a keyspace is restricted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Alarm {
    /// Its storage quota is used up: only deletes, compaction and reads are served.
    NoSpace,
    /// Its state disagrees between members.
    Corrupt,
}

/// A member of the cluster, as clients see it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where its clients reach it.
    pub client_urls: Vec<String>,
    /// Whether it does not vote.
    pub learner: bool,
}

/// A change of the member list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemberChange {
    /// A member joins.
    Add(Member),
    /// A learner votes from now on.
    Promote(NodeId),
    /// A member leaves for ever.
    Remove(NodeId),
    /// A member has other peer addresses.
    UpdatePeers {
        /// Who.
        id: NodeId,
        /// Where.
        peer_urls: Vec<String>,
    },
    /// A member started and tells its name and client addresses.
    Publish {
        /// Who.
        id: NodeId,
        /// Its name.
        name: String,
        /// Where clients reach it.
        client_urls: Vec<String>,
    },
}
