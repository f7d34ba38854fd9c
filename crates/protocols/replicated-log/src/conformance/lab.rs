//! A few replicas whose every message, write and tick is moved by hand, and what they do in words.
//!
//! Whatever moves, these are checked: nothing leaves before the write it waits for; no two
//! replicas commit different entries; a round has one leader; no read is ready below what was
//! committed when it was asked.

use super::cluster::Factory;
use super::disk::Disk;
use super::words;
use crate::{
    Base, Body, Change, Config, Effects, Entry, Epoch, Event, Input, Limits, Membership, Message,
    ProposalId, Protocol, ReadId, ReplicatedLog, Role, Send, SnapshotWanted, Write, WriteId,
};
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use quorate_base::{Index, Instant, NodeId};

/// What replicas there are.
pub(super) struct Options {
    pub nodes: u64,
    pub voters: u64,
    pub lease_clock_drift_ppm: Option<u32>,
    pub limits: Limits,
    /// The service loses its state with every crash: what is in the log is applied again.
    pub volatile: bool,
    /// Nothing is pulled: those messages are lost unseen.
    pub no_pulls: bool,
}

struct Node {
    log: Option<Box<dyn ReplicatedLog>>,
    run: u64,
    disk: Disk,
    applied: Base,
    writing: VecDeque<Write>,
    done: WriteId,
    gated: Vec<Send>,
    stalled: bool,
}

#[derive(Clone)]
struct Parcel {
    from: u64,
    to: u64,
    message: Message,
}

pub(super) struct Lab {
    factory: Factory,
    protocol: Protocol,
    options: Options,
    now: Instant,
    nodes: Vec<Node>,
    net: VecDeque<Parcel>,
    kept: BTreeMap<String, Vec<Parcel>>,
    cut: BTreeSet<(u64, u64)>,
    wanted: Vec<(u64, SnapshotWanted)>,
    chosen: BTreeMap<Index, Entry>,
    leaders: BTreeMap<u64, u64>,
    asked: BTreeMap<(u64, u64), Index>,
    attempts: Vec<u64>,
    proposals: u64,
    out: String,
}

impl Lab {
    pub fn new(factory: Factory, options: Options) -> Self {
        let membership = Membership::of((1..=options.voters).map(NodeId));
        let founding = Base { membership, ..Base::default() };
        let node = |id| {
            let base = if id <= options.voters { founding.clone() } else { Base::default() };
            Node {
                log: None,
                run: 0,
                disk: Disk::new(base.clone()),
                applied: base,
                writing: VecDeque::new(),
                done: WriteId(0),
                gated: Vec::new(),
                stalled: false,
            }
        };
        let mut lab = Lab {
            factory,
            protocol: Protocol::Raft,
            nodes: (1..=options.nodes).map(node).collect(),
            options,
            now: Instant::ZERO,
            net: VecDeque::new(),
            kept: BTreeMap::new(),
            cut: BTreeSet::new(),
            wanted: Vec::new(),
            chosen: BTreeMap::new(),
            leaders: BTreeMap::new(),
            asked: BTreeMap::new(),
            attempts: Vec::new(),
            proposals: 0,
            out: String::new(),
        };
        (1..=lab.options.nodes).for_each(|id| lab.start(id));
        lab
    }

    /// What was said since the last time.
    pub fn take_output(&mut self) -> String {
        core::mem::take(&mut self.out)
    }

    fn say(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    pub fn start(&mut self, id: u64) {
        let config = Config {
            node: NodeId(id),
            epoch: Epoch(0),
            opens: false,
            heartbeat: Duration::from_millis(20),
            election_timeout: Duration::from_millis(100),
            patience: Duration::from_millis(100),
            lease_clock_drift_ppm: self.options.lease_clock_drift_ppm,
            seed: id * 100 + self.node(id).run,
            limits: self.options.limits,
        };
        let (now, factory) = (self.now, self.factory);
        let node = self.node(id);
        assert!(node.log.is_none(), "{id} runs");
        node.run += 1;
        node.done = WriteId(0);
        assert!(node.applied.epoch == Epoch(0), "{id} has applied the end of the epoch");
        let recovered = node.disk.recover(&node.applied);
        let log = factory(config, now, recovered);
        let protocol = log.protocol();
        node.log = Some(log);
        self.protocol = protocol;
        self.step(id, Input::Tick);
    }

    /// What was not written is lost.
    pub fn crash(&mut self, id: u64) {
        let volatile = self.options.volatile;
        let node = self.node(id);
        node.log = None;
        node.writing.clear();
        node.gated.clear();
        if volatile {
            node.applied = node.disk.base();
        }
        self.asked.retain(|(reader, _), _| *reader != id);
    }

    /// A node loses its disk: it knows nothing, not even its group.
    pub fn wipe(&mut self, id: u64) {
        self.crash(id);
        let node = self.node(id);
        node.disk = Disk::default();
        node.applied = Base::default();
    }

    pub fn damage(&mut self, id: u64, from: Index, to: Index) {
        let node = self.node(id);
        assert!(node.log.is_none(), "{id} runs");
        (from..=to).for_each(|index| node.disk.damage(index, true));
    }

    /// Lets time pass. Replicas tick when they are due; no message arrives.
    pub fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let due = |node: &Node| node.log.as_ref().and_then(|log| log.next_timeout());
            let next = self.nodes.iter().zip(1..).filter_map(|(n, id)| Some((due(n)?, id))).min();
            let Some((at, id)) = next.filter(|(at, _)| *at <= until) else { break };
            self.now = self.now.max(at);
            self.say(&format!("{id} ticks"));
            self.step(id, Input::Tick);
        }
        self.now = until;
    }

    /// Lets time pass while writes end and messages arrive at once; stops before `except` ticks.
    pub fn run(&mut self, time: Duration, except: Option<u64>) {
        let until = self.now + time;
        self.settle();
        loop {
            let due = |node: &Node| node.log.as_ref().and_then(|log| log.next_timeout());
            let next = self.nodes.iter().zip(1..).filter_map(|(n, id)| Some((due(n)?, id))).min();
            let Some((at, id)) = next.filter(|(at, _)| *at <= until) else { break };
            if Some(id) == except {
                return;
            }
            self.now = self.now.max(at);
            self.say(&format!("{id} ticks"));
            self.step(id, Input::Tick);
            self.settle();
        }
        self.now = until;
    }

    /// The others go about their business until this replica is due, of which nothing is printed.
    pub fn due(&mut self, id: u64) {
        let before = self.out.len();
        self.run(Duration::from_secs(1), Some(id));
        self.out.truncate(before);
        self.timeout(id);
    }

    /// Time passes until this replica is due; nobody else notices yet.
    pub fn timeout(&mut self, id: u64) {
        let due = self.node(id).log.as_ref().and_then(|log| log.next_timeout());
        self.now = self.now.max(due.unwrap_or(self.now));
        self.step(id, Input::Tick);
    }

    /// Writes end and messages arrive until there are none. Stalled disks stay so.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let ready = |n: &Node| !n.stalled && !n.writing.is_empty();
            if let Some(at) = self.nodes.iter().position(ready) {
                self.write(at as u64 + 1);
            } else if let Some(parcel) = self.net.pop_front() {
                self.arrive(parcel);
            } else {
                return;
            }
        }
        panic!("it never settles");
    }

    /// The oldest write of a node ends.
    pub fn write(&mut self, id: u64) {
        let node = self.node(id);
        let Some(write) = node.writing.pop_front() else {
            return self.say("  (nothing to write)");
        };
        node.disk.apply(&write);
        node.done = write.id;
        let open = |send: &Send| send.after.is_none_or(|after| after <= write.id);
        let (free, gated): (Vec<Send>, Vec<Send>) =
            core::mem::take(&mut node.gated).into_iter().partition(open);
        node.gated = gated;
        for send in free {
            self.net.push_back(Parcel { from: id, to: send.to.0, message: send.message });
        }
        self.say(&format!("{id} has written #{}", write.id.0));
        self.step(id, Input::Written { id: write.id });
    }

    pub fn stall(&mut self, id: u64, stalled: bool) {
        self.node(id).stalled = stalled;
    }

    pub fn cut(&mut self, a: u64, b: u64) {
        self.cut.extend([(a, b), (b, a)]);
    }

    pub fn join(&mut self) {
        self.cut.clear();
    }

    fn take(&mut self, from: u64, to: u64) -> Vec<Parcel> {
        let (taken, rest): (Vec<_>, Vec<_>) =
            self.net.drain(..).partition(|p| (p.from, p.to) == (from, to));
        self.net = rest.into();
        taken
    }

    /// All that is under way between two nodes arrives.
    pub fn deliver(&mut self, from: u64, to: u64) {
        let taken = self.take(from, to);
        if taken.is_empty() {
            self.say("  (nothing to deliver)");
        }
        taken.into_iter().for_each(|parcel| self.arrive(parcel));
    }

    /// All that is under way between two nodes, or at all, is lost.
    pub fn lose(&mut self, between: Option<(u64, u64)>) {
        match between {
            Some((from, to)) => drop(self.take(from, to)),
            None => self.net.clear(),
        }
    }

    /// What is under way between two nodes is kept, to arrive whenever it is called for.
    pub fn keep(&mut self, from: u64, to: u64, name: &str) {
        let taken = self.take(from, to);
        assert!(!taken.is_empty(), "nothing to keep as {name}");
        self.kept.insert(name.to_owned(), taken);
    }

    pub fn deliver_kept(&mut self, name: &str) {
        let parcels = self.kept.get(name).unwrap_or_else(|| panic!("nothing kept as {name}"));
        parcels.clone().into_iter().for_each(|parcel| self.arrive(parcel));
    }

    fn arrive(&mut self, parcel: Parcel) {
        let Parcel { from, to, message } = parcel;
        let text = self.in_words(&message);
        let known = (1..=self.nodes.len() as u64).contains(&to);
        let lost = self.cut.contains(&(from, to)) || !known || self.node(to).log.is_none();
        self.say(&format!("{from} > {to}: {text}{}", if lost { " (lost)" } else { "" }));
        if !lost {
            self.step(to, Input::Message { from: NodeId(from), message });
        }
    }

    fn in_words(&mut self, message: &Message) -> String {
        let attempts = &mut self.attempts;
        words::message(message, self.protocol, &mut |id| {
            let at = attempts.iter().position(|a| *a == id).unwrap_or_else(|| {
                attempts.push(id);
                attempts.len() - 1
            });
            format!("attempt {}", at + 1)
        })
    }

    pub fn propose(&mut self, id: u64, commands: &[&str]) {
        self.proposals += 1;
        let commands = commands.iter().map(|c| Bytes::copy_from_slice(c.as_bytes())).collect();
        self.step(id, Input::Propose { id: ProposalId(self.proposals), commands });
    }

    /// Asks for a change that was found to make sense when `judged` was applied.
    pub fn change(&mut self, id: u64, change: Change, judged: Index) {
        self.proposals += 1;
        let (id_of, context) = (ProposalId(self.proposals), Bytes::new());
        self.step(id, Input::Change { id: id_of, change, judged, context });
    }

    pub fn read(&mut self, id: u64, read: u64) {
        let floor = self.chosen.keys().next_back().copied().unwrap_or(0);
        self.asked.insert((id, read), floor);
        self.step(id, Input::Read { id: ReadId(read) });
    }

    /// Asks for the end of the epoch.
    pub fn seal(&mut self, id: u64, next: Protocol) {
        self.proposals += 1;
        let (id_of, judged) = (ProposalId(self.proposals), Epoch(0));
        self.step(id, Input::Seal { id: id_of, next, judged });
    }

    pub fn transfer(&mut self, id: u64, to: u64) {
        self.step(id, Input::Transfer { to: NodeId(to) });
    }

    pub fn peer_lost(&mut self, id: u64, peer: u64) {
        self.step(id, Input::PeerLost { node: NodeId(peer) });
    }

    pub fn compact(&mut self, id: u64, index: Index) {
        self.step(id, Input::Compact { index });
    }

    pub fn unreadable(&mut self, id: u64, from: Index, to: Index) {
        self.step(id, Input::Damaged { range: from..=to });
    }

    /// The snapshot that one node wants sent to another arrives and is installed, or fails.
    pub fn snapshot(&mut self, from: u64, to: u64, arrives: bool) {
        let at = self.wanted.iter().position(|(by, w)| (*by, w.to.0) == (from, to));
        let Some(at) = at else { return self.say("  (none is wanted)") };
        let (_, wanted) = self.wanted.remove(at);
        let base = self.node(from).applied.clone();
        let index = arrives.then_some(base.position.index);
        if arrives {
            self.node(to).applied = base.clone();
            self.say(&format!("{to} installs a snapshot to {}", words::position(base.position)));
            let (from, session) = (NodeId(from), wanted.session);
            self.step(to, Input::SnapshotInstalled { base, from, session });
        }
        self.say(&format!("{from} is told"));
        self.step(from, Input::SnapshotSent { to: NodeId(to), index });
    }

    pub fn status(&mut self, id: u64) {
        let status = match &self.node(id).log {
            Some(log) => words::status(&log.status()),
            None => "stopped".to_owned(),
        };
        self.say(&format!("{id}: {status}"));
    }

    pub fn len(&self) -> u64 {
        self.nodes.len() as u64
    }

    pub fn show_disk(&mut self, id: u64) {
        let disk = &self.node(id).disk;
        let (base, state) = (disk.base(), disk.hard_state());
        let run: Vec<String> = disk.entries().map(words::entry).collect();
        let text = format!(
            "{id}'s disk: promised {}, commit {}; after {}: {}",
            state.promised,
            state.commit,
            words::position(base.position),
            if run.is_empty() { "nothing".to_owned() } else { run.join(", ") }
        );
        self.say(&text);
    }

    fn step(&mut self, id: u64, input: Input) {
        let now = self.now;
        let node = self.node(id);
        let Some(log) = node.log.as_mut() else { return };
        let mut out = Effects::default();
        log.step(now, input, &mut out);
        if let Some(index) = out.committed.last().and_then(|run| run.last_index()) {
            let from = node.applied.position.index + 1;
            log.step(now, Input::Applied { index }, &mut out);
            node.applied = log.applied_base();
            self.say(&format!("  commits {from} to {index}"));
        }
        self.check(id, &out);
        self.tell(id, out);
    }

    fn check(&mut self, id: u64, out: &Effects) {
        for entry in out.committed.iter().flat_map(|run| run.iter()) {
            let before = self.chosen.entry(entry.index).or_insert_with(|| entry.clone());
            assert_eq!(before.payload, entry.payload, "{id} committed another entry");
            let same = before.ballot == entry.ballot || self.protocol == Protocol::Paxos;
            assert!(same, "{id} committed {entry:?}, not {before:?}");
        }
        let Some(log) = &self.node(id).log else { return };
        let status = log.status();
        if status.role == Role::Leader {
            let leader = *self.leaders.entry(status.ballot.round).or_insert(id);
            assert_eq!(leader, id, "two leaders of a round");
        }
        for ready in &out.reads {
            let floor = self.asked.remove(&(id, ready.id.0));
            let fresh = floor.is_some_and(|floor| ready.index >= floor);
            assert!(fresh, "read {} is stale, or answered twice", ready.id.0);
        }
        for event in &out.events {
            if let Event::ReadFailed { id: read } = event {
                let asked = self.asked.remove(&(id, read.0));
                assert!(asked.is_some(), "read {} fails twice", read.0);
            }
        }
    }

    fn tell(&mut self, id: u64, out: Effects) {
        for event in &out.events {
            self.say(&format!("  {}", words::event(event)));
        }
        for write in out.writes {
            self.say(&format!("  {}", words::write(&write)));
            self.node(id).writing.push_back(write);
        }
        let no_pulls = self.options.no_pulls;
        let lost = |body: &Body| no_pulls && matches!(body, Body::Pull { .. });
        for send in out.sends.into_iter().filter(|send| !lost(&send.message.body)) {
            let text = self.in_words(&send.message);
            let done = self.node(id).done;
            let gate = send.after.filter(|&after| after > done);
            let gate_text = gate.map_or(String::new(), |g| format!("once #{} is written, ", g.0));
            self.say(&format!("  {gate_text}to {}: {text}", send.to));
            if gate.is_some() {
                self.node(id).gated.push(send);
            } else {
                self.net.push_back(Parcel { from: id, to: send.to.0, message: send.message });
            }
        }
        for ready in out.reads {
            self.say(&format!("  read {} is ready at {}", ready.id.0, ready.index));
        }
        for wanted in out.snapshots {
            self.say(&format!("  wants a snapshot sent to {}, s{}", wanted.to, wanted.session));
            self.wanted.retain(|(by, w)| (*by, w.to) != (id, wanted.to));
            self.wanted.push((id, wanted));
        }
    }
}
