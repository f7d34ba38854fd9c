//! `raft` (raft-rs), over its own storage in memory.

use crate::{Measured, Shape, thread_cpu};
use bytes::Bytes;
use raft::StateRole;
use raft::prelude::{Config, Entry, Message, MessageType, RawNode};
use raft::storage::MemStorage;

struct Replica {
    node: RawNode<MemStorage>,
    commands: u64,
    bytes: u64,
}

impl Replica {
    fn new(id: u64, logger: &slog::Logger) -> Replica {
        let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
        let config = Config {
            id,
            election_tick: 10,
            heartbeat_tick: 1,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            batch_append: true,
            ..Config::default()
        };
        let node = RawNode::new(&config, storage, logger).expect("a valid configuration");
        Replica { node, commands: 0, bytes: 0 }
    }

    /// A command that is handed over as it is, without another copy.
    fn propose(&mut self, data: Bytes) {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.node.raft.id;
        message.set_entries(vec![Entry { data, ..Entry::default() }].into());
        self.node.raft.step(message).expect("the leader takes it");
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries.iter().filter(|entry| !entry.data.is_empty()) {
            self.commands += 1;
            self.bytes += entry.data.len() as u64;
        }
    }

    fn take_effects(&mut self, under_way: &mut Vec<Message>) {
        if !self.node.has_ready() {
            return;
        }
        let mut ready = self.node.ready();
        under_way.append(&mut ready.take_messages());
        self.apply(ready.take_committed_entries());
        {
            let mut storage = self.node.store().wl();
            if !ready.entries().is_empty() {
                storage.append(ready.entries()).expect("they follow the log");
            }
            if let Some(state) = ready.hs() {
                storage.set_hardstate(state.clone());
            }
        }
        under_way.append(&mut ready.take_persisted_messages());
        let mut light = self.node.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.node.store().wl().mut_hard_state().set_commit(commit);
        }
        under_way.append(&mut light.take_messages());
        self.apply(light.take_committed_entries());
        self.node.advance_apply();
    }
}

fn round(replicas: &mut [Replica], under_way: &mut Vec<Message>, delivered: &mut Vec<Message>) {
    std::mem::swap(under_way, delivered);
    for message in delivered.drain(..) {
        let to = message.to as usize - 1;
        replicas[to].node.step(message).expect("it is well formed");
    }
    for replica in replicas {
        replica.take_effects(under_way);
    }
}

pub fn run(commands: u64, shape: Shape) -> Measured {
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let mut replicas: Vec<Replica> = (1..=3).map(|id| Replica::new(id, &logger)).collect();
    let (mut under_way, mut delivered) = (Vec::new(), Vec::new());
    replicas[0].node.campaign().expect("it may stand");
    for _ in 0..20 {
        round(&mut replicas, &mut under_way, &mut delivered);
    }
    assert!(replicas[0].node.raft.state == StateRole::Leader, "elected while nothing else happens");
    let payload = vec![7; shape.size];
    let start = thread_cpu();
    let mut proposed = 0;
    while replicas.iter().any(|replica| replica.commands < commands) {
        let free = shape.window - (proposed - replicas[0].commands);
        let count = free.min(shape.batch).min(commands - proposed);
        for _ in 0..count {
            replicas[0].propose(Bytes::copy_from_slice(&payload));
        }
        if count > 0 {
            replicas[0].take_effects(&mut under_way);
            proposed += count;
        }
        round(&mut replicas, &mut under_way, &mut delivered);
    }
    let cpu = thread_cpu() - start;
    Measured { cpu, applied: [0, 1, 2].map(|at: usize| replicas[at].bytes) }
}
