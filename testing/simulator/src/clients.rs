//! Clients: what each kind asks next, given what it was told before.
//!
//! Invariant: every value ever written is written by one request only, so that whoever reads it
//! tells which request was done. Keys of different kinds of clients begin with different letters:
//! `r` registers, `c` counters (compared by revision), `l` keys on leases.

use bytes::Bytes;
use quorate_base::{Index, Rng};
use quorate_checkers::{Compare, End, Kv, Op, Outcome, Reply, Request, Span, Target};
use quorate_keyspace::Command;
use quorate_replicated_log::{Change, Epoch, Protocol};
use std::collections::BTreeMap;

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Reads, writes and compares a few keys.
    Register,
    /// Counts up by compare-and-swap on a revision.
    Counter,
    /// Makes a lease, keeps it for a while, then revokes it or leaves it.
    Lease,
    /// Compacts history now and then.
    Compactor,
    /// Asks on behalf of the nemesis and of the final check.
    Admin,
}

/// What a client wants next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Ask this.
    Ask(Request),
    /// Keep a lease alive.
    KeepAlive(i64),
    /// Change the members, with a command for the member table.
    Change {
        /// For the log.
        change: Change,
        /// What had been applied when it made sense.
        judged: Index,
        /// For the keyspace.
        command: Command,
    },
    /// Hand leadership to this node.
    Transfer(u64),
    /// Go on under another protocol, after that epoch.
    Switch(Protocol, Epoch),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LeaseStep {
    None,
    /// Granted, so many keys to attach and renewals to make.
    Held {
        id: i64,
        keys: u64,
        renewals: u64,
    },
}

/// One client.
#[derive(Debug)]
pub struct Client {
    /// Its number, from 1.
    pub id: u64,
    /// What it does.
    pub kind: Kind,
    /// The node it talks to.
    pub node: u64,
    /// Time to live of its leases, in seconds.
    pub ttl_seconds: i64,
    rng: Rng,
    written: u64,
    seen: BTreeMap<Bytes, Kv>,
    revision: u64,
    lease: LeaseStep,
    leases: i64,
}

impl Client {
    /// A client that begins with `node`.
    pub fn new(id: u64, kind: Kind, node: u64, mut rng: Rng) -> Self {
        let ttl_seconds = rng.between(1, 4) as i64;
        Client {
            id,
            kind,
            node,
            ttl_seconds,
            rng,
            written: 0,
            seen: BTreeMap::new(),
            revision: 1,
            lease: LeaseStep::None,
            leases: 0,
        }
    }

    /// The client's own randomness.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    fn value(&mut self) -> Bytes {
        self.written += 1;
        let mut value = format!("{}.{}", self.id, self.written).into_bytes();
        if self.rng.below(12) == 0 {
            value.resize(value.len() + self.rng.between(100, 4_000) as usize, b'.');
        }
        Bytes::from(value)
    }

    fn key(&mut self) -> Bytes {
        const KEYS: [&[u8]; 4] = [b"r0", b"r1", b"r2", b"r3"];
        Bytes::from_static(KEYS[self.rng.below(4) as usize])
    }

    fn put(&mut self, key: Bytes) -> Op {
        Op::Put { key, value: self.value(), lease: 0 }
    }

    /// What it wants next.
    pub fn next(&mut self) -> Wish {
        match self.kind {
            Kind::Register => Wish::Ask(self.register()),
            Kind::Counter => Wish::Ask(self.counter()),
            Kind::Lease => self.keep_lease(),
            Kind::Compactor | Kind::Admin => {
                let revision = self.revision.saturating_sub(self.rng.below(30)).max(2);
                Wish::Ask(Request::Compact { revision })
            }
        }
    }

    fn register(&mut self) -> Request {
        let key = self.key();
        match self.rng.below(100) {
            0..35 => Request::Op(self.put(key)),
            35..50 => Request::Op(Op::Range(Span::one(key))),
            50..60 => Request::Op(Op::Range(every_register())),
            60..68 => Request::Op(Op::Delete(Span::one(key))),
            68..70 => Request::Op(Op::Delete(every_register())),
            70..82 => self.swap(key),
            82..90 => self.exchange(key),
            90..95 => Request::Old { span: every_register(), revision: 0 },
            _ => {
                let back = self.rng.below(20);
                let revision = (self.revision + 1).saturating_sub(back).max(1);
                Request::Old { span: every_register(), revision }
            }
        }
    }

    fn as_seen(&self, key: &Bytes) -> Target {
        self.seen.get(key).map_or(Target::Version(0), |kv| Target::Value(kv.value.clone()))
    }

    /// Compare one key with what was seen last; then write it, else read it.
    fn swap(&mut self, key: Bytes) -> Request {
        let target = self.as_seen(&key);
        Request::Txn {
            compares: vec![Compare { key: key.clone(), target }],
            success: vec![self.put(key.clone())],
            failure: vec![Op::Range(Span::one(key))],
        }
    }

    /// Compare one key; then write two others, else delete one and read the rest.
    fn exchange(&mut self, key: Bytes) -> Request {
        let target = self.as_seen(&key);
        let (first, second) = (Bytes::from_static(b"r0"), Bytes::from_static(b"r3"));
        Request::Txn {
            compares: vec![Compare { key: key.clone(), target }],
            success: vec![self.put(first), self.put(second), Op::Range(every_register())],
            failure: vec![Op::Delete(Span::one(key)), Op::Range(every_register())],
        }
    }

    fn counter(&mut self) -> Request {
        let key = Bytes::from_static(if self.rng.below(2) == 0 { b"c0" } else { b"c1" });
        if !self.seen.contains_key(&key) && self.rng.below(2) == 0 {
            return Request::Op(Op::Range(Span::one(key)));
        }
        let target = match self.seen.get(&key) {
            Some(kv) if self.rng.below(4) == 0 => Target::Create(kv.create),
            Some(kv) if self.rng.below(3) == 0 => Target::Version(kv.version),
            Some(kv) => Target::Mod(kv.modified),
            None => Target::Create(0),
        };
        Request::Txn {
            compares: vec![Compare { key: key.clone(), target }],
            success: vec![self.put(key.clone())],
            failure: vec![Op::Range(Span::one(key))],
        }
    }

    fn keep_lease(&mut self) -> Wish {
        match self.lease {
            LeaseStep::None => {
                self.leases += 1;
                // Nobody else's, however many this client has had.
                let (round, n) = (self.leases / 1_000, self.leases % 1_000);
                let id = round * 1_000_000 + self.id as i64 * 1_000 + n;
                Wish::Ask(Request::Grant { id })
            }
            LeaseStep::Held { id, keys: 1.., .. } => {
                let key = Bytes::from(format!("l{}", self.rng.below(6)));
                Wish::Ask(Request::Op(Op::Put { key, value: self.value(), lease: id }))
            }
            LeaseStep::Held { id, renewals: 0, .. } => {
                self.lease = LeaseStep::None;
                if self.rng.below(3) == 0 {
                    return Wish::Ask(Request::Revoke { id });
                }
                self.keep_lease() // Leaves it to its end.
            }
            LeaseStep::Held { id, .. } => Wish::KeepAlive(id),
        }
    }

    /// It was told how a request ended.
    pub fn ended(&mut self, request: &Request, end: &End) {
        let End::Answered { reply, .. } = end else { return };
        self.revision = self.revision.max(reply.revision);
        self.learn(reply);
        match (request, &reply.outcome, self.lease) {
            (Request::Grant { .. }, Outcome::Refused(_), _) => self.lease = LeaseStep::None,
            (Request::Grant { id }, _, _) => {
                let (keys, renewals) = (self.rng.between(1, 3), self.rng.below(8));
                self.lease = LeaseStep::Held { id: *id, keys, renewals };
            }
            (Request::Op(Op::Put { lease: 1.., .. }), Outcome::Refused(_), _) => {
                self.lease = LeaseStep::None;
            }
            (Request::Op(Op::Put { .. }), _, LeaseStep::Held { id, keys, renewals }) => {
                self.lease = LeaseStep::Held { id, keys: keys.saturating_sub(1), renewals };
            }
            _ => {}
        }
    }

    /// A keep-alive ended: the lease lives on, is gone, or nobody knows.
    pub fn kept_alive(&mut self, lives: Option<bool>) {
        if let LeaseStep::Held { id, keys, renewals } = self.lease {
            self.lease = match lives {
                Some(false) => LeaseStep::None,
                _ => LeaseStep::Held { id, keys, renewals: renewals.saturating_sub(1) },
            };
        }
    }

    /// How long it pauses, as a part of the usual pause in percent.
    pub fn haste_percent(&self) -> u32 {
        match self.kind {
            Kind::Register | Kind::Counter => 100,
            Kind::Lease => 150,
            Kind::Compactor | Kind::Admin => 1_500,
        }
    }

    fn learn(&mut self, reply: &Reply) {
        let mut learn = |outcome: &Outcome| {
            if let Outcome::Found(kvs) = outcome {
                for kv in kvs {
                    self.seen.insert(kv.key.clone(), kv.clone());
                }
            }
        };
        match &reply.outcome {
            Outcome::Txn { outcomes, .. } => outcomes.iter().for_each(learn),
            outcome => learn(outcome),
        }
    }
}

/// All register keys.
pub fn every_register() -> Span {
    Span { from: Bytes::from_static(b"r"), to: Some(Bytes::from_static(b"s")) }
}
