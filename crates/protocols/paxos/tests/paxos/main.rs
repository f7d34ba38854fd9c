//! The synod against every interleaving within bounds; Multi-Paxos against the suite that every
//! engine passes, against scripts, hand-made messages and hostile peers; both against their
//! deliberate bugs; and the cost model against the count.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod by_hand;
mod canaries;
mod cost;
mod hostile;
mod model;
mod partitions;
mod synod_cost;
mod transcripts;

use quorate_base::Instant;
use quorate_paxos::{Canary, MultiPaxos};
use quorate_replicated_log::conformance::{damage, long_answers, patience};
use quorate_replicated_log::conformance::{
    random_schedule, random_schedule_with_clocks, random_schedule_with_leases,
    random_schedule_with_quorums, random_schedule_with_seal,
};
use quorate_replicated_log::{Config, QuorumSpec, Recovered, ReplicatedLog};
use std::cell::Cell;

thread_local! {
    /// The deliberate bug of replicas that this thread makes.
    static CANARY: Cell<Option<Canary>> = const { Cell::new(None) };
}

fn paxos(config: Config, now: Instant, recovered: Recovered) -> Box<dyn ReplicatedLog> {
    Box::new(MultiPaxos::with_canary(config, now, recovered, CANARY.get()))
}

#[test]
fn random_schedules_are_safe_and_heal() {
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(300);
    let mut committed = 0;
    for seed in 0..seeds {
        // A failing seed must be told.
        let run = std::panic::catch_unwind(|| random_schedule(paxos, seed));
        committed += run.unwrap_or_else(|_| panic!("seed {seed} failed"));
    }
    assert!(committed > seeds * 20, "the schedules get something done: {committed}");
}

/// Groups of five: four elect a leader, and two are enough to commit.
fn flexible(config: Config, now: Instant, recovered: Recovered) -> Box<dyn ReplicatedLog> {
    let quorums = QuorumSpec::flexible(5, 4, 2);
    Box::new(MultiPaxos::with_canary(config, now, recovered, None).with_quorums(quorums))
}

#[test]
fn random_schedules_with_flexible_quorums_are_safe_and_heal() {
    let mut committed = 0;
    for seed in 0..200 {
        let run = std::panic::catch_unwind(|| random_schedule_with_quorums(flexible, seed));
        committed += run.unwrap_or_else(|_| panic!("seed {seed} failed"));
    }
    assert!(committed > 2_000, "the schedules get something done: {committed}");
}

#[test]
fn random_schedules_with_leases_are_safe_and_heal() {
    for seed in 0..300 {
        let run = std::panic::catch_unwind(|| random_schedule_with_leases(paxos, seed));
        assert!(run.is_ok(), "seed {seed} failed");
    }
}

/// The schedules would notice a lease that is too long: clocks that drift more than was declared
/// make some read stale.
#[test]
fn a_lease_beyond_the_declared_drift_is_found_out() {
    let is_stale = |seed: &u64| {
        let run = || random_schedule_with_clocks(paxos, *seed, 0, 4_000_000);
        std::panic::catch_unwind(run).is_err()
    };
    assert!((0..300).any(|seed| is_stale(&seed)));
}

/// An epoch ends once, and nothing follows it, whatever happens meanwhile.
#[test]
fn random_schedules_with_a_seal_are_safe_and_end() {
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(200);
    let mut committed = 0;
    for seed in 0..seeds {
        let run = std::panic::catch_unwind(|| random_schedule_with_seal(paxos, seed));
        committed += run.unwrap_or_else(|_| panic!("seed {seed} failed"));
    }
    assert!(committed > seeds * 10, "the schedules get something done: {committed}");
}

fn patient(config: Config, now: Instant, recovered: Recovered) -> Box<dyn ReplicatedLog> {
    paxos(patience::patient(config), now, recovered)
}

#[test]
fn a_silent_leader_is_missed_when_patience_ends() {
    patience::a_silent_leader_is_missed(patient);
}

#[test]
fn a_long_answer_is_waited_for() {
    (0..40).for_each(|seed| long_answers::a_long_answer_is_waited_for(paxos, seed));
    (0..80).for_each(|seed| long_answers::a_long_answer_is_not_interrupted(paxos, seed));
}

#[test]
fn random_schedules_of_patient_groups_are_safe_and_heal() {
    for seed in 0..200 {
        let run = std::panic::catch_unwind(|| random_schedule(patient, seed));
        assert!(run.is_ok(), "seed {seed} failed");
        let run = std::panic::catch_unwind(|| random_schedule_with_leases(patient, seed));
        assert!(run.is_ok(), "seed {seed} with leases failed");
    }
}

#[test]
fn disks_that_are_each_damaged_elsewhere_lose_nothing() {
    (0..20).for_each(|seed| damage::each_disk_lost_others(paxos, seed));
}

#[test]
fn nobody_goes_on_without_what_nobody_can_read() {
    (0..20).for_each(|seed| damage::nobody_goes_on_without_what_nobody_can_read(paxos, seed));
}

#[test]
fn a_lost_state_takes_nothing_of_the_log_with_it() {
    for seed in 0..20 {
        let two_suffice = damage::a_lost_state_takes_nothing_of_the_log_with_it(paxos, seed);
        assert!(two_suffice, "seed {seed}: the two have everything between them");
    }
}

#[test]
fn what_a_lost_state_stood_for_is_not_denied() {
    (0..20).for_each(|seed| damage::what_a_lost_state_stood_for_is_not_denied(paxos, seed));
}

#[test]
fn a_lost_state_and_a_lost_round_are_made_up_for() {
    (0..20).for_each(|seed| damage::a_lost_state_and_a_lost_round_are_made_up_for(paxos, seed));
}
