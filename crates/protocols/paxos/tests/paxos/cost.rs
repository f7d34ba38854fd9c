//! docs/paxos.md says what Multi-Paxos costs; here it is counted.

use core::time::Duration;
use quorate_replicated_log::conformance::{Cluster, Counts};

/// A cluster of `n` with a leader and nothing under way.
fn settled(n: u64) -> (Cluster, u64) {
    let mut cluster = Cluster::new(crate::paxos, n, n, n);
    cluster.run_for(Duration::from_secs(2));
    let leader = cluster.leader().expect("a leader");
    cluster.counts = Counts::default();
    (cluster, leader)
}

/// Runs for less than a heartbeat, or not at all counts heartbeats.
fn count(cluster: &mut Cluster, what: impl FnOnce(&mut Cluster)) -> Counts {
    cluster.counts = Counts::default();
    what(cluster);
    cluster.run_for(Duration::from_millis(15));
    cluster.counts
}

#[test]
fn a_batch_costs_what_the_formula_says() {
    for n in [1, 3, 5, 7] {
        for batch in [1, 2] {
            let (mut cluster, leader) = settled(n);
            let before = cluster.chosen_up_to();
            let c = count(&mut cluster, |cluster| cluster.propose(leader, batch));
            assert_eq!(cluster.chosen_up_to(), before + batch as u64);
            assert_eq!((c.appends, c.append_replies), (n - 1, n - 1), "n = {n}");
            assert_eq!((c.commit_notices, c.writes), (n - 1, n), "n = {n}");
        }
    }
}

#[test]
fn reads_cost_one_round_however_many_there_are() {
    for n in [3, 5] {
        let (mut cluster, leader) = settled(n);
        let ready = cluster.reads_ready();
        let c = count(&mut cluster, |cluster| {
            cluster.read(leader);
            (0..99).for_each(|_| cluster.read(leader));
        });
        assert_eq!(cluster.reads_ready(), ready + 100);
        // One round for the first, one for all that came while it was under way; and at most one
        // regular round of heartbeats falls into the time.
        assert!(c.heartbeats >= 4 * (n - 1) && c.heartbeats <= 6 * (n - 1), "{c:?}");
        assert_eq!(c.writes, 0);
    }
}

#[test]
fn a_read_at_a_follower_costs_two_messages_more() {
    let (mut cluster, leader) = settled(3);
    let ready = cluster.reads_ready();
    let c = count(&mut cluster, |cluster| cluster.read(leader % 3 + 1));
    assert_eq!((c.read_indexes, c.writes), (2, 0));
    assert_eq!(cluster.reads_ready(), ready + 1);
}

#[test]
fn an_uncontested_election_costs_what_the_formula_says() {
    for n in [3, 5, 7] {
        let mut cluster = Cluster::new(crate::paxos, n, n, n);
        // The first loses its patience before any other can.
        (2..=n).for_each(|id| cluster.crash(id));
        cluster.run_for(Duration::from_millis(55));
        (2..=n).for_each(|id| cluster.start(id));
        cluster.counts = Counts::default();
        while cluster.chosen_up_to() == 0 {
            cluster.run_for(Duration::from_millis(1));
        }
        // Whatever is still under way, but less than a heartbeat.
        cluster.run_for(Duration::from_millis(10));
        let c = cluster.counts;
        assert_eq!(c.votes, 4 * (n - 1), "n = {n}");
        assert_eq!((c.appends, c.append_replies, c.commit_notices), (n - 1, n - 1, n - 1));
        assert_eq!((c.heartbeats, c.writes), (0, 2 * n));
    }
}
