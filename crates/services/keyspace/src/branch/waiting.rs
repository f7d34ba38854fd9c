//! Waiting for locks, and going on once they are free.

use super::table::{Branch, State, Waiter};
use super::{Age, BranchCommand, BranchOutcome, LockSet, No};
use crate::batch::{Answers, Batch};
use crate::canary::Bug;
use crate::command::Command;
use crate::reply::{KeyspaceError, Outcome};
use ::bytes::Bytes;
use quorate_base::{Index, RequestId};
use quorate_mvcc::{Engine, LeaseId};
use quorate_service::ServiceError;
use std::collections::BTreeSet;

impl<E: Engine> Batch<'_, '_, E> {
    /// Lets a command wait if it meets a lock, or someone who waits for one; else hands it back.
    pub fn wait_if_locked(
        &mut self,
        request: RequestId,
        command: Command,
        body: Bytes,
        applied: &mut Answers,
    ) -> Option<Command> {
        let lease_keys = self.lease_keys(&command);
        let locks = LockSet::of(&command).with_keys(&lease_keys);
        let branches = &self.state.branches;
        // It comes last, so that whoever waits is older.
        let meets = branches.held().meets(&locks) || branches.wanted().meets(&locks);
        if !meets || self.canary.sings(Bug::WriteIgnoresLocks) {
            return Some(command);
        }
        if let Command::LeaseExpire { id, .. } = command
            && branches.lease_ends(id)
        {
            // The lease clock proposes it again and again; once is enough.
            self.answer(request, Err(KeyspaceError::LeaseNotFound), applied);
        } else if !branches.has_room(body.len()) {
            self.answer(request, Err(KeyspaceError::TooManyWaiting), applied);
        } else {
            let entry = self.state.base.position.index;
            let age = branches.youngest_age(entry);
            let waiter = Waiter { entry, request, command, locks, lease_keys, body };
            self.state.branches.wait(self.txn, age, waiter);
        }
        None
    }

    /// The keys of the lease that a command ends.
    fn lease_keys(&self, command: &Command) -> Vec<Bytes> {
        let of = |id: &LeaseId| {
            let keys = |leases: &crate::leases::Leases| {
                leases.get(*id).map(|lease| lease.keys.iter().cloned().collect())
            };
            self.state.shared.leases(keys).unwrap_or_default()
        };
        match command {
            Command::LeaseRevoke { id } | Command::LeaseExpire { id, .. } => of(id),
            _ => Vec::new(),
        }
    }

    /// Locks were released: whoever waited for them goes on, the oldest first, as far as nobody
    /// older is in the way.
    pub(super) fn wake(
        &mut self,
        released: &LockSet,
        applied: &mut Answers,
    ) -> Result<(), ServiceError> {
        let mut due = BTreeSet::new();
        self.state.branches.waiting_for(released, &mut due);
        while let Some(age) = due.pop_first() {
            if !self.may_go(&age) {
                continue;
            }
            let Some(waiter) = self.state.branches.take_waiter(self.txn, &age) else { continue };
            let locks = waiter.locks.clone();
            if self.go(age, waiter, applied)? {
                self.state.branches.waiting_for(&locks, &mut due);
            }
        }
        Ok(())
    }

    fn may_go(&mut self, age: &Age) -> bool {
        let Some(waiter) = self.state.branches.waiter(age) else { return false };
        let keys = self.lease_keys(&waiter.command);
        if keys != waiter.lease_keys {
            // Keys came to the lease, or left it, while its end waited.
            let Some(mut waiter) = self.state.branches.take_waiter(self.txn, age) else {
                return false;
            };
            waiter.locks = LockSet::of(&waiter.command).with_keys(&keys);
            waiter.lease_keys = keys;
            self.state.branches.wait(self.txn, age.clone(), waiter);
        }
        let branches = &self.state.branches;
        branches.waiter(age).is_some_and(|waiter| {
            !branches.held().meets(&waiter.locks)
                && !branches.wanted().meets_older(&waiter.locks, age)
        })
    }

    /// Carries out what waited. Whether it holds nothing afterwards.
    fn go(
        &mut self,
        age: Age,
        waiter: Waiter,
        applied: &mut Answers,
    ) -> Result<bool, ServiceError> {
        let Waiter { request, command, locks, body, .. } = waiter;
        match command {
            Command::Branch(BranchCommand::Prepare(prepare)) => {
                let outcome = self.vote(prepare, age, locks, body)?;
                let holds = matches!(outcome, BranchOutcome::Prepared(_));
                self.answer(request, Ok(Outcome::Branch(outcome)), applied);
                Ok(!holds)
            }
            command => {
                let result = self.execution(None).run(command)?;
                self.answer(request, result, applied);
                Ok(true)
            }
        }
    }

    /// Sends those away who came with these entries and still wait.
    pub fn unqueue(
        &mut self,
        entries: &[Index],
        applied: &mut Answers,
    ) -> Result<(), ServiceError> {
        for entry in entries {
            if let Some(age) = self.state.branches.age_of(*entry).cloned() {
                self.send_away(&age, No::Waited, applied)?;
            }
        }
        if self.canary.sings(Bug::PreparedDecidesAlone) {
            self.decide_alone(applied)?;
        }
        Ok(())
    }

    /// What a canary does wrong.
    fn decide_alone(&mut self, applied: &mut Answers) -> Result<(), ServiceError> {
        for id in self.state.branches.prepared() {
            let epoch = self.state.branches.get(&id).map_or(0, |branch| branch.epoch);
            let branch = Branch { epoch, state: State::RolledBack(No::Waited) };
            if let Some(locks) = self.state.branches.end(self.txn, &id, branch) {
                self.wake(&locks, applied)?;
            }
        }
        Ok(())
    }

    /// Somebody waits no more, and gets nothing.
    pub(super) fn send_away(
        &mut self,
        age: &Age,
        why: No,
        applied: &mut Answers,
    ) -> Result<(), ServiceError> {
        let Some(waiter) = self.state.branches.take_waiter(self.txn, age) else { return Ok(()) };
        let result = match waiter.command {
            Command::Branch(BranchCommand::Prepare(prepare)) => {
                let branch = Branch { epoch: prepare.epoch, state: State::RolledBack(why) };
                self.state.branches.set(self.txn, &prepare.id, branch);
                Ok(Outcome::Branch(BranchOutcome::RolledBack(why)))
            }
            _ => Err(KeyspaceError::Locked),
        };
        self.answer(waiter.request, result, applied);
        self.wake(&waiter.locks, applied)
    }
}
