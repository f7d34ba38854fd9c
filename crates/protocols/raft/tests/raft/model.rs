//! Every interleaving of three replicas within bounds, by stateright's breadth-first search.
//!
//! Messages may be lost, arrive in any order, late, and any number of times: whatever was ever sent
//! may arrive at any moment, or never. Writes are asynchronous and end one at a time; a crash
//! forgets what was not written, and the service's state. Time is abstract: a replica may lose its
//! patience at any moment, and a leader may find itself without a quorum at any moment. More may
//! happen than in truth: a pre-vote always succeeds, or is refused by whoever pleases, and the log
//! of who refused is pulled; and nobody sticks to a leader. Safety must not rest on either.
//!
//! What is bounded: rounds, who may stand in each, proposals, crashes, step-downs, pulls. What is
//! left out: heartbeats (and with them repetitions by the leader: the network repeats enough),
//! reads, compaction and snapshots, changes of members, damage. Those are for the random schedules.

use bytes::Bytes;
use quorate_base::{Ballot, Instant, NodeId};
use quorate_raft::{Canary, Raft};
use quorate_replicated_log::conformance::{Disk, status_in_words};
use quorate_replicated_log::{
    Base, Body, Config, Effects, Entry, Epoch, Input, Limits, Membership, Message, ProposalId,
    ReplicatedLog, Role, Send, Write, WriteId,
};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

const NODES: u64 = 3;

const ELECTION_TIMEOUT: Duration = Duration::from_millis(100);

/// Any time longer than whatever a replica waits for.
const LONG: Duration = Duration::from_secs(10);

/// What may happen at most.
#[derive(Clone)]
pub struct Bounds {
    /// For each round from 1, who may stand in it.
    pub candidates: Vec<&'static [u64]>,
    pub proposals: u8,
    pub crashes: u8,
    pub step_downs: u8,
    /// Refused pre-votes, upon which a replica pulls.
    pub pulls: u8,
    /// Whose writes take time; the others' end at once.
    pub slow: &'static [u64],
    /// One entry per message, if 1.
    pub append_bytes: usize,
    pub canary: Option<Canary>,
}

/// One node: its replica, its disk, and what is between them.
struct Node {
    raft: Raft,
    now: Instant,
    disk: Disk,
    /// The disk as it will be once all is written: the log in memory.
    memory: Disk,
    writing: VecDeque<Write>,
    done: WriteId,
    gated: Vec<Send>,
    /// Of all the above that matters.
    digest: u64,
}

impl Clone for Node {
    fn clone(&self) -> Self {
        Node {
            raft: self.raft.clone(),
            now: self.now,
            disk: self.disk.clone(),
            memory: self.memory.clone(),
            writing: self.writing.clone(),
            done: self.done,
            gated: self.gated.clone(),
            digest: 0,
        }
    }
}

impl Node {
    fn digest(&self) -> u64 {
        let mut state = DefaultHasher::new();
        self.raft.fingerprint(&mut state);
        self.disk.hash(&mut state);
        for write in &self.writing {
            (&write.truncate_from, &write.entries, &write.hard_state).hash(&mut state);
            assert!(write.reset.is_none() && write.compact.is_none(), "not modelled");
        }
        for send in &self.gated {
            let wait = send.after.map_or(0, |after| after.0 - self.done.0);
            (send.to, &send.message, wait).hash(&mut state);
        }
        state.finish()
    }
}

/// A message that was sent.
struct Sent {
    from: u64,
    to: u64,
    message: Message,
    digest: u64,
}

#[derive(Clone)]
pub struct State {
    nodes: [Arc<Node>; NODES as usize],
    /// All that was ever sent, each message once, in order of digest.
    sent: Vec<Arc<Sent>>,
    /// What was committed anywhere, and the round of the leader that did so.
    chosen: Vec<(Entry, u64)>,
    /// Who was ever seen to lead each round.
    leaders: BTreeMap<u64, u64>,
    proposals: u8,
    crashes: u8,
    step_downs: u8,
    pulls: u8,
    slow: &'static [u64],
    /// A rule broken on the way here.
    broken: Option<&'static str>,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nodes.iter().for_each(|node| node.digest.hash(state));
        self.sent.iter().for_each(|sent| sent.digest.hash(state));
        (&self.chosen, &self.leaders, self.proposals, self.crashes).hash(state);
        (self.step_downs, self.pulls, self.broken).hash(state);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let digest = |s: &State| {
            let mut state = DefaultHasher::new();
            s.hash(&mut state);
            state.finish()
        };
        digest(self) == digest(other)
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for node in &self.nodes {
            writeln!(f, "{}", status_in_words(&node.raft.status()))?;
        }
        write!(f, "{:?}", self.broken)
    }
}

#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// A replica stands for election.
    Stand(u64),
    /// A replica that would stand is refused by another, and asks it for what it lacks.
    Pull(u64, u64),
    /// A leader hears nobody for too long.
    StepDown(u64),
    Propose(u64),
    /// The oldest write ends.
    Write(u64),
    Crash(u64),
    /// A message, by its place, arrives.
    Deliver(usize),
}

impl Bounds {
    /// A replica, in the life after so many crashes.
    fn start(&self, id: u64, disk: Disk, now: Instant, life: u8) -> Node {
        let config = Config {
            node: NodeId(id),
            epoch: Epoch(0),
            opens: false,
            heartbeat: Duration::from_millis(20),
            election_timeout: ELECTION_TIMEOUT,
            patience: ELECTION_TIMEOUT,
            lease_clock_drift_ppm: None,
            // What it asked in another life it is not answered in this.
            seed: id | u64::from(life) << 32,
            limits: Limits { append_bytes: self.append_bytes, ..Limits::default() },
        };
        let recovered = disk.recover(&disk.base());
        let raft = Raft::with_canary(config, now, recovered, self.canary);
        let (writing, gated, memory) = (VecDeque::new(), Vec::new(), disk.clone());
        let done = WriteId(0);
        let mut node = Node { raft, now, disk, memory, writing, done, gated, digest: 0 };
        node.digest = node.digest();
        node
    }
}

impl State {
    /// Changes one node, and takes note of what follows.
    fn with(&self, id: u64, change: impl FnOnce(&mut Node, &mut Effects)) -> State {
        let mut next = self.clone();
        let mut node = Node::clone(&self.nodes[id as usize - 1]);
        let mut out = Effects::default();
        change(&mut node, &mut out);
        if let Some(index) = out.committed.last().and_then(|run| run.last_index()) {
            node.raft.step(node.now, Input::Applied { index }, &mut out);
        }
        assert!(out.snapshots.is_empty(), "not modelled");
        for write in out.writes.drain(..) {
            node.memory.apply(&write);
            node.writing.push_back(write);
        }
        let status = node.raft.status();
        next.note_committed(&out, status.ballot.round);
        if status.role == Role::Leader {
            let round = status.ballot.round;
            if *next.leaders.entry(round).or_insert(id) != id {
                next.broken = Some("two leaders of a round");
            }
        }
        for send in out.sends {
            if send.after.is_some_and(|after| after > node.done) {
                if !node.gated.contains(&send) {
                    node.gated.push(send); // The network repeats it anyway.
                }
            } else {
                next.post(id, send);
            }
        }
        let is_writing = !node.writing.is_empty();
        node.digest = node.digest();
        next.nodes[id as usize - 1] = Arc::new(node);
        if is_writing && !self.slow.contains(&id) { next.write(id) } else { next }
    }

    fn note_committed(&mut self, out: &Effects, round: u64) {
        for entry in out.committed.iter().flat_map(|run| run.iter()) {
            match self.chosen.get(entry.index as usize - 1) {
                None => self.chosen.push((entry.clone(), round)),
                Some((chosen, _)) if chosen != entry => {
                    self.broken = Some("two entries committed at an index");
                }
                Some(_) => {}
            }
        }
    }

    fn post(&mut self, from: u64, send: Send) {
        let Send { to, message, .. } = send;
        let is_left_out = match message.body {
            // Granted or refused as may be, see above: nobody needs to be asked.
            Body::PreVote { .. } | Body::PreVoteReply { .. } => true,
            // A refusal does what any other message of its round does, or nothing.
            Body::VoteReply { granted } => !granted,
            Body::HeartbeatReply { probe, .. } => probe == 0,
            _ => false,
        };
        if is_left_out {
            return;
        }
        let mut state = DefaultHasher::new();
        (from, to, &message).hash(&mut state);
        let digest = state.finish();
        if let Err(at) = self.sent.binary_search_by_key(&digest, |sent| sent.digest) {
            self.sent.insert(at, Arc::new(Sent { from, to: to.0, message, digest }));
        }
    }

    fn node(&self, id: u64) -> &Node {
        &self.nodes[id as usize - 1]
    }

    fn deliver(&self, sent: &Sent) -> State {
        let (from, message) = (NodeId(sent.from), sent.message.clone());
        self.with(sent.to, |node, out| {
            node.raft.step(node.now, Input::Message { from, message }, out);
            let is_led = node.raft.role() == Role::Follower && node.raft.leader() == from;
            if is_led && sent.message.ballot.round == node.raft.status().ballot.round {
                // It will not stick to this leader; and it has not lost its patience yet.
                node.now = node.now + ELECTION_TIMEOUT;
            }
        })
    }

    fn write(&self, id: u64) -> State {
        let mut free = Vec::new();
        let mut next = self.with(id, |node, out| {
            let write = node.writing.pop_front().expect("a write is under way");
            node.disk.apply(&write);
            node.done = write.id;
            let open = |send: &Send| send.after.is_none_or(|after| after <= write.id);
            (free, node.gated) = std::mem::take(&mut node.gated).into_iter().partition(open);
            node.raft.step(node.now, Input::Written { id: write.id }, out);
        });
        free.into_iter().for_each(|send| next.post(id, send));
        next
    }

    fn crash(&self, bounds: &Bounds, id: u64) -> State {
        let node = self.node(id);
        let mut next = self.clone();
        next.nodes[id as usize - 1] =
            Arc::new(bounds.start(id, node.disk.clone(), node.now, self.crashes + 1));
        next.crashes += 1;
        next
    }

    fn stand(&self, id: u64) -> State {
        self.with(id, |node, out| {
            node.now = node.now + LONG;
            node.raft.step(node.now, Input::Tick, out);
            let ballot = Ballot::new(node.raft.status().ballot.round + 1, NodeId(id));
            let body = Body::PreVoteReply { granted: true };
            let message = Message { epoch: Epoch(0), ballot, body };
            let from = NodeId(id % NODES + 1);
            node.raft.step(node.now, Input::Message { from, message }, out);
            assert_eq!(node.raft.role(), Role::Candidate, "one of two others is enough");
        })
    }

    fn pull(&self, id: u64, from: u64) -> State {
        let mut next = self.with(id, |node, out| {
            node.now = node.now + LONG;
            node.raft.step(node.now, Input::Tick, out);
            let ballot = node.raft.status().ballot;
            let body = Body::PreVoteReply { granted: false };
            let message = Message { epoch: Epoch(0), ballot, body };
            node.raft.step(node.now, Input::Message { from: NodeId(from), message }, out);
        });
        next.pulls += 1;
        next
    }

    fn step_down(&self, id: u64) -> State {
        let mut next = self.with(id, |node, out| {
            node.now = node.now + LONG;
            node.raft.step(node.now, Input::Tick, out);
            assert_eq!(node.raft.role(), Role::Follower, "it heard nobody for long");
        });
        next.step_downs += 1;
        next
    }

    fn propose(&self, id: u64) -> State {
        let mut next = self.with(id, |node, out| {
            let command = Bytes::copy_from_slice(&[self.proposals + 1]);
            let id = ProposalId(0);
            node.raft.step(node.now, Input::Propose { id, commands: vec![command] }, out);
        });
        next.proposals += 1;
        next
    }

    /// Two logs that have an entry of the same round at an index agree up to there.
    fn logs_match(&self) -> bool {
        let log = |id| self.node(id).memory.entries();
        let pairs = [(1, 2), (1, 3), (2, 3)];
        pairs.into_iter().all(|(a, b)| {
            let pairs: Vec<(&Entry, &Entry)> = log(a).zip(log(b)).collect();
            let last = pairs.iter().rposition(|(a, b)| a.ballot.round == b.ballot.round);
            last.is_none_or(|last| pairs[..=last].iter().all(|(a, b)| a == b))
        })
    }

    /// A leader has all that was committed in rounds before its own.
    fn leaders_are_complete(&self) -> bool {
        (1..=NODES).map(|id| self.node(id)).all(|node| {
            let round = node.raft.status().ballot.round;
            let owed = self.chosen.iter().filter(|(_, by)| *by < round);
            node.raft.role() != Role::Leader
                || owed.map(|(entry, _)| entry).all(|entry| node.memory.holds(entry))
        })
    }

    /// What is committed is on the disks of a majority.
    fn committed_is_durable(&self) -> bool {
        self.chosen.iter().all(|(entry, _)| {
            (1..=NODES).filter(|&id| self.node(id).disk.holds(entry)).count() > NODES as usize / 2
        })
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let membership = Membership::of((1..=NODES).map(NodeId));
        let disk = Disk::new(Base { membership, ..Base::default() });
        let node = |id| Arc::new(self.start(id, disk.clone(), Instant::ZERO, 0));
        vec![State {
            nodes: [node(1), node(2), node(3)],
            sent: Vec::new(),
            chosen: Vec::new(),
            leaders: BTreeMap::new(),
            proposals: 0,
            crashes: 0,
            step_downs: 0,
            pulls: 0,
            slow: self.slow,
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for id in 1..=NODES {
            let node = state.node(id);
            let status = node.raft.status();
            let leads = status.role == Role::Leader;
            let may_stand = self.candidates.get(status.ballot.round as usize);
            if !leads && may_stand.is_some_and(|who| who.contains(&id)) {
                actions.push(Action::Stand(id));
            }
            if !leads && state.pulls < self.pulls {
                let others = (1..=NODES).filter(|from| *from != id);
                actions.extend(others.map(|from| Action::Pull(id, from)));
            }
            if leads && state.step_downs < self.step_downs {
                actions.push(Action::StepDown(id));
            }
            if leads && state.proposals < self.proposals {
                actions.push(Action::Propose(id));
            }
            if !node.writing.is_empty() {
                actions.push(Action::Write(id));
            }
            if state.crashes < self.crashes {
                actions.push(Action::Crash(id));
            }
        }
        for (at, sent) in state.sent.iter().enumerate() {
            let outdated =
                sent.message.ballot.round < state.node(sent.to).raft.status().ballot.round;
            let is_answer = matches!(
                sent.message.body,
                Body::VoteReply { .. } | Body::AppendReply(_) | Body::HeartbeatReply { .. }
            );
            if !(outdated && is_answer) {
                actions.push(Action::Deliver(at));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = match action {
            Action::Stand(id) => state.stand(id),
            Action::Pull(id, from) => state.pull(id, from),
            Action::StepDown(id) => state.step_down(id),
            Action::Propose(id) => state.propose(id),
            Action::Write(id) => state.write(id),
            Action::Crash(id) => state.crash(self, id),
            Action::Deliver(at) => state.deliver(&state.sent[at]),
        };
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no rule is broken on the way", |_, s: &State| s.broken.is_none()),
            Property::always("logs match", |_, s: &State| s.logs_match()),
            Property::always("leaders are complete", |_, s: &State| s.leaders_are_complete()),
            Property::always("what is committed is durable", |_, s: &State| {
                s.committed_is_durable()
            }),
            Property::sometimes(
                "it happens that a proposal is committed",
                |model: &Bounds, s: &State| model.proposals == 0 || s.chosen.len() >= 2,
            ),
            Property::sometimes(
                "it happens that the last round is led",
                |model: &Bounds, s: &State| {
                    s.leaders.contains_key(&(model.candidates.len() as u64))
                },
            ),
        ]
    }
}

fn bounds(
    candidates: &[&'static [u64]],
    proposals: u8,
    crashes: u8,
    slow: &'static [u64],
) -> Bounds {
    let (candidates, append_bytes, canary) = (candidates.to_vec(), 1 << 20, None);
    let (step_downs, pulls) = (0, 0);
    Bounds { candidates, proposals, crashes, step_downs, pulls, slow, append_bytes, canary }
}

fn search(bounds: Bounds) -> impl Checker<Bounds> {
    bounds.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join()
}

fn check(bounds: Bounds) {
    let began = std::time::Instant::now();
    let checker = search(bounds);
    println!(
        "{} states, {} steps, depth {}, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f32()
    );
    checker.assert_properties();
}

#[test]
fn a_proposal_survives_a_change_of_leaders() {
    check(bounds(&[&[1], &[2]], 1, 0, &[1]));
}

#[test]
fn two_candidates_of_a_round_a_proposal_and_a_crash_are_safe() {
    check(bounds(&[&[1, 2]], 1, 1, &[1]));
}

#[test]
fn a_leader_that_returns_is_safe() {
    check(bounds(&[&[1], &[2], &[1]], 0, 0, &[]));
}

#[test]
fn two_candidates_in_each_of_two_rounds_are_safe() {
    check(bounds(&[&[1, 2], &[1, 2]], 0, 0, &[]));
}

#[test]
fn a_crash_and_a_change_of_leaders_are_safe() {
    check(bounds(&[&[1], &[2]], 0, 1, &[1]));
}

/// Two leaders, of which the first finds out that it is none, and a pull by anybody from anybody.
fn pulls_after_a_step_down() -> Bounds {
    Bounds { pulls: 1, step_downs: 1, ..bounds(&[&[1], &[2]], 0, 0, &[]) }
}

#[test]
fn a_pull_between_two_leaders_is_safe() {
    check(pulls_after_a_step_down());
}

/// The same search finds deliberate bugs.
#[test]
fn the_search_finds_deliberate_bugs() {
    let cases = [
        (Canary::VoteTwice, bounds(&[&[1, 2]], 0, 0, &[])),
        (Canary::ForgetVote, bounds(&[&[1, 2]], 0, 1, &[])),
        (Canary::IgnoreLogInVote, bounds(&[&[1], &[3]], 0, 0, &[])),
        (Canary::CountBeforeWritten, bounds(&[&[1]], 0, 0, &[1])),
        (Canary::ReplyBeforeWritten, bounds(&[&[1]], 0, 0, &[2])),
        (Canary::PullBehind, pulls_after_a_step_down()),
    ];
    for (canary, bounds) in cases {
        let search = || search(Bounds { canary: Some(canary), ..bounds }).discoveries();
        let found = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(search)) {
            Ok(found) => found.into_keys().find(|name| !name.starts_with("it happens")),
            Err(_) => Some("an assertion of the replica's own"),
        };
        assert!(found.is_some(), "{canary:?} is not found");
        println!("{canary:?} is found by: {}", found.unwrap());
    }
}
