//! What a new leader has to be told does not fit in one message, and takes longer than anybody
//! waits for a leader.

use super::cluster::{Cluster, ELECTION_TIMEOUT, Factory};
use alloc::vec::Vec;
use core::time::Duration;

/// Two of five hold much that is not known to be committed, and their leader is gone, with one of
/// the others. So whoever stands needs both, or one of them and the one that holds nothing. The
/// links are as slow as a cluster with such timeouts can bear.
pub fn a_long_answer_is_waited_for(factory: Factory, seed: u64) {
    let mut cluster = Cluster::new(factory, seed, 5, 5);
    cluster.run_for(ELECTION_TIMEOUT * 4);
    let Some(leader) = cluster.leader() else { panic!("a leader") };
    let mut others: Vec<u64> = (1..=5).filter(|id| *id != leader).collect();
    let (gone, empty) = (others.remove(0), others.remove(0));
    for id in 1..=5 {
        // It sends to two, and hears nobody.
        cluster.cut.insert((id, leader));
    }
    cluster.cut.extend([(leader, gone), (leader, empty)]);
    let committed = cluster.chosen_up_to();
    for _ in 0..8 {
        cluster.propose(leader, 10);
        cluster.run_for(Duration::from_millis(2));
    }
    cluster.run_for(Duration::from_millis(4));
    assert_eq!(cluster.chosen_up_to(), committed, "nobody was heard to hold it");
    cluster.crash(leader);
    cluster.crash(gone);
    cluster.cut.clear();
    cluster.delay_max = ELECTION_TIMEOUT.as_millis() as u64 / 4;
    let since = cluster.now;
    while cluster.leader().is_none() {
        cluster.run_for(Duration::from_millis(5));
        assert!(cluster.now < since + ELECTION_TIMEOUT * 40, "seed {seed}: somebody leads again");
    }
    cluster.end_faults();
    cluster.run_for(ELECTION_TIMEOUT * 4);
    assert!(cluster.commands_up_to() >= committed + 8, "what was held is committed");
}

/// One of three holds much that nobody else has heard of, and the other two do not hear each other,
/// in one direction or both: neither may take away the other's candidacy again and again while the
/// third tells what it holds.
pub fn a_long_answer_is_not_interrupted(factory: Factory, seed: u64) {
    let mut cluster = Cluster::new(factory, seed, 3, 3);
    cluster.run_for(ELECTION_TIMEOUT * 4);
    let Some(leader) = cluster.leader() else { panic!("a leader") };
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    cluster.cut.extend(others.iter().map(|id| (leader, *id)));
    let committed = cluster.chosen_up_to();
    for _ in 0..12 {
        cluster.propose(leader, 10);
    }
    cluster.run_for(Duration::from_millis(5));
    assert_eq!(cluster.chosen_up_to(), committed, "nobody has heard of it");
    // It forgets that it led, and is as late as the others.
    cluster.crash(leader);
    cluster.start(leader);
    cluster.cut.clear();
    cluster.cut.insert((others[0], others[1]));
    if seed.is_multiple_of(2) {
        cluster.cut.insert((others[1], others[0]));
    }
    cluster.delay_max = ELECTION_TIMEOUT.as_millis() as u64 / 4;
    let since = cluster.now;
    while cluster.leader().is_none() {
        cluster.run_for(Duration::from_millis(5));
        assert!(cluster.now < since + ELECTION_TIMEOUT * 20, "seed {seed}: somebody leads again");
    }
}
