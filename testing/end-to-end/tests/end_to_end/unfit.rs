//! Databases that cannot take part as they are: refused before anything is prepared anywhere, with
//! the setting that has to be changed.

use crate::databases::{Banks, ORDER};
use crate::{begin, quorate};
use mysql_async::prelude::Queryable;
use quorate_databases::PASSWORD;
use quorate_end_to_end::{Cluster, eventually};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs an order across a keyspace and both databases, PostgreSQL with these settings and this
/// password; what it is refused with, `why` in it.
fn refused(test: &str, settings: &[&str], password: &str, why: &[&str]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let Some(banks) = runtime.block_on(Banks::open_with(test, settings)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("participants.toml");
    banks.write_participants_with(&file, password, "");
    let cluster = Cluster::start_with(1, &["--participants", file.to_str().unwrap()]);
    eventually("the directory of keyspaces is there", PATIENCE, || {
        quorate(&cluster, &["keyspace", "describe", "system"], "").code == Some(0)
    });
    // Also where the database that is unfit comes last.
    let (head, rest) = ORDER.split_once("[[branch]]").unwrap();
    let mut turned: Vec<&str> = rest.split("[[branch]]").collect();
    turned.reverse();
    let turned = format!("{head}[[branch]]{}", turned.join("\n[[branch]]\n"));
    for text in [ORDER.to_owned(), turned] {
        let ran = quorate(&cluster, &["txn", "run", "-"], &text);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(why.iter().all(|why| ran.err.contains(why)), "{ran:?}");
    }
    let absent = quorate(&cluster, &["txn", "show", "order-1"], "");
    assert!(absent.err.contains("there is no transaction \"order-1\""), "{absent:?}");
    assert!(!quorate(&cluster, &["get", "order/1"], "").ok().contains("paid"));
    runtime.block_on(async {
        let mut shop = banks.mariadb_session("shop").await;
        let prepared: Vec<mysql_async::Row> = shop.query("XA RECOVER").await.unwrap();
        assert_eq!(prepared.len(), 0);
        let credited = "SELECT balance FROM account WHERE id = 2";
        let balance: Option<i64> = shop.query_first(credited).await.unwrap();
        assert_eq!(balance, Some(1_000));
        let bank = banks.postgres_session("bank").await;
        let asked = "SELECT count(*) FROM pg_prepared_xacts";
        assert_eq!(bank.query_one(asked, &[]).await.unwrap().get::<_, i64>(0), 0);
    });
}

#[test]
fn a_database_without_prepared_transactions_is_refused() {
    let _turn = begin();
    let test = "a database without prepared transactions";
    let why = ["bank has max_prepared_transactions = 0"];
    refused(test, &["max_prepared_transactions=0"], PASSWORD, &why);
}

#[test]
fn a_database_that_lets_nobody_in_is_refused() {
    let _turn = begin();
    let why =
        ["bank does not let user \"postgres\" in", "the password in the configuration of bank"];
    refused("wrong credentials of a database", &[], "wrong", &why);
}
