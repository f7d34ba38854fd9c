//! Branches that an application prepares itself in PostgreSQL and MariaDB, and hands in: taken like
//! the coordinator's own, or refused with the reason; those that nobody hands in are rolled back.

use crate::databases::{Banks, transfer};
use crate::{begin, quorate};
use mysql_async::prelude::Queryable;
use quorate_client::{Client, Config};
use quorate_end_to_end::{Cluster, Ran, eventually};
use quorate_wire::quorate::SqlWork;
use quorate_wire::quorate::branch::Work;
use std::time::Duration;
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    runtime: Runtime,
    banks: Banks,
    cluster: Cluster,
    _folder: tempfile::TempDir,
}

/// What the coordinator gives.
struct Named {
    id: String,
    before: Vec<String>,
    after: Vec<String>,
}

impl World {
    /// Nothing, where the databases are not installed.
    fn open(test: &str) -> Option<World> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let banks = runtime.block_on(Banks::open(test))?;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("participants.toml");
        banks.write_participants(&file, "hand-in-ms = 2000\n");
        let cluster = Cluster::start_with(3, &["--participants", file.to_str().unwrap()]);
        eventually("the directory of keyspaces is there", PATIENCE, || {
            quorate(&cluster, &["keyspace", "describe", "system"], "").code == Some(0)
        });
        Some(World { runtime, banks, cluster, _folder: folder })
    }

    fn named(&self, id: &str, branch: &str, at: [&str; 2]) -> Named {
        let arguments = ["txn", "name", id, "--branch", branch, at[0], at[1], "-o", "json"];
        let json = quorate(&self.cluster, &arguments, "").json();
        let list = |name: &str| {
            let all = json[name].as_array().unwrap().iter();
            all.map(|it| it.as_str().unwrap().to_owned()).collect()
        };
        let id = json["prepared"].as_str().unwrap().to_owned();
        Named { id, before: list("before"), after: list("after") }
    }

    /// The application takes money from an account in PostgreSQL, and prepares that.
    fn debit(&self, id: &str, amount: i64) -> String {
        let named = self.named(id, "debit", ["--postgres", "bank"]);
        self.say_to_postgres(&named.before, &named.after, -amount);
        named.id
    }

    fn say_to_postgres(&self, before: &[String], after: &[String], amount: i64) {
        let own = format!("UPDATE account SET balance = balance + {amount} WHERE id = 1");
        let all = [before, &[own], after].concat().join("; ");
        self.runtime.block_on(async {
            self.banks.postgres_session("bank").await.batch_execute(&all).await.unwrap();
        });
    }

    /// It gives money to one in MariaDB, prepares that, and closes its session.
    fn credit(&self, id: &str, amount: i64) -> String {
        let named = self.named(id, "credit", ["--mariadb", "shop"]);
        let own = format!("UPDATE account SET balance = balance + {amount} WHERE id = 2");
        self.runtime.block_on(async {
            let mut session = self.banks.mariadb_session("shop").await;
            for statement in [&named.before[..], &[own], &named.after].concat() {
                session.query_drop(statement).await.unwrap();
            }
            session.disconnect().await.unwrap();
        });
        named.id
    }

    fn hand_in(&self, id: &str, debit: &str, credit: &str) -> Ran {
        let text = format!(
            "id = {id:?}\npatience = '5s'\n\
             [[branch]]\nname = 'order'\nkeyspace = 'default'\n\
             if = [{{ key = 'closed', exists = false }}]\n\
             then = [{{ put = 'order/{id}', value = 'paid' }}]\n\
             [[branch]]\nname = 'debit'\npostgres = 'bank'\nprepared = {debit:?}\n\
             [[branch]]\nname = 'credit'\nmariadb = 'shop'\nprepared = {credit:?}\n"
        );
        quorate(&self.cluster, &["txn", "run", "-"], &text)
    }

    /// What the two accounts have.
    fn balances(&self) -> (i64, i64) {
        self.runtime.block_on(async {
            let session = self.banks.postgres_session("bank").await;
            let of = "SELECT balance FROM account WHERE id = ";
            let here = session.query_one(&format!("{of}1"), &[]).await.unwrap().get(0);
            let mut session = self.banks.mariadb_session("shop").await;
            (here, session.query_first(format!("{of}2")).await.unwrap().unwrap())
        })
    }

    fn prepared(&self) -> i64 {
        self.runtime.block_on(self.banks.look()).1
    }

    fn nothing_is_prepared(&self) {
        eventually("nothing is prepared", PATIENCE, || self.prepared() == 0);
    }

    fn has_order(&self, id: &str) -> bool {
        quorate(&self.cluster, &["get", &format!("order/{id}")], "").ok().contains("paid")
    }
}

fn taken_like_the_coordinators_own(world: &World) {
    let (debit, credit) = (world.debit("good", 10), world.credit("good", 10));
    assert_eq!(world.prepared(), 2);
    let ran = world.hand_in("good", &debit, &credit).ok();
    assert!(ran.starts_with("OK, transaction good is committed\n"), "{ran}");
    assert_eq!((world.balances(), world.prepared()), ((990, 1_010), 0));
    assert!(world.has_order("good"));
    // Handed in twice, it is done once.
    assert!(world.hand_in("good", &debit, &credit).ok().contains("good is committed"));
    assert_eq!(world.balances(), (990, 1_010));

    // Another branch says no: what the application has prepared is rolled back with it.
    quorate(&world.cluster, &["put", "closed", "yes"], "").ok();
    let (debit, credit) = (world.debit("closed", 10), world.credit("closed", 10));
    let refused = world.hand_in("closed", &debit, &credit);
    assert!(refused.err.contains("closed is rolled back by branch order"), "{refused:?}");
    world.nothing_is_prepared();
    assert_eq!(world.balances(), (990, 1_010));
    quorate(&world.cluster, &["del", "closed"], "").ok();
}

fn refused_with_the_reason(world: &World) {
    // It was never prepared; what is prepared afterwards is too late.
    let named = world.named("absent", "debit", ["--postgres", "bank"]);
    let credit = world.credit("absent", 10);
    let refused = world.hand_in("absent", &named.id, &credit);
    let why = "absent is rolled back by branch debit";
    assert!(refused.err.contains(why), "{refused:?}");
    assert!(refused.err.contains("no such transaction is prepared"), "{refused:?}");
    world.say_to_postgres(&named.before, &named.after, -10);
    world.nothing_is_prepared();
    assert!(!world.has_order("absent"));

    // It has not written its fence row: nothing could prove its commit.
    let named = world.named("bare", "debit", ["--postgres", "bank"]);
    let credit = world.credit("bare", 10);
    world.say_to_postgres(&named.before, &named.after[1..], -10);
    let refused = world.hand_in("bare", &named.id, &credit);
    assert!(refused.err.contains("its fence row is not in it"), "{refused:?}");
    world.nothing_is_prepared();

    // It was prepared for another transaction.
    let (other, credit) = (world.debit("other", 10), world.credit("this", 10));
    let refused = world.hand_in("this", &other, &credit);
    assert!(refused.err.contains("another transaction's: here it must be \"q1:"), "{refused:?}");
    let absent = quorate(&world.cluster, &["txn", "show", "this"], "");
    assert!(absent.err.contains("there is no transaction \"this\""), "{absent:?}");
    // Nobody hands in either, the application has died: they are rolled back, for good.
    world.nothing_is_prepared();
    let late =
        world.hand_in("this", &world.named("this", "debit", ["--postgres", "bank"]).id, &credit);
    assert!(
        late.err.contains("this is rolled back: a branch of it was found prepared"),
        "{late:?}"
    );
    assert_eq!(world.balances(), (990, 1_010));
}

/// The member that took the branch in dies before the decision: another rolls it back.
fn whoever_dies(world: &mut World) {
    let id = "early";
    let debit = world.debit(id, 10);
    let admin = world.runtime.block_on(async {
        let mut admin = world.banks.mariadb_session("shop").await;
        admin.query_drop("BEGIN").await.unwrap();
        admin.query_drop("UPDATE account SET balance = balance WHERE id = 2").await.unwrap();
        admin
    });
    let mut request = transfer(id, 1, 2);
    request.patience_ms = 20_000;
    request.branches[0].work = Some(Work::Postgres(SqlWork {
        participant: "bank".to_owned(),
        prepared: debit,
        ..SqlWork::default()
    }));
    let mut config = Config::of([world.cluster.nodes[1].client.as_str()]).unwrap();
    config.timeout = Duration::from_secs(5);
    let client = Client::new(config);
    let asked = world.runtime.spawn(async move { client.transaction_run(request).await });
    eventually("the transaction has a record", PATIENCE, || {
        quorate(&world.cluster, &["txn", "show", id], "").code == Some(0)
    });
    assert_eq!(world.prepared(), 1);
    world.cluster.nodes[1].kill();
    world.nothing_is_prepared();
    assert!(world.runtime.block_on(asked).unwrap().is_err());
    let shown = quorate(&world.cluster, &["txn", "show", id], "").ok();
    assert!(shown.contains("was lost before it had decided"), "{shown}");
    drop(admin);
    assert_eq!(world.balances(), (990, 1_010));
}

#[test]
fn an_application_prepares_its_own_branches_and_hands_them_in() {
    let _turn = begin();
    let Some(mut world) = World::open("branches of the application's own") else { return };
    taken_like_the_coordinators_own(&world);
    refused_with_the_reason(&world);
    whoever_dies(&mut world);
    let alarms = world.cluster.nodes.iter().any(|node| node.log().contains("ALARM"));
    assert!(!alarms, "nobody ended a branch by hand");
}
