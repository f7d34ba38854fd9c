//! Transactions on their way at a node: the coordinator is told what happens, and what it says is
//! done.

use super::errand::Errand;
use super::verdict::Told;
use super::{RECORDS, Transactor};
use crate::counters::Happening;
use crate::node::Running;
use crate::world::{Happens, World};
use quorate_atomic_commit::Protocol;
use quorate_base::{GroupId, NodeId};
use quorate_keyspace::branch::Done;
use quorate_keyspace::command::Txn;
use quorate_replicated_log::Role;
use quorate_transactions::branches::branch_id;
use quorate_transactions::records::{self, Kept, OPEN, look_for};
use quorate_transactions::{
    BranchRecord, Coordinator, Effect, Input, Moment, Owner, Record, Settings, Sight, Start,
    content_hash,
};
use std::sync::Arc;
use std::time::Duration;

/// How long a transaction may stay undecided.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Open records that are looked at.
const MOST: u64 = 10_000;

/// One transaction on its way.
pub(super) struct Drive {
    pub id: String,
    pub coordinator: Coordinator,
    /// What its branches do; nobody knows it who took it over.
    pub work: Option<Vec<Txn>>,
    /// What they answered.
    pub answers: Vec<Option<Done>>,
    /// What is asked on its behalf and not answered yet.
    pub under_way: u32,
    /// Whether the keyspaces may forget it.
    pub forget: bool,
}

impl Transactor {
    /// What this node drives under this id.
    pub(super) fn live(&self, id: &str) -> Option<(u64, &Drive)> {
        let live = |(_, drive): &(&u64, &Drive)| drive.id == id && !drive.coordinator.is_over();
        self.drives.iter().find(live).map(|(number, drive)| (*number, drive))
    }
}

impl World<'_> {
    pub(super) fn running(&mut self, node: u64) -> Option<&mut Running> {
        self.node(node).running.as_mut().filter(|running| running.driver.is_some())
    }

    fn moment(&mut self, node: u64) -> Moment {
        let now = self.now;
        // Nobody's wall clock is right.
        let wall_ms = now.0 / 1_000_000 + node * 797 % 2_000;
        Moment { now: self.node(node).clock.read(now), wall_ms }
    }

    /// Whose name a node bears in its present life.
    pub(super) fn owner(&mut self, node: u64) -> Owner {
        Owner { node: NodeId(node), run: self.node(node).life }
    }

    fn settings(&self) -> Settings {
        Settings { canary: self.canary.transactions(), ..Settings::default() }
    }

    /// A node begins a transaction.
    pub(super) fn transact(
        &mut self,
        node: u64,
        id: &str,
        protocol: Protocol,
        work: &[(GroupId, Txn)],
    ) {
        let (owner, moment, mut effects) = (self.owner(node), self.moment(node), Vec::new());
        let branch = |group: &GroupId| BranchRecord::keyspace("list", &group.to_string(), *group);
        let start = Start {
            content: content_hash(id.as_bytes()),
            protocol,
            owner,
            patience: PATIENCE,
            branches: work.iter().map(|(group, _)| branch(group)).collect(),
            carried: Arc::default(),
            free_as_of: self.free_as_of(node, id),
            first_record: Duration::ZERO,
        };
        let coordinator = Coordinator::begin(
            self.settings(),
            content_hash(id.as_bytes()),
            start,
            moment,
            &mut effects,
        );
        let work = work.iter().map(|(_, txn)| txn.clone()).collect();
        self.drive(node, id, coordinator, Some(work), effects);
    }

    /// The revision as of which a node sees that an id is free, if it does.
    fn free_as_of(&mut self, node: u64, id: &str) -> u64 {
        let neighbours = self.running(node).map(|running| &running.neighbours);
        let Some(records) = neighbours.and_then(|all| all.get(&RECORDS)) else { return 0 };
        let reader = records.host.service().reader();
        let as_of = reader.revision();
        match look_for(&reader, id) {
            Ok(None) => as_of,
            _ => 0,
        }
    }

    fn drive(
        &mut self,
        node: u64,
        id: &str,
        coordinator: Coordinator,
        work: Option<Vec<Txn>>,
        effects: Vec<Effect>,
    ) {
        let number = self.transactions.next();
        let answers = vec![None; coordinator.record().branches.len()];
        let id = id.to_owned();
        let drive = Drive { id, coordinator, work, answers, under_way: 0, forget: false };
        if let Some(running) = self.running(node) {
            running.transactor.drives.insert(number, drive);
            self.carry_out(node, number, effects);
        }
    }

    pub(super) fn drive_of(&mut self, node: u64, number: u64) -> Option<&mut Drive> {
        self.running(node)?.transactor.drives.get_mut(&number)
    }

    /// Something happened to a transaction.
    pub(super) fn tell(&mut self, node: u64, number: u64, input: Input) {
        let (moment, mut effects) = (self.moment(node), Vec::new());
        if let Some(drive) = self.drive_of(node, number) {
            drive.coordinator.step(moment, input, &mut effects);
            self.carry_out(node, number, effects);
        }
    }

    fn carry_out(&mut self, node: u64, number: u64, effects: Vec<Effect>) {
        for effect in effects {
            let errand = match effect {
                Effect::Store(request) => Errand::Store(request),
                Effect::Prepare { branch, epoch, priority, alone } => {
                    Errand::Prepare { branch, epoch, priority, alone }
                }
                Effect::Resolve { branch, epoch } => Errand::Resolve { branch, epoch },
                Effect::Settle { branch, commit, epoch, .. } => {
                    Errand::Settle { branch, commit, epoch }
                }
                Effect::Decided => {
                    self.decided(node, number);
                    continue;
                }
                Effect::Finished { forget } => {
                    if let Some(drive) = self.drive_of(node, number) {
                        drive.forget = forget;
                    }
                    continue;
                }
                Effect::Deposed => {
                    self.count(Happening::TransactionDeposed);
                    continue;
                }
            };
            let Some(drive) = self.drive_of(node, number) else { return };
            drive.under_way += 1;
            let id = drive.id.clone();
            self.errand(node, Some(number), id, errand);
        }
        self.may_end(node, number);
    }

    /// Everything that was asked on behalf of a transaction is answered before its keyspaces may
    /// forget it: then its copies are void.
    pub(super) fn may_end(&mut self, node: u64, number: u64) {
        let Some(running) = self.running(node) else { return };
        let over = |drive: &Drive| drive.coordinator.is_over() && drive.under_way == 0;
        if !running.transactor.drives.get(&number).is_some_and(over) {
            return;
        }
        let Some(drive) = running.transactor.drives.remove(&number) else { return };
        if drive.forget {
            for (branch, it) in (0u16..).zip(&drive.coordinator.record().branches) {
                let record = drive.coordinator.record();
                let branch = branch_id(&drive.id, record.asker, branch);
                let epoch = record.epoch.into();
                let errand = Errand::Forget { group: it.group, branch, epoch };
                self.errand(node, None, drive.id.clone(), errand);
            }
        }
    }

    fn decided(&mut self, node: u64, number: u64) {
        let Some(drive) = self.drive_of(node, number) else { return };
        let Some(verdict) = drive.coordinator.record().stage.verdict() else { return };
        let (id, commits) = (drive.id.clone(), verdict.commits());
        let answers = drive.work.is_some().then(|| drive.answers.clone());
        let happened = match commits {
            true => Happening::TransactionCommitted,
            false => Happening::TransactionRolledBack,
        };
        self.count(happened);
        self.trace.note(self.now, node, 38, number << 1 | u64::from(commits));
        self.line(node, format_args!("transaction {id} is decided: commit {commits}"));
        let at = self.now;
        self.outcome(node, &id, Told { commits, at, answers });
    }

    /// A node looks after transactions: its own that wait for the time, those that others left, and
    /// branches that nobody sees to.
    pub fn look_around(&mut self, node: u64) {
        let moment = self.moment(node);
        let note = self.transactions.rng.below(40) == 0;
        let Some(running) = self.running(node) else { return };
        let due =
            |drive: &Drive| drive.coordinator.next_timeout().is_some_and(|at| at <= moment.now);
        let drives = running.transactor.drives.iter();
        let due: Vec<(u64, bool)> = drives.map(|(n, drive)| (*n, due(drive))).collect();
        for (number, due) in due {
            if due {
                self.tell(node, number, Input::Tick);
            } else if note {
                self.tell(node, number, Input::Note);
            }
        }
        self.take_over(node, moment);
        self.scan(node, moment.now);
        let alive = self.node(node).alive();
        let rng = &mut self.transactions.rng;
        let at = self.now + rng.duration(Duration::from_millis(30), Duration::from_millis(70));
        self.queue.push(at, node as u32, Happens::LookAround(alive));
    }

    /// Takes over what its owner seems to have left.
    fn take_over(&mut self, node: u64, moment: Moment) {
        let Some(open) = self.open_records(node) else { return };
        let me = NodeId(node);
        for (id, (record, revision)) in &open {
            let owner = record.owner.node.0;
            // Now and then the connection is broken for no reason.
            let whim = self.transactions.rng.below(500) == 0;
            let connected = self.reaches(node, owner) && !whim;
            let leads = self.leads(node, RECORDS);
            let sight = Sight { now: moment.now, me, leads, able: true };
            let Some(running) = self.running(node) else { return };
            let transactor = &mut running.transactor;
            if transactor.live(id).is_some()
                || !transactor.suspicion.look(id, (record, *revision), connected, sight)
            {
                continue;
            }
            self.count(Happening::TransactionTakenOver);
            self.line(node, format_args!("takes transaction {id} over from n{owner}"));
            let (owner, mut effects) = (self.owner(node), Vec::new());
            let coordinator = Coordinator::take_over(
                self.settings(),
                content_hash(id.as_bytes()),
                (record.clone(), *revision),
                owner,
                moment,
                &mut effects,
            );
            self.drive(node, id, coordinator, None, effects);
        }
        if let Some(running) = self.running(node) {
            let is_open = |id: &str| open.iter().any(|(known, _)| known == id);
            running.transactor.suspicion.retain(is_open);
        }
    }

    /// Open records as a node's replica has them.
    pub(super) fn open_records(&mut self, node: u64) -> Option<Vec<(String, Kept)>> {
        let running = self.running(node)?;
        let reader = running.neighbours.get(&RECORDS)?.host.service().reader();
        let listed = records::list(&reader, OPEN, "", MOST).ok()?;
        let decode = |(id, bytes, revision)| Some((id, (Record::decode(bytes).ok()?, revision)));
        listed.into_iter().map(decode).collect()
    }

    fn reaches(&mut self, node: u64, other: u64) -> bool {
        self.node(other).is_up()
            && (node == other
                || self.network.is_open(node, other) && self.network.is_open(other, node))
    }

    pub(super) fn leads(&mut self, node: u64, group: GroupId) -> bool {
        let driver = self.running(node).and_then(|running| running.driver.as_ref());
        let role = driver.and_then(|driver| driver.role(group));
        role.is_some_and(|(role, _)| role == Role::Leader)
    }
}
