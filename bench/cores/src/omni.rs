//! `omnipaxos`, over its own storage in memory.

use crate::{Measured, Shape, thread_cpu};
use bytes::Bytes;
use omnipaxos::macros::Entry;
use omnipaxos::messages::Message;
use omnipaxos::util::LogEntry;
use omnipaxos::{ClusterConfig, OmniPaxos, OmniPaxosConfig, ServerConfig};
use omnipaxos_storage::memory_storage::MemoryStorage;

#[derive(Clone, Debug, Entry)]
struct Command(Bytes);

struct Replica {
    log: OmniPaxos<Command, MemoryStorage<Command>>,
    applied: usize,
    bytes: u64,
}

impl Replica {
    fn new(pid: u64) -> Replica {
        let nodes = vec![1, 2, 3];
        let cluster_config = ClusterConfig { configuration_id: 1, nodes, ..Default::default() };
        let leader_priority = if pid == 1 { 10 } else { 0 };
        let server_config = ServerConfig { pid, leader_priority, ..Default::default() };
        let config = OmniPaxosConfig { cluster_config, server_config };
        let log = config.build(MemoryStorage::default()).expect("a valid configuration");
        Replica { log, applied: 0, bytes: 0 }
    }

    fn take_effects(&mut self, under_way: &mut Vec<Message<Command>>) {
        self.log.take_outgoing_messages(under_way);
        let decided = self.log.get_decided_idx();
        if decided <= self.applied {
            return;
        }
        for entry in self.log.read_decided_suffix(self.applied).into_iter().flatten() {
            if let LogEntry::Decided(command) = entry {
                self.bytes += command.0.len() as u64;
            }
        }
        self.applied = decided;
    }
}

fn round(
    replicas: &mut [Replica],
    under_way: &mut Vec<Message<Command>>,
    delivered: &mut Vec<Message<Command>>,
) {
    std::mem::swap(under_way, delivered);
    for message in delivered.drain(..) {
        let to = message.get_receiver() as usize - 1;
        replicas[to].log.handle_incoming(message);
    }
    for replica in replicas {
        replica.take_effects(under_way);
    }
}

pub fn run(commands: u64, shape: Shape) -> Measured {
    let mut replicas: Vec<Replica> = (1..=3).map(Replica::new).collect();
    let (mut under_way, mut delivered) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        replicas.iter_mut().for_each(|replica| replica.log.tick());
        for _ in 0..5 {
            round(&mut replicas, &mut under_way, &mut delivered);
        }
    }
    let leader = replicas[0].log.get_current_leader().expect("a leader").0 as usize - 1;
    let payload = vec![7; shape.size];
    let start = thread_cpu();
    let mut proposed = 0;
    while replicas.iter().any(|replica| (replica.applied as u64) < commands) {
        let free = shape.window - (proposed - replicas[leader].applied as u64);
        let count = free.min(shape.batch).min(commands - proposed);
        for _ in 0..count {
            let command = Command(Bytes::copy_from_slice(&payload));
            replicas[leader].log.append(command).expect("the leader takes it");
        }
        if count > 0 {
            replicas[leader].log.take_outgoing_messages(&mut under_way);
            proposed += count;
        }
        round(&mut replicas, &mut under_way, &mut delivered);
    }
    let cpu = thread_cpu() - start;
    Measured { cpu, applied: [0, 1, 2].map(|at: usize| replicas[at].bytes) }
}
