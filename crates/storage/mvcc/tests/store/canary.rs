//! Planted bugs are caught by the random histories.

use crate::random::{run, steps};
use crate::world::InMemory;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use quorate_mvcc::{Bug, Canary, MemoryEngine, Store};

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

/// A value in a snapshot is another than the one that was sent.
#[test]
fn a_snapshot_that_is_believed_is_caught() {
    let mut source = Store::open(MemoryEngine::new()).unwrap();
    let mut txn = source.begin();
    txn.put(Bytes::from_static(b"key"), Bytes::from_static(b"needle"), 0).unwrap();
    txn.commit(1).unwrap();
    let mut chunk = source.snapshot().next_chunk(1 << 20).unwrap().unwrap();
    let mut bytes = chunk.bytes.to_vec();
    let at = bytes.windows(6).position(|part| part == b"needle").unwrap();
    bytes[at] = b'n' + 1;
    chunk.bytes = bytes.into();
    let takes = |canary| {
        let store = Store::open_with(MemoryEngine::new(), canary).unwrap();
        store.receive().unwrap().write_chunk(chunk.clone()).is_ok()
    };
    assert!(!takes(Canary::NONE));
    assert!(takes(Canary::of(Bug::BelieveSnapshot)));
}
