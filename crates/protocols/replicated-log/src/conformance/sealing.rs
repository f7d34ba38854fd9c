//! The end of an epoch under random faults: it is agreed on once, nothing follows it, and nobody
//! reads after it. The cluster itself checks the latter two at every step. (Damage is left out:
//! after the end nothing is sent any more by which a leader would notice it; the driver does.)

use super::cluster::{Cluster, ELECTION_TIMEOUT, Factory};
use super::schedule::{Damage, LEASE_DRIFT_PPM, disturb};
use crate::{Epoch, Input, ProposalId, Protocol, Refusal};
use core::time::Duration;
use quorate_base::{Index, Rng};

/// Runs a cluster through faults drawn from `seed`; somewhere in their midst its leader ends the
/// epoch, and faults go on. Then heals it and demands that all members learn of the end. Returns
/// how many entries the epoch had.
pub fn random_schedule_with_seal(factory: Factory, seed: u64) -> Index {
    let mut rng = Rng::new(seed ^ 0x5ea1);
    let voters = *rng.pick(&[1, 3, 3, 3, 5]).unwrap_or(&3);
    let mut cluster = if rng.below(2) == 0 {
        Cluster::new(factory, seed, voters + 1, voters)
    } else {
        let nodes = (voters + 1, voters);
        Cluster::with_leases(factory, seed, nodes, LEASE_DRIFT_PPM, LEASE_DRIFT_PPM)
    };
    cluster.loss_ppm = *rng.pick(&[0, 20_000, 150_000]).unwrap_or(&0);
    cluster.delay_max = rng.between(1, 15);
    let steps = rng.between(40, 120);
    let from = rng.below(steps);
    for step in 0..steps {
        disturb(&mut cluster, &mut rng, Damage::None);
        // Asked for again and again, as an impatient operator does.
        if step >= from && rng.below(3) == 0 {
            seal(&mut cluster);
        }
        cluster.run_for(rng.duration(Duration::ZERO, Duration::from_millis(60)));
    }
    heal(&mut cluster)
}

fn seal(cluster: &mut Cluster) {
    let Some(leader) = cluster.leader() else { return };
    let here = cluster.replica(leader).map(|replica| replica.protocol());
    let next = Protocol::ALL.into_iter().find(|protocol| Some(*protocol) != here);
    let next = next.unwrap_or_default();
    let id = ProposalId(0);
    // Late, or of no use: neither ends the epoch.
    for (next, judged) in [(next, Epoch(1)), (here.unwrap_or_default(), Epoch(0))] {
        let events = cluster.step(leader, Input::Seal { id, next, judged });
        let refused = |event: &crate::Event| matches!(event, crate::Event::Proposed { .. });
        assert!(!events.iter().any(refused), "sealed for {next} in epoch {judged}");
    }
    cluster.step(leader, Input::Seal { id, next, judged: Epoch(0) });
}

fn heal(cluster: &mut Cluster) -> Index {
    cluster.end_faults();
    cluster.run_for(ELECTION_TIMEOUT * 30);
    for _ in 0..10 {
        seal(cluster);
        cluster.run_for(ELECTION_TIMEOUT * 5);
    }
    let sealed = cluster.sealed();
    assert!(sealed.is_some(), "the epoch is sealed after healing");
    let sealed = sealed.unwrap_or(0);
    let leader = cluster.leader();
    assert!(leader.is_some(), "somebody leads until the next epoch begins");
    let leader = leader.unwrap_or_default();
    let commands = alloc::vec![bytes::Bytes::from_static(b"too late")];
    let events = cluster.step(leader, Input::Propose { id: ProposalId(0), commands });
    let refusals = events.iter().filter_map(|event| match event {
        crate::Event::Refused { reason, .. } => Some(*reason),
        _ => None,
    });
    assert!(refusals.eq([Refusal::Sealed]), "proposals wait for the next epoch");
    let members = cluster.replica(leader).map(|r| r.status().membership).unwrap_or_default();
    for id in members.all() {
        let commit = cluster.replica(id.0).map(|r| r.commit());
        assert_eq!(commit, Some(sealed), "node {id} knows where the epoch ends");
    }
    sealed
}
