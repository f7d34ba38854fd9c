//! Reading the directory, and the transactions that change it.

use super::FIRST_GROUP;
use super::record::{self, NEXT, Record};
use crate::handle::KeyspaceHandle;
use crate::hosted::Listed;
use bytes::Bytes;
use quorate_base::{GroupId, NodeId};
use quorate_driver::RequestError;
use quorate_keyspace::command::{
    Command, Compare, CompareOperator, CompareTarget, Delete, Operation, Put, Range, Txn,
};
use quorate_keyspace::reply::Outcome;
use quorate_keyspace::{ReadError, Reader, codec};
use quorate_mvcc::{FjallEngine, KeyRange, Revision};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The directory at one revision.
pub(crate) struct Directory {
    pub revision: Revision,
    pub listed: BTreeMap<GroupId, Listed>,
    /// Members that are about to leave the cluster: no replicas for them.
    pub leaving: BTreeSet<NodeId>,
    /// The first number that was never given, and the revision at which that was said.
    pub next: u64,
    pub next_at: Revision,
}

/// What this node's replica of the directory says. Records that cannot be read are a newer
/// version's: this node has nothing to do with them.
pub(crate) fn read(reader: &Reader<FjallEngine>) -> Result<Directory, ReadError> {
    let everything = KeyRange::From(Bytes::new());
    let (revision, found) = reader.range_at(&Range::of(everything))?;
    let (listed, leaving) = (BTreeMap::new(), BTreeSet::new());
    let mut directory = Directory { revision, listed, leaving, next: FIRST_GROUP, next_at: 0 };
    for kv in found.kvs {
        if kv.key[..] == *NEXT {
            directory.next = record::read_number(&kv.value).unwrap_or(u64::MAX);
            directory.next_at = kv.mod_revision;
        } else if let Some(node) = record::leaving_of(&kv.key) {
            directory.leaving.insert(node);
        } else if let Some(group) = record::group_of(&kv.key) {
            match Record::decode(kv.value.clone()) {
                Ok(record) => {
                    directory.listed.insert(group, (record, kv.mod_revision));
                }
                Err(error) => tracing::error!(%group, %error, "cannot read a keyspace's record"),
            }
        }
    }
    Ok(directory)
}

fn unchanged(key: Bytes, since: Revision) -> Compare {
    Compare {
        range: KeyRange::One(key),
        operator: CompareOperator::Equal,
        // Revisions stay far below the limit of signed numbers.
        target: CompareTarget::Mod(i64::try_from(since).unwrap_or(i64::MAX)),
    }
}

fn put(key: Bytes, value: Bytes) -> Operation {
    Operation::Put(Put { key, value, ..Put::default() })
}

fn delete(key: Bytes) -> Operation {
    Operation::Delete(Delete { range: KeyRange::One(key), prev_kv: false })
}

/// A record for a new group, under the next number, if nobody took that or the name meanwhile.
pub(crate) fn create(directory: &Directory, record: &Record) -> Txn {
    let (next, name) = (Bytes::from_static(NEXT), record::name_key(&record.name));
    Txn {
        compare: vec![unchanged(next.clone(), directory.next_at), unchanged(name.clone(), 0)],
        success: vec![
            put(next, record::number(directory.next + 1)),
            put(name, record::number(directory.next)),
            put(record::key(GroupId(directory.next)), record.encode()),
        ],
        failure: Vec::new(),
    }
}

/// Another record for the group, if the present one is still as of this revision.
pub(crate) fn replace(group: GroupId, at: Revision, record: &Record) -> Txn {
    let key = record::key(group);
    Txn {
        compare: vec![unchanged(key.clone(), at)],
        success: vec![put(key, record.encode())],
        failure: Vec::new(),
    }
}

/// No record for the group, if the present one is still as of this revision.
pub(crate) fn remove(group: GroupId, (record, at): &Listed) -> Txn {
    let key = record::key(group);
    Txn {
        compare: vec![unchanged(key.clone(), *at)],
        success: vec![delete(key), delete(record::name_key(&record.name))],
        failure: Vec::new(),
    }
}

/// From now on this member is to have no replicas, if no group was made meanwhile. Whoever is about
/// to make one, and has not heard of this, looks again: the next number is written anew.
pub(crate) fn leave(directory: &Directory, node: NodeId) -> Txn {
    let next = Bytes::from_static(NEXT);
    Txn {
        compare: vec![unchanged(next.clone(), directory.next_at)],
        success: vec![
            put(next, record::number(directory.next)),
            put(record::leaving_key(node), Bytes::new()),
        ],
        failure: Vec::new(),
    }
}

/// Nothing is said of these any more.
pub(crate) fn left(nodes: &[NodeId]) -> Txn {
    let success = nodes.iter().map(|node| delete(record::leaving_key(*node))).collect();
    Txn { success, ..Txn::default() }
}

/// Carries a change out; whether its conditions held.
pub(crate) async fn change(
    system: &KeyspaceHandle,
    txn: Txn,
    timeout: Duration,
) -> Result<bool, RequestError> {
    // It is flat: it has an encoding.
    let body = codec::encode(&Command::Txn(txn)).map_err(|_| RequestError::TooLarge)?;
    let reply = system.propose(body, timeout).await?;
    Ok(matches!(reply.result, Ok(Outcome::Txn(outcome)) if outcome.succeeded))
}
