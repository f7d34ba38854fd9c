//! The life of a branch: prepare, commit, rollback, forget.
//!
//! Every command finds what is known of the branch and answers by it; a command that is asked again
//! gets the first one's answer, and one of an earlier attempt is refused.

use super::table::{Branch, Prepared, State, Waiter};
use super::{
    Age, BranchCommand, BranchError, BranchId, BranchOutcome, Done, LockSet, MAX_TRANSACTION_BYTES,
    MAX_TXNS, No, Part, Prepare,
};
use crate::batch::{Answers, Batch};
use crate::canary::Bug;
use crate::command::{Command, Operation, Txn};
use crate::reply::Outcome;
use ::bytes::Bytes;
use quorate_base::RequestId;
use quorate_mvcc::Engine;
use quorate_service::ServiceError;

/// How it goes on after a look at what is known.
enum Step {
    /// With this answer.
    Answer(BranchOutcome),
    /// Nothing stands in the way of preparing it.
    Begin,
    /// It waits already; whoever asked first is told so.
    Ask(Age),
}

fn refused(error: BranchError) -> BranchOutcome {
    BranchOutcome::Refused(error)
}

impl<E: Engine> Batch<'_, '_, E> {
    /// Does what a coordinator asks.
    pub fn branch(
        &mut self,
        request: RequestId,
        command: BranchCommand,
        body: Bytes,
        applied: &mut Answers,
    ) -> Result<(), ServiceError> {
        let BranchCommand::Together(parts) = command else {
            let mut released = None;
            let outcome = self.one(Some(request), command, body, &mut released, applied)?;
            if let Some(outcome) = outcome {
                self.answer(request, Ok(Outcome::Branch(outcome)), applied);
            }
            return self.let_go(released, applied);
        };
        let mut outcomes = Vec::with_capacity(parts.len());
        for Part { command, body } in parts {
            let mut released = None;
            let outcome = self.one(None, command, body, &mut released, applied)?;
            outcomes.push(outcome.unwrap_or(BranchOutcome::Waiting));
            self.let_go(released, applied)?;
        }
        let outcome = BranchOutcome::Together(outcomes);
        self.answer(request, Ok(Outcome::Branch(outcome)), applied);
        Ok(())
    }

    fn let_go(
        &mut self,
        released: Option<LockSet>,
        applied: &mut Answers,
    ) -> Result<(), ServiceError> {
        match released {
            Some(released) => self.wake(&released, applied),
            None => Ok(()),
        }
    }

    /// One command. Nothing comes of it yet if it waits, as it may only for a request of its own.
    fn one(
        &mut self,
        request: Option<RequestId>,
        command: BranchCommand,
        body: Bytes,
        released: &mut Option<LockSet>,
        applied: &mut Answers,
    ) -> Result<Option<BranchOutcome>, ServiceError> {
        Ok(Some(match command {
            BranchCommand::Prepare(prepare) => {
                return self.prepare(request, prepare, body, applied);
            }
            BranchCommand::Commit { id, epoch } => self.commit(&id, epoch, released)?,
            BranchCommand::Rollback { id, epoch } => {
                self.rollback(&id, epoch, released, applied)?
            }
            BranchCommand::Forget { id, epoch } => self.forget(&id, epoch),
            BranchCommand::Resolve { id, epoch } => self.resolve(&id, epoch, released, applied)?,
            // None is within another: the codec and `Part` see to it.
            BranchCommand::Together(_) => refused(BranchError::Twice),
        }))
    }

    /// Nothing comes of it yet if it waits.
    fn prepare(
        &mut self,
        request: Option<RequestId>,
        prepare: Prepare,
        body: Bytes,
        applied: &mut Answers,
    ) -> Result<Option<BranchOutcome>, ServiceError> {
        match self.look(&prepare, body.len())? {
            Step::Answer(outcome) => return Ok(Some(outcome)),
            Step::Ask(age) => {
                let Some(request) = request else { return Ok(None) };
                self.ask_again(&age, request, applied);
                return Ok(None);
            }
            Step::Begin => {}
        }
        if let Some(Branch { state: State::Waiting(age), .. }) =
            self.state.branches.get(&prepare.id)
        {
            // An earlier attempt promised nothing yet.
            let age = age.clone();
            self.send_away(&age, No::Told, applied)?;
        }
        let mut locks = LockSet::of_branch(&prepare);
        if self.canary.sings(Bug::ComparesNotLocked) {
            locks = locks.exclusive_only();
        }
        let entry = self.state.base.position.index;
        let branches = &self.state.branches;
        let age = match prepare.one_phase {
            true => branches.youngest_age(entry),
            false => Age::of_branch(prepare.priority, &prepare.id),
        };
        let holder = branches.held().youngest(&locks);
        if let Some(younger) = holder.as_ref().filter(|holder| **holder > age)
            && !self.canary.sings(Bug::OlderWaits)
        {
            let no = No::Conflict { priority: younger.priority };
            return Ok(Some(self.remember_no(&prepare, no)));
        }
        if holder.is_some() || branches.wanted().meets_older(&locks, &age) {
            let Some(request) = request else { return Ok(None) };
            let command = Command::Branch(BranchCommand::Prepare(prepare));
            let lease_keys = Vec::new();
            let waiter = Waiter { entry, request, command, locks, lease_keys, body };
            self.state.branches.wait(self.txn, age, waiter);
            return Ok(None);
        }
        self.vote(prepare, age, locks, body).map(Some)
    }

    /// What is known says how it goes on.
    fn look(&mut self, prepare: &Prepare, bytes: usize) -> Result<Step, ServiceError> {
        let Prepare { id, epoch, .. } = prepare;
        let answer = |error| Ok(Step::Answer(refused(error)));
        if id.transaction.is_empty() || id.transaction.len() > MAX_TRANSACTION_BYTES {
            return answer(BranchError::BadId);
        }
        if prepare.txns.is_empty() || prepare.txns.len() > MAX_TXNS {
            return answer(BranchError::BadCount);
        }
        if prepare.txns.iter().any(reads_old) {
            return answer(BranchError::OldRevision);
        }
        let branches = &self.state.branches;
        let Some(branch) = branches.get(id) else {
            if branches.has_sibling(id) {
                return answer(BranchError::Twice);
            }
            return match branches.has_room(bytes) && branches.has_room_for_outcome() {
                true => Ok(Step::Begin),
                false => answer(BranchError::TooMany),
            };
        };
        if branch.epoch > *epoch && !self.canary.sings(Bug::OldEpochAccepted) {
            return answer(BranchError::OldEpoch { current: branch.epoch });
        }
        let current = branch.epoch;
        match &branch.state {
            State::Committed(revision) => {
                let revision = *revision;
                Ok(Step::Answer(BranchOutcome::Committed { revision, done: None }))
            }
            State::RolledBack(no) if current == *epoch => {
                Ok(Step::Answer(BranchOutcome::RolledBack(*no)))
            }
            State::RolledBack(_) if branches.has_sibling(id) => answer(BranchError::Twice),
            State::RolledBack(_) if !branches.has_room(bytes) => answer(BranchError::TooMany),
            State::RolledBack(_) => Ok(Step::Begin),
            State::Prepared(prepared) if same(&prepared.prepare, prepare) => {
                self.vote_again(prepare.clone(), current)
            }
            State::Prepared(_) if current == *epoch => answer(BranchError::OtherContent),
            State::Prepared(_) => answer(BranchError::StillPrepared { epoch: current }),
            State::Waiting(_) if current < *epoch => Ok(Step::Begin),
            State::Waiting(age) => match branches.waiter(age).map(|waiter| &waiter.command) {
                Some(Command::Branch(BranchCommand::Prepare(first))) if same(first, prepare) => {
                    Ok(Step::Ask(age.clone()))
                }
                _ => answer(BranchError::OtherContent),
            },
        }
    }

    /// The same vote as before: nothing that it depends on can have changed.
    fn vote_again(&mut self, prepare: Prepare, current: u64) -> Result<Step, ServiceError> {
        if prepare.epoch > current
            && let Some(branch) = self.state.branches.get(&prepare.id).cloned()
        {
            let branch = Branch { epoch: prepare.epoch, ..branch };
            self.state.branches.set(self.txn, &prepare.id, branch);
        }
        match self.execution(None).vote(&prepare, false)? {
            Ok(done) => Ok(Step::Answer(BranchOutcome::Prepared(done))),
            Err(no) => Err(broken(&prepare.id, no)),
        }
    }

    fn ask_again(&mut self, age: &Age, request: RequestId, applied: &mut Answers) {
        let Some(mut waiter) = self.state.branches.take_waiter(self.txn, age) else { return };
        let first = std::mem::replace(&mut waiter.request, request);
        self.state.branches.wait(self.txn, age.clone(), waiter);
        self.answer(first, Ok(Outcome::Branch(BranchOutcome::Waiting)), applied);
    }

    fn remember_no(&mut self, prepare: &Prepare, no: No) -> BranchOutcome {
        let branch = Branch { epoch: prepare.epoch, state: State::RolledBack(no) };
        self.state.branches.set(self.txn, &prepare.id, branch);
        BranchOutcome::RolledBack(no)
    }

    /// Nobody is in the way: evaluates a branch, and locks what it touches or, if the keyspace is
    /// the only participant, commits it.
    pub(super) fn vote(
        &mut self,
        prepare: Prepare,
        age: Age,
        locks: LockSet,
        body: Bytes,
    ) -> Result<BranchOutcome, ServiceError> {
        if prepare.one_phase {
            return match self.execution(None).do_branch(&prepare, true)? {
                Ok(done) => {
                    let revision = self.txn.revision();
                    let branch = Branch { epoch: prepare.epoch, state: State::Committed(revision) };
                    self.state.branches.set(self.txn, &prepare.id, branch);
                    Ok(BranchOutcome::Committed { revision, done: Some(done) })
                }
                Err(no) => Ok(self.remember_no(&prepare, no)),
            };
        }
        match self.execution(None).vote(&prepare, true)? {
            Ok(done) => {
                let (id, epoch) = (prepare.id.clone(), prepare.epoch);
                let locks = match self.canary.sings(Bug::LocksReleasedAtPrepare) {
                    true => LockSet::default(),
                    false => locks,
                };
                let prepared = Box::new(Prepared { prepare, age, locks, body });
                let branch = Branch { epoch, state: State::Prepared(prepared) };
                self.state.branches.set(self.txn, &id, branch);
                Ok(BranchOutcome::Prepared(done))
            }
            Err(no) => Ok(self.remember_no(&prepare, no)),
        }
    }

    fn commit(
        &mut self,
        id: &BranchId,
        epoch: u64,
        released: &mut Option<LockSet>,
    ) -> Result<BranchOutcome, ServiceError> {
        let Some(branch) = self.state.branches.get(id) else {
            return Ok(refused(BranchError::Unknown));
        };
        if branch.epoch > epoch && !self.canary.sings(Bug::OldEpochAccepted) {
            return Ok(refused(BranchError::OldEpoch { current: branch.epoch }));
        }
        let prepare = match &branch.state {
            State::Waiting(_) => return Ok(refused(BranchError::NotPrepared)),
            State::RolledBack(_) => return Ok(refused(BranchError::RolledBack)),
            State::Committed(revision) => {
                let revision = *revision;
                return Ok(BranchOutcome::Committed { revision, done: None });
            }
            State::Prepared(prepared) => prepared.prepare.clone(),
        };
        let done = match self.canary.sings(Bug::CommitAtTwoRevisions) {
            true => self.do_in_two(prepare)?,
            false => self.execution(None).do_branch(&prepare, false)?,
        };
        let done = done.map_err(|no| broken(id, no))?;
        let revision = self.txn.revision();
        let branch = Branch { epoch, state: State::Committed(revision) };
        *released = self.state.branches.end(self.txn, id, branch);
        Ok(BranchOutcome::Committed { revision, done: Some(done) })
    }

    /// What a canary does wrong.
    fn do_in_two(&mut self, prepare: Prepare) -> Result<Result<Vec<Done>, No>, ServiceError> {
        let operations = prepare.txns.iter().flat_map(|txn| txn.success.clone());
        let one = |operation| Txn { success: vec![operation], ..Txn::default() };
        let part = Prepare { txns: operations.map(one).collect(), ..prepare };
        self.execution(None).do_branch(&part, false)
    }

    fn rollback(
        &mut self,
        id: &BranchId,
        epoch: u64,
        released: &mut Option<LockSet>,
        applied: &mut Answers,
    ) -> Result<BranchOutcome, ServiceError> {
        if id.transaction.is_empty() || id.transaction.len() > MAX_TRANSACTION_BYTES {
            return Ok(refused(BranchError::BadId));
        }
        let branches = &self.state.branches;
        let mut why = No::Told;
        match branches.get(id) {
            None if self.canary.sings(Bug::TombstoneSkipped) => {
                return Ok(BranchOutcome::RolledBack(No::Told));
            }
            None if !branches.has_room_for_outcome() => {
                return Ok(refused(BranchError::TooMany));
            }
            None => {}
            Some(branch) if branch.epoch > epoch && !self.canary.sings(Bug::OldEpochAccepted) => {
                return Ok(refused(BranchError::OldEpoch { current: branch.epoch }));
            }
            Some(Branch { state: State::Committed(revision), .. }) => {
                return Ok(refused(BranchError::Committed { revision: *revision }));
            }
            Some(Branch { state: State::RolledBack(no), .. }) => why = *no,
            Some(Branch { state: State::Waiting(age), .. }) => {
                let age = age.clone();
                self.send_away(&age, No::Told, applied)?;
            }
            Some(Branch { state: State::Prepared(_), .. }) => {}
        }
        let branch = Branch { epoch, state: State::RolledBack(why) };
        *released = self.state.branches.end(self.txn, id, branch);
        Ok(BranchOutcome::RolledBack(why))
    }

    /// Whoever asks later than the branch was prepared learns what it voted, and closes the vote: a
    /// branch that is not prepared by now never is in an earlier attempt.
    fn resolve(
        &mut self,
        id: &BranchId,
        epoch: u64,
        released: &mut Option<LockSet>,
        applied: &mut Answers,
    ) -> Result<BranchOutcome, ServiceError> {
        match self.state.branches.get(id) {
            Some(Branch { state: State::Committed(revision), .. }) => {
                Ok(BranchOutcome::Committed { revision: *revision, done: None })
            }
            Some(branch @ Branch { state: State::Prepared(_), .. }) if branch.epoch <= epoch => {
                let branch = Branch { epoch, ..branch.clone() };
                self.state.branches.set(self.txn, id, branch);
                Ok(BranchOutcome::Prepared(Vec::new()))
            }
            _ => self.rollback(id, epoch, released, applied),
        }
    }

    fn forget(&mut self, id: &BranchId, epoch: u64) -> BranchOutcome {
        match self.state.branches.get(id) {
            None => BranchOutcome::Forgotten,
            Some(branch) if branch.epoch > epoch => {
                refused(BranchError::OldEpoch { current: branch.epoch })
            }
            Some(Branch { state: State::Waiting(_) | State::Prepared(_), .. }) => {
                refused(BranchError::Undecided)
            }
            Some(_) => {
                self.state.branches.forget(self.txn, id);
                BranchOutcome::Forgotten
            }
        }
    }
}

/// What a branch was prepared on has changed under its locks: a bug of ours, and no replica may
/// go on as if nothing had been promised.
fn broken(id: &BranchId, no: No) -> ServiceError {
    ServiceError::Command(format!("the prepared branch {id} can no longer be committed: {no}"))
}

/// Whether both ask for the same, in whatever attempt.
fn same(first: &Prepare, second: &Prepare) -> bool {
    let content = |p: &Prepare| (p.priority, p.or_else, p.one_phase);
    content(first) == content(second) && first.txns == second.txns
}

fn reads_old(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match operation {
        Operation::Range(range) => range.revision != 0,
        Operation::Txn(inner) => reads_old(inner),
        Operation::Put(_) | Operation::Delete(_) | Operation::Claim(_) | Operation::Release(_) => {
            false
        }
    })
}
