//! PostgreSQL: the cases of every database, and its own traps.

use crate::bank::{Bank, CLUSTER, applied, prepare, refusal, soon};
use crate::postgres_bank::{PostgresBank, admin, config, server};
use crate::{cases, lost_connections, run_cases};
use quorate_resource_managers::{
    Error, Isolation, Outcome, Postgres, ResourceManager, SqlWork, Vote, Work,
};

run_cases!(PostgresBank:
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
    if let Some(bank) = PostgresBank::open_alone("killed").await {
        cases::a_killed_server_keeps_what_it_has_prepared(bank).await;
    }
}

#[tokio::test]
async fn a_connection_may_be_lost_at_every_step() {
    for (test, phase) in [("lost1", 1), ("lost2", 2), ("lost3", 3), ("lost4", 4)] {
        let Some(bank) = PostgresBank::open(test).await else { return };
        match phase {
            1 => lost_connections::while_preparing(bank).await,
            2 => lost_connections::while_committing(bank).await,
            3 => lost_connections::while_rolling_back(bank).await,
            _ => lost_connections::while_silent(bank, "PREPARE TRANSACTION").await,
        }
    }
}

/// What breaks a constraint that is checked at the end could be mended by whoever comes next.
#[tokio::test]
async fn where_checks_are_deferred_everybody_goes_alone() {
    let Some(bank) = PostgresBank::open("deferred").await else { return };
    let manager = bank.manager();
    assert!(!manager.shares(), "it was not looked at yet");
    for (change, shares) in [
        ("SELECT 1", true),
        ("ALTER TABLE account ADD CONSTRAINT once UNIQUE (balance, id) DEFERRABLE", true),
        ("ALTER TABLE account DROP CONSTRAINT once", true),
        (
            "ALTER TABLE account ADD CONSTRAINT once UNIQUE (balance, id) \
             DEFERRABLE INITIALLY DEFERRED",
            false,
        ),
        ("ALTER TABLE account DROP CONSTRAINT once", true),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
             CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON account \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f()",
            false,
        ),
    ] {
        assert!(bank.try_run(change).await, "{change}");
        manager.check(soon()).await.unwrap();
        assert_eq!(manager.shares(), shares, "{change}");
    }
    let mut alone = config(bank.port(), bank.name());
    alone.bundles = false;
    assert!(bank.try_run("DROP TRIGGER late ON account").await);
    let alone = Postgres::new(CLUSTER, alone).unwrap();
    alone.check(soon()).await.unwrap();
    assert!(!alone.shares(), "the user says so");
}

/// The trap: the server answers `PREPARE TRANSACTION` in an aborted transaction without an error,
/// with the tag ROLLBACK, which no driver shows.
#[tokio::test]
async fn an_aborted_transaction_is_no_yes() {
    let Some(bank) = PostgresBank::open("aborted").await else { return };
    let session = admin(bank.port(), bank.name()).await;
    session.batch_execute("BEGIN").await.unwrap();
    session.batch_execute("SELECT 1 / 0").await.unwrap_err();
    session.batch_execute("PREPARE TRANSACTION 'false-yes'").await.unwrap();
    assert_eq!(bank.prepared().await, 0, "the server said yes to nothing");

    let manager = bank.manager();
    let work = bank.statements(&["UPDATE account SET balance = 1 WHERE id = 1", "SELECT 1 / 0"]);
    let why = refusal(&*manager, "t1", &work).await;
    assert!(why.contains("division by zero (22012)"), "{why}");
    assert_eq!((bank.prepared().await, bank.balance(1).await), (0, 100));
}

/// A constraint that is checked at the end fails the last step, not a statement.
#[tokio::test]
async fn a_deferred_constraint_votes_no() {
    let Some(bank) = PostgresBank::open("deferred").await else { return };
    bank.run("CREATE TABLE owns (account bigint REFERENCES account DEFERRABLE INITIALLY DEFERRED)")
        .await;
    let work = bank.statements(&["INSERT INTO owns VALUES (99)"]);
    let why = refusal(&*bank.manager(), "t1", &work).await;
    assert!(why.contains("23503"), "{why}");
    assert_eq!(bank.prepared().await, 0);
}

#[tokio::test]
async fn what_cannot_be_prepared_votes_no() {
    let Some(bank) = PostgresBank::open("temporary").await else { return };
    bank.run("CREATE FUNCTION tell() RETURNS void LANGUAGE sql AS 'NOTIFY news'").await;
    let why = refusal(&*bank.manager(), "t1", &bank.statements(&["SELECT tell()"])).await;
    assert!(why.contains("NOTIFY"), "{why}");
}

/// Outside of a branch our sessions write nothing: whatever ended the transaction under us, the
/// statements behind it, the fence row among them, would fail.
#[tokio::test]
async fn nothing_is_written_outside_of_a_branch() {
    let Some(bank) = PostgresBank::open("outside").await else { return };
    bank.run("CREATE PROCEDURE ends() LANGUAGE plpgsql AS 'BEGIN COMMIT; END'").await;
    let why = refusal(&*bank.manager(), "t1", &bank.statements(&["CALL ends()"])).await;
    assert!(why.contains("invalid transaction termination"), "{why}");
    let read_only =
        "SELECT setting = 'on' FROM pg_settings WHERE name = 'default_transaction_read_only'";
    let work = bank.statements(&[&format!("SELECT 1 / ({read_only})::int")]);
    prepare(&*bank.manager(), &bank.branch("t2"), &work).await;
    applied(&bank.manager().commit(&bank.branch("t2"), soon()).await);
}

#[tokio::test]
async fn a_server_without_prepared_transactions_is_refused_before_anything_is_done() {
    let Some(server) = server("unprepared", &["max_prepared_transactions=0"]) else { return };
    let manager = Postgres::new(CLUSTER, config(server.port(), "postgres")).unwrap();
    let error = manager.check(soon()).await.unwrap_err();
    let Error::Setting { setting, found, .. } = &error else { panic!("{error:?}") };
    assert_eq!((setting.as_str(), found.as_str()), ("max_prepared_transactions", "0"));
    assert!(error.to_string().contains("restart the server"), "{error}");
    let session = admin(server.port(), "postgres").await;
    session.batch_execute("CREATE SEQUENCE touched").await.unwrap();
    let work = toml::from_str::<SqlWork>("[[statements]]\nsql = \"SELECT nextval('touched')\"");
    let why = refusal(&manager, "t1", &Work::Sql(work.unwrap())).await;
    assert!(why.contains("max_prepared_transactions"), "{why}");
    let row = session.query_one("SELECT is_called FROM touched", &[]).await.unwrap();
    assert!(!row.get::<_, bool>(0), "no statement was run");
}

#[tokio::test]
async fn whoever_is_to_blame_is_named() {
    let Some(bank) = PostgresBank::open("blame").await else { return };
    let mut wrong = config(bank.port(), bank.name());
    wrong.password = Some("wrong".into());
    let check = async |config| Postgres::new(CLUSTER, config)?.check(soon()).await;
    let error = check(wrong.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Credentials { .. }), "{error:?}");
    assert!(error.to_string().contains("does not let user \"postgres\" in"), "{error}");
    let manager = Postgres::new(CLUSTER, wrong).unwrap();
    let vote = manager.prepare(&bank.branch("t1"), &bank.add(1, 1), soon()).await;
    assert!(matches!(vote, Vote::No(_)), "{vote:?}");
    let outcome = manager.commit(&bank.branch("t1"), soon()).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");

    let error = check(config(bank.port(), "postgres")).await.unwrap_err();
    assert!(matches!(error, Error::NotSetUp { .. }), "{error:?}");
    let error = check(config(bank.port(), "nowhere")).await.unwrap_err();
    assert!(error.to_string().contains("database \"nowhere\" does not exist"), "{error}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = check(config(nobody.port(), "blame")).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_may_forget_votes_is_refused() {
    let Some(server) = server("unsafe", &["fsync=off"]) else { return };
    let mut config = config(server.port(), "postgres");
    let manager = Postgres::new(CLUSTER, config.clone()).unwrap();
    manager.set_up(soon()).await.unwrap();
    let error = manager.check(soon()).await.unwrap_err().to_string();
    assert!(error.contains("fsync = off"), "{error}");
    config.allow_unsafe_durability = true;
    Postgres::new(CLUSTER, config).unwrap().check(soon()).await.unwrap();
}

#[tokio::test]
async fn another_users_branch_is_not_adopted() {
    let Some(bank) = PostgresBank::open("owners").await else { return };
    bank.run(
        "CREATE ROLE teller LOGIN PASSWORD 'x'; GRANT ALL ON account, quorate_fence TO teller",
    )
    .await;
    let b = bank.branch("t1");
    bank.prepare_by_hand(&b, 3, &quorate_resource_managers::fence::insert(&b)).await;
    let mut teller = config(bank.port(), bank.name());
    teller.user = "teller".to_owned();
    teller.password = Some("x".into());
    let manager = Postgres::new(CLUSTER, teller).unwrap();
    let vote = manager.adopt(&b, soon()).await;
    let Vote::No(refusal) = vote else { panic!("{vote:?}") };
    assert!(refusal.to_string().contains("another user"), "{refusal}");
    let outcome = manager.commit(&b, soon()).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    applied(&bank.manager().commit(&b, soon()).await);
}

#[tokio::test]
async fn the_isolation_level_is_the_branches() {
    let Some(bank) = PostgresBank::open("isolation").await else { return };
    let level = "SELECT 1 / (current_setting('transaction_isolation') = 'serializable')::int";
    let Work::Sql(work) = bank.statements(&[level]) else { unreachable!() };
    let serializable = SqlWork { isolation: Some(Isolation::Serializable), ..work.clone() };
    let manager = bank.manager();
    prepare(&*manager, &bank.branch("t1"), &Work::Sql(serializable)).await;
    assert_eq!(manager.rollback(&bank.branch("t1"), soon()).await, Outcome::NotThere);
    let why = refusal(&*manager, "t2", &Work::Sql(work)).await;
    assert!(why.contains("division by zero"), "{why}");
}

/// Without one of the rights a branch could be committed, and never be proven to be.
#[tokio::test]
async fn a_missing_right_to_the_fence_is_named_before_anything_is_done() {
    let Some(bank) = PostgresBank::open("rights").await else { return };
    bank.run("CREATE ROLE clerk LOGIN PASSWORD 'x'; GRANT ALL ON account TO clerk").await;
    let clerk = || {
        let mut config = config(bank.port(), bank.name());
        config.user = "clerk".to_owned();
        config.password = Some("x".into());
        Postgres::new(CLUSTER, config).unwrap()
    };
    for (rights, missing) in [("INSERT, DELETE", "SELECT"), ("SELECT", "INSERT, DELETE")] {
        bank.run(&format!("GRANT {rights} ON quorate_fence TO clerk")).await;
        let why = refusal(&clerk(), "t1", &bank.add(1, 5)).await;
        let expected = format!("user \"clerk\" may not {missing} there: grant it");
        assert!(why.contains(&expected), "{why}");
        bank.run("REVOKE ALL ON quorate_fence FROM clerk").await;
    }
    assert_eq!((bank.balance(1).await, bank.prepared().await), (100, 0));
    bank.run("GRANT SELECT, INSERT, DELETE ON quorate_fence TO clerk").await;
    cases::these_rights_are_enough(&bank, &clerk()).await;
}

/// The trap: `set_config(…, false)` outlives the branch, and session locks do even if it fails. The
/// next branch of the same session, somebody else's, must see nothing of it.
#[tokio::test]
async fn a_branch_leaves_nothing_in_its_session() {
    let Some(bank) = PostgresBank::open("leftovers").await else { return };
    bank.run(
        "CREATE ROLE lodger; GRANT lodger TO postgres; CREATE SCHEMA elsewhere; \
         CREATE TABLE elsewhere.account (LIKE account); \
         INSERT INTO elsewhere.account VALUES (1, 100)",
    )
    .await;
    let mut one = config(bank.port(), bank.name());
    one.branch_connections = 1;
    let manager = Postgres::new(CLUSTER, one).unwrap();
    let works = async |txid: &str, work: &Work| {
        prepare(&manager, &bank.branch(txid), work).await;
        applied(&manager.commit(&bank.branch(txid), soon()).await);
    };
    works("before", &bank.add(1, 1)).await;
    let sets = "SELECT set_config('search_path', 'elsewhere, public', false), \
                set_config('default_transaction_read_only', 'off', false)";
    works("sets", &bank.statements(&[sets])).await;
    works("after", &bank.add(1, 1)).await;
    assert_eq!(bank.balance(1).await, 102, "an account elsewhere was changed");
    // Of a statement that is new the tables are looked up before the branch begins.
    works("sets-again", &bank.statements(&[sets])).await;
    works("new", &bank.statements(&["UPDATE account SET balance = 7 WHERE id = 1"])).await;
    assert_eq!(bank.balance(1).await, 7, "an account elsewhere was changed");

    let Work::Sql(role) = bank.statements(&["SELECT set_config('role', 'lodger', false)"]) else {
        unreachable!()
    };
    let role = Work::Sql(SqlWork { read_only: true, ..role });
    assert_eq!(manager.prepare(&bank.branch("role"), &role, soon()).await, Vote::ReadOnly);
    let own = "SELECT 1 / (current_user = 'postgres' AND (SELECT setting = 'on' FROM pg_settings \
               WHERE name = 'default_transaction_read_only'))::int";
    works("own", &bank.statements(&[own])).await;

    let locks = bank.statements(&["SELECT pg_advisory_lock(7)", "SELECT 1 / 0"]);
    refusal(&manager, "locks", &locks).await;
    bank.run("SELECT 1 / pg_try_advisory_lock(7)::int").await;
}
