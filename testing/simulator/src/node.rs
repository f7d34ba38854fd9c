//! One node: its disk and engine, which outlive it, and the driver, log and service of its
//! present life. The wiring mirrors `quorate-host`, with events in place of threads.

use crate::clock::Clock;
use crate::counters::Happening;
use crate::disk::SimDisk;
use crate::plan::Plan;
use crate::translate;
use crate::world::{Alive, GROUP, Happens, World};
use quorate_base::{Ballot, Instant, NodeId, Position, Rng};
use quorate_checkers::Violation;
use quorate_driver::{
    Done, Driver, DriverConfig, DriverLimits, Event, Notice, Outputs, ReceiveState, ServiceHost,
    Work,
};
use quorate_keyspace::command::Member;
use quorate_keyspace::{EventBatch, Keyspace, LessorConfig, Reply, WatchHub};
use quorate_mvcc::MemoryEngine;
use quorate_replicated_log::{
    Base, Config, Entries, Epoch, Limits, Membership, Payload, Recovered, Role, StepDown, Write,
    WriteId,
};
use quorate_service::{Persist, Service};
use quorate_wal::{Batch, BatchId, RecoveredGroup, Wal, WalError, WalOptions};
use std::collections::VecDeque;
use std::time::Duration;

/// A service's finished work.
type Finished = Vec<Done<Reply, EventBatch>>;

/// What outlives a node's lives, and its present life.
pub struct Node {
    pub id: u64,
    pub disk: SimDisk,
    pub engine: MemoryEngine,
    pub clock: Clock,
    drift_ppm: i64,
    run: u64,
    /// Grows with every start and every end.
    pub life: u64,
    /// Whether it has been started for good: it restarts after a crash.
    pub member: bool,
    /// It has seen itself among the members.
    was_member: bool,
    /// It left the cluster for ever.
    pub removed: bool,
    /// Its engine is about to fail.
    pub engine_failing: bool,
    /// What its service had applied when it last lost power.
    applied_before: u64,
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
    recovered: Option<Recovered>,
    /// The log does not yet remember where it begins.
    founding: bool,
    wal: Wal<SimDisk>,
    pub host: ServiceHost<Keyspace<MemoryEngine>>,
    pub hub: WatchHub,
    outputs: Outputs<Reply>,
    /// Batches that the log has no room for at the moment, in order.
    waiting: VecDeque<Batch>,
    full_until: Instant,
    work: VecDeque<Work>,
    finished: Finished,
    serving: bool,
    persist: Option<Persist>,
    poll_at: Option<Instant>,
    /// When the driver is polled at the latest, whatever happens.
    timer_at: Option<Instant>,
    disk_at: Option<Instant>,
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
            clock: Clock::new(Instant::ZERO, Instant::ZERO, 0),
            drift_ppm: rng.below(2 * plan.drift_ppm as u64 + 1) as i64 - drift,
            run: 0,
            life: 0,
            member: false,
            was_member: false,
            removed: false,
            engine_failing: false,
            applied_before: 0,
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

fn wal_options(world: &World<'_>) -> WalOptions {
    WalOptions {
        segment_bytes: 128 << 10,
        max_record_bytes: 48 << 10,
        max_block_bytes: 32 << 10,
        reserve_bytes: 16 << 10,
        canary: world.canary.wal(),
        ..WalOptions::small()
    }
}

impl World<'_> {
    /// Where the group begins, as in `quorate-host`: with its founders at index 1, or, for a node
    /// that joins, nowhere yet.
    fn first_base(&self, id: u64) -> Base {
        if id > self.plan.nodes {
            return Base::default();
        }
        let membership = Membership::of((1..=self.plan.nodes).map(NodeId));
        Base { position: Position::new(1, Ballot::ZERO), membership }
    }

    /// Starts a node on what its disk and engine hold.
    pub fn boot(&mut self, id: u64) {
        let (now, first) = (self.now, self.first_base(id));
        let reads = Instant(self.rng.between(1, 1 << 40));
        let options = wal_options(self);
        let keyspace = self.keyspace_config(&first);
        let part_bytes = self.plan.part_bytes;
        let node = self.node(id);
        if node.running.is_some() || node.removed || node.ruined {
            return;
        }
        node.life += 1;
        node.run += 1;
        if node.drift_ppm != 0 {
            self.counters.add(Happening::ClockDrift);
        }
        let node = &mut self.nodes[id as usize - 1];
        node.clock = Clock::new(now, reads, node.drift_ppm);
        node.disk.set_now(now);
        let opened = Wal::open(node.disk.clone(), options);
        let service = Keyspace::open(node.engine.clone(), keyspace);
        let (mut wal, recovery) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.not_opened(id, &error),
        };
        let found = recovery.report.damaged_records + recovery.report.lost_blocks;
        let begun = service.map_err(|error| error.to_string()).and_then(|mut service| {
            let recovered = match recovery.groups.get(&GROUP) {
                // As a host does: what a killed process left in the cache is not yet durable.
                Some(group) => match service.persist()() {
                    Ok(_) => resume(group, service.base()),
                    Err(error) => Err(error.to_string()),
                },
                None => begin(&mut wal, &mut service, &first),
            };
            recovered.map(|recovered| (service, recovered))
        });
        let (service, recovered) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                let text = format!("node {id} cannot start: {error}");
                return self.check(Err(Violation::new("recovery", text)));
            }
        };
        let founding = recovery.groups.is_empty();
        let was_member = recovered.applied.membership.contains(NodeId(id));
        let text = format!(
            "starts: {} at applied {:?}",
            found_text(&recovered),
            recovered.applied.position
        );
        let hub = WatchHub::new(service.reader().revision(), self.canary.keyspace());
        let node = self.node(id);
        if service.base().position.index < node.applied_before {
            self.counters.add(Happening::EngineRolledBack);
        }
        let node = &mut self.nodes[id as usize - 1];
        node.was_member = was_member;
        node.running = Some(Running {
            driver: None,
            recovered: Some(recovered),
            founding,
            wal,
            host: ServiceHost::new(service).with_part_bytes(part_bytes),
            hub,
            outputs: Outputs::default(),
            waiting: VecDeque::new(),
            full_until: Instant::ZERO,
            work: VecDeque::new(),
            finished: Vec::new(),
            serving: false,
            persist: None,
            poll_at: None,
            timer_at: None,
            disk_at: None,
            role: Role::Follower,
        });
        self.line(id, format_args!("{text}"));
        self.trace.note(now, id, 32, found);
        if found > 0 {
            self.count(Happening::DamageFound);
        }
        self.forget_tail(id);
        self.count(Happening::Restart);
        self.disk_event(id);
    }

    fn not_opened(&mut self, id: u64, error: &WalError) {
        self.line(id, format_args!("cannot open its log: {error}"));
        let failing = self.node(id).disk.take_failed();
        if failing {
            // The disk failed right now: the operator tries again.
            self.node(id).disk.kill();
            let at = self.soon(Duration::from_secs(1));
            self.queue.push(at, id as u32, Happens::Boot(id));
        } else if self.atlas.was_damaged(id) {
            self.count(Happening::LogRefused);
            self.node(id).ruined = true;
        } else {
            let text = format!("node {id} cannot open its log: {error}");
            self.check(Err(Violation::new("recovery", text)));
        }
    }

    fn keyspace_config(&self, first: &Base) -> quorate_keyspace::Config {
        let members = first.membership.voters.iter().map(|id| Member {
            id: *id,
            name: format!("n{}", id.0),
            peer_urls: vec![format!("http://n{}:2380", id.0)],
            ..Member::default()
        });
        quorate_keyspace::Config {
            base: first.clone(),
            members: members.collect(),
            lessor: LessorConfig {
                checkpoint_interval: self.plan.checkpoints,
                ..LessorConfig::default()
            },
            canary: self.canary.keyspace(),
            store_canary: self.canary.store(),
        }
    }

    fn raft_config(&self, id: u64, life: u64) -> Config {
        Config {
            node: NodeId(id),
            epoch: Epoch::default(),
            heartbeat: self.plan.heartbeat,
            election_timeout: self.plan.election,
            lease_clock_drift_ppm: self.plan.lease_drift_ppm,
            seed: self.seed ^ id << 32 ^ life << 48,
            limits: Limits {
                append_bytes: self.plan.append_bytes,
                inflight_messages: 8,
                inflight_bytes: 64 << 10,
                uncommitted_bytes: 256 << 10,
                pending_reads: 64,
            },
        }
    }

    fn driver_config(&self, id: u64, run: u64) -> DriverConfig {
        DriverConfig {
            node: NodeId(id),
            run,
            retry_interval: self.plan.election * 2,
            persist_interval: self.plan.persist_interval,
            limits: DriverLimits {
                pending_proposals: 256,
                pending_reads: 256,
                apply_lag_entries: 500,
                forward_bytes: 8_000,
                catch_up_entries: self.plan.catch_up_entries,
                catch_up_bytes: 64 << 10,
                compact_step_entries: self.plan.catch_up_entries / 4 + 1,
                persist_bytes: 64 << 10,
                ..DriverLimits::default()
            },
        }
    }

    /// The log is ready: the replica may take part.
    fn take_part(&mut self, id: u64) {
        let now = self.now;
        let life = self.node(id).life;
        let (raft, run) = (self.raft_config(id, life), self.node(id).run);
        let config = self.driver_config(id, run);
        let canary = self.canary;
        let node = self.node(id);
        let local = node.clock.read(now);
        let Some(running) = &mut node.running else { return };
        let Some(recovered) = running.recovered.take() else { return };
        let log = canary.raft(raft, recovered, local);
        let mut driver = Driver::new(config);
        driver.add_group(local, GROUP, log);
        running.driver = Some(driver);
        self.poll_soon(id);
    }

    /// Something happens to a node's driver.
    pub fn step(&mut self, id: u64, event: Event<Reply, EventBatch>) {
        let now = self.now;
        let node = self.node(id);
        let local = node.clock.read(now);
        if let Some(running) = &mut node.running
            && let Some(driver) = &mut running.driver
        {
            driver.step(local, event, &mut running.outputs);
            self.poll_soon(id);
        }
    }

    /// A poll follows every event, a little later, so that what comes together is taken together.
    fn poll_soon(&mut self, id: u64) {
        let at = self.soon(Duration::from_micros(20));
        let node = self.node(id);
        let alive = node.alive();
        if let Some(running) = &mut node.running
            && running.poll_at.is_none()
        {
            running.poll_at = Some(at);
            self.queue.push(at, id as u32, Happens::Poll(alive));
        }
    }

    /// One timer is set at a time, never later than wanted: deadlines mostly move away, and a
    /// timer that comes too early is set anew.
    fn set_timer(&mut self, id: u64, at: Instant) {
        let node = self.node(id);
        let alive = node.alive();
        if let Some(running) = &mut node.running
            && running.timer_at.is_none_or(|planned| planned > at)
        {
            running.timer_at = Some(at);
            self.queue.push(at, id as u32, Happens::Poll(alive));
        }
    }

    /// A peer's message arrives.
    pub fn peer_message(&mut self, to: u64, from: u64, message: quorate_driver::PeerMessage) {
        if self.trace.is_read() {
            self.line(to, format_args!("from n{from}: {message:?}"));
        }
        self.step(to, Event::Peer { from: NodeId(from), message });
    }

    /// A connection broke.
    pub fn peer_lost(&mut self, to: u64, peer: u64) {
        self.step(to, Event::PeerLost { node: NodeId(peer) });
    }

    /// Polls a node's driver and carries its outputs out.
    pub fn poll(&mut self, id: u64) {
        let now = self.now;
        let node = self.node(id);
        let local = node.clock.read(now);
        let Some(running) = &mut node.running else { return };
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if !due(running.poll_at) && !due(running.timer_at) {
            return; // An earlier timer was set instead.
        }
        running.poll_at = running.poll_at.filter(|at| *at > now);
        running.timer_at = running.timer_at.filter(|at| *at > now);
        let Some(driver) = &mut running.driver else { return };
        driver.poll(local, &mut running.outputs);
        let timeout = driver.next_timeout().map(|at| node.clock.when(at));
        let mut outputs = std::mem::take(&mut running.outputs);
        let life = node.life;
        // Power may fail before, or half-way through, what follows.
        let crash_ppm = if self.healing { 0 } else { self.plan.crash_at_step_ppm };
        let survives = if self.rng.chance_ppm(crash_ppm) { self.rng.below(4) } else { u64::MAX };
        self.hand_out(id, &mut outputs, survives);
        if survives != u64::MAX {
            return self.crash(id);
        }
        let node = self.node(id);
        if node.life != life {
            return;
        }
        if let Some(running) = &mut node.running
            && running.poll_at.is_none()
        {
            running.outputs = outputs; // For its memory; nothing new has come meanwhile.
        }
        if let Some(at) = timeout {
            self.set_timer(id, at.max(Instant(now.0 + 1)));
        }
    }

    /// Carries out the first `stages` of: batch, sends, work, replies.
    fn hand_out(&mut self, id: u64, outputs: &mut Outputs<Reply>, stages: u64) {
        for notice in outputs.notices.drain(..) {
            self.notice(id, notice);
        }
        if let Some(batch) = outputs.batch.take()
            && stages > 0
        {
            self.record_batch(id, &batch);
            self.submit(id, batch);
        }
        let sends = outputs.sends.drain(..);
        if stages > 1 {
            for (to, message) in sends {
                self.send(id, to, message);
            }
        }
        if stages > 2 && !outputs.work.is_empty() {
            if let Some(running) = &mut self.node(id).running {
                running.work.extend(outputs.work.drain(..).map(|(_, work)| work));
            }
            self.serve_soon(id);
        }
        for (token, answer) in outputs.replies.drain(..) {
            if stages > 3 {
                self.reply(id, token, answer);
            }
        }
        let node = self.node(id);
        let stopped = |r: &Running| r.driver.as_ref().is_some_and(Driver::is_stopped);
        if node.removed || node.running.as_ref().is_some_and(stopped) {
            self.stop(id);
        }
    }

    fn notice(&mut self, id: u64, notice: Notice) {
        if self.trace.is_read() {
            self.line(id, format_args!("{notice:?}"));
        }
        match notice {
            Notice::RoleChanged { role, ballot, leader, .. } => {
                let known = self.node(id).running.as_mut();
                let before = known.map(|running| std::mem::replace(&mut running.role, role));
                if role == Role::Leader && before != Some(Role::Leader) {
                    self.count(Happening::LeaderElected);
                    self.strike_new_leader(id);
                }
                self.trace.note(self.now, id, 33, ballot.round << 8 | leader.0);
                if role == Role::Leader {
                    let result = self.record.elections.leads(NodeId(id), ballot);
                    self.check(result);
                }
            }
            Notice::SteppedDown { reason, .. } => match reason {
                StepDown::NoQuorum => self.count(Happening::SteppedDownNoQuorum),
                StepDown::DiskStalled => self.count(Happening::SteppedDownDisk),
                StepDown::NoProgress | StepDown::Removed => {}
            },
            Notice::MembersChanged { base, .. } => {
                let members = &base.membership;
                let node = self.node(id);
                if members.contains(NodeId(id)) {
                    node.was_member = true;
                } else if node.was_member && !members.is_joint() {
                    node.removed = true; // It will stop, as a host would.
                }
                self.record_members(&base);
            }
            Notice::Retried { .. } => self.count(Happening::RequestRetried),
            Notice::Fatal { reason } => {
                let node = self.node(id);
                let fair = node.disk.take_failed() | node.engine_failing;
                if !fair {
                    let text = format!("node {id} stopped without a fault: {reason}");
                    self.check(Err(Violation::new("fault tolerance", text)));
                }
            }
        }
    }

    fn submit(&mut self, id: u64, batch: Batch) {
        let now = self.now;
        let node = self.node(id);
        node.disk.set_now(now);
        let Some(running) = &mut node.running else { return };
        running.waiting.push_back(batch);
        self.disk_event(id);
    }

    /// Offers the log what waits for it, takes what it has finished, and sees when to look again.
    pub fn disk_event(&mut self, id: u64) {
        let now = self.now;
        let healing = self.healing;
        let node = &mut self.nodes[id as usize - 1];
        node.disk.set_now(now);
        let Some(running) = &mut node.running else { return };
        running.disk_at = None;
        let mut finished = Vec::new();
        let mut refused = None;
        loop {
            let mut quiet = true;
            while let Some(done) = running.wal.poll() {
                match (running.founding, &done.1) {
                    (true, Ok(())) => running.founding = false,
                    _ => finished.push(done),
                }
                quiet = false;
            }
            if running.full_until <= now
                && let Some(batch) = running.waiting.pop_front()
            {
                let batch_id = batch.id;
                match running.wal.submit(batch) {
                    Ok(()) => quiet = false,
                    Err(WalError::Full { batch }) => {
                        running.waiting.push_front(batch);
                        running.full_until = now + Duration::from_millis(20);
                    }
                    Err(error) => refused = Some((batch_id, error.to_string())),
                }
            }
            if quiet {
                break;
            }
        }
        // Without room on the disk there is nothing under way that could wake the log.
        let full = !running.waiting.is_empty() || !running.wal.is_idle();
        let full_until = running.full_until.max(now + Duration::from_millis(20));
        let ready = running.wal.is_ready() && !running.founding && running.driver.is_none();
        let next = node.disk.next_completion();
        let alive = node.alive();
        let progress = finished.len();
        for (batch, result) in finished {
            let result = result.map_err(|error| error.to_string());
            self.step(id, Event::LogDone { batch, result });
        }
        if let Some((batch, reason)) = refused {
            self.step(id, Event::LogDone { batch, result: Err(reason) });
        }
        if self.node(id).running.as_ref().is_some_and(|r| r.driver.is_none() && r.wal.is_poisoned())
        {
            self.node(id).disk.take_failed();
            return self.stop(id);
        }
        if ready {
            self.take_part(id);
        }
        let again = full.then_some(full_until);
        if let Some(at) = [next, again].into_iter().flatten().min() {
            let at = at.max(Instant(now.0 + 1));
            if let Some(running) = &mut self.node(id).running
                && running.disk_at.is_none_or(|planned| planned > at)
            {
                running.disk_at = Some(at);
                self.queue.push(at, id as u32, Happens::Disk(alive));
            }
        }
        if progress > 0 && !healing && self.rng.chance_ppm(self.plan.crash_at_disk_ppm) {
            self.strike_after_write(id);
        }
    }

    fn serve_soon(&mut self, id: u64) {
        let at = self.soon(self.plan.apply_delay);
        let node = self.node(id);
        let alive = node.alive();
        if let Some(running) = &mut node.running
            && !running.serving
            && !running.work.is_empty()
        {
            running.serving = true;
            self.queue.push(at, id as u32, Happens::Service(alive));
        }
    }

    /// The service does some of the work that waits.
    pub fn serve(&mut self, id: u64) {
        let most = if self.rng.below(4) == 0 { 1 } else { 16 };
        if let Some(running) = &mut self.node(id).running {
            running.serving = false;
        }
        for _ in 0..most {
            let life = self.node(id).life;
            self.work(id);
            if self.node(id).life != life {
                return;
            }
        }
        self.serve_soon(id);
    }

    fn work(&mut self, id: u64) {
        let now = self.now;
        let node = self.node(id);
        let (local, alive) = (node.clock.read(now), node.alive());
        let Some(running) = &mut node.running else { return };
        let Some(work) = running.work.pop_front() else { return };
        let entries = match &work {
            Work::Apply(entries) => Some(entries.clone()),
            _ => None,
        };
        let snapshot = matches!(work, Work::SnapshotOpen { .. });
        let mut finished = std::mem::take(&mut running.finished);
        let persist = running.host.run(local, work, &mut finished);
        if let Some(job) = persist {
            running.persist = Some(job);
            let at = self.soon(Duration::from_millis(30));
            self.queue.push(at, id as u32, Happens::Persist(alive));
        }
        if snapshot {
            self.count(Happening::SnapshotSent);
        }
        if let Some(entries) = entries {
            self.record_applied(id, &entries);
            let change = entries.iter().any(|e| matches!(e.payload, Payload::Members { .. }));
            if change {
                self.trace.note(now, id, 34, entries.last_index().unwrap_or(0));
            }
        }
        for done in finished.drain(..) {
            self.done(id, done);
        }
        if let Some(running) = &mut self.node(id).running {
            running.finished = finished;
        }
    }

    fn done(&mut self, id: u64, mut done: Done<Reply, EventBatch>) {
        match &mut done {
            Done::Applied { applied, .. } => {
                for publication in std::mem::take(&mut applied.publications) {
                    self.published(id, &publication);
                }
            }
            Done::Received { state: ReceiveState::Installed, base, .. } => {
                let base = base.clone();
                self.count(Happening::SnapshotInstalled);
                self.line(id, format_args!("installed a snapshot at {:?}", base.position));
                if let Some(running) = &mut self.node(id).running {
                    running.hub.observe(running.host.service().reader().revision());
                }
            }
            _ => {}
        }
        self.step(id, Event::ServiceDone { group: GROUP, done });
    }

    fn published(&mut self, id: u64, batch: &EventBatch) {
        if let Some(running) = &mut self.node(id).running {
            running.hub.publish(batch);
        }
        let now = self.now;
        let mut events = batch.events.iter().peekable();
        while let Some(first) = events.next() {
            let revision = first.revision();
            let mut changes = vec![translate::change(first)];
            while let Some(next) = events.next_if(|event| event.revision() == revision) {
                changes.push(translate::change(next));
            }
            self.trace.note(now, id, 35, revision);
            let result = self.record.truth.record(id, revision, &changes, now);
            self.check(result);
        }
        if self.violation.is_none() && self.record.truth.last() < batch.revision {
            let text = format!("node {id} went to revision {} without events", batch.revision);
            self.check(Err(Violation::new("revision monotonicity", text)));
        }
    }

    /// The engine has been made durable.
    pub fn persisted(&mut self, id: u64) {
        let Some(running) = &mut self.node(id).running else { return };
        let Some(job) = running.persist.take() else { return };
        let done = match job() {
            Ok(index) => Done::Persisted { index },
            Err(error) => {
                self.count(Happening::PersistFailed);
                Done::Failed { reason: error.to_string() }
            }
        };
        self.step(id, Event::ServiceDone { group: GROUP, done });
    }

    /// A node loses power: it comes back later.
    pub fn crash(&mut self, id: u64) {
        let node = self.node(id);
        if node.running.is_none() {
            return;
        }
        if let Some(running) = node.running.take() {
            node.applied_before = running.host.service().base().position.index;
        }
        node.disk.crash();
        // An engine may have written more than it promised.
        let keeps = match self.rng.below(4) {
            0 => self.rng.below(8),
            1 => u64::MAX,
            _ => 0,
        };
        let node = self.node(id);
        node.engine.crash(if node.engine_failing { 0 } else { keeps });
        node.engine_failing = false;
        self.count(Happening::Crash);
        if self.record.joint {
            self.count(Happening::CrashInJoint);
        }
        self.line(id, format_args!("loses power"));
        self.ended(id);
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

    fn ended(&mut self, id: u64) {
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

/// The log and the state of an earlier life, put together.
fn resume(group: &RecoveredGroup, applied: Base) -> Result<Recovered, String> {
    if applied.position.index < group.base.position.index {
        return Err(format!(
            "its state ends at {:?}, its log begins after {:?}",
            applied.position, group.base.position
        ));
    }
    Ok(Recovered {
        base: group.base.clone(),
        hard_state: group.hard_state,
        entries: group.entries.clone(),
        damaged: group.damaged.clone(),
        applied,
    })
}

/// The first life: the state is made durable, then the log remembers where it begins.
fn begin(
    wal: &mut Wal<SimDisk>,
    service: &mut Keyspace<MemoryEngine>,
    first: &Base,
) -> Result<Recovered, String> {
    if service.base() != *first {
        return Err(format!("its log is empty, its state ends at {:?}", service.base().position));
    }
    service.persist()().map_err(|error| error.to_string())?;
    let write = Write {
        id: WriteId(0),
        reset: Some(first.clone()),
        compact: None,
        truncate_from: None,
        entries: Entries::default(),
        hard_state: None,
    };
    let batch = Batch { id: BatchId(0), writes: vec![(GROUP, write)] };
    wal.submit(batch).map_err(|error| error.to_string())?;
    Ok(Recovered { base: first.clone(), applied: first.clone(), ..Recovered::default() })
}

fn found_text(recovered: &Recovered) -> String {
    let last = recovered.entries.last().and_then(|run| run.last_index());
    format!(
        "log after {:?} up to {last:?}, promised {:?}, damaged {:?}",
        recovered.base.position, recovered.hard_state.promised, recovered.damaged
    )
}
