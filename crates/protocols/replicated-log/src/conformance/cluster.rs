//! Replicas, a network and a clock, all in one place and all determined by a seed.

use super::counts::Counts;
use super::disk::Disk;
use crate::{
    Base, Config, Effects, Entry, Epoch, Event, Input, Limits, Membership, Message, Payload,
    ProposalId, Protocol, ReadId, ReplicatedLog, Role, Send, Write, WriteId,
};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use quorate_base::{Ballot, Index, Instant, NodeId, Rng};

/// Makes a replica of the engine under test.
pub type Factory = fn(Config, Instant, crate::Recovered) -> Box<dyn ReplicatedLog>;

enum Parcel {
    Message(Message),
    Snapshot { base: Base, session: u64 },
    SnapshotSent { index: Option<Index> },
    Written(u64, WriteId),
}

struct Node {
    log: Option<Box<dyn ReplicatedLog>>,
    run: u64,
    disk: Disk,
    applied: Base,
    /// Where that was at the last start.
    started_at: Index,
    /// What it was before the end of the epoch was applied. With that in its state a driver goes
    /// on to the next epoch; here it is never persisted, nor sent.
    before_seal: Option<Base>,
    /// Not yet durable.
    writing: VecDeque<Write>,
    done: WriteId,
    gated: Vec<Send>,
    next_due: Option<Instant>,
    /// How much faster than time its clock runs, and what it was at the beginning of time.
    drift_ppm: u32,
    offset: Duration,
}

impl Node {
    /// What its clock shows.
    fn clock(&self, now: Instant) -> Instant {
        let ahead = u128::from(now.0) * u128::from(self.drift_ppm) / 1_000_000;
        now + self.offset + Duration::from_nanos(u64::try_from(ahead).unwrap_or(u64::MAX))
    }

    /// The earliest time at which its clock shows `due`.
    fn time_of(&self, due: Instant) -> Instant {
        let shown = due.since(Instant::ZERO).saturating_sub(self.offset).as_nanos();
        let time = (shown * 1_000_000).div_ceil(1_000_000 + u128::from(self.drift_ppm));
        let mut time = Instant(u64::try_from(time).unwrap_or(u64::MAX));
        while self.clock(time) < due {
            time = time + Duration::from_nanos(1);
        }
        time
    }
}

/// A cluster under test. Nodes are numbered from 1.
pub struct Cluster {
    factory: Factory,
    /// Sets the replicas' own draws apart from those of other clusters.
    draws: u64,
    /// Leases are on, with this bound declared.
    lease_clock_drift_ppm: Option<u32>,
    /// Virtual time.
    pub now: Instant,
    /// The source of all chance.
    pub rng: Rng,
    /// Messages lost, in parts per million.
    pub loss_ppm: u32,
    /// Every message takes from one to this many times a millisecond.
    pub delay_max: u64,
    /// Pairs between which nothing arrives, in that direction.
    pub cut: BTreeSet<(u64, u64)>,
    /// Nodes whose disks finish nothing.
    pub stalled: BTreeSet<u64>,
    /// What replicas said that nobody can go on without.
    pub unreadable: BTreeSet<(Index, Index)>,
    /// What was counted.
    pub counts: Counts,
    nodes: Vec<Node>,
    parcels: BTreeMap<(Instant, u64), (NodeId, NodeId, Parcel)>,
    parcel: u64,
    chosen: BTreeMap<Index, Entry>,
    /// The ballots that chosen entries name.
    named: BTreeMap<Index, Ballot>,
    /// Where the epoch ends, and since when that has been chosen.
    sealed: Option<(Index, Instant)>,
    leaders: BTreeMap<u64, NodeId>,
    reads: BTreeMap<(NodeId, u64), (Index, Instant)>,
    ready: u64,
    next_id: u64,
}

/// The election timeout of every replica.
pub(super) const ELECTION_TIMEOUT: Duration = Duration::from_millis(100);

impl Cluster {
    /// `nodes` replicas, of which the first `voters` vote and the rest wait to be added.
    pub fn new(factory: Factory, seed: u64, nodes: u64, voters: u64) -> Self {
        Self::build(factory, seed, nodes, voters, None, 0).started(0)
    }

    /// `nodes` voters, whose election timeouts are drawn otherwise for each `draws`; zero draws
    /// them as in all other clusters.
    pub fn drawing(factory: Factory, draws: u64, nodes: u64) -> Self {
        Self::build(factory, 1, nodes, nodes, None, 0).started(draws)
    }

    /// The same with leases, a declared bound on the drift of clocks, and clocks that drift by up
    /// to another one.
    pub fn with_leases(
        factory: Factory,
        seed: u64,
        (nodes, voters): (u64, u64),
        declared_ppm: u32,
        real_ppm: u32,
    ) -> Self {
        Self::build(factory, seed, nodes, voters, Some(declared_ppm), real_ppm).started(0)
    }

    fn build(
        factory: Factory,
        seed: u64,
        nodes: u64,
        voters: u64,
        lease_clock_drift_ppm: Option<u32>,
        real_drift_ppm: u32,
    ) -> Self {
        let mut clocks = Rng::new(seed ^ 0xc10c);
        let membership = Membership::of((1..=voters).map(NodeId));
        let founding = Base { membership, ..Base::default() };
        let mut node = |id: u64| {
            let base = if id <= voters { founding.clone() } else { Base::default() };
            let drifts = real_drift_ppm > 0;
            Node {
                // Either extreme shows more than what lies between.
                drift_ppm: if clocks.below(2) == 0 { 0 } else { real_drift_ppm },
                offset: if drifts {
                    Duration::from_millis(clocks.below(500))
                } else {
                    Duration::ZERO
                },
                log: None,
                run: 0,
                disk: Disk::new(base.clone()),
                applied: base,
                started_at: 0,
                before_seal: None,
                writing: VecDeque::new(),
                done: WriteId(0),
                gated: Vec::new(),
                next_due: None,
            }
        };
        Cluster {
            factory,
            draws: 0,
            lease_clock_drift_ppm,
            now: Instant::ZERO,
            rng: Rng::new(seed),
            loss_ppm: 0,
            delay_max: 1,
            cut: BTreeSet::new(),
            stalled: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            counts: Counts::default(),
            nodes: (1..=nodes).map(&mut node).collect(),
            parcels: BTreeMap::new(),
            parcel: 0,
            chosen: BTreeMap::new(),
            named: BTreeMap::new(),
            sealed: None,
            leaders: BTreeMap::new(),
            reads: BTreeMap::new(),
            ready: 0,
            next_id: 0,
        }
    }

    fn started(mut self, draws: u64) -> Self {
        self.draws = draws;
        for id in 1..=self.len() {
            self.start(id);
        }
        self
    }

    fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    /// How many nodes there are.
    pub fn len(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The replica of a node that runs.
    pub fn replica(&self, id: u64) -> Option<&dyn ReplicatedLog> {
        self.nodes[id as usize - 1].log.as_deref()
    }

    /// Highest index known to be committed anywhere.
    pub fn chosen_up_to(&self) -> Index {
        self.chosen.keys().next_back().copied().unwrap_or(0)
    }

    /// Highest index known to be committed that holds a command.
    pub fn commands_up_to(&self) -> Index {
        let mut newest_first = self.chosen.iter().rev();
        let command = newest_first.find(|(_, e)| matches!(e.payload, Payload::Command(_)));
        command.map_or(0, |(index, _)| *index)
    }

    /// Where the epoch ends, if that is committed anywhere.
    pub fn sealed(&self) -> Option<Index> {
        self.sealed.map(|(index, _)| index)
    }

    /// All faults end, and whoever is stopped starts.
    pub fn end_faults(&mut self) {
        self.cut.clear();
        self.loss_ppm = 0;
        self.delay_max = 1;
        for id in 1..=self.len() {
            self.start(id);
        }
    }

    /// How many reads became ready.
    pub fn reads_ready(&self) -> u64 {
        self.ready
    }

    /// The node that leads with the highest ballot.
    pub fn leader(&self) -> Option<u64> {
        let leads = |id: &u64| self.replica(*id).is_some_and(|r| r.role() == Role::Leader);
        (1..=self.len()).filter(leads).max_by_key(|&id| self.replica(id).map(|r| r.status().ballot))
    }

    /// Starts a node that does not run.
    pub fn start(&mut self, id: u64) {
        let (now, factory) = (self.now, self.factory);
        let (draws, lease_clock_drift_ppm) = (self.draws, self.lease_clock_drift_ppm);
        let node = self.node(id);
        if node.log.is_some() {
            return;
        }
        let now = node.clock(now);
        node.run += 1;
        if let Some(before) = node.before_seal.take() {
            node.applied = before;
        }
        let config = Config {
            node: NodeId(id),
            epoch: Epoch(0),
            opens: false,
            heartbeat: Duration::from_millis(20),
            election_timeout: ELECTION_TIMEOUT,
            patience: ELECTION_TIMEOUT,
            lease_clock_drift_ppm,
            seed: (draws << 32) ^ (id * 1_000 + node.run),
            limits: Limits { inflight_messages: 8, append_bytes: 400, ..Limits::default() },
        };
        node.started_at = node.applied.position.index;
        node.log = Some(factory(config, now, node.disk.recover(&node.applied)));
        node.done = WriteId(0);
        self.step(id, Input::Tick);
    }

    /// Stops a node: what was not written is lost.
    pub fn crash(&mut self, id: u64) {
        let node = self.node(id);
        node.log = None;
        node.writing.clear();
        node.gated.clear();
        node.next_due = None;
        self.reads.retain(|(reader, _), _| *reader != NodeId(id));
    }

    /// Makes one entry on a stopped node's disk unreadable. Returns false if any node's disk is
    /// damaged already: then the last good copy might be lost.
    pub fn damage(&mut self, id: u64, at: usize) -> bool {
        if self.nodes.iter().any(|node| node.disk.is_damaged()) {
            return false;
        }
        if let Some(index) = self.node(id).disk.nth(at) {
            self.node(id).disk.damage(index, true);
        }
        true
    }

    /// Makes this entry on a stopped node's disk unreadable, but for its ballot.
    pub(super) fn damage_at(&mut self, id: u64, index: Index) {
        self.node(id).disk.damage(index, false);
    }

    /// The same with its ballot.
    pub(super) fn damage_wholly_at(&mut self, id: u64, index: Index) {
        self.node(id).disk.damage(index, true);
    }

    /// A stopped node's service loses all that it applied since the log's base.
    pub(super) fn forget_applied(&mut self, id: u64) {
        let base = self.node(id).disk.base();
        self.node(id).applied = base;
    }

    /// A stopped node's service loses its durable state: what is left is its log, if anything.
    pub(super) fn lose_state(&mut self, id: u64) {
        let Base { epoch, protocol, .. } = self.node(id).disk.base();
        self.node(id).applied = Base { epoch, protocol, ..Base::default() };
    }

    /// Makes an entry on a stopped node's disk unreadable, but for its ballot, if fewer nodes'
    /// disks are damaged at its index than `voters` can spare: every disk may have its own damage.
    pub fn damage_helix(&mut self, id: u64, at: usize, voters: u64) -> bool {
        let Some(index) = self.node(id).disk.nth(at) else { return false };
        let damaged = |node: &&Node| node.disk.is_damaged_at(index);
        let already = self.nodes.iter().filter(damaged).count() as u64;
        let spared = already < (voters - 1) / 2 && !self.node(id).disk.is_damaged_at(index);
        if spared {
            self.node(id).disk.damage(index, false);
        }
        spared
    }

    /// Proposes `commands` commands at a node.
    pub fn propose(&mut self, id: u64, commands: usize) {
        self.next_id += 1;
        let command = Bytes::copy_from_slice(&self.next_id.to_le_bytes());
        let commands = vec![command; commands];
        self.step(id, Input::Propose { id: ProposalId(self.next_id), commands });
    }

    /// Reads at a node.
    pub fn read(&mut self, id: u64) {
        self.next_id += 1;
        let read = self.next_id;
        if self.replica(id).is_some() {
            self.reads.insert((NodeId(id), read), (self.chosen_up_to(), self.now));
            self.step(id, Input::Read { id: ReadId(read) });
        }
    }

    /// Gives a running node an input and carries out what follows; tells what it said of it.
    pub fn step(&mut self, id: u64, input: Input) -> Vec<Event> {
        let mut out = Effects::default();
        let node = &mut self.nodes[id as usize - 1];
        let now = node.clock(self.now);
        let Some(log) = node.log.as_mut() else { return Vec::new() };
        log.step(now, input, &mut out);
        if let Some(index) = out.committed.last().and_then(|run| run.last_index()) {
            // The service applies at once.
            for entry in out.committed.iter().flat_map(|run| run.iter()) {
                assert_eq!(entry.index, node.applied.position.index + 1, "in order, no gap");
                node.applied.position = entry.position();
                let before = self.chosen.entry(entry.index).or_insert_with(|| entry.clone());
                assert_eq!(before.payload, entry.payload, "node {id} committed another entry");
                let same = before.ballot == entry.ballot || log.protocol() == Protocol::Paxos;
                assert!(same, "node {id} committed {entry:?}, not {before:?}");
                if let Some(ballot) = entry.payload.named_ballot() {
                    self.named.insert(entry.index, ballot);
                    let before = self.named.range(..entry.index).next_back();
                    let after = self.named.range(entry.index + 1..).next();
                    let rises = before.is_none_or(|(_, before)| *before <= ballot)
                        && after.is_none_or(|(_, after)| ballot <= *after);
                    assert!(rises, "leaders' ballots fall: {before:?}, {entry:?}, {after:?}");
                }
                let open = self.sealed.is_none_or(|(end, _)| entry.index <= end);
                assert!(open, "node {id} committed {entry:?} after the end of the epoch");
                if entry.payload.is_seal() && self.sealed.is_none() {
                    self.sealed = Some((entry.index, self.now));
                }
            }
            if self.sealed.is_some_and(|(end, _)| end == index) {
                log.step(now, Input::Applied { index: index - 1 }, &mut out);
                node.before_seal = Some(log.applied_base());
            }
            log.step(now, Input::Applied { index }, &mut out);
            node.applied = log.applied_base();
        }
        let due = log.next_timeout();
        let status = log.status();
        node.next_due = due.map(|due| node.time_of(due));
        assert!(status.commit <= status.last.index);
        // After a start the state may be ahead of what the log knows to be chosen.
        assert!(status.applied <= status.commit.max(node.started_at));
        assert!(self.sealed.is_none_or(|(end, _)| status.commit <= end), "the epoch has ended");
        if status.role == Role::Leader {
            let leader = self.leaders.entry(status.ballot.round).or_insert(NodeId(id));
            assert_eq!(*leader, NodeId(id), "two leaders of round {}", status.ballot.round);
        }
        self.carry_out(id, out)
    }

    fn carry_out(&mut self, id: u64, out: Effects) -> Vec<Event> {
        let slow = self.delay_max;
        for write in out.writes {
            self.counts.writes += 1;
            let write_id = write.id;
            let run = self.node(id).run;
            self.node(id).writing.push_back(write);
            let takes = Duration::from_micros(500 * self.rng.between(1, slow));
            self.post(takes, NodeId(id), NodeId(id), Parcel::Written(run, write_id));
        }
        for send in out.sends {
            let node = self.node(id);
            if send.after.is_some_and(|after| after > node.done) {
                node.gated.push(send);
            } else {
                self.transmit(id, send);
            }
        }
        for wanted in out.snapshots {
            let node = self.node(id);
            let base = node.before_seal.as_ref().unwrap_or(&node.applied).clone();
            let sent = Parcel::SnapshotSent { index: Some(base.position.index) };
            let snapshot = Parcel::Snapshot { base, session: wanted.session };
            self.post(Duration::from_millis(5), NodeId(id), wanted.to, snapshot);
            self.post(Duration::from_millis(10), wanted.to, NodeId(id), sent);
        }
        for ready in out.reads {
            let asked = self.reads.remove(&(NodeId(id), ready.id.0));
            let (floor, at) = asked.unwrap_or_else(|| panic!("{:?} answered twice", ready.id));
            let open = self.sealed.is_none_or(|(_, since)| at <= since);
            assert!(open, "a read at {id} after the end of the epoch");
            assert!(ready.index >= floor, "a stale read at {id}: {} < {floor}", ready.index);
            self.ready += 1;
        }
        for event in &out.events {
            match event {
                Event::ReadFailed { id: read } => {
                    assert!(self.reads.remove(&(NodeId(id), read.0)).is_some(), "{read:?} twice");
                }
                Event::Unreadable { first, last } => {
                    self.unreadable.insert((*first, *last));
                }
                _ => {}
            }
        }
        out.events
    }

    fn transmit(&mut self, from: u64, send: Send) {
        self.counts.note(&send.message.body);
        if self.rng.chance_ppm(self.loss_ppm) {
            return;
        }
        let delay = Duration::from_millis(self.rng.between(1, self.delay_max));
        self.post(delay, NodeId(from), send.to, Parcel::Message(send.message.clone()));
        if self.rng.chance_ppm(self.loss_ppm / 4) {
            let later = delay + Duration::from_millis(self.rng.between(1, 4 * self.delay_max));
            self.post(later, NodeId(from), send.to, Parcel::Message(send.message));
        }
    }

    fn post(&mut self, delay: Duration, from: NodeId, to: NodeId, parcel: Parcel) {
        self.parcel += 1;
        self.parcels.insert((self.now + delay, self.parcel), (from, to, parcel));
    }

    /// Lets time pass up to `until`.
    pub fn run_until(&mut self, until: Instant) {
        loop {
            let parcel = self.parcels.keys().next().map(|(at, _)| *at);
            let due = self.nodes.iter().filter_map(|n| n.next_due).min();
            let Some(next) = parcel.into_iter().chain(due).min().filter(|&at| at <= until) else {
                break;
            };
            self.now = self.now.max(next);
            if parcel.is_some_and(|at| at <= self.now) {
                if let Some((_, (from, to, parcel))) = self.parcels.pop_first() {
                    self.deliver(from, to, parcel);
                }
                continue;
            }
            let now = self.now;
            let timers = |node: &Node| node.next_due.is_some_and(|at| at <= now);
            let ids: Vec<u64> =
                (1..=self.len()).filter(|&id| timers(&self.nodes[id as usize - 1])).collect();
            for id in ids {
                self.step(id, Input::Tick);
                let due = self.nodes[id as usize - 1].next_due;
                assert!(due.is_none_or(|at| at > now), "a tick leaves nothing due");
            }
        }
        self.now = self.now.max(until);
    }

    /// Lets this much time pass.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, parcel: Parcel) {
        let is_cut = from != to && self.cut.contains(&(from.0, to.0));
        match parcel {
            // The driver always tells how sending a snapshot ended.
            Parcel::SnapshotSent { .. } if is_cut => {
                self.step(to.0, Input::SnapshotSent { to: from, index: None });
            }
            _ if is_cut => {}
            Parcel::Message(message) => {
                self.step(to.0, Input::Message { from, message });
            }
            Parcel::SnapshotSent { index } => {
                self.step(to.0, Input::SnapshotSent { to: from, index });
            }
            Parcel::Snapshot { base, session } => {
                let node = self.node(to.0);
                let Some(log) = &node.log else { return };
                if base.position.index > node.applied.position.index {
                    node.applied = base;
                } else if base.position.index <= log.commit() {
                    return;
                }
                // As much as it says, the state may be further than the log knew.
                let base = node.applied.clone();
                self.step(to.0, Input::SnapshotInstalled { base, from, session });
            }
            Parcel::Written(run, id) => self.written(to.0, run, id),
        }
    }

    fn written(&mut self, id: u64, run: u64, write: WriteId) {
        if self.stalled.contains(&id) {
            return;
        }
        let node = self.node(id);
        if node.run != run || node.log.is_none() || node.done >= write {
            return;
        }
        // Durable means: this one and every earlier one.
        while node.writing.front().is_some_and(|front| front.id <= write) {
            node.writing.drain(..1).for_each(|front| node.disk.apply(&front));
        }
        node.done = write;
        let open = |send: &Send| send.after.is_none_or(|after| after <= write);
        let (free, gated) = core::mem::take(&mut node.gated).into_iter().partition(open);
        node.gated = gated;
        let free: Vec<Send> = free;
        for send in free {
            self.transmit(id, send);
        }
        self.step(id, Input::Written { id: write });
    }
}
