//! The world: nodes, network, clients and nemesis in one thread, in the order of one queue.
//!
//! Invariant: everything that happens is an event of the queue, taken in order of (time, node,
//! age); every random choice comes from generators forked from the seed. So the same seed and
//! options give the same run.

use crate::canary::Canary;
use crate::clients::{Client, Kind};
use crate::counters::{Counters, Happening};
use crate::damage::Atlas;
use crate::network::Network;
use crate::node::Node;
use crate::plan::Plan;
use crate::queue::Queue;
use crate::record::Record;
use crate::seats::{Attempt, Seat};
use crate::trace::Trace;
use crate::transactions::Transactions;
use crate::watching::Watcher;
use quorate_base::{GroupId, Instant, NodeId, Rng};
use quorate_checkers::Violation;
use quorate_driver::{Answer, PeerMessage, RequestError};
use quorate_keyspace::Reply;
use std::time::Duration;

/// No run has nearly as many, at first and in each further second.
const MOST_EVENTS: u64 = 1_000_000;
const MOST_EVENTS_PER_SECOND: u64 = 200_000;

/// The group that everything is about.
pub const GROUP: GroupId = GroupId(1);

/// What a request was answered.
pub type Answered = Result<Answer<Reply>, RequestError>;

/// What is to happen.
#[derive(Debug)]
pub enum Happens {
    /// A peer's message arrives.
    Peer {
        /// At whom.
        to: u64,
        /// From whom.
        from: u64,
        /// What.
        message: PeerMessage,
    },
    /// A node notices that a connection broke.
    PeerLost {
        /// Who notices.
        to: u64,
        /// To whom.
        peer: u64,
    },
    /// A node's driver is polled.
    Poll(Alive),
    /// A node's disk may have completed something.
    Disk(Alive),
    /// A node's service does the work that waits.
    Service(Alive),
    /// A node's engine has been made durable.
    Persist(Alive),
    /// A node starts.
    Boot(u64),
    /// A client wants something.
    Want(usize),
    /// A client's request arrives at its node.
    Arrive(usize, Attempt),
    /// A client's answer arrives.
    Answer(usize, Attempt, Box<Answered>),
    /// A node reads for a client.
    Read(usize, Attempt, Alive),
    /// A client has waited too long.
    GiveUp(usize, Attempt),
    /// A watcher looks whether there is news.
    Watch(usize),
    /// The nemesis does something.
    Nemesis,
    /// The further groups are asked something.
    Bustle,
    /// A client of transactions wants something, or looks what became of it.
    Scribe(usize),
    /// A node looks after transactions.
    LookAround(Alive),
    /// A node asks something on behalf of a transaction again.
    AskAgain(Alive, u64),
    /// The nemesis undoes something: links to be mended.
    Mend(Vec<(u64, u64)>),
    /// A disk has room again.
    Room(u64),
    /// A change of members is to be tried.
    Admin(u32),
    /// A node loses power.
    Strike(Alive),
    /// A removed node is shut down.
    Retire(u64),
    /// A reader's answer arrives at a client.
    Told(usize, Attempt, Box<quorate_checkers::Reply>),
}

/// One life of a node: what is meant for an earlier one is void.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alive {
    /// The node.
    pub node: u64,
    /// Which life.
    pub life: u64,
}

/// The world.
pub struct World<'t> {
    pub now: Instant,
    pub seed: u64,
    pub plan: Plan,
    pub canary: Canary,
    pub rng: Rng,
    pub queue: Queue<Happens>,
    pub network: Network,
    pub nodes: Vec<Node>,
    pub seats: Vec<Seat>,
    pub watchers: Vec<Watcher>,
    pub record: Record,
    pub transactions: Transactions,
    pub atlas: Atlas,
    pub counters: Counters,
    pub trace: Trace<'t>,
    pub violation: Option<Violation>,
    /// No more faults: the run must now make progress.
    pub healing: bool,
    /// Clients ask nothing new.
    pub quiet: bool,
    /// How much has happened.
    events: u64,
}

impl<'t> World<'t> {
    /// The world of a seed, before its first moment.
    pub fn new(seed: u64, mut rng: Rng, plan: Plan, canary: Canary, trace: Trace<'t>) -> Self {
        let network = Network::new(plan.network.clone(), rng.fork(2), plan.ids as usize);
        let nodes = (1..=plan.ids).map(|id| Node::new(id, &plan, &mut rng)).collect();
        let mut seats = Vec::new();
        let crowd = plan.clients;
        let kinds = [
            (Kind::Register, crowd.registers),
            (Kind::Counter, crowd.counters),
            (Kind::Lease, crowd.leases),
            (Kind::Compactor, crowd.compactors),
        ];
        for (kind, count) in kinds {
            for _ in 0..count {
                let id = seats.len() as u64 + 1;
                let client = Client::new(id, kind, rng.between(1, plan.nodes), rng.fork(100 + id));
                seats.push(Seat::new(client));
            }
        }
        // One more asks on behalf of the nemesis and of the final check.
        let id = seats.len() as u64 + 1;
        seats.push(Seat::new(Client::new(id, Kind::Admin, 1, rng.fork(99))));
        let watchers = (0..crowd.watchers as u64)
            .map(|i| Watcher::new(i, rng.between(1, plan.nodes), &mut rng))
            .collect();
        let atlas = Atlas::new(plan.damageable.clone(), plan.helix);
        World {
            now: Instant::ZERO,
            seed,
            canary,
            queue: Queue::default(),
            network,
            nodes,
            seats,
            watchers,
            record: Record::new(plan.ids, plan.nodes, plan.protocol),
            transactions: Transactions::new(seed, plan.scribes),
            atlas,
            counters: Counters::default(),
            trace,
            violation: None,
            healing: false,
            quiet: false,
            events: 0,
            rng,
            plan,
        }
    }

    /// Schedules the first events.
    pub fn begin(&mut self) {
        for id in 1..=self.plan.nodes {
            self.node(id).member = true;
            let at = self.now + self.rng.duration(Duration::ZERO, Duration::from_millis(50));
            self.queue.push(at, id as u32, Happens::Boot(id));
        }
        for seat in 0..self.seats.len() {
            let at = self.now + self.rng.duration(Duration::ZERO, Duration::from_secs(1));
            self.queue.push(at, 1_000 + seat as u32, Happens::Want(seat));
        }
        for watcher in 0..self.watchers.len() {
            self.queue.push(self.now, 2_000 + watcher as u32, Happens::Watch(watcher));
        }
        self.queue.push(self.now + Duration::from_secs(1), 3_000, Happens::Nemesis);
        if self.plan.neighbours > 0 {
            self.queue.push(self.now, 4_000, Happens::Bustle);
        }
        for scribe in 0..self.plan.scribes {
            let at = self.now + Duration::from_millis(500);
            self.queue.push(at, 5_000 + scribe as u32, Happens::Scribe(scribe));
        }
    }

    /// Lets everything happen until then, or until something is violated.
    pub fn run_until(&mut self, until: Instant) {
        while self.violation.is_none()
            && self.queue.next_at().is_some_and(|at| at <= until)
            && let Some((at, what)) = self.queue.pop()
        {
            debug_assert!(at >= self.now, "time never goes back");
            self.now = at;
            self.happen(what);
            self.events += 1;
            let seconds = at.since(Instant::ZERO).as_secs();
            if self.events > MOST_EVENTS + MOST_EVENTS_PER_SECOND * seconds {
                let text = format!("{} events until {at:?}: somebody goes round", self.events);
                self.check(Err(Violation::new("work is bounded", text)));
            }
        }
        if self.violation.is_none() {
            self.now = self.now.max(until);
        }
    }

    fn happen(&mut self, what: Happens) {
        // What is meant for a frozen node waits until it thaws.
        if let Some(node) = what.node() {
            let frozen = self.node(node).frozen_until;
            if frozen > self.now {
                // Not in the old order: a socket may be read before another.
                let jitter = self.rng.duration(Duration::ZERO, Duration::from_millis(2));
                self.queue.push(frozen + jitter, node as u32, what);
                return;
            }
        }
        self.trace.note(self.now, what.node().unwrap_or(0), what.kind(), what.detail());
        match what {
            Happens::Peer { to, from, message } => self.peer_message(to, from, message),
            Happens::PeerLost { to, peer } => self.peer_lost(to, peer),
            Happens::Poll(alive) => self.if_alive(alive, World::poll),
            Happens::Disk(alive) => self.if_alive(alive, World::disk_event),
            Happens::Service(alive) => self.if_alive(alive, World::serve),
            Happens::Persist(alive) => self.if_alive(alive, World::persisted),
            Happens::Boot(node) => self.boot(node),
            Happens::Want(seat) => self.want(seat),
            Happens::Arrive(seat, attempt) => self.arrive(seat, attempt),
            Happens::Answer(seat, attempt, answer) => self.answered(seat, attempt, *answer),
            Happens::Read(seat, attempt, alive) => self.read(seat, attempt, alive),
            Happens::GiveUp(seat, attempt) => self.give_up(seat, attempt),
            Happens::Watch(watcher) => self.watch(watcher),
            Happens::Nemesis => self.nemesis(),
            Happens::Bustle => self.bustle(),
            Happens::Scribe(scribe) => self.scribe(scribe),
            Happens::LookAround(alive) => self.if_alive(alive, World::look_around),
            Happens::AskAgain(alive, number) => {
                self.if_alive(alive, |world, id| world.ask_group(id, number));
            }
            Happens::Mend(links) => self.mend(&links),
            Happens::Room(node) => self.node(node).disk.set_full(false),
            Happens::Admin(step) => self.admin(step),
            Happens::Strike(alive) => self.if_alive(alive, World::crash),
            Happens::Retire(node) => self.retire(node),
            Happens::Told(seat, attempt, reply) => self.told(seat, attempt, *reply),
        }
    }

    fn if_alive(&mut self, alive: Alive, act: impl FnOnce(&mut Self, u64)) {
        if self.node(alive.node).life == alive.life {
            act(self, alive.node);
        }
    }

    /// One node.
    pub fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    /// A random moment from now on, at most `most` away.
    pub fn soon(&mut self, most: Duration) -> Instant {
        self.now + self.rng.duration(Duration::from_nanos(1), most)
    }

    /// Notes a violation; the first counts.
    pub fn check(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result
            && self.violation.is_none()
        {
            self.line(0, format_args!("VIOLATION of {violation}"));
            self.violation = Some(violation);
        }
    }

    /// Counts something.
    pub fn count(&mut self, what: Happening) {
        self.counters.add(what);
    }

    /// A line of the trace.
    pub fn line(&mut self, node: u64, text: std::fmt::Arguments<'_>) {
        self.trace.line(self.now, node, text);
    }

    /// Sends a message over the network.
    pub fn send(&mut self, from: u64, to: NodeId, message: PeerMessage) {
        let to = to.0;
        if to == from || to == 0 || to > self.plan.ids {
            return;
        }
        self.record_sent(NodeId(from), NodeId(to), &message);
        let fate = self.network.send(self.now, from, to, &mut self.counters);
        if fate.reset {
            self.count(Happening::ConnectionReset);
            for (a, b) in [(from, to), (to, from)] {
                let at = self.soon(Duration::from_millis(2));
                self.queue.push(at, a as u32, Happens::PeerLost { to: a, peer: b });
            }
        }
        let Some(at) = fate.arrives else { return };
        let mut message = self.through_the_codec(message);
        self.damage_snapshot(&mut message);
        if let Some(again) = fate.again {
            let message = message.clone();
            self.queue.push(again, to as u32, Happens::Peer { to, from, message });
        }
        self.queue.push(at, to as u32, Happens::Peer { to, from, message });
    }

    /// Some messages travel as bytes: what is decoded must be what was encoded.
    fn through_the_codec(&mut self, message: PeerMessage) -> PeerMessage {
        if !self.rng.chance_ppm(self.plan.codec_ppm) {
            return message;
        }
        match crate::codec::round_trip(&message) {
            Ok(back) => back,
            Err(violation) => {
                self.check(Err(violation));
                message
            }
        }
    }
}

impl Happens {
    /// Whom it happens to, if to a node.
    fn node(&self) -> Option<u64> {
        match self {
            Happens::Peer { to, .. } | Happens::PeerLost { to, .. } => Some(*to),
            Happens::Poll(alive)
            | Happens::Disk(alive)
            | Happens::Service(alive)
            | Happens::Persist(alive)
            | Happens::LookAround(alive)
            | Happens::AskAgain(alive, _)
            | Happens::Read(_, _, alive) => Some(alive.node),
            Happens::Boot(_)
            | Happens::Want(_)
            | Happens::Arrive(..)
            | Happens::Answer(..)
            | Happens::GiveUp(..)
            | Happens::Watch(_)
            | Happens::Nemesis
            | Happens::Bustle
            | Happens::Scribe(_)
            | Happens::Mend(_)
            | Happens::Room(_)
            | Happens::Admin(_)
            | Happens::Strike(_)
            | Happens::Retire(_)
            | Happens::Told(..) => None,
        }
    }

    fn kind(&self) -> u64 {
        match self {
            Happens::Peer { .. } => 1,
            Happens::PeerLost { .. } => 2,
            Happens::Poll(_) => 3,
            Happens::Disk(_) => 4,
            Happens::Service(_) => 5,
            Happens::Persist(_) => 6,
            Happens::Boot(_) => 7,
            Happens::Want(_) => 8,
            Happens::Arrive(..) => 9,
            Happens::Answer(..) => 10,
            Happens::Read(..) => 11,
            Happens::GiveUp(..) => 12,
            Happens::Watch(_) => 13,
            Happens::Nemesis => 14,
            Happens::Bustle => 30,
            Happens::Mend(_) => 15,
            Happens::Room(_) => 16,
            Happens::Admin(_) => 17,
            Happens::Retire(_) => 18,
            Happens::Told(..) => 19,
            Happens::Strike(_) => 20,
            Happens::Scribe(_) => 21,
            Happens::LookAround(_) => 22,
            Happens::AskAgain(..) => 23,
        }
    }

    fn detail(&self) -> u64 {
        match self {
            Happens::Peer { from, message, .. } => crate::codec::digest(*from, message),
            Happens::PeerLost { peer, .. } => *peer,
            Happens::Poll(alive)
            | Happens::Disk(alive)
            | Happens::Service(alive)
            | Happens::Persist(alive)
            | Happens::LookAround(alive)
            | Happens::Strike(alive) => alive.life,
            Happens::AskAgain(_, number) => *number,
            Happens::Boot(node) | Happens::Room(node) | Happens::Retire(node) => *node,
            Happens::Want(n) | Happens::Watch(n) | Happens::Scribe(n) => *n as u64,
            Happens::Arrive(n, attempt)
            | Happens::Answer(n, attempt, _)
            | Happens::Read(n, attempt, _)
            | Happens::GiveUp(n, attempt)
            | Happens::Told(n, attempt, _) => (*n as u64) << 32 | attempt.0,
            Happens::Nemesis | Happens::Bustle => 0,
            Happens::Mend(links) => links.len() as u64,
            Happens::Admin(step) => u64::from(*step),
        }
    }
}
