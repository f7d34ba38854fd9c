//! A few coordinators, a store of records, and participants; everything between them is a message
//! that may be late, come twice, or never be answered.

use crate::participant::{Mood, Participant, State};
use crate::store::Store;
use quorate_atomic_commit::Protocol;
use quorate_base::{GroupId, Instant, NodeId, Rng};
use quorate_transactions::{
    BranchRecord, BranchState, Carried, Coordinator, Effect, Input, Kind, Moment, Owner, Record,
    Settings, Stage, Start, Stored, Verdict, Vote,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const DEADLINE: Duration = Duration::from_millis(200);

/// A command under way to the store or to a participant, with whom to answer.
#[derive(Clone, Debug)]
struct Flight {
    from: Owner,
    id: String,
    /// Whose branches it is about.
    asker: Owner,
    effect: Effect,
}

/// What a branch is called at its participant: two who begin a transaction of one id at the same
/// time have different branches.
fn called(id: &str, asker: Owner) -> String {
    format!("{id} of {}.{}", asker.node.0, asker.run)
}

pub struct World {
    /// What coordinators are set to.
    pub settings: Settings,
    pub rng: Rng,
    now: Instant,
    runs: u64,
    /// The coordinators that live, by node: their run, and what they drive.
    nodes: Vec<(Owner, BTreeMap<String, Coordinator>)>,
    pub store: Store,
    pub participants: Vec<Participant>,
    flights: Vec<Flight>,
    /// Which participants each transaction has.
    groups: BTreeMap<String, Vec<u64>>,
    /// What each transaction's client was told: whether it commits.
    pub told: BTreeMap<String, bool>,
    /// Transactions of which some participant did not vote yes: whether all who did not refused
    /// for good. Where one did not there may be another attempt, in which all vote anew.
    pub refused: BTreeMap<String, bool>,
    /// The chance, in parts per million, of anything but yes.
    pub moody: u32,
    /// Whether bundles have a branch in a database,
    databases: bool,
    /// and those that have been asked for.
    outside: BTreeSet<(String, u16)>,
    /// Bundles that could not be because one of those they carry was begun elsewhere.
    pub disbanded: u32,
    /// Bundles whose first record says that they are committed.
    pub staked: u32,
    pub deposed: u32,
    pub taken_over: u32,
    /// Transactions that were begun where there was a record of their id already.
    pub second: u32,
    /// Transactions that were committed by whoever found all votes to be yes.
    pub found: u32,
    /// Transactions that a bundle committed, and that one let go.
    pub carried: u32,
    pub let_go: u32,
}

impl World {
    pub fn new(seed: u64, nodes: u64, participants: usize) -> World {
        let owner = |node| Owner { node: NodeId(node), run: node };
        World {
            settings: Settings::default(),
            rng: Rng::new(seed),
            now: Instant::ZERO,
            runs: nodes,
            nodes: (1..=nodes).map(|node| (owner(node), BTreeMap::new())).collect(),
            store: Store::default(),
            participants: (0..participants).map(|_| Participant::default()).collect(),
            flights: Vec::new(),
            groups: BTreeMap::new(),
            told: BTreeMap::new(),
            refused: BTreeMap::new(),
            moody: 100_000,
            databases: seed.is_multiple_of(2),
            outside: BTreeSet::new(),
            disbanded: 0,
            staked: 0,
            deposed: 0,
            taken_over: 0,
            second: 0,
            found: 0,
            carried: 0,
            let_go: 0,
        }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now, wall_ms: self.now.0 / 1_000_000 }
    }

    /// A client's request at one node, for these participants. Whoever drives it already is not
    /// asked again.
    pub fn begin(&mut self, node: usize, id: &str, protocol: Protocol, participants: &[u64]) {
        self.begin_with(node, id, protocol, participants, &[]);
    }

    /// A bundle of these clients' transactions.
    pub fn bundle(&mut self, node: usize, id: &str, participants: &[u64], carried: &[String]) {
        // In every other world the last of its participants is a database.
        let protocol = match self.databases {
            true => Protocol::TwoPhase,
            false => Protocol::PaxosCommit,
        };
        self.begin_with(node, id, protocol, participants, carried);
    }

    fn begin_with(
        &mut self,
        node: usize,
        id: &str,
        protocol: Protocol,
        participants: &[u64],
        carried: &[String],
    ) {
        if self.nodes[node].1.contains_key(id) {
            return;
        }
        self.groups.entry(id.to_owned()).or_insert_with(|| participants.to_vec());
        let branch = |group: &u64| {
            BranchRecord::keyspace(&format!("b{group}"), &format!("p{group}"), GroupId(*group))
        };
        let owner = self.nodes[node].0;
        let mut branches: Vec<BranchRecord> = self.groups[id].iter().map(branch).collect();
        if let Some(last) = branches.last_mut().filter(|_| self.databases && !carried.is_empty()) {
            last.kind = Kind::Postgres;
            let last = u16::try_from(branches.len() - 1).unwrap();
            self.outside.insert((id.to_owned(), last));
        }
        let start = Start {
            content: 1,
            protocol,
            owner,
            patience: DEADLINE,
            branches,
            carried: carried.iter().map(|id| Carried { id: id.clone(), content: 1 }).collect(),
            free_as_of: self.store.free_as_of(carried.iter().chain([&id.to_owned()])),
            first_record: match self.rng.chance_ppm(500_000) {
                true => DEADLINE / 4,
                false => Duration::ZERO,
            },
        };
        let mut out = Vec::new();
        let settings = Settings { retry: Duration::from_millis(50), ..self.settings };
        let it = Coordinator::begin(settings, 1, start, self.moment(), &mut out);
        self.nodes[node].1.insert(id.to_owned(), it);
        self.emit(node, id, out);
    }

    pub fn take_over(&mut self, node: usize, id: &str) {
        let Some((record, at)) = self.store.records.get(id).cloned() else { return };
        let driven = self.nodes[node].1.contains_key(id);
        if driven || matches!(record.stage, Stage::Finished(_)) {
            return;
        }
        self.taken_over += 1;
        let mut out = Vec::new();
        let (settings, owner, moment) = (self.settings, self.nodes[node].0, self.moment());
        let it = Coordinator::take_over(settings, 1, (record, at), owner, moment, &mut out);
        self.nodes[node].1.insert(id.to_owned(), it);
        self.emit(node, id, out);
    }

    /// The node dies, and is back at once with nothing in memory. What it sent is still under way.
    pub fn crash(&mut self, node: usize) {
        self.runs += 1;
        self.nodes[node].0.run = self.runs;
        self.nodes[node].1.clear();
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for node in 0..self.nodes.len() {
            let due: Vec<String> = self.nodes[node]
                .1
                .iter()
                .filter(|(_, it)| it.next_timeout().is_some_and(|due| due <= self.now))
                .map(|(id, _)| id.clone())
                .collect();
            for id in due {
                self.give(node, &id, Input::Tick);
            }
        }
    }

    /// The node hears that participants do not answer, and writes it down.
    pub fn hear(&mut self, node: usize) {
        let all: Vec<String> = self.nodes[node].1.keys().cloned().collect();
        for id in all {
            let what = format!("no answer of kind {}", self.rng.below(3));
            self.give(node, &id, Input::Trouble { branch: 0, what });
            self.give(node, &id, Input::Note);
        }
    }

    fn give(&mut self, node: usize, id: &str, input: Input) {
        let moment = self.moment();
        let Some(it) = self.nodes[node].1.get_mut(id) else { return };
        let mut out = Vec::new();
        it.step(moment, input, &mut out);
        self.emit(node, id, out);
    }

    fn emit(&mut self, node: usize, id: &str, out: Vec<Effect>) {
        let from = self.nodes[node].0;
        let asker = self.nodes[node].1[id].record().asker;
        for effect in out {
            match effect {
                Effect::Decided => {
                    let record = self.nodes[node].1[id].record();
                    let stored = &self.store.records[id].0;
                    assert_eq!(stored.asker, asker, "{id} is decided without a record of its own");
                    let open = stored.stage == Stage::Open;
                    self.found += u32::from(open && record.epoch > record.asked);
                    let commits = record.stage.verdict().unwrap().commits();
                    let carried = record.carried.clone();
                    let outside = !record.is_in_keyspaces();
                    self.tell(id, commits);
                    self.disbanded += u32::from(outside && carried.is_empty());
                    for Carried { id: one, .. } in carried.iter() {
                        if commits {
                            self.tell(one, true);
                            self.carried += 1;
                        } else {
                            // Whoever it was taken along for goes alone.
                            let participants = self.groups[id].clone();
                            self.begin(node, one, Protocol::PaxosCommit, &participants);
                            self.let_go += 1;
                        }
                    }
                }
                Effect::Finished { forget } => {
                    if forget {
                        // What this run sent on its behalf is settled, and so are its copies.
                        self.flights.retain(|flight| flight.from != from || flight.id != id);
                        for participant in &mut self.participants {
                            participant.forget(&called(id, asker));
                        }
                    }
                    self.nodes[node].1.remove(id);
                }
                Effect::Deposed => {
                    self.deposed += 1;
                    self.nodes[node].1.remove(id);
                }
                effect => self.flights.push(Flight { from, id: id.to_owned(), asker, effect }),
            }
        }
    }

    fn tell(&mut self, id: &str, commits: bool) {
        let told = self.told.entry(id.to_owned()).or_insert(commits);
        assert_eq!(*told, commits, "AC1: clients of {id} are told different ends");
    }

    /// Something that is under way arrives; perhaps a copy of it stays under way.
    pub fn arrive(&mut self) -> bool {
        if self.flights.is_empty() {
            return false;
        }
        let n = self.rng.below(self.flights.len() as u64);
        let n = usize::try_from(n).unwrap();
        let flight = match self.rng.chance_ppm(200_000) {
            true => self.flights[n].clone(),
            false => self.flights.swap_remove(n),
        };
        let Flight { from, id, asker, effect } = flight;
        let mut input = self.execute(&id, asker, &effect);
        if matches!(effect, Effect::Store(_)) && self.rng.chance_ppm(100_000) {
            // It is done, and the answer is lost.
            input = None;
        }
        let node = self.nodes.iter().position(|(owner, _)| *owner == from);
        match (input, node) {
            (Some(input), Some(node)) => self.give(node, &id, input),
            // It must be asked again, as long as a branch of an earlier attempt is prepared.
            (None, Some(_)) => self.flights.push(Flight { from, id, asker, effect }),
            // Whoever asked is gone.
            (_, None) => {}
        }
        true
    }

    fn execute(&mut self, id: &str, asker: Owner, effect: &Effect) -> Option<Input> {
        let participant = |world: &Self, branch: u16| {
            usize::try_from(world.groups[id][usize::from(branch)]).unwrap()
        };
        let name = called(id, asker);
        Some(match effect {
            Effect::Store(request) => {
                let stored = self.store.apply(id, request);
                let first = request.at.is_none() && matches!(stored, Stored::Done(_));
                let commits = request.record.stage.verdict().is_some_and(Verdict::commits);
                self.staked += u32::from(first && commits && !request.record.carried.is_empty());
                self.second += u32::from(stored == Stored::Lost && request.at.is_none());
                Input::Stored { number: request.number, stored }
            }
            Effect::Prepare { branch, epoch, alone, priority } => {
                let p = participant(self, *branch);
                let mood = self.mood(*alone, *priority);
                let vote = self.participants[p].prepare(&name, *epoch, *alone, mood)?;
                self.note(id, &vote);
                Input::Voted { branch: *branch, epoch: *epoch, vote }
            }
            Effect::Settle { branch, commit, asked, epoch } => {
                let p = participant(self, *branch);
                let end = match self.outside.contains(&(id.to_owned(), *branch)) {
                    true => self.participants[p].settle_outside(&name, *asked, *commit),
                    false => self.participants[p].settle(&name, *epoch, *commit),
                };
                Input::Settled { branch: *branch, epoch: *epoch, end }
            }
            Effect::Resolve { branch, epoch } => {
                let p = participant(self, *branch);
                let found = self.participants[p].resolve(&name, *epoch);
                Input::Resolved { branch: *branch, epoch: *epoch, found }
            }
            _ => return None,
        })
    }

    /// Who only reads refuses, where the votes are the decision. What a late copy is answered is no
    /// vote.
    fn note(&mut self, id: &str, vote: &Vote) {
        if self.told.contains_key(id) {
            return;
        }
        let for_good = match vote {
            Vote::Yes | Vote::Done(_) => return,
            Vote::No { again, .. } => again.is_none(),
            Vote::ReadOnly => false,
        };
        *self.refused.entry(id.to_owned()).or_insert(true) &= for_good;
    }

    fn mood(&mut self, alone: bool, priority: u64) -> Mood {
        if !self.rng.chance_ppm(self.moody) {
            return Mood::Yes;
        }
        match self.rng.below(3) {
            0 => Mood::No,
            1 if !alone => Mood::Conflict(priority + 5),
            _ if !alone => Mood::ReadOnly,
            _ => Mood::No,
        }
    }

    /// What a scan for orphans does: a branch that is prepared though its transaction is over,
    /// somebody else's, or unknown, came late. It is never committed. Where there is no record one
    /// is made first.
    pub fn scan(&mut self) {
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        let whose =
            |name: &str| ids.iter().find(|id| name.starts_with(&format!("{id} of "))).cloned();
        for p in 0..self.participants.len() {
            let prepared: Vec<(String, u32)> = self.participants[p]
                .branches
                .iter()
                .filter(|(_, branch)| branch.state == State::Prepared)
                .map(|(name, branch)| (name.clone(), branch.epoch))
                .collect();
            for (name, epoch) in prepared {
                let id = whose(&name).unwrap();
                let record = self.store.records.get(&id).map(|(record, _)| record.clone());
                let own = record.as_ref().is_some_and(|record| called(&id, record.asker) == name);
                match record.map(|record| record.stage) {
                    // What is carried may be let go; what was carried gets no record any more.
                    None if self.store.carrier(&id) == Some(false) => continue,
                    None if self.store.carrier(&id) == Some(true) => {}
                    None if !self.store.bury(&id) => continue,
                    None => {}
                    Some(Stage::Finished(_)) => {}
                    Some(_) if own => continue,
                    Some(_) => {}
                }
                self.participants[p].settle(&name, epoch, false);
            }
        }
    }

    /// Lets everything arrive. Not for ever: a prepare that finds an earlier attempt prepared is
    /// asked again until time passes.
    fn quieten(&mut self) {
        for _ in 0..1_000 {
            if !self.arrive() {
                return;
            }
        }
    }

    /// Nothing fails any more: every transaction ends.
    pub fn heal(&mut self) {
        for _ in 0..50 {
            self.quieten();
            self.pass(DEADLINE);
            self.quieten();
            let open: Vec<String> = self
                .store
                .records
                .iter()
                .filter(|(_, (record, _))| !matches!(record.stage, Stage::Finished(_)))
                .map(|(id, _)| id.clone())
                .collect();
            if open.is_empty() && self.flights.is_empty() {
                break;
            }
            for id in open {
                let (record, _) = &self.store.records[&id];
                let driven = self
                    .nodes
                    .iter()
                    .any(|(owner, driven)| *owner == record.owner && driven.contains_key(&id));
                if !driven {
                    self.take_over(0, &id);
                }
            }
        }
        self.scan();
    }

    /// Whoever was carried is committed once: by a bundle, or by its own record.
    fn judge_carried(&self) {
        for id in self.store.ids.keys() {
            assert_ne!(self.store.carrier(id), Some(false), "{id} is held by what is void");
        }
        let records = || self.store.records.iter();
        let commits = |record: &Record| record.stage.verdict().is_some_and(Verdict::commits);
        let all = records().flat_map(|(_, (record, _))| record.carried.iter());
        for Carried { id, .. } in all {
            let own = records().filter(|(other, (record, _))| *other == id && commits(record));
            let bundles = records().filter(|(_, (record, _))| {
                commits(record) && record.carried.iter().any(|carried| carried.id == *id)
            });
            let times = own.count() + bundles.count();
            assert!(times <= 1, "{id} is committed {times} times");
            if let Some(told) = self.told.get(id) {
                assert_eq!(*told, times == 1, "{id}: the client was told otherwise");
            }
        }
    }

    /// Lets all arrive that is under way, where nothing fails and no time passes. What copies of
    /// prepares that came late have left is for the scan.
    pub fn calm(&mut self) {
        for _ in 0..100_000 {
            if !self.arrive() {
                return self.scan();
            }
        }
        panic!("it never ends");
    }

    /// Where nothing failed: everybody's client was told the end, which is a commit if all voted
    /// yes (AC4), and none if somebody refused for good.
    pub fn judge_calm(&self) {
        for id in self.groups.keys() {
            let told = self.told.get(id);
            match self.refused.get(id) {
                None => assert_eq!(told, Some(&true), "AC4: {id} has all votes"),
                Some(true) => assert_eq!(told, Some(&false), "{id} was refused"),
                Some(false) => assert!(told.is_some(), "{id}: its client was told nothing"),
            }
        }
    }

    /// What must hold once everything has ended.
    pub fn judge(&self) {
        self.judge_carried();
        for (id, (record, _)) in &self.store.records {
            let Stage::Finished(verdict) = &record.stage else {
                panic!("AC5: {id} has not ended: {record:?}")
            };
            if let Some(told) = self.told.get(id) {
                assert_eq!(*told, verdict.commits(), "{id}: the client was told otherwise");
            }
            let own = called(id, record.asker);
            for group in &self.groups[id] {
                let p = &self.participants[usize::try_from(*group).unwrap()];
                let of_id = |name: &String| name.starts_with(&format!("{id} of "));
                let others = p.applied.keys().filter(|name| of_id(name) && **name != own);
                assert_eq!(others.count(), 0, "somebody else's {id} was applied");
                let held = p
                    .branches
                    .iter()
                    .find(|(name, branch)| of_id(name) && branch.state == State::Prepared);
                assert_eq!(held, None, "{id} is in doubt at {group}");
            }
            for branch in &record.branches {
                let p = &self.participants[usize::try_from(branch.group.0).unwrap()];
                let applied = p.applied.get(&own).copied().unwrap_or(0);
                let wants = verdict.commits() && branch.state != BranchState::ReadOnly;
                assert_eq!(applied, u32::from(wants), "{id} at {}: {record:?}", branch.name);
                let alone = record.is_alone();
                let yes = p.yes.contains(&(own.clone(), record.asked));
                assert!(!verdict.commits() || alone || yes, "AC3: {id} without a yes");
            }
            if let Verdict::Abort { reason, .. } = verdict {
                assert!(!reason.is_empty());
            }
        }
    }
}
