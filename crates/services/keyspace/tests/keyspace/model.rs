//! The keyspace once more, as simply as can be: the whole state of every revision is kept.

use bytes::Bytes;
use quorate_keyspace::command::{
    Claim, Compare, CompareOperator, CompareTarget, Delete, Operation, Put, Range, SortTarget, Txn,
};
use quorate_keyspace::reply::{
    DeleteOutcome, OperationOutcome, PutOutcome, RangeOutcome, TxnOutcome,
};
use quorate_keyspace::{Command, KeyspaceError, Outcome, Reply};
use quorate_mvcc::{Event, KeyRange, KeyValue};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

type Keys = BTreeMap<Bytes, KeyValue>;
/// Since when each name is held, and by whom.
type Claims = BTreeMap<Bytes, (u64, Bytes)>;

#[derive(Default)]
pub struct Model {
    /// The keys as of each revision; the first is revision 1.
    states: Vec<Keys>,
    pub events: Vec<Event>,
    pub compacted: u64,
    pub leases: BTreeSet<i64>,
    pub claims: Claims,
}

/// A command being done.
struct Work {
    keys: Keys,
    events: Vec<Event>,
    claims: Claims,
    /// Whether it makes a revision.
    changes: bool,
    revision: u64,
}

impl Work {
    /// The revision that reads see.
    fn now(&self) -> u64 {
        if self.changes { self.revision } else { self.revision - 1 }
    }
}

fn within<'a>(keys: &'a Keys, range: &KeyRange) -> Vec<&'a KeyValue> {
    keys.values().filter(|kv| range.contains(&kv.key)).collect()
}

impl Model {
    pub fn new() -> Self {
        Model { states: vec![Keys::new()], ..Model::default() }
    }

    pub fn revision(&self) -> u64 {
        self.states.len() as u64
    }

    fn keys(&self) -> &Keys {
        self.states.last().unwrap()
    }

    pub fn at(&self, revision: u64) -> &Keys {
        &self.states[revision as usize - 1]
    }

    pub fn run(&mut self, command: &Command) -> Reply {
        let revision = self.revision() + 1;
        let (keys, claims) = (self.keys().clone(), self.claims.clone());
        let mut work = Work { keys, events: Vec::new(), claims, changes: false, revision };
        let result = self.done(command, &mut work);
        if result.is_ok() {
            self.claims = work.claims;
            if work.changes {
                self.states.push(work.keys);
                self.events.append(&mut work.events);
            }
        }
        Reply { revision: self.revision(), result }
    }

    fn done(&mut self, command: &Command, work: &mut Work) -> Result<Outcome, KeyspaceError> {
        match command {
            Command::Put(put) => {
                self.may_put(put, &work.keys)?;
                self.put(put, work).map(Outcome::Put)
            }
            Command::Delete(delete) => Ok(Outcome::Delete(self.delete(delete, work))),
            Command::Txn(txn) => {
                let before = work.keys.clone();
                self.check(txn, &before)?;
                self.transact(txn, &before, work).map(Outcome::Txn)
            }
            Command::Compact { revision } if *revision <= self.compacted => {
                Err(KeyspaceError::Compacted)
            }
            Command::Compact { revision } if *revision > self.revision() => {
                Err(KeyspaceError::FutureRevision)
            }
            Command::Compact { revision } => {
                self.compacted = *revision;
                Ok(Outcome::Compacted)
            }
            Command::LeaseGrant { id, ttl_seconds } => match self.leases.insert(*id) {
                true => Ok(Outcome::LeaseGranted { id: *id, ttl_seconds: *ttl_seconds }),
                false => Err(KeyspaceError::LeaseExists),
            },
            Command::LeaseRevoke { id } => {
                if !self.leases.remove(id) {
                    return Err(KeyspaceError::LeaseNotFound);
                }
                let keys: Vec<Bytes> = work
                    .keys
                    .values()
                    .filter(|kv| kv.lease == *id)
                    .map(|kv| kv.key.clone())
                    .collect();
                for key in keys {
                    let range = KeyRange::One(key);
                    self.delete(&Delete { range, prev_kv: false }, work);
                }
                Ok(Outcome::LeaseRevoked)
            }
            other => panic!("the model does not know {other:?}"),
        }
    }

    fn may_put(&self, put: &Put, keys: &Keys) -> Result<(), KeyspaceError> {
        if put.lease != 0 && !self.leases.contains(&put.lease) {
            return Err(KeyspaceError::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && !keys.contains_key(&put.key) {
            return Err(KeyspaceError::KeyNotFound);
        }
        Ok(())
    }

    fn put(&self, put: &Put, work: &mut Work) -> Result<PutOutcome, KeyspaceError> {
        self.may_put(put, &work.keys)?;
        let old = work.keys.get(&put.key).cloned();
        let was = old.clone().unwrap_or_default();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: if was.version == 0 { work.revision } else { was.create_revision },
            mod_revision: work.revision,
            version: was.version + 1,
            value: if put.ignore_value { was.value.clone() } else { put.value.clone() },
            lease: if put.ignore_lease { was.lease } else { put.lease },
        };
        work.keys.insert(put.key.clone(), kv.clone());
        work.events.push(Event::Put(kv));
        work.changes = true;
        Ok(PutOutcome { previous: old.filter(|_| put.prev_kv) })
    }

    fn delete(&self, delete: &Delete, work: &mut Work) -> DeleteOutcome {
        let gone: Vec<KeyValue> = within(&work.keys, &delete.range).into_iter().cloned().collect();
        for kv in &gone {
            work.keys.remove(&kv.key);
            work.events.push(Event::Delete { key: kv.key.clone(), revision: work.revision });
            work.changes = true;
        }
        let deleted = gone.len() as u64;
        DeleteOutcome { deleted, previous: if delete.prev_kv { gone } else { Vec::new() } }
    }

    fn taken<'a>(&self, txn: &'a Txn, before: &Keys) -> (bool, &'a [Operation]) {
        // All are compared on the state before.
        let holds = txn.compare.iter().all(|c| compare(c, before, &self.claims));
        (holds, if holds { &txn.success } else { &txn.failure })
    }

    fn check(&self, txn: &Txn, before: &Keys) -> Result<(), KeyspaceError> {
        for operation in self.taken(txn, before).1 {
            match operation {
                Operation::Put(put) => self.may_put(put, before)?,
                Operation::Range(range) if range.revision > self.revision() => {
                    return Err(KeyspaceError::FutureRevision);
                }
                Operation::Range(range)
                    if range.revision != 0 && range.revision < self.compacted =>
                {
                    return Err(KeyspaceError::Compacted);
                }
                Operation::Txn(inner) => self.check(inner, before)?,
                Operation::Range(_)
                | Operation::Delete(_)
                | Operation::Claim(_)
                | Operation::Release(_) => {}
            }
        }
        Ok(())
    }

    fn transact(
        &self,
        txn: &Txn,
        before: &Keys,
        work: &mut Work,
    ) -> Result<TxnOutcome, KeyspaceError> {
        let (succeeded, operations) = self.taken(txn, before);
        let mut responses = Vec::new();
        for operation in operations {
            responses.push(match operation {
                Operation::Put(put) => OperationOutcome::Put(self.put(put, work)?),
                Operation::Delete(delete) => OperationOutcome::Delete(self.delete(delete, work)),
                Operation::Txn(inner) => OperationOutcome::Txn(self.transact(inner, before, work)?),
                Operation::Range(wanted) => {
                    let keys = match wanted.revision {
                        0 => &work.keys,
                        revision => self.at(revision),
                    };
                    OperationOutcome::Range(range(wanted, keys, work.now()))
                }
                Operation::Claim(Claim { name, holder }) => {
                    work.claims.insert(name.clone(), (work.revision, holder.clone()));
                    work.changes = true;
                    continue;
                }
                Operation::Release(Claim { name, holder }) => {
                    if work.claims.get(name).is_some_and(|(_, by)| by == holder) {
                        work.claims.remove(name);
                    }
                    continue;
                }
            });
        }
        Ok(TxnOutcome { succeeded, responses })
    }

    pub fn range(&self, wanted: &Range) -> Result<RangeOutcome, KeyspaceError> {
        match wanted.revision {
            r if r > self.revision() => Err(KeyspaceError::FutureRevision),
            r if r != 0 && r < self.compacted => Err(KeyspaceError::Compacted),
            0 => Ok(range(wanted, self.keys(), self.revision())),
            r => Ok(range(wanted, self.at(r), self.revision())),
        }
    }
}

fn compare(compare: &Compare, keys: &Keys, claims: &Claims) -> bool {
    let one = |kv: &KeyValue| {
        let order = match &compare.target {
            CompareTarget::Claim(v) => {
                let KeyRange::One(name) = &compare.range else { panic!("a range of names") };
                claims.get(name).map_or(0, |(since, _)| *since as i64).cmp(v)
            }
            CompareTarget::Version(v) => (kv.version as i64).cmp(v),
            CompareTarget::Create(v) => (kv.create_revision as i64).cmp(v),
            CompareTarget::Mod(v) => (kv.mod_revision as i64).cmp(v),
            CompareTarget::Value(v) => kv.value.cmp(v),
            CompareTarget::Lease(v) => kv.lease.cmp(v),
        };
        match compare.operator {
            CompareOperator::Equal => order == Ordering::Equal,
            CompareOperator::NotEqual => order != Ordering::Equal,
            CompareOperator::Greater => order == Ordering::Greater,
            CompareOperator::Less => order == Ordering::Less,
        }
    };
    let found = within(keys, &compare.range);
    match (found.is_empty(), &compare.target) {
        (_, CompareTarget::Claim(_)) => one(&KeyValue::default()),
        (true, CompareTarget::Value(_)) => false,
        (true, _) => one(&KeyValue::default()),
        (false, _) => found.into_iter().all(one),
    }
}

fn range(wanted: &Range, keys: &Keys, revision: u64) -> RangeOutcome {
    let mut kvs: Vec<KeyValue> = within(keys, &wanted.range).into_iter().cloned().collect();
    let count = kvs.len() as u64;
    if wanted.count_only {
        return RangeOutcome { count, revision, ..RangeOutcome::default() };
    }
    let inside = |(min, max): (u64, u64), r: u64| r >= min && (max == 0 || r <= max);
    kvs.retain(|kv| {
        inside(wanted.mod_revision, kv.mod_revision)
            && inside(wanted.create_revision, kv.create_revision)
    });
    let (target, descending) = wanted.sort.unwrap_or((SortTarget::Key, false));
    kvs.sort_by(|a, b| {
        let order = match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        if descending { order.reverse() } else { order }
    });
    let more = wanted.limit > 0 && kvs.len() as u64 > wanted.limit;
    if more {
        kvs.truncate(wanted.limit as usize);
    }
    if wanted.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeOutcome { kvs, more, count, revision }
}
