//! Random faults, and then the demand that the cluster serve again.

use super::cluster::{Cluster, ELECTION_TIMEOUT, Factory};
use crate::{Change, Input};
use alloc::vec::Vec;
use core::time::Duration;
use quorate_base::NodeId;

/// A quarter: enough that a lease which ignores it is found out.
pub(super) const LEASE_DRIFT_PPM: u32 = 250_000;

/// Runs a cluster through faults drawn from `seed`, checked at every step; then heals it and
/// demands progress. Returns how many entries were committed.
pub fn random_schedule(factory: Factory, seed: u64) -> u64 {
    let mut rng = quorate_base::Rng::new(seed ^ 0x5eed);
    let voters = *rng.pick(&[1, 3, 3, 3, 5]).unwrap_or(&3);
    let cluster = Cluster::new(factory, seed, voters + 1, voters);
    disturb_and_heal(cluster, rng, |rng| some_damage(rng, voters))
}

/// The same for engines whose groups of five have other quorums than majorities. Damage is left
/// out: how many copies it must spare is a matter of majorities here.
pub fn random_schedule_with_quorums(factory: Factory, seed: u64) -> u64 {
    let rng = quorate_base::Rng::new(seed ^ 0xf1e8);
    disturb_and_heal(Cluster::new(factory, seed, 6, 5), rng, |_| Damage::None)
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
    disturb_and_heal(cluster, rng, |rng| some_damage(rng, voters))
}

/// A group that loses the last good copy of an entry rightly stops for good: damage needs three
/// voters, and that they stay.
fn some_damage(rng: &mut quorate_base::Rng, voters: u64) -> Damage {
    match rng.below(4) {
        0 if voters >= 3 => Damage::One,
        1 if voters >= 3 => Damage::Helix(voters),
        _ => Damage::None,
    }
}

fn disturb_and_heal(
    mut cluster: Cluster,
    mut rng: quorate_base::Rng,
    damage: impl FnOnce(&mut quorate_base::Rng) -> Damage,
) -> u64 {
    cluster.loss_ppm = *rng.pick(&[0, 20_000, 150_000]).unwrap_or(&0);
    cluster.delay_max = rng.between(1, 15);
    let damaging = damage(&mut rng);
    for _ in 0..rng.between(40, 160) {
        disturb(&mut cluster, &mut rng, damaging);
        cluster.run_for(rng.duration(Duration::ZERO, Duration::from_millis(60)));
    }
    heal(&mut cluster);
    cluster.chosen_up_to()
}

/// What disks do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    None,
    /// One at a time loses an entry without a trace of its ballot.
    One,
    /// Every disk may lose entries, each in other places, as many as so many voters can spare.
    Helix(u64),
}

pub(super) fn disturb(cluster: &mut Cluster, rng: &mut quorate_base::Rng, damaging: Damage) {
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
        19 => drop(cluster.step(id, Input::PeerLost { node })),
        20 => drop(cluster.step(id, Input::Transfer { to: node })),
        21 => {
            let change = match rng.below(4) {
                0 => Change::AddLearner(node),
                1 => Change::AddVoter(node),
                2 => Change::Promote(node),
                _ if damaging != Damage::None => Change::Keep,
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
        22 if damaging == Damage::One => {
            cluster.crash(id);
            cluster.damage(id, rng.below(1_000) as usize);
        }
        22 if damaging != Damage::None => strike(cluster, rng, id, damaging),
        _ => {
            let applied = cluster.replica(id).map_or(0, |r| r.status().applied);
            cluster.step(id, Input::Compact { index: applied });
        }
    }
}

/// One node's disk loses some entries, or every node's does, all of them stopped at once.
fn strike(cluster: &mut Cluster, rng: &mut quorate_base::Rng, id: u64, damaging: Damage) {
    let Damage::Helix(voters) = damaging else { return };
    let all = rng.below(2) == 0;
    let struck = if all { 1..=cluster.len() } else { id..=id };
    struck.clone().for_each(|id| cluster.crash(id));
    for id in struck {
        for _ in 0..rng.between(1, 4) {
            cluster.damage_helix(id, rng.below(1_000) as usize, voters);
        }
        if all {
            cluster.start(id);
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
    cluster.end_faults();
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
    let of_all = || (1..=cluster.len()).map(|id| cluster.replica(id).map(|r| r.status()));
    let hint = || of_all().collect::<Vec<_>>();
    assert!(cluster.chosen_up_to() > before, "a proposal is committed after healing: {:?}", hint());
    let ready = cluster.reads_ready() - ready;
    let of_leader = cluster.replica(leader).map(|r| r.status());
    assert_eq!(ready, members.all().len() as u64, "all can read: {of_leader:?}");
    for id in members.all() {
        let (chosen, status) = (cluster.chosen_up_to(), cluster.replica(id.0).map(|r| r.status()));
        let caught_up = status.as_ref().is_some_and(|status| status.commit == chosen);
        let of_leader = cluster.replica(leader).map(|r| r.status());
        assert!(caught_up, "node {id} caught up to {chosen}: {status:?}, leader {of_leader:?}");
    }
}
