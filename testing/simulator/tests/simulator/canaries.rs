//! The simulator can fail: every deliberate bug is found within a bounded number of seeds.

use quorate_keyspace::canary::Bug as Keyspace;
use quorate_mvcc::Bug as Store;
use quorate_raft::Canary as Raft;
use quorate_simulator::{Canary, Options, run_many};
use std::fmt::Write;

/// Seeds within which each must be found.
const BOUND: u64 = 600;

/// What a whole cluster never shows, and Raft's own tests must find: an identity never comes back
/// after its removal, so that no session but the first exists; one node is added or removed at a
/// time, so that the majorities of old and new voters intersect anyway; and disturbing a leader
/// breaks no promise.
const OUT_OF_SIGHT: [Raft; 3] = [Raft::SkipSession, Raft::SingleQuorumInJoint, Raft::NoStickiness];

/// What is too rare for a test's bound: three leaders have to fail in a row, each at one of a few
/// moments (Raft, figure 8); an entry has to be overruled on a follower before the leader's commit
/// reaches it; a read's answer has to outlive two quick restarts of its asker; a hard state must be
/// the only thing of a recycled segment that nothing newer repeats; a leader has to be cut off just
/// when it has ended an epoch, and be asked while its lease lasts (the engines' own schedules show
/// it).
const RARE: [Canary; 5] = [
    Canary::Raft(Raft::CommitEarlierRound),
    Canary::Raft(Raft::CommitUnmatched),
    Canary::Raft(Raft::ReuseReadIds),
    Canary::Raft(Raft::ReadAfterSeal),
    Canary::Wal(quorate_wal::Canary::ForgetHardState),
];

fn canaries() -> Vec<Canary> {
    let keyspace = [
        Keyspace::ApplyRetriedRequest,
        Keyspace::InternalEntryConsumesRevision,
        Keyspace::RevokeLeavesKey,
        Keyspace::WatchSkipsAtResync,
        Keyspace::LeaseExpiresEarly,
        Keyspace::EmptyDeleteConsumesRevision,
    ];
    let store =
        [Store::AppliedIndexApart, Store::CompactionDropsLatest, Store::OldRangeForgetsDeleted];
    let wal = quorate_wal::Canary::ALL;
    let raft = Raft::ALL.iter().filter(|bug| !OUT_OF_SIGHT.contains(bug));
    let all = raft.map(|bug| Canary::Raft(*bug));
    let all = all.chain(wal.iter().map(|bug| Canary::Wal(*bug)));
    let all = all.chain(store.iter().map(|bug| Canary::Store(*bug)));
    let epochs = [quorate_driver::Canary::ForgetPromise, quorate_driver::Canary::DropTail];
    let all = all.chain(epochs.map(Canary::Driver));
    let all = all.chain(keyspace.iter().map(|bug| Canary::Keyspace(*bug)));
    all.filter(|canary| !RARE.contains(canary)).collect()
}

#[test]
fn every_deliberate_bug_is_found() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut table = format!("{:<48} {:>5}  what was violated\n", "bug", "seeds");
    let mut silent = Vec::new();
    for canary in canaries() {
        let options = Options { canary, ..Options::default() };
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
