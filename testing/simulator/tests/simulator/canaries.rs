//! The simulator can fail: every deliberate bug is found within a bounded number of seeds.

use quorate_keyspace::canary::Bug as Keyspace;
use quorate_paxos::Canary as Paxos;
use quorate_raft::Canary as Raft;
use quorate_replicated_log::Protocol;
use quorate_simulator::{Canary, Options, run_many};
use quorate_transactions::canary::Bug as Transactions;
use std::fmt::Write;

/// Seeds within which each must be found.
const BOUND: u64 = 600;

/// What a whole cluster never shows, and other tests must find: an identity never comes back after
/// its removal, so that no session but the first exists; one node is added or removed at a time, so
/// that the majorities of old and new voters intersect anyway; disturbing a leader breaks no
/// promise; no peer of the real code sends an entry of another ballot than it was asked for; a
/// part of a snapshot that is believed wrongly is found out by the whole's fingerprint; lists do
/// not show at how many revisions a branch was done; branches that wait in a circle are freed by a
/// deadline; no transaction has a database; and how long a change of protocols takes is judged in
/// calm runs alone (`switches.rs`).
const OUT_OF_SIGHT: [Canary; 9] = [
    Canary::Raft(Raft::SkipSession),
    Canary::Raft(Raft::SingleQuorumInJoint),
    Canary::Raft(Raft::NoStickiness),
    Canary::Raft(Raft::MendAnyBallot),
    Canary::Keyspace(Keyspace::BelieveSnapshot),
    Canary::Keyspace(Keyspace::CommitAtTwoRevisions),
    Canary::Keyspace(Keyspace::OlderWaits),
    Canary::Driver(quorate_driver::Canary::PersistLater),
    Canary::Transactions(Transactions::WithdrawStaked),
];

/// What is too rare for a test's bound: three leaders have to fail in a row, each at one of a few
/// moments (Raft, figure 8); an entry has to be overruled on a follower before the leader's commit
/// reaches it; a read's answer has to outlive two quick restarts of its asker; a candidate has to
/// have lost what one of those it asks never had, and another of them has; a hard state must be the
/// only thing of a recycled segment that nothing newer repeats; a leader has to be cut off just
/// when it has ended an epoch, and be asked while its lease lasts (the engines' own schedules show
/// it); a sync has to fail, and power right after it; a lease has to be kept alive with a new
/// leader while the old one's word that it ended is under way; and a follower has to lack just
/// those of a leader's entries that are of his own round, pull from another, and hear his late
/// heartbeat; or know them to be committed, and pull from one who led and reached almost nobody; or
/// pull from one who is behind, and be the last to hold what that one lacks. Of transactions:
/// a later attempt has to overtake a prepare; and a branch to stay prepared for longer than
/// anything is away.
const RARE: [Canary; 13] = [
    Canary::Raft(Raft::CommitEarlierRound),
    Canary::Raft(Raft::CommitUnmatched),
    Canary::Raft(Raft::ReuseReadIds),
    Canary::Raft(Raft::CutAtOneDenial),
    Canary::Raft(Raft::ReadAfterSeal),
    Canary::Raft(Raft::HeartbeatAfterPull),
    Canary::Raft(Raft::PullOverCommitted),
    Canary::Raft(Raft::PullBehind),
    Canary::Wal(quorate_wal::Canary::ForgetHardState),
    Canary::Wal(quorate_wal::Canary::RetrySync),
    Canary::Keyspace(Keyspace::ObeyDeposedLeader),
    Canary::Keyspace(Keyspace::OldEpochAccepted),
    Canary::Keyspace(Keyspace::PreparedDecidesAlone),
];

/// Of Paxos: a value of an overtaken leader has to arrive just when another is to be chosen; a
/// removed member to be shut down at once; changes of members to be found in the middle; leaders to
/// be overtaken in a row; or an epoch to end just then.
const RARE_ON_PAXOS: [Paxos; 7] = [
    Paxos::AcceptLowerBallot,
    Paxos::PartAtOnce,
    Paxos::IgnoreFoundMembers,
    Paxos::BelieveOwnSlots,
    Paxos::RepeatAnyLead,
    Paxos::GoOnAfterSeal,
    Paxos::ReadAfterSeal,
];

/// What is to be found, and on which protocol.
fn canaries() -> Vec<(Canary, Protocol)> {
    let mut all = Canary::all();
    all.retain(|bug| bug.concerns(Protocol::Raft));
    all.retain(|bug| !OUT_OF_SIGHT.contains(bug) && !RARE.contains(bug));
    let on_paxos = Paxos::ALL.into_iter().filter(|bug| !RARE_ON_PAXOS.contains(bug));
    let on_paxos = on_paxos.map(|bug| (Canary::Paxos(bug), Protocol::Paxos));
    all.into_iter().map(|bug| (bug, Protocol::Raft)).chain(on_paxos).collect()
}

#[test]
fn every_deliberate_bug_is_found() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut table = format!("{:<48} {:>5}  what was violated\n", "bug", "seeds");
    let mut silent = Vec::new();
    for (canary, protocol) in canaries() {
        let options = Options { canary, protocol, ..Options::default() };
        let summary = run_many(0..BOUND, &options, threads, |report| report.violation.is_none());
        let name = format!("{canary:?}");
        match summary.failures.first() {
            Some(report) => {
                let violation = report.violation.as_ref().unwrap();
                let line = format!("{name:<48} {:>5}  {}", summary.runs, violation.promise);
                println!("{line}");
                let _ = writeln!(table, "{line}");
            }
            None => {
                println!("{name:<48} silent");
                silent.push(name);
            }
        }
    }
    println!("{table}");
    assert!(silent.is_empty(), "not found within {BOUND} seeds: {silent:?}\n{table}");
}
