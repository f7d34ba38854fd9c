//! A node of one: commands are applied to a keyspace in memory, at once and in order.
//!
//! It can be told to lose its leader, to be a learner, or to hold its answers back.

use parking_lot::Mutex;
use quorate_base::{Ballot, ClusterId, Instant, NodeId, RequestId};
use quorate_etcd::backend::{
    Backend, BackendError, Consensus, Identity, Listener, Storage, Subscription,
};
use quorate_keyspace::command::{Command, Member, MemberChange};
use quorate_keyspace::{Config, Keyspace, LeaseAnswer, Question, Reader, Reply, codec};
use quorate_mvcc::MemoryEngine;
use quorate_replicated_log::{Base, Entries, Entry, Membership, Payload};
use quorate_service::{Applied, Envelope, Service, SnapshotSource};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub const CLUSTER: ClusterId = ClusterId(0xc1);
pub const MEMBER: NodeId = NodeId(0x11);
pub const OTHER: NodeId = NodeId(0x22);
const TERM: u64 = 3;

#[derive(Clone)]
pub struct Local(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    reader: Reader<MemoryEngine>,
    leader: AtomicU64,
    learner: AtomicBool,
    quota: AtomicU64,
    started: std::time::Instant,
}

struct State {
    keyspace: Keyspace<MemoryEngine>,
    sequence: u64,
    listeners: Vec<Arc<dyn Listener>>,
}

fn member(id: NodeId, name: &str) -> Member {
    let peer_urls = vec![format!("http://127.0.0.1:{}", 2380 + id.0)];
    let client_urls = vec![format!("http://127.0.0.1:{}", 2379 + id.0)];
    Member { id, name: name.to_owned(), peer_urls, client_urls, learner: false }
}

impl Local {
    pub fn new() -> Local {
        let members = vec![member(MEMBER, "one"), member(OTHER, "two")];
        let base = Base { membership: Membership::of([MEMBER, OTHER]), ..Base::default() };
        let config = Config { base, members, ..Config::default() };
        let mut keyspace = Keyspace::open(MemoryEngine::new(), config).unwrap();
        keyspace.lead(Instant(0));
        let reader = keyspace.reader();
        let state = State { keyspace, sequence: 0, listeners: Vec::new() };
        let local = Local(Arc::new(Shared {
            state: Mutex::new(state),
            reader,
            leader: AtomicU64::new(MEMBER.0),
            learner: AtomicBool::new(false),
            quota: AtomicU64::new(1 << 40),
            started: std::time::Instant::now(),
        }));
        tokio::spawn(local.clone().tick());
        local
    }

    pub fn set_leader(&self, leader: NodeId) {
        self.0.leader.store(leader.0, Ordering::Relaxed);
    }

    pub fn set_learner(&self, learner: bool) {
        self.0.learner.store(learner, Ordering::Relaxed);
    }

    pub fn set_quota(&self, bytes: u64) {
        self.0.quota.store(bytes, Ordering::Relaxed);
    }

    fn now(&self) -> Instant {
        Instant(0) + self.0.started.elapsed()
    }

    async fn tick(self) {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut commands = Vec::new();
            self.0.state.lock().keyspace.tick(self.now(), &mut commands);
            for body in commands {
                self.apply(body, None);
            }
        }
    }

    fn apply(&self, body: bytes::Bytes, members: Option<Membership>) -> Reply {
        let mut state = self.0.state.lock();
        state.sequence += 1;
        let sequence = state.sequence;
        let request = RequestId { node: MEMBER, run: 1, sequence, settled: sequence };
        let bytes = Envelope::encode(request, &body);
        let payload = match members {
            Some(membership) => Payload::members(membership, bytes),
            None => Payload::Command(bytes),
        };
        let index = state.keyspace.base().position.index + 1;
        let entry = Entry { index, ballot: Ballot::new(TERM, MEMBER), payload };
        let mut applied = Applied::default();
        state.keyspace.apply(&Entries::new(vec![entry]), &mut applied).unwrap();
        for listener in &state.listeners {
            listener.publish(&applied.publications);
        }
        applied.replies.pop().unwrap().1
    }

    async fn reach(&self, timeout: Duration) -> Result<(), BackendError> {
        if self.consensus().leader.is_none() {
            tokio::time::sleep(timeout).await;
            return Err(BackendError::NoLeader);
        }
        Ok(())
    }
}

impl Backend for Local {
    type Engine = MemoryEngine;

    fn identity(&self) -> Identity {
        Identity { cluster: CLUSTER, member: MEMBER }
    }

    fn consensus(&self) -> Consensus {
        let applied = self.0.reader.applied();
        Consensus {
            leader: NodeId(self.0.leader.load(Ordering::Relaxed)),
            term: TERM,
            commit: applied,
            applied,
            is_learner: self.0.learner.load(Ordering::Relaxed),
        }
    }

    fn storage(&self) -> Storage {
        Storage { size: 4096, quota: 1 << 31 }
    }

    fn fits(&self, bytes: u64) -> bool {
        let logical = self.0.reader.sizes().logical_bytes;
        logical + bytes <= self.0.quota.load(Ordering::Relaxed)
    }

    fn reader(&self) -> &Reader<MemoryEngine> {
        &self.0.reader
    }

    async fn propose(&self, command: Command, timeout: Duration) -> Result<Reply, BackendError> {
        self.reach(timeout).await?;
        let body = codec::encode(&command).map_err(|_| BackendError::TooLarge)?;
        Ok(self.apply(body, None))
    }

    async fn read_barrier(&self, timeout: Duration) -> Result<(), BackendError> {
        self.reach(timeout).await
    }

    async fn query(
        &self,
        question: Question,
        timeout: Duration,
    ) -> Result<LeaseAnswer, BackendError> {
        self.reach(timeout).await?;
        let now = self.now();
        let answer = self.0.state.lock().keyspace.query(now, question.encode()).unwrap();
        Ok(LeaseAnswer::decode(answer).unwrap())
    }

    async fn change_members(
        &self,
        change: MemberChange,
        timeout: Duration,
    ) -> Result<Reply, BackendError> {
        self.reach(timeout).await?;
        self.0.reader.check_member(&change, 1).map_err(BackendError::Refused)?;
        let mut members = self.0.state.lock().keyspace.base().membership;
        match &change {
            MemberChange::Add(m) if m.learner => members.learners.push(m.id),
            MemberChange::Add(m) => members.voters.push(m.id),
            MemberChange::Promote(id) => {
                members.learners.retain(|other| other != id);
                members.voters.push(*id);
            }
            MemberChange::Remove(id) => {
                members.learners.retain(|other| other != id);
                members.voters.retain(|other| other != id);
            }
            MemberChange::UpdatePeers { .. } | MemberChange::Publish { .. } => {}
        }
        members.voters.sort_unstable();
        let body = codec::encode(&Command::Member(change)).unwrap();
        Ok(self.apply(body, Some(members)))
    }

    async fn transfer_leadership(&self, to: NodeId, _: Duration) -> Result<(), BackendError> {
        self.set_leader(to);
        Ok(())
    }

    async fn defragment(&self) -> Result<(), BackendError> {
        Ok(())
    }

    async fn snapshot(&self) -> Result<Box<dyn SnapshotSource>, BackendError> {
        Ok(self.0.state.lock().keyspace.snapshot().unwrap())
    }

    fn subscribe(&self, listener: Arc<dyn Listener>) -> Subscription {
        self.0.state.lock().listeners.push(listener);
        Subscription::new(())
    }
}
