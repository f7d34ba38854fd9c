//! Writes go on wherever some node reaches a quorum in both directions: every partition of three
//! and of five nodes, and those that have a name, with the draws of one seed for those of five and
//! of several for the others. `quorate lab partitions` shows them, with as many as one likes.

use crate::paxos;
use quorate_replicated_log::conformance::partitions::{PATIENCE, Partition, every, named};
use std::time::Duration;

/// Runs all with the draws of so many seeds: the longest time without a write of each seed.
fn waits(cases: &[Partition], seeds: u64) -> Vec<Duration> {
    let wait = |seed| {
        let served = cases.iter().map(|case| {
            let outcome = case.run_within(PATIENCE, paxos, seed);
            assert!(outcome.is_kept(), "{}, seed {seed}: {outcome:?}", case.name());
            outcome.served_after.filter(|_| outcome.promised).unwrap_or_default()
        });
        served.max().unwrap_or_default()
    };
    (1..=seeds).map(wait).collect()
}

/// So many for the smaller cases.
const SEEDS: u64 = 20;

/// How many for those of five nodes: the variable `QUORATE_PARTITION_SEEDS`, or one.
fn seeds() -> u64 {
    let set = std::env::var("QUORATE_PARTITION_SEEDS").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}

#[test]
fn every_partition_of_three_nodes() {
    let mut waits = waits(&every(3), SEEDS);
    println!("{waits:?}");
    waits.dedup();
    assert!(waits.len() > 1, "seeds draw other timeouts");
}

#[test]
fn every_partition_of_five_nodes() {
    let cases = every(5);
    assert_eq!(cases.len(), 5 * 9_608);
    let waits = waits(&cases, seeds());
    println!("{waits:?}");
}

#[test]
fn partitions_with_a_name() {
    for (name, case) in named() {
        println!("{name}: {:?}", waits(&[case], SEEDS).into_iter().max());
    }
}
