//! The reference store: a revisioned key-value store in the plainest form, to be compared with.
//!
//! Invariant: written from etcd's documented behaviour, not from the keyspace's code.

use crate::history::{Compare, Op, Outcome, Refusal, Reply, Request, Span, Target};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A key as of its latest change.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Kv {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The revision that created it.
    pub create: u64,
    /// The revision that last changed it.
    pub modified: u64,
    /// How often it was changed since its creation.
    pub version: u64,
    /// Its lease, or zero.
    pub lease: i64,
}

/// One change that a revision made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A key was written.
    Put(Kv),
    /// A key was deleted.
    Delete(Bytes),
}

impl Change {
    /// The key.
    pub fn key(&self) -> &Bytes {
        match self {
            Change::Put(kv) => &kv.key,
            Change::Delete(key) => key,
        }
    }
}

/// The reference store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Store {
    /// The present revision; 1 when empty.
    pub revision: u64,
    keys: BTreeMap<Bytes, Kv>,
    leases: BTreeMap<i64, BTreeSet<Bytes>>,
}

impl Default for Store {
    fn default() -> Self {
        Store { revision: 1, keys: BTreeMap::new(), leases: BTreeMap::new() }
    }
}

impl Store {
    /// The keys of `span`, in order.
    pub fn range(&self, span: &Span) -> Vec<Kv> {
        match &span.to {
            None => self.keys.get(&span.from).cloned().into_iter().collect(),
            Some(to) if *to <= span.from => Vec::new(),
            Some(to) => {
                self.keys.range(span.from.clone()..to.clone()).map(|(_, kv)| kv.clone()).collect()
            }
        }
    }

    /// Every key, in order.
    pub fn all(&self) -> impl Iterator<Item = &Kv> {
        self.keys.values()
    }

    /// The keys attached to a lease, in order.
    pub fn attached(&self, lease: i64) -> Vec<Bytes> {
        self.leases.get(&lease).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// What `request` does here and now, with the changes it makes, without doing it.
    pub fn plan(&self, request: &Request) -> (Reply, Vec<Change>) {
        let mut after = self.clone();
        let mut changes = Vec::new();
        let next = self.revision + 1;
        let outcome = match request {
            Request::Op(op) => after.op(op, next, &mut changes),
            Request::Old { span, .. } => Outcome::Found(self.range(span)),
            Request::Txn { compares, success, failure } => {
                let succeeded = compares.iter().all(|c| self.holds(c));
                let ops = if succeeded { success } else { failure };
                let outcomes = ops.iter().map(|op| after.op(op, next, &mut changes)).collect();
                Outcome::Txn { succeeded, outcomes }
            }
            Request::Compact { .. } | Request::Grant { .. } => Outcome::Done,
            Request::Revoke { id } => {
                changes.extend(self.attached(*id).into_iter().map(Change::Delete));
                Outcome::Done
            }
        };
        let revision = self.revision + u64::from(!changes.is_empty());
        (Reply { revision, outcome }, changes)
    }

    /// Makes the changes of the next revision.
    pub fn advance(&mut self, changes: &[Change]) {
        self.revision += 1;
        for change in changes {
            match change {
                Change::Put(kv) => self.put(kv.clone()),
                Change::Delete(key) => self.delete(key),
            }
        }
    }

    /// Whether the keys and values are the same as another replica's.
    pub fn differs_from<'a>(&self, others: impl Iterator<Item = &'a Kv>) -> Option<String> {
        let mut others = others;
        for kv in self.keys.values() {
            match others.next() {
                Some(other) if other == kv => {}
                Some(other) => return Some(format!("has {other:?} where {kv:?} belongs")),
                None => return Some(format!("lacks {kv:?}")),
            }
        }
        others.next().map(|other| format!("has {other:?}, which was deleted or never written"))
    }

    fn holds(&self, compare: &Compare) -> bool {
        let kv = self.keys.get(&compare.key);
        match &compare.target {
            Target::Value(value) => kv.is_some_and(|kv| kv.value == *value),
            Target::Mod(revision) => kv.map_or(0, |kv| kv.modified) == *revision,
            Target::Create(revision) => kv.map_or(0, |kv| kv.create) == *revision,
            Target::Version(version) => kv.map_or(0, |kv| kv.version) == *version,
        }
    }

    fn op(&mut self, op: &Op, revision: u64, changes: &mut Vec<Change>) -> Outcome {
        match op {
            Op::Put { key, value, lease } => {
                let old = self.keys.get(key);
                let kv = Kv {
                    key: key.clone(),
                    value: value.clone(),
                    create: old.map_or(revision, |kv| kv.create),
                    modified: revision,
                    version: old.map_or(0, |kv| kv.version) + 1,
                    lease: *lease,
                };
                self.put(kv.clone());
                changes.push(Change::Put(kv));
                Outcome::Done
            }
            Op::Delete(span) => {
                let keys = self.range(span);
                for kv in &keys {
                    self.delete(&kv.key);
                    changes.push(Change::Delete(kv.key.clone()));
                }
                Outcome::Deleted(keys.len() as u64)
            }
            Op::Range(span) => Outcome::Found(self.range(span)),
        }
    }

    fn put(&mut self, kv: Kv) {
        self.delete(&kv.key);
        if kv.lease != 0 {
            self.leases.entry(kv.lease).or_default().insert(kv.key.clone());
        }
        self.keys.insert(kv.key.clone(), kv);
    }

    fn delete(&mut self, key: &Bytes) {
        if let Some(old) = self.keys.remove(key)
            && let Some(keys) = self.leases.get_mut(&old.lease)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.leases.remove(&old.lease);
            }
        }
    }
}

impl Refusal {
    /// Whether the refusal says something about leases only, which no revision orders.
    pub fn is_about_leases(self) -> bool {
        matches!(self, Refusal::LeaseNotFound | Refusal::LeaseExists)
    }
}
