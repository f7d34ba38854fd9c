//! Somebody who is no member talks to a group, and knows all its ballots. As long as it does not
//! speak as a leader does, and lies about no entry that it was asked for, it can disturb, and
//! nothing else: whatever it promises, votes, acknowledges or asks for counts for nothing.

use super::super::cluster::{Cluster, ELECTION_TIMEOUT, Factory};
use super::draw::{self, Step, Talk};
use crate::{Body, Epoch, Input, Message};
use core::time::Duration;
use quorate_base::{Ballot, NodeId, Rng};

/// The outsider. Nobody adds it.
const STRANGER: NodeId = NodeId(4);

/// Rounds that it makes up are at most this far ahead of the replica's, lest those run out.
const AHEAD: u64 = 4;

/// Three replicas under fire, with agreement checked at every step; then the outsider falls silent,
/// and the group serves again. Returns how many entries were committed under fire.
pub fn an_outsider_disturbs_and_breaks_nothing(factory: Factory, seed: u64) -> u64 {
    let mut rng = Rng::new(seed ^ 0x0d15);
    let mut cluster = Cluster::new(factory, seed, STRANGER.0, 3);
    cluster.crash(STRANGER.0); // It is somebody else who speaks in its place.
    cluster.run_for(ELECTION_TIMEOUT * 5);
    for _ in 0..400 {
        cluster.run_for(rng.duration(Duration::ZERO, Duration::from_millis(3)));
        let id = rng.between(1, 3);
        match rng.below(20) {
            0 => cluster.crash(id),
            1 | 2 => cluster.start(id),
            3 => cluster.propose(cluster.leader().unwrap_or(id), 1),
            4 => cluster.read(id),
            _ => talk(&mut cluster, &mut rng, id),
        }
    }
    let under_fire = cluster.chosen_up_to();
    cluster.end_faults();
    cluster.run_for(ELECTION_TIMEOUT * 30);
    let leader = cluster.leader().unwrap_or_else(|| panic!("somebody leads"));
    cluster.propose(leader, 1);
    cluster.run_for(ELECTION_TIMEOUT * 5);
    assert!(cluster.chosen_up_to() > under_fire, "it serves again");
    let end = cluster.chosen_up_to();
    let caught_up = |id: u64| cluster.replica(id).is_some_and(|log| log.commit() == end);
    assert!((1..=3).all(caught_up), "all have it");
    under_fire
}

fn talk(cluster: &mut Cluster, rng: &mut Rng, id: u64) {
    let Some(status) = cluster.replica(id).map(|log| log.status()) else { return };
    let talk = Talk { protocol: status.protocol, ballot: status.ballot };
    let Step::Hear(_, ballot, body) = draw::step(rng, talk) else { return };
    let leads = matches!(body, Body::Append(_) | Body::Accept(_) | Body::Heartbeat { .. });
    let gives = matches!(body, Body::Pulled { .. } | Body::Mended { .. });
    if !leads && !gives {
        let round = ballot.round.min(status.ballot.round + AHEAD);
        let ballot = Ballot::new(round, ballot.node);
        let message = Message { epoch: Epoch(0), ballot, body };
        cluster.step(id, Input::Message { from: STRANGER, message });
    }
}
