//! What a seed draws before its run: the cluster, the limits, and which faults how often ("swarm
//! testing": Groce and others, 2012). Runs that lack some faults reach what the others prevent.
//!
//! Invariant: a plan is a function of the seed and the options alone.

use crate::disk::DiskPlan;
use crate::network::NetworkPlan;
use crate::run::Options;
use quorate_base::Rng;
use quorate_replicated_log::Protocol;
use std::time::Duration;

/// Everything about a run that is drawn in advance.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the log is replicated.
    pub protocol: Protocol,
    /// Voters at the start.
    pub nodes: u64,
    /// Node ids that may ever exist: the voters, and spares that may join.
    pub ids: u64,
    /// Heartbeat and election timeout.
    pub heartbeat: Duration,
    /// Base of the election timeout.
    pub election: Duration,
    /// Whether leaders read by lease, and the drift they declare.
    pub lease_drift_ppm: Option<u32>,
    /// How far clocks really drift, either way, in parts per million.
    pub drift_ppm: u32,
    /// The network.
    pub network: NetworkPlan,
    /// The disks.
    pub disk: DiskPlan,
    /// The longest time between two deeds of the nemesis.
    pub nemesis_every: Duration,
    /// What the nemesis does, each with its weight; nothing in a calm run.
    pub nemesis: Vec<(Deed, u64)>,
    /// How often the group is to go on under another protocol, at a deed of the nemesis.
    pub switch_ppm: u32,
    /// How often a leader loses power within milliseconds of its election, which is when Raft's
    /// figure 8 happens.
    pub crash_new_leader_ppm: u32,
    /// How often a node loses power right after a disk operation of its log.
    pub crash_at_disk_ppm: u32,
    /// How often a node loses power between taking outputs and carrying them out.
    pub crash_at_step_ppm: u32,
    /// How long a service takes for a piece of work, at most.
    pub apply_delay: Duration,
    /// Entry bytes in one append message; few, so that a run of entries takes several.
    pub append_bytes: usize,
    /// Applied entries kept in the log; few, so that snapshots are often needed.
    pub catch_up_entries: u64,
    /// Size of a part of a snapshot in bytes; small, so that it takes many.
    pub part_bytes: usize,
    /// How often a service is made durable.
    pub persist_interval: Duration,
    /// How often peers' messages go through their codec.
    pub codec_ppm: u32,
    /// Clients of each kind.
    pub clients: Crowd,
    /// A client's longest pause between two requests.
    pub think: Duration,
    /// How often leases' remaining times are replicated.
    pub checkpoints: Option<Duration>,
    /// Nodes whose durable data may be damaged beyond reading: fewer than a quorum can spare.
    pub damageable: Vec<u64>,
    /// Instead any voter's durable data may be damaged, as far as the others make up for it.
    pub helix: bool,
    /// In the end every voter loses its state.
    pub beyond: bool,
    /// How often a part of a snapshot is not what was sent.
    pub snapshot_damage_ppm: u32,
    /// Further groups on the same nodes.
    pub neighbours: u64,
    /// Clients with transactions across them.
    pub scribes: usize,
}

/// How many clients of each kind.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Reading, writing and comparing a few keys.
    pub registers: usize,
    /// Counting up by compare-and-swap.
    pub counters: usize,
    /// Making, keeping and leaving leases.
    pub leases: usize,
    /// Watching.
    pub watchers: usize,
    /// Compacting history.
    pub compactors: usize,
}

/// What the nemesis may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Deed {
    /// A node loses power.
    Crash,
    /// The leader loses power.
    CrashLeader,
    /// All nodes lose power.
    CrashAll,
    /// A node is frozen.
    Pause,
    /// The cluster is cut in two.
    Partition,
    /// Some nodes are not heard, or do not hear.
    OneWay,
    /// Two nodes do not reach each other.
    Pair,
    /// A disk stalls.
    StallDisk,
    /// A disk is full for a while.
    FillDisk,
    /// Durable data is damaged, at a node that has lost power.
    Damage,
    /// The state engine of a node fails.
    FailPersist,
    /// The members change.
    Members,
    /// Leadership is handed over.
    Transfer,
}

const DEEDS: [(Deed, u64); 13] = [
    (Deed::Crash, 10),
    (Deed::CrashLeader, 6),
    (Deed::CrashAll, 2),
    (Deed::Pause, 5),
    (Deed::Partition, 8),
    (Deed::OneWay, 5),
    (Deed::Pair, 4),
    (Deed::StallDisk, 4),
    (Deed::FillDisk, 2),
    (Deed::Damage, 4),
    (Deed::FailPersist, 2),
    (Deed::Members, 8),
    (Deed::Transfer, 5),
];

impl Plan {
    /// Draws the plan of a run.
    pub fn draw(rng: &mut Rng, options: &Options) -> Plan {
        let plan = Plan::draw_all(rng, options);
        if options.calm { plan.without_faults() } else { plan }
    }

    /// Whether nothing fails.
    pub fn is_calm(&self) -> bool {
        self.nemesis.is_empty()
    }

    /// Nothing fails, not even a message or a disk; clients write all the time, and the protocol
    /// is changed over and over. Clocks, delays and limits are as drawn.
    fn without_faults(self) -> Plan {
        let NetworkPlan { delay_least, delay_most, .. } = self.network;
        let clients = Crowd { registers: self.clients.registers + 3, ..self.clients };
        Plan {
            network: NetworkPlan { delay_least, delay_most, ..NetworkPlan::default() },
            disk: DiskPlan { latency: self.disk.latency, ..DiskPlan::default() },
            nemesis: Vec::new(),
            switch_ppm: 1_000_000,
            crash_new_leader_ppm: 0,
            crash_at_disk_ppm: 0,
            crash_at_step_ppm: 0,
            snapshot_damage_ppm: 0,
            damageable: Vec::new(),
            helix: false,
            beyond: false,
            clients,
            // Not less: watchers here read history slowly, and must be told everything in the end.
            think: Duration::from_millis(30),
            ..self
        }
    }

    fn draw_all(rng: &mut Rng, options: &Options) -> Plan {
        let nodes = options.nodes.unwrap_or_else(|| if rng.below(4) == 0 { 5 } else { 3 });
        let ms = Duration::from_millis;
        let us = Duration::from_micros;
        let heartbeat = ms(rng.between(30, 60));
        let election = heartbeat * rng.between(4, 8) as u32;
        let drift_ppm = maybe(rng, 2, 20_000);
        let mut damageable: Vec<u64> = (1..=nodes).collect();
        rng.shuffle(&mut damageable);
        damageable.truncate((nodes as usize - 1) / 2);
        let lease_drift_ppm = (rng.below(3) == 0).then_some(2 * drift_ppm + 1_000);
        let network = draw_network(rng);
        // Drawn from what was drawn before: so runs without any are as they always were.
        let least = network.delay_least.as_micros();
        let helix = least % 2 == 1;
        let neighbours = heartbeat.as_millis() as u64 % 3;
        let scribes = if neighbours == 2 && (least / 4).is_multiple_of(2) { 4 } else { 0 };
        Plan {
            protocol: options.protocol,
            nodes,
            ids: nodes + 3,
            heartbeat,
            election,
            lease_drift_ppm,
            drift_ppm,
            network,
            disk: draw_disk(rng),
            nemesis_every: ms(*rng.pick(&[200, 500, 1_000, 3_000]).unwrap_or(&500)),
            nemesis: draw_deeds(rng),
            crash_new_leader_ppm: maybe(rng, 3, 600_000),
            crash_at_disk_ppm: maybe(rng, 2, 3_000),
            crash_at_step_ppm: maybe(rng, 2, 150),
            apply_delay: us(*rng.pick(&[50, 200, 2_000, 20_000]).unwrap_or(&50)),
            append_bytes: *rng.pick(&[1, 200, 2_000, 20_000]).unwrap_or(&2_000),
            catch_up_entries: rng.between(5, 120),
            part_bytes: rng.between(200, 4_000) as usize,
            persist_interval: ms(rng.between(50, 2_000)),
            codec_ppm: if rng.below(4) == 0 { 1_000_000 } else { 50_000 },
            clients: Crowd {
                registers: rng.between(2, 5) as usize,
                counters: rng.between(0, 2) as usize,
                leases: rng.between(0, 2) as usize,
                watchers: rng.between(1, 2) as usize,
                compactors: rng.below(2) as usize,
            },
            think: ms(*rng.pick(&[15, 50, 150, 400]).unwrap_or(&150)),
            checkpoints: (rng.below(2) == 0).then(|| ms(rng.between(300, 1_500))),
            damageable,
            helix,
            beyond: least % 4 == 1,
            snapshot_damage_ppm: if least.is_multiple_of(3) { 20_000 } else { 0 },
            switch_ppm: *rng.pick(&[10_000, 50_000, 200_000]).unwrap_or(&0),
            // Drawn from what was drawn before: so runs without any are as they always were.
            // One for the records of transactions, if there are any, beside two with lists.
            neighbours: neighbours + u64::from(scribes > 0),
            scribes,
        }
    }
}

/// Nothing in most seeds (one in `in_so_many` has it), else up to `most`.
fn maybe(rng: &mut Rng, in_so_many: u64, most: u64) -> u32 {
    if rng.below(in_so_many) == 0 { rng.between(most / 20 + 1, most) as u32 } else { 0 }
}

fn draw_network(rng: &mut Rng) -> NetworkPlan {
    let least = Duration::from_micros(rng.between(50, 500));
    NetworkPlan {
        delay_least: least,
        delay_most: least * rng.between(2, 10) as u32,
        straggler_ppm: maybe(rng, 2, 50_000),
        loss_ppm: maybe(rng, 2, 100_000),
        duplicate_ppm: maybe(rng, 2, 100_000),
        clog_ppm: maybe(rng, 3, 2_000),
        reset_ppm: maybe(rng, 3, 500),
    }
}

fn draw_disk(rng: &mut Rng) -> DiskPlan {
    let least = Duration::from_micros(rng.between(20, 500));
    DiskPlan {
        latency: (least, least * rng.between(2, 20) as u32),
        slow_ppm: maybe(rng, 3, 10_000),
        sync_failure_ppm: maybe(rng, 4, 500),
        write_failure_ppm: maybe(rng, 6, 200),
    }
}

fn draw_deeds(rng: &mut Rng) -> Vec<(Deed, u64)> {
    let mut deeds: Vec<(Deed, u64)> = DEEDS.to_vec();
    // Each deed is left out of every second seed, but never all of them.
    deeds.retain(|_| rng.below(2) == 0);
    if deeds.is_empty() {
        deeds.push((Deed::Crash, 1));
    }
    deeds
}

/// Draws one of the deeds by weight.
pub fn draw_deed(rng: &mut Rng, deeds: &[(Deed, u64)]) -> Deed {
    let total: u64 = deeds.iter().map(|(_, weight)| weight).sum();
    let mut at = rng.below(total);
    for (deed, weight) in deeds {
        if at < *weight {
            return *deed;
        }
        at -= weight;
    }
    Deed::Crash
}
