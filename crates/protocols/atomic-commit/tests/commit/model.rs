//! Every interleaving within bounds, three sites: messages lost, repeated and reordered at will
//! (which is also what a partition does), sites that restart with what they had written down, and
//! impatience at any moment.

use core::time::Duration;
use quorate_atomic_commit::conformance::rules::{self, Witness};
use quorate_atomic_commit::conformance::{Judge, Resource};
use quorate_atomic_commit::{
    Address, AtomicCommit, Body, BranchId, Canary, Config, Effects, Epoch, Event, Input, Key,
    Message, Outcome, Protocol, Reason, Record, Send, Site, Terms, TransactionId, Vote, Write,
    WriteId,
};
use quorate_base::Instant;
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The bounds of a search.
#[derive(Clone, Debug)]
pub struct Commit {
    pub protocol: Protocol,
    pub canary: Option<Canary>,
    /// How each participant votes.
    pub votes: Vec<Vote>,
    pub acceptors: u16,
    /// How often each site may lose its patience.
    pub ticks: fn(Address) -> u8,
    /// How often any of these sites may restart.
    pub restarts: u8,
    pub restarting: fn(Address) -> bool,
    /// A message arrives once or never, in any order.
    pub once: bool,
    /// At these sites writes take time, so that a restart may lose them.
    pub slow_disks: fn(Address) -> bool,
    /// Where the search begins; what came before has one order then.
    pub start: Start,
    /// Participant 1 is prepared by the application, before the transaction begins perhaps.
    pub early: bool,
}

/// Where a search begins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Start {
    /// Before everything.
    Fresh,
    /// Everybody has prepared, and the votes are under way.
    Prepared,
    /// The coordinator has the votes.
    Voted,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Node {
    site: Site,
    disk: Vec<Record>,
    pending: VecDeque<Write>,
    done: WriteId,
    gated: Vec<Send>,
    resource: Option<Resource>,
    ticks: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    nodes: BTreeMap<Address, Node>,
    /// Everything ever sent: a message may arrive never, once or often, in any order.
    network: BTreeSet<Message>,
    /// Which decisions prepared participants have heard from others.
    told: BTreeSet<(Address, Outcome)>,
    begun: bool,
    early: bool,
    restarts: u8,
    judge: Judge,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    Begin,
    PrepareEarly,
    Deliver(Message),
    Tick(Address),
    Persist(Address),
    Restart(Address),
}

/// What holds in every state: see `Judge`, and `conformance::rules`.
const PROMISES: &str = "AC1, AC2, AC3, and the six rules";

const KEY: Key = Key { transaction: TransactionId(1), epoch: Epoch(1) };

impl Commit {
    fn terms(&self) -> Terms {
        Terms { branches: self.votes.len() as u16, acceptors: self.acceptors }
    }

    /// What is never delivered, to have less to search.
    fn is_lost(&self, body: &Body) -> bool {
        match body {
            // It only hurries somebody on, or lets him forget, and changes no decision.
            Body::Outrun { .. } | Body::Acknowledge(_) => self.protocol != Protocol::TwoPhase,
            // Whoever hears of a decision adopts it. What counts is who comes to one.
            Body::Decide(_) => self.start == Start::Voted,
            _ => false,
        }
    }

    fn restore(&self, address: Address, records: &[Record]) -> Site {
        // No time passes; whoever waits may lose its patience at any moment.
        let (retry, patience) = (Duration::ZERO, Duration::ZERO);
        let config = Config { retry, patience, canary: self.canary };
        Site::restore(self.protocol, config, (KEY, self.terms()), address, records)
    }

    fn feed(&self, state: &mut State, address: Address, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut out = Effects::default();
            let node = state.nodes.get_mut(&address).unwrap();
            let site = &mut node.site;
            let step = || site.step(Instant::ZERO, input, &mut out);
            if catch_unwind(AssertUnwindSafe(step)).is_err() {
                state.judge.convict("an assertion".into());
                return;
            }
            self.carry_out(state, address, out, &mut inputs);
        }
    }

    /// Everything that is under way arrives, once, and is written down.
    fn deliver_all(&self, state: &mut State) {
        for message in std::mem::take(&mut state.network) {
            self.arrive(state, message);
        }
        let sites: Vec<Address> = state.nodes.keys().copied().collect();
        sites.into_iter().for_each(|site| self.make_durable(state, site));
    }

    /// All that is pending at one site becomes durable, and what waited for it leaves.
    fn make_durable(&self, state: &mut State, address: Address) {
        let Some(node) = state.nodes.get_mut(&address) else { return };
        let Some(input) = persist(node, address, &mut state.judge) else { return };
        for send in std::mem::take(&mut node.gated) {
            self.leaves(state, address, &send.message);
            transmit(state, send.message);
        }
        self.feed(state, address, input);
    }

    fn arrive(&self, state: &mut State, message: Message) {
        let to = message.to;
        if Seen(self, state).is_prepared(to) {
            match &message.body {
                Body::Decide(decision) => state.told.insert((to, decision.outcome())),
                Body::PrepareAlone => state.told.insert((to, Outcome::Commit)),
                _ => false,
            };
        }
        self.feed(state, to, Input::Message(message));
    }

    fn carry_out(
        &self,
        state: &mut State,
        address: Address,
        out: Effects,
        inputs: &mut VecDeque<Input>,
    ) {
        for order in out.orders {
            let breach = rules::order_is_given(&Seen(self, state), address, order);
            breach.into_iter().for_each(|breach| state.judge.convict(breach));
            let node = state.nodes.get_mut(&address).unwrap();
            let was_prepared = node.disk.contains(&Record::Prepared);
            let resource = node.resource.as_mut().unwrap();
            let answer = resource.carry_out(order);
            if let Some(outcome) = resource.finished()
                && (was_prepared || outcome == Outcome::Commit)
            {
                state.judge.decided(address, outcome);
            }
            inputs.extend(answer.map(Input::Resource));
        }
        let node = state.nodes.get_mut(&address).unwrap();
        node.pending.extend(out.writes);
        if !(self.slow_disks)(address) {
            inputs.extend(persist(node, address, &mut state.judge));
        }
        let done = node.done;
        let (held, free): (Vec<_>, Vec<_>) =
            out.sends.into_iter().partition(|send| send.after.is_some_and(|after| after > done));
        for send in held {
            if !node.gated.contains(&send) {
                node.gated.push(send);
            }
        }
        for send in free {
            self.leaves(state, address, &send.message);
            if self.is_lost(&send.message.body) {
                continue;
            }
            // What a site says to itself it hears at once: one order fewer to search.
            if send.message.to == address && !(self.slow_disks)(address) {
                inputs.push_back(Input::Message(send.message));
            } else {
                transmit(state, send.message);
            }
        }
        for event in out.events {
            if let Event::Decided(decision) = &event
                && !matches!(address, Address::Participant(_))
            {
                state.judge.decided(address, decision.outcome());
            }
            if let (Event::Completed, Some(outcome)) = (&event, state.judge.decision_of(address)) {
                let breach = rules::completes(&Seen(self, state), address, outcome);
                breach.into_iter().for_each(|breach| state.judge.convict(breach));
            }
            if let Event::Heuristic(_) = &event {
                state.judge.convict(format!("{address}: {event:?}"));
            }
        }
    }
}

impl Commit {
    fn leaves(&self, state: &mut State, from: Address, message: &Message) {
        let breach = rules::message_leaves(&Seen(self, state), from, message);
        breach.into_iter().for_each(|breach| state.judge.convict(breach));
    }
}

/// A state, as the rules look at it.
struct Seen<'a>(&'a Commit, &'a State);

impl Witness for Seen<'_> {
    fn setting(&self) -> (Protocol, Key, Terms) {
        (self.0.protocol, KEY, self.0.terms())
    }

    fn durable(&self, site: Address) -> &[Record] {
        &self.1.nodes[&site].disk
    }

    fn is_prepared(&self, site: Address) -> bool {
        let node = &self.1.nodes[&site];
        let pending = node.pending.iter().map(|write| &write.record);
        node.disk.iter().chain(pending).any(|record| *record == Record::Prepared)
    }

    fn was_told(&self, site: Address, outcome: Outcome) -> bool {
        self.1.told.contains(&(site, outcome))
    }

    fn only_read(&self, site: Address) -> bool {
        self.1.judge.only_read(site)
    }
}

/// What is pending becomes durable.
fn persist(node: &mut Node, address: Address, judge: &mut Judge) -> Option<Input> {
    let last = node.pending.back()?.id;
    for write in node.pending.drain(..) {
        if let Record::Decided { decision, .. } = &write.record {
            judge.decided(address, decision.outcome());
        }
        node.disk.push(write.record);
    }
    node.done = last;
    Some(Input::Written { id: last })
}

fn transmit(state: &mut State, message: Message) {
    match &message.body {
        Body::Vote(vote) => state.judge.voted(message.from, vote),
        Body::AcceptVotes { votes, .. } if matches!(message.from, Address::Participant(_)) => {
            votes.iter().for_each(|(_, vote)| state.judge.voted(message.from, vote));
        }
        _ => {}
    }
    state.network.insert(message);
}

impl Model for Commit {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let terms = self.terms();
        let sites = terms.electorate().chain(terms.acceptors());
        let node = |address: Address| {
            let vote = match address {
                Address::Participant(b) => Some(self.votes[usize::from(b.0) - 1].clone()),
                _ => None,
            };
            let node = Node {
                site: self.restore(address, &[]),
                disk: Vec::new(),
                pending: VecDeque::new(),
                done: WriteId(0),
                gated: Vec::new(),
                resource: vote.map(Resource::new),
                ticks: (self.ticks)(address),
            };
            (address, node)
        };
        let mut state = State {
            nodes: sites.map(node).collect(),
            network: BTreeSet::new(),
            told: BTreeSet::new(),
            begun: false,
            early: self.early,
            restarts: self.restarts,
            judge: Judge::new(self.protocol, terms),
        };
        if self.start >= Start::Prepared {
            state.begun = true;
            let begin = Input::Begin { deadline: Instant::ZERO };
            self.feed(&mut state, Address::Coordinator, begin);
            self.deliver_all(&mut state);
        }
        if self.start >= Start::Voted {
            self.deliver_all(&mut state);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.judge.breach().is_some() {
            return;
        }
        if !state.begun {
            actions.push(Action::Begin);
        }
        if state.early {
            actions.push(Action::PrepareEarly);
        }
        actions.extend(state.network.iter().cloned().map(Action::Deliver));
        for (address, node) in &state.nodes {
            if node.ticks > 0 && node.site.next_timeout().is_some() {
                actions.push(Action::Tick(*address));
            }
            if !node.pending.is_empty() {
                actions.push(Action::Persist(*address));
            }
            // Who has nothing to lose loses nothing by it.
            let fresh = node.disk.is_empty() && node.site == self.restore(*address, &[]);
            if state.restarts > 0 && !fresh && (self.restarting)(*address) {
                actions.push(Action::Restart(*address));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Begin => {
                state.begun = true;
                let deadline = Instant::ZERO;
                self.feed(&mut state, Address::Coordinator, Input::Begin { deadline });
            }
            Action::PrepareEarly => {
                state.early = false;
                self.feed(&mut state, Address::Participant(BranchId(1)), Input::Prepare);
            }
            Action::Deliver(message) => {
                if self.once {
                    state.network.remove(&message);
                }
                self.arrive(&mut state, message);
            }
            Action::Tick(address) => {
                state.nodes.get_mut(&address)?.ticks -= 1;
                self.feed(&mut state, address, Input::Tick);
            }
            Action::Persist(address) => {
                self.make_durable(&mut state, address);
            }
            Action::Restart(address) => {
                state.restarts -= 1;
                let node = state.nodes.get_mut(&address)?;
                node.pending.clear();
                node.gated.clear();
                node.done = WriteId(0);
                if let Some(resource) = &mut node.resource {
                    // Who did not vote Yes may vote otherwise next time, if it is asked again.
                    let vote = match resource.vote() {
                        Vote::Yes => Vote::Yes,
                        Vote::ReadOnly => no(),
                        Vote::No(_) => Vote::Yes,
                    };
                    resource.crash(&node.disk, vote);
                }
                node.site = self.restore(address, &node.disk);
                // Who began is not asked again: the next attempt would have the next epoch.
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(PROMISES, |_: &Commit, state: &State| state.judge.breach().is_none()),
            Property::sometimes("a commit", |_: &Commit, state: &State| {
                state.judge.outcome() == Some(Outcome::Commit)
            }),
            Property::sometimes("an abort", |_: &Commit, state: &State| {
                state.judge.outcome() == Some(Outcome::Abort)
            }),
        ]
    }
}

impl Commit {
    /// Two participants and the coordinator.
    pub fn three(protocol: Protocol) -> Self {
        Commit {
            protocol,
            canary: None,
            votes: vec![Vote::Yes; 2],
            acceptors: if protocol == Protocol::PaxosCommit { 3 } else { 0 },
            ticks: |_| 1,
            restarts: 0,
            restarting: everywhere,
            once: false,
            slow_disks: nowhere,
            start: Start::Fresh,
            early: false,
        }
    }

    /// What is searched, for people.
    fn name(&self) -> String {
        let Commit { protocol, votes, acceptors, restarts, start, .. } = self;
        let yes = votes.iter().filter(|vote| vote.allows_commit()).count();
        let (all, early, once) = (votes.len(), self.early, self.once);
        let sites = self.terms().electorate().chain(self.terms().acceptors());
        let slow = sites.filter(|site| (self.slow_disks)(*site)).count();
        format!(
            "{protocol}, {yes} of {all} yes, {acceptors} acceptors, {restarts} restarts, {slow} \
             slow disks, from {start:?}, early {early}, once {once}"
        )
    }

    fn searched(self) -> impl Checker<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        self.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join()
    }

    /// Searches everything, and demands that nothing be broken, and that these ends be possible.
    fn holds(self, commits: bool, aborts: bool) {
        let started = std::time::Instant::now();
        let name = self.name();
        let checker = self.searched();
        println!("{} states in {:?}: {name}", checker.unique_state_count(), started.elapsed());
        let found = checker.discoveries();
        assert!(!found.contains_key(PROMISES), "{:?}", found.get(PROMISES));
        assert_eq!(
            (found.contains_key("a commit"), found.contains_key("an abort")),
            (commits, aborts)
        );
    }

    /// Whether the search finds a breach.
    pub fn breaks(self) -> bool {
        let checker = self.searched();
        let found = checker.discoveries().contains_key(PROMISES);
        println!("  breach found: {found}, {} states", checker.unique_state_count());
        found
    }
}

fn no() -> Vote {
    Vote::No(Reason::Refused("no".into()))
}

/// The coordinator and the first participant lose their patience: two elections, besides the
/// coordinator's own attempt.
fn two(site: Address) -> u8 {
    u8::from(site != Address::Participant(BranchId(2)))
}

fn everywhere(_: Address) -> bool {
    true
}

fn nowhere(_: Address) -> bool {
    false
}

/// Participant 1, whose patience ends, too.
fn at_the_first(site: Address) -> bool {
    site == Address::Participant(BranchId(1))
}

fn first_participant(site: Address) -> u8 {
    u8::from(site == Address::Participant(BranchId(1)))
}

#[test]
fn two_phase() {
    let model = || Commit::three(Protocol::TwoPhase);
    Commit { restarts: 1, slow_disks: everywhere, ticks: two, ..model() }.holds(true, true);
    Commit { early: true, ..model() }.holds(true, true);
    Commit { restarts: 1, votes: vec![Vote::Yes, no()], ..model() }.holds(false, true);
    let votes = vec![Vote::ReadOnly, Vote::Yes];
    Commit { restarts: 1, early: true, votes, ticks: two, ..model() }.holds(true, true);
}

#[test]
fn three_phase() {
    let model = || Commit::three(Protocol::ThreePhase);
    Commit { ticks: two, start: Start::Voted, ..model() }.holds(true, true);
    let ticks = first_participant;
    let votes = || vec![Vote::Yes, no()];
    Commit { ticks, start: Start::Voted, restarts: 1, ..model() }.holds(true, true);
    Commit { ticks, start: Start::Prepared, ..model() }.holds(true, true);
    Commit { ticks, votes: votes(), ..model() }.holds(false, true);
}

/// Disks that take their time, everywhere where nobody is impatient; and where somebody is, at
/// whoever that is, who restarts as well.
#[test]
fn three_phase_with_slow_disks() {
    let model = || Commit { once: true, restarts: 1, ..Commit::three(Protocol::ThreePhase) };
    Commit { ticks: |_| 0, slow_disks: everywhere, ..model() }.holds(true, false);
    let (ticks, start) = (first_participant, Start::Voted);
    let (slow_disks, restarting) = (at_the_first as fn(Address) -> bool, at_the_first);
    Commit { ticks, start, slow_disks, restarting, ..model() }.holds(true, true);
}

#[test]
fn paxos_commit() {
    let model = || Commit::three(Protocol::PaxosCommit);
    let ticks = first_participant;
    Commit { ticks, votes: vec![Vote::Yes], ..model() }.holds(true, true);
    Commit { ticks, start: Start::Prepared, ..model() }.holds(true, true);
    // Who forgot a refusal that nobody heard of may say yes when it is asked again.
    let votes = vec![no()];
    Commit { restarts: 1, slow_disks: everywhere, votes, ticks, ..model() }.holds(true, true);
}

/// Who voted Yes restarts, as often and as soon as may be with one acceptor.
#[test]
fn paxos_commit_with_restarts_after_yes() {
    let model = || Commit { acceptors: 1, ..Commit::three(Protocol::PaxosCommit) };
    let (ticks, slow_disks) = (first_participant, everywhere);
    let votes = vec![Vote::Yes];
    Commit { ticks, votes, restarts: 2, slow_disks, ..model() }.holds(true, true);
    Commit { ticks, restarts: 1, ..model() }.holds(true, true);
    let (slow_disks, restarting) = (at_the_first as fn(Address) -> bool, at_the_first);
    Commit { ticks, restarts: 1, slow_disks, restarting, ..model() }.holds(true, true);
}

#[test]
fn the_original_three_phase_splits() {
    let start = Start::Voted;
    let ticks = |_| 2;
    assert!(Commit { start, ticks, ..Commit::three(Protocol::NaiveThreePhase) }.breaks());
}

/// The search that finds a deliberate bug which random schedules miss, or meet too rarely.
/// `AnyPreCommitWins` is one that 60,000 schedules of five sites do not find; three sites and two
/// elections do.
pub fn search_for(bug: Canary) -> Option<Commit> {
    let canary = Some(bug);
    let model = |protocol| Commit { canary, ..Commit::three(protocol) };
    let two_phase = Commit { restarts: 1, slow_disks: everywhere, ..model(Protocol::TwoPhase) };
    let three_phase = model(Protocol::ThreePhase);
    match bug {
        Canary::CommitBeforeWritten => Some(Commit { ticks: two, ..two_phase }),
        Canary::NoTombstone => Some(Commit { early: true, ..model(Protocol::TwoPhase) }),
        Canary::SilenceIsYes => Some(model(Protocol::TwoPhase)),
        Canary::ForgetPromise => Some(Commit {
            restarts: 1,
            start: Start::Voted,
            ticks: first_participant,
            ..three_phase
        }),
        Canary::RefuseBeforeWritten => Some(Commit {
            restarts: 1,
            slow_disks: everywhere,
            votes: vec![no()],
            ticks: first_participant,
            ..model(Protocol::PaxosCommit)
        }),
        Canary::AnyPreCommitWins => Some(Commit { start: Start::Voted, ticks: two, ..three_phase }),
        _ => None,
    }
}
