//! Clients that move money: each asks one member, and where that does not answer, any.

use crate::ledger::{Flight, Ledger, Told};
use crate::money::{Holding, Shares, shares};
use crate::places::{Place, key};
use crate::requests::{after, half, range, transfer};
use futures_util::future::join_all;
use quorate_base::Rng;
use quorate_client::{Client, Config, Error};
use quorate_wire::quorate::{RunTransactionRequest, RunTransactionResponse, TransactionState};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a client waits after it was told that nobody can serve it.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a transfer without an answer is asked for again, under its id.
const TRIES: usize = 10;

/// The members.
#[derive(Clone)]
pub struct Members {
    /// Their addresses.
    pub addresses: Vec<String>,
    /// Their ids, in the same order.
    pub ids: Vec<u64>,
}

impl Members {
    /// A client of some of them.
    pub fn client(&self, of: &[usize], keyspace: Option<&str>, timeout: Duration) -> Client {
        let mut config = Config::of(of.iter().map(|i| self.addresses[*i].as_str())).unwrap();
        config.keyspace = keyspace.map(str::to_owned);
        config.timeout = timeout;
        config.attempt_timeout = timeout / 2;
        Client::new(config)
    }

    /// A client of all.
    pub fn any(&self, keyspace: Option<&str>) -> Client {
        let all: Vec<usize> = (0..self.addresses.len()).collect();
        self.client(&all, keyspace, Duration::from_secs(10))
    }
}

/// How a transaction stands, as its client is told: whether it commits, if that is decided.
pub fn verdict(ran: &RunTransactionResponse) -> Option<bool> {
    use TransactionState::{Committed, Committing, Open, RolledBack, RollingBack};
    match ran.transaction.as_ref()?.state() {
        Open => None,
        Committing | Committed => Some(true),
        RollingBack | RolledBack => Some(false),
    }
}

/// Clients of every keyspace, by place.
pub fn keyspaces(members: &Members, ledger: &Ledger) -> BTreeMap<usize, Client> {
    let all = ledger.map.places.iter().enumerate().filter_map(|(index, place)| {
        let Place::Keyspace(name) = place else { return None };
        Some((index, members.any(Some(name))))
    });
    all.collect()
}

/// What one who runs transactions asks with.
pub struct Asker {
    /// The member that is asked first.
    pub node: usize,
    /// Of every keyspace by itself, by place.
    pub keyspaces: BTreeMap<usize, Client>,
    pinned: Client,
    any: Client,
    ledger: Arc<Ledger>,
}

impl Asker {
    /// Asks a member that depends on who it is first.
    pub fn new(me: u64, members: &Members, ledger: &Arc<Ledger>) -> Asker {
        let node = usize::try_from(me).unwrap_or(0) % members.addresses.len();
        Asker {
            node,
            keyspaces: keyspaces(members, ledger),
            pinned: members.client(&[node], None, Duration::from_secs(5)),
            any: members.any(None),
            ledger: ledger.clone(),
        }
    }

    /// Asks its member, and where that does not answer any, until it is told how it ends, or for a
    /// while: it may have been done, and the same id gets the same outcome.
    pub async fn until_told(
        &self,
        request: RunTransactionRequest,
    ) -> Option<RunTransactionResponse> {
        let mut ran = self.pinned.transaction_run(request.clone()).await;
        self.ledger.flights.lock().remove(&request.id);
        for _ in 0..TRIES {
            match &ran {
                Ok(ran) if verdict(ran).is_some() => break,
                Err(Error::Refused(status)) => {
                    self.ledger.wrong(format!("{} is refused: {status:?}", request.id));
                    break;
                }
                Ok(_) | Err(_) => {
                    tokio::time::sleep(PAUSE).await;
                    ran = self.any.transaction_run(request.clone()).await;
                }
            }
        }
        ran.ok()
    }
}

/// One client.
pub struct Mover {
    name: String,
    ledger: Arc<Ledger>,
    rng: Rng,
    asker: Asker,
    /// Whether it moves money without a transaction: what must be noticed.
    broken: bool,
}

impl Mover {
    /// A client that asks this member first.
    pub fn new(
        me: u64,
        members: &Members,
        ledger: &Arc<Ledger>,
        mut rng: Rng,
        broken: bool,
    ) -> Mover {
        Mover {
            name: format!("m{me}-{:x}", rng.next_u64() >> 40),
            ledger: ledger.clone(),
            rng,
            asker: Asker::new(me, members, ledger),
            broken,
        }
    }

    /// Moves money until it is told to stop.
    pub async fn run(mut self) {
        let mut n = 0u64;
        while self.ledger.goes_on() {
            n += 1;
            let id = format!("{}-{n}", self.name);
            let ledger = self.ledger.clone();
            let shares = shares(&ledger.map, &mut self.rng);
            let circle = ledger.map.circle(&mut self.rng);
            let Some(was) = self.read(circle, &shares).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            if self.broken {
                self.move_by_halves(circle, &shares, &was).await;
            } else {
                let request = transfer(&id, &ledger.map, circle, &shares, &was);
                self.transact(request, circle, &shares).await;
            }
        }
    }

    /// What the accounts in keyspaces have, each at its own moment.
    async fn read(&self, circle: u64, shares: &Shares) -> Option<BTreeMap<usize, Holding>> {
        let read = shares.iter().filter_map(|(place, _)| {
            let client = self.asker.keyspaces.get(place)?;
            Some(async move { (*place, client.range(range(key(circle))).await) })
        });
        let mut was = BTreeMap::new();
        for (place, found) in join_all(read).await {
            let found = found.ok()?;
            let text = found.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
            let Some(holding) = text.as_deref().and_then(Holding::parse) else {
                self.ledger.wrong(format!("circle {circle} has no account at place {place}"));
                return None;
            };
            was.insert(place, holding);
        }
        Some(was)
    }

    async fn transact(&self, request: RunTransactionRequest, circle: u64, shares: &Shares) {
        let id = request.id.clone();
        let places: Vec<usize> = shares.iter().map(|(place, _)| *place).collect();
        let flight = Flight { node: self.asker.node, circle, places: places.clone() };
        self.ledger.flights.lock().insert(id.clone(), flight);
        let ran = self.asker.until_told(request).await;
        let commits = ran.as_ref().and_then(verdict);
        self.ledger.told.lock().push(Told { id, places, commits });
    }

    /// The same without a transaction, as who thinks little of them would do it.
    async fn move_by_halves(&self, circle: u64, shares: &Shares, was: &BTreeMap<usize, Holding>) {
        for (place, is) in after(&self.ledger.map, shares, was) {
            // Whether it works is nobody's concern.
            let _ = self.asker.keyspaces[&place].txn(half(circle, was[&place], is)).await;
        }
    }
}
