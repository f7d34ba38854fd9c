//! Random faults, and then the demand that the cluster serve again.

use super::cluster::{Cluster, ELECTION_TIMEOUT, Factory};
use crate::{Change, Input};
use core::time::Duration;
use quorate_base::NodeId;

/// A quarter: enough that a lease which ignores it is found out.
const LEASE_DRIFT_PPM: u32 = 250_000;

/// Runs a cluster through faults drawn from `seed`, checked at every step; then heals it and
/// demands progress. Returns how many entries were committed.
pub fn random_schedule(factory: Factory, seed: u64) -> u64 {
    let mut rng = quorate_base::Rng::new(seed ^ 0x5eed);
    let voters = *rng.pick(&[1, 3, 3, 3, 5]).unwrap_or(&3);
    disturb_and_heal(Cluster::new(factory, seed, voters + 1, voters), rng, voters)
}

/// The same with leases, and clocks that drift by as much as was declared.
pub fn random_schedule_with_leases(factory: Factory, seed: u64) -> u64 {
    random_schedule_with_clocks(factory, seed, LEASE_DRIFT_PPM, LEASE_DRIFT_PPM)
}

/// The same with clocks that drift by more or less than was declared: more may well be unsafe.
pub fn random_schedule_with_clocks(
    factory: Factory,
    seed: u64,
    declared_ppm: u32,
    real_ppm: u32,
) -> u64 {
    let mut rng = quorate_base::Rng::new(seed ^ 0x1ea5e);
    let voters = *rng.pick(&[3, 3, 5]).unwrap_or(&3);
    let nodes = (voters + 1, voters);
    let cluster = Cluster::with_leases(factory, seed, nodes, declared_ppm, real_ppm);
    disturb_and_heal(cluster, rng, voters)
}

fn disturb_and_heal(mut cluster: Cluster, mut rng: quorate_base::Rng, voters: u64) -> u64 {
    cluster.loss_ppm = *rng.pick(&[0, 20_000, 150_000]).unwrap_or(&0);
    cluster.delay_max = rng.between(1, 15);
    // A group that loses the last good copy of an entry rightly stops for good: damage needs three
    // voters, and that they stay.
    let damaging = voters >= 3 && rng.below(2) == 0;
    for _ in 0..rng.between(40, 160) {
        disturb(&mut cluster, &mut rng, damaging);
        cluster.run_for(rng.duration(Duration::ZERO, Duration::from_millis(60)));
    }
    heal(&mut cluster);
    cluster.chosen_up_to()
}

fn disturb(cluster: &mut Cluster, rng: &mut quorate_base::Rng, damaging: bool) {
    let id = rng.between(1, cluster.len());
    let node = NodeId(rng.between(1, cluster.len()));
    match rng.below(24) {
        0..8 => {
            let at = cluster.leader().unwrap_or(id);
            cluster.propose(at, rng.between(1, 4) as usize);
        }
        8..12 => cluster.read(id),
        12 | 13 => cluster.crash(id),
        14..17 => cluster.start(id),
        17 if rng.below(2) == 0 => {
            cluster.cut.insert((id, node.0));
        }
        17 => isolate(cluster, rng, id),
        18 => cluster.cut.clear(),
        19 => cluster.step(id, Input::PeerLost { node }),
        20 => cluster.step(id, Input::Transfer { to: node }),
        21 => {
            let change = match rng.below(4) {
                0 => Change::AddLearner(node),
                1 => Change::AddVoter(node),
                2 => Change::Promote(node),
                _ if damaging => Change::Keep,
                _ => Change::Remove(node),
            };
            let at = cluster.leader().unwrap_or(id);
            // Now and then asked for by someone who is behind.
            let lag = rng.below(8) * rng.below(2);
            let judged = cluster.replica(at).map_or(0, |r| r.applied_base().position.index);
            let (id, context) = (crate::ProposalId(0), bytes::Bytes::new());
            let judged = judged.saturating_sub(lag);
            cluster.step(at, Input::Change { id, change, judged, context });
        }
        22 if damaging => {
            cluster.crash(id);
            cluster.damage(id, rng.below(1_000) as usize);
        }
        _ => {
            let applied = cluster.replica(id).map_or(0, |r| r.status().applied);
            cluster.step(id, Input::Compact { index: applied });
        }
    }
}

/// Cuts a node off, the leader if there is one, and lets the others go on; each is read from.
fn isolate(cluster: &mut Cluster, rng: &mut quorate_base::Rng, id: u64) {
    let alone = cluster.leader().unwrap_or(id);
    for other in (1..=cluster.len()).filter(|&other| other != alone) {
        cluster.cut.extend([(alone, other), (other, alone)]);
    }
    for _ in 0..rng.between(1, 12) {
        cluster.run_for(rng.duration(Duration::ZERO, ELECTION_TIMEOUT / 4));
        if let Some(leader) = cluster.leader() {
            cluster.propose(leader, 1);
        }
        cluster.read(alone);
    }
}

/// Ends all faults and demands that a proposal be committed by every member.
fn heal(cluster: &mut Cluster) {
    cluster.cut.clear();
    cluster.loss_ppm = 0;
    cluster.delay_max = 1;
    for id in 1..=cluster.len() {
        cluster.start(id);
    }
    cluster.run_for(ELECTION_TIMEOUT * 30);
    let leader = cluster.leader();
    assert!(leader.is_some(), "somebody leads after healing");
    let leader = leader.unwrap_or_default();
    let before = cluster.chosen_up_to();
    cluster.propose(leader, 1);
    let ready = cluster.reads_ready();
    let members = cluster.replica(leader).map(|r| r.status().membership).unwrap_or_default();
    for id in members.all() {
        cluster.read(id.0);
    }
    cluster.run_for(ELECTION_TIMEOUT * 10);
    assert!(cluster.chosen_up_to() > before, "a proposal is committed after healing");
    assert_eq!(cluster.reads_ready() - ready, members.all().len() as u64, "all can read");
    for id in members.all() {
        let commit = cluster.replica(id.0).map(|r| r.commit());
        assert_eq!(commit, Some(cluster.chosen_up_to()), "node {id} caught up");
    }
}
