//! The records of transactions in the keyspace `transactions`.
//!
//! | key | value |
//! | --- | --- |
//! | `o/` and an id | the record of a transaction that is not over |
//! | `f/` and an id | of one that is |
//! | `c/` and an id | the id of the bundle that carries it |
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
use quorate_transactions::{Alarm, Change, Key, Record, StoreRequest, Stored, Verdict, Write};
use std::time::Duration;

/// How long one write may take before it is made again.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// What open records begin with.
pub(crate) const OPEN: &str = "o/";
/// What alarms begin with that no open record tells of.
pub(crate) const ALARM: &str = "a/";
/// What finished records begin with.
pub(crate) const FINISHED: &str = "f/";
/// What the ids of those begin with that a bundle carries.
const CARRIED: &str = "c/";
/// Records, and whom they carry, that are removed with one command.
const MOST_REMOVED: usize = 500;

/// A record and its revision.
pub(crate) type Kept = (Record, Revision);

/// What is known of a client's transaction: its own record, or that of the bundle that carries it.
pub(crate) struct Known {
    /// Whose record it is.
    pub id: String,
    pub record: Record,
    pub revision: Revision,
    /// The hash of what the client asked for.
    pub content: u128,
    /// Whether the record is a bundle's.
    pub carried: bool,
}

impl Known {
    /// Whether it is decided. A bundle that is aborted has let go whom it carried.
    pub fn is_settled(&self) -> bool {
        self.record.stage.verdict().is_some_and(|verdict| !self.carried || verdict.commits())
    }
}

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

fn place(key_: &Key) -> Bytes {
    match key_ {
        Key::Open(id) => key(OPEN, id),
        Key::Finished(id) => key(FINISHED, id),
        Key::Carried(id) => key(CARRIED, id),
    }
}

fn put(key: Bytes, value: Bytes) -> Operation {
    Operation::Put(Put { key, value, ..Put::default() })
}

fn delete(key: Bytes) -> Operation {
    Operation::Delete(Delete { range: KeyRange::One(key), prev_kv: false })
}

/// The write of one record.
fn one(id: &str, request: &StoreRequest, value: &Bytes) -> Txn {
    let Write { conditions, changes } = request.write(id);
    let own = || Bytes::copy_from_slice(id.as_bytes());
    let change = |change| match change {
        Change::Keep(at) => put(place(&at), value.clone()),
        Change::Remove(at) => delete(place(&at)),
        Change::Carry(id) => put(key(CARRIED, &id), own()),
        Change::LetGo(id) => {
            let at = key(CARRIED, &id);
            let by_this = Compare {
                range: KeyRange::One(at.clone()),
                operator: CompareOperator::Equal,
                target: CompareTarget::Value(own()),
            };
            let success = vec![delete(at)];
            Operation::Txn(Txn { compare: vec![by_this], success, failure: Vec::new() })
        }
    };
    Txn {
        compare: conditions.iter().map(|(key, at)| as_of(place(key), *at)).collect(),
        success: changes.into_iter().map(change).collect(),
        failure: vec![read(key(OPEN, id)), read(key(FINISHED, id))],
    }
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

    /// Writes records of different ids, carried ones among them, with one command, each on its own
    /// condition. An error leaves open whether they were written.
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

    /// What is known of a client's transaction as of everything acknowledged before the call.
    pub async fn find(&self, id: &str, timeout: Duration) -> Result<Option<Known>, StoreError> {
        self.0.read(timeout).await.map_err(StoreError::Request)?;
        self.look_for(id)
    }

    /// What is known of a client's transaction as far as this node knows.
    pub fn look_for(&self, id: &str) -> Result<Option<Known>, StoreError> {
        // It may be let go, and begin, between the looks.
        for look in [Store::look_for_own, Store::look_for_bundle, Store::look_for_own] {
            if let Some(known) = look(self, id)? {
                return Ok(Some(known));
            }
        }
        Ok(None)
    }

    fn look_for_own(&self, id: &str) -> Result<Option<Known>, StoreError> {
        let found = self.look(id)?;
        Ok(found.map(|(record, revision)| {
            let (id, content, carried) = (id.to_owned(), record.content, false);
            Known { id, record, revision, content, carried }
        }))
    }

    fn look_for_bundle(&self, id: &str) -> Result<Option<Known>, StoreError> {
        let range = Range::of(KeyRange::One(key(CARRIED, id)));
        let found = self.0.reader().range(&range).map_err(unread)?;
        let Some(kv) = found.kvs.into_iter().next() else { return Ok(None) };
        let bundle = String::from_utf8_lossy(&kv.value).into_owned();
        let Some((record, revision)) = self.look(&bundle)? else { return Ok(None) };
        let carried = record.carried.iter().find(|carried| carried.id == id);
        Ok(carried.map(|it| it.content).map(|content| Known {
            id: bundle,
            record,
            revision,
            content,
            carried: true,
        }))
    }

    /// The record of this id as far as this node knows.
    pub fn look(&self, id: &str) -> Result<Option<Kept>, StoreError> {
        // In this order: it may go from the one to the other between the two.
        for prefix in [OPEN, FINISHED] {
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

    /// Removes finished records, each if it is still as of its revision, and forgets whom they
    /// carried.
    pub async fn remove(&self, finished: &[(String, Kept)]) -> Result<(), StoreError> {
        let one = |(id, (record, revision)): &(String, Kept)| {
            let at = key(FINISHED, id);
            let commits = record.stage.verdict().is_some_and(Verdict::commits);
            let carried = record.carried.iter().filter(|_| commits);
            let mut success = vec![delete(at.clone())];
            success.extend(carried.map(|carried| delete(key(CARRIED, &carried.id))));
            let compare = vec![as_of(at, *revision)];
            Operation::Txn(Txn { compare, success, failure: Vec::new() })
        };
        let mut rest = finished;
        while !rest.is_empty() {
            let mut room = MOST_REMOVED;
            let fits = |(_, (record, _)): &&(String, Kept)| {
                let wanted = 1 + record.carried.len();
                room.checked_sub(wanted).map(|left| room = left).is_some()
            };
            let (some, others) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            rest = others;
            let success = some.iter().map(one).collect();
            let command = Command::Txn(Txn { success, ..Txn::default() });
            self.propose(&command, WRITE_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Keeps an alarm about the branch of this name, if there is none yet.
    pub async fn note_alarm(&self, name: &str, alarm: &Alarm) -> Result<(), StoreError> {
        let key = key(ALARM, name);
        let command = Command::Txn(Txn {
            compare: vec![as_of(key.clone(), 0)],
            success: vec![put(key, alarm.encode())],
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
            let success = some.iter().map(|name| delete(key(ALARM, name))).collect();
            self.propose(&Command::Txn(Txn { success, ..Txn::default() }), WRITE_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Forgets the history of records before a revision.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.propose(&Command::Compact { revision }, WRITE_TIMEOUT).await.map(drop)
    }
}
