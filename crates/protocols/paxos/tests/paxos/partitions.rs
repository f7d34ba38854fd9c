//! Writes go on wherever some node reaches a quorum in both directions: every partition of three
//! and of five nodes, and those that have a name. `quorate lab partitions` shows them, with as many
//! seeds as one likes.

use crate::paxos;
use quorate_replicated_log::conformance::partitions::{every, named};

#[test]
fn every_partition_of_three_nodes() {
    for case in every(3) {
        let outcome = case.run(paxos);
        assert!(outcome.is_kept(), "{}: {outcome:?}", case.name());
    }
}

#[test]
fn every_partition_of_five_nodes() {
    let cases = every(5);
    assert_eq!(cases.len(), 5 * 9_608);
    for case in cases {
        let outcome = case.run(paxos);
        assert!(outcome.is_kept(), "{}: {outcome:?}", case.name());
    }
}

#[test]
fn partitions_with_a_name() {
    for (name, case) in named() {
        let outcome = case.run(paxos);
        assert!(outcome.is_kept(), "{name}: {outcome:?}");
    }
}
