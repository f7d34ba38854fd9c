//! The sites of one transaction, a network and a clock, all in one place and all determined by a
//! seed.

use super::counts::Counts;
use super::judge::Judge;
use super::resource::Resource;
use super::rules::{self, Witness};
use crate::{
    Address, Answer, AtomicCommit, Body, Config, Decision, Effects, Epoch, Event, Input, Key,
    Message, Outcome, Phase, Protocol, Reason, Record, Send, Site, Terms, TransactionId, Vote,
    Write, WriteId,
};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;
use quorate_base::{Instant, Rng};

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The protocol.
    pub protocol: Protocol,
    /// How each participant will vote, and so how many there are.
    pub votes: Vec<Vote>,
    /// F of the 2F + 1 acceptors of Paxos Commit.
    pub faults: u16,
    /// The source of all chance.
    pub seed: u64,
    /// The sites' settings.
    pub config: Config,
}

impl Setup {
    /// `participants` that all vote Yes, with F = 1.
    pub fn new(protocol: Protocol, participants: usize, seed: u64) -> Self {
        let config = Config {
            retry: Duration::from_millis(50),
            patience: Duration::from_millis(100),
            canary: None,
        };
        Setup { protocol, votes: alloc::vec![Vote::Yes; participants], faults: 1, seed, config }
    }

    fn terms(&self) -> Terms {
        let branches = u16::try_from(self.votes.len()).unwrap_or(u16::MAX);
        let acceptors = match self.protocol {
            Protocol::PaxosCommit => 2 * self.faults + 1,
            _ => 0,
        };
        Terms { branches, acceptors }
    }
}

/// How things stand with a transaction, as seen from everywhere at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ended {
    /// Every branch that runs has committed.
    Committed,
    /// Every branch that runs has rolled back, or never prepared.
    RolledBack,
    /// Some branch is prepared and does not know how it ends.
    Blocked,
    /// A promise is broken.
    Split,
}

enum Parcel {
    Message(Message),
    Written(u64, WriteId),
    Answer(u64, Answer),
    /// The host has the coordinator forget.
    Forget,
}

struct Node {
    site: Option<Site>,
    run: u64,
    disk: Vec<Record>,
    writing: VecDeque<Write>,
    done: WriteId,
    gated: Vec<Send>,
    resource: Option<Resource>,
}

/// A transaction under test.
pub struct World {
    setup: Setup,
    terms: Terms,
    /// Virtual time.
    pub now: Instant,
    /// The source of all chance.
    pub rng: Rng,
    /// Messages lost, in parts per million; a quarter as many arrive twice.
    pub loss_ppm: u32,
    /// Every message takes from one to this many times a millisecond.
    pub delay_max: u64,
    /// Every write takes from zero to this many times a millisecond.
    pub write_max: u64,
    /// Pairs between which nothing arrives, in that direction.
    pub cut: BTreeSet<(Address, Address)>,
    /// What was counted.
    pub counts: Counts,
    /// The judge.
    pub judge: Judge,
    /// When each site first knew the decision.
    pub decided_at: BTreeMap<Address, Instant>,
    /// Whether every participant has proven that it applied the decision.
    pub completed: bool,
    begun: bool,
    nodes: BTreeMap<Address, Node>,
    /// Which decisions each site has heard from others.
    told: BTreeSet<(Address, Outcome)>,
    parcels: BTreeMap<(Instant, u64), (Address, Parcel)>,
    parcel: u64,
}

/// Longer than any message can be under way.
const NO_MESSAGE_LIVES_LONGER: Duration = Duration::from_millis(500);

/// The one attempt there is.
const KEY: Key = Key { transaction: TransactionId(0x7a), epoch: Epoch(1) };

impl World {
    /// All sites run, and nothing has begun.
    pub fn new(setup: Setup) -> Self {
        let terms = setup.terms();
        let mut world = World {
            terms,
            now: Instant::ZERO,
            rng: Rng::new(setup.seed),
            loss_ppm: 0,
            delay_max: 1,
            write_max: 0,
            cut: BTreeSet::new(),
            counts: Counts::default(),
            judge: Judge::new(setup.protocol, terms),
            decided_at: BTreeMap::new(),
            completed: false,
            begun: false,
            nodes: BTreeMap::new(),
            parcels: BTreeMap::new(),
            parcel: 0,
            told: BTreeSet::new(),
            setup,
        };
        for address in terms.electorate().chain(terms.acceptors()) {
            let vote = match address {
                Address::Participant(b) => world.setup.votes.get(usize::from(b.0) - 1).cloned(),
                _ => None,
            };
            let node = Node {
                site: None,
                run: 0,
                disk: Vec::new(),
                writing: VecDeque::new(),
                done: WriteId(0),
                gated: Vec::new(),
                resource: vote.map(Resource::new),
            };
            world.nodes.insert(address, node);
            world.start(address);
        }
        world
    }

    /// Every site.
    pub fn sites(&self) -> Vec<Address> {
        self.nodes.keys().copied().collect()
    }

    /// Who takes part.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// The site, if it runs.
    pub fn site(&self, address: Address) -> Option<&Site> {
        self.nodes.get(&address).and_then(|node| node.site.as_ref())
    }

    /// Where a site is; nothing if it does not run.
    pub fn phase(&self, address: Address) -> Option<Phase> {
        self.site(address).map(|site| site.status().phase)
    }

    /// Starts a site that does not run.
    pub fn start(&mut self, address: Address) {
        let Setup { protocol, config, .. } = self.setup;
        let terms = self.terms;
        let Some(node) = self.nodes.get_mut(&address).filter(|node| node.site.is_none()) else {
            return;
        };
        node.run += 1;
        node.done = WriteId(0);
        node.site = Some(Site::restore(protocol, config, (KEY, terms), address, &node.disk));
        self.step(address, Input::Tick);
    }

    /// Stops a site: what was not written is lost.
    pub fn crash(&mut self, address: Address) {
        let Some(node) = self.nodes.get_mut(&address) else { return };
        node.site = None;
        node.writing.clear();
        node.gated.clear();
        // Work that is done again may be refused this time, or not; what only reads only reads.
        let refused = Vote::No(Reason::Refused("changed its mind".into()));
        let Some(resource) = &mut node.resource else { return };
        let again = match (resource.vote(), self.rng.below(4)) {
            (Vote::Yes, 0) => refused,
            (Vote::No(_), 0..2) => Vote::Yes,
            (same, _) => same.clone(),
        };
        resource.crash(&node.disk, again);
    }

    /// The client asks the coordinator to run the transaction, unless it did before.
    pub fn begin(&mut self, within: Duration) {
        if core::mem::replace(&mut self.begun, true) {
            return;
        }
        let deadline = self.now + within;
        self.step(Address::Coordinator, Input::Begin { deadline });
    }

    /// Cuts all links between the sites of the two sides, in both directions.
    pub fn partition(&mut self, side: &[Address]) {
        for from in self.sites() {
            for to in self.sites() {
                if side.contains(&from) != side.contains(&to) {
                    self.cut.insert((from, to));
                }
            }
        }
    }

    /// Gives a running site an input and carries out what follows.
    pub fn step(&mut self, address: Address, input: Input) {
        let mut out = Effects::default();
        let Some(node) = self.nodes.get_mut(&address) else { return };
        let Some(site) = node.site.as_mut() else { return };
        site.step(self.now, input, &mut out);
        self.carry_out(address, out);
    }

    fn carry_out(&mut self, address: Address, out: Effects) {
        let Some(run) = self.nodes.get(&address).map(|node| node.run) else { return };
        for order in out.orders {
            let breach = rules::order_is_given(self, address, order);
            breach.into_iter().for_each(|breach| self.judge.convict(breach));
            let Some(node) = self.nodes.get_mut(&address) else { return };
            let was_prepared = node.disk.contains(&Record::Prepared);
            let Some(resource) = &mut node.resource else { continue };
            let answer = resource.carry_out(order);
            if let Some(outcome) = resource.finished()
                && (was_prepared || outcome == Outcome::Commit)
            {
                self.judge.decided(address, outcome);
            }
            if let Some(answer) = answer {
                self.parcel += 1;
                let parcel = Parcel::Answer(run, answer);
                self.parcels.insert((self.now, self.parcel), (address, parcel));
            }
        }
        for write in out.writes {
            self.counts.write(address, &write);
            let takes = Duration::from_millis(self.rng.below(self.write_max + 1));
            self.parcel += 1;
            let parcel = Parcel::Written(run, write.id);
            self.parcels.insert((self.now + takes, self.parcel), (address, parcel));
            let node = self.nodes.get_mut(&address);
            node.into_iter().for_each(|node| node.writing.push_back(write.clone()));
        }
        for send in out.sends {
            let done = self.nodes.get(&address).map_or(WriteId(0), |node| node.done);
            if send.after.is_some_and(|after| after > done) {
                let node = self.nodes.get_mut(&address);
                node.into_iter().for_each(|node| node.gated.push(send.clone()));
            } else {
                self.transmit(address, send.message);
            }
        }
        for event in out.events {
            self.note(address, event);
        }
    }

    fn note(&mut self, address: Address, event: Event) {
        match event {
            Event::Decided(decision) => {
                self.decided_at.entry(address).or_insert(self.now);
                // A participant's is judged once it is durable: a refusal may be forgotten.
                if !matches!(address, Address::Participant(_)) {
                    self.judge.decided(address, decision.outcome());
                }
            }
            Event::Completed => {
                self.completed = true;
                let outcome = self.judge.decision_of(address);
                let breach = outcome.and_then(|it| rules::completes(self, address, it));
                breach.into_iter().for_each(|breach| self.judge.convict(breach));
                if address == Address::Coordinator {
                    self.post(NO_MESSAGE_LIVES_LONGER, address, Parcel::Forget);
                }
            }
            Event::Heuristic(branch) => {
                let what = format!("branch {} was finished against the decision", branch.0);
                self.judge.convict(what);
            }
            Event::Refused(_) | Event::Ignored(_) => {}
        }
    }

    fn transmit(&mut self, from: Address, message: Message) {
        let to = message.to;
        let breach = rules::message_leaves(self, from, &message);
        breach.into_iter().for_each(|breach| self.judge.convict(breach));
        match &message.body {
            Body::Vote(vote) => self.judge.voted(from, vote),
            Body::AcceptVotes { votes, .. } if matches!(from, Address::Participant(_)) => {
                votes.iter().for_each(|(_, vote)| self.judge.voted(from, vote));
            }
            _ => {}
        }
        if from == to {
            self.post(Duration::ZERO, to, Parcel::Message(message));
            return;
        }
        self.counts.message(&message.body);
        if self.cut.contains(&(from, to)) || self.rng.chance_ppm(self.loss_ppm) {
            return;
        }
        let delay = Duration::from_millis(self.rng.between(1, self.delay_max));
        if self.rng.chance_ppm(self.loss_ppm / 4) {
            let later = delay + Duration::from_millis(self.rng.between(1, 8 * self.delay_max));
            self.post(later, to, Parcel::Message(message.clone()));
        }
        self.post(delay, to, Parcel::Message(message));
    }

    fn post(&mut self, delay: Duration, to: Address, parcel: Parcel) {
        self.parcel += 1;
        self.parcels.insert((self.now + delay, self.parcel), (to, parcel));
    }

    /// When something happens next.
    fn next(&self) -> Option<Instant> {
        let timers = self.nodes.values().filter_map(|node| node.site.as_ref()?.next_timeout());
        let parcel = self.parcels.keys().next().map(|(at, _)| *at);
        timers.chain(parcel).min()
    }

    /// One thing happens. Returns false if nothing is left.
    fn proceed(&mut self) -> bool {
        let Some(at) = self.next() else { return false };
        self.now = self.now.max(at);
        if let Some(parcel) = self.parcels.first_entry().filter(|p| p.key().0 <= self.now) {
            let (to, parcel) = parcel.remove();
            self.arrive(to, parcel);
            return true;
        }
        let due = |node: &Node| {
            let timeout = node.site.as_ref().and_then(Site::next_timeout);
            timeout.is_some_and(|due| due <= self.now)
        };
        let address = self.nodes.iter().find(|(_, node)| due(node)).map(|(address, _)| *address);
        if let Some(address) = address {
            self.step(address, Input::Tick);
        }
        true
    }

    fn arrive(&mut self, to: Address, parcel: Parcel) {
        let Some(node) = self.nodes.get_mut(&to) else { return };
        match parcel {
            // A link that is cut meanwhile swallows what is under way.
            Parcel::Message(message) => {
                if !self.cut.contains(&(message.from, to)) {
                    self.hear_of_an_earlier_attempt(to, &message);
                    match &message.body {
                        Body::Decide(decision) => self.told.insert((to, decision.outcome())),
                        // The application had it prepared, and may commit it.
                        Body::PrepareAlone => self.told.insert((to, Outcome::Commit)),
                        _ => false,
                    };
                    self.step(to, Input::Message(message));
                }
            }
            Parcel::Answer(run, answer) if run == node.run => {
                self.step(to, Input::Resource(answer));
            }
            Parcel::Written(run, id) if run == node.run => self.written(to, id),
            Parcel::Answer(..) | Parcel::Written(..) => {}
            Parcel::Forget => self.forget(to),
        }
    }

    /// Before any message there may be one of an earlier attempt, which said so too, or the
    /// contrary. It must change nothing, and nothing may follow from it.
    fn hear_of_an_earlier_attempt(&mut self, to: Address, message: &Message) {
        let now = self.now;
        let Some(site) = self.nodes.get_mut(&to).and_then(|node| node.site.as_mut()) else {
            return;
        };
        let contrary = match &message.body {
            Body::Decide(Decision::Commit) => Body::Decide(Decision::abort(Reason::TimedOut)),
            Body::Decide(Decision::Abort { .. }) => Body::Decide(Decision::Commit),
            same => same.clone(),
        };
        let epoch = Epoch(KEY.epoch.0 - 1);
        for body in [message.body.clone(), contrary] {
            let key = Key { epoch, ..KEY };
            let (before, mut out) = (site.clone(), Effects::default());
            site.step(now, Input::Message(Message { key, body, ..message.clone() }), &mut out);
            out.events.retain(|event| !matches!(event, Event::Ignored(_)));
            if *site != before || !out.is_empty() {
                let breach = rules::heeds_an_earlier_attempt(to);
                breach.into_iter().for_each(|breach| self.judge.convict(breach));
                return;
            }
        }
    }

    /// A site forgets, and is again as if it had never heard of the transaction. A tombstone must
    /// stay as long as the client may still begin.
    fn forget(&mut self, address: Address) {
        if !self.begun {
            return;
        }
        self.step(address, Input::Forget);
        if self.phase(address) == Some(Phase::Forgotten) {
            self.crash(address);
            self.nodes.get_mut(&address).into_iter().for_each(|node| node.disk.clear());
            self.start(address);
        }
    }

    fn written(&mut self, address: Address, id: WriteId) {
        let Some(node) = self.nodes.get_mut(&address) else { return };
        while node.writing.front().is_some_and(|write| write.id <= id) {
            let Some(write) = node.writing.pop_front() else { break };
            if let Record::Decided { decision, .. } = &write.record {
                self.judge.decided(address, decision.outcome());
            }
            node.done = write.id;
            node.disk.push(write.record);
        }
        let done = node.done;
        let gated = core::mem::take(&mut node.gated);
        let (free, held): (Vec<_>, Vec<_>) =
            gated.into_iter().partition(|send| send.after.is_none_or(|after| after <= done));
        node.gated = held;
        for send in free {
            self.transmit(address, send.message);
        }
        self.step(address, Input::Written { id: done });
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.next().is_some_and(|at| at <= until) {
            self.proceed();
        }
        self.now = until;
    }

    /// Lets things happen until `there`, for at most a minute. Returns whether it came to that.
    pub fn run_until(&mut self, there: impl Fn(&World) -> bool) -> bool {
        let until = self.now + Duration::from_secs(60);
        while !there(self) {
            if self.next().is_none_or(|at| at > until) {
                return false;
            }
            self.proceed();
        }
        true
    }

    /// Those of these sites that are prepared and do not know how it ends.
    pub fn in_doubt(&self, among: &[Address]) -> Vec<Address> {
        let doubtful = |site: &Address| {
            let phase = self.phase(*site);
            matches!(phase, Some(Phase::Prepared | Phase::PreCommitted | Phase::PreAborted))
        };
        among.iter().copied().filter(doubtful).collect()
    }

    /// How things stand with these participants.
    pub fn ended(&self, among: &[Address]) -> Ended {
        if self.judge.breach().is_some() {
            Ended::Split
        } else if !self.in_doubt(among).is_empty() {
            Ended::Blocked
        } else if self.judge.outcome() == Some(Outcome::Commit) {
            Ended::Committed
        } else {
            Ended::RolledBack
        }
    }
}

impl Witness for World {
    fn setting(&self) -> (Protocol, Key, Terms) {
        (self.setup.protocol, KEY, self.terms)
    }

    fn durable(&self, site: Address) -> &[Record] {
        self.nodes.get(&site).map_or(&[], |node| &node.disk)
    }

    fn is_prepared(&self, site: Address) -> bool {
        let Some(node) = self.nodes.get(&site) else { return false };
        let writing = node.writing.iter().map(|write| &write.record);
        node.disk.iter().chain(writing).any(|record| *record == Record::Prepared)
    }

    fn was_told(&self, site: Address, outcome: Outcome) -> bool {
        self.told.contains(&(site, outcome))
    }

    fn only_read(&self, site: Address) -> bool {
        self.judge.only_read(site)
    }
}
