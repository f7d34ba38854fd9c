//! Planted bugs are caught by the random histories.

use crate::random::{run, steps};
use crate::world::InMemory;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use quorate_mvcc::{Bug, Canary, MemoryEngine};

#[test]
fn every_planted_bug_is_caught() {
    for bug in [Bug::AppliedIndexApart, Bug::CompactionDropsLatest, Bug::OldRangeForgetsDeleted] {
        let config = ProptestConfig {
            cases: 2_000,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..Default::default()
        };
        let found = TestRunner::new(config).run(&steps(), |steps| {
            run(InMemory(MemoryEngine::new()), Canary::of(bug), &steps);
            Ok(())
        });
        assert!(matches!(found, Err(TestError::Fail(..))), "{bug:?} was not caught");
    }
}
