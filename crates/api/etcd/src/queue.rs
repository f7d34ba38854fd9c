//! Waiting in line under a prefix: what Lock and Election have in common.
//!
//! As etcd's clients do it: each waiter writes `name/lease` once, and whoever wrote first is at
//! the head. A waiter watches only the one before it, so that a departure wakes one, not all.
//! The layout of the keys is etcd's, so that its clients' own locks and ours exclude each other.

use crate::backend::Backend;
use crate::call::Call;
use crate::errors::Refusal;
use crate::node::{Node, wrong_outcome};
use crate::watch::{Hub, HubStream};
use bytes::Bytes;
use quorate_keyspace::command::{
    Command, Compare, CompareOperator, CompareTarget, Delete, Operation, Put, Range, SortTarget,
    Txn,
};
use quorate_keyspace::reply::{OperationOutcome, Outcome, TxnOutcome};
use quorate_keyspace::watch::{Message, Watch};
use quorate_mvcc::{KeyRange, KeyValue, LeaseId, Revision};
use quorate_wire::etcdserverpb::ResponseHeader;
use std::time::Duration;
use tonic::Status;

/// The lease that is granted to a caller who brings none, as etcd's sessions.
const SESSION_TTL_SECONDS: i64 = 60;
/// What a follower, which takes at once, may have queued.
const FOLLOWER_BYTES: usize = 64 * 1024;

/// A place in line.
pub(crate) struct Place {
    pub key: Bytes,
    /// The revision that created the key.
    pub created: Revision,
    pub header: ResponseHeader,
    /// The value the key had before, if it was in line already.
    pub found: Option<KeyValue>,
}

/// All keys in line: those that begin with `name/`.
pub(crate) fn line(name: &[u8]) -> KeyRange {
    // The byte after '/' is '0'.
    KeyRange::Between([name, b"/"].concat().into(), [name, b"0"].concat().into())
}

/// The first in line.
pub(crate) fn head(line: KeyRange) -> Range {
    Range { limit: 1, sort: Some((SortTarget::Create, false)), ..Range::of(line) }
}

/// Holds only while the key is the one created at `created` (0: is not there).
pub(crate) fn created_at(key: &Bytes, created: Revision) -> Compare {
    Compare {
        range: KeyRange::One(key.clone()),
        operator: CompareOperator::Equal,
        target: CompareTarget::Create(crate::convert::wire(created)),
    }
}

impl<B: Backend> Node<B> {
    pub async fn propose_txn(
        &self,
        txn: Txn,
        call: &Call,
    ) -> Result<(ResponseHeader, TxnOutcome), Status> {
        match self.propose(Command::Txn(txn), call).await? {
            (header, Outcome::Txn(outcome)) => Ok((header, outcome)),
            _ => Err(wrong_outcome()),
        }
    }

    /// The caller's lease, or a new one.
    pub async fn session(&self, lease: LeaseId, call: &Call) -> Result<LeaseId, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let id = self.lease_ids.next();
        let grant = Command::LeaseGrant { id, ttl_seconds: SESSION_TTL_SECONDS };
        match self.propose(grant, call).await? {
            (_, Outcome::LeaseGranted { id, .. }) => Ok(id),
            _ => Err(wrong_outcome()),
        }
    }

    /// Gets in line, or finds the place this lease has already.
    pub async fn get_in_line(
        &self,
        name: &[u8],
        lease: LeaseId,
        value: Bytes,
        call: &Call,
    ) -> Result<Place, Status> {
        let key = Bytes::from([name, b"/", format!("{lease:x}").as_bytes()].concat());
        let put = Put { key: key.clone(), value, lease, ..Put::default() };
        let get = Range::of(KeyRange::One(key.clone()));
        let txn = Txn {
            compare: vec![created_at(&key, 0)],
            success: vec![Operation::Put(put)],
            failure: vec![Operation::Range(get)],
        };
        let (header, outcome) = self.propose_txn(txn, call).await?;
        if outcome.succeeded {
            let created = crate::convert::revision(header.revision);
            return Ok(Place { key, created, header, found: None });
        }
        match outcome.responses.into_iter().next() {
            Some(OperationOutcome::Range(range)) => match range.kvs.into_iter().next() {
                Some(kv) => Ok(Place { key, created: kv.create_revision, header, found: Some(kv) }),
                None => Err(wrong_outcome()),
            },
            _ => Err(wrong_outcome()),
        }
    }

    /// Waits until nobody in line was there before `created`.
    pub async fn wait_for_turn(&self, name: &[u8], created: Revision) -> Result<(), Status> {
        let mut before = Range::of(line(name));
        before.limit = 1;
        before.sort = Some((SortTarget::Create, true));
        before.create_revision = (0, created.saturating_sub(1));
        if created <= 1 {
            return Ok(());
        }
        loop {
            let (header, found) = self.read(&before)?;
            let Some(ahead) = found.kvs.into_iter().next() else { return Ok(()) };
            let after = crate::convert::revision(header.revision) + 1;
            self.follow(KeyRange::One(ahead.key), after)?.next().await;
        }
    }

    /// Follows changes of `range` from revision `start` on.
    pub fn follow(&self, range: KeyRange, start: Revision) -> Result<Follower<B>, Status> {
        let stream = Hub::open(self, FOLLOWER_BYTES);
        let watch = Watch {
            range,
            start_revision: start,
            no_put: false,
            no_delete: false,
            prev_kv: false,
            progress_notify: false,
            fragment: false,
        };
        stream.create(None, watch).map_err(|_| Status::from(Refusal::Stopped))?;
        Ok(Follower(stream))
    }
}

/// Hears of changes of a range, until dropped.
pub(crate) struct Follower<B: Backend>(HubStream<B>);

impl<B: Backend> Follower<B> {
    /// Returns when there was a change since the last call, or may have been.
    pub async fn next(&self) {
        loop {
            self.0.wake.notified().await;
            let mut messages = Vec::new();
            self.0.take(usize::MAX, &mut messages);
            if !messages.iter().all(|message| matches!(message, Message::Created { .. })) {
                return;
            }
        }
    }
}

/// Leaves the line when dropped before [`Departure::cancel`]: the caller went away while waiting.
pub(crate) struct Departure<B: Backend> {
    node: Node<B>,
    place: Option<(Bytes, Revision)>,
}

impl<B: Backend> Departure<B> {
    pub fn new(node: &Node<B>, place: &Place) -> Departure<B> {
        Departure { node: node.clone(), place: Some((place.key.clone(), place.created)) }
    }

    pub fn cancel(mut self) {
        self.place = None;
    }
}

impl<B: Backend> Drop for Departure<B> {
    fn drop(&mut self) {
        let Some((key, created)) = self.place.take() else { return };
        // Without a runtime the process is ending, and the lease will end soon.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let node = self.node.clone();
        runtime.spawn(async move {
            let timeout: Duration = node.options.request_timeout();
            let call = Call { timeout, require_leader: false, size: 0 };
            // If it fails, the lease ends the place in line.
            let _ = node.propose_txn(leave(key, created), &call).await;
        });
    }
}

/// Deletes a place in line, if it is still that one.
pub(crate) fn leave(key: Bytes, created: Revision) -> Txn {
    let delete = Delete { range: KeyRange::One(key.clone()), prev_kv: false };
    Txn {
        compare: vec![created_at(&key, created)],
        success: vec![Operation::Delete(delete)],
        failure: Vec::new(),
    }
}
