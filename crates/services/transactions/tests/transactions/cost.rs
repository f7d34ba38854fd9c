//! What a transaction between keyspaces costs (docs/transactions.md, docs/paxos-commit.md,
//! docs/two-phase-commit.md): the records and every keyspace are groups of N replicas under one of
//! the replicated logs, and each command is proposed to its group's log. Entries, messages, forced
//! writes and rounds are counted, for one transaction, for T at once, and for a bundle of T.
//!
//! The coordinator is counted as if each group's leader were where it is: what a member asks of a
//! leader elsewhere comes on top. As in a node, what is there for one group at the same time is
//! one entry of its log, up to a limit, whoever asked for it.

use quorate_atomic_commit::Protocol;
use quorate_base::{GroupId, Instant};
use quorate_replicated_log::conformance::{Cluster, Counts, Factory};
use quorate_replicated_log::{Config, Recovered, ReplicatedLog};
use quorate_transactions::{
    BranchRecord, Carried, Change, Coordinator, Effect, End, Input, Moment, Owner, Settings, Start,
    StoreRequest, Stored, Vote,
};
use std::collections::BTreeMap;
use std::time::Duration;

const MESSAGE: Duration = Duration::from_millis(1);
const WRITE: Duration = Duration::from_micros(500);
/// What a leader takes to have something committed.
const ROUND: Duration = Duration::from_micros(2_500);

/// Nobody waits for anything but answers.
const NOW: Moment = Moment { now: Instant::ZERO, wall_ms: 1 };

/// What goes with one entry at most: commands for a keyspace, and records.
const COMMANDS: usize = 256;
const RECORDS: usize = 64;

fn raft(config: Config, now: Instant, recovered: Recovered) -> Box<dyn ReplicatedLog> {
    Box::new(quorate_raft::Raft::new(config, now, recovered))
}

fn paxos(config: Config, now: Instant, recovered: Recovered) -> Box<dyn ReplicatedLog> {
    Box::new(quorate_paxos::MultiPaxos::new(config, now, recovered))
}

/// A command for a group: what is to be answered, and to which transaction.
type Command = (usize, Option<Input>);

/// What was counted.
#[derive(Default, PartialEq, Eq, Debug)]
struct Cost {
    /// Entries of the records' log and of all keyspaces' until everybody was told, and in the end.
    until_told: (u64, u64),
    in_the_end: (u64, u64),
    /// Commits of a log, one after the other, until everybody was told.
    rounds: u64,
    messages: u64,
    writes: u64,
    /// Keys for the ids that are carried.
    keys: u64,
}

struct World {
    transactions: Vec<Coordinator>,
    told: usize,
    over: usize,
    /// The records' group is the first.
    groups: Vec<Cluster>,
    leaders: Vec<u64>,
    entries: Vec<u64>,
    waiting: BTreeMap<usize, Vec<Command>>,
    revision: u64,
    keys: u64,
}

impl World {
    fn new(factory: Factory, replicas: u64, keyspaces: usize) -> World {
        let mut groups = Vec::new();
        for seed in 0..=keyspaces as u64 {
            let mut cluster = Cluster::new(factory, seed, replicas, replicas);
            cluster.run_for(Duration::from_secs(2));
            cluster.counts = Counts::default();
            groups.push(cluster);
        }
        let leaders = groups.iter().map(|group| group.leader().unwrap()).collect();
        World {
            transactions: Vec::new(),
            told: 0,
            over: 0,
            entries: vec![0; groups.len()],
            groups,
            leaders,
            waiting: BTreeMap::new(),
            revision: 0,
            keys: 0,
        }
    }

    fn begin(&mut self, protocol: Protocol, keyspaces: u64, carried: u64) {
        let branch = |group: u64| {
            BranchRecord::keyspace(&format!("b{group}"), &format!("p{group}"), GroupId(group))
        };
        let carry = |n: u64| Carried { id: format!("c{n}"), content: 1 };
        let start = Start {
            content: 1,
            protocol,
            owner: Owner::default(),
            patience: Duration::from_secs(60),
            branches: (1..=keyspaces).map(branch).collect(),
            carried: (0..carried).map(carry).collect(),
            free_as_of: 0,
            first_record: Duration::ZERO,
        };
        let (at, mut out) = (self.transactions.len(), Vec::new());
        let id = at as u128 + 1;
        let it = Coordinator::begin(Settings::default(), id, start, NOW, &mut out);
        self.transactions.push(it);
        self.take(at, out);
    }

    fn take(&mut self, at: usize, out: Vec<Effect>) {
        for effect in out {
            let (group, answer) = match effect {
                Effect::Store(request) => (0, Some(self.stored(at, &request))),
                Effect::Prepare { branch, epoch, .. } => {
                    (branch + 1, Some(Input::Voted { branch, epoch, vote: Vote::Yes }))
                }
                Effect::Settle { branch, epoch, commit: true, .. } => {
                    let end = End::Committed(1);
                    (branch + 1, Some(Input::Settled { branch, epoch, end }))
                }
                Effect::Decided => {
                    self.told += 1;
                    continue;
                }
                Effect::Finished { forget: true } => {
                    self.over += 1;
                    let branches = self.transactions[at].record().branches.len();
                    for group in 1..=branches {
                        self.waiting.entry(group).or_default().push((at, None));
                    }
                    continue;
                }
                other => panic!("nothing fails: {other:?}"),
            };
            self.waiting.entry(usize::from(group)).or_default().push((at, answer));
        }
    }

    fn stored(&mut self, at: usize, request: &StoreRequest) -> Input {
        self.revision += 1;
        let changes = request.write(&format!("t{at}")).changes;
        let takes = |change: &&Change| matches!(change, Change::Take(_));
        self.keys += changes.iter().filter(takes).count() as u64;
        Input::Stored { number: request.number, stored: Stored::Done(self.revision) }
    }

    /// All that waits is proposed, and committed; then it is answered.
    fn round(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let mut wanted = Vec::new();
        for (&group, commands) in &waiting {
            let most = if group == 0 { RECORDS } else { COMMANDS };
            let (cluster, leader) = (&mut self.groups[group], self.leaders[group]);
            let before = cluster.chosen_up_to();
            let entries = commands.len().div_ceil(most) as u64;
            (0..entries).for_each(|_| cluster.propose(leader, 1));
            self.entries[group] += entries;
            wanted.push((group, before + entries));
        }
        self.groups.iter_mut().for_each(|group| group.run_for(ROUND));
        for (group, index) in wanted {
            assert_eq!(self.groups[group].chosen_up_to(), index, "a round is two delays, a write");
        }
        for (at, answer) in waiting.into_values().flatten() {
            let Some(answer) = answer else { continue };
            let (moment, mut out) = (NOW, Vec::new());
            self.transactions[at].step(moment, answer, &mut out);
            self.take(at, out);
        }
    }

    fn counted(&self) -> (u64, u64) {
        (self.entries[0], self.entries[1..].iter().sum())
    }

    fn run(mut self) -> Cost {
        let (mut cost, all) = (Cost::default(), self.transactions.len());
        while !self.waiting.is_empty() {
            let told = self.told == all;
            self.round();
            if !told {
                cost.rounds += 1;
                cost.until_told = self.counted();
            }
        }
        assert_eq!((self.told, self.over), (all, all), "all are committed, and over");
        cost.in_the_end = self.counted();
        cost.keys = self.keys;
        for group in &mut self.groups {
            group.run_for(MESSAGE * 2);
            let c = group.counts;
            cost.messages += c.appends + c.append_replies + c.commit_notices;
            cost.writes += c.writes;
        }
        cost
    }
}

/// T transactions at once over the same n keyspaces, each group of N replicas.
fn together(factory: Factory, protocol: Protocol, t: u64, n: u64, replicas: u64) -> Cost {
    let mut world = World::new(factory, replicas, n as usize);
    (0..t).for_each(|_| world.begin(protocol, n, 0));
    world.run()
}

const PROTOCOLS: [(Protocol, u64); 2] = [(Protocol::PaxosCommit, 2), (Protocol::TwoPhase, 3)];

/// Alone: the record is written twice, or three times; each keyspace prepares, commits, forgets.
/// Each of these is an entry of its group's log: 3(N − 1) messages and N forced writes.
#[test]
fn one_transaction() {
    assert_eq!(ROUND, MESSAGE * 2 + WRITE);
    for factory in [raft as Factory, paxos] {
        for (protocol, records) in PROTOCOLS {
            for n in [2, 3, 5] {
                for replicas in [3, 5] {
                    let cost = together(factory, protocol, 1, n, replicas);
                    let entries = records + 3 * n;
                    let wanted = Cost {
                        until_told: (records - 1, n),
                        in_the_end: (records, 3 * n),
                        rounds: records - 1,
                        messages: entries * 3 * (replicas - 1),
                        writes: entries * replicas,
                        keys: 1,
                    };
                    assert_eq!(cost, wanted, "{protocol}, n = {n}, N = {replicas}");
                }
            }
        }
    }
}

/// T at once: as long as their commands go with one entry, they cost what one does.
#[test]
fn transactions_at_the_same_time_share_their_entries() {
    for (protocol, records) in PROTOCOLS {
        for (t, of_records, of_commands) in [(64, 1, 1), (65, 2, 1), (256, 4, 1), (300, 5, 2)] {
            let (n, replicas) = (2, 3);
            let cost = together(raft, protocol, t, n, replicas);
            let in_the_end = (records * of_records, 3 * n * of_commands);
            assert_eq!(cost.in_the_end, in_the_end, "{protocol}, T = {t}");
            assert_eq!(cost.until_told, ((records - 1) * of_records, n * of_commands));
            assert_eq!((cost.rounds, cost.keys), (records - 1, t));
            let entries = in_the_end.0 + in_the_end.1;
            assert_eq!(cost.writes, entries * replicas);
            assert!(cost.messages <= entries * 3 * (replicas - 1), "{cost:?}");
        }
    }
}

/// One after the other they share nothing.
#[test]
fn transactions_one_after_the_other_cost_each_its_own() {
    for (protocol, records) in PROTOCOLS {
        let (t, n, replicas) = (5, 2, 3);
        let costs: Vec<Cost> = (0..t).map(|_| together(paxos, protocol, 1, n, replicas)).collect();
        let writes: u64 = costs.iter().map(|cost| cost.writes).sum();
        assert_eq!(writes, t * (records + 3 * n) * replicas);
    }
}

/// A bundle of T needs all of it once, and a key for its id and for each that it carries.
#[test]
fn a_bundle_costs_what_one_does_and_a_key_for_each() {
    for t in [1, 2, 64] {
        let (n, replicas) = (2, 3);
        let mut world = World::new(raft, replicas, n as usize);
        world.begin(Protocol::PaxosCommit, n, t);
        let alone = together(raft, Protocol::PaxosCommit, 1, n, replicas);
        assert_eq!(world.run(), Cost { keys: t + 1, ..alone });
    }
}
