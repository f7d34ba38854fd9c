//! Recovery of what a coordinator left behind, on every database.

use crate::bank::{Bank, CLUSTER, applied, prepare, soon, state};
use parking_lot::Mutex;
use quorate_databases::Proxy;
use quorate_resource_managers::{
    Answer, BranchName, Decision, Heuristic, Oracle, Outcome, Recovery, RecoverySettings, Refusal,
    ResourceManager, Scanned, State, TransactionName, Vote, fence,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Decisions in memory; of a transaction that is not there it makes a tombstone.
#[derive(Default)]
pub struct Decisions {
    decisions: Mutex<BTreeMap<String, Decision>>,
    alarms: Mutex<Vec<(BranchName, Heuristic)>>,
}

impl Decisions {
    /// Decides a transaction.
    pub fn decide(&self, txid: &str, decision: Decision) {
        self.decisions.lock().insert(txid.to_owned(), decision);
    }
}

impl Oracle for Decisions {
    fn decision<'a>(
        &'a self,
        branch: &'a BranchName,
        orphaned: bool,
    ) -> Answer<'a, Result<Decision, String>> {
        let transaction = branch.transaction();
        let mut decisions = self.decisions.lock();
        let known = decisions.get(transaction.txid()).copied();
        let decision = match known {
            Some(decision) => decision,
            None if orphaned => {
                decisions.insert(transaction.txid().to_owned(), Decision::Tombstoned);
                Decision::Tombstoned
            }
            None => Decision::Unheard,
        };
        Box::pin(async move { Ok(decision) })
    }

    fn alarm(&self, branch: &BranchName, heuristic: Heuristic) {
        self.alarms.lock().push((branch.clone(), heuristic));
    }
}

fn quick() -> RecoverySettings {
    let ms = Duration::from_millis;
    let settings = RecoverySettings::default();
    RecoverySettings { interval: ms(20), first_pause: ms(10), longest_pause: ms(40), ..settings }
}

pub async fn recovery_finishes_what_was_decided_and_nothing_else(bank: impl Bank) {
    let decisions = Arc::new(Decisions::default());
    for (txid, decision) in
        [("commit", Decision::Commit), ("abort", Decision::Abort), ("open", Decision::Undecided)]
    {
        decisions.decide(txid, decision);
    }
    for (account, txid) in [(1, "commit"), (2, "abort"), (3, "open")] {
        // Each by a manager that is gone afterwards, as its node is.
        prepare(&*bank.manager(), &bank.branch(txid), &bank.add(account, 5)).await;
    }
    let unknown = bank.branch("unknown");
    let work = bank.statements(&["INSERT INTO account VALUES (4, 1)"]);
    prepare(&*bank.manager(), &unknown, &work).await;
    let foreign = TransactionName::new(quorate_base::ClusterId(0xf0), 1, "foreign").unwrap();
    let foreign = BranchName::new(foreign, bank.name(), "b1").unwrap();
    bank.run("INSERT INTO account VALUES (5, 1)").await;
    bank.prepare_by_hand(&foreign, 5, &fence::insert(&foreign)).await;

    let manager = bank.manager();
    let recovery = Recovery::new(vec![manager.clone()], decisions.clone(), quick());
    let scanned = recovery.scan(&*manager).await.unwrap();
    let expected = Scanned { found: 4, committed: 1, rolled_back: 2, undecided: 1, ..scanned };
    assert_eq!((scanned, scanned.unknown, scanned.heuristic), (expected, 0, 0));
    assert_eq!(*decisions.alarms.lock(), []);
    assert_eq!((bank.balance(1).await, bank.balance(2).await), (105, 100));
    assert_eq!(bank.prepared().await, 2, "the foreign one, and the one without a decision");
    // A prepare that comes after the rollback is refused.
    for txid in ["abort", "unknown"] {
        let late = manager.prepare(&bank.branch(txid), &bank.add(2, 5), soon()).await;
        assert_eq!(late, Vote::No(Refusal::Over { applied: false }));
    }
    decisions.decide("open", Decision::Commit);
    let scanned = recovery.scan(&*manager).await.unwrap();
    assert_eq!((scanned.found, scanned.committed), (1, 1));
    assert_eq!((bank.balance(3).await, bank.prepared().await), (105, 1));
    let counts = recovery.counts();
    assert_eq!((counts.scans, counts.committed, counts.rolled_back), (2, 2, 2));
    bank.run(&bank.by_hand(false, &foreign)).await;
}

/// Its coordinator may be writing the record; of anybody else's nothing would be waited for here.
pub async fn a_bundle_without_a_record_is_left_for_a_moment(bank: impl Bank) {
    let (manager, decisions) = (bank.manager(), Arc::new(Decisions::default()));
    let unheard = Duration::from_millis(400);
    let hour = Duration::from_secs(3_600);
    let settings = RecoverySettings { unheard, interval: hour, bundles: hour, ..quick() };
    let recovery = Recovery::new(vec![manager.clone()], decisions.clone(), settings);
    prepare(&*bank.manager(), &bank.branch("~bundle"), &bank.add(1, 5)).await;
    prepare(&*bank.manager(), &bank.branch("other"), &bank.add(2, 5)).await;
    let scanned = recovery.scan(&*manager).await.unwrap();
    assert_eq!((scanned.found, scanned.undecided, scanned.rolled_back), (2, 1, 1));
    let again = scanned.again.unwrap();
    assert!(again > Duration::ZERO && again <= unheard, "{again:?}");
    let ended = Instant::now() + Duration::from_secs(10);
    let rolled_back = async |n: u64| {
        while recovery.counts().rolled_back < n {
            assert!(Instant::now() < ended, "{:?}", recovery.counts());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let all = async {
        rolled_back(2).await;
        // The next scan is in an hour, but for a lost node.
        prepare(&*bank.manager(), &bank.branch("~next"), &bank.add(3, 5)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let scans = recovery.counts().scans;
        recovery.hurry();
        rolled_back(3).await;
        assert!(recovery.counts().scans >= scans + 2, "it was met before it was rolled back");
    };
    tokio::select! {
        () = recovery.run() => unreachable!("it runs until it is dropped"),
        () = all => {}
    }
    assert_eq!(bank.prepared().await, 0);

    // A coordinator that hangs hurries nobody: where bundles may be it is looked more often.
    let settings = RecoverySettings { bundles: Duration::from_millis(50), ..settings };
    let recovery = Recovery::new(vec![manager], decisions, settings);
    let all = async {
        while recovery.counts().scans == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        prepare(&*bank.manager(), &bank.branch("~hung"), &bank.add(1, 5)).await;
        while recovery.counts().rolled_back == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = recovery.run() => unreachable!("it runs until it is dropped"),
        all = tokio::time::timeout(Duration::from_secs(10), all) => all.unwrap(),
    }
    assert_eq!(bank.prepared().await, 0);
}

pub async fn recovery_waits_for_a_participant_that_is_away(bank: impl Bank) {
    let decisions = Arc::new(Decisions::default());
    decisions.decide("t1", Decision::Commit);
    prepare(&*bank.manager(), &bank.branch("t1"), &bank.add(1, 5)).await;
    let proxy = Proxy::start(bank.port());
    proxy.refuse(true);
    let recovery = Recovery::new(vec![bank.manager_at(proxy.port())], decisions, quick());
    let watched = async {
        while recovery.counts().failed_scans < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.refuse(false);
        let ended = Instant::now() + Duration::from_secs(10);
        while recovery.counts().committed == 0 {
            assert!(Instant::now() < ended, "{:?}", recovery.counts());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = recovery.run() => unreachable!("it runs until it is dropped"),
        () = watched => {}
    }
    assert_eq!((bank.balance(1).await, bank.prepared().await), (105, 0));
}

/// Prepared once more after the end was recorded, as in a database that was set back.
pub async fn what_is_prepared_again_is_committed_or_left_to_people(bank: impl Bank) {
    let decisions = Arc::new(Decisions::default());
    for (txid, decision) in [("back", Decision::Committed), ("seen-to", Decision::SeenTo)] {
        decisions.decide(txid, decision);
    }
    for (account, txid) in [(1, "back"), (2, "seen-to")] {
        prepare(&*bank.manager(), &bank.branch(txid), &bank.add(account, 5)).await;
    }
    let manager = bank.manager();
    let recovery = Recovery::new(vec![manager.clone()], decisions.clone(), quick());
    let scanned = recovery.scan(&*manager).await.unwrap();
    assert_eq!((scanned.found, scanned.committed, scanned.heuristic), (2, 1, 1), "{scanned:?}");
    assert_eq!((bank.balance(1).await, bank.balance(2).await), (105, 100));
    let (seen_to, alarm) = (bank.branch("seen-to"), Heuristic::CameBack);
    assert_eq!(*decisions.alarms.lock(), [(seen_to.clone(), alarm)]);
    assert_eq!(state(&*manager, &seen_to).await, State::Prepared);
    // Whoever acknowledges that and leaves it so is told again.
    assert!(recovery.acknowledge(&seen_to));
    recovery.scan(&*manager).await.unwrap();
    assert_eq!((recovery.alarms().len(), decisions.alarms.lock().len()), (1, 2));
    let ended = Instant::now() + Duration::from_secs(5);
    while !bank.try_run(&bank.by_hand(true, &seen_to)).await {
        assert!(Instant::now() < ended, "the branch stays with its session");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let scanned = recovery.scan(&*manager).await.unwrap();
    assert_eq!((scanned.found, decisions.alarms.lock().len()), (0, 2));
    assert_eq!((bank.balance(2).await, bank.prepared().await), (105, 0));
}

/// Its coordinator ends the branch after the scan found it and before the record is read.
struct Quick(Arc<dyn ResourceManager>);

impl Oracle for Quick {
    fn decision<'a>(
        &'a self,
        branch: &'a BranchName,
        _orphaned: bool,
    ) -> Answer<'a, Result<Decision, String>> {
        Box::pin(async move {
            applied(&self.0.commit(branch, soon()).await);
            self.0.forget(std::slice::from_ref(branch), soon()).await.unwrap();
            let seen_to = branch.transaction().txid() == "seen-to";
            Ok(if seen_to { Decision::SeenTo } else { Decision::Committed })
        })
    }

    fn alarm(&self, branch: &BranchName, heuristic: Heuristic) {
        panic!("{branch}: {heuristic}, though it ended as decided");
    }
}

pub async fn what_ends_during_a_scan_is_left_alone(bank: impl Bank) {
    let manager = bank.manager();
    for (account, txid) in [(1, "proven"), (2, "seen-to")] {
        prepare(&*manager, &bank.branch(txid), &bank.add(account, 5)).await;
    }
    let quick_oracle = Arc::new(Quick(manager.clone()));
    let recovery = Recovery::new(vec![manager.clone()], quick_oracle, quick());
    let scanned = recovery.scan(&*manager).await.unwrap();
    assert_eq!((scanned.found, scanned.undecided, scanned.heuristic), (2, 2, 0), "{scanned:?}");
    assert_eq!((bank.balance(1).await, bank.balance(2).await), (105, 105));
}

pub async fn an_alarm_stays_until_it_is_acknowledged(bank: impl Bank) {
    let manager = bank.manager();
    let recovery = Recovery::new(vec![manager.clone()], Arc::new(Decisions::default()), quick());
    let b = bank.branch("t1");
    prepare(&*bank.manager(), &b, &bank.add(1, 5)).await;
    let ended = Instant::now() + Duration::from_secs(5);
    while !bank.try_run(&bank.by_hand(false, &b)).await {
        assert!(Instant::now() < ended, "the branch stays with its session");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let outcome = recovery.settle(&*manager, &b, true, soon()).await;
    assert_eq!(outcome, Outcome::Heuristic(Heuristic::RolledBack));
    for _ in 0..2 {
        recovery.scan(&*manager).await.unwrap();
        let alarms = recovery.alarms();
        assert_eq!((alarms.len(), recovery.counts().alarms), (1, 1));
        assert_eq!((&alarms[0].branch, alarms[0].heuristic), (&b, Heuristic::RolledBack));
    }
    assert!(recovery.acknowledge(&b) && !recovery.acknowledge(&b));
    assert_eq!(recovery.alarms(), []);
    // It was not the acknowledgement that mended it.
    recovery.settle(&*manager, &b, true, soon()).await;
    assert_eq!(recovery.alarms().len(), 1);
    assert_eq!(state(&*manager, &b).await, State::Absent);
    let fine = bank.branch("t2");
    prepare(&*manager, &fine, &bank.add(1, 5)).await;
    applied(&recovery.settle(&*manager, &fine, true, soon()).await);
    assert_eq!((recovery.alarms().len(), fine.transaction().cluster()), (1, CLUSTER));
}
