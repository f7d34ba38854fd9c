//! Transfers between PostgreSQL and MariaDB with the resource managers and a decision log in
//! memory: what the managers themselves cost, to compare with a bare two-phase commit.
//!
//! `cargo run --release -p quorate-resource-managers --example transfers -- CLIENTS SECONDS ROUNDS`
//! starts both servers, and in every round measures first the bare two-phase commit and then the
//! managers, on the same tables. Fence rows are forgotten in the background, many at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bare;

use bare::Bare;
use futures_util::future::{join, join_all};
use mysql_async::prelude::Queryable;
use quorate_base::{ClusterId, Rng};
use quorate_resource_managers::{
    BranchName, DatabaseConfig, Deadline, MariaDb, Outcome, Parameter, Postgres, ResourceManager,
    SqlWork, Statement, TransactionName, Vote, Work,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CLUSTER: ClusterId = ClusterId(1);
const ACCOUNTS: u64 = 1000;
/// How many branches are forgotten at a time.
const FORGET: usize = 500;

struct Run {
    banks: [Arc<dyn ResourceManager>; 2],
    decisions: Mutex<BTreeMap<String, bool>>,
    over: Mutex<[Vec<BranchName>; 2]>,
    until: Instant,
    run: String,
}

#[tokio::main]
async fn main() {
    let arguments: Vec<u64> =
        std::env::args().skip(1).map(|a| a.parse().expect("a number")).collect();
    let [clients, seconds, rounds] = arguments[..] else {
        panic!("three numbers: CLIENTS SECONDS ROUNDS");
    };
    let pg = quorate_databases::Postgres::start(&[]).expect("PostgreSQL is installed");
    let my = quorate_databases::MariaDb::start(&[]).expect("MariaDB is installed");
    let (pg, my) = (pg.port(), my.port());
    fill(pg, my).await;
    let banks = banks(pg, my).await;
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let until = || Instant::now() + Duration::from_secs(seconds);
        let ends = until();
        let bare = report("bare", (0..clients).map(|i| bare_client(pg, my, round, i, ends))).await;
        let run = Run {
            banks: banks.clone(),
            decisions: Mutex::default(),
            over: Mutex::default(),
            until: until(),
            run: format!("{}-{round}", std::process::id()),
        };
        let run = Arc::new(run);
        let ours = report("managers", (0..clients).map(|i| client(run.clone(), i))).await;
        ratios.push(ours / bare);
    }
    ratios.sort_by(f64::total_cmp);
    println!("{clients} clients, managers against bare, median: {:.2}", ratios[ratios.len() / 2]);
}

/// The tables of both databases.
async fn fill(pg: u16, my: u16) {
    let create = "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL)";
    let (client, connection) = session(pg, "postgres").await;
    client.batch_execute("CREATE DATABASE bank").await.unwrap();
    drop((client, connection));
    let (client, _connection) = session(pg, "bank").await;
    let rows =
        format!("INSERT INTO account SELECT g, 1000000 FROM generate_series(0, {ACCOUNTS}) g");
    client.batch_execute(&format!("{create}; {rows}")).await.unwrap();
    let options = mysql_async::OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(my);
    let options = options.user(Some("root")).prefer_socket(false);
    let mut conn = mysql_async::Conn::new(options).await.unwrap();
    let rows = format!("INSERT INTO account SELECT seq, 1000000 FROM seq_0_to_{ACCOUNTS}");
    let all = format!("CREATE DATABASE bank; USE bank; {create} ENGINE = InnoDB; {rows}");
    conn.query_drop(all).await.unwrap();
}

async fn session(
    port: u16,
    database: &str,
) -> (tokio_postgres::Client, tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>) {
    let mut settings = tokio_postgres::Config::new();
    settings.host("127.0.0.1").port(port).user("postgres").dbname(database);
    settings.password(quorate_databases::PASSWORD);
    let (client, connection) = settings.connect(tokio_postgres::NoTls).await.unwrap();
    (client, tokio::spawn(connection))
}

async fn banks(pg: u16, my: u16) -> [Arc<dyn ResourceManager>; 2] {
    let configure = |name: &str, user: &str, port: u16| {
        let mut config = DatabaseConfig::new(name, "127.0.0.1", user, "bank");
        config.port = Some(port);
        (config.branch_connections, config.finish_connections) = (40, 40);
        config
    };
    let mut pg = configure("pg", "postgres", pg);
    pg.password = Some(quorate_databases::PASSWORD.into());
    let postgres = Postgres::new(CLUSTER, pg).unwrap();
    let mariadb = MariaDb::new(CLUSTER, configure("my", "root", my)).unwrap();
    let banks: [Arc<dyn ResourceManager>; 2] = [Arc::new(postgres), Arc::new(mariadb)];
    for bank in &banks {
        bank.set_up(soon()).await.unwrap();
        bank.check(soon()).await.unwrap();
    }
    banks
}

/// Runs all clients, and says how they did: transfers per second.
async fn report<C>(what: &str, clients: impl Iterator<Item = C>) -> f64
where
    C: Future<Output = Vec<Duration>> + Send + 'static,
{
    let began = Instant::now();
    let all = join_all(clients.map(tokio::spawn)).await;
    let mut latencies: Vec<Duration> = all.into_iter().flat_map(Result::unwrap).collect();
    let per_second = latencies.len() as f64 / began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |part: usize| latencies.get(latencies.len() * part / 100).copied().unwrap_or_default();
    println!("{what:>9}: {per_second:6.0}/s, p50 {:?}, p99 {:?}", at(50), at(99));
    per_second
}

async fn bare_client(pg: u16, my: u16, round: u64, client: u64, until: Instant) -> Vec<Duration> {
    let mut bare = Bare::connect(pg, my).await;
    let mut rng = Rng::new(client + 7);
    let mut latencies = Vec::new();
    for n in 0u64.. {
        let began = Instant::now();
        if began >= until {
            break;
        }
        let (from, to) = (account(&mut rng), account(&mut rng));
        bare.transfer(&format!("t{round}-{client}-{n}"), from, to).await;
        latencies.push(began.elapsed());
    }
    latencies
}

fn account(rng: &mut Rng) -> i64 {
    i64::try_from(rng.below(ACCOUNTS)).unwrap()
}

async fn client(run: Arc<Run>, client: u64) -> Vec<Duration> {
    let mut rng = Rng::new(client + 7);
    let mut latencies = Vec::new();
    for n in 0u64.. {
        let began = Instant::now();
        if began >= run.until {
            break;
        }
        let (from, to) = (account(&mut rng), account(&mut rng));
        transfer(&run, &format!("{}-{client}-{n}", run.run), from, to).await;
        latencies.push(began.elapsed());
    }
    latencies
}

async fn transfer(run: &Run, txid: &str, from: i64, to: i64) {
    let transaction = TransactionName::new(CLUSTER, 1, txid).unwrap();
    let branch = |bank: &dyn ResourceManager| {
        BranchName::new(transaction.clone(), bank.name(), "b").unwrap()
    };
    let [pg, my] = &run.banks;
    let branches = [branch(&**pg), branch(&**my)];
    let sql = "UPDATE account SET balance = balance";
    let take = work(format!("{sql} - $1 WHERE id = $2"), from);
    let give = work(format!("{sql} + ? WHERE id = ?"), to);
    let deadline = soon();
    let votes =
        join(pg.prepare(&branches[0], &take, deadline), my.prepare(&branches[1], &give, deadline));
    let commit = votes.await == (Vote::Yes, Vote::Yes);
    run.decisions.lock().unwrap().insert(txid.to_owned(), commit);
    assert!(commit, "nothing here can vote no");
    let ends = join(pg.commit(&branches[0], deadline), my.commit(&branches[1], deadline)).await;
    assert!(matches!(ends, (Outcome::Applied(_), Outcome::Applied(_))), "{ends:?}");
    run.decisions.lock().unwrap().remove(txid);
    forget(run, branches).await;
}

/// Collects branches that are over, and forgets them when they are many.
async fn forget(run: &Run, branches: [BranchName; 2]) {
    let full = {
        let mut over = run.over.lock().unwrap();
        for (list, branch) in over.iter_mut().zip(branches) {
            list.push(branch);
        }
        (over[0].len() >= FORGET).then(|| std::mem::take(&mut *over))
    };
    if let Some(full) = full {
        for (bank, branches) in run.banks.iter().zip(full) {
            let bank = bank.clone();
            tokio::spawn(async move {
                let mut rest = &branches[..];
                while !rest.is_empty() {
                    rest = &rest[bank.forget(rest, soon()).await.unwrap()..];
                }
            });
        }
    }
}

fn work(sql: String, account: i64) -> Work {
    let parameters = vec![Parameter::Integer(1), Parameter::Integer(account)];
    let statements = vec![Statement { sql, parameters, affects: Some(1) }];
    Work::Sql(SqlWork { statements, ..SqlWork::default() })
}

fn soon() -> Deadline {
    Deadline::within(Duration::from_secs(10))
}
