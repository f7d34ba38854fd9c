//! The records of transactions as keys of a keyspace.
//!
//! | key | value |
//! | --- | --- |
//! | `o/` and an id | the record of a transaction that is not over |
//! | `f/` and an id | of one that is |
//! | `s/` and an id | the strays of its record: branches outside that are in no attempt of it |
//!
//! An id that is taken is a claim ([`quorate_keyspace::command::Claim`]): its holder is the id
//! whose record tells of it, its own, or that of the bundle that carries it.
//!
//! Invariants: a record is only ever changed on the condition that it is still as of a revision,
//! and begun on the condition that there is none of either kind. Strays are noted on the condition
//! that there is a record, and a record is removed only together with the strays that whoever
//! removes it knows of: an id that is free has none.

use crate::coordinator::{StoreRequest, Stored};
use crate::record::{Record, Stage, Verdict};
use crate::stray::Stray;
use crate::write::{Change, Condition, Key, Write};
use bytes::Bytes;
use quorate_base::codec::DecodeError;
use quorate_keyspace::command::{
    Claim, Command, Compare, CompareOperator, CompareTarget, Delete, Operation, Put, Range, Txn,
};
use quorate_keyspace::reply::{OperationOutcome, Outcome, TxnOutcome};
use quorate_keyspace::{ReadError, Reader};
use quorate_mvcc::{Engine, KeyRange, Revision};

/// What open records begin with.
pub const OPEN: &str = "o/";
/// What finished records begin with.
pub const FINISHED: &str = "f/";
/// What the ids begin with of records that have strays.
pub const STRAYS: &str = "s/";

/// How often the record of an id that is taken is looked for.
const LOOKS: usize = 3;

/// A record and its revision.
pub type Kept = (Record, Revision);

/// A record that is over, and what its participants remember besides.
#[derive(Clone, PartialEq, Debug)]
pub struct Over {
    /// Its id.
    pub id: String,
    /// The record.
    pub record: Record,
    /// Its revision.
    pub revision: Revision,
    /// Its strays.
    pub strays: Vec<Stray>,
    /// Their revision; zero, if there are none.
    pub noted: Revision,
}

/// What is known of a client's transaction: its own record, or that of the bundle that carries it.
#[derive(Clone, PartialEq, Debug)]
pub struct Known {
    /// Whose record it is.
    pub id: String,
    /// The record.
    pub record: Record,
    /// Its revision.
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

/// Why a record was not found out about.
#[derive(Clone, Debug)]
pub enum LookError {
    /// The keyspace's state cannot be read.
    Read(ReadError),
    /// The record makes no sense to this version.
    Decode(DecodeError),
}

impl From<ReadError> for LookError {
    fn from(error: ReadError) -> LookError {
        LookError::Read(error)
    }
}

impl std::fmt::Display for LookError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LookError::Read(error) => write!(f, "records of transactions: {error}"),
            LookError::Decode(error) => {
                write!(f, "a transaction's record is of a newer version, or damaged: {error}")
            }
        }
    }
}

/// The key of something of an id.
pub fn key(prefix: &str, id: &str) -> Bytes {
    Bytes::from(format!("{prefix}{id}"))
}

/// The condition that a key is still as of a revision; zero: that it is not there.
pub fn as_of(key: Bytes, revision: Revision) -> Compare {
    Compare {
        range: KeyRange::One(key),
        operator: CompareOperator::Equal,
        target: CompareTarget::Mod(signed(revision)),
    }
}

/// Revisions stay far below the limit of signed numbers.
fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn read(key: Bytes) -> Operation {
    Operation::Range(Range::of(KeyRange::One(key)))
}

fn place(key_: &Key) -> Bytes {
    match key_ {
        Key::Open(id) => key(OPEN, id),
        Key::Finished(id) => key(FINISHED, id),
    }
}

fn put(key: Bytes, value: Bytes) -> Operation {
    Operation::Put(Put { key, value, ..Put::default() })
}

fn delete(key: Bytes) -> Operation {
    Operation::Delete(Delete { range: KeyRange::One(key), prev_kv: false })
}

fn condition(condition: &Condition) -> Compare {
    match condition {
        Condition::AsOf(at, revision) => as_of(place(at), *revision),
        Condition::Free(id, seen) => Compare {
            range: KeyRange::One(Bytes::copy_from_slice(id.as_bytes())),
            operator: CompareOperator::Less,
            target: CompareTarget::Claim(signed(seen.saturating_add(1))),
        },
    }
}

/// The claim of an id by the record of another, or its own.
fn claim(id: &str, holder: &str) -> Claim {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Claim { name: bytes(id), holder: bytes(holder) }
}

/// The write of one record.
fn one(id: &str, request: &StoreRequest, value: &Bytes) -> Txn {
    let Write { conditions, changes } = request.write(id);
    let change = |change| match change {
        Change::Keep(at) => put(place(&at), value.clone()),
        Change::Remove(at) => delete(place(&at)),
        Change::Take(other) => Operation::Claim(claim(&other, id)),
        Change::LetGo(other) => Operation::Release(claim(&other, id)),
    };
    Txn {
        compare: conditions.iter().map(condition).collect(),
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

/// The command that writes records of different ids, carried ones among them, each on its own
/// condition.
pub fn write_all(batch: &[(&str, &StoreRequest)]) -> Command {
    let each = batch.iter().map(|(id, request)| one(id, request, &request.record.encode()));
    let success = each.map(Operation::Txn).collect();
    Command::Txn(Txn { success, ..Txn::default() })
}

/// What that command came to, for each of them, when it was done at this revision.
pub fn written(
    batch: &[(&str, &StoreRequest)],
    revision: Revision,
    outcome: Outcome,
) -> Vec<Stored> {
    let Outcome::Txn(outcome) = outcome else { return vec![Stored::Lost; batch.len()] };
    let judged =
        outcome.responses.into_iter().zip(batch).map(|(response, (_, request))| match response {
            OperationOutcome::Txn(done) if done.succeeded => Stored::Done(revision),
            OperationOutcome::Txn(done) => found(done, &request.record.encode()),
            _ => Stored::Lost,
        });
    judged.collect()
}

/// The command that removes finished records, each with its strays if both are still as of their
/// revisions, and forgets whom they carried.
pub fn remove(finished: &[Over]) -> Command {
    let one = |over: &Over| {
        let (at, strays) = (key(FINISHED, &over.id), key(STRAYS, &over.id));
        let commits = over.record.stage.verdict().is_some_and(Verdict::commits);
        let carried = over.record.carried.iter().filter(|_| commits).map(|it| &it.id);
        let mut success = vec![delete(at.clone())];
        let ids = std::iter::once(&over.id).chain(carried);
        success.extend(ids.map(|id| Operation::Release(claim(id, &over.id))));
        if over.noted > 0 {
            success.push(delete(strays.clone()));
        }
        let compare = vec![as_of(at, over.revision), as_of(strays, over.noted)];
        Operation::Txn(Txn { compare, success, failure: Vec::new() })
    };
    Command::Txn(Txn { success: finished.iter().map(one).collect(), ..Txn::default() })
}

/// The command that keeps these as the strays of a record, if that and the strays that there were
/// are still as of their revisions.
pub fn note_strays(id: &str, (record, revision): &Kept, noted: Revision, all: &[Stray]) -> Command {
    let prefix = match record.stage {
        Stage::Finished(_) => FINISHED,
        Stage::Open | Stage::Decided(_) => OPEN,
    };
    let at = key(STRAYS, id);
    Command::Txn(Txn {
        compare: vec![as_of(key(prefix, id), *revision), as_of(at.clone(), noted)],
        success: vec![put(at, Stray::encode(all))],
        failure: Vec::new(),
    })
}

/// The strays of a record as far as this replica knows, and their revision: zero, if there are
/// none.
///
/// # Errors
/// [`LookError`]
pub fn strays<E: Engine>(
    reader: &Reader<E>,
    id: &str,
) -> Result<(Vec<Stray>, Revision), LookError> {
    let found = reader.range(&Range::of(KeyRange::One(key(STRAYS, id))))?;
    let Some(kv) = found.kvs.into_iter().next() else { return Ok((Vec::new(), 0)) };
    Ok((Stray::decode(kv.value).map_err(LookError::Decode)?, kv.mod_revision))
}

/// What is known of a client's transaction as far as this replica of the records knows.
///
/// # Errors
/// [`LookError`]
pub fn look_for<E: Engine>(reader: &Reader<E>, id: &str) -> Result<Option<Known>, LookError> {
    // Between the looks it may be let go, and begin anew.
    for _ in 0..LOOKS {
        let Some(whose) = whose(reader, id)? else { return Ok(None) };
        let Some((record, revision)) = look(reader, &whose)? else { continue };
        let carried = whose != id;
        if carried && record.stage.verdict().is_some_and(|verdict| !verdict.commits()) {
            // It let go whom it carried by the same write.
            continue;
        }
        let content = match carried {
            true => record.carried.iter().find(|it| it.id == id).map(|it| it.content),
            false => Some(record.content),
        };
        if let Some(content) = content {
            return Ok(Some(Known { id: whose, record, revision, content, carried }));
        }
    }
    Ok(None)
}

/// Whose record tells of an id, if it is taken.
fn whose<E: Engine>(reader: &Reader<E>, id: &str) -> Result<Option<String>, LookError> {
    let found = reader.claim(id.as_bytes())?;
    Ok(found.map(|(_, holder)| String::from_utf8_lossy(&holder).into_owned()))
}

/// The record of this id as far as this replica knows.
///
/// # Errors
/// [`LookError`]
pub fn look<E: Engine>(reader: &Reader<E>, id: &str) -> Result<Option<Kept>, LookError> {
    // In this order: it may go from the one to the other between the two.
    for prefix in [OPEN, FINISHED] {
        let range = Range::of(KeyRange::One(key(prefix, id)));
        let found = reader.range(&range)?;
        if let Some(kv) = found.kvs.into_iter().next() {
            let record = Record::decode(kv.value).map_err(LookError::Decode)?;
            return Ok(Some((record, kv.mod_revision)));
        }
    }
    Ok(None)
}

/// Up to `limit` of what begins with `prefix`, after the id `after`, as far as this replica knows.
/// Each with its id, its bytes and its revision.
///
/// # Errors
/// [`ReadError`]
pub fn list<E: Engine>(
    reader: &Reader<E>,
    prefix: &str,
    after: &str,
    limit: u64,
) -> Result<Vec<(String, Bytes, Revision)>, ReadError> {
    let mut from = key(prefix, after).to_vec();
    if !after.is_empty() {
        from.push(0);
    }
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let found = reader.page(KeyRange::from_etcd(from.into(), end.into()), limit)?;
    let id = |key: &Bytes| String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
    Ok(found.into_iter().map(|kv| (id(&kv.key), kv.value, kv.mod_revision)).collect())
}

#[cfg(test)]
mod tests;
