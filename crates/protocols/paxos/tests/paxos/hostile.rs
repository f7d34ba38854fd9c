//! Peers that lie, and drivers' inputs in any order: nothing panics, what is committed stays, and
//! no word is broken that left the replica.

use crate::{CANARY, paxos};
use proptest::prelude::*;
use quorate_base::Rng;
use quorate_paxos::Canary;
use quorate_replicated_log::conformance::hostile;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a replica did wrong, and after what.
fn heard(lease: Option<u32>, steps: &[u64]) -> Result<(), String> {
    let mut told = Vec::new();
    let run = AssertUnwindSafe(|| hostile::run(paxos, lease, steps, &mut told));
    let result = catch_unwind(run).unwrap_or_else(|_| Err("it panicked".to_owned()));
    result.map_err(|wrong| format!("{wrong}, after\n  {}", told.join("\n  ")))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 6_000,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn nothing_a_peer_says_panics_or_breaks_a_word(
        lease in prop::option::of(0..1_000u32),
        steps in prop::collection::vec(any::<u64>(), 1..80),
    ) {
        let result = heard(lease, &steps);
        prop_assert!(result.is_ok(), "{}", result.unwrap_err());
    }
}

#[test]
fn an_outsider_disturbs_and_breaks_nothing() {
    let mut committed = 0;
    for seed in 0..60 {
        let run = || hostile::an_outsider_disturbs_and_breaks_nothing(paxos, seed);
        committed += catch_unwind(run).unwrap_or_else(|_| panic!("seed {seed} failed"));
    }
    assert!(committed > 120, "something gets done under fire: {committed}");
}

/// The witness would notice: these bugs break a word, or a promise, by what peers say alone.
#[test]
fn broken_words_are_noticed() {
    let bugs = [
        Canary::AcceptLowerBallot,
        Canary::PromiseLowerBallot,
        Canary::ForgetPromise,
        Canary::ReplyBeforeWritten,
    ];
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let noticed = |bug: &Canary| {
        CANARY.set(Some(*bug));
        let mut rng = Rng::new(7);
        let mut breaks = || {
            let steps: Vec<u64> = (0..80).map(|_| rng.next_u64()).collect();
            heard(None, &steps).is_err()
        };
        let found = (0..3_000).any(|_| breaks());
        CANARY.set(None);
        found
    };
    let missed: Vec<Canary> = bugs.into_iter().filter(|bug| !noticed(bug)).collect();
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
