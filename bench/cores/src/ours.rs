//! Our two engines, through the interface that the driver of a node uses.

use crate::{Measured, Shape, thread_cpu};
use bytes::Bytes;
use quorate_base::{Instant, NodeId, Position};
use quorate_paxos::MultiPaxos;
use quorate_raft::Raft;
use quorate_replicated_log::{
    Base, Config, Effects, Epoch, Event, Input, Limits, Membership, Payload, ProposalId, Protocol,
    Recovered, ReplicatedLog, Role, Send,
};
use std::time::Duration;

pub fn raft(config: Config, recovered: Recovered) -> Raft {
    Raft::new(config, Instant::ZERO, recovered)
}

pub fn paxos(config: Config, recovered: Recovered) -> MultiPaxos {
    MultiPaxos::new(config, Instant::ZERO, recovered)
}

struct Replica<L> {
    node: NodeId,
    log: L,
    effects: Effects,
    /// Messages that left, and those of the round before, which are being delivered.
    outbox: Vec<Send>,
    delivered: Vec<Send>,
    commands: u64,
    bytes: u64,
}

impl<L: ReplicatedLog> Replica<L> {
    fn step(&mut self, now: Instant, input: Input) {
        self.log.step(now, input, &mut self.effects);
    }

    /// Carries out what the steps so far want done, and what follows from that.
    fn take_effects(&mut self, now: Instant) {
        while !self.effects.is_empty() {
            // What waits for a write may leave: the write is durable before anybody hears of it.
            self.outbox.append(&mut self.effects.sends);
            let mut applied = None;
            for run in self.effects.committed.drain(..) {
                applied = run.last_index();
                for entry in run.iter() {
                    if let Payload::Command(bytes) = &entry.payload {
                        self.commands += 1;
                        self.bytes += bytes.len() as u64;
                    }
                }
            }
            for event in self.effects.events.drain(..) {
                assert!(!matches!(event, Event::Refused { .. }), "nothing is refused");
            }
            let written = self.effects.writes.last().map(|write| write.id);
            self.effects.writes.clear();
            if let Some(id) = written {
                self.step(now, Input::Written { id });
            }
            if let Some(index) = applied {
                self.step(now, Input::Applied { index });
            }
        }
    }
}

fn round<L: ReplicatedLog>(replicas: &mut [Replica<L>], now: Instant) {
    for sender in &mut *replicas {
        std::mem::swap(&mut sender.outbox, &mut sender.delivered);
    }
    for sender in 0..replicas.len() {
        let from = replicas[sender].node;
        let mut delivered = std::mem::take(&mut replicas[sender].delivered);
        for Send { to, message, .. } in delivered.drain(..) {
            replicas[to.0 as usize - 1].step(now, Input::Message { from, message });
        }
        replicas[sender].delivered = delivered;
    }
    for replica in replicas {
        replica.take_effects(now);
    }
}

fn replica<L: ReplicatedLog>(
    node: NodeId,
    protocol: Protocol,
    make: fn(Config, Recovered) -> L,
) -> Replica<L> {
    let config = Config {
        node,
        epoch: Epoch(0),
        opens: true,
        heartbeat: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        patience: Duration::from_secs(1),
        lease_clock_drift_ppm: None,
        seed: node.0,
        limits: Limits::default(),
    };
    let base = Base::first(Position::ZERO, Membership::of((1..=3).map(NodeId)), protocol);
    let recovered = Recovered { base: base.clone(), applied: base, ..Recovered::default() };
    let log = make(config, recovered);
    let (outbox, delivered) = (Vec::new(), Vec::new());
    Replica { node, log, effects: Effects::default(), outbox, delivered, commands: 0, bytes: 0 }
}

pub fn run<L: ReplicatedLog>(
    protocol: Protocol,
    make: fn(Config, Recovered) -> L,
    commands: u64,
    shape: Shape,
) -> Measured {
    let mut replicas: Vec<_> = (1..=3).map(|n| replica(NodeId(n), protocol, make)).collect();
    let now = Instant::ZERO;
    replicas[0].step(now, Input::Campaign);
    for _ in 0..20 {
        replicas[0].take_effects(now);
        round(&mut replicas, now);
    }
    assert_eq!(replicas[0].log.role(), Role::Leader, "elected while nothing else happens");
    let payload = vec![7; shape.size];
    let start = thread_cpu();
    let mut proposed = 0;
    while replicas.iter().any(|replica| replica.commands < commands) {
        let free = shape.window - (proposed - replicas[0].commands);
        let count = free.min(shape.batch).min(commands - proposed);
        if count > 0 {
            let batch = (0..count).map(|_| Bytes::copy_from_slice(&payload)).collect();
            replicas[0].step(now, Input::Propose { id: ProposalId(proposed), commands: batch });
            replicas[0].take_effects(now);
            proposed += count;
        }
        round(&mut replicas, now);
    }
    let cpu = thread_cpu() - start;
    Measured { cpu, applied: [0, 1, 2].map(|at: usize| replicas[at].bytes) }
}
