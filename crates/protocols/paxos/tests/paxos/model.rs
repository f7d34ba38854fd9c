//! The synod, exhaustively: three acceptors, two proposers, messages lost, repeated and reordered
//! at will, acceptors that restart with what they had written down.

use quorate_base::{Ballot, NodeId};
use quorate_paxos::synod::{Acceptor, Learner, Phase, Promise, Proposer};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::BTreeSet;

const ACCEPTORS: usize = 3;
const QUORUM: usize = 2;

/// What the model gets wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    /// An acceptor answers before its state is durable.
    AnswerEarly,
    /// An acceptor forgets its promise at a restart.
    ForgetPromise,
    /// A proposer proposes its own value whatever was accepted.
    IgnoreAccepted,
    /// One acceptor is a quorum of proposers' phase 1.
    MinorityPromises,
    /// Learners count acceptances of different ballots together.
    MixBallots,
    /// A proposer uses its ballot again, with another value, after a restart.
    ReuseBallot,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Message {
    Prepare(Ballot),
    Promise(usize, Ballot, Option<(Ballot, u8)>),
    Accept(Ballot, u8),
    Accepted(usize, Ballot, u8),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Site {
    memory: Acceptor<u8>,
    disk: Acceptor<u8>,
    /// Leave once the disk has what the memory has.
    held: BTreeSet<Message>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    sites: Vec<Site>,
    proposers: Vec<Option<Proposer<u8>>>,
    /// How often each proposer may still try.
    attempts: Vec<u8>,
    restarts: u8,
    /// Everything ever sent: a message may arrive never, once or often, in any order.
    network: BTreeSet<Message>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Action {
    Propose(usize),
    Deliver(usize, Message),
    Hear(usize, Message),
    Persist(usize),
    Restart(usize),
}

struct Synod {
    bug: Option<Bug>,
    attempts: u8,
    restarts: u8,
}

impl Synod {
    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// An acceptor takes a message in; its answer waits for the disk.
    fn ask(&self, state: &mut State, at: usize, message: &Message) -> bool {
        let site = &mut state.sites[at];
        let answer = match message {
            Message::Prepare(ballot) => match site.memory.prepare(*ballot) {
                Ok(Promise { accepted }) => Message::Promise(at, *ballot, accepted),
                Err(_) => return false,
            },
            Message::Accept(ballot, value) => match site.memory.accept(*ballot, *value) {
                Ok(()) => Message::Accepted(at, *ballot, *value),
                Err(_) => return false,
            },
            _ => return false,
        };
        if self.is(Bug::AnswerEarly) || site.memory == site.disk {
            state.network.insert(answer);
        } else {
            site.held.insert(answer);
        }
        true
    }

    fn tell(&self, state: &mut State, at: usize, message: &Message) -> bool {
        let Some(proposer) = &mut state.proposers[at] else { return false };
        let before = proposer.clone();
        let ballot = proposer.ballot();
        match message {
            Message::Promise(from, b, accepted) if *b == ballot => {
                let accepted = accepted.filter(|_| !self.is(Bug::IgnoreAccepted));
                let from = NodeId(*from as u64 + 1);
                if let Some(&value) = proposer.promised(from, Promise { accepted }) {
                    state.network.insert(Message::Accept(ballot, value));
                }
            }
            _ => return false,
        }
        state.proposers[at].as_ref() != Some(&before)
    }

    /// Every value that the acceptances sent so far choose.
    fn chosen(&self, state: &State) -> BTreeSet<u8> {
        let mut learners = vec![Learner::new(QUORUM)];
        let mut chosen = BTreeSet::new();
        for message in &state.network {
            if let Message::Accepted(from, ballot, value) = message {
                let ballot = if self.is(Bug::MixBallots) { Ballot::ZERO } else { *ballot };
                // A learner per value: an honest ballot has one value, a bug may have two.
                for learner in &mut learners {
                    learner.learn(NodeId(*from as u64 + 1), ballot, value);
                }
                let by_value = state.network.iter().filter(|m| {
                    matches!(m, Message::Accepted(_, b, v)
                        if v == value && (*b == ballot || self.is(Bug::MixBallots)))
                });
                let sites: BTreeSet<usize> = by_value
                    .filter_map(|m| match m {
                        Message::Accepted(from, ..) => Some(*from),
                        _ => None,
                    })
                    .collect();
                if sites.len() >= QUORUM {
                    chosen.insert(*value);
                }
            }
        }
        chosen.extend(learners.iter().filter_map(|learner| learner.chosen().copied()));
        chosen
    }
}

impl Model for Synod {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let site =
            Site { memory: Acceptor::default(), disk: Acceptor::default(), held: BTreeSet::new() };
        vec![State {
            sites: vec![site; ACCEPTORS],
            proposers: vec![None, None],
            attempts: vec![self.attempts, 1],
            restarts: self.restarts,
            network: BTreeSet::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (at, attempts) in state.attempts.iter().enumerate() {
            if *attempts > 0 {
                actions.push(Action::Propose(at));
            }
        }
        // What one acceptor does before its disk is done concerns nobody else: others wait for it
        // without loss of generality, but it may take in more meanwhile.
        let busy = state.sites.iter().position(|site| site.memory != site.disk);
        for message in &state.network {
            match message {
                Message::Prepare(_) | Message::Accept(..) => {
                    let free = (0..ACCEPTORS).filter(|at| busy.is_none_or(|busy| busy == *at));
                    actions.extend(free.map(|at| Action::Deliver(at, message.clone())));
                }
                Message::Promise(_, ballot, _) if busy.is_none() => {
                    let of = |p: &Option<Proposer<u8>>| {
                        p.as_ref().is_some_and(|proposer| proposer.ballot() == *ballot)
                    };
                    let at = state.proposers.iter().position(of);
                    actions.extend(at.map(|at| Action::Hear(at, message.clone())));
                }
                // Of acceptances the learners hear, in the properties.
                Message::Promise(..) | Message::Accepted(..) => {}
            }
        }
        let forgets = busy.is_none() && self.is(Bug::ForgetPromise);
        actions.extend(busy.map(Action::Persist));
        if state.restarts > 0 {
            let all = (0..ACCEPTORS).filter(|at| busy == Some(*at) || forgets);
            actions.extend(all.map(Action::Restart));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let changed = match action {
            Action::Propose(at) => {
                state.attempts[at] -= 1;
                let used = u64::from(self.attempts.max(1) - state.attempts[at]);
                // The first proposer's rounds are odd, the second's even.
                let round = if self.is(Bug::ReuseBallot) { 1 } else { 2 * used - 1 + at as u64 };
                let value = 10 * (at as u8 + 1) + used as u8;
                let ballot = Ballot::new(round, NodeId(at as u64 + 1));
                let quorum = if self.is(Bug::MinorityPromises) { 1 } else { QUORUM };
                state.proposers[at] = Some(Proposer::propose(ballot, value, quorum));
                state.network.insert(Message::Prepare(ballot));
                true
            }
            Action::Deliver(at, message) => self.ask(&mut state, at, &message),
            Action::Hear(at, message) => self.tell(&mut state, at, &message),
            Action::Persist(at) => {
                let site = &mut state.sites[at];
                site.disk = site.memory.clone();
                state.network.extend(std::mem::take(&mut site.held));
                true
            }
            Action::Restart(at) => {
                state.restarts -= 1;
                let site = &mut state.sites[at];
                site.held.clear();
                site.memory = site.disk.clone();
                if self.is(Bug::ForgetPromise) {
                    site.memory = Acceptor::restore(Ballot::ZERO, site.disk.accepted().copied());
                    site.disk = site.memory.clone();
                }
                true
            }
        };
        (changed && state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("agreement", |model: &Synod, state: &State| {
                model.chosen(state).len() <= 1
            }),
            Property::always("validity", |model: &Synod, state: &State| {
                model.chosen(state).iter().all(|value| [11, 12, 21].contains(value))
            }),
            // P2b: every higher ballot that proposes a value proposes the chosen one.
            Property::always("what is chosen is never lost", |_: &Synod, state: &State| {
                let accepted = |ballot: Ballot| {
                    let of = |m: &&Message| matches!(m, Message::Accepted(_, b, _) if *b == ballot);
                    state.network.iter().filter(of).count()
                };
                let proposed = || {
                    state.network.iter().filter_map(|message| match message {
                        Message::Accept(ballot, value) => Some((*ballot, *value)),
                        _ => None,
                    })
                };
                let mut chosen = proposed().filter(|(ballot, _)| accepted(*ballot) >= QUORUM);
                chosen.all(|(ballot, value)| proposed().all(|(b, v)| b <= ballot || v == value))
            }),
            Property::sometimes("a value is chosen", |model: &Synod, state: &State| {
                !model.chosen(state).is_empty()
            }),
        ]
    }
}

fn violated(bug: Bug, attempts: u8, restarts: u8) -> bool {
    let model = Synod { bug: Some(bug), attempts, restarts };
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    checker.discoveries().keys().any(|name| *name != "a value is chosen")
}

#[test]
fn the_synod_chooses_one_value() {
    let model = Synod { bug: None, attempts: 1, restarts: 1 };
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn every_broken_synod_is_found_out() {
    for (bug, attempts, restarts) in [
        (Bug::AnswerEarly, 1, 1),
        (Bug::ForgetPromise, 1, 1),
        (Bug::IgnoreAccepted, 1, 0),
        (Bug::MinorityPromises, 1, 0),
        (Bug::MixBallots, 1, 0),
        (Bug::ReuseBallot, 2, 0),
    ] {
        assert!(violated(bug, attempts, restarts), "{bug:?}");
    }
}

#[test]
fn a_proposer_hears_that_its_value_is_chosen() {
    let mut acceptors = vec![Acceptor::default(); ACCEPTORS];
    let mut proposer = Proposer::propose(Ballot::new(1, NodeId(1)), 7, QUORUM);
    for (node, acceptor) in (1..).map(NodeId).zip(&mut acceptors) {
        let promise = acceptor.prepare(proposer.ballot()).unwrap();
        proposer.promised(node, promise);
    }
    for (node, acceptor) in (1..).map(NodeId).zip(&mut acceptors) {
        acceptor.accept(proposer.ballot(), *proposer.value()).unwrap();
        proposer.accepted(node);
    }
    assert_eq!((proposer.phase(), *proposer.value()), (Phase::Chosen, 7));
    // Whoever comes later proposes the same.
    let mut later = Proposer::propose(Ballot::new(2, NodeId(2)), 8, QUORUM);
    for (node, acceptor) in (2..).map(NodeId).zip(&mut acceptors[1..]) {
        let promise = acceptor.prepare(later.ballot()).unwrap();
        later.promised(node, promise);
    }
    assert_eq!((later.phase(), *later.value()), (Phase::Accept, 7));
    assert_eq!(acceptors[2].prepare(Ballot::new(2, NodeId(3))), Err(Ballot::new(2, NodeId(2))));
}
