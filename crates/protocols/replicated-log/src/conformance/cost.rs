//! What an engine costs: messages, message delays and forced writes, counted and held to the
//! formulas of `docs/raft-and-paxos.md`. The same functions judge both engines.
//!
//! A message takes 1 ms here and a write half of that, so that times tell delays and writes apart.

use super::cluster::{Cluster, Factory};
use super::counts::Counts;
use crate::Role;
use core::time::Duration;

pub(super) const MESSAGE: Duration = Duration::from_millis(1);
pub(super) const WRITE: Duration = Duration::from_micros(500);
/// Less than a heartbeat, and more than anything here takes.
const WHILE: Duration = Duration::from_millis(15);

/// A cluster of `n` with a leader and nothing under way.
pub(super) fn settled(factory: Factory, n: u64) -> (Cluster, u64) {
    let mut cluster = Cluster::new(factory, n, n, n);
    cluster.run_for(Duration::from_secs(2));
    let leader = cluster.leader();
    assert!(leader.is_some(), "a leader of {n}");
    cluster.counts = Counts::default();
    (cluster, leader.unwrap_or(1))
}

/// Counts what follows from `what`, without heartbeats or hardly any.
fn count(cluster: &mut Cluster, what: impl FnOnce(&mut Cluster)) -> Counts {
    cluster.counts = Counts::default();
    what(cluster);
    cluster.run_for(WHILE);
    cluster.counts
}

/// How long it takes until `done`, to a tenth of a millisecond.
pub(super) fn time_until(cluster: &mut Cluster, done: impl Fn(&Cluster) -> bool) -> Duration {
    let start = cluster.now;
    while !done(cluster) {
        cluster.run_for(Duration::from_micros(100));
        assert!(cluster.now < start + Duration::from_secs(5), "it comes about");
    }
    cluster.now.since(start)
}

/// A batch of commands that fits one message: 3(n − 1) messages, n forced writes; chosen after
/// 2 message delays and a write, known to the followers after a third.
pub fn a_batch(factory: Factory) {
    for n in [1, 3, 5, 7] {
        for commands in [1, 2, 8] {
            let (mut cluster, leader) = settled(factory, n);
            let before = cluster.chosen_up_to();
            let c = count(&mut cluster, |cluster| cluster.propose(leader, commands));
            assert_eq!(cluster.chosen_up_to(), before + commands as u64);
            assert_eq!((c.appends, c.append_replies), (n - 1, n - 1), "n = {n}");
            assert_eq!((c.commit_notices, c.writes), (n - 1, n), "n = {n}");
        }
        let (mut cluster, leader) = settled(factory, n);
        let wanted = cluster.chosen_up_to() + 1;
        cluster.propose(leader, 1);
        let chosen = time_until(&mut cluster, |cluster| cluster.chosen_up_to() >= wanted);
        let delays = if n == 1 { 0 } else { 2 };
        assert_eq!(chosen, MESSAGE * delays + WRITE, "n = {n}");
        let everywhere = time_until(&mut cluster, |cluster| {
            let commits = |id| cluster.replica(id).map_or(0, |replica| replica.commit());
            (1..=n).all(|id| commits(id) >= wanted)
        });
        assert_eq!(everywhere, if n == 1 { Duration::ZERO } else { MESSAGE }, "n = {n}");
    }
}

/// C commands in B batches that do not wait for each other: B times the messages and writes of
/// one, whatever C is, and the delays of one.
pub fn a_pipeline(factory: Factory) {
    for (n, batches) in [(3, 4), (5, 8)] {
        let (mut cluster, leader) = settled(factory, n);
        let wanted = cluster.chosen_up_to() + 3 * batches;
        (0..batches).for_each(|_| cluster.propose(leader, 3));
        let chosen = time_until(&mut cluster, |cluster| cluster.chosen_up_to() >= wanted);
        assert_eq!(chosen, MESSAGE * 2 + WRITE, "n = {n}");
        cluster.run_for(WHILE);
        let c = cluster.counts;
        assert_eq!((c.appends, c.append_replies), (batches * (n - 1), batches * (n - 1)));
        assert_eq!(c.writes, batches * n);
        assert!(c.commit_notices <= batches * (n - 1), "notices may be told together: {c:?}");
    }
}

/// Reads at the leader: one round for all that arrive within one, no write.
pub fn reads_at_the_leader(factory: Factory) {
    for n in [3, 5] {
        let (mut cluster, leader) = settled(factory, n);
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
        let (mut cluster, leader) = settled(factory, n);
        let wanted = cluster.reads_ready() + 1;
        cluster.read(leader);
        let took = time_until(&mut cluster, |cluster| cluster.reads_ready() >= wanted);
        assert_eq!(took, MESSAGE * 2, "two delays, n = {n}");
    }
}

/// A read at a follower: two messages and two delays more than at the leader.
pub fn a_read_at_a_follower(factory: Factory) {
    let (mut cluster, leader) = settled(factory, 3);
    let ready = cluster.reads_ready();
    let follower = leader % 3 + 1;
    let c = count(&mut cluster, |cluster| cluster.read(follower));
    assert_eq!((c.read_indexes, c.writes), (2, 0));
    assert_eq!(cluster.reads_ready(), ready + 1);
    cluster.read(follower);
    let took = time_until(&mut cluster, |cluster| cluster.reads_ready() >= ready + 2);
    assert_eq!(took, MESSAGE * 4);
}

/// An uncontested election in which nothing is to be repaired: 4(n − 1) messages and n forced
/// writes, and then the first entry as a batch; 4 delays and a write, until the leader leads.
pub fn an_uncontested_election(factory: Factory) {
    for n in [3, 5, 7] {
        let mut cluster = Cluster::new(factory, n, n, n);
        // The first loses its patience before any other can.
        (2..=n).for_each(|id| cluster.crash(id));
        cluster.run_for(Duration::from_millis(55));
        (2..=n).for_each(|id| cluster.start(id));
        cluster.counts = Counts::default();
        time_until(&mut cluster, |cluster| cluster.counts.votes > 0);
        let began = cluster.now;
        time_until(&mut cluster, |cluster| {
            cluster.replica(1).is_some_and(|replica| replica.role() == Role::Leader)
        });
        let took = cluster.now.since(began);
        // The candidate's own promise is written before it asks, an acceptor's before it answers.
        let exact = MESSAGE * 4 + WRITE * 2;
        assert!(took <= exact && took + Duration::from_micros(200) >= exact, "{took:?}, n = {n}");
        time_until(&mut cluster, |cluster| cluster.chosen_up_to() > 0);
        // Whatever is still under way, but less than a heartbeat.
        cluster.run_for(Duration::from_millis(10));
        let c = cluster.counts;
        assert_eq!(c.votes, 4 * (n - 1), "n = {n}");
        assert_eq!((c.appends, c.append_replies, c.commit_notices), (n - 1, n - 1, n - 1));
        assert_eq!((c.heartbeats, c.writes), (0, 2 * n));
    }
}

/// A follower that lacks L bytes of the log: ⌈L / append_bytes⌉ appends and as many answers at
/// most, beside one refusal that tells the leader where to begin.
pub fn catching_up(factory: Factory) {
    let (mut cluster, leader) = settled(factory, 3);
    let lagging = leader % 3 + 1;
    cluster.crash(lagging);
    let entries = 100;
    (0..entries).for_each(|_| {
        cluster.propose(leader, 1);
        cluster.run_for(Duration::from_millis(3));
    });
    cluster.start(lagging);
    let wanted = cluster.chosen_up_to();
    cluster.counts = Counts::default();
    let behind = |cluster: &Cluster| cluster.replica(lagging).map_or(0, |replica| replica.commit());
    time_until(&mut cluster, |cluster| behind(cluster) >= wanted);
    // An entry weighs 40 bytes, a message holds 400.
    let parts = (entries as u64 * 40).div_ceil(400);
    let c = cluster.counts;
    assert!(c.appends >= parts && c.appends <= parts + 4, "{c:?}, {parts} parts");
}

/// Reads under a lease: no message, no delay, no write. An idle leader: 2(n − 1) messages for
/// each heartbeat interval.
pub fn a_lease_and_an_idle_interval(factory: Factory) {
    let mut cluster = Cluster::with_leases(factory, 1, (3, 3), 0, 0);
    cluster.run_for(Duration::from_secs(2));
    let leader = cluster.leader().unwrap_or(1);
    let ready = cluster.reads_ready();
    cluster.counts = Counts::default();
    (0..50).for_each(|_| cluster.read(leader));
    assert_eq!((cluster.reads_ready(), cluster.counts), (ready + 50, Counts::default()));
    let intervals = 50;
    cluster.run_for(Duration::from_millis(20 * intervals));
    let c = cluster.counts;
    let expected = intervals * 2 * 2;
    assert!(c.heartbeats.abs_diff(expected) <= 4, "{c:?}, {expected} expected");
    assert_eq!(c, Counts { heartbeats: c.heartbeats, ..Counts::default() }, "and nothing else");
}
