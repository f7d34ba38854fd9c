//! Reading a keyspace from any thread, beside the one that applies.
//!
//! Invariant: one read sees one state: all that was applied before some moment during the call.
//! Whether that is current enough is the caller's concern (a linearizable read waits for its
//! read index first).

use crate::asked::Asked;
use crate::branch::LockSet;
use crate::claims;
use crate::command::{Alarm, Member, MemberChange, Range};
use crate::range;
use crate::reply::{KeyspaceError, RangeOutcome};
use crate::space::SpaceGuard;
use crate::state::{Shared, failed};
use crate::stream::RangeStream;
use bytes::Bytes;
use quorate_base::{Index, NodeId};
use quorate_mvcc::{
    ChangesRequest, Engine, Error, Event, KeyRange, KeyValue, LeaseId, RangeRequest, ReadState,
    Revision,
};
use quorate_service::ServiceError;
use std::fmt;
use std::sync::Arc;

/// Why a read gave nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// The caller asked for what is not there.
    Refused(KeyspaceError),
    /// The store failed.
    Failed(ServiceError),
    /// The replica was closed here.
    Closed,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Refused(why) => write!(f, "the read was refused: {why:?}"),
            ReadError::Failed(why) => why.fmt(f),
            ReadError::Closed => Error::Closed.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<Error> for ReadError {
    fn from(e: Error) -> ReadError {
        match e {
            Error::Compacted { .. } => ReadError::Refused(KeyspaceError::Compacted),
            Error::Future { .. } => ReadError::Refused(KeyspaceError::FutureRevision),
            Error::Closed => ReadError::Closed,
            other => ReadError::Failed(failed(other)),
        }
    }
}

/// A stretch of history, made of whole revisions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    /// The first revision that was looked at.
    pub from: Revision,
    /// The last one.
    pub to: Revision,
    /// Everything that happened in them, in order.
    pub events: Vec<Event>,
}

/// Sizes for `Status` and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Bytes of the versions that can be read: the same on every replica.
    pub logical_bytes: u64,
    /// How many keys there are.
    pub keys: u64,
}

/// A fingerprint, and of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash {
    /// The fingerprint.
    pub hash: u64,
    /// The latest revision of the state that was read.
    pub revision: Revision,
    /// Its compacted revision.
    pub compacted: Revision,
    /// The last entry applied to it.
    pub applied: Index,
}

impl Hash {
    fn of<E: Engine>(state: &ReadState<E>) -> Hash {
        let (revision, compacted) = (state.revision(), state.compacted_revision());
        Hash { hash: 0, revision, compacted, applied: state.applied() }
    }
}

/// A lease as readers see it: without its clock, which the leader keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseInfo {
    /// Its time to live as granted.
    pub ttl_seconds: i64,
    /// Its keys, in order.
    pub keys: Vec<Bytes>,
}

/// Reads a keyspace. A clone is another handle.
pub struct Reader<E: Engine> {
    store: quorate_mvcc::Reader<E>,
    shared: Arc<Shared>,
}

impl<E: Engine> Clone for Reader<E> {
    fn clone(&self) -> Self {
        Reader { store: self.store.clone(), shared: self.shared.clone() }
    }
}

impl<E: Engine> Reader<E> {
    pub(crate) fn new(store: quorate_mvcc::Reader<E>, shared: Arc<Shared>) -> Self {
        Reader { store, shared }
    }

    /// The latest revision.
    pub fn revision(&self) -> Revision {
        self.store.revision()
    }

    /// The oldest revision that can be read; zero before the first compaction.
    pub fn compacted_revision(&self) -> Revision {
        self.store.compacted_revision()
    }

    /// The log's entries up to this index were applied.
    pub fn applied(&self) -> Index {
        self.store.applied()
    }

    /// Reads a range.
    pub fn range(&self, range: &Range) -> Result<RangeOutcome, ReadError> {
        Ok(range::read(&self.store.state(), range)?)
    }

    /// Reads a range, and tells the latest revision of the state it was read from.
    pub fn range_at(&self, range: &Range) -> Result<(Revision, RangeOutcome), ReadError> {
        let state = self.store.state();
        Ok((state.revision(), range::read(&state, range)?))
    }

    /// As [`Reader::range_at`], unless a branch of a distributed transaction has a lock of what
    /// would be read: then nothing. What was decided elsewhere may not be applied here yet, so a
    /// read that is to be linearizable has to wait; a [`crate::Command::Barrier`] does that.
    pub fn range_unlocked(
        &self,
        range: &Range,
    ) -> Result<Option<(Revision, RangeOutcome)>, ReadError> {
        match self.unlocked(range) {
            Some(state) => Ok(Some((state.revision(), range::read(&state, range)?))),
            None => Ok(None),
        }
    }

    /// As [`Reader::stream`], unless a branch has a lock of what would be read.
    pub fn stream_unlocked(&self, range: &Range) -> Result<Option<RangeStream<E>>, ReadError> {
        let Some(state) = self.unlocked(range) else { return Ok(None) };
        let revision = match range.revision {
            0 => state.revision(),
            revision => revision,
        };
        self.stream(&Range { revision, ..range.clone() }).map(Some)
    }

    /// The present state, if nobody has a lock of the range.
    fn unlocked(&self, range: &Range) -> Option<ReadState<E>> {
        let mut locks = LockSet::default();
        // What happened at an old revision will not change.
        if range.revision == 0 {
            locks.keys.push((range.range.clone(), false));
        }
        self.shared.locks(|held| (!held.meets(&locks)).then(|| self.store.state()))
    }

    /// Reads a range piece by piece, all of one state. Custom orders and revision filters are not
    /// for streams: they need the whole.
    pub fn stream(&self, range: &Range) -> Result<RangeStream<E>, ReadError> {
        RangeStream::open(self.store.clone(), range)
    }

    /// The first `limit` keys of a range, as of now: without the count of all, which etcd's range
    /// tells, and for which it looks at every key.
    pub fn page(&self, range: KeyRange, limit: u64) -> Result<Vec<KeyValue>, ReadError> {
        let request = RangeRequest { limit, count: false, ..RangeRequest::of(range) };
        Ok(self.store.range(&request)?.kvs)
    }

    /// One key as it was at a revision, which must be readable: `prev_kv` of an event is the key
    /// at the revision before the event's.
    pub fn key_at(&self, key: &Bytes, revision: Revision) -> Result<Option<KeyValue>, ReadError> {
        let range = KeyRange::One(key.clone());
        let request = RangeRequest { revision, count: false, ..RangeRequest::of(range) };
        Ok(self.store.range(&request)?.kvs.pop())
    }

    /// What happened from revision `from` on, up to the latest: whole revisions, of about
    /// `max_bytes` in total and at least one. The first may be the compacted revision, not below.
    pub fn history(&self, from: Revision, max_bytes: usize) -> Result<History, ReadError> {
        let state = self.store.state();
        let to = state.revision();
        let range = KeyRange::From(Bytes::new());
        let request = ChangesRequest { from, to, range, previous: false, max_bytes };
        let found = state.changes(&request)?;
        let events = found.changes.into_iter().map(|change| change.event).collect();
        Ok(History { from, to: found.next.map_or(to, |next| next - 1), events })
    }

    /// Who holds a name, and since which revision.
    pub fn claim(&self, name: &[u8]) -> Result<Option<(Revision, Bytes)>, ReadError> {
        Ok(claims::find_in(&self.store.state(), name)?)
    }

    /// Whether the keyspace knows of any branch of a transaction, be it over: of none, there is
    /// nothing to be looked for with [`crate::Keyspace::branches`].
    pub fn knows_branches(&self) -> bool {
        self.shared.knows_branches()
    }

    /// What every node has asked of it, in order of node: what was applied here since the replica
    /// was opened.
    pub fn asked(&self) -> Vec<(NodeId, Asked)> {
        self.shared.asked()
    }

    /// The ids of all leases, in order.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.shared.leases(|leases| leases.iter().map(|(id, _)| id).collect())
    }

    /// One lease.
    pub fn lease(&self, id: LeaseId) -> Option<LeaseInfo> {
        self.shared.leases(|leases| {
            let lease = leases.get(id)?;
            let keys = lease.keys.iter().cloned().collect();
            Some(LeaseInfo { ttl_seconds: lease.ttl_seconds, keys })
        })
    }

    /// The members, in order of id.
    pub fn members(&self) -> Vec<Member> {
        self.shared.board().members.list()
    }

    /// Who left the cluster for ever, in order of id.
    pub fn removed_members(&self) -> Vec<NodeId> {
        self.shared.board().members.removed()
    }

    /// The first voters of the directory of keyspaces, once this keyspace has founded it.
    pub fn directory_voters(&self) -> Option<Vec<NodeId>> {
        self.shared.board().directory.clone()
    }

    /// What is to be checked before a change of members is proposed.
    pub fn check_member(
        &self,
        change: &MemberChange,
        max_learners: usize,
    ) -> Result<(), KeyspaceError> {
        self.shared.board().members.check(change, max_learners)
    }

    /// The alarms that are raised.
    pub fn alarms(&self) -> Vec<(NodeId, Alarm)> {
        self.shared.board().alarms.iter().copied().collect()
    }

    /// Whether a member has raised an alarm; any member, if none is named.
    pub fn raised(&self, alarm: Alarm, member: Option<NodeId>) -> bool {
        let board = self.shared.board();
        board.alarms.iter().any(|(m, a)| *a == alarm && member.is_none_or(|member| member == *m))
    }

    /// The alarm command that `guard`'s member should propose now, if any. `free_bytes` is what is
    /// free on its disk, as far as known.
    pub fn space_command(
        &self,
        guard: &SpaceGuard,
        free_bytes: Option<u64>,
    ) -> Option<crate::Command> {
        let raised = self.raised(Alarm::NoSpace, Some(guard.member));
        guard.check(self.sizes().logical_bytes, free_bytes, raised)
    }

    /// The fingerprint of the whole replicated state: the same on every replica that applied the
    /// same entries. Reads everything.
    pub fn hash(&self) -> Result<Hash, ReadError> {
        let state = self.store.state();
        Ok(Hash { hash: state.hash()?, ..Hash::of(&state) })
    }

    /// The fingerprint of the keys and their history up to `revision` (zero: now), back to the
    /// compacted revision. Reads everything.
    pub fn hash_kv(&self, revision: Revision) -> Result<Hash, ReadError> {
        let state = self.store.state();
        Ok(Hash { hash: state.hash_kv(revision)?, ..Hash::of(&state) })
    }

    /// How large it is.
    pub fn sizes(&self) -> Sizes {
        let (logical_bytes, keys) = self.store.sizes();
        Sizes { logical_bytes, keys }
    }
}
