//! One replica of a keyspace over an engine in memory, with the log that it was fed.

use bytes::Bytes;
use quorate_base::{Ballot, NodeId, Position, RequestId};
use quorate_keyspace::canary::Canary;
use quorate_keyspace::command::{Member, MemberChange};
use quorate_keyspace::{Command, Config, EventBatch, Keyspace, Reply, codec};
use quorate_mvcc::{Event, MemoryEngine};
use quorate_replicated_log::{Base, Entries, Entry, Membership, Payload};
use quorate_service::{Applied, Envelope, Service};

pub const BALLOT: Ballot = Ballot::new(5, NodeId(1));

pub fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn config(canary: Canary) -> Config {
    let member = |n: u64| Member {
        id: NodeId(n),
        name: format!("n{n}"),
        peer_urls: vec![format!("http://p{n}")],
        ..Member::default()
    };
    Config {
        base: Base {
            position: Position::new(0, BALLOT),
            membership: Membership::of([NodeId(1), NodeId(2), NodeId(3)]),
            ..Base::default()
        },
        members: vec![member(1), member(2), member(3)],
        canary,
        ..Config::default()
    }
}

pub struct Replica {
    pub engine: MemoryEngine,
    pub keyspace: Keyspace<MemoryEngine>,
    pub log: Vec<Entry>,
    pub events: Vec<Event>,
    pub batches: Vec<EventBatch>,
    canary: Canary,
    sequence: u64,
}

impl Replica {
    pub fn new(canary: Canary) -> Self {
        let engine = MemoryEngine::new();
        let keyspace = Keyspace::open(engine.clone(), config(canary)).expect("an empty engine");
        let (log, events, batches) = (Vec::new(), Vec::new(), Vec::new());
        Replica { engine, keyspace, log, events, batches, canary, sequence: 0 }
    }

    pub fn next_entry(&self, payload: Payload) -> Entry {
        Entry { index: self.log.len() as u64 + 1, ballot: BALLOT, payload }
    }

    /// The bytes of a command from node 1, as a new request.
    pub fn envelope(&mut self, command: &Command) -> Bytes {
        self.sequence += 1;
        let (sequence, settled) = (self.sequence, self.sequence.saturating_sub(4));
        let request = RequestId { node: NodeId(1), run: 1, sequence, settled };
        Envelope::encode(request, &codec::encode(command).expect("flat enough"))
    }

    /// Applies one more entry.
    pub fn push(&mut self, payload: Payload) -> Vec<(RequestId, Reply)> {
        let entry = self.next_entry(payload);
        self.log.push(entry.clone());
        self.apply(vec![entry])
    }

    pub fn apply(&mut self, entries: Vec<Entry>) -> Vec<(RequestId, Reply)> {
        let mut applied = Applied::default();
        self.keyspace.apply(&Entries::new(entries), &mut applied).expect("applied");
        for batch in applied.publications {
            self.events.extend_from_slice(&batch.events);
            self.batches.push(batch);
        }
        applied.replies
    }

    /// Applies a command as a new request and returns its reply.
    pub fn run(&mut self, command: Command) -> Reply {
        let bytes = self.envelope(&command);
        let mut replies = self.push(Payload::Command(bytes));
        assert_eq!(replies.len(), 1, "one request, one reply");
        replies.remove(0).1
    }

    /// Applies a command as a new request; its number, and all replies that came of it: its own
    /// unless it waits, and those of others that waited.
    pub fn ask(&mut self, command: &Command) -> (u64, Vec<(u64, Reply)>) {
        let bytes = self.envelope(command);
        let replies = self.push(Payload::Command(bytes));
        let replies = replies.into_iter().map(|(request, reply)| (request.sequence, reply));
        (self.sequence, replies.collect())
    }

    /// Applies a change of members together with the log's.
    pub fn change(&mut self, change: MemberChange, membership: Membership) -> Reply {
        let context = self.envelope(&Command::Member(change));
        let mut replies = self.push(Payload::members(membership, context));
        assert_eq!(replies.len(), 1, "one request, one reply");
        replies.remove(0).1
    }

    /// Everything applied is durable.
    pub fn persist(&mut self) {
        self.keyspace.persist()().expect("persisted");
    }

    /// A power failure, and the log's replay from where the store ends. Returns how many entries
    /// were replayed.
    pub fn crash(&mut self) -> usize {
        self.engine.crash(0);
        let config = config(self.canary);
        self.keyspace = Keyspace::open(self.engine.clone(), config).expect("reopened");
        let from = self.keyspace.base().position.index as usize;
        let mut applied = Applied::default();
        let entries = Entries::new(self.log[from..].to_vec());
        self.keyspace.apply(&entries, &mut applied).expect("replayed");
        self.log.len() - from
    }

    pub fn hash(&self) -> u64 {
        self.keyspace.reader().hash().expect("hashed").hash
    }
}
