//! Every partition: links cut, one direction at a time, and the demand that writes go on.
//!
//! The promise: whenever some node reaches a quorum in both directions, writes succeed again
//! within [`PATIENCE`], four of the longest election timeouts; and once the links are back, the
//! cluster serves. Where nobody reaches a quorum nothing is demanded but safety, which the cluster
//! checks at every step. The named cases are those of *Omni-Paxos* (Ng, Haridi and Carbone, 2023).

use super::cluster::{Cluster, ELECTION_TIMEOUT, Factory};
use crate::{Input, Role};
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;
use core::time::Duration;
use quorate_base::NodeId;

/// The election timeout of every replica, as it is set.
pub const SETTING: Duration = ELECTION_TIMEOUT;

/// The longest that a replica may draw: one and a half times the setting.
pub const LONGEST: Duration = Duration::from_nanos(SETTING.as_nanos() as u64 * 3 / 2);

/// Four of those.
pub const PATIENCE: Duration = Duration::from_nanos(LONGEST.as_nanos() as u64 * 4);

/// Every pair of nodes is a bit, in this order: (1, 2), (1, 3) … (n, n - 1).
fn links(nodes: u64) -> Vec<(u64, u64)> {
    let pairs = (1..=nodes).flat_map(|a| (1..=nodes).map(move |b| (a, b)));
    pairs.filter(|(a, b)| a != b).collect()
}

/// Links that are cut, and what came before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// How many nodes there are.
    pub nodes: u64,
    /// Who led before.
    pub leader: u64,
    /// From whom nothing arrives at whom.
    pub cut: BTreeSet<(u64, u64)>,
    /// A node that missed the last entries before.
    pub lagging: Option<u64>,
    /// Whether the leader dies at the same moment.
    pub leader_dies: bool,
    /// Cut and joined again this often, for some heartbeats up to more than an election timeout
    /// each, before the cut stays.
    pub flaps: usize,
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Whether some node could reach a quorum in both directions.
    pub promised: bool,
    /// How long after the cut the first new write was committed, or while links came and went the
    /// longest time without one, if that is more; nothing: not in time.
    pub served_after: Option<Duration>,
    /// Whether it served in time once the links were back.
    pub healed: bool,
}

impl Outcome {
    /// Whether the promise was kept.
    pub fn is_kept(&self) -> bool {
        self.healed && (!self.promised || self.served_after.is_some())
    }
}

impl Partition {
    /// Only this is cut, and nothing else happened.
    pub fn of(nodes: u64, leader: u64, cut: impl IntoIterator<Item = (u64, u64)>) -> Partition {
        let cut = cut.into_iter().collect();
        Partition { nodes, leader, cut, lagging: None, leader_dies: false, flaps: 0 }
    }

    /// Whether some running node reaches a quorum in both directions.
    pub fn is_promised(&self) -> bool {
        let dead = |node: u64| self.leader_dies && node == self.leader;
        let joined = |a: u64, b: u64| !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a));
        let nodes = || (1..=self.nodes).filter(|&node| !dead(node));
        nodes().any(|a| {
            let reached = nodes().filter(|&b| a == b || joined(a, b)).count() as u64;
            reached * 2 > self.nodes
        })
    }

    /// For people: who led, and what is cut.
    pub fn name(&self) -> String {
        let mut name = String::new();
        let _ = write!(name, "{} nodes, {} leads", self.nodes, self.leader);
        if self.leader_dies {
            name.push_str(" and dies");
        }
        if let Some(node) = self.lagging {
            let _ = write!(name, ", {node} lags");
        }
        name.push_str("; cut");
        for (a, b) in &self.cut {
            let _ = write!(name, " {a}>{b}");
        }
        name
    }

    /// Runs it with the draws of this seed, from 1. Writes must go on within `patience`.
    pub fn run_within(&self, patience: Duration, factory: Factory, seed: u64) -> Outcome {
        let mut cluster = Cluster::drawing(factory, seed - 1, self.nodes);
        self.elect(&mut cluster);
        self.write_some(&mut cluster);
        if let Some(node) = self.lagging {
            let others = (1..=self.nodes).filter(|&other| other != node);
            cluster.cut = others.flat_map(|other| [(node, other), (other, node)]).collect();
            self.write_some(&mut cluster);
        }
        let flapping = self.flap(&mut cluster);
        cluster.cut.clone_from(&self.cut);
        if self.leader_dies {
            cluster.crash(self.leader);
        }
        let promised = self.is_promised();
        let served_after = serves(&mut cluster, if promised { patience } else { patience / 2 });
        let served_after = served_after.map(|after| after.max(flapping));
        let served_after = served_after.filter(|_| flapping <= patience);
        cluster.cut.clear();
        cluster.start(self.leader);
        let healed = serves(&mut cluster, patience).is_some();
        Outcome { promised, served_after, healed }
    }

    /// The links come and go, and clients write: the longest time for which they could not.
    fn flap(&self, cluster: &mut Cluster) -> Duration {
        let (mut worst, mut last, mut seen) = (Duration::ZERO, cluster.now, 0);
        for flap in 0..self.flaps {
            let until = Duration::from_millis(FLAPS_MS[flap % FLAPS_MS.len()]);
            for cut in [&self.cut, &BTreeSet::new()] {
                cluster.cut.clone_from(cut);
                let start = cluster.now;
                while cluster.now.since(start) < until {
                    try_to_write(cluster);
                    worst = worst.max(cluster.now.since(last));
                    if cluster.commands_up_to() > seen {
                        (last, seen) = (cluster.now, cluster.commands_up_to());
                    }
                }
            }
        }
        worst
    }

    fn elect(&self, cluster: &mut Cluster) {
        for _ in 0..50 {
            cluster.run_for(Duration::from_millis(60));
            match cluster.leader() {
                Some(leader) if leader == self.leader => return,
                Some(leader) => {
                    cluster.step(leader, Input::Transfer { to: NodeId(self.leader) });
                }
                None => {}
            }
        }
        assert!(cluster.leader() == Some(self.leader), "leadership is handed over");
    }

    fn write_some(&self, cluster: &mut Cluster) {
        for _ in 0..3 {
            cluster.propose(self.leader, 1);
            cluster.run_for(Duration::from_millis(10));
        }
    }
}

/// For how long links that come and go are cut, and are there.
const FLAPS_MS: [u64; 4] = [30, 70, 200, 330];

/// Clients try every node.
fn try_to_write(cluster: &mut Cluster) {
    for id in 1..=cluster.len() {
        if cluster.replica(id).is_some_and(|replica| replica.role() == Role::Leader) {
            cluster.propose(id, 1);
        }
    }
    cluster.run_for(Duration::from_millis(5));
}

/// Clients try every node until something new is committed.
fn serves(cluster: &mut Cluster, patience: Duration) -> Option<Duration> {
    let (start, before) = (cluster.now, cluster.chosen_up_to());
    while cluster.now.since(start) < patience {
        try_to_write(cluster);
        // An entry by which a leader only says that it leads is no write.
        if cluster.commands_up_to() > before {
            return Some(cluster.now.since(start));
        }
    }
    None
}

/// One of each class of directed graphs on `nodes` nodes that differ in the numbering alone.
pub fn graphs(nodes: u64) -> Vec<BTreeSet<(u64, u64)>> {
    let links = links(nodes);
    let bit = |a: u64, b: u64| links.iter().position(|link| *link == (a, b)).unwrap_or(0);
    let mut renamings = vec![Vec::new()];
    for _ in 0..nodes {
        renamings = renamings
            .into_iter()
            .flat_map(|r: Vec<u64>| {
                let free: Vec<u64> = (1..=nodes).filter(|n| !r.contains(n)).collect();
                free.into_iter().map(move |n| [&r[..], &[n]].concat())
            })
            .collect();
    }
    // Where each renaming takes each bit.
    let moves: Vec<Vec<usize>> = renamings
        .iter()
        .map(|r| links.iter().map(|(a, b)| bit(r[*a as usize - 1], r[*b as usize - 1])).collect())
        .collect();
    let mut seen = vec![false; 1 << links.len()];
    let mut graphs = Vec::new();
    for graph in 0..seen.len() {
        if seen[graph] {
            continue;
        }
        for renamed in &moves {
            let image = (0..links.len()).filter(|i| graph >> i & 1 == 1);
            seen[image.fold(0, |image, i| image | 1 << renamed[i])] = true;
        }
        graphs.push((0..links.len()).filter(|i| graph >> i & 1 == 1).map(|i| links[i]).collect());
    }
    graphs
}

/// Every subset of links cut, up to the numbering, with every node as the leader before.
pub fn every(nodes: u64) -> Vec<Partition> {
    let graphs = graphs(nodes).into_iter();
    graphs
        .flat_map(|cut| (1..=nodes).map(move |leader| Partition::of(nodes, leader, cut.clone())))
        .collect()
}

/// Both directions of all links except those of `hub`.
fn all_but_the_hubs(nodes: u64, hub: u64) -> BTreeSet<(u64, u64)> {
    links(nodes).into_iter().filter(|(a, b)| *a != hub && *b != hub).collect()
}

/// The cases that have a name.
pub fn named() -> Vec<(&'static str, Partition)> {
    let star = |leader| Partition::of(5, leader, all_but_the_hubs(5, 1));
    let constrained = Partition { lagging: Some(1), leader_dies: true, ..star(5) };
    let chained = Partition::of(3, 1, [(1, 3), (3, 1)]);
    let chained_5 = {
        let far = links(5).into_iter().filter(|(a, b)| a.abs_diff(*b) > 1);
        Partition::of(5, 1, far)
    };
    vec![
        ("quorum loss: the leader keeps only the hub", star(5)),
        ("constrained election: the hub lags, the leader is gone", constrained),
        ("chained: the ends do not hear each other", chained),
        ("chained, five in a row", chained_5),
        ("one way: the leader is not heard", Partition::of(3, 1, [(1, 2), (1, 3)])),
        ("one way: the leader does not hear", Partition::of(3, 1, [(2, 1), (3, 1)])),
        ("flapping", Partition { flaps: 40, ..Partition::of(3, 1, [(1, 2), (2, 1)]) }),
        ("flapping star", Partition { flaps: 40, ..star(5) }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_graphs_as_the_books_say() {
        assert_eq!([1, 2, 3, 4].map(|n| graphs(n).len()), [1, 3, 16, 218]);
    }

    #[test]
    fn a_hub_reaches_a_quorum_and_a_ring_does_not() {
        assert!(named().iter().all(|(_, case)| case.is_promised()));
        let one_way = links(3).into_iter().filter(|(a, b)| a < b);
        assert!(!Partition::of(3, 1, one_way).is_promised());
    }
}
