//! What Raft costs (docs/raft-and-paxos.md): the suite of both engines counts.

use quorate_replicated_log::conformance::{cost, elections};

#[test]
fn a_batch_costs_what_the_formula_says() {
    cost::a_batch(crate::raft);
}

#[test]
fn batches_do_not_wait_for_each_other() {
    cost::a_pipeline(crate::raft);
}

#[test]
fn reads_cost_one_round_however_many_there_are() {
    cost::reads_at_the_leader(crate::raft);
}

#[test]
fn a_read_at_a_follower_costs_two_messages_more() {
    cost::a_read_at_a_follower(crate::raft);
}

#[test]
fn an_uncontested_election_costs_what_the_formula_says() {
    cost::an_uncontested_election(crate::raft);
}

#[test]
fn a_lease_costs_nothing_and_idleness_little() {
    cost::a_lease_and_an_idle_interval(crate::raft);
}

#[test]
fn catching_up_costs_what_is_lacked() {
    cost::catching_up(crate::raft);
}

#[test]
fn an_election_of_one_that_lags_costs_what_the_formula_says() {
    elections::a_candidate_that_lags(crate::raft);
}
