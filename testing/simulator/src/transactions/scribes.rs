//! Clients that append to lists and read them, in one group or several by one transaction. Where
//! they are told nothing they ask another node for the same transaction.
//!
//! A list is a key with its values in a row. Who appends has read it before, and the transaction
//! holds it to be as it was; who reads does not care. The first client only reads, one group after
//! the other and without transactions: it must not see a commit here and miss it there.

use super::RECORDS;
use super::drive::PATIENCE;
use super::errand::Errand;
use super::verdict::Told;
use crate::counters::Happening;
use crate::neighbours::groups;
use crate::world::{Alive, Answered, Happens, World};
use bytes::Bytes;
use quorate_atomic_commit::Protocol;
use quorate_base::{GroupId, Instant};
use quorate_checkers::appends::{Ending, Key, Step, Transaction, Value};
use quorate_driver::Answer;
use quorate_keyspace::branch::Done;
use quorate_keyspace::command::{
    Command, Compare, CompareOperator, CompareTarget, Operation, Put, Range, Txn,
};
use quorate_keyspace::reply::{OperationOutcome, Outcome, RangeOutcome, TxnOutcome};
use quorate_keyspace::{Keyspace, Reply};
use quorate_mvcc::{KeyRange, MemoryEngine};
use quorate_transactions::Input;
use quorate_transactions::records::{self, as_of};
use std::time::Duration;

/// Lists in each group at a time.
const LISTS: u64 = 2;
/// After so many transactions new lists are begun.
const GENERATION: u64 = 50;
/// How long a client asks for one transaction.
const GIVES_UP: Duration = Duration::from_secs(6);

/// Who only reads.
const READER: usize = 0;

/// A client.
#[derive(Default)]
pub(super) struct Scribe {
    open: Option<Open>,
}

/// What a client wants now.
struct Open {
    id: String,
    called: Instant,
    /// What is done in each group, in order.
    wanted: Vec<(GroupId, Vec<(List, Wanted)>)>,
    protocol: Protocol,
    /// Who was asked last.
    asked: Option<Alive>,
    /// Whether it is a plain transaction of one group.
    plain: bool,
}

/// The groups that have lists.
fn of_lists(neighbours: u64) -> impl Iterator<Item = GroupId> {
    groups(neighbours).filter(|group| *group != RECORDS)
}

/// One list of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct List {
    group: GroupId,
    number: u64,
}

impl List {
    /// Where it is.
    pub(super) fn group(self) -> GroupId {
        self.group
    }

    fn name(self) -> Bytes {
        Bytes::from(format!("l/{:04}", self.number))
    }

    /// As the checker calls it.
    pub(super) fn key(self) -> Key {
        self.number << 8 | self.group.0
    }

    /// All that may have been begun, if so many transactions were.
    pub(super) fn all(neighbours: u64, begun: u64) -> impl Iterator<Item = List> {
        let numbers = 0..(begun / GENERATION + 1) * LISTS;
        of_lists(neighbours)
            .flat_map(move |group| numbers.clone().map(move |number| List { group, number }))
    }
}

/// What a client wants of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Wanted {
    Read,
    /// It found this text, or nothing.
    Append(Option<Bytes>, Value),
}

impl World<'_> {
    /// A client begins something, or looks what became of it.
    pub fn scribe(&mut self, scribe: usize) {
        let Some(open) = self.transactions.scribes[scribe].open.take() else {
            if !self.quiet {
                self.begin_list(scribe);
                self.scribe_again(scribe, 5, 20);
            }
            return;
        };
        if let Some(told) = self.transactions.told.remove(&open.id) {
            return self.scribe_told(scribe, open, Some(&told));
        }
        if self.now.since(open.called) > GIVES_UP {
            return self.scribe_told(scribe, open, None);
        }
        let open = match open.plain {
            true => Some(open),
            false => self.ask_for(scribe, open),
        };
        if open.is_some() {
            self.transactions.scribes[scribe].open = open;
            self.scribe_again(scribe, 10, 40);
        }
    }

    fn scribe_again(&mut self, scribe: usize, least_ms: u64, most_ms: u64) {
        let ms = Duration::from_millis;
        let at = self.now + self.transactions.rng.duration(ms(least_ms), ms(most_ms));
        self.queue.push(at, 5_000 + scribe as u32, Happens::Scribe(scribe));
    }

    /// Whether a node is up and not frozen.
    fn hears(&self, id: u64) -> bool {
        let node = &self.nodes[id as usize - 1];
        node.is_up() && node.frozen_until <= self.now
    }

    /// A founder that hears.
    fn somebody(&mut self) -> Option<u64> {
        let up: Vec<u64> = (1..=self.plan.nodes).filter(|id| self.hears(*id)).collect();
        self.transactions.rng.pick(&up).copied()
    }

    fn begin_list(&mut self, scribe: usize) {
        let Some(node) = self.somebody() else { return };
        let only_reads = scribe == READER;
        // Who only reads adds no value.
        self.transactions.begun += u64::from(!only_reads);
        let n = self.transactions.begun;
        let mut all: Vec<GroupId> = of_lists(self.plan.neighbours).collect();
        let rng = &mut self.transactions.rng;
        rng.shuffle(&mut all);
        let count = if only_reads || rng.below(4) == 0 { 1 } else { all.len() };
        let plain = only_reads || count == 1 && rng.below(2) == 0;
        let protocol = if rng.below(2) == 0 { Protocol::TwoPhase } else { Protocol::PaxosCommit };
        let mut wanted = Vec::new();
        for &group in &all[..count] {
            let mut here = Vec::new();
            let rng = &mut self.transactions.rng;
            let first = rng.below(LISTS);
            let more = if only_reads { 0 } else { rng.below(2) };
            for i in 0..=more {
                let number = n / GENERATION * LISTS + (first + i) % LISTS;
                let list = List { group, number };
                let wanted = match self.transactions.rng.below(2) {
                    _ if only_reads => Wanted::Read,
                    0 => Wanted::Read,
                    _ => Wanted::Append(self.text(node, list), n),
                };
                here.push((list, wanted));
            }
            wanted.push((group, here));
        }
        let (id, called) = (format!("t{scribe}-{}", self.transactions.next()), self.now);
        let mut open = Open { id, called, wanted, protocol, asked: None, plain };
        if plain {
            let (group, here) = &open.wanted[0];
            let (group, command) = (*group, Command::Txn(work(here)));
            let errand = match here.first() {
                Some((list, _)) if only_reads => {
                    let range = Range::of(KeyRange::One(list.name()));
                    Errand::Read { scribe, group, range, command }
                }
                _ => Errand::Plain { scribe, group, command },
            };
            let id = open.id.clone();
            open.asked = Some(self.node(node).alive());
            self.transactions.scribes[scribe].open = Some(open);
            return self.errand(node, None, id, errand);
        }
        self.transactions.scribes[scribe].open = Some(open);
    }

    /// A list's text as a node's replica has it.
    fn text(&mut self, node: u64, list: List) -> Option<Bytes> {
        let neighbour = self.running(node)?.neighbours.get(&list.group)?;
        text(neighbour.host.service(), list)
    }

    /// A client asks a node for its transaction, for the first time or again, or waits; nothing, if
    /// it was told.
    fn ask_for(&mut self, scribe: usize, mut open: Open) -> Option<Open> {
        let alive = |world: &mut Self, asked: Option<Alive>| {
            asked.filter(|asked| world.node(asked.node).alive() == *asked)
        };
        let node = match alive(self, open.asked) {
            // Sometimes it loses its patience with a node that lives.
            Some(asked) if self.transactions.rng.below(100) > 0 => asked.node,
            _ => {
                if open.asked.is_some() {
                    self.count(Happening::TransactionAskedAgain);
                }
                let Some(node) = self.somebody() else { return Some(open) };
                open.asked = Some(self.node(node).alive());
                node
            }
        };
        if !self.hears(node) {
            return Some(open);
        }
        let Some(running) = self.running(node) else { return Some(open) };
        let live = running.transactor.live(&open.id).map(|(number, _)| number);
        if let Some(number) = live {
            if self.now.since(open.called) > PATIENCE / 4 && self.transactions.rng.below(40) == 0 {
                self.count(Happening::TransactionCancelled);
                self.tell(node, number, Input::Cancel);
            }
            return Some(open);
        }
        let Some(running) = self.running(node) else { return Some(open) };
        let Some(neighbour) = running.neighbours.get(&RECORDS) else { return Some(open) };
        match records::look_for(&neighbour.host.service().reader(), &open.id) {
            Ok(None) => {
                let work: Vec<(GroupId, Txn)> =
                    open.wanted.iter().map(|(group, here)| (*group, work(here))).collect();
                self.transact(node, &open.id, open.protocol, &work);
                Some(open)
            }
            Ok(Some(known)) if known.is_settled() => {
                let verdict = known.record.stage.verdict();
                let commits = verdict.is_some_and(quorate_transactions::Verdict::commits);
                let told = Told { commits, at: self.now, answers: None };
                self.outcome(node, &open.id, told.clone());
                self.transactions.told.remove(&open.id);
                self.scribe_told(scribe, open, Some(&told));
                None
            }
            _ => Some(open),
        }
    }

    /// A client's plain transaction is answered.
    pub(super) fn plain_answered(&mut self, scribe: usize, id: &str, answer: &Answered) {
        // It may have given up, and ask something else by now.
        let waits = |open: &mut Open| open.plain && open.id == id;
        let Some(open) = self.transactions.scribes[scribe].open.take_if(waits) else { return };
        let told = match answer {
            Ok(Answer::Applied(Reply { revision, result: Ok(Outcome::Txn(outcome)) })) => {
                let done = Done { revision: *revision, outcome: outcome.clone() };
                let (commits, answers) = (outcome.succeeded, Some(vec![Some(done)]));
                Some(Told { commits, at: self.now, answers })
            }
            _ => None,
        };
        self.end_list(scribe, open, told.as_ref());
    }

    /// A client's read is answered.
    pub(super) fn list_read(&mut self, scribe: usize, id: &str, found: RangeOutcome) {
        let responses = vec![OperationOutcome::Range(found)];
        let outcome = TxnOutcome { succeeded: true, responses };
        let reply = Reply { revision: 0, result: Ok(Outcome::Txn(outcome)) };
        self.plain_answered(scribe, id, &Ok(Answer::Applied(reply)));
    }

    fn scribe_told(&mut self, scribe: usize, open: Open, told: Option<&Told>) {
        self.end_list(scribe, open, told);
        self.scribe_again(scribe, 5, 100);
    }

    /// A client's transaction has ended for it.
    fn end_list(&mut self, scribe: usize, open: Open, told: Option<&Told>) {
        let ending = match told {
            Some(Told { commits: true, at, .. }) => Ending::Committed((*at).max(open.called)),
            Some(_) => Ending::RolledBack,
            None => Ending::Unknown,
        };
        if self.trace.is_read() {
            self.line(0, format_args!("scribe {scribe} ends {}: {ending:?}", open.id));
        }
        let answers = told.and_then(|told| told.answers.as_ref());
        let mut steps = Vec::new();
        for (branch, (_, here)) in open.wanted.iter().enumerate() {
            let done = answers.and_then(|answers| answers.get(branch)?.as_ref());
            for (at, (list, wanted)) in here.iter().enumerate() {
                steps.push(match wanted {
                    Wanted::Read => Step::Read(list.key(), done.and_then(|done| found(done, at))),
                    Wanted::Append(_, value) => Step::Append(list.key(), *value),
                });
            }
        }
        self.transactions.told.remove(&open.id);
        let (client, called) = (scribe as u64, open.called);
        self.transactions.history.push(Transaction { client, called, steps, ending });
    }

    /// Whether no client waits for anything.
    pub(super) fn scribes_rest(&self) -> bool {
        self.transactions.scribes.iter().all(|scribe| scribe.open.is_none())
    }
}

fn work(here: &[(List, Wanted)]) -> Txn {
    let mut txn = Txn::default();
    for (list, wanted) in here {
        let key = list.name();
        match wanted {
            Wanted::Read => {
                txn.success.push(Operation::Range(Range::of(KeyRange::One(key))));
            }
            Wanted::Append(was, value) => {
                txn.compare.push(match was {
                    Some(was) => Compare {
                        range: KeyRange::One(key.clone()),
                        operator: CompareOperator::Equal,
                        target: CompareTarget::Value(was.clone()),
                    },
                    None => as_of(key.clone(), 0),
                });
                let before = was.as_ref().map(|was| String::from_utf8_lossy(was).into_owned());
                let value = before.map_or(value.to_string(), |was| format!("{was},{value}"));
                let value = Bytes::from(value);
                txn.success.push(Operation::Put(Put { key, value, ..Put::default() }));
            }
        }
    }
    txn
}

fn text(service: &Keyspace<MemoryEngine>, list: List) -> Option<Bytes> {
    let found = service.reader().range(&Range::of(KeyRange::One(list.name()))).ok()?;
    found.kvs.into_iter().next().map(|kv| kv.value)
}

fn values(text: &[u8]) -> Option<Vec<Value>> {
    std::str::from_utf8(text).ok()?.split(',').map(|value| value.parse().ok()).collect()
}

/// A list's values as a replica has them.
pub(super) fn content(service: &Keyspace<MemoryEngine>, list: List) -> Option<Vec<Value>> {
    text(service, list).map_or(Some(Vec::new()), |text| values(&text))
}

/// What the operation at this place has read.
fn found(done: &Done, at: usize) -> Option<Vec<Value>> {
    let Some(OperationOutcome::Range(range)) = done.outcome.responses.get(at) else { return None };
    range.kvs.first().map_or(Some(Vec::new()), |kv| values(&kv.value))
}
