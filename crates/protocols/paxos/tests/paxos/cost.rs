//! What Multi-Paxos costs (docs/raft-and-paxos.md): the suite of both engines counts.

use quorate_replicated_log::conformance::{cost, elections};

#[test]
fn a_batch_costs_what_the_formula_says() {
    cost::a_batch(crate::paxos);
}

#[test]
fn batches_do_not_wait_for_each_other() {
    cost::a_pipeline(crate::paxos);
}

#[test]
fn reads_cost_one_round_however_many_there_are() {
    cost::reads_at_the_leader(crate::paxos);
}

#[test]
fn a_read_at_a_follower_costs_two_messages_more() {
    cost::a_read_at_a_follower(crate::paxos);
}

#[test]
fn an_uncontested_election_costs_what_the_formula_says() {
    cost::an_uncontested_election(crate::paxos);
}

#[test]
fn a_lease_costs_nothing_and_idleness_little() {
    cost::a_lease_and_an_idle_interval(crate::paxos);
}

#[test]
fn catching_up_costs_what_is_lacked() {
    cost::catching_up(crate::paxos);
}

#[test]
fn an_election_that_finds_unchosen_slots_costs_what_the_formula_says() {
    elections::unchosen_slots(crate::paxos);
}

#[test]
fn a_long_answer_has_the_others_told_to_wait() {
    elections::a_long_answer(crate::paxos);
}
