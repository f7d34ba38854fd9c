//! Transactions across a keyspace, PostgreSQL and MariaDB: real servers, `kill -9` of the member
//! that coordinates and of a database between the vote and the commit.

use crate::{begin, quorate};
use mysql_async::prelude::Queryable;
use quorate_client::{Client, Config};
use quorate_databases::{MariaDb, PASSWORD, Postgres, missing};
use quorate_end_to_end::{Cluster, binary, eventually, run};
use quorate_wire::quorate::branch::Work;
use quorate_wire::quorate::sql_parameter::Value;
use quorate_wire::quorate::{
    Branch, ListTransactionsRequest, RunTransactionRequest, SqlParameter, SqlStatement, SqlWork,
    TransactionState,
};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(60);
const ACCOUNTS: i64 = 8;
const BALANCE: i64 = 1_000;

/// Both databases, with accounts in each.
pub struct Banks {
    pub postgres: Postgres,
    pub mariadb: MariaDb,
}

const TABLE: &str = "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL)";

impl Banks {
    /// Nothing, where they are not installed.
    pub async fn open(test: &str) -> Option<Banks> {
        Banks::open_with(test, &[]).await
    }

    /// The same, with these settings of PostgreSQL.
    pub async fn open_with(test: &str, settings: &[&str]) -> Option<Banks> {
        let (postgres, mariadb) = match (Postgres::start(settings), MariaDb::start(&[])) {
            (Ok(postgres), Ok(mariadb)) => (postgres, mariadb),
            (Err(why), _) | (_, Err(why)) => {
                missing(test, &why);
                return None;
            }
        };
        let banks = Banks { postgres, mariadb };
        let rows: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, {BALANCE})")).collect();
        let rows = format!("INSERT INTO account VALUES {}", rows.join(", "));
        let admin = banks.postgres_session("postgres").await;
        admin.batch_execute("CREATE DATABASE bank").await.unwrap();
        let admin = banks.postgres_session("bank").await;
        admin.batch_execute(&format!("{TABLE}; {rows}")).await.unwrap();
        let mut admin = banks.mariadb_session("mysql").await;
        let all = format!("CREATE DATABASE shop; USE shop; {TABLE} ENGINE = InnoDB; {rows}");
        admin.query_drop(all).await.unwrap();
        Some(banks)
    }

    pub async fn postgres_session(&self, database: &str) -> tokio_postgres::Client {
        let mut settings = tokio_postgres::Config::new();
        settings.host("127.0.0.1").port(self.postgres.port()).user("postgres");
        settings.password(PASSWORD).dbname(database);
        let (client, connection) = settings.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub async fn mariadb_session(&self, database: &str) -> mysql_async::Conn {
        let options = mysql_async::OptsBuilder::default().ip_or_hostname("127.0.0.1");
        let options = options.tcp_port(self.mariadb.port()).user(Some("root"));
        let options = options.db_name(Some(database)).prefer_socket(false);
        mysql_async::Conn::new(options).await.unwrap()
    }

    /// The money in both, and how many branches are prepared in either.
    pub async fn look(&self) -> (i64, i64) {
        let admin = self.postgres_session("bank").await;
        let row = admin.query_one("SELECT sum(balance)::bigint FROM account", &[]).await.unwrap();
        let here: i64 = row.get(0);
        let row = admin.query_one("SELECT count(*) FROM pg_prepared_xacts", &[]).await.unwrap();
        let prepared: i64 = row.get(0);
        let mut admin = self.mariadb_session("shop").await;
        let sum = "SELECT CAST(sum(balance) AS SIGNED) FROM account";
        let there: i64 = admin.query_first(sum).await.unwrap().unwrap();
        let xa: Vec<mysql_async::Row> = admin.query("XA RECOVER").await.unwrap();
        (here + there, prepared + i64::try_from(xa.len()).unwrap())
    }

    /// Members that have both as participants, with the folder of their file.
    pub fn cluster(&self, members: u16) -> (TempDir, Cluster) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("participants.toml");
        self.write_participants(&file, "");
        let arguments = ["--participants", file.to_str().unwrap()];
        let cluster = Cluster::start_with(members, &arguments);
        eventually("the directory of keyspaces is there", PATIENCE, || {
            quorate(&cluster, &["keyspace", "describe", "system"], "").code == Some(0)
        });
        (folder, cluster)
    }

    /// The file of participants, each with these settings beside what it needs.
    pub fn write_participants(&self, path: &Path, settings: &str) {
        self.write_participants_with(path, PASSWORD, settings);
    }

    /// The same, with this password for PostgreSQL.
    pub fn write_participants_with(&self, path: &Path, password: &str, settings: &str) {
        let (postgres, mariadb) = (self.postgres.port(), self.mariadb.port());
        let text = format!(
            "[[postgres]]\nname = 'bank'\nhost = '127.0.0.1'\nport = {postgres}\n\
             user = 'postgres'\npassword = '{password}'\ndatabase = 'bank'\n{settings}\
             [[mariadb]]\nname = 'shop'\nhost = '127.0.0.1'\nport = {mariadb}\nuser = 'root'\n\
             database = 'shop'\n{settings}"
        );
        std::fs::write(path, text).unwrap();
    }
}

pub const ORDER: &str = r#"
    id = "order-1"
    [[branch]]
    name = "order"
    keyspace = "default"
    then = [{ put = "order/1", value = "paid" }]
    [[branch]]
    name = "debit"
    postgres = "bank"
    [[branch.statements]]
    sql = "UPDATE account SET balance = balance - $1 WHERE id = $2 AND balance >= $1"
    with = [10, 1]
    affects = 1
    [[branch]]
    name = "credit"
    mariadb = "shop"
    [[branch.statements]]
    sql = "UPDATE account SET balance = balance + ? WHERE id = ?"
    with = [10, 2]
    affects = 1
"#;

fn change(name: &str, sql: &str, amount: i64, account: i64) -> SqlWork {
    let number = |n| SqlParameter { value: Some(Value::Integer(n)) };
    SqlWork {
        participant: name.to_owned(),
        statements: vec![SqlStatement {
            sql: sql.to_owned(),
            parameters: vec![number(amount), number(account)],
            affects: Some(1),
        }],
        ..SqlWork::default()
    }
}

/// One unit from an account in PostgreSQL to one in MariaDB.
pub fn transfer(id: &str, from: i64, to: i64) -> RunTransactionRequest {
    let debit = "UPDATE account SET balance = balance - $1 WHERE id = $2";
    let credit = "UPDATE account SET balance = balance + ? WHERE id = ?";
    let debit = Work::Postgres(change("bank", debit, 1, from));
    let credit = Work::Mariadb(change("shop", credit, 1, to));
    let branch = |name: &str, work| Branch { name: name.to_owned(), work: Some(work) };
    RunTransactionRequest {
        id: id.to_owned(),
        patience_ms: 3_000,
        branches: vec![branch("debit", debit), branch("credit", credit)],
        ..RunTransactionRequest::default()
    }
}

/// Moves money between the databases, again and again; how often that was told to be done.
async fn transfers(client: Client, me: i64, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) {
    let mut n = 0;
    while !stop.load(Relaxed) {
        n += 1;
        let id = format!("move-{me}-{n}");
        let request = transfer(&id, (me + n) % ACCOUNTS, (me * 3 + n) % ACCOUNTS);
        match client.transaction_run(request).await {
            Ok(ran) => {
                use TransactionState::{Committed, Committing};
                if let Committing | Committed = ran.transaction.unwrap().state() {
                    done.fetch_add(1, Relaxed);
                }
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A member that coordinates dies when one branch has voted and the other has not: nobody can have
/// decided, so the others roll back what is prepared.
fn kill_before_the_decision(runtime: &Runtime, cluster: &mut Cluster, banks: &Banks) {
    let admin = runtime.block_on(banks.postgres_session("bank"));
    let lock = "BEGIN; UPDATE account SET balance = balance WHERE id = 1";
    runtime.block_on(admin.batch_execute(lock)).unwrap();
    let mut config = Config::of([cluster.nodes[2].client.as_str()]).unwrap();
    config.timeout = Duration::from_secs(5);
    let client = Client::new(config);
    // The debit waits for the row.
    // By itself: what goes with others is driven where they meet.
    let early = RunTransactionRequest { alone: true, ..transfer("early", 1, 2) };
    let asked = runtime.spawn(async move { client.transaction_run(early).await });
    let prepared = || runtime.block_on(banks.look()).1;
    eventually("the credit is prepared", PATIENCE, || prepared() == 1);
    cluster.nodes[2].kill();
    let took = eventually("the credit is rolled back", PATIENCE, || prepared() == 0);
    println!("a lost coordinator's branch was rolled back after {took:?}");
    runtime.block_on(admin.batch_execute("ROLLBACK")).unwrap();
    assert!(runtime.block_on(asked).unwrap().is_err());
    let shown = quorate(cluster, &["txn", "show", "early"], "").ok();
    assert!(shown.contains("was lost before it had decided"), "{shown}");
    cluster.nodes[2].start_again();
    cluster.settled();
}

/// A node, and each database.
fn kill_in_turn(cluster: &mut Cluster, banks: &mut Banks) {
    let pause = || std::thread::sleep(Duration::from_secs(1));
    pause();
    cluster.nodes[0].kill();
    pause();
    cluster.nodes[0].start_again();
    cluster.settled();
    banks.postgres.kill();
    banks.postgres.start_again();
    pause();
    banks.mariadb.kill();
    banks.mariadb.start_again();
    pause();
}

#[test]
fn a_keyspace_and_two_databases_end_alike_whoever_dies() {
    let _turn = begin();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let test = "transactions across databases";
    let Some(mut banks) = runtime.block_on(Banks::open(test)) else { return };
    let (_folder, mut cluster) = banks.cluster(3);
    let txn = |text: &str| quorate(&cluster, &["txn", "run", "-"], text);

    let ran = txn(ORDER).ok();
    assert!(ran.starts_with("OK, transaction order-1 is committed\n"), "{ran}");
    let poor = txn(&ORDER.replace("order-1", "order-2").replace("[10, 1]", "[10000, 1]"));
    let why = "is rolled back by branch debit: statement 1 affected 0 rows where 1 must be";
    assert!(poor.err.contains(why), "{poor:?}");
    assert!(txn(ORDER).ok().contains("order-1 is committed"), "the same outcome");
    let all = 2 * ACCOUNTS * BALANCE;
    assert_eq!(runtime.block_on(banks.look()), (all, 0));

    kill_before_the_decision(&runtime, &mut cluster, &banks);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut config = Config::of(cluster.nodes.iter().map(|node| node.client.as_str())).unwrap();
    config.timeout = Duration::from_secs(20);
    config.attempt_timeout = Duration::from_secs(6);
    let clients: Vec<_> = (0..4)
        .map(|me| {
            let client = Client::new(config.clone());
            runtime.spawn(transfers(client, me, stop.clone(), done.clone()))
        })
        .collect();
    kill_in_turn(&mut cluster, &mut banks);
    stop.store(true, Relaxed);
    for client in clients {
        runtime.block_on(client).unwrap();
    }
    let client = Client::new(config);
    eventually("no transaction is in doubt", PATIENCE, || {
        let listed = client.transaction_list(ListTransactionsRequest { limit: 1_000 });
        runtime.block_on(listed).is_ok_and(|listed| {
            listed.transactions.iter().all(|it| {
                matches!(it.state(), TransactionState::Committed | TransactionState::RolledBack)
            })
        })
    });
    eventually("nothing is prepared in a database", PATIENCE, || {
        runtime.block_on(banks.look()).1 == 0
    });
    assert_eq!(runtime.block_on(banks.look()).0, all, "money was made, or lost");
    let done = done.load(Relaxed);
    println!("{done} transfers between the databases");
    assert!(done > 20, "too little happened: {done}");
    let alarms = cluster.nodes.iter().any(|node| node.log().contains("ALARM"));
    assert!(!alarms, "nobody ended a branch by hand");
}

#[test]
fn the_bench_moves_money_between_databases() {
    let _turn = begin();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let test = "quorate bench transfer between databases";
    let Some(banks) = runtime.block_on(Banks::open(test)) else { return };
    let (_folder, cluster) = banks.cluster(1);
    // It makes what all later ones need: the records' keyspace and the fences. It moves ten.
    quorate(&cluster, &["txn", "run", "-"], ORDER).ok();
    let keys = format!("--keys={ACCOUNTS}");
    let mut bench = Command::new(binary());
    bench.args(["bench", "transfer", "--postgres=bank", "--mariadb=shop", &keys, "--applied"]);
    // One client, so that no two of them wait for each other's rows in both databases.
    bench.args(["--clients=1", "--connections=1", "--duration=1s", "--warmup=0s"]);
    bench.args(["--endpoints", &cluster.endpoints(), "--output=json"]);
    let figures = run(&mut bench, "").json();
    let made = figures["operations"].as_i64().unwrap();
    assert!(made > 0, "{figures}");
    assert_eq!(figures["errors"].as_object().unwrap().len(), 0, "{figures}");
    eventually("nothing is prepared in a database", PATIENCE, || {
        runtime.block_on(banks.look()).1 == 0
    });
    assert_eq!(runtime.block_on(banks.look()).0, 2 * ACCOUNTS * BALANCE, "money was made, or lost");
    let admin = runtime.block_on(banks.postgres_session("bank"));
    let left = admin.query_one("SELECT sum(balance)::bigint FROM account", &[]);
    let moved = ACCOUNTS * BALANCE - runtime.block_on(left).unwrap().get::<_, i64>(0) - 10;
    // The one that the end of the window cut off may be among them.
    assert!((made..=made + 1).contains(&moved), "{made} were told of, and {moved} were made");
}
