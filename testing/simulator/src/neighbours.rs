//! Further groups on the same nodes: they share the driver, the log and its disk with the group
//! that everything else is about.
//!
//! Their members stay the founders, and all that is asked of them is puts of keys that are never
//! written twice. Checked: one leader for each round; the same revision after the same entry on
//! every replica; every acknowledged put there in the end, in the same state on every replica.
//! Invariant: a run without neighbours draws the same random numbers as if there were none.

use crate::counters::Happening;
use crate::world::{Answered, GROUP, Happens, World};
use bytes::Bytes;
use quorate_base::{GroupId, Index, Instant, NodeId};
use quorate_checkers::{Elections, Violation};
use quorate_driver::{Answer, Done, Event, Notice, Request, ServiceHost, Token, Work};
use quorate_keyspace::command::{Command, Put, Range};
use quorate_keyspace::{Keyspace, codec};
use quorate_mvcc::{KeyRange, MemoryEngine};
use quorate_replicated_log::{Recovered, Role};
use quorate_service::Service;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Tokens of requests to neighbours have this bit; clients' have not.
const TOKEN: u64 = 1 << 63;

/// A neighbour's replica in its node's present life.
pub struct Neighbour {
    pub host: ServiceHost<Keyspace<MemoryEngine>>,
    /// Until the log is ready.
    pub recovered: Option<Recovered>,
}

/// What is noted of all neighbours.
#[derive(Default)]
pub struct Neighbourhood {
    elections: BTreeMap<GroupId, Elections>,
    /// The revision after an entry.
    revisions: BTreeMap<(GroupId, Index), u64>,
    asked: u64,
    pending: BTreeMap<u64, (GroupId, Bytes)>,
    acknowledged: BTreeSet<(GroupId, Bytes)>,
}

/// The groups of a run's neighbours.
pub fn groups(neighbours: u64) -> impl Iterator<Item = GroupId> {
    (1..=neighbours).map(|n| GroupId(GROUP.0 + n))
}

/// The group that a notice is about, if it is a neighbour.
pub fn neighbour_of(notice: &Notice) -> Option<GroupId> {
    let group = match notice {
        Notice::RoleChanged { group, .. }
        | Notice::SteppedDown { group, .. }
        | Notice::MembersChanged { group, .. }
        | Notice::EpochOpened { group, .. }
        | Notice::Blocked { group, .. }
        | Notice::Retried { group, .. }
        | Notice::Unreadable { group, .. } => *group,
        Notice::Fatal { .. } => GROUP,
    };
    (group != GROUP).then_some(group)
}

impl World<'_> {
    /// Every node may ask something of every neighbour.
    pub fn bustle(&mut self) {
        if self.plan.neighbours == 0 {
            return;
        }
        for id in 1..=self.plan.nodes {
            for group in groups(self.plan.neighbours) {
                if !self.quiet && self.node(id).is_up() && self.rng.below(3) == 0 {
                    self.ask_neighbour(id, group);
                }
            }
        }
        let at = self.soon(Duration::from_millis(250));
        self.queue.push(at, 4_000, Happens::Bustle);
    }

    fn ask_neighbour(&mut self, id: u64, group: GroupId) {
        let now = self.now;
        let record = &mut self.record.neighbourhood;
        record.asked += 1;
        let number = record.asked;
        let key = Bytes::from(format!("{number:08}"));
        record.pending.insert(number, (group, key.clone()));
        let put = Put { key, value: Bytes::from(format!("of node {id}")), ..Put::default() };
        let Ok(body) = codec::encode(&Command::Put(put)) else { return };
        let deadline = self.node(id).clock.read(now) + Duration::from_secs(3);
        let (token, request) = (Token(TOKEN | number), Request::Propose(body));
        self.step(id, Event::Request { token, group, deadline, request });
    }

    /// Whether this was an answer of a neighbour; then it is noted.
    pub fn neighbour_replied(&mut self, token: Token, answer: &Answered) -> bool {
        if token.0 & TOKEN == 0 {
            return false;
        }
        let known = self.record.neighbourhood.pending.remove(&(token.0 & !TOKEN));
        match (known, answer) {
            (Some(put), Ok(Answer::Applied(_))) => {
                self.record.neighbourhood.acknowledged.insert(put);
                self.count(Happening::NeighbourWritten);
            }
            (Some(_), _) => {}
            (None, _) => {
                let text = format!("a neighbour answered {token:?} twice");
                self.check(Err(Violation::new("answered exactly once", text)));
            }
        }
        true
    }

    /// A neighbour's service does its work, at once.
    pub fn neighbour_works(&mut self, id: u64, group: GroupId, work: Work) {
        let now = self.now;
        let node = self.node(id);
        let local = node.clock.read(now);
        let Some(running) = &mut node.running else { return };
        let Some(neighbour) = running.neighbours.get_mut(&group) else { return };
        let mut finished = Vec::new();
        if let Some(job) = neighbour.host.run(local, work, &mut finished) {
            finished.push(match job() {
                Ok(index) => Done::Persisted { index },
                Err(error) => Done::Failed { reason: error.to_string() },
            });
        }
        let revision = neighbour.host.service().reader().revision();
        for done in finished {
            if let Done::Applied { base, .. } = &done {
                let at = (group, base.position.index);
                let known = *self.record.neighbourhood.revisions.entry(at).or_insert(revision);
                if known != revision {
                    let text =
                        format!("node {id}, group {group}: {known} and {revision} at {at:?}");
                    self.check(Err(Violation::new("neighbours' replicas agree", text)));
                }
            }
            self.step(id, Event::ServiceDone { group, done });
        }
    }

    /// News of a neighbour.
    pub fn neighbour_tells(&mut self, id: u64, group: GroupId, notice: &Notice) {
        match notice {
            Notice::RoleChanged { role: Role::Leader, ballot, epoch, .. } => {
                self.count(Happening::NeighbourLed);
                self.trace.note(self.now, id, 37, ballot.round << 8 | group.0);
                let elections = self.record.neighbourhood.elections.entry(group).or_default();
                let result = elections.leads(NodeId(id), epoch.0, *ballot);
                self.check(result);
            }
            Notice::MembersChanged { .. } => {
                let text = format!("node {id}: the members of group {group} never change");
                self.check(Err(Violation::new("neighbours keep their members", text)));
            }
            _ => {}
        }
    }

    /// The founders that still are.
    pub fn sound_founders(&self) -> Vec<u64> {
        let founders = self.nodes.iter().filter(|node| node.id <= self.plan.nodes);
        founders.filter(|n| n.member && !n.removed && !n.ruined).map(|node| node.id).collect()
    }

    /// Whether most founders are still there to speak of what they wrote. Where damage knows no
    /// other limit than whose it is, those do not count whose data was damaged: who left may have
    /// been what made up for them.
    pub fn neighbours_have_a_quorum(&self) -> bool {
        let spared = |id: &u64| self.atlas.is_helix() || !self.atlas.was_damaged(*id);
        self.sound_founders().into_iter().filter(spared).count() as u64 * 2 > self.plan.nodes
    }

    /// Once everything has healed: every neighbour with a quorum writes, and its replicas agree.
    pub fn neighbours_agree(&mut self, deadline: Instant) {
        for group in groups(self.plan.neighbours) {
            if !self.neighbours_have_a_quorum() || self.violation.is_some() {
                return;
            }
            let before = self.record.neighbourhood.acknowledged.len();
            loop {
                if let Some(id) = self
                    .sound_founders()
                    .into_iter()
                    .find(|id| self.nodes[*id as usize - 1].is_up())
                {
                    self.ask_neighbour(id, group);
                }
                self.run_until(self.now + Duration::from_millis(300));
                let wrote = self.record.neighbourhood.acknowledged.len() > before;
                if self.violation.is_some() || (wrote && self.neighbour_settled(group)) {
                    break;
                }
                if !self.neighbours_have_a_quorum() {
                    return;
                }
                if self.now >= deadline {
                    let text = format!("group {group}: written {wrote}");
                    return self.check(Err(Violation::new("neighbours make progress", text)));
                }
            }
            let verdict = self.neighbour_verdict(group);
            self.check(verdict);
        }
    }

    fn replicas(&self, group: GroupId) -> Vec<(u64, &Keyspace<MemoryEngine>)> {
        let host = |id: &u64| {
            let running = self.nodes[*id as usize - 1].running.as_ref()?;
            Some((*id, running.neighbours.get(&group)?.host.service()))
        };
        self.sound_founders().iter().filter_map(host).collect()
    }

    /// Whether every replica that runs has applied as much as the others.
    pub fn neighbour_settled(&self, group: GroupId) -> bool {
        let ends: BTreeSet<Index> =
            self.replicas(group).iter().map(|(_, it)| it.base().position.index).collect();
        ends.len() == 1
    }

    fn neighbour_verdict(&self, group: GroupId) -> Result<(), Violation> {
        let mut hashes = BTreeSet::new();
        for (id, service) in self.replicas(group) {
            let read = |error| Violation::new("recovery", format!("node {id}: {error}"));
            let reader = service.reader();
            hashes.insert(reader.hash().map_err(read)?.hash);
            let all = Range { keys_only: true, ..Range::of(KeyRange::From(Bytes::new())) };
            let found = reader.range(&all).map_err(read)?;
            let keys: BTreeSet<Bytes> = found.kvs.into_iter().map(|kv| kv.key).collect();
            let acknowledged = &self.record.neighbourhood.acknowledged;
            let mut mine = acknowledged.iter().filter(|(of, _)| *of == group);
            if let Some((_, lost)) = mine.find(|(_, key)| !keys.contains(key)) {
                let text = format!("node {id}, group {group}: {lost:?} is lost");
                return Err(Violation::new("neighbours keep acknowledged writes", text));
            }
        }
        match hashes.len() {
            0 | 1 => Ok(()),
            n => {
                let text = format!("group {group}: {n} different states");
                Err(Violation::new("neighbours' replicas agree", text))
            }
        }
    }
}
