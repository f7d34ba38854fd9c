//! Carries out commands: the keyspace as a function of its state and an entry.
//!
//! Invariant: a command that is refused has changed nothing, and a command makes at most one
//! revision, a branch one for each of its transactions; none where no key changes and no name is
//! taken.

use crate::branch::{Done, No, Prepare};
use crate::canary::{Bug, Canary};
use crate::command::{Alarm, Command, Delete, MemberChange, Operation, Put, Txn};
use crate::leases::Lease;
use crate::lessor::{Lessor, MAX_TTL_SECONDS};
use crate::reply::{DeleteOutcome, KeyspaceError, Outcome, PutOutcome};
use crate::state::{self, State, failed};
use crate::txn;
use bytes::Bytes;
use quorate_base::{Ballot, NodeId};
use quorate_mvcc::{Engine, KeyMeta, KeyRange, LeaseId, WriteTxn};
use quorate_replicated_log::Membership;
use quorate_service::ServiceError;

/// Why a command ended early.
pub(crate) enum Stop {
    /// The caller's doing: everyone refuses it alike.
    Refused(KeyspaceError),
    /// This replica cannot go on.
    Failed(ServiceError),
}

impl From<KeyspaceError> for Stop {
    fn from(e: KeyspaceError) -> Stop {
        Stop::Refused(e)
    }
}

impl From<quorate_mvcc::Error> for Stop {
    fn from(e: quorate_mvcc::Error) -> Stop {
        use quorate_mvcc::Error;
        match e {
            Error::Compacted { .. } => Stop::Refused(KeyspaceError::Compacted),
            Error::Future { .. } => Stop::Refused(KeyspaceError::FutureRevision),
            Error::KeyTooLong { .. } => Stop::Refused(KeyspaceError::Unsupported),
            other => Stop::Failed(failed(other)),
        }
    }
}

/// A key that moved from a lease (or none) to another (or none).
struct Moved {
    key: Bytes,
    from: LeaseId,
    to: LeaseId,
}

/// One command being carried out.
pub(crate) struct Execution<'a, 's, E: Engine> {
    pub txn: &'a mut WriteTxn<'s, E>,
    pub state: &'a mut State,
    pub lessor: &'a mut Lessor,
    /// Who leads, as the log says.
    pub ballot: Ballot,
    /// The members that the log has from the same entry on, if it changes them.
    pub log: Option<&'a Membership>,
    pub canary: Canary,
    /// Leases follow their keys only once the command is sure to succeed.
    moved: Vec<Moved>,
}

impl<'a, 's, E: Engine> Execution<'a, 's, E> {
    pub fn new(
        txn: &'a mut WriteTxn<'s, E>,
        state: &'a mut State,
        lessor: &'a mut Lessor,
        ballot: Ballot,
        log: Option<&'a Membership>,
        canary: Canary,
    ) -> Self {
        Execution { txn, state, lessor, ballot, log, canary, moved: Vec::new() }
    }

    /// Carries out a command; undoes it if it is refused.
    pub fn run(mut self, command: Command) -> Result<Result<Outcome, KeyspaceError>, ServiceError> {
        self.txn.begin_command();
        match self.dispatch(command) {
            Ok(outcome) => {
                self.settle_leases();
                Ok(Ok(outcome))
            }
            Err(Stop::Refused(why)) => {
                self.txn.roll_back_command();
                Ok(Err(why))
            }
            Err(Stop::Failed(why)) => Err(why),
        }
    }

    /// Evaluates a branch and does nothing of it: whether it could be committed, what it reads.
    pub fn vote(
        mut self,
        prepare: &Prepare,
        alarms: bool,
    ) -> Result<Result<Vec<Done>, No>, ServiceError> {
        let allowed = !alarms || self.check_alarms_for(true, true).is_ok();
        let foreseen = txn::foreseen(prepare, self.txn.revision()).filter(|_| allowed);
        if let Some(done) = foreseen {
            if cfg!(debug_assertions) {
                let tried = self.tried(prepare, alarms)?;
                assert_eq!(tried, Ok(done.clone()), "a vote is foreseen wrongly");
            }
            return Ok(Ok(done));
        }
        self.tried(prepare, alarms)
    }

    /// What a branch would do, by doing it for the moment.
    fn tried(
        &mut self,
        prepare: &Prepare,
        alarms: bool,
    ) -> Result<Result<Vec<Done>, No>, ServiceError> {
        self.txn.begin_command();
        let done = self.branch(prepare, alarms);
        self.txn.roll_back_command();
        done
    }

    /// Does what a branch says. Once it is prepared no alarm keeps it from being committed.
    pub fn do_branch(
        mut self,
        prepare: &Prepare,
        alarms: bool,
    ) -> Result<Result<Vec<Done>, No>, ServiceError> {
        self.txn.begin_command();
        let done = self.branch(prepare, alarms);
        match &done {
            Ok(Ok(_)) => self.settle_leases(),
            Ok(Err(_)) => self.txn.roll_back_command(),
            Err(_) => {}
        }
        done
    }

    fn branch(
        &mut self,
        prepare: &Prepare,
        alarms: bool,
    ) -> Result<Result<Vec<Done>, No>, ServiceError> {
        let allowed = match alarms {
            true => {
                let adds = prepare.txns.iter().any(puts);
                self.check_alarms_for(true, adds).map_err(Stop::from)
            }
            false => Ok(()),
        };
        match allowed.and_then(|()| self.transact_branch(prepare)) {
            Ok(done) => Ok(done),
            Err(Stop::Refused(why)) => Ok(Err(No::Refused(why))),
            Err(Stop::Failed(why)) => Err(why),
        }
    }

    fn dispatch(&mut self, command: Command) -> Result<Outcome, Stop> {
        self.check_alarms(&command)?;
        match command {
            Command::Put(put) => self.put(put).map(Outcome::Put),
            Command::Delete(delete) => self.top_delete(delete).map(Outcome::Delete),
            Command::Txn(txn) => self.transact(&txn).map(Outcome::Txn),
            Command::Compact { revision } => {
                self.txn.compact(revision)?;
                self.internal_revision()?;
                Ok(Outcome::Compacted)
            }
            Command::LeaseGrant { id, ttl_seconds } => self.grant(id, ttl_seconds),
            Command::LeaseRevoke { id } => self.revoke(id),
            Command::LeaseExpire { id, ballot }
                if ballot == self.ballot || self.canary.sings(Bug::ObeyDeposedLeader) =>
            {
                self.revoke(id)
            }
            Command::LeaseExpire { .. } => Err(KeyspaceError::LeaseNotFound.into()),
            Command::LeaseCheckpoint { ballot, number, remaining } => {
                self.checkpoint(ballot, number, &remaining);
                Ok(Outcome::LeaseCheckpointed)
            }
            Command::Alarm { raise, member, alarm } => {
                self.alarm(raise, member, alarm);
                Ok(Outcome::Alarms(self.state.board.alarms.iter().copied().collect()))
            }
            Command::Member(change) => {
                self.change_members(change)?;
                Ok(Outcome::Members(self.state.board.members.list()))
            }
            Command::Barrier { .. } => Ok(Outcome::Barrier),
            // They are carried out by the batch itself.
            Command::Branch(_) | Command::Unqueue { .. } => Err(KeyspaceError::Unsupported.into()),
            Command::FoundDirectory { voters } => {
                if self.state.board.directory.is_none() && !voters.is_empty() {
                    self.state.board.directory = Some(voters);
                    self.state.write_directory(self.txn);
                    self.state.publish_board();
                }
                Ok(Outcome::Members(self.state.board.members.list()))
            }
        }
    }

    /// Without space nothing may be added; with disagreeing data nothing may be changed.
    fn check_alarms(&self, command: &Command) -> Result<(), KeyspaceError> {
        if self.state.board.alarms.is_empty() {
            return Ok(());
        }
        let data = !matches!(
            command,
            Command::Alarm { .. }
                | Command::Member(_)
                | Command::LeaseCheckpoint { .. }
                | Command::Barrier { .. }
                | Command::FoundDirectory { .. }
        );
        let adds = match command {
            Command::Put(_) | Command::LeaseGrant { .. } => true,
            Command::Txn(txn) => puts(txn),
            _ => false,
        };
        self.check_alarms_for(data, adds)
    }

    fn check_alarms_for(&self, data: bool, adds: bool) -> Result<(), KeyspaceError> {
        if data && self.state.raised(Alarm::Corrupt) {
            return Err(KeyspaceError::Corrupt);
        }
        if adds && self.state.raised(Alarm::NoSpace) {
            return Err(KeyspaceError::NoSpace);
        }
        Ok(())
    }

    pub(crate) fn put(&mut self, put: Put) -> Result<PutOutcome, Stop> {
        self.check_lease(put.lease)?;
        let (mut value, mut lease) = (put.value, put.lease);
        if put.ignore_value || put.ignore_lease {
            let now = self.txn.get(&put.key)?.ok_or(KeyspaceError::KeyNotFound)?;
            if put.ignore_value {
                value = self.txn.value(&now)?;
            }
            if put.ignore_lease {
                lease = now.lease;
            }
        }
        let previous = self.txn.put(put.key.clone(), value, lease)?.previous;
        self.move_key(&put.key, previous.map_or(0, |p| p.lease), lease);
        let previous = match previous.filter(|_| put.prev_kv) {
            Some(previous) => Some(self.txn.key_value(put.key, &previous)?),
            None => None,
        };
        Ok(PutOutcome { previous })
    }

    pub(crate) fn check_lease(&self, lease: LeaseId) -> Result<(), KeyspaceError> {
        if lease == 0 || self.state.shared.leases(|leases| leases.get(lease).is_some()) {
            Ok(())
        } else {
            Err(KeyspaceError::LeaseNotFound)
        }
    }

    fn top_delete(&mut self, delete: Delete) -> Result<DeleteOutcome, Stop> {
        let outcome = self.delete(delete)?;
        if outcome.deleted == 0 && self.canary.sings(Bug::EmptyDeleteConsumesRevision) {
            self.waste_revision()?;
        }
        Ok(outcome)
    }

    pub(crate) fn delete(&mut self, delete: Delete) -> Result<DeleteOutcome, Stop> {
        let gone = self.remove(&delete.range)?;
        let mut previous = Vec::new();
        if delete.prev_kv {
            previous.reserve_exact(gone.len());
            for (key, meta) in &gone {
                previous.push(self.txn.key_value(key.clone(), meta)?);
            }
        }
        Ok(DeleteOutcome { deleted: gone.len() as u64, previous })
    }

    fn remove(&mut self, range: &KeyRange) -> Result<Vec<(Bytes, KeyMeta)>, Stop> {
        let gone = self.txn.delete(range)?;
        for (key, meta) in &gone {
            self.move_key(key, meta.lease, 0);
        }
        Ok(gone)
    }

    fn move_key(&mut self, key: &Bytes, from: LeaseId, to: LeaseId) {
        if from == to {
            return;
        }
        if from != 0 {
            state::write_attached(self.txn, from, key, false);
        }
        if to != 0 {
            state::write_attached(self.txn, to, key, true);
        }
        // A copy: the key shares the memory of a whole entry, and leases live long.
        self.moved.push(Moved { key: Bytes::copy_from_slice(key), from, to });
    }

    fn settle_leases(&mut self) {
        if self.moved.is_empty() {
            return;
        }
        let moved = std::mem::take(&mut self.moved);
        self.state.shared.change_leases(|leases| {
            for Moved { key, from, to } in moved {
                if let Some(lease) = leases.get_mut(from) {
                    lease.keys.remove(&key);
                }
                if let Some(lease) = leases.get_mut(to) {
                    lease.keys.insert(key);
                }
            }
        });
    }

    fn grant(&mut self, id: LeaseId, ttl_seconds: i64) -> Result<Outcome, Stop> {
        if id == 0 {
            return Err(KeyspaceError::LeaseNotFound.into());
        }
        if ttl_seconds > MAX_TTL_SECONDS {
            return Err(KeyspaceError::LeaseTtlTooLarge.into());
        }
        if self.check_lease(id).is_ok() {
            return Err(KeyspaceError::LeaseExists.into());
        }
        let ttl_seconds = ttl_seconds.max(1);
        let lease = Lease { ttl_seconds, ..Lease::default() };
        state::write_lease(self.txn, id, &lease);
        self.internal_revision()?;
        self.state.shared.change_leases(|leases| leases.insert(id, lease));
        self.lessor.granted(id, ttl_seconds);
        Ok(Outcome::LeaseGranted { id, ttl_seconds })
    }

    fn revoke(&mut self, id: LeaseId) -> Result<Outcome, Stop> {
        let keys = self.state.shared.leases(|leases| Some(leases.get(id)?.keys.clone()));
        let mut keys = keys.ok_or(KeyspaceError::LeaseNotFound)?;
        if self.canary.sings(Bug::RevokeLeavesKey)
            && let Some(left) = keys.pop_last()
        {
            state::write_attached(self.txn, id, &left, false);
        }
        // In order of key, so that sub-revisions are the same everywhere.
        for key in keys {
            self.remove(&KeyRange::One(key))?;
        }
        state::delete_lease(self.txn, id);
        self.settle_leases();
        self.state.shared.change_leases(|leases| leases.remove(id));
        self.lessor.revoked(id);
        Ok(Outcome::LeaseRevoked)
    }

    fn checkpoint(&mut self, ballot: Ballot, number: u64, remaining: &[(LeaseId, i64)]) {
        let fence = (ballot, number);
        if ballot != self.ballot || fence <= self.state.fence {
            return;
        }
        self.state.fence = fence;
        self.state.write_fence(self.txn);
        self.state.shared.change_leases(|leases| {
            for (id, seconds) in remaining {
                if let Some(lease) = leases.get_mut(*id) {
                    lease.remaining_seconds = (*seconds).clamp(0, lease.ttl_seconds);
                    state::write_lease(self.txn, *id, lease);
                }
            }
        });
        self.lessor.checkpointed(number, remaining);
    }

    fn alarm(&mut self, raise: bool, member: NodeId, alarm: Alarm) {
        let alarms = &mut self.state.board.alarms;
        let changed = match raise {
            true => alarms.insert((member, alarm)),
            false => alarms.remove(&(member, alarm)),
        };
        if changed {
            State::write_alarm(self.txn, (member, alarm), raise);
            self.state.publish_board();
        }
    }

    fn change_members(&mut self, change: MemberChange) -> Result<(), Stop> {
        let removed = matches!(change, MemberChange::Remove(_));
        let id = self.state.board.members.apply(change, self.log)?;
        self.state.write_member(self.txn, id);
        if removed {
            for alarm in [Alarm::NoSpace, Alarm::Corrupt] {
                self.alarm(false, id, alarm);
            }
        }
        self.state.publish_board();
        self.internal_revision()
    }

    fn internal_revision(&mut self) -> Result<(), Stop> {
        match self.canary.sings(Bug::InternalEntryConsumesRevision) {
            true => self.waste_revision(),
            false => Ok(()),
        }
    }

    /// What the canaries do wrong: a revision that nobody asked for.
    fn waste_revision(&mut self) -> Result<(), Stop> {
        let key = Bytes::from_static(b"\0canary");
        self.txn.put(key.clone(), Bytes::new(), 0)?;
        self.txn.delete(&KeyRange::One(key))?;
        Ok(())
    }
}

/// Whether a transaction may put anything, whatever its compares say.
fn puts(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match operation {
        Operation::Put(_) | Operation::Claim(_) => true,
        Operation::Txn(inner) => puts(inner),
        Operation::Range(_) | Operation::Delete(_) | Operation::Release(_) => false,
    })
}
