//! What Multi-Paxos and the synod cost (docs/raft-and-paxos.md): the suite of both engines counts.

use quorate_base::{Ballot, NodeId};
use quorate_paxos::synod::{Acceptor, Learner, Phase, Proposer};
use quorate_replicated_log::conformance::cost;

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

/// What single-decree Paxos costs with `n` acceptors and `m` proposers, one after the other: their
/// messages and forced writes, and what each proposed in the end.
fn synod(n: u64, m: u64) -> (u64, u64, Vec<u64>) {
    let quorum = n as usize / 2 + 1;
    let mut acceptors: Vec<Acceptor<u64>> = (0..n).map(|_| Acceptor::default()).collect();
    let (mut messages, mut writes, mut proposed) = (0, 0, Vec::new());
    let mut learner = Learner::new(quorum);
    for proposer in 1..=m {
        let ballot = Ballot { round: proposer, node: NodeId(proposer) };
        let mut attempt = Proposer::propose(ballot, 100 + proposer, quorum);
        for (id, acceptor) in (1..).zip(&mut acceptors) {
            let promise = acceptor.prepare(ballot).unwrap();
            (messages, writes) = (messages + 2, writes + 1);
            attempt.promised(NodeId(id), promise);
        }
        assert_eq!(attempt.phase(), Phase::Accept);
        for (id, acceptor) in (1..).zip(&mut acceptors) {
            acceptor.accept(ballot, *attempt.value()).unwrap();
            (messages, writes) = (messages + 2, writes + 1);
            attempt.accepted(NodeId(id));
            learner.learn(NodeId(id), ballot, attempt.value());
        }
        assert_eq!(attempt.phase(), Phase::Chosen);
        proposed.push(*attempt.value());
    }
    assert_eq!(learner.chosen(), proposed.first());
    (messages, writes, proposed)
}

#[test]
fn the_synod_costs_what_the_formula_says() {
    for n in [1, 3, 5, 7] {
        for m in 1..=4 {
            let (messages, writes, proposed) = synod(n, m);
            assert_eq!((messages, writes), (4 * n * m, 2 * n * m), "n = {n}, m = {m}");
            // Values V1 … Vm go in; all proposers end with the first, which is the chosen B.
            assert_eq!(proposed, vec![101; m as usize]);
        }
    }
}
