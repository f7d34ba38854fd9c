//! Writes go on wherever some node reaches a quorum in both directions: every partition of three
//! nodes, every fortieth of five, and those that have a name. `quorate lab partitions` runs all.

use crate::raft;
use quorate_replicated_log::conformance::partitions::{every, named};

#[test]
fn every_partition_of_three_nodes() {
    for case in every(3) {
        let outcome = case.run(raft);
        assert!(outcome.is_kept(), "{}: {outcome:?}", case.name());
    }
}

#[test]
fn many_partitions_of_five_nodes() {
    for case in every(5).iter().step_by(40) {
        let outcome = case.run(raft);
        assert!(outcome.is_kept(), "{}: {outcome:?}", case.name());
    }
}

#[test]
fn partitions_with_a_name() {
    for (name, case) in named() {
        let outcome = case.run(raft);
        assert!(outcome.is_kept(), "{name}: {outcome:?}");
    }
}
