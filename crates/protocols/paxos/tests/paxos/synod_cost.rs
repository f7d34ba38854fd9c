//! What single-decree Paxos costs (docs/raft-and-paxos.md): messages, message delays and forced
//! writes, counted where messages travel and acceptors' states become durable.

use quorate_base::{Ballot, NodeId};
use quorate_paxos::synod::{Acceptor, Learner, Phase, Promise, Proposer};
use std::collections::BTreeMap;

/// A message takes this long and a write that, so that one number tells both.
const MESSAGE: u64 = 1_000;
const WRITE: u64 = 1;

#[derive(Clone, Debug)]
enum Message {
    Prepare,
    Promised(Promise<u64>),
    Accept(u64),
    Accepted(u64),
}

/// What was counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Counts {
    to_prepare: u64,
    to_accept: u64,
    writes: u64,
    /// Until whoever proposed knew what is chosen.
    delays: u64,
    writes_in_a_row: u64,
}

/// Acceptors, and one proposer at a time.
struct World {
    acceptors: Vec<Acceptor<u64>>,
    /// Acceptors from here on are down.
    up: usize,
    learner: Learner<u64>,
    /// What is under way, by when it arrives: which acceptor's it is, and what it says.
    flights: BTreeMap<(u64, u64), (usize, Message)>,
    sent: u64,
    counts: Counts,
}

impl World {
    fn new(n: usize, up: usize) -> Self {
        World {
            acceptors: vec![Acceptor::default(); n],
            up,
            learner: Learner::new(n / 2 + 1),
            flights: BTreeMap::new(),
            sent: 0,
            counts: Counts::default(),
        }
    }

    fn send(&mut self, now: u64, acceptor: usize, message: Message) {
        let phase = match message {
            Message::Prepare | Message::Promised(_) => &mut self.counts.to_prepare,
            Message::Accept(_) | Message::Accepted(_) => &mut self.counts.to_accept,
        };
        *phase += 1;
        self.sent += 1;
        self.flights.insert((now + MESSAGE, self.sent), (acceptor, message));
    }

    /// An acceptor takes a message in and answers, once what changed in it is durable.
    fn ask(&mut self, now: u64, at: usize, ballot: Ballot, message: &Message) {
        if at >= self.up {
            return;
        }
        let acceptor = &mut self.acceptors[at];
        let before = acceptor.clone();
        let answer = match message {
            Message::Prepare => Message::Promised(acceptor.prepare(ballot).unwrap()),
            Message::Accept(value) => {
                acceptor.accept(ballot, *value).unwrap();
                Message::Accepted(*value)
            }
            Message::Promised(_) | Message::Accepted(_) => return,
        };
        let writes = u64::from(before != self.acceptors[at]);
        self.counts.writes += writes;
        self.send(now + writes * WRITE, at, answer);
    }

    /// A proposer brings a value; returns what it proposed in the end, if it got to know that it
    /// is chosen.
    fn propose(&mut self, ballot: Ballot, value: u64) -> Option<u64> {
        let n = self.acceptors.len();
        let mut attempt = Proposer::propose(ballot, value, n / 2 + 1);
        (0..n).for_each(|at| self.send(0, at, Message::Prepare));
        let mut chosen = None;
        while let Some(((now, _), (at, message))) = self.flights.pop_first() {
            let node = NodeId(at as u64 + 1);
            match message {
                Message::Promised(promise) => {
                    if let Some(&value) = attempt.promised(node, promise) {
                        (0..n).for_each(|at| self.send(now, at, Message::Accept(value)));
                    }
                }
                Message::Accepted(value) => {
                    self.learner.learn(node, ballot, &value);
                    if attempt.accepted(node).is_some() {
                        assert_eq!(attempt.phase(), Phase::Chosen);
                        chosen = Some(value);
                        self.counts.delays += now / MESSAGE;
                        self.counts.writes_in_a_row += now % MESSAGE / WRITE;
                    }
                }
                question => self.ask(now, at, ballot, &question),
            }
        }
        chosen
    }
}

/// `m` proposers, one after the other, with `n` acceptors of whom `up` are there.
fn run(n: usize, up: usize, m: u64) -> (Counts, Vec<Option<u64>>, Option<u64>) {
    let mut world = World::new(n, up);
    let propose = |id| world.propose(Ballot::new(id, NodeId(id)), 100 + id);
    let proposed = (1..=m).map(propose).collect();
    (world.counts, proposed, world.learner.chosen().copied())
}

#[test]
fn the_synod_costs_what_the_formula_says() {
    for n in [1, 3, 5, 7] {
        for m in 1..=4 {
            let (counts, proposed, chosen) = run(n, n, m);
            let all = n as u64 * m;
            let wanted = Counts {
                to_prepare: 2 * all,
                to_accept: 2 * all,
                writes: 2 * all,
                delays: 4 * m,
                writes_in_a_row: 2 * m,
            };
            assert_eq!(counts, wanted, "n = {n}, m = {m}");
            // Values V1 … Vm go in; all proposers end with the first, which is the chosen B.
            assert_eq!(proposed, vec![Some(101); m as usize]);
            assert_eq!(chosen, Some(101));
        }
    }
}

/// F acceptors may be down: they cost no delay, and save their answers and writes. One more, and
/// nothing is chosen.
#[test]
fn a_minority_that_is_down_costs_nothing() {
    for n in [3, 5, 7] {
        let quorum = n / 2 + 1;
        for up in quorum..=n {
            let (counts, proposed, _) = run(n, up, 2);
            assert_eq!((counts.delays, counts.writes_in_a_row), (8, 4), "n = {n}, {up} up");
            let messages = 4 * (n + up) as u64;
            assert_eq!(counts.to_prepare + counts.to_accept, messages, "n = {n}, {up} up");
            assert_eq!(counts.writes, 4 * up as u64);
            assert_eq!(proposed, [Some(101); 2]);
        }
        let (_, proposed, chosen) = run(n, quorum - 1, 2);
        assert_eq!((proposed, chosen), (vec![None; 2], None), "n = {n}");
    }
}
