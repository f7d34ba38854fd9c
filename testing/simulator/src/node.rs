//! One node: its disk and engine, which outlive it, and the driver, log and service of its
//! present life; and how that ends. The wiring mirrors `quorate-host`, with events in place of
//! threads.

use crate::clock::Clock;
use crate::counters::Happening;
use crate::disk::SimDisk;
use crate::neighbours::{Neighbour, groups};
use crate::plan::Plan;
use crate::transactions::Transactor;
use crate::world::{Alive, GROUP, Happens, World};
use quorate_base::{GroupId, Index, Instant, Rng};
use quorate_driver::{Done, Driver, Outputs, ServiceHost, Work};
use quorate_keyspace::{EventBatch, Keyspace, Reply, WatchHub};
use quorate_mvcc::MemoryEngine;
use quorate_replicated_log::{Recovered, Role};
use quorate_service::{Persist, Service};
use quorate_wal::{Batch, Wal};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A service's finished work.
pub type Finished = Vec<Done<Reply, EventBatch>>;

/// What outlives a node's lives, and its present life.
pub struct Node {
    pub id: u64,
    pub disk: SimDisk,
    pub engine: MemoryEngine,
    /// The engines of the further groups that it founded.
    pub neighbours: Vec<(GroupId, MemoryEngine)>,
    pub clock: Clock,
    pub drift_ppm: i64,
    pub run: u64,
    /// Grows with every start and every end.
    pub life: u64,
    /// Whether it has been started for good: it restarts after a crash.
    pub member: bool,
    /// It has seen itself among the members.
    pub was_member: bool,
    /// It left the cluster for ever.
    pub removed: bool,
    /// Its engine is about to fail.
    pub engine_failing: bool,
    /// What its service had applied when it last lost power.
    pub applied_before: u64,
    /// Its state cannot be read any more, and is to be set aside.
    pub state_damaged: bool,
    /// Where its log began when its state was set aside, until it has one that reaches so far: what
    /// it was sent since may end before, and the log begin there again.
    pub state_lost_to: Index,
    /// Its log cannot be opened any more: it needs to be replaced.
    pub ruined: bool,
    pub frozen_until: Instant,
    /// When it last was frozen or stalled: its clients must be patient.
    pub hindered_until: Instant,
    pub running: Option<Running>,
}

/// A node's present life.
pub struct Running {
    /// Nothing until the log says that what it recovered is durable.
    pub driver: Option<Driver<Reply>>,
    pub recovered: Option<Recovered>,
    /// The log does not yet remember where it begins.
    pub founding: bool,
    pub wal: Wal<SimDisk>,
    pub host: ServiceHost<Keyspace<MemoryEngine>>,
    pub neighbours: BTreeMap<GroupId, Neighbour>,
    pub transactor: Transactor,
    pub hub: WatchHub,
    pub outputs: Outputs<Reply>,
    /// Batches that the log has no room for at the moment, in order.
    pub waiting: VecDeque<Batch>,
    pub full_until: Instant,
    pub work: VecDeque<Work>,
    pub finished: Finished,
    pub serving: bool,
    pub persist: Option<Persist>,
    pub poll_at: Option<Instant>,
    /// When the driver is polled at the latest, whatever happens.
    pub timer_at: Option<Instant>,
    pub disk_at: Option<Instant>,
    pub role: Role,
}

impl Node {
    /// A node that was never started.
    pub fn new(id: u64, plan: &Plan, rng: &mut Rng) -> Node {
        let drift = i64::from(plan.drift_ppm);
        Node {
            id,
            disk: SimDisk::new(plan.disk.clone(), rng.fork(1_000 + id)),
            engine: MemoryEngine::new(),
            neighbours: match id <= plan.nodes {
                true => groups(plan.neighbours).map(|it| (it, MemoryEngine::new())).collect(),
                false => Vec::new(),
            },
            clock: Clock::new(Instant::ZERO, Instant::ZERO, 0),
            drift_ppm: rng.below(2 * plan.drift_ppm as u64 + 1) as i64 - drift,
            run: 0,
            life: 0,
            member: false,
            was_member: false,
            removed: false,
            engine_failing: false,
            applied_before: 0,
            state_damaged: false,
            state_lost_to: 0,
            ruined: false,
            frozen_until: Instant::ZERO,
            hindered_until: Instant::ZERO,
            running: None,
        }
    }

    /// Its present life, to be named in events.
    pub fn alive(&self) -> Alive {
        Alive { node: self.id, life: self.life }
    }

    /// Whether it serves.
    pub fn is_up(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.driver.is_some())
    }
}

impl World<'_> {
    /// A node loses power: it comes back later.
    pub fn crash(&mut self, id: u64) {
        let node = self.node(id);
        if node.running.is_none() {
            return;
        }
        let mut switching = false;
        if let Some(running) = node.running.take() {
            let epoch = running.driver.as_ref().and_then(|driver| driver.epoch(GROUP));
            let state = running.host.service().base().epoch;
            switching = epoch.is_some_and(|(epoch, _)| epoch < state);
            node.applied_before = running.host.service().base().position.index;
        }
        self.lose_cache(id);
        self.count(Happening::Crash);
        if switching {
            self.count(Happening::CrashInSwitch);
        }
        if self.record.joint {
            self.count(Happening::CrashInJoint);
        }
        self.line(id, format_args!("loses power"));
        self.ended(id);
    }

    /// What was not durable is gone, or not, also of a process that ended before.
    pub fn lose_cache(&mut self, id: u64) {
        self.node(id).disk.crash();
        // An engine may have written more than it promised.
        let keeps = match self.rng.below(4) {
            0 => self.rng.below(8),
            1 => u64::MAX,
            _ => 0,
        };
        let node = self.node(id);
        node.engine.crash(if node.engine_failing { 0 } else { keeps });
        for at in 0..self.nodes[id as usize - 1].neighbours.len() {
            let keeps = if self.rng.below(2) == 0 { 0 } else { self.rng.below(8) };
            self.nodes[id as usize - 1].neighbours[at].1.crash(keeps);
        }
        self.node(id).engine_failing = false;
    }

    /// A node's process ends; the power stays on.
    pub fn stop(&mut self, id: u64) {
        let node = self.node(id);
        if node.running.take().is_none() {
            return;
        }
        node.disk.kill();
        if node.engine_failing {
            node.engine.crash(0);
            node.engine_failing = false;
        }
        self.line(id, format_args!("stops"));
        self.ended(id);
    }

    pub fn ended(&mut self, id: u64) {
        let node = self.node(id);
        node.life += 1;
        let comes_back = node.member && !node.removed;
        self.cut_off(id);
        for peer in 1..=self.plan.ids {
            // A dead machine resets nothing; a dead process does.
            if peer != id && self.rng.below(2) == 0 {
                let at = self.soon(Duration::from_millis(3));
                self.queue.push(at, peer as u32, Happens::PeerLost { to: peer, peer: id });
            }
        }
        if comes_back {
            // Half of the time it is back before anybody has missed it.
            let quick = self.healing || self.rng.below(2) == 0;
            let at = self.soon(Duration::from_millis(if quick { 60 } else { 2_500 }));
            self.queue.push(at, id as u32, Happens::Boot(id));
        }
    }
}
