//! What a keyspace knows of branches: who has locks, who waits, and what became of the others.
//!
//! Invariants: `held` has exactly the locks of the prepared branches, `wanted` those of the waiting
//! commands; of two waiting commands that conflict, the younger waits for the older.

use super::{
    Age, BranchCommand, BranchId, BranchInfo, BranchState, LockSet, LockTable, MAX_LIVE,
    MAX_LIVE_BYTES, MAX_OUTCOMES, No, Prepare, age::Tie, records,
};
use crate::command::Command;
use ::bytes::Bytes;
use quorate_base::{Index, RequestId};
use quorate_mvcc::{Engine, LeaseId, Revision, Store, WriteTxn};
use quorate_service::ServiceError;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// What is known of a branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Branch {
    pub epoch: u64,
    pub state: State,
}

/// How a branch stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Waiting(Age),
    Prepared(Box<Prepared>),
    Committed(Revision),
    RolledBack(No),
}

/// A branch that holds locks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Prepared {
    pub prepare: Prepare,
    pub age: Age,
    pub locks: LockSet,
    pub body: Bytes,
}

/// A command that waits for locks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Waiter {
    /// The entry that brought it.
    pub entry: Index,
    pub request: RequestId,
    pub command: Command,
    pub locks: LockSet,
    /// Of the lease that it ends, as of when that was last looked at.
    pub lease_keys: Vec<Bytes>,
    pub body: Bytes,
}

/// A change of who holds what, for readers on other threads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Locked(Age, LockSet),
    Released(Age, LockSet),
}

/// See the module.
#[derive(Clone, Default, Debug)]
pub(crate) struct Branches {
    known: BTreeMap<BranchId, Branch>,
    waiting: BTreeMap<Age, Waiter>,
    by_entry: BTreeMap<Index, Age>,
    held: LockTable,
    wanted: LockTable,
    /// Of those that are prepared.
    ages: BTreeSet<Age>,
    live_bytes: usize,
    changes: Vec<Change>,
}

impl Branches {
    pub fn load<E: Engine>(store: &Store<E>) -> Result<Branches, ServiceError> {
        records::load(store)
    }

    /// Whether nobody has or wants a lock: the usual case.
    pub fn is_idle(&self) -> bool {
        self.ages.is_empty() && self.waiting.is_empty()
    }

    /// Whether nothing is known of any branch, not even how it ended.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub fn held(&self) -> &LockTable {
        &self.held
    }

    pub fn wanted(&self) -> &LockTable {
        &self.wanted
    }

    pub fn get(&self, id: &BranchId) -> Option<&Branch> {
        self.known.get(id)
    }

    /// All that is known, in order of id.
    pub fn list(&self) -> Vec<BranchInfo> {
        let state = |state: &State| match state {
            State::Waiting(_) => BranchState::Waiting,
            State::Prepared(prepared) => BranchState::Prepared { priority: prepared.age.priority },
            State::Committed(revision) => BranchState::Committed(*revision),
            State::RolledBack(no) => BranchState::RolledBack(*no),
        };
        let info = |(id, branch): (&BranchId, &Branch)| BranchInfo {
            id: id.clone(),
            epoch: branch.epoch,
            state: state(&branch.state),
        };
        self.known.iter().map(info).collect()
    }

    /// The branches that hold locks.
    pub fn prepared(&self) -> Vec<BranchId> {
        let prepared = |(_, branch): &(_, &Branch)| matches!(branch.state, State::Prepared(_));
        self.known.iter().filter(prepared).map(|(id, _)| id.clone()).collect()
    }

    pub fn waiter(&self, age: &Age) -> Option<&Waiter> {
        self.waiting.get(age)
    }

    /// The age of who came with that entry and waits.
    pub fn age_of(&self, entry: Index) -> Option<&Age> {
        self.by_entry.get(&entry)
    }

    /// The entries that brought those who wait, from `from` on.
    pub fn waiting_from(&self, from: Index) -> impl Iterator<Item = Index> {
        self.by_entry.range(from..).map(|(entry, _)| *entry)
    }

    /// Whether the transaction has another branch here that may hold locks or has.
    pub fn has_sibling(&self, id: &BranchId) -> bool {
        let first = BranchId { number: 0, ..id.clone() };
        let siblings = self.known.range(first..);
        siblings
            .take_while(|(other, _)| other.transaction == id.transaction)
            .any(|(other, branch)| other != id && !matches!(branch.state, State::RolledBack(_)))
    }

    /// Whether one more live command of so many bytes may come.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.ages.len() + self.waiting.len() < MAX_LIVE && self.live_bytes + bytes <= MAX_LIVE_BYTES
    }

    /// Whether one more outcome may have to be remembered: every branch becomes one.
    pub fn has_room_for_outcome(&self) -> bool {
        self.known.len() < MAX_OUTCOMES
    }

    /// An age that is younger than everybody here.
    pub fn youngest_age(&self, entry: Index) -> Age {
        let (held, wanted) = (self.ages.last(), self.waiting.last_key_value());
        let priority = held.max(wanted.map(|(age, _)| age)).map_or(0, |age| age.priority);
        Age { priority, tie: Tie::Entry(entry) }
    }

    /// Whether someone waits to end this lease.
    pub fn lease_ends(&self, lease: LeaseId) -> bool {
        self.wanted.meets(&LockSet { keys: Vec::new(), leases: vec![(lease, false)] })
    }

    /// Those who wait for a lock that conflicts with these.
    pub fn waiting_for(&self, locks: &LockSet, into: &mut BTreeSet<Age>) {
        if self.waiting.is_empty() {
            return;
        }
        let _ = self.wanted.conflicts(locks, &mut |age| {
            into.insert(age.clone());
            ControlFlow::Continue(())
        });
    }

    pub fn set<E: Engine>(&mut self, txn: &mut WriteTxn<'_, E>, id: &BranchId, branch: Branch) {
        records::write_branch(txn, id, &branch);
        self.restore(own(id), branch);
    }

    pub fn forget<E: Engine>(&mut self, txn: &mut WriteTxn<'_, E>, id: &BranchId) {
        records::delete_branch(txn, id);
        self.known.remove(id);
    }

    /// The locks of a prepared branch are free, and it has this outcome.
    pub fn end<E: Engine>(
        &mut self,
        txn: &mut WriteTxn<'_, E>,
        id: &BranchId,
        outcome: Branch,
    ) -> Option<LockSet> {
        let ended = self.known.remove(id);
        self.set(txn, id, outcome);
        let Some(Branch { state: State::Prepared(prepared), .. }) = ended else { return None };
        let Prepared { age, locks, body, .. } = *prepared;
        self.held.remove(&age, &locks);
        self.ages.remove(&age);
        self.live_bytes -= body.len();
        self.changes.push(Change::Released(age, locks.clone()));
        Some(locks)
    }

    pub(super) fn restore(&mut self, id: BranchId, branch: Branch) {
        if let State::Prepared(prepared) = &branch.state
            && self.ages.insert(prepared.age.clone())
        {
            self.held.insert(&prepared.age, &prepared.locks);
            self.live_bytes += prepared.body.len();
            self.changes.push(Change::Locked(prepared.age.clone(), prepared.locks.clone()));
        }
        self.known.insert(id, branch);
    }

    pub fn wait<E: Engine>(&mut self, txn: &mut WriteTxn<'_, E>, age: Age, waiter: Waiter) {
        records::write_waiter(txn, &age, &waiter);
        self.restore_waiter(age, waiter);
    }

    pub(super) fn restore_waiter(&mut self, age: Age, waiter: Waiter) {
        if let Command::Branch(BranchCommand::Prepare(prepare)) = &waiter.command {
            let branch = Branch { epoch: prepare.epoch, state: State::Waiting(age.clone()) };
            self.known.insert(own(&prepare.id), branch);
        }
        self.wanted.insert(&age, &waiter.locks);
        self.live_bytes += waiter.body.len();
        self.by_entry.insert(waiter.entry, age.clone());
        self.waiting.insert(age, waiter);
    }

    /// It waits no more. A branch of it is known no more until it is set.
    pub fn take_waiter<E: Engine>(
        &mut self,
        txn: &mut WriteTxn<'_, E>,
        age: &Age,
    ) -> Option<Waiter> {
        let waiter = self.waiting.remove(age)?;
        records::delete_waiter(txn, waiter.entry);
        self.by_entry.remove(&waiter.entry);
        self.wanted.remove(age, &waiter.locks);
        self.live_bytes -= waiter.body.len();
        if let Command::Branch(BranchCommand::Prepare(prepare)) = &waiter.command {
            self.known.remove(&prepare.id);
        }
        Some(waiter)
    }

    /// What readers have to be shown since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }
}

/// A copy: the id shares the memory of a whole entry, and outcomes live long.
fn own(id: &BranchId) -> BranchId {
    BranchId { transaction: Bytes::copy_from_slice(&id.transaction), number: id.number }
}
