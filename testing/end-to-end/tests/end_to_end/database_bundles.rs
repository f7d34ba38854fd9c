//! Bundles at databases: as those in keyspaces, with branches in PostgreSQL and MariaDB; some
//! clients have one in a keyspace as well, or come with what goes alone.

use crate::bundles::{Asks, Ledger, work};
use crate::databases::Banks;
use crate::transactions::{branch, client, every_node_dies, nothing_is_in_doubt, put};
use crate::{begin, quorate};
use mysql_async::prelude::Queryable;
use quorate_end_to_end::{Cluster, eventually};
use quorate_wire::quorate::branch::Work;
use quorate_wire::quorate::sql_parameter::Value;
use quorate_wire::quorate::{Branch, SqlParameter, SqlStatement, SqlWork};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const CLIENTS: u64 = 24;
const PATIENCE: Duration = Duration::from_secs(60);
/// What was done, and how often: a second time is refused by the key.
const DONE: &str = "CREATE TABLE done (id varchar(40) PRIMARY KEY)";

fn statement(sql: String, id: Option<&str>) -> SqlStatement {
    let text = |id: &str| SqlParameter { value: Some(Value::Text(id.to_owned())) };
    let parameters = id.into_iter().map(text).collect();
    SqlStatement { sql, parameters, affects: Some(1) }
}

/// One unit from an account in PostgreSQL to one in MariaDB. Every third client has a branch in a
/// keyspace as well, and every fifth one goes alone, for what it asks the session.
fn in_databases(id: &str, me: u64, impossible: bool) -> Vec<Branch> {
    let (keyspace, alone) = (me.is_multiple_of(3), me.is_multiple_of(5));
    // Those that do not go together have accounts of their own: who waits for each other's in both
    // databases ends by a limit of time.
    let account = match (keyspace, alone) {
        (_, true) => 100 + me,
        (true, false) => 4 + me % 4,
        (false, false) => me % 4,
    };
    let there = if impossible { 99 } else { account };
    let alone = if alone { ", set_config('a.b', 'c', true)" } else { "" };
    let debit = vec![
        statement("INSERT INTO done VALUES ($1)".to_owned(), Some(id)),
        statement(format!("UPDATE account SET balance = balance - 1 WHERE id = {account}"), None),
        statement(format!("SELECT 1{alone}"), None),
    ];
    let credit = vec![
        statement("INSERT INTO done VALUES (?)".to_owned(), Some(id)),
        statement(format!("UPDATE account SET balance = balance + 1 WHERE id = {there}"), None),
    ];
    let work = |participant: &str, statements| {
        let participant = participant.to_owned();
        SqlWork { participant, statements, ..SqlWork::default() }
    };
    let named = |name: &str, work| Branch { name: name.to_owned(), work: Some(work) };
    let mut all = vec![
        named("debit", Work::Postgres(work("bank", debit))),
        named("credit", Work::Mariadb(work("shop", credit))),
    ];
    if keyspace {
        all.insert(0, branch("default", Vec::new(), vec![put(format!("log/{id}"), String::new())]));
    }
    all
}

#[test]
fn what_is_carried_to_databases_happens_once_or_not_at_all() {
    let _turn = begin();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let Some(banks) = runtime.block_on(Banks::open("bundles at databases")) else { return };
    let rows: Vec<String> = (0..CLIENTS).map(|me| format!("({}, 1000)", 100 + me)).collect();
    let made = format!("{DONE}; INSERT INTO account VALUES {}", rows.join(", "));
    runtime.block_on(async {
        banks.postgres_session("bank").await.batch_execute(&made).await.unwrap();
        banks.mariadb_session("shop").await.query_drop(&made).await.unwrap();
    });
    let money = runtime.block_on(banks.look()).0;
    let (_folder, mut cluster) = banks.cluster(3);
    let ledger = Arc::new(Ledger::default());
    let asks: Asks = (in_databases, "affected 0 rows");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|me| runtime.spawn(work(client(&cluster, None), me, asks, ledger.clone())))
        .collect();
    every_node_dies(&mut cluster);
    ledger.stop.store(true, Relaxed);
    for client in clients {
        runtime.block_on(client).unwrap();
    }
    nothing_is_in_doubt(&cluster);
    eventually("nothing is prepared in a database", PATIENCE, || {
        runtime.block_on(banks.look()).1 == 0
    });
    judge(&cluster, &runtime, &banks, &ledger);
    assert_eq!(runtime.block_on(banks.look()).0, money, "money was made, or lost");
    let alarms = cluster.nodes.iter().any(|node| node.log().contains("ALARM"));
    assert!(!alarms, "nobody ended a branch by hand");
}

fn judge(cluster: &Cluster, runtime: &tokio::runtime::Runtime, banks: &Banks, ledger: &Ledger) {
    let (here, there): (BTreeSet<String>, BTreeSet<String>) = runtime.block_on(async {
        let admin = banks.postgres_session("bank").await;
        let here = admin.query("SELECT id FROM done", &[]).await.unwrap();
        let mut admin = banks.mariadb_session("shop").await;
        let there: Vec<String> = admin.query("SELECT id FROM done").await.unwrap();
        (here.iter().map(|row| row.get(0)).collect(), there.into_iter().collect())
    });
    assert_eq!(here, there, "half a transaction was done");
    let found = quorate(cluster, &["get", "log/", "--prefix", "-o", "json"], "").json();
    let in_keyspace = found["kvs"].as_array().unwrap().len();
    let number = |id: &String| id.split('-').next().unwrap().parse::<u64>().unwrap();
    let wanted = here.iter().filter(|id| number(id).is_multiple_of(3)).count();
    assert_eq!(in_keyspace, wanted, "the keyspace has others than the databases");
    ledger.judge(&here);
}
