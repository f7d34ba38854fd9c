//! Stories of damaged disks that every engine must tell alike.

use super::cluster::{Cluster, ELECTION_TIMEOUT, Factory};
use crate::Input;
use alloc::vec::Vec;
use quorate_base::Index;

/// Entries of the log that the stories are about.
const ENTRIES: usize = 9;

/// Three replicas.
fn begun(factory: Factory, seed: u64) -> Cluster {
    let mut cluster = Cluster::new(factory, seed, 3, 3);
    cluster.run_for(ELECTION_TIMEOUT * 10);
    cluster
}

/// They commit entries, one after the other.
fn write(cluster: &mut Cluster, entries: usize) {
    for _ in 0..entries {
        let leader = cluster.leader().unwrap_or(1);
        cluster.propose(leader, 1);
        cluster.run_for(ELECTION_TIMEOUT / 4);
    }
    cluster.run_for(ELECTION_TIMEOUT);
}

/// Three replicas that all hold the same committed entries, stopped.
fn stopped(factory: Factory, seed: u64) -> Cluster {
    let mut cluster = begun(factory, seed);
    write(&mut cluster, ENTRIES);
    (1..=3).for_each(|id| cluster.crash(id));
    // Their services lost what was applied: the log alone has it.
    (1..=3).for_each(|id| cluster.forget_applied(id));
    cluster
}

/// Every disk lost a third of the entries, each another third: nothing is lost.
pub fn each_disk_lost_others(factory: Factory, seed: u64) {
    let mut cluster = stopped(factory, seed);
    let end = cluster.chosen_up_to();
    assert!(end as usize >= ENTRIES, "they were committed: {end}");
    for index in 1..=end {
        cluster.damage_at(index % 3 + 1, index);
    }
    (1..=3).for_each(|id| cluster.start(id));
    cluster.run_for(ELECTION_TIMEOUT * 30);
    let leader = cluster.leader().unwrap_or_default();
    assert!(leader > 0, "somebody leads");
    cluster.propose(leader, 1);
    cluster.run_for(ELECTION_TIMEOUT * 5);
    for id in 1..=3 {
        let commit = cluster.replica(id).map(|replica| replica.commit());
        assert!(commit > Some(end), "node {id} has all, and more: {commit:?}");
    }
}

/// Some entries can be read nowhere: nobody goes on without them, and somebody says which.
pub fn nobody_goes_on_without_what_nobody_can_read(factory: Factory, seed: u64) {
    let mut cluster = stopped(factory, seed);
    let end = cluster.chosen_up_to();
    let lost: Vec<Index> = [4, 5].into();
    for &index in &lost {
        (1..=3).for_each(|id| cluster.damage_at(id, index));
    }
    (1..=3).for_each(|id| cluster.start(id));
    cluster.run_for(ELECTION_TIMEOUT * 60);
    assert_eq!(cluster.leader(), None, "nobody leads");
    assert_eq!(cluster.chosen_up_to(), end, "nothing is committed");
    for id in 1..=3 {
        let commit = cluster.replica(id).map_or(0, |replica| replica.commit());
        assert!(commit < lost[0], "node {id} hands out nothing beyond the gap: {commit}");
    }
    assert!(cluster.unreadable.contains(&(4, 5)), "the range is named: {:?}", cluster.unreadable);
}

/// A state is lost whose log was compacted; what the log holds after its base was committed with
/// it and one other that is gone. It is not forgotten, and the third has what the state was.
/// Returns whether these two could go on before the other came back.
pub fn a_lost_state_takes_nothing_of_the_log_with_it(factory: Factory, seed: u64) -> bool {
    let mut cluster = begun(factory, seed);
    write(&mut cluster, ENTRIES);
    let kept = cluster.chosen_up_to() - 3;
    (1..=3).for_each(|id| drop(cluster.step(id, Input::Compact { index: kept })));
    cluster.run_for(ELECTION_TIMEOUT);
    let leader = cluster.leader().unwrap_or_default();
    let [behind, loses] = [leader % 3 + 1, (leader + 1) % 3 + 1];
    cluster.crash(behind);
    write(&mut cluster, ENTRIES);
    let end = cluster.chosen_up_to();
    [leader, loses].into_iter().for_each(|id| cluster.crash(id));
    cluster.lose_state(loses);
    cluster.start(loses);
    cluster.run_for(ELECTION_TIMEOUT * 10);
    let alone = cluster.replica(loses).map(|replica| replica.commit());
    assert_eq!(alone, Some(0), "what it does not have it does not hand out");
    cluster.start(behind);
    cluster.run_for(ELECTION_TIMEOUT * 60);
    let two_suffice = cluster.leader().is_some();
    cluster.start(leader);
    cluster.run_for(ELECTION_TIMEOUT * 30);
    write(&mut cluster, 1);
    for id in 1..=3 {
        let commit = cluster.replica(id).map(|replica| replica.commit());
        assert!(commit > Some(end), "node {id} has all {end}, and more: {commit:?}");
    }
    two_suffice
}

/// The same where the third was gone before the log was compacted: neither of the two has what was
/// committed in between, so that nobody may go on until the other comes back.
pub fn what_a_lost_state_stood_for_is_not_denied(factory: Factory, seed: u64) {
    let mut cluster = begun(factory, seed);
    write(&mut cluster, ENTRIES);
    let leader = cluster.leader().unwrap_or_default();
    let [behind, loses] = [leader % 3 + 1, (leader + 1) % 3 + 1];
    cluster.crash(behind);
    write(&mut cluster, ENTRIES);
    let end = cluster.chosen_up_to();
    let kept = end - 3;
    [leader, loses]
        .into_iter()
        .for_each(|id| drop(cluster.step(id, Input::Compact { index: kept })));
    cluster.run_for(ELECTION_TIMEOUT);
    [leader, loses].into_iter().for_each(|id| cluster.crash(id));
    cluster.lose_state(loses);
    cluster.start(loses);
    cluster.start(behind);
    cluster.run_for(ELECTION_TIMEOUT * 60);
    assert_eq!(cluster.leader(), None, "what only the other can read is not denied");
    cluster.start(leader);
    cluster.run_for(ELECTION_TIMEOUT * 30);
    write(&mut cluster, 1);
    for id in 1..=3 {
        let commit = cluster.replica(id).map(|replica| replica.commit());
        assert!(commit > Some(end), "node {id} has all {end}, and more: {commit:?}");
    }
}

/// One replica has the state and cannot read where the round changed, so that it does not know how
/// its log goes on; one has lost its state, and all entries since; the third has the state, and was
/// away when the last entries were committed. Between them they have everything, and go on.
pub fn a_lost_state_and_a_lost_round_are_made_up_for(factory: Factory, seed: u64) {
    let mut cluster = begun(factory, seed);
    write(&mut cluster, ENTRIES);
    let kept = cluster.chosen_up_to() - 3;
    (1..=3).for_each(|id| drop(cluster.step(id, Input::Compact { index: kept })));
    cluster.run_for(ELECTION_TIMEOUT);
    let first = cluster.leader().unwrap_or_default();
    let before = cluster.chosen_up_to();
    cluster.crash(first);
    cluster.run_for(ELECTION_TIMEOUT * 10);
    let second = cluster.leader().unwrap_or_default();
    let third = 6 - first - second;
    cluster.start(first);
    cluster.run_for(ELECTION_TIMEOUT * 2);
    assert!(cluster.chosen_up_to() > before, "the new leader has committed something");
    cluster.crash(third);
    write(&mut cluster, 3);
    let end = cluster.chosen_up_to();
    [first, second].into_iter().for_each(|id| cluster.crash(id));
    cluster.damage_wholly_at(second, before + 1);
    cluster.forget_applied(second);
    cluster.lose_state(first);
    (1..=3).for_each(|id| cluster.start(id));
    cluster.run_for(ELECTION_TIMEOUT * 60);
    write(&mut cluster, 1);
    for id in 1..=3 {
        let commit = cluster.replica(id).map(|replica| replica.commit());
        assert!(commit > Some(end), "node {id} has all {end}, and more: {commit:?}");
    }
}
