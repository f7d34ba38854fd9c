//! How a node starts: on what its disk and engine hold, as a host does.
//!
//! Invariant: nothing that was found is believed before it is durable.

use crate::clock::Clock;
use crate::counters::Happening;
use crate::disk::SimDisk;
use crate::neighbours::Neighbour;
use crate::node::Running;
use crate::transactions::Transactor;
use crate::world::{GROUP, Happens, World};
use quorate_base::{Ballot, GroupId, Instant, NodeId, Position};
use quorate_checkers::Violation;
use quorate_driver::{Driver, DriverConfig, DriverLimits, Outputs, ServiceHost};
use quorate_keyspace::command::Member;
use quorate_keyspace::{Keyspace, LessorConfig, WatchHub};
use quorate_mvcc::MemoryEngine;
use quorate_replicated_log::{Base, Config, Epoch, Limits, Membership, Recovered, Role, Write};
use quorate_service::{Service, ServiceError};
use quorate_wal::{Batch, BatchId, RecoveredGroup, Recovery, Wal, WalError, WalOptions};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub fn wal_options(world: &World<'_>) -> WalOptions {
    WalOptions {
        segment_bytes: 128 << 10,
        max_record_bytes: 48 << 10,
        max_block_bytes: 32 << 10,
        reserve_bytes: 16 << 10,
        canary: world.canary.wal(),
        unnamed_protocol: world.plan.protocol,
        ..WalOptions::small()
    }
}

impl World<'_> {
    /// Where the group begins, as in `quorate-host`: with its founders at index 1, or, for a node
    /// that joins, nowhere yet.
    fn first_base(&self, id: u64) -> Base {
        if id > self.plan.nodes {
            return Base { protocol: self.plan.protocol, ..Base::default() };
        }
        let membership = Membership::of((1..=self.plan.nodes).map(NodeId));
        Base::first(Position::new(1, Ballot::ZERO), membership, self.plan.protocol)
    }

    /// Starts a node on what its disk and engine hold.
    pub fn boot(&mut self, id: u64) {
        let (now, first) = (self.now, self.first_base(id));
        let reads = Instant(self.rng.between(1, 1 << 40));
        let options = wal_options(self);
        let keyspace = self.keyspace_config(&first);
        let further = quorate_keyspace::Config {
            base: first.clone(),
            canary: keyspace.canary,
            ..Default::default()
        };
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
        let engines = node.neighbours.clone();
        let (mut wal, recovery) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.not_opened(id, &error),
        };
        let found = recovery.report.damaged_records + recovery.report.lost_blocks;
        let Some(service) = self.open_state(id, recovery.groups.get(&GROUP), keyspace) else {
            return;
        };
        let begun = service.map_err(|error| error.to_string()).and_then(|mut service| {
            let mut writes = Vec::new();
            let recovered = put_together(GROUP, &recovery, &mut service, &first, &mut writes)?;
            let others = neighbours(engines, &recovery, &further, &mut writes)?;
            let founding = begin(&mut wal, writes)?;
            Ok((service, recovered, others, founding))
        });
        let (service, recovered, others, founding) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                let text = format!("node {id} cannot start: {error}");
                return self.check(Err(Violation::new("recovery", text)));
            }
        };
        if founding && !recovery.groups.is_empty() {
            self.count(Happening::EpochOpenedAtStart);
        }
        self.line(id, format_args!("starts: {}", found_text(&recovered)));
        self.trace.note(now, id, 32, found);
        if found > 0 {
            self.count(Happening::DamageFound);
        }
        if service.base().position.index < self.node(id).applied_before {
            self.count(Happening::EngineRolledBack);
        }
        self.forget_tail(id, recovered.base.epoch);
        self.count(Happening::Restart);
        self.live(id, wal, (service, recovered), others, founding);
    }

    /// A node's new life begins; it takes part once its log is ready.
    fn live(
        &mut self,
        id: u64,
        wal: Wal<SimDisk>,
        (service, recovered): (Keyspace<MemoryEngine>, Recovered),
        neighbours: BTreeMap<GroupId, Neighbour>,
        founding: bool,
    ) {
        let hub = WatchHub::new(service.reader().revision(), self.canary.keyspace());
        let part_bytes = self.plan.part_bytes;
        let node = self.node(id);
        node.was_member = recovered.applied.membership.contains(NodeId(id));
        node.running = Some(Running {
            driver: None,
            recovered: Some(recovered),
            founding,
            wal,
            host: ServiceHost::new(service).with_part_bytes(part_bytes),
            neighbours,
            transactor: Transactor::default(),
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
        self.disk_event(id);
    }

    /// Opens a node's state, or an empty one in the place of one that is damaged, as a host does;
    /// nothing if the log cannot go on without.
    fn open_state(
        &mut self,
        id: u64,
        log: Option<&RecoveredGroup>,
        config: quorate_keyspace::Config,
    ) -> Option<Result<Keyspace<MemoryEngine>, ServiceError>> {
        let opened = Keyspace::open(self.node(id).engine.clone(), config.clone());
        let begins = log.map_or(0, |log| log.base.position.index);
        let falls_short = match &opened {
            // What another sent in its place may end before it did.
            Ok(service) => {
                let (ends, lost_to) = (service.base().position.index, self.node(id).state_lost_to);
                if ends >= lost_to {
                    self.node(id).state_lost_to = 0;
                }
                ends < begins && begins <= lost_to
            }
            Err(error) => matches!(error, ServiceError::Damaged(_)),
        };
        if !falls_short {
            return Some(opened);
        }
        let Some(log) = log.filter(|log| log.base.position.index > 0) else {
            self.line(id, format_args!("has neither its state nor where its log begins"));
            self.count(Happening::LogRefused);
            self.node(id).ruined = true;
            return None;
        };
        self.count(Happening::StateSetAside);
        self.line(id, format_args!("sets its damaged state aside"));
        let base = quorate_driver::lost_state(log);
        let node = self.node(id);
        (node.engine, node.state_damaged, node.applied_before) = (MemoryEngine::new(), false, 0);
        node.state_lost_to = node.state_lost_to.max(log.base.position.index);
        let config = quorate_keyspace::Config { base, members: Vec::new(), ..config };
        Some(Keyspace::open(node.engine.clone(), config))
    }

    fn not_opened(&mut self, id: u64, error: &WalError) {
        self.line(id, format_args!("cannot open its log: {error}"));
        let failing = self.node(id).disk.take_failed();
        if failing {
            // The disk failed right now: the operator tries again.
            self.node(id).disk.kill();
            let at = self.soon(Duration::from_secs(1));
            self.queue.push(at, id as u32, Happens::Boot(id));
        } else if self.atlas.may_be_ruined(id) {
            self.count(Happening::LogRefused);
            self.node(id).ruined = true;
        } else {
            let text = format!("node {id} cannot open its log: {error}");
            self.check(Err(Violation::new("recovery", text)));
        }
    }

    pub fn keyspace_config(&self, first: &Base) -> quorate_keyspace::Config {
        let members = first.membership.voters.iter().map(|id| Member {
            id: *id,
            name: format!("n{}", id.0),
            peer_urls: vec![format!("http://n{}:2380", id.0)],
            ..Member::default()
        });
        quorate_keyspace::Config {
            base: first.clone(),
            members: members.collect(),
            locks: quorate_keyspace::branch::LockConfig::default(),
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
            opens: false,
            heartbeat: self.plan.heartbeat,
            election_timeout: self.plan.election,
            patience: self.plan.election,
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
            leading_grid: self.plan.heartbeat,
            calm_grid: (GROUP, self.plan.heartbeat),
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
            canary: self.canary.driver(),
        }
    }

    /// The log is ready: the replica may take part.
    pub fn take_part(&mut self, id: u64) {
        let now = self.now;
        let life = self.node(id).life;
        let (raft, run) = (self.raft_config(id, life), self.node(id).run);
        let config = self.driver_config(id, run);
        let canary = self.canary;
        let node = self.node(id);
        let local = node.clock.read(now);
        let Some(running) = &mut node.running else { return };
        let Some(recovered) = running.recovered.take() else { return };
        let base = &recovered.base;
        let (protocol, here) = (base.protocol, Config { epoch: base.epoch, ..raft.clone() });
        let log = canary.log(protocol, here, recovered, local);
        let mut driver = Driver::new(config);
        let settings = raft.clone();
        driver.set_engines(Box::new(move |now, _, recovered| {
            let epoch = recovered.base.epoch;
            let seed = raft.seed ^ u64::from(epoch.0) << 16;
            let config = Config { epoch, opens: true, seed, ..raft.clone() };
            canary.log(recovered.base.protocol, config, recovered, now)
        }));
        driver.add_group(local, GROUP, log, Keyspace::<MemoryEngine>::check);
        for (group, neighbour) in &mut running.neighbours {
            let Some(recovered) = neighbour.recovered.take() else { continue };
            let seed = settings.seed ^ group.0 << 8;
            let base = &recovered.base;
            let (protocol, epoch) = (base.protocol, base.epoch);
            let config = Config { seed, epoch, ..settings.clone() };
            let log = canary.log(protocol, config, recovered, local);
            driver.add_group(local, *group, log, Keyspace::<MemoryEngine>::check);
        }
        running.driver = Some(driver);
        let alive = node.alive();
        if self.plan.scribes > 0 && id <= self.plan.nodes {
            self.queue.push(now, id as u32, Happens::LookAround(alive));
        }
        self.poll_soon(id);
    }
}

/// The further groups, all with the same first members.
fn neighbours(
    engines: Vec<(GroupId, MemoryEngine)>,
    recovery: &Recovery,
    config: &quorate_keyspace::Config,
    writes: &mut Vec<(GroupId, Write)>,
) -> Result<BTreeMap<GroupId, Neighbour>, String> {
    let mut all = BTreeMap::new();
    for (group, engine) in engines {
        if !recovery.groups.is_empty() && !recovery.groups.contains_key(&group) {
            return Err(format!("its log has lost group {group}"));
        }
        let mut service =
            Keyspace::open(engine, config.clone()).map_err(|error| error.to_string())?;
        let recovered = put_together(group, recovery, &mut service, &config.base, writes)?;
        let host = ServiceHost::new(service);
        all.insert(group, Neighbour { host, recovered: Some(recovered) });
    }
    Ok(all)
}

/// What the log and the service hold, put together; or both begun.
fn put_together(
    id: GroupId,
    recovery: &Recovery,
    service: &mut Keyspace<MemoryEngine>,
    first: &Base,
    writes: &mut Vec<(GroupId, Write)>,
) -> Result<Recovered, String> {
    let Some(group) = recovery.groups.get(&id) else {
        if service.base() != *first {
            let end = service.base().position;
            return Err(format!("its log is empty, its state ends at {end:?}"));
        }
        // The first life: the state is made durable, then the log remembers where it begins.
        service.persist()().map_err(|error| error.to_string())?;
        writes.push((id, Write::begin(first.clone())));
        return Ok(Recovered { base: first.clone(), applied: first.clone(), ..Default::default() });
    };
    // As a host does: what a killed process left in the cache is not yet durable.
    service.persist()().map_err(|error| error.to_string())?;
    let (recovered, write) = quorate_driver::resume(group.clone(), service.base())?;
    writes.extend(write.map(|write| (id, write)));
    Ok(recovered)
}

/// Lets the log remember where groups begin, if any do; whether any do.
fn begin(wal: &mut Wal<SimDisk>, writes: Vec<(GroupId, Write)>) -> Result<bool, String> {
    if writes.is_empty() {
        return Ok(false);
    }
    wal.submit(Batch { id: BatchId(0), writes }).map_err(|error| error.to_string())?;
    Ok(true)
}

fn found_text(recovered: &Recovered) -> String {
    let last = recovered.entries.last().and_then(|run| run.last_index());
    format!(
        "log after {:?} up to {last:?}, promised {:?}, damaged {:?}, applied {:?}",
        recovered.base.position,
        recovered.hard_state.promised,
        recovered.damaged,
        recovered.applied.position
    )
}
