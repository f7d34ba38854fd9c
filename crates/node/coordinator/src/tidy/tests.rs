//! What is forgotten, and what is not, at a node alone with a participant that is not real.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::alone::{Alone, eventually};
use crate::fake::Fake;
use crate::manager::name;
use crate::service::{Settings, Transactions};
use quorate_atomic_commit::Protocol;
use quorate_resource_managers::RecoverySettings;
use quorate_transactions::records::{OPEN, STRAYS};
use quorate_transactions::{Carried, Stage, Verdict};
use std::sync::atomic::Ordering::Relaxed;

fn settings(retention: Duration) -> Settings {
    let recovery =
        RecoverySettings { interval: Duration::from_millis(20), ..RecoverySettings::default() };
    Settings { retention, recovery, ..Settings::default() }
}

fn soon() -> Settings {
    settings(Duration::from_millis(100))
}

fn called(world: &Alone, id: &str, attempt: u32, branch: &str) -> String {
    name(world.handle.cluster(), id, attempt, "bank", branch).unwrap().to_string()
}

fn abort() -> Verdict {
    Verdict::Abort { branch: None, reason: "no".to_owned() }
}

/// One that is over, with a branch in a keyspace and one at the bank, which is so, after so many
/// attempts.
fn over(world: &Alone, attempts: u32, verdict: Verdict, debit: BranchState) -> Record {
    let mut record = world.record();
    record.protocol = Protocol::TwoPhase;
    (record.asked, record.epoch) = (attempts, attempts + 1);
    record.stage = Stage::Finished(verdict);
    record.branches[0].state = BranchState::RolledBack;
    record.branches[1] = BranchRecord {
        kind: Kind::Postgres,
        state: debit,
        ..BranchRecord::keyspace("debit", "bank", quorate_base::GroupId(0))
    };
    record
}

fn ids(world: &Alone, prefix: &str) -> Vec<String> {
    let all = world.store.list_raw(prefix, "", 1_000).unwrap();
    all.into_iter().map(|(id, ..)| id).collect()
}

/// Which of these ids are taken.
fn taken<'a>(world: &Alone, all: &[&'a str]) -> Vec<&'a str> {
    let claimed = |id: &&str| world.store.0.reader().claim(id.as_bytes()).unwrap().is_some();
    all.iter().copied().filter(claimed).collect()
}

/// One round, for what is as of this revision.
fn round(world: &Alone, transactions: &Transactions, old: Revision) {
    let mut deaf = Deaf::default();
    world.runtime.block_on(forget(&transactions.0, &world.store, old, &mut deaf));
}

fn now(world: &Alone) -> Revision {
    world.store.0.reader().revision()
}

#[test]
fn what_is_over_is_forgotten_with_whom_it_carried_and_every_attempt() {
    let (world, bank) = (Alone::start(), Fake::new("bank"));
    // More attempts than are forgotten at a time.
    let attempts = u32::try_from(FORGOTTEN_TOGETHER).unwrap() + 3;
    world.keep("t", None, over(&world, attempts, abort(), BranchState::RolledBack));
    let rows = (1..=attempts).map(|attempt| called(&world, "t", attempt, "debit"));
    bank.rows.lock().extend(rows);
    let stranger = called(&world, "other", 1, "debit");
    bank.rows.lock().insert(stranger.clone());
    let carried = ["x", "y"].map(|id| Carried { id: id.to_owned(), content: 1 }).into();
    let stage = Stage::Finished(Verdict::Commit);
    let bundle = Record { carried, stage, branches: Vec::new(), ..world.record() };
    world.keep("~1", None, bundle);
    let all = ["t", "x", "y", "~1"];
    assert_eq!((ids(&world, FINISHED).len(), taken(&world, &all)), (2, all.to_vec()));

    let transactions = world.transactions_over(&[&bank], soon());
    eventually("all is forgotten", || {
        ids(&world, FINISHED).is_empty() && taken(&world, &all).is_empty()
    });
    assert_eq!(*bank.rows.lock(), BTreeSet::from([stranger]), "before the record was");
    drop(transactions);
}

#[test]
fn what_is_not_old_or_not_over_stays() {
    let world = Alone::start();
    let transactions = world.transactions(settings(Duration::from_secs(3_600)));
    let over = Record { stage: Stage::Finished(abort()), branches: Vec::new(), ..world.record() };
    let old = world.keep("old", None, over.clone());
    world.keep("young", None, over);
    let alarm = BranchState::Heuristic("by hand".to_owned());
    let mut open = Record { stage: Stage::Decided(Verdict::Commit), ..world.record() };
    open.branches.iter_mut().for_each(|branch| branch.state = alarm.clone());
    world.keep("open", None, open);
    round(&world, &transactions, old);
    assert_eq!(
        (ids(&world, FINISHED), ids(&world, OPEN)),
        (vec!["young".into()], vec!["open".into()])
    );
    round(&world, &transactions, now(&world));
    assert_eq!((ids(&world, FINISHED), ids(&world, OPEN)), (vec![], vec!["open".to_owned()]));
}

#[test]
fn what_came_late_is_forgotten_with_the_record_that_says_that_it_is_void() {
    let (world, bank) = (Alone::start(), Fake::new("bank"));
    // Nobody has begun it, in two branches; one was forgotten before a third attempt of it came.
    let late = [("own", 1, "debit"), ("own", 1, "fee"), ("gone", 3, "debit")];
    let late = late.map(|(id, attempt, branch)| called(&world, id, attempt, branch));
    bank.prepared.lock().extend(late.iter().cloned());
    // And one went without this branch.
    world.keep("t", None, over(&world, 2, abort(), BranchState::RolledBack));
    bank.prepared.lock().insert(called(&world, "t", 1, "fee"));
    bank.prepared.lock().insert(called(&world, "t", 1, "debit"));

    let transactions = world.transactions_over(&[&bank], settings(Duration::from_secs(3_600)));
    eventually("all are rolled back", || bank.rows.lock().len() == 5);
    assert!(bank.prepared.lock().is_empty());
    assert_eq!(ids(&world, FINISHED), ["gone", "own", "t"]);
    assert_eq!(ids(&world, STRAYS), ["gone", "own", "t"]);
    let noted = |id: &str| {
        let (all, _) = quorate_transactions::records::strays(world.store.0.reader(), id).unwrap();
        all.into_iter().map(|stray| stray.name).collect::<Vec<_>>()
    };
    assert_eq!(noted("t"), [called(&world, "t", 1, "fee")], "the record knows its own branches");
    assert_eq!(noted("own").len(), 2);

    // Not before what was noted is old as well.
    let (record, revision) = world.store.look("t").unwrap().unwrap();
    assert!(matches!(record.stage, Stage::Finished(_)));
    round(&world, &transactions, revision);
    assert!(ids(&world, FINISHED).contains(&"t".to_owned()));
    round(&world, &transactions, now(&world));
    assert_eq!((ids(&world, FINISHED), ids(&world, STRAYS)), (vec![], vec![]));
    assert_eq!(*bank.rows.lock(), BTreeSet::new());
}

#[test]
fn what_people_have_seen_to_stays_while_it_is_prepared_again_or_might_be() {
    let (world, bank) = (Alone::start(), Fake::new("bank"));
    let transactions = world.transactions_over(&[&bank], settings(Duration::from_secs(3_600)));
    let seen_to = BranchState::Acknowledged("rolled back by hand".to_owned());
    world.keep("t", None, over(&world, 2, Verdict::Commit, seen_to));
    let again = called(&world, "t", 2, "debit");
    bank.prepared.lock().insert(again.clone());
    round(&world, &transactions, now(&world));
    assert_eq!(ids(&world, FINISHED), ["t"], "it is prepared again");
    bank.away.store(true, Relaxed);
    bank.prepared.lock().clear();
    round(&world, &transactions, now(&world));
    assert_eq!(ids(&world, FINISHED), ["t"], "nobody knows");
    bank.away.store(false, Relaxed);
    bank.rows.lock().insert(again);
    round(&world, &transactions, now(&world));
    assert_eq!(ids(&world, FINISHED), Vec::<String>::new());
    assert!(bank.rows.lock().is_empty());
}

#[test]
fn who_does_not_forget_keeps_its_own_records_and_nobody_elses() {
    let (world, bank) = (Alone::start(), Fake::new("bank"));
    let transactions = world.transactions_over(&[&bank], settings(Duration::from_secs(3_600)));
    world.keep("at-bank", None, over(&world, 1, abort(), BranchState::RolledBack));
    let elsewhere =
        Record { branches: Vec::new(), ..over(&world, 1, abort(), BranchState::RolledBack) };
    world.keep("elsewhere", None, elsewhere);
    // Of a participant that was taken out of the file.
    let mut out = over(&world, 1, abort(), BranchState::RolledBack);
    out.branches[1].participant = "shop".to_owned();
    world.keep("out", None, out);
    bank.rows.lock().insert(called(&world, "at-bank", 1, "debit"));
    bank.away.store(true, Relaxed);
    round(&world, &transactions, now(&world));
    assert_eq!(ids(&world, FINISHED), ["at-bank", "out"]);
    bank.away.store(false, Relaxed);
    round(&world, &transactions, now(&world));
    assert_eq!(ids(&world, FINISHED), ["out"]);
    assert!(bank.rows.lock().is_empty());
}

#[test]
fn a_participant_that_does_not_forget_is_news_once() {
    let mut deaf = Deaf::default();
    let (bank, shop) = ((Kind::Postgres, "bank".to_owned()), (Kind::MariaDb, "bank".to_owned()));
    assert!(deaf.failed(&bank) && deaf.failed(&shop));
    assert!(!deaf.failed(&bank) && !deaf.failed(&shop));
    deaf.forgot(&bank);
    assert!(deaf.failed(&bank), "it was well in between");
    assert!(!deaf.failed(&shop));
}
