//! What a command touches: the locks it needs before it is done.
//!
//! Invariant: a superset of what the command will read and change, known from the command alone
//! (and, for the end of a lease, from the keys attached to it). A lock of a set of keys also
//! covers the keys that do not exist yet: there are no phantoms.

use super::{BranchCommand, Prepare};
use crate::command::{Command, CompareTarget, Operation, Txn};
use bytes::Bytes;
use quorate_mvcc::{KeyRange, LeaseId};

/// Locks, each shared (false) or exclusive (true).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LockSet {
    /// Of keys.
    pub keys: Vec<(KeyRange, bool)>,
    /// Of leases: whoever attaches a key shares it, whoever ends the lease has it alone.
    pub leases: Vec<(LeaseId, bool)>,
}

impl LockSet {
    /// Whether nothing is touched.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.leases.is_empty()
    }

    /// What a command needs, but for the keys of a lease that it ends.
    pub fn of(command: &Command) -> LockSet {
        let mut set = LockSet::default();
        match command {
            Command::Put(put) => set.operation(&Operation::Put(put.clone())),
            Command::Delete(delete) => set.operation(&Operation::Delete(delete.clone())),
            Command::Txn(txn) => set.txn(txn, true),
            Command::Barrier { ranges } => {
                set.keys.extend(ranges.iter().map(|range| (range.clone(), false)));
            }
            Command::LeaseRevoke { id } | Command::LeaseExpire { id, .. } => {
                set.leases.push((*id, true));
            }
            Command::Branch(BranchCommand::Prepare(prepare)) => set = LockSet::of_branch(prepare),
            Command::Branch(_)
            | Command::Unqueue { .. }
            | Command::FoundDirectory { .. }
            | Command::Compact { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseCheckpoint { .. }
            | Command::Alarm { .. }
            | Command::Member(_) => {}
        }
        set
    }

    /// What a branch needs.
    pub fn of_branch(prepare: &Prepare) -> LockSet {
        let mut set = LockSet::default();
        for txn in prepare.txns.iter() {
            set.txn(txn, prepare.or_else);
        }
        set
    }

    /// With these keys besides, alone: those of a lease that ends.
    pub fn with_keys(mut self, keys: &[Bytes]) -> LockSet {
        self.keys.extend(keys.iter().map(|key| (KeyRange::One(key.clone()), true)));
        self
    }

    /// Without the shared locks: what the canary forgets.
    pub fn exclusive_only(mut self) -> LockSet {
        self.keys.retain(|(_, exclusive)| *exclusive);
        self
    }

    fn txn(&mut self, txn: &Txn, failure: bool) {
        for compare in &txn.compare {
            // A name is no key.
            if !matches!(compare.target, CompareTarget::Claim(_)) {
                self.key(&compare.range, false);
            }
        }
        let failure = if failure { &txn.failure[..] } else { &[] };
        for operation in txn.success.iter().chain(failure) {
            self.operation(operation);
        }
    }

    fn operation(&mut self, operation: &Operation) {
        match operation {
            // What happened at an old revision will not change.
            Operation::Range(range) if range.revision != 0 => {}
            Operation::Range(range) => self.key(&range.range, false),
            Operation::Put(put) => {
                self.key(&KeyRange::One(put.key.clone()), true);
                if put.lease != 0 {
                    self.leases.push((put.lease, false));
                }
            }
            Operation::Delete(delete) => self.key(&delete.range, true),
            Operation::Txn(inner) => self.txn(inner, true),
            // No branch has any.
            Operation::Claim(_) | Operation::Release(_) => {}
        }
    }

    fn key(&mut self, range: &KeyRange, exclusive: bool) {
        self.keys.push((range.clone(), exclusive));
    }
}
