//! A connection that is lost at every step of the protocol.
//!
//! A proxy cuts at the first request, the second, and so on, each before the server gets it and
//! after the server has answered it, until an operation gets through without being cut. After
//! each, what the manager said must agree with what the database did.

use crate::bank::{Bank, applied, prepare, soon, state};
use quorate_databases::{Cut, Proxy};
use quorate_resource_managers::{
    BranchName, Deadline, Heuristic, Outcome, ResourceManager, State, Vote,
};
use std::time::Duration;

/// No operation takes as many steps.
const MOST_STEPS: usize = 40;

/// Runs `operation` with a cut at every step, and returns how many there were. It gets a fresh
/// transaction id each time, and tells the proxy of the cut when its interesting part begins.
async fn at_every_step(proxy: &Proxy, mut operation: impl AsyncFnMut(&str, Cut)) -> usize {
    let mut cuts = 0;
    for (kind, cut) in [("r", Cut::Request as fn(usize) -> Cut), ("a", Cut::Answer)] {
        for step in 0.. {
            assert!(step < MOST_STEPS, "it never gets through");
            operation(&format!("{kind}{step}"), cut(step)).await;
            if !proxy.has_cut() {
                break;
            }
            cuts += 1;
        }
        // A cut that was not reached must not hit the next operation.
        proxy.cut(Cut::Nothing);
    }
    cuts
}

/// Finishes a branch through a manager that is not cut off, until it is certain.
async fn settle(manager: &dyn ResourceManager, branch: &BranchName, commit: bool) -> Outcome {
    // MariaDB may lose an order that comes while it ends the session that holds the branch.
    tokio::time::sleep(Duration::from_millis(15)).await;
    let deadline = Deadline::within(Duration::from_secs(10));
    loop {
        let outcome = match commit {
            true => manager.commit(branch, soon()).await,
            false => manager.rollback(branch, soon()).await,
        };
        match outcome {
            Outcome::Unknown(doubt) => assert!(!deadline.left().is_zero(), "{doubt}"),
            outcome => return outcome,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// While a branch is prepared: the vote is never a false yes, and a rollback always settles it.
pub async fn while_preparing(bank: impl Bank) {
    let (proxy, direct) = (Proxy::start(bank.port()), bank.manager());
    let mut expected = 100;
    let cuts = at_every_step(&proxy, async |txid, cut| {
        let manager = bank.manager_at(proxy.port());
        proxy.cut(cut);
        let vote = manager.prepare(&bank.branch(txid), &bank.add(1, 5), soon()).await;
        if vote == Vote::Yes {
            assert_eq!(state(&*direct, &bank.branch(txid)).await, State::Prepared, "{txid}");
            drop(manager);
            applied(&settle(&*direct, &bank.branch(txid), true).await);
            expected += 5;
        } else {
            assert!(matches!(vote, Vote::No(_) | Vote::Unknown(_)), "{txid}: {vote:?}");
            assert_eq!(
                settle(&*direct, &bank.branch(txid), false).await,
                Outcome::NotThere,
                "{txid}"
            );
        }
        assert_eq!(bank.balance(1).await, expected, "{txid}: {vote:?}");
    });
    assert!(cuts.await > 8, "the cuts were made");
    assert_eq!(bank.prepared().await, 0);
}

/// While it is committed: with the very connection that prepared it, and with a new one.
pub async fn while_committing(bank: impl Bank) {
    let (proxy, direct) = (Proxy::start(bank.port()), bank.manager());
    for same in [true, false] {
        let before = bank.balance(1).await;
        let mut committed = 0;
        let cuts = at_every_step(&proxy, async |txid, cut| {
            let txid = format!("{txid}-{same}");
            let manager = bank.manager_at(proxy.port());
            prepare(&*manager, &bank.branch(&txid), &bank.add(1, 5)).await;
            let other = bank.manager_at(proxy.port());
            proxy.cut(cut);
            let outcome = match same {
                true => manager.commit(&bank.branch(&txid), soon()).await,
                false => {
                    drop(manager);
                    other.commit(&bank.branch(&txid), soon()).await
                }
            };
            committed += 1;
            if !matches!(outcome, Outcome::Applied(_)) {
                assert!(matches!(outcome, Outcome::Unknown(_)), "{txid}: {outcome:?}");
                applied(&settle(&*direct, &bank.branch(&txid), true).await);
            }
            assert_eq!(bank.balance(1).await, before + 5 * committed, "{txid}");
        });
        assert!(cuts.await > 1, "the cuts were made");
    }
    assert_eq!(bank.prepared().await, 0);
}

/// While it is rolled back.
pub async fn while_rolling_back(bank: impl Bank) {
    let (proxy, direct) = (Proxy::start(bank.port()), bank.manager());
    let cuts = at_every_step(&proxy, async |txid, cut| {
        let manager = bank.manager_at(proxy.port());
        prepare(&*manager, &bank.branch(txid), &bank.add(1, 5)).await;
        proxy.cut(cut);
        let outcome = manager.rollback(&bank.branch(txid), soon()).await;
        assert!(matches!(outcome, Outcome::NotThere | Outcome::Unknown(_)), "{txid}: {outcome:?}");
        assert_eq!(settle(&*direct, &bank.branch(txid), false).await, Outcome::NotThere);
        let late = direct.prepare(&bank.branch(txid), &bank.add(1, 5), soon()).await;
        assert!(matches!(late, Vote::No(_)), "{late:?}");
        let commit = direct.commit(&bank.branch(txid), soon()).await;
        assert_eq!(commit, Outcome::Heuristic(Heuristic::RolledBack));
    });
    assert!(cuts.await > 3, "the cuts were made");
    assert_eq!((bank.balance(1).await, bank.prepared().await), (100, 0));
}

/// A server that falls silent at the last step is waited for until the deadline, and no longer.
pub async fn while_silent(bank: impl Bank, last_step: &'static str) {
    let (proxy, direct) = (Proxy::start(bank.port()), bank.manager());
    let manager = bank.manager_at(proxy.port());
    manager.check(soon()).await.unwrap();
    proxy.cut(Cut::SilenceAt(last_step));
    let deadline = Deadline::within(Duration::from_millis(1000));
    let vote = manager.prepare(&bank.branch("t1"), &bank.add(1, 5), deadline).await;
    // PostgreSQL gives the transaction up at that moment too, and may be the first to say so.
    let gave_up = format!("{vote:?}").contains("idle-in-transaction timeout");
    assert!(matches!(vote, Vote::Unknown(_)) || gave_up, "{vote:?}");
    assert!(deadline.left() < Duration::from_millis(50) && proxy.has_cut());
    proxy.close_all();
    assert_eq!(settle(&*direct, &bank.branch("t1"), false).await, Outcome::NotThere);
    assert_eq!(bank.prepared().await, 0);
}
