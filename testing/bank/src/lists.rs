//! Clients that append to lists and read them, in several keyspaces by one transaction: what they
//! are told must be strictly serializable (`quorate_checkers::appends`).
//!
//! A list is a key with its values in a row. Who appends has read it before, and the transaction
//! holds it to be as it was; who reads does not care. So that lists stay short, new ones are begun
//! now and then.

use crate::clients::{Asker, Members, keyspaces, verdict};
use crate::ledger::Ledger;
use crate::places::Place;
use crate::requests::{holds, keyspace, put, range};
use quorate_base::{Instant, Rng};
use quorate_checkers::appends::{Ending, Step, Transaction, Value, check_appends};
use quorate_client::Client;
use quorate_wire::etcdserverpb::request_op::Request as Op;
use quorate_wire::etcdserverpb::response_op::Response as Done;
use quorate_wire::etcdserverpb::{RequestOp, TxnRequest};
use quorate_wire::quorate::{Branch, BranchAnswer, RunTransactionRequest};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Lists in each keyspace at a time.
const LISTS: u64 = 2;
/// After so many transactions new lists are begun.
const GENERATION: u64 = 400;
/// Most keyspaces of a transaction.
const MOST: u64 = 4;
const PATIENCE_MS: u64 = 3_000;
const PAUSE: Duration = Duration::from_millis(50);

/// What the clients of lists did and were told.
pub struct Lists {
    history: parking_lot::Mutex<Vec<Transaction>>,
    began: std::time::Instant,
    /// Transactions, or values, so far.
    count: AtomicU64,
}

impl Default for Lists {
    fn default() -> Lists {
        let began = std::time::Instant::now();
        Lists { history: parking_lot::Mutex::default(), began, count: AtomicU64::new(0) }
    }
}

impl Lists {
    fn now(&self) -> Instant {
        Instant::ZERO + self.began.elapsed()
    }

    fn next(&self) -> u64 {
        self.count.fetch_add(1, Relaxed) + 1
    }

    /// What everybody did and was told, taken out.
    pub fn take_history(&self) -> Vec<Transaction> {
        std::mem::take(&mut *self.history.lock())
    }

    /// How many transactions are known to be committed.
    pub fn committed(&self) -> usize {
        let told = |it: &&Transaction| matches!(it.ending, Ending::Committed(_));
        self.history.lock().iter().filter(told).count()
    }
}

/// One list: the place of its keyspace, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct List {
    place: usize,
    number: u64,
}

impl List {
    fn name(self) -> String {
        format!("l/{:06}", self.number)
    }

    /// As the checker calls it.
    fn key(self) -> u64 {
        self.number << 8 | self.place as u64
    }
}

/// What a client wants of a list.
enum Wanted {
    Read,
    /// It found this text, or nothing.
    Append(Option<String>, Value),
}

/// One client.
pub struct Scribe {
    me: u64,
    run: u64,
    ledger: Arc<Ledger>,
    rng: Rng,
    asker: Asker,
    /// Whether it does without transactions: what must be noticed.
    broken: bool,
}

impl Scribe {
    /// A client that asks one member first.
    pub fn new(
        me: u64,
        members: &Members,
        ledger: &Arc<Ledger>,
        mut rng: Rng,
        broken: bool,
    ) -> Scribe {
        Scribe {
            me,
            run: rng.next_u64() >> 40,
            ledger: ledger.clone(),
            rng,
            asker: Asker::new(me, members, ledger),
            broken,
        }
    }

    /// Writes and reads until it is told to stop.
    pub async fn run(mut self) {
        while self.ledger.goes_on() {
            let n = self.ledger.lists.next();
            let Some(wanted) = self.choose(n).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            // What was read to choose is no part of it.
            let called = self.ledger.lists.now();
            let (steps, ending) = match self.broken {
                true => self.by_halves(&wanted).await,
                false => self.transact(n, &wanted).await,
            };
            let done = Transaction { client: self.me, called, steps, ending };
            self.ledger.lists.history.lock().push(done);
        }
    }

    /// A list in each of some keyspaces, and what is to be done to it.
    async fn choose(&mut self, n: u64) -> Option<Vec<(List, Wanted)>> {
        let mut places: Vec<usize> = self.asker.keyspaces.keys().copied().collect();
        self.rng.shuffle(&mut places);
        let count = self.rng.between(2, MOST.min(places.len() as u64)) as usize;
        let mut wanted = Vec::new();
        for &place in &places[..count] {
            let list = List { place, number: n / GENERATION * LISTS + self.rng.below(LISTS) };
            let what = match self.rng.below(2) {
                0 => Wanted::Read,
                _ => Wanted::Append(read(&self.asker.keyspaces[&place], list).await?, n),
            };
            wanted.push((list, what));
        }
        Some(wanted)
    }

    async fn transact(&self, n: u64, wanted: &[(List, Wanted)]) -> (Vec<Step>, Ending) {
        let request = RunTransactionRequest {
            id: format!("s{}-{:x}-{n}", self.me, self.run),
            patience_ms: PATIENCE_MS,
            branches: wanted.iter().map(|(list, what)| self.branch(*list, what)).collect(),
            ..RunTransactionRequest::default()
        };
        let ran = self.asker.until_told(request).await;
        let ending = match ran.as_ref().and_then(verdict) {
            Some(true) => Ending::Committed(self.ledger.lists.now()),
            Some(false) => Ending::RolledBack,
            None => Ending::Unknown,
        };
        let answers = ran.map(|ran| ran.answers).unwrap_or_default();
        // Who asks again gets no answers.
        let whole = answers.len() == wanted.len();
        let steps = wanted.iter().enumerate().map(|(at, (list, what))| match what {
            Wanted::Read if whole => Step::Read(list.key(), found(&answers[at])),
            Wanted::Read => Step::Read(list.key(), None),
            Wanted::Append(_, value) => Step::Append(list.key(), *value),
        });
        (steps.collect(), ending)
    }

    fn branch(&self, list: List, what: &Wanted) -> Branch {
        let Place::Keyspace(name) = &self.ledger.map.places[list.place] else {
            unreachable!("lists are in keyspaces")
        };
        keyspace(name, work(list, what))
    }

    /// The same without a transaction, one keyspace after the other.
    async fn by_halves(&self, wanted: &[(List, Wanted)]) -> (Vec<Step>, Ending) {
        let (mut steps, mut all) = (Vec::new(), true);
        for (list, what) in wanted {
            let client = &self.asker.keyspaces[&list.place];
            match what {
                Wanted::Read => {
                    let text = read(client, *list).await;
                    steps.push(Step::Read(list.key(), text.and_then(|text| values(&text))));
                }
                Wanted::Append(_, value) => {
                    let done = client.txn(work(*list, what)).await;
                    all &= done.is_ok_and(|done| done.succeeded);
                    steps.push(Step::Append(list.key(), *value));
                }
            }
        }
        let ending = if all { Ending::Committed(self.ledger.lists.now()) } else { Ending::Unknown };
        (steps, ending)
    }
}

fn work(list: List, what: &Wanted) -> TxnRequest {
    match what {
        Wanted::Read => {
            let read = RequestOp { request: Some(Op::RequestRange(range(list.name()))) };
            TxnRequest { success: vec![read], ..TxnRequest::default() }
        }
        Wanted::Append(was, value) => {
            let is = was.as_ref().map_or(value.to_string(), |was| format!("{was},{value}"));
            let compare = vec![holds(list.name(), was.as_deref())];
            TxnRequest { compare, success: vec![put(list.name(), is)], ..TxnRequest::default() }
        }
    }
}

/// A list's text, as it is in a keyspace; nothing if nobody says, and no text if there is none.
async fn read(client: &Client, list: List) -> Option<Option<String>> {
    let found = client.range(range(list.name())).await.ok()?;
    Some(found.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
}

/// A list's values.
fn values(text: &Option<String>) -> Option<Vec<Value>> {
    match text {
        Some(text) => text.split(',').map(|value| value.parse().ok()).collect(),
        None => Some(Vec::new()),
    }
}

/// What a branch has read.
fn found(answer: &BranchAnswer) -> Option<Vec<Value>> {
    let Some(Done::ResponseRange(range)) = &answer.txn.as_ref()?.responses.first()?.response else {
        return None;
    };
    let text = range.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
    values(&text)
}

/// Reads all lists when nobody writes any more, and judges what everybody was told.
pub async fn judge(ledger: &Ledger, members: &Members, clients: u64) {
    let lists = &ledger.lists;
    let generations = lists.count.load(Relaxed) / GENERATION + 1;
    for (place, client) in keyspaces(members, ledger) {
        for number in 0..generations * LISTS {
            let list = List { place, number };
            let called = lists.now();
            let Some(text) = read(&client, list).await else {
                ledger.wrong(format!("nobody says what is in list {list:?}"));
                continue;
            };
            let steps = vec![Step::Read(list.key(), values(&text))];
            let ending = Ending::Committed(lists.now());
            lists.history.lock().push(Transaction { client: clients, called, steps, ending });
        }
    }
    if let Err(violation) = check_appends(&lists.history.lock()) {
        ledger.wrong(format!("lists: {violation}"));
    }
}
