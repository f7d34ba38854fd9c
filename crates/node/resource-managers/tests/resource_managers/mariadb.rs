//! MariaDB: the cases of every database, and its own traps.

use crate::bank::{Bank, CLUSTER, applied, prepare, refusal, soon, state};
use crate::mariadb_bank::{MariaDbBank, admin, config, server};
use crate::{cases, lost_connections, run_cases};
use mysql_async::prelude::Queryable;
use quorate_resource_managers::{
    Deadline, Error, Isolation, MariaDb, Outcome, Refusal, ResourceManager, SqlWork, State, Vote,
    Work, fence,
};
use std::time::Duration;

run_cases!(MariaDbBank:
    commit_is_proven_and_may_be_repeated,
    what_shares_a_transaction_is_done_in_turn,
    rollback_bars_a_late_prepare,
    a_branch_that_fails_votes_no_and_leaves_nothing,
    a_repeated_prepare_that_fails_leaves_the_branch_alone,
    a_branch_that_only_reads_needs_no_second_phase,
    only_our_own_branches_are_scanned,
    what_an_administrator_decides_is_an_alarm,
    a_branch_of_the_application_is_adopted,
    locks_are_waited_for_no_longer_than_the_deadline,
    many_branches_share_few_connections,
    recovery_finishes_what_was_decided_and_nothing_else,
    a_bundle_without_a_record_is_left_for_a_moment,
    recovery_waits_for_a_participant_that_is_away,
    what_is_prepared_again_is_committed_or_left_to_people,
    what_ends_during_a_scan_is_left_alone,
    an_alarm_stays_until_it_is_acknowledged,
);

#[tokio::test]
async fn a_killed_server_keeps_what_it_has_prepared() {
    if let Some(bank) = MariaDbBank::open_alone("killed").await {
        cases::a_killed_server_keeps_what_it_has_prepared(bank).await;
    }
}

#[tokio::test]
async fn a_connection_may_be_lost_at_every_step() {
    for phase in 1..=4 {
        let Some(bank) = MariaDbBank::open("lost").await else { return };
        match phase {
            1 => lost_connections::while_preparing(bank).await,
            2 => lost_connections::while_committing(bank).await,
            3 => lost_connections::while_rolling_back(bank).await,
            _ => lost_connections::while_silent(bank, "XA PREPARE").await,
        }
    }
}

/// The code of the server's error.
fn code(result: mysql_async::Result<()>) -> u16 {
    match result {
        Err(mysql_async::Error::Server(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

/// The trap: to anybody but the session that prepared a branch the server says that there is no
/// such branch, although it lists it. Peers take that answer for success.
#[tokio::test]
async fn no_such_branch_may_mean_held_by_another_session() {
    let Some(bank) = MariaDbBank::open("held").await else { return };
    let b = bank.branch("t1");
    let xid = b.xid();
    let mut application = admin(bank.port(), bank.name()).await;
    let branch_sql = format!(
        "XA START {xid}; UPDATE account SET balance = 7 WHERE id = 1; {}; XA END {xid}; \
         XA PREPARE {xid}",
        fence::insert(&b)
    );
    application.query_drop(branch_sql).await.unwrap();
    let mut other = admin(bank.port(), bank.name()).await;
    let refused = code(other.query_drop(format!("XA COMMIT {xid}")).await);
    assert_eq!((refused, bank.prepared().await), (1397, 1));

    let manager = bank.manager();
    assert_eq!(manager.adopt(&b, soon()).await, Vote::Yes);
    for rollback in [false, true] {
        let outcome = match rollback {
            false => manager.commit(&b, soon()).await,
            true => manager.rollback(&b, soon()).await,
        };
        let Outcome::Unknown(doubt) = &outcome else { panic!("{outcome:?}") };
        assert!(doubt.to_string().contains("the session that prepared it still lives"), "{doubt}");
    }
    assert_eq!(bank.balance(1).await, 100);
    application.disconnect().await.unwrap();
    server_lets_go().await;
    applied(&manager.commit(&b, Deadline::within(Duration::from_secs(10))).await);
    assert_eq!((bank.balance(1).await, bank.prepared().await), (7, 0));
}

/// A commit at the very moment in which the server ends the session that holds the branch is
/// answered with "ok", and lost until it is restarted: one in fifty, if both are asked for at once.
async fn server_lets_go() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// The trap: a session that is reset, as pools do, loses its prepared branch. The server then says
/// "ok" to a commit and changes nothing. Our manager does not take that for a commit, and finishes
/// the branch when the server, restarted, has found it again.
#[tokio::test]
async fn a_reset_session_loses_its_branch_and_is_no_proof() {
    let Some(mut bank) = MariaDbBank::open_alone("reset").await else { return };
    let b = bank.branch("t1");
    let xid = b.xid();
    let mut application = admin(bank.port(), bank.name()).await;
    let branch_sql = format!(
        "XA START {xid}; UPDATE account SET balance = 7 WHERE id = 1; {}; XA END {xid}; \
         XA PREPARE {xid}",
        fence::insert(&b)
    );
    application.query_drop(branch_sql).await.unwrap();
    application.reset().await.unwrap();
    let outcome = bank.manager().commit(&b, soon()).await;
    let alarm = matches!(outcome, Outcome::Heuristic(_) | Outcome::Unknown(_));
    assert!(alarm, "{outcome:?}: the server said ok");
    assert_eq!(bank.balance(1).await, 100, "the server said ok");
    bank.kill_and_restart().await;
    assert_eq!(state(&*bank.manager(), &b).await, State::Prepared);
    applied(&bank.manager().commit(&b, soon()).await);
    assert_eq!(bank.balance(1).await, 7);
}

/// Our own sessions are used again and again, and never reset.
#[tokio::test]
async fn our_sessions_are_never_reset() {
    let Some(bank) = MariaDbBank::open("no_reset").await else { return };
    let manager = bank.manager();
    let resets = async || {
        let mut admin = admin(bank.port(), bank.name()).await;
        let sql = "SHOW GLOBAL STATUS LIKE 'Com_reset_connection'";
        let row: Option<(String, u64)> = admin.query_first(sql).await.unwrap();
        row.map_or(0, |(_, count)| count)
    };
    let before = resets().await;
    for i in 0..5 {
        let b = bank.branch(&format!("t{i}"));
        prepare(&*manager, &b, &bank.add(1, 1)).await;
        // The same session gets no other branch while it holds this one.
        prepare(&*manager, &bank.branch(&format!("u{i}")), &bank.add(2, 1)).await;
        applied(&manager.commit(&b, soon()).await);
        applied(&manager.commit(&bank.branch(&format!("u{i}")), soon()).await);
    }
    assert_eq!((bank.balance(1).await, bank.balance(2).await), (105, 105));
    assert_eq!(resets().await, before);
}

/// The trap: a branch that wrote nothing cannot be committed by anybody but its own session.
#[tokio::test]
async fn a_branch_that_wrote_nothing_is_not_adopted() {
    let Some(bank) = MariaDbBank::open("empty").await else { return };
    let empty = async |txid: &str| {
        let xid = bank.branch(txid).xid();
        let mut session = admin(bank.port(), bank.name()).await;
        let sql = format!("XA START {xid}; SELECT 1 FROM account; XA END {xid}; XA PREPARE {xid}");
        session.query_drop(sql).await.unwrap();
        let id = session.id();
        session.disconnect().await.unwrap();
        let alive = format!("SELECT count(*) FROM information_schema.processlist WHERE id = {id}");
        let mut admin = admin(bank.port(), bank.name()).await;
        while admin.query_first::<u64, _>(&alive).await.unwrap() != Some(0) {}
        admin
    };
    let mut other = empty("trap").await;
    let xid = bank.branch("trap").xid();
    assert_eq!(code(other.query_drop(format!("XA COMMIT {xid}")).await), 1402);

    empty("t1").await;
    let manager = bank.manager();
    let vote = manager.adopt(&bank.branch("t1"), soon()).await;
    let Vote::No(refusal) = vote else { panic!("{vote:?}") };
    assert!(refusal.to_string().contains("its fence row is not in it"), "{refusal}");
    assert_eq!(manager.rollback(&bank.branch("t1"), soon()).await, Outcome::NotThere);
    assert_eq!(bank.prepared().await, 0);
}

/// The trap: after a statement that failed, the server prepares the branch nevertheless.
#[tokio::test]
async fn a_failed_statement_is_no_yes() {
    let Some(bank) = MariaDbBank::open("failed").await else { return };
    let duplicate = "INSERT INTO account VALUES (1, 0)";
    let mut session = admin(bank.port(), bank.name()).await;
    let b = bank.branch("trap");
    let xid = b.xid();
    session.query_drop(format!("XA START {xid}")).await.unwrap();
    session.query_drop("UPDATE account SET balance = 1 WHERE id = 2").await.unwrap();
    assert_eq!(code(session.query_drop(duplicate).await), 1062);
    session.query_drop(format!("XA END {xid}; XA PREPARE {xid}")).await.unwrap();
    assert_eq!(bank.prepared().await, 1, "the server would commit one half");
    session.query_drop(format!("XA ROLLBACK {xid}")).await.unwrap();

    let work = bank.statements(&["UPDATE account SET balance = 1 WHERE id = 2", duplicate]);
    let why = refusal(&*bank.manager(), "t1", &work).await;
    assert!(why.starts_with("statement 2 failed") && why.contains("(1062)"), "{why}");
    assert_eq!((bank.prepared().await, bank.balance(2).await), (0, 100));
}

/// A session that is lost without the server noticing still holds its branch: it is killed there.
#[tokio::test]
async fn a_lost_session_is_killed_at_the_server() {
    use quorate_databases::{Cut, Proxy};
    let Some(bank) = MariaDbBank::open("zombie").await else { return };
    let proxy = Proxy::start(bank.port());
    let manager = bank.manager_at(proxy.port());
    prepare(&*manager, &bank.branch("t1"), &bank.add(1, 5)).await;
    // The request does not arrive, and the server is not told that its session is cut off.
    proxy.cut(Cut::SilenceAt("XA COMMIT"));
    let outcome =
        manager.commit(&bank.branch("t1"), Deadline::within(Duration::from_millis(200))).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    assert!(proxy.has_cut());
    applied(&manager.commit(&bank.branch("t1"), soon()).await);
    assert_eq!((bank.balance(1).await, bank.prepared().await), (105, 0));
}

#[tokio::test]
async fn whoever_is_to_blame_is_named() {
    let Some(bank) = MariaDbBank::open("blame").await else { return };
    let mut wrong = config(bank.port(), bank.name());
    wrong.password = Some("wrong".into());
    let check = async |config| MariaDb::new(CLUSTER, config)?.check(soon()).await;
    let error = check(wrong).await.unwrap_err();
    assert!(matches!(error, Error::Credentials { .. }), "{error:?}");
    assert!(error.to_string().contains("does not let user \"root\" in"), "{error}");
    let error = check(config(bank.port(), "mysql")).await.unwrap_err();
    assert!(matches!(error, Error::NotSetUp { .. }), "{error:?}");
    let error = check(config(bank.port(), "nowhere")).await.unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = check(config(nobody.port(), bank.name())).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    bank.run("ALTER TABLE quorate_fence ENGINE = MyISAM").await;
    let error = bank.manager().check(soon()).await.unwrap_err();
    assert!(error.to_string().contains("engine is MyISAM"), "{error}");
}

#[tokio::test]
async fn a_server_that_may_forget_votes_is_refused() {
    let arguments = ["--innodb-flush-log-at-trx-commit=2"];
    let Some(server) = server("unsafe", &arguments) else { return };
    let mut config = config(server.port(), "mysql");
    let manager = MariaDb::new(CLUSTER, config.clone()).unwrap();
    manager.set_up(soon()).await.unwrap();
    let error = manager.check(soon()).await.unwrap_err().to_string();
    assert!(error.contains("innodb_flush_log_at_trx_commit = 2"), "{error}");
    config.allow_unsafe_durability = true;
    MariaDb::new(CLUSTER, config).unwrap().check(soon()).await.unwrap();
}

#[tokio::test]
async fn the_isolation_level_is_the_branches() {
    let Some(bank) = MariaDbBank::open("isolation").await else { return };
    // Only a serializable transaction locks what it merely reads.
    let reads = bank.statements(&["SELECT balance FROM account WHERE id = 1"]);
    let Work::Sql(work) = reads else { unreachable!() };
    let manager = bank.manager();
    let writes_meanwhile = async || {
        bank.try_run(
            "SET innodb_lock_wait_timeout = 0; UPDATE account SET balance = 1 WHERE id = 1",
        )
        .await
    };
    let serializable = SqlWork { isolation: Some(Isolation::Serializable), ..work.clone() };
    prepare(&*manager, &bank.branch("t1"), &Work::Sql(serializable)).await;
    assert!(!writes_meanwhile().await);
    applied(&manager.commit(&bank.branch("t1"), soon()).await);
    prepare(&*manager, &bank.branch("t2"), &Work::Sql(work)).await;
    assert!(writes_meanwhile().await);
    applied(&manager.commit(&bank.branch("t2"), soon()).await);
}

/// Without one of the rights a branch could be committed, and never be proven to be.
#[tokio::test]
async fn a_missing_right_to_the_fence_is_named_before_anything_is_done() {
    let Some(bank) = MariaDbBank::open("rights").await else { return };
    bank.run("CREATE USER clerk IDENTIFIED BY 'x'; GRANT SELECT, UPDATE ON account TO clerk").await;
    let clerk = || {
        let mut config = config(bank.port(), bank.name());
        config.user = "clerk".to_owned();
        config.password = Some("x".into());
        MariaDb::new(CLUSTER, config).unwrap()
    };
    for (rights, missing) in [("INSERT, DELETE", "SELECT"), ("SELECT", "INSERT, DELETE")] {
        bank.run(&format!("GRANT {rights} ON quorate_fence TO clerk")).await;
        let why = refusal(&clerk(), "t1", &bank.add(1, 5)).await;
        let expected = format!("user \"clerk\" may not {missing} there: grant it");
        assert!(why.contains(&expected), "{why}");
        bank.run(&format!("REVOKE {rights} ON quorate_fence FROM clerk")).await;
    }
    assert_eq!((bank.balance(1).await, bank.prepared().await), (100, 0));
    bank.run("GRANT SELECT, INSERT, DELETE ON quorate_fence TO clerk").await;
    cases::these_rights_are_enough(&bank, &clerk()).await;
}

/// Whoever is about to prepare holds the lock on the fence row: that is no bar, and nobody waits.
#[tokio::test]
async fn a_rollback_does_not_take_a_locked_row_for_a_bar() {
    let Some(bank) = MariaDbBank::open("locked").await else { return };
    let (manager, b) = (bank.manager(), bank.branch("t1"));
    let xid = b.xid();
    let mut application = admin(bank.port(), bank.name()).await;
    let begins = format!("XA START {xid}; {}; XA END {xid}", fence::insert(&b));
    application.query_drop(begins).await.unwrap();
    let outcome = manager.rollback(&b, Deadline::within(Duration::from_millis(500))).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    assert_eq!(state(&*manager, &b).await, State::Absent);
    application.query_drop(format!("XA PREPARE {xid}")).await.unwrap();
    application.disconnect().await.unwrap();
    assert_eq!(manager.rollback(&b, soon()).await, Outcome::NotThere);
    assert_eq!((state(&*manager, &b).await, bank.prepared().await), (State::RolledBack, 0));
}

/// The trap: a procedure may end the read-only transaction, and what it then writes is committed at
/// once, whatever becomes of the others.
#[tokio::test]
async fn a_branch_that_only_reads_calls_no_procedure() {
    let Some(bank) = MariaDbBank::open("procedure").await else { return };
    let ends = "BEGIN COMMIT; UPDATE account SET balance = 0 WHERE id = 1; END";
    bank.run(&format!("CREATE PROCEDURE ends() {ends}")).await;
    let manager = bank.manager();
    let Work::Sql(calls) = bank.statements(&["SELECT 1", "CALL ends()"]) else { unreachable!() };
    let reads = Work::Sql(SqlWork { read_only: true, ..calls.clone() });
    let why = refusal(&*manager, "t1", &reads).await;
    assert!(why.starts_with("statement 2 is a CALL"), "{why}");
    // One that writes may call it, and the server refuses what ends it.
    let why = refusal(&*manager, "t2", &Work::Sql(calls)).await;
    assert!(why.starts_with("statement 2 failed") && why.contains("(1399)"), "{why}");
    assert_eq!((bank.balance(1).await, bank.prepared().await), (100, 0));
}

/// A member that was away holds the session of a branch that another one has finished. The server
/// has ended it, nobody asks for it any more, and it must not keep its place for ever.
#[tokio::test]
async fn a_session_that_the_server_has_ended_keeps_no_place() {
    let Some(bank) = MariaDbBank::open("away").await else { return };
    let mut one = config(bank.port(), bank.name());
    one.branch_connections = 1;
    let (away, other) = (MariaDb::new(CLUSTER, one).unwrap(), bank.manager());
    let (first, second) = (bank.branch("t1"), bank.branch("t2"));
    prepare(&away, &first, &bank.add(1, 5)).await;
    let soon_given_up = Deadline::within(Duration::from_millis(500));
    let vote = away.prepare(&second, &bank.add(2, 5), soon_given_up).await;
    let busy = matches!(&vote, Vote::No(Refusal::Branch(Error::Busy { connections: 1, .. })));
    assert!(busy, "the session lives, and its branch can be ended through it: {vote:?}");
    let finish = async {
        let until = Deadline::within(Duration::from_secs(60));
        loop {
            match other.commit(&first, soon()).await {
                Outcome::Unknown(doubt) => assert!(!until.left().is_zero(), "{doubt}"),
                outcome => return applied(&outcome),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    // Somebody who waits for the place gets it then.
    let (minute, work) = (Deadline::within(Duration::from_secs(60)), bank.add(2, 5));
    let waits = away.prepare(&second, &work, minute);
    let (vote, ()) = futures_util::future::join(waits, finish).await;
    assert_eq!(vote, Vote::Yes);
    for b in [&first, &second] {
        applied(&away.commit(b, soon()).await);
    }
    assert_eq!((bank.balance(1).await, bank.balance(2).await), (105, 105));
    assert_eq!(bank.prepared().await, 0);
}
