//! Correct code violates nothing, the same seed is the same run, and every fault really fires.

use quorate_replicated_log::Protocol;
use quorate_simulator::{Happening, Options, run, run_many};
use std::time::Duration;

fn seeds() -> u64 {
    let set = std::env::var("QUORATE_SIM_SEEDS").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(400)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// One test for all three facts about a set of seeds, for they are the same runs.
fn violate_nothing_and_every_fault_fires(protocol: Protocol) {
    let options = Options { protocol, ..Options::default() };
    let summary = run_many(0..seeds(), &options, threads(), |_| true);
    let failed: Vec<String> = summary
        .failures
        .iter()
        .take(10)
        .map(|report| format!("seed {}: {}", report.seed, report.violation.as_ref().unwrap()))
        .collect();
    assert!(failed.is_empty(), "{} failed:\n{}", summary.failures.len(), failed.join("\n"));
    println!("{:#?}", summary.counters);
    if summary.runs >= 400 {
        let missing: Vec<&str> = summary.counters.missing().iter().map(|h| h.name()).collect();
        assert!(missing.is_empty(), "in {} runs never happened: {missing:?}", summary.runs);
    }
    let given_up = summary.counters.get(Happening::SearchGivenUp);
    assert!(given_up * 3 < summary.runs, "{given_up} of {} searches were given up", summary.runs);
}

#[test]
fn seeds_of_raft_violate_nothing_and_every_fault_fires() {
    violate_nothing_and_every_fault_fires(Protocol::Raft);
}

#[test]
fn seeds_of_paxos_violate_nothing_and_every_fault_fires() {
    violate_nothing_and_every_fault_fires(Protocol::Paxos);
}

/// Here an unanswered request could have made another's deletion, and once was taken for its
/// author.
#[test]
fn who_deleted_is_judged_right() {
    let report = run(2_800, &Options::default());
    assert!(report.violation.is_none(), "{:?}", report.violation);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let options = Options { duration: Duration::from_secs(10), ..Options::default() };
    let mut hashes = Vec::new();
    for seed in 0..20 {
        let (first, second) = (run(seed, &options), run(seed, &options));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!(first.counters, second.counters, "seed {seed}");
        hashes.push(first.trace_hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 20, "different seeds are different runs");
}
