//! Of which entries the voters can still speak: what bounds the damage that is done.
//!
//! A voter is *blind* where its log or its state may have held an entry that can be read no more.
//! An entry is safe, and can be found again, if a quorum of voters is not blind there: whoever
//! committed it was a quorum too, and one voter is in both. Under Raft a voter that does not know
//! the ballots of what it lost can only wait for a leader: it counts as blind from there on.
//!
//! Judged by what is durable, also where a node runs and may know more: power may fail at any time.

use crate::damage::Logs;
use crate::world::{GROUP, World};
use quorate_base::{GroupId, Index, NodeId, Position};
use quorate_keyspace::Keyspace;
use quorate_replicated_log::{Protocol, Recovered};
use quorate_service::{Service, ServiceError};
use quorate_wal::RecoveredGroup;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

type Ranges = Vec<RangeInclusive<Index>>;

const EVERYTHING: RangeInclusive<Index> = 1..=Index::MAX;

/// What the logs of some nodes hold, as far as they can be opened.
type Found = BTreeMap<u64, Option<Logs>>;

impl World<'_> {
    /// Whether of every entry of every group a quorum of voters can speak.
    pub fn all_can_be_told(&self) -> bool {
        self.can_be_told_by(&self.members().voters)
    }

    /// The same if these were the voters of the group that everything is about. The further groups
    /// keep their founders, but whoever leaves is shut down for all groups.
    pub fn can_be_told_by(&self, voters: &[NodeId]) -> bool {
        let mut found = self.found(voters);
        if !self.is_told(GROUP, voters, &found) {
            return false;
        }
        if self.plan.neighbours == 0 {
            return true;
        }
        let founders: Vec<NodeId> = (1..=self.plan.nodes).map(NodeId).collect();
        let stays =
            |node: &NodeId| voters.contains(node) && !self.nodes[node.0 as usize - 1].ruined;
        let (stay, leave): (Vec<NodeId>, Vec<NodeId>) = founders.iter().partition(|it| stays(it));
        if stay.len() * 2 <= founders.len() {
            return true; // Nothing is demanded of them any more.
        }
        let missing: Vec<_> = stay.into_iter().filter(|it| !found.contains_key(&it.0)).collect();
        found.extend(self.found(&missing));
        found.extend(leave.iter().map(|node| (node.0, None)));
        crate::neighbours::groups(self.plan.neighbours)
            .all(|group| self.is_told(group, &founders, &found))
    }

    fn found(&self, nodes: &[NodeId]) -> Found {
        let ruined = |id: u64| self.nodes[id as usize - 1].ruined;
        // One that has neither its state nor where its log begins does not start, for any group.
        let begins = |id: u64, logs: &Logs| {
            logs.get(&GROUP)
                .is_none_or(|log| log.base.position.index > 0 || !self.lacks_state(id, log))
        };
        let logs = |id: u64| self.logs_of(id).filter(|logs| !ruined(id) && begins(id, logs));
        nodes.iter().map(|node| (node.0, logs(node.0))).collect()
    }

    /// Of every entry of the group a quorum can speak, and all are in the same epoch.
    fn is_told(&self, group: GroupId, voters: &[NodeId], found: &Found) -> bool {
        let log = |node: &NodeId| found.get(&node.0)?.as_ref()?.get(&group);
        let epochs = voters.iter().filter_map(log).map(|log| log.base.epoch);
        if epochs.clone().min() != epochs.max() {
            return false;
        }
        let blind = voters.iter().map(|node| match found.get(&node.0) {
            Some(Some(logs)) => self.blind(node.0, group, logs.get(&group)),
            _ => vec![EVERYTHING],
        });
        let blind: Vec<Ranges> = blind.collect();
        let mut edges = blind.iter().flatten().map(|range| *range.start());
        edges.all(|index| {
            let speaks = |ranges: &&Ranges| !ranges.iter().any(|range| range.contains(&index));
            blind.iter().filter(speaks).count() * 2 > voters.len()
        })
    }

    fn blind(&self, id: u64, group: GroupId, log: Option<&RecoveredGroup>) -> Ranges {
        let Some(log) = log else { return Vec::new() }; // It has not begun.
        let lost = group == GROUP && self.lacks_state(id, log);
        if lost && log.base.position.index == 0 {
            return vec![EVERYTHING];
        }
        // What is durable of a state reaches to the log's base at least.
        let applied = if lost { quorate_driver::lost_state(log) } else { log.base.clone() };
        match quorate_driver::resume(log.clone(), applied) {
            Ok((recovered, _)) => blind_spots(&recovered, log.base.protocol),
            Err(_) => vec![EVERYTHING],
        }
    }

    /// Whether a node has no state that its log could go on from.
    fn lacks_state(&self, id: u64, log: &RecoveredGroup) -> bool {
        let node = &self.nodes[id as usize - 1];
        let reaches = |index: Index| index >= log.base.position.index;
        if node.state_damaged {
            return true;
        }
        match &node.running {
            Some(running) => !reaches(running.host.service().base().position.index),
            None => match Keyspace::open(node.engine.clone(), self.keyspace_config(&log.base)) {
                Ok(service) => !reaches(service.base().position.index),
                Err(ServiceError::Damaged(_)) => true,
                Err(_) => false,
            },
        }
    }
}

fn blind_spots(found: &Recovered, protocol: Protocol) -> Ranges {
    let Some(first) = found.damaged.iter().map(|range| *range.start()).min() else {
        return Vec::new();
    };
    match protocol {
        Protocol::Raft if !knows_its_log(found) => vec![first..=Index::MAX],
        _ => found.damaged.clone(),
    }
}

/// Whether the ballot of every lost entry is known: it is told, or those on both sides are of one
/// round.
fn knows_its_log(found: &Recovered) -> bool {
    let entries = found.entries.iter().flat_map(|run| run.iter().map(|entry| entry.position()));
    let mut marks: Vec<Position> = entries.chain(found.damaged_ballots.iter().copied()).collect();
    marks.sort_unstable_by_key(|mark| mark.index);
    let end = found.damaged.iter().map(|range| *range.end()).max().unwrap_or(0);
    let mut before = found.base.position;
    for mark in marks {
        let follows = before.index + 1 >= mark.index;
        if !follows && before.ballot.round != mark.ballot.round {
            return false;
        }
        before = mark;
    }
    end <= before.index || found.hard_state.promised.round == before.ballot.round
}
