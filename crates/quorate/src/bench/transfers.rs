//! Transfers: two places written at once. Two keys of one keyspace by a transaction of etcd's; in
//! two places, which are keyspaces or databases, by a distributed one.
//!
//! In a database an account is a row of the table `account (id bigint, balance bigint)`, which has
//! to be there; one unit is taken at the first place and given at the second.

use super::Arguments;
use bytes::Bytes;
use quorate_client::{Endpoint, Named, Runner};
use quorate_wire::etcdserverpb::kv_client::KvClient;
use quorate_wire::etcdserverpb::request_op::Request as Op;
use quorate_wire::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use quorate_wire::quorate::branch::Work;
use quorate_wire::quorate::sql_parameter::Value;
use quorate_wire::quorate::{
    Branch, KeyspaceWork, RunTransactionRequest, SqlParameter, SqlStatement, SqlWork,
    TransactionState,
};
use std::sync::Arc;
use std::time::Duration;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Where one half of a transfer takes place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    Keyspace(String),
    Postgres(String),
    MariaDb(String),
}

impl Place {
    /// The places of these arguments, in their order: keyspaces, PostgreSQL, MariaDB.
    pub fn all(arguments: &Arguments) -> Vec<Place> {
        let mut all: Vec<Place> = arguments.across.iter().cloned().map(Place::Keyspace).collect();
        all.extend(arguments.postgres.iter().cloned().map(Place::Postgres));
        all.extend(arguments.mariadb.iter().cloned().map(Place::MariaDb));
        all
    }

    /// Whether transfers can be made between these: two, or one keyspace.
    pub fn make_transfers(places: &[Place]) -> bool {
        matches!(places, [Place::Keyspace(_)] | [_, _])
    }

    /// What is done here: `change` is what becomes of the account's balance.
    fn branch(&self, index: usize, account: u64, change: i64, value: &Bytes) -> Branch {
        let sql = |participant: &str, sql: &str| {
            let number = |n| SqlParameter { value: Some(Value::Integer(n)) };
            let account = i64::try_from(account).unwrap_or(i64::MAX);
            let statement = SqlStatement {
                sql: sql.to_owned(),
                parameters: vec![number(change), number(account)],
                affects: Some(1),
            };
            let (participant, statements) = (participant.to_owned(), vec![statement]);
            SqlWork { participant, statements, ..SqlWork::default() }
        };
        let work = match self {
            Place::Keyspace(keyspace) => {
                let success = vec![put(key(account), value)];
                let txn = Some(TxnRequest { success, ..TxnRequest::default() });
                let keyspace = keyspace.clone();
                Work::Keyspace(KeyspaceWork { keyspace, txn, or_else: false })
            }
            Place::Postgres(name) => {
                let text = "UPDATE account SET balance = balance + $1 WHERE id = $2";
                Work::Postgres(sql(name, text))
            }
            Place::MariaDb(name) => {
                let text = "UPDATE account SET balance = balance + ? WHERE id = ?";
                Work::Mariadb(sql(name, text))
            }
        };
        Branch { name: format!("b{index}"), work: Some(work) }
    }
}

fn key(account: u64) -> Bytes {
    super::workload::key(account).into()
}

fn put(key: Bytes, value: &Bytes) -> RequestOp {
    let put = PutRequest { key, value: value.clone(), ..PutRequest::default() };
    RequestOp { request: Some(Op::RequestPut(put)) }
}

/// The connections that clients share, and what runs transactions by them.
pub struct Ways(Vec<(Endpoint, Channel, Runner)>);

impl Ways {
    /// There is at least one.
    pub fn new(all: Vec<(Endpoint, Channel)>) -> Ways {
        let with_runner = |(endpoint, channel): (Endpoint, Channel)| {
            let runner = Runner::new(InterceptedService::new(channel.clone(), Named::default()));
            (endpoint, channel, runner)
        };
        Ways(all.into_iter().map(with_runner).collect())
    }

    /// The connection of the client of this number.
    pub fn any(&self, number: usize) -> Channel {
        self.0[number % self.0.len()].1.clone()
    }

    /// What runs its transactions, as far as nothing else is known.
    fn runner(&self, number: usize) -> Runner {
        self.0[number % self.0.len()].2.clone()
    }

    /// The same, at the member that is reached there, if there is a connection.
    fn to(&self, url: &str, number: usize) -> Option<Runner> {
        let endpoint: Endpoint = url.parse().ok()?;
        let to = self.0.iter().filter(|(at, ..)| *at == endpoint);
        let all: Vec<&Runner> = to.map(|(.., runner)| runner).collect();
        // Clients take connections in turn, and members in turn have them.
        (!all.is_empty()).then(|| all[number % all.len()].clone())
    }
}

/// A client of them.
pub struct Transfers {
    kv: KvClient<Channel>,
    transactions: Runner,
    /// How long the server is told that a transaction is waited for.
    within: Option<Duration>,
    /// All connections, and which of those to one member it takes.
    ways: Arc<Ways>,
    number: usize,
    /// Who drives its transactions, as it was told last.
    driven_at: String,
    places: Vec<Place>,
    /// How they agree; empty, as the server likes.
    protocol: String,
    /// Whether to wait until everything is carried out.
    applied: bool,
    /// Whether each goes by itself.
    alone: bool,
    /// Whether each has a call of its own.
    calls: bool,
    /// What its transactions' ids begin with: nobody else's do.
    name: String,
    count: u64,
}

impl Transfers {
    pub fn new(ways: Arc<Ways>, number: usize, arguments: &Arguments, name: String) -> Transfers {
        let (kv, transactions) = (KvClient::new(ways.any(number)), ways.runner(number));
        let within = arguments.request_timeout;
        let (places, protocol) = (Place::all(arguments), arguments.commit.clone());
        let (applied, alone) = (arguments.applied, arguments.alone);
        let (driven_at, count) = (String::new(), 0);
        Transfers {
            kv,
            transactions,
            within,
            ways,
            number,
            driven_at,
            places,
            protocol,
            applied,
            alone,
            calls: arguments.calls,
            name,
            count,
        }
    }

    /// Asks whoever drives them from now on, as the client library does.
    fn follow(&mut self, driven_at: String) {
        if driven_at.is_empty() || driven_at == self.driven_at {
            return;
        }
        if let Some(runner) = self.ways.to(&driven_at, self.number) {
            self.transactions = runner;
        }
        self.driven_at = driven_at;
    }

    /// Makes one between these accounts; in keyspaces they get this value.
    pub async fn once(&mut self, [from, to]: [u64; 2], value: Vec<u8>) -> Result<(), Status> {
        let value = Bytes::from(value);
        match &self.places[..] {
            [Place::Keyspace(keyspace)] => {
                let keyspace = keyspace.parse();
                let success = match from == to {
                    true => vec![put(key(from), &value)],
                    false => vec![put(key(from), &value), put(key(to), &value)],
                };
                let mut request = Request::new(TxnRequest { success, ..TxnRequest::default() });
                if let Ok(keyspace) = keyspace {
                    request.metadata_mut().insert("quorate-keyspace", keyspace);
                }
                self.kv.txn(request).await.map(drop)
            }
            places => {
                let halves = places.iter().enumerate().zip([(from, -1), (to, 1)]);
                let branches = halves.map(|((index, place), (account, change))| {
                    place.branch(index, account, change, &value)
                });
                self.count += 1;
                let request = RunTransactionRequest {
                    id: format!("{}-{}", self.name, self.count),
                    protocol: self.protocol.clone(),
                    branches: branches.collect(),
                    applied: self.applied,
                    alone: self.alone,
                    ..RunTransactionRequest::default()
                };
                let ran = match self.calls {
                    true => self.transactions.call(&request, self.within).await?,
                    false => self.transactions.run(&request, self.within).await?,
                };
                self.follow(ran.driven_at);
                let told = ran.transaction.unwrap_or_default();
                match told.state() {
                    TransactionState::RolledBack | TransactionState::RollingBack => {
                        Err(Status::aborted(told.reason))
                    }
                    TransactionState::Committing if self.applied => {
                        Err(Status::deadline_exceeded("decided, but not carried out in time"))
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_needs_two_places_or_one_keyspace() {
        let keyspace = || Place::Keyspace("orders".to_owned());
        let postgres = || Place::Postgres("bank".to_owned());
        let mariadb = || Place::MariaDb("shop".to_owned());
        assert!(Place::make_transfers(&[keyspace()]));
        assert!(Place::make_transfers(&[keyspace(), keyspace()]));
        assert!(Place::make_transfers(&[keyspace(), mariadb()]));
        assert!(Place::make_transfers(&[postgres(), mariadb()]));
        assert!(!Place::make_transfers(&[]));
        assert!(!Place::make_transfers(&[postgres()]));
        assert!(!Place::make_transfers(&[keyspace(), postgres(), mariadb()]));
    }

    #[test]
    fn what_one_database_loses_the_other_gets() {
        let change = |place: Place, change| {
            let branch = place.branch(0, 7, change, &Bytes::new());
            let (Some(Work::Postgres(work)) | Some(Work::Mariadb(work))) = branch.work else {
                panic!("{branch:?}");
            };
            let numbers = work.statements[0].parameters.iter().map(|it| it.value.clone());
            numbers.collect::<Vec<_>>()
        };
        let number = |n| Some(Value::Integer(n));
        let taken = change(Place::Postgres("bank".to_owned()), -1);
        let given = change(Place::MariaDb("shop".to_owned()), 1);
        assert_eq!((taken, given), (vec![number(-1), number(7)], vec![number(1), number(7)]));
    }
}
