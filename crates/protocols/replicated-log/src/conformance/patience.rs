//! Groups with rare heartbeats and as much more patience: a leader that falls silent is missed
//! when that is over, and at once when somebody tells that its node is gone.

use super::cluster::{Cluster, ELECTION_TIMEOUT, Factory};
use crate::{Config, Input};
use core::time::Duration;
use quorate_base::NodeId;

/// How much rarer the heartbeats are.
const CALM: u32 = 4;

/// The settings of such a group.
pub fn patient(config: Config) -> Config {
    Config {
        heartbeat: config.heartbeat * CALM,
        patience: config.election_timeout * CALM,
        ..config
    }
}

/// How long the others take to elect another once the leader is gone; `told`: they hear of it.
fn without_leader(factory: Factory, seed: u64, told: bool) -> Duration {
    let mut cluster = Cluster::new(factory, seed, 3, 3);
    // A first election is not slower than elsewhere: nobody has heard from a leader yet.
    cluster.run_for(ELECTION_TIMEOUT * 4);
    let Some(leader) = cluster.leader() else { panic!("a leader") };
    cluster.run_for(ELECTION_TIMEOUT * CALM * 10);
    assert_eq!(cluster.leader(), Some(leader), "nobody stands against a leader that lives");
    cluster.crash(leader);
    let since = cluster.now;
    for id in (1..=3).filter(|id| told && *id != leader) {
        cluster.step(id, Input::PeerLost { node: NodeId(leader) });
    }
    while cluster.leader().is_none() {
        cluster.run_for(Duration::from_millis(1));
        assert!(cluster.now < since + ELECTION_TIMEOUT * 60, "somebody leads again");
    }
    cluster.now.since(since)
}

/// For an engine whose factory makes replicas with [`patient`] settings.
pub fn a_silent_leader_is_missed(factory: Factory) {
    for seed in 0..40 {
        let silent = without_leader(factory, seed, false);
        // The last heartbeat was up to an interval ago; two that stand at once try once more.
        let (least, most) = (ELECTION_TIMEOUT * (CALM - 1), ELECTION_TIMEOUT * (CALM * 3 / 2 + 2));
        assert!(silent >= least && silent <= most, "seed {seed}: {silent:?}");
        let told = without_leader(factory, seed, true);
        assert!(told <= ELECTION_TIMEOUT * 2, "seed {seed}: {told:?} though they were told");
    }
}
