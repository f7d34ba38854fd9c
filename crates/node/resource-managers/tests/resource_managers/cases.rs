//! What every database must do.

pub use crate::recovery_cases::{
    a_bundle_without_a_record_is_left_for_a_moment, an_alarm_stays_until_it_is_acknowledged,
    recovery_finishes_what_was_decided_and_nothing_else,
    recovery_waits_for_a_participant_that_is_away, what_ends_during_a_scan_is_left_alone,
    what_is_prepared_again_is_committed_or_left_to_people,
};

use crate::bank::{Bank, applied, prepare, refusal, soon, state};
use quorate_resource_managers::{
    BranchName, Deadline, Heuristic, Outcome, Refusal, ResourceManager, SqlWork, State,
    TransactionName, Vote, Work, fence,
};
use std::time::{Duration, Instant};

/// Runs the cases on one kind of bank.
#[macro_export]
macro_rules! run_cases {
    ($bank:ty: $($case:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $case() {
            if let Some(bank) = <$bank as $crate::bank::Bank>::open(stringify!($case)).await {
                cases::$case(bank).await;
            }
        }
    )*};
}

pub async fn commit_is_proven_and_may_be_repeated(bank: impl Bank) {
    let (manager, b) = (bank.manager(), bank.branch("t1"));
    assert_eq!(state(&*manager, &b).await, State::Absent);
    prepare(&*manager, &b, &bank.add(1, 5)).await;
    assert_eq!((state(&*manager, &b).await, bank.balance(1).await), (State::Prepared, 100));
    prepare(&*manager, &b, &bank.add(1, 5)).await;
    for _ in 0..3 {
        applied(&manager.commit(&b, soon()).await);
        // Another manager knows nothing but what the database says.
        applied(&bank.manager().commit(&b, soon()).await);
    }
    assert_eq!((bank.balance(1).await, bank.prepared().await), (105, 0));
    assert!(matches!(state(&*manager, &b).await, State::Applied(_)));
    assert_eq!(refusal(&*manager, "t1", &bank.add(1, 5)).await, "the branch was committed before");
    let rolled = manager.rollback(&b, soon()).await;
    assert_eq!(rolled, Outcome::Heuristic(Heuristic::Committed));
    manager.forget(&[b.clone(), bank.branch("never")], soon()).await.unwrap();
    assert_eq!((state(&*manager, &b).await, bank.balance(1).await), (State::Absent, 105));
}

/// More clients' statements than one branch may have, in one transaction: all or none.
pub async fn what_shares_a_transaction_is_done_in_turn(bank: impl Bank) {
    let manager = bank.manager();
    manager.check(soon()).await.unwrap();
    assert!(manager.shares());
    let one = |account, amount| match bank.add(account, amount) {
        Work::Sql(work) => work,
        _ => unreachable!(),
    };
    let mut all: Vec<SqlWork> = (0..100).map(|n| one(1 + n % 2, 1)).collect();
    let together = bank.branch("~0123");
    for again in [&manager, &manager, &bank.manager()] {
        prepare(&**again, &together, &Work::Sql(SqlWork::merged(all.iter()))).await;
        assert_eq!((bank.prepared().await, bank.balance(1).await), (1, 100));
    }
    applied(&manager.commit(&together, soon()).await);
    assert_eq!((bank.balance(1).await, bank.balance(2).await), (150, 150));
    all[70] = one(77, 1);
    let why = refusal(&*manager, "~0124", &Work::Sql(SqlWork::merged(all.iter()))).await;
    assert_eq!(why, "statement 71 affected 0 rows where 1 must be");
    let Work::Sql(twice) = bank.statements(&["INSERT INTO account (id, balance) VALUES (1, 0)"])
    else {
        unreachable!()
    };
    all[30] = twice;
    let why = refusal(&*manager, "~0126", &Work::Sql(SqlWork::merged(all.iter()))).await;
    assert!(why.starts_with("statement 31 failed: "), "{why}");
    let most = SqlWork { statements: vec![one(1, 1).statements.remove(0); 513], ..all[0].clone() };
    let why = refusal(&*manager, "~0125", &Work::Sql(most)).await;
    assert!(why.contains("513 statements; allowed are 1 to 512"), "{why}");
    assert_eq!((bank.balance(1).await, bank.balance(2).await), (150, 150));
}

pub async fn rollback_bars_a_late_prepare(bank: impl Bank) {
    let manager = bank.manager();
    let (prepared, never) = (bank.branch("prepared"), bank.branch("never"));
    prepare(&*manager, &prepared, &bank.add(1, 5)).await;
    for b in [&prepared, &never] {
        for _ in 0..2 {
            assert_eq!(manager.rollback(b, soon()).await, Outcome::NotThere, "{b}");
            assert_eq!(state(&*manager, b).await, State::RolledBack);
        }
        let late = bank.manager().prepare(b, &bank.add(1, 5), soon()).await;
        assert_eq!(late, Vote::No(Refusal::Over { applied: false }), "{b}");
        let commit = manager.commit(b, soon()).await;
        assert_eq!(commit, Outcome::Heuristic(Heuristic::RolledBack), "{b}");
    }
    assert_eq!((bank.balance(1).await, bank.prepared().await), (100, 0));
}

pub async fn a_branch_that_fails_votes_no_and_leaves_nothing(bank: impl Bank) {
    let manager = bank.manager();
    let no_such = bank.add(77, 1);
    assert_eq!(
        refusal(&*manager, "t1", &no_such).await,
        "statement 1 affected 0 rows where 1 must be"
    );
    let add = "UPDATE account SET balance = balance + 1 WHERE id = 1";
    let wrong = bank.statements(&[add, "INSERT INTO account (id, balance) VALUES (1, 0)", add]);
    let why = refusal(&*manager, "t2", &wrong).await;
    assert!(why.starts_with("statement 2 failed: "), "{why}");
    let nonsense = refusal(&*manager, "t3", &bank.statements(&["SELECT nonsense"])).await;
    assert!(nonsense.contains("nonsense"), "{nonsense}");
    let mut few = bank.add(1, 1);
    let Work::Sql(SqlWork { statements, .. }) = &mut few else { unreachable!() };
    statements[0].parameters.pop();
    let few = refusal(&*manager, "t4", &few).await;
    assert!(few.contains("1 parameters where 2 are needed"), "{few}");
    let two = refusal(&*manager, "t5", &bank.statements(&["SELECT 1; COMMIT"])).await;
    assert!(two.starts_with("statement 1 failed: "), "{two}");
    let ends = refusal(&*manager, "t6", &bank.statements(&[add, "COMMIT"])).await;
    assert!(ends.contains("statement 2 begins with \"COMMIT\""), "{ends}");
    assert_eq!((bank.balance(1).await, bank.prepared().await), (100, 0));
    // And the sessions are still good.
    prepare(&*manager, &bank.branch("t7"), &bank.add(1, 1)).await;
    applied(&manager.commit(&bank.branch("t7"), soon()).await);
}

pub async fn a_repeated_prepare_that_fails_leaves_the_branch_alone(bank: impl Bank) {
    let b = bank.branch("t1");
    prepare(&*bank.manager(), &b, &bank.add(1, 5)).await;
    // The session that prepared it is gone, so that anybody could roll it back.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let manager = bank.manager();
    for sql in ["SELECT nonsense", "INSERT INTO account (id, balance) VALUES (2, 0)"] {
        let vote = manager.prepare(&b, &bank.statements(&[sql]), soon()).await;
        assert!(matches!(vote, Vote::No(_) | Vote::Yes), "{vote:?}");
        assert_eq!(state(&*manager, &b).await, State::Prepared, "{sql}");
    }
    applied(&manager.commit(&b, soon()).await);
    assert_eq!(bank.balance(1).await, 105);
}

pub async fn a_branch_that_only_reads_needs_no_second_phase(bank: impl Bank) {
    let manager = bank.manager();
    let read_only = |sql: &str| match bank.statements(&[sql]) {
        Work::Sql(work) => Work::Sql(SqlWork { read_only: true, ..work }),
        other => other,
    };
    let reads = read_only("SELECT balance FROM account");
    assert_eq!(manager.prepare(&bank.branch("t1"), &reads, soon()).await, Vote::ReadOnly);
    assert_eq!(state(&*manager, &bank.branch("t1")).await, State::Absent);
    let writes = read_only("UPDATE account SET balance = 0");
    let why = refusal(&*manager, "t2", &writes).await;
    assert!(why.to_lowercase().contains("read") && why.to_lowercase().contains("only"), "{why}");
    assert_eq!((bank.balance(1).await, bank.prepared().await), (100, 0));
}

pub async fn only_our_own_branches_are_scanned(bank: impl Bank) {
    let manager = bank.manager();
    let other_cluster = TransactionName::new(quorate_base::ClusterId(0xbea), 1, "t").unwrap();
    let other_cluster = BranchName::new(other_cluster, bank.name(), "b1").unwrap();
    bank.prepare_by_hand(&other_cluster, 3, &fence::insert(&other_cluster)).await;
    prepare(&*manager, &bank.branch("t1"), &bank.add(1, 5)).await;
    let found = bank.manager().scan(soon()).await.unwrap();
    assert_eq!(found.iter().map(|f| &f.branch).collect::<Vec<_>>(), [&bank.branch("t1")]);
    assert_eq!(manager.rollback(&bank.branch("t1"), soon()).await, Outcome::NotThere);
    assert_eq!((manager.scan(soon()).await.unwrap(), bank.prepared().await), (vec![], 1));
    bank.run(&bank.by_hand(false, &other_cluster)).await;
}

pub async fn what_an_administrator_decides_is_an_alarm(bank: impl Bank) {
    let prepare_and_end = async |txid: &str, commit: bool| {
        // A manager of its own, which is gone before the administrator comes.
        prepare(&*bank.manager(), &bank.branch(txid), &bank.add(1, 5)).await;
        let ended = Instant::now() + Duration::from_secs(5);
        while !bank.try_run(&bank.by_hand(commit, &bank.branch(txid))).await {
            assert!(Instant::now() < ended, "the branch stays with its session");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let manager = bank.manager();
    prepare_and_end("committed", true).await;
    prepare_and_end("rolled-back", false).await;
    for _ in 0..2 {
        let found = manager.rollback(&bank.branch("committed"), soon()).await;
        assert_eq!(found, Outcome::Heuristic(Heuristic::Committed));
        let found = manager.commit(&bank.branch("rolled-back"), soon()).await;
        assert_eq!(found, Outcome::Heuristic(Heuristic::RolledBack));
    }
    // What happens to agree with the decision is no alarm.
    applied(&manager.commit(&bank.branch("committed"), soon()).await);
    assert_eq!(manager.rollback(&bank.branch("rolled-back"), soon()).await, Outcome::NotThere);
    assert_eq!(bank.balance(1).await, 105);
}

pub async fn a_branch_of_the_application_is_adopted(bank: impl Bank) {
    let manager = bank.manager();
    let adopt = async |txid: &str| manager.adopt(&bank.branch(txid), soon()).await;
    let not = async |txid: &str| match adopt(txid).await {
        Vote::No(refusal) => refusal.to_string(),
        vote => panic!("{vote:?}"),
    };
    let (good, bare) = (bank.branch("good"), bank.branch("bare"));
    bank.prepare_by_hand(&good, 3, &fence::insert(&good)).await;
    for _ in 0..2 {
        assert_eq!(adopt("good").await, Vote::Yes);
    }
    applied(&manager.commit(&good, soon()).await);
    assert_eq!(bank.balance(3).await, 101);
    assert_eq!(not("good").await, "the branch was committed before");
    bank.prepare_by_hand(&bare, 3, "UPDATE account SET balance = 5 WHERE id = 3").await;
    let why = not("bare").await;
    assert!(why.contains("its fence row is not in it"), "{why}");
    assert_eq!(manager.rollback(&bare, soon()).await, Outcome::NotThere);
    assert!(not("never").await.contains("no such transaction is prepared"));
    assert_eq!((bank.balance(3).await, bank.prepared().await), (101, 0));
}

pub async fn locks_are_waited_for_no_longer_than_the_deadline(bank: impl Bank) {
    let manager = bank.manager();
    prepare(&*manager, &bank.branch("holder"), &bank.add(1, 5)).await;
    let began = Instant::now();
    let deadline = Deadline::within(Duration::from_millis(900));
    let vote = manager.prepare(&bank.branch("waiter"), &bank.add(1, 1), deadline).await;
    // On a machine that is too busy there is no time left to see that it is not prepared.
    assert!(matches!(vote, Vote::No(_) | Vote::Unknown(_)), "{vote:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    applied(&manager.commit(&bank.branch("holder"), soon()).await);
    prepare(&*manager, &bank.branch("later"), &bank.add(1, 1)).await;
    applied(&manager.commit(&bank.branch("later"), soon()).await);
    assert_eq!(bank.balance(1).await, 106);
}

pub async fn many_branches_share_few_connections(bank: impl Bank) {
    let manager = bank.manager();
    let one = async |n: usize| {
        let b = bank.branch(&format!("t{n}"));
        prepare(&*manager, &b, &bank.add(1, 1)).await;
        match n % 4 {
            0 => assert_eq!(manager.rollback(&b, soon()).await, Outcome::NotThere),
            _ => applied(&manager.commit(&b, soon()).await),
        }
    };
    futures_util::future::join_all((0..40).map(one)).await;
    assert_eq!((bank.balance(1).await, bank.prepared().await), (130, 0));
}

/// What a user with SELECT, INSERT and DELETE on the fence must be able to do. The manager comes as
/// one.
pub async fn these_rights_are_enough(bank: &impl Bank, manager: &dyn ResourceManager) {
    let [commits, rolls_back, never] = ["yes", "no", "never"].map(|txid| bank.branch(txid));
    prepare(manager, &commits, &bank.add(1, 5)).await;
    prepare(manager, &rolls_back, &bank.add(2, 5)).await;
    assert_eq!(manager.scan(soon()).await.unwrap().len(), 2);
    assert_eq!(manager.adopt(&commits, soon()).await, Vote::Yes);
    applied(&manager.commit(&commits, soon()).await);
    for _ in 0..2 {
        assert_eq!(manager.rollback(&rolls_back, soon()).await, Outcome::NotThere);
        assert_eq!(manager.rollback(&never, soon()).await, Outcome::NotThere);
    }
    assert_eq!(manager.forget(&[commits, rolls_back, never], soon()).await, Ok(3));
    assert_eq!((bank.balance(1).await, bank.prepared().await), (105, 0));
}

/// Run with a server of its own.
pub async fn a_killed_server_keeps_what_it_has_prepared(mut bank: impl Bank) {
    let manager = bank.manager();
    for txid in ["commit", "abort"] {
        let account = if txid == "commit" { 1 } else { 2 };
        prepare(&*manager, &bank.branch(txid), &bank.add(account, 5)).await;
    }
    bank.kill_and_restart().await;
    assert_eq!(bank.prepared().await, 2);
    let found = manager.scan(soon()).await.unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    applied(&manager.commit(&bank.branch("commit"), soon()).await);
    assert_eq!(manager.rollback(&bank.branch("abort"), soon()).await, Outcome::NotThere);
    bank.kill_and_restart().await;
    applied(&manager.commit(&bank.branch("commit"), soon()).await);
    assert_eq!((bank.balance(1).await, bank.balance(2).await), (105, 100));
    assert_eq!(bank.prepared().await, 0);
}
