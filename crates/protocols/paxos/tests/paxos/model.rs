//! The synod, exhaustively: three acceptors, attempts of two proposers, each with a ballot of its
//! own, messages lost, repeated and reordered at will, acceptors that restart with what they had
//! written down.
//!
//! Which acceptor is which matters to nobody: states that differ in that alone are one.

use quorate_base::{Ballot, NodeId};
use quorate_paxos::synod::{Acceptor, Learner, Phase, Promise, Proposer};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::{BTreeMap, BTreeSet};

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
    /// A proposer takes the value of the lowest accepted ballot that it hears of.
    TakeLowest,
    /// A proposer takes the accepted value that it hears of first.
    TakeFirst,
}

type Accepted = Option<(Ballot, u8)>;

/// What an acceptor says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Said {
    Promised(Ballot, Accepted),
    Accepted(Ballot, u8),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Site {
    memory: Acceptor<u8>,
    disk: Acceptor<u8>,
    /// Leaves once the disk has what the memory has.
    held: BTreeSet<Said>,
    /// All that it ever said, and that may still matter: it may arrive never, once or often.
    said: BTreeSet<Said>,
}

impl Site {
    /// Sorts sites, so that their order says nothing.
    fn key(&self) -> impl Ord + use<> {
        let of = |acceptor: &Acceptor<u8>| (acceptor.promised(), acceptor.accepted().copied());
        (of(&self.memory), of(&self.disk), self.held.clone(), self.said.clone())
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    sites: Vec<Site>,
    /// The attempts that collect promises. Their questions may arrive at any time and, as one
    /// proposer's first need not end with its second, after that one's.
    asking: Vec<Option<Proposer<u8>>>,
    restarts: u8,
    /// What was proposed to be accepted.
    proposed: BTreeSet<(Ballot, u8)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Action {
    /// An acceptor is asked to promise an attempt's ballot.
    Prepare(usize, Ballot),
    /// An acceptor is asked to accept.
    Accept(usize, Ballot, u8),
    /// A quorum's promises reach an attempt, in this order. Who heard a part of one does nothing.
    Hear(usize, Vec<(usize, Accepted)>),
    Persist(usize),
    Restart(usize),
}

struct Synod {
    bug: Option<Bug>,
    /// How many ballots each proposer has.
    attempts: [u64; 2],
    restarts: u8,
}

impl Synod {
    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn quorum(&self) -> usize {
        if self.is(Bug::MinorityPromises) { 1 } else { QUORUM }
    }

    /// The attempts: the first proposer's rounds are odd, the second's even, and each has a value
    /// of its own.
    fn attempts(&self) -> Vec<Proposer<u8>> {
        let of = |at: u64| (1..=self.attempts[at as usize]).map(move |nth| (at, nth));
        let attempt = |(at, nth): (u64, u64)| {
            let reused = self.is(Bug::ReuseBallot) && at == 0;
            let round = if reused { 1 } else { 2 * nth - 1 + at };
            let value = 10 * (at + 1) + nth;
            Proposer::propose(Ballot::new(round, NodeId(at + 1)), value as u8, self.quorum())
        };
        of(0).chain(of(1)).map(attempt).collect()
    }

    /// What a proposer makes of an accepted value that it hears of. An honest one takes that of
    /// the highest ballot.
    fn heard(&self, accepted: Accepted) -> Accepted {
        let (ballot, value) = accepted?;
        match self.bug {
            Some(Bug::IgnoreAccepted) => None,
            Some(Bug::TakeLowest) => Some((Ballot::new(100 - ballot.round, ballot.node), value)),
            Some(Bug::TakeFirst) => Some((Ballot::new(1, NodeId(1)), value)),
            _ => Some((ballot, value)),
        }
    }

    /// An acceptor answers. Where nobody restarts, a disk that takes its time is a network that
    /// does.
    fn answer(&self, site: &mut Site, said: Said) {
        if self.restarts == 0 {
            site.disk = site.memory.clone();
        }
        if self.is(Bug::AnswerEarly) || site.memory == site.disk {
            site.said.insert(said);
        } else {
            site.held.insert(said);
        }
    }

    /// Every value that the acceptances sent so far choose: a bug may have a ballot with two.
    fn chosen(&self, state: &State) -> BTreeSet<u8> {
        let mut learners: BTreeMap<u8, Learner<u8>> = BTreeMap::new();
        for (node, site) in (1..).map(NodeId).zip(&state.sites) {
            for said in &site.said {
                if let Said::Accepted(ballot, value) = *said {
                    let ballot = if self.is(Bug::MixBallots) { Ballot::ZERO } else { ballot };
                    let learner = learners.entry(value).or_insert_with(|| Learner::new(QUORUM));
                    learner.learn(node, ballot, &value);
                }
            }
        }
        learners.values().filter_map(|learner| learner.chosen().copied()).collect()
    }

    /// The quorums whose promises an attempt may hear now.
    fn quorums(&self, state: &State, ballot: Ballot) -> Vec<Vec<(usize, Accepted)>> {
        let promises = state.sites.iter().enumerate().flat_map(|(at, site)| {
            site.said.iter().filter_map(move |said| match *said {
                Said::Promised(b, accepted) if b == ballot => Some((at, accepted)),
                _ => None,
            })
        });
        let promises: Vec<_> = promises.collect();
        if self.quorum() == 1 {
            return promises.into_iter().map(|promise| vec![promise]).collect();
        }
        let pairs = promises.iter().flat_map(|a| promises.iter().map(move |b| vec![*a, *b]));
        pairs.filter(|pair| pair[0].0 != pair[1].0).collect()
    }
}

impl State {
    /// What nobody waits for any more is gone, and sites are in their order.
    fn tidy(&mut self) {
        let asking = &self.asking;
        let wanted = |ballot| asking.iter().flatten().any(|attempt| attempt.ballot() == ballot);
        let matters = |said: &Said| match said {
            Said::Promised(ballot, _) => wanted(*ballot),
            Said::Accepted(..) => true,
        };
        for site in &mut self.sites {
            site.said.retain(matters);
            site.held.retain(matters);
        }
        self.sites.sort_by_cached_key(Site::key);
    }
}

impl Model for Synod {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let (memory, disk) = (Acceptor::default(), Acceptor::default());
        let site = Site { memory, disk, held: BTreeSet::new(), said: BTreeSet::new() };
        vec![State {
            sites: vec![site; ACCEPTORS],
            asking: self.attempts().into_iter().map(Some).collect(),
            restarts: self.restarts,
            proposed: BTreeSet::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // What one acceptor does before its disk is done concerns nobody else: others wait for it
        // without loss of generality, but it may take in more meanwhile.
        let busy = state.sites.iter().position(|site| site.memory != site.disk);
        for at in (0..ACCEPTORS).filter(|at| busy.is_none_or(|busy| busy == *at)) {
            let asked = self.attempts().into_iter().map(|it| Action::Prepare(at, it.ballot()));
            actions.extend(asked);
            let proposed = state.proposed.iter();
            actions.extend(proposed.map(|(ballot, value)| Action::Accept(at, *ballot, *value)));
        }
        if busy.is_none() {
            for (at, attempt) in state.asking.iter().enumerate() {
                let quorums = attempt.iter().flat_map(|it| self.quorums(state, it.ballot()));
                actions.extend(quorums.map(|promises| Action::Hear(at, promises)));
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
        match action {
            Action::Prepare(at, ballot) => {
                let site = &mut state.sites[at];
                let Promise { accepted } = site.memory.prepare(ballot).ok()?;
                self.answer(site, Said::Promised(ballot, accepted));
            }
            Action::Accept(at, ballot, value) => {
                let site = &mut state.sites[at];
                site.memory.accept(ballot, value).ok()?;
                self.answer(site, Said::Accepted(ballot, value));
            }
            Action::Hear(at, promises) => {
                let mut attempt = state.asking[at].take()?;
                let mut value = None;
                for (from, accepted) in promises {
                    let promise = Promise { accepted: self.heard(accepted) };
                    value = attempt.promised(NodeId(from as u64 + 1), promise).copied();
                }
                state.proposed.insert((attempt.ballot(), value?));
            }
            Action::Persist(at) => {
                let site = &mut state.sites[at];
                site.disk = site.memory.clone();
                site.said.append(&mut site.held);
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
            }
        }
        state.tidy();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("agreement", |model: &Synod, state: &State| {
                model.chosen(state).len() <= 1
            }),
            Property::always("validity", |model: &Synod, state: &State| {
                let own: Vec<u8> = model.attempts().iter().map(|it| *it.value()).collect();
                model.chosen(state).iter().all(|value| own.contains(value))
            }),
            // P2b: every higher ballot that proposes a value proposes the chosen one.
            Property::always("what is chosen is never lost", |_: &Synod, state: &State| {
                let chosen = |(ballot, value): &&(Ballot, u8)| {
                    let said = Said::Accepted(*ballot, *value);
                    state.sites.iter().filter(|site| site.said.contains(&said)).count() >= QUORUM
                };
                let follows = |(ballot, value): &(Ballot, u8)| {
                    state.proposed.iter().all(|(b, v)| b <= ballot || v == value)
                };
                state.proposed.iter().filter(chosen).all(follows)
            }),
            Property::sometimes("a value is chosen", |model: &Synod, state: &State| {
                !model.chosen(state).is_empty()
            }),
        ]
    }
}

/// Which promises a search finds broken.
fn broken(bug: Option<Bug>, attempts: [u64; 2], restarts: u8) -> Vec<&'static str> {
    let model = Synod { bug, attempts, restarts };
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    let (states, chosen) = (checker.unique_state_count(), "a value is chosen");
    println!("{bug:?}, {attempts:?} ballots, {restarts} restarts: {states} states");
    assert!(bug.is_some() || found.contains_key(chosen));
    found.into_keys().filter(|name| *name != chosen).collect()
}

#[test]
fn the_synod_chooses_one_value() {
    for (attempts, restarts) in [([1, 1], 2), ([2, 1], 2), ([2, 2], 1)] {
        assert_eq!(broken(None, attempts, restarts), Vec::<&str>::new());
    }
}

#[test]
fn every_broken_synod_is_found_out() {
    for (bug, attempts, restarts) in [
        (Bug::AnswerEarly, [1, 1], 1),
        (Bug::ForgetPromise, [1, 1], 1),
        (Bug::IgnoreAccepted, [1, 1], 0),
        (Bug::MinorityPromises, [1, 1], 0),
        (Bug::MixBallots, [2, 2], 0),
        (Bug::ReuseBallot, [2, 1], 0),
        (Bug::TakeLowest, [2, 1], 0),
        (Bug::TakeFirst, [2, 1], 0),
    ] {
        assert!(!broken(Some(bug), attempts, restarts).is_empty(), "{bug:?}");
    }
}

/// Two ballots never leave a choice between accepted values: it takes three to see which is taken.
#[test]
fn which_accepted_value_is_taken_shows_with_the_third_ballot() {
    for bug in [Bug::TakeLowest, Bug::TakeFirst] {
        assert_eq!(broken(Some(bug), [1, 1], 1), Vec::<&str>::new(), "{bug:?}");
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
