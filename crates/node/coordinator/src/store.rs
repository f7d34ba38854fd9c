//! The records of transactions in the keyspace `transactions`.
//!
//! | key | value |
//! | --- | --- |
//! | `o/` and an id | the record of a transaction that is not over |
//! | `f/` and an id | of one that is |
//! | `a/` and a branch's name | an alarm about it, which people have not acknowledged |
//!
//! Invariant: a record is only ever changed on the condition that it is still as of a revision,
//! and begun on the condition that there is none of either kind.

use bytes::Bytes;
use quorate_base::codec::DecodeError;
use quorate_driver::RequestError;
use quorate_host::KeyspaceHandle;
use quorate_keyspace::command::{
    Command, Compare, CompareOperator, CompareTarget, Delete, Operation, Put, Range, SortTarget,
    Txn,
};
use quorate_keyspace::reply::{OperationOutcome, Outcome, TxnOutcome};
use quorate_keyspace::{KeyspaceError, ReadError, codec};
use quorate_mvcc::{KeyRange, Revision};
use quorate_transactions::{Alarm, Record, Stage, StoreRequest, Stored};
use std::time::Duration;

/// How long one write may take before it is made again.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// What open records begin with.
pub(crate) const OPEN: &str = "o/";
/// What alarms begin with that no open record tells of.
pub(crate) const ALARM: &str = "a/";
/// What finished records begin with.
pub(crate) const FINISHED: &str = "f/";

/// A record and its revision.
pub(crate) type Kept = (Record, Revision);

/// The records.
#[derive(Clone)]
pub(crate) struct Store(pub KeyspaceHandle);

pub(crate) fn key(prefix: &str, id: &str) -> Bytes {
    Bytes::from(format!("{prefix}{id}"))
}

fn as_of(key: Bytes, revision: Revision) -> Compare {
    Compare {
        range: KeyRange::One(key),
        operator: CompareOperator::Equal,
        // Revisions stay far below the limit of signed numbers.
        target: CompareTarget::Mod(i64::try_from(revision).unwrap_or(i64::MAX)),
    }
}

fn unread(error: ReadError) -> StoreError {
    StoreError::Read(error.to_string())
}

fn read(key: Bytes) -> Operation {
    Operation::Range(Range::of(KeyRange::One(key)))
}

/// The write of one record.
fn one(id: &str, request: &StoreRequest, value: &Bytes) -> Txn {
    let (open, finished) = (key(OPEN, id), key(FINISHED, id));
    let compare = match request.at {
        Some(revision) => vec![as_of(open.clone(), revision)],
        None => vec![as_of(open.clone(), 0), as_of(finished.clone(), 0)],
    };
    let put = |key: &Bytes| {
        Operation::Put(Put { key: key.clone(), value: value.clone(), ..Put::default() })
    };
    let delete =
        |key: Bytes| Operation::Delete(Delete { range: KeyRange::One(key), prev_kv: false });
    let success = match request.record.stage {
        Stage::Finished(_) if request.at.is_some() => vec![delete(open.clone()), put(&finished)],
        Stage::Finished(_) => vec![put(&finished)],
        _ => vec![put(&open)],
    };
    Txn { compare, success, failure: vec![read(open), read(finished)] }
}

/// What a write came to whose condition did not hold: an earlier try of the same write may have
/// succeeded without an answer.
fn found(outcome: TxnOutcome, value: &Bytes) -> Stored {
    let kvs = outcome.responses.into_iter().flat_map(|response| match response {
        OperationOutcome::Range(range) => range.kvs,
        _ => Vec::new(),
    });
    let mut same = kvs.filter(|kv| kv.value == *value);
    same.next().map_or(Stored::Lost, |kv| Stored::Done(kv.mod_revision))
}

/// Why a record could not be written or read.
#[derive(Clone, Debug)]
pub(crate) enum StoreError {
    /// This node has no replica of the records.
    Away,
    /// Not now: whether it was written is not known.
    Request(RequestError),
    /// The keyspace refuses it.
    Refused(KeyspaceError),
    /// The node's state cannot be read: why.
    Read(String),
    /// The record makes no sense to this version.
    Decode(DecodeError),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreError::Away => f.write_str("the records cannot be reached from this node yet"),
            StoreError::Request(error) => {
                write!(f, "the keyspace of the transactions' records did not answer: {error:?}")
            }
            StoreError::Refused(error) => {
                write!(f, "the keyspace of the transactions' records refuses: {error:?}")
            }
            StoreError::Read(error) => write!(f, "records of transactions: {error}"),
            StoreError::Decode(error) => {
                write!(f, "a transaction's record is of a newer version, or damaged: {error}")
            }
        }
    }
}

impl Store {
    /// Writes a record, once. An error leaves open whether it was written.
    pub async fn write(&self, id: &str, request: &StoreRequest) -> Result<Stored, StoreError> {
        let stored = self.write_all(&[(id, request)]).await?;
        Ok(stored.into_iter().next().unwrap_or(Stored::Lost))
    }

    /// Writes records of different ids with one command, each on its own condition. An error
    /// leaves open whether they were written.
    pub async fn write_all(
        &self,
        batch: &[(&str, &StoreRequest)],
    ) -> Result<Vec<Stored>, StoreError> {
        let values: Vec<Bytes> = batch.iter().map(|(_, request)| request.record.encode()).collect();
        let each = batch.iter().zip(&values);
        let success =
            each.map(|((id, request), value)| Operation::Txn(one(id, request, value))).collect();
        let command = Command::Txn(Txn { success, ..Txn::default() });
        let (revision, outcome) = self.propose(&command, WRITE_TIMEOUT).await?;
        let Outcome::Txn(outcome) = outcome else { return Ok(vec![Stored::Lost; batch.len()]) };
        let judged =
            outcome.responses.into_iter().zip(values).map(|(response, value)| match response {
                OperationOutcome::Txn(done) if done.succeeded => Stored::Done(revision),
                OperationOutcome::Txn(done) => found(done, &value),
                _ => Stored::Lost,
            });
        Ok(judged.collect())
    }

    async fn propose(
        &self,
        command: &Command,
        timeout: Duration,
    ) -> Result<(Revision, Outcome), StoreError> {
        let Ok(body) = codec::encode(command) else {
            return Err(StoreError::Request(RequestError::TooLarge));
        };
        let reply = self.0.propose(body, timeout).await.map_err(StoreError::Request)?;
        Ok((reply.revision, reply.result.map_err(StoreError::Refused)?))
    }

    /// The record of this id as of everything acknowledged before the call.
    pub async fn read(&self, id: &str, timeout: Duration) -> Result<Option<Kept>, StoreError> {
        self.0.read(timeout).await.map_err(StoreError::Request)?;
        self.look(id)
    }

    /// The record of this id as far as this node knows.
    pub fn look(&self, id: &str) -> Result<Option<Kept>, StoreError> {
        for prefix in [FINISHED, OPEN] {
            let range = Range::of(KeyRange::One(key(prefix, id)));
            let found = self.0.reader().range(&range).map_err(unread)?;
            if let Some(kv) = found.kvs.into_iter().next() {
                let record = Record::decode(kv.value).map_err(StoreError::Decode)?;
                return Ok(Some((record, kv.mod_revision)));
            }
        }
        Ok(None)
    }

    /// Up to `limit` records that begin with `prefix`, after the id `after`, as far as this node
    /// knows; with `latest`, those that changed last, latest first. Records that cannot be read
    /// are passed over.
    pub fn list(
        &self,
        prefix: &str,
        after: &str,
        latest: bool,
        limit: u64,
    ) -> Result<Vec<(String, Kept)>, StoreError> {
        let mut all = Vec::new();
        for (id, value, revision) in self.range(prefix, after, latest, limit)? {
            match Record::decode(value) {
                Ok(record) => all.push((id, (record, revision))),
                Err(error) => tracing::error!(id, %error, "cannot read a transaction's record"),
            }
        }
        Ok(all)
    }

    /// Up to `limit` records that begin with `prefix`, as their bytes, with their revisions.
    pub fn list_raw(
        &self,
        prefix: &str,
        limit: u64,
    ) -> Result<Vec<(String, Bytes, Revision)>, StoreError> {
        self.range(prefix, "", false, limit)
    }

    fn range(
        &self,
        prefix: &str,
        after: &str,
        latest: bool,
        limit: u64,
    ) -> Result<Vec<(String, Bytes, Revision)>, StoreError> {
        let mut from = key(prefix, after).to_vec();
        if !after.is_empty() {
            from.push(0);
        }
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let mut range = Range::of(KeyRange::from_etcd(from.into(), end.into()));
        range.limit = limit;
        range.sort = latest.then_some((SortTarget::Mod, true));
        let found = self.0.reader().range(&range).map_err(unread)?;
        let id = |key: &Bytes| String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
        Ok(found.kvs.into_iter().map(|kv| (id(&kv.key), kv.value, kv.mod_revision)).collect())
    }

    /// Removes finished records, each if it is still as of its revision.
    pub async fn remove(&self, finished: &[(String, Revision)]) -> Result<(), StoreError> {
        let one = |(id, revision): &(String, Revision)| {
            let key = key(FINISHED, id);
            Operation::Txn(Txn {
                compare: vec![as_of(key.clone(), *revision)],
                success: vec![Operation::Delete(Delete {
                    range: KeyRange::One(key),
                    prev_kv: false,
                })],
                failure: Vec::new(),
            })
        };
        let success = finished.iter().map(one).collect();
        let command = Command::Txn(Txn { success, ..Txn::default() });
        self.propose(&command, WRITE_TIMEOUT).await.map(drop)
    }

    /// Keeps an alarm about the branch of this name, if there is none yet.
    pub async fn note_alarm(&self, name: &str, alarm: &Alarm) -> Result<(), StoreError> {
        let key = key(ALARM, name);
        let put = Put { key: key.clone(), value: alarm.encode(), ..Put::default() };
        let command = Command::Txn(Txn {
            compare: vec![as_of(key, 0)],
            success: vec![Operation::Put(put)],
            failure: Vec::new(),
        });
        self.propose(&command, WRITE_TIMEOUT).await.map(drop)
    }

    /// Up to `limit` alarms, as far as this node knows, with the names of their branches. What
    /// cannot be read is told and passed over.
    pub fn alarms(&self, limit: u64) -> Result<Vec<(String, Alarm)>, StoreError> {
        let mut all = Vec::new();
        for (name, value, _) in self.range(ALARM, "", false, limit)? {
            match Alarm::decode(value) {
                Ok(alarm) => all.push((name, alarm)),
                Err(error) => tracing::error!(name, %error, "cannot read an alarm"),
            }
        }
        Ok(all)
    }

    /// Removes alarms, by the names of their branches.
    pub async fn remove_alarms(&self, names: &[String]) -> Result<(), StoreError> {
        for some in names.chunks(64) {
            let delete = |name: &String| {
                Operation::Delete(Delete { range: KeyRange::One(key(ALARM, name)), prev_kv: false })
            };
            let success = some.iter().map(delete).collect();
            self.propose(&Command::Txn(Txn { success, ..Txn::default() }), WRITE_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Forgets the history of records before a revision.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.propose(&Command::Compact { revision }, WRITE_TIMEOUT).await.map(drop)
    }
}
