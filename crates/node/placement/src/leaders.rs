//! Leaders, spread over the nodes, but for those that are where they are asked.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use quorate_base::{GroupId, NodeId};

/// A group, and who leads it as far as a node sees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Led {
    /// The group.
    pub group: GroupId,
    /// Its leader, or nobody.
    pub leader: NodeId,
    /// Who could lead it: its voters that are alive. Nobody else, where it is to stay.
    pub heirs: Vec<NodeId>,
    /// Who asks for nearly all that it does for transactions ([`crate::Asking`]).
    pub asked_by: Option<NodeId>,
}

/// A node that leads so many groups more than another is too many gives one away: with one more,
/// the two would only change places.
const DIFFERENCE: usize = 2;

/// Of the groups that `me` leads, those to be handed over now and to whom, `most` of them at most:
/// first to whoever asks for nearly all that they do; then, of those that are not for this node
/// to ask, each to the heir that leads the fewest, as long as that makes a difference.
pub fn moves(me: NodeId, groups: &[Led], most: usize) -> Vec<(GroupId, NodeId)> {
    let mut leads: BTreeMap<NodeId, usize> = BTreeMap::new();
    for led in groups.iter().filter(|led| !led.leader.is_none()) {
        *leads.entry(led.leader).or_default() += 1;
    }
    let mut moves: Vec<(GroupId, NodeId)> = Vec::new();
    for led in groups.iter().filter(|led| led.leader == me) {
        let asks = led.asked_by.filter(|node| *node != me && led.heirs.contains(node));
        if let Some(node) = asks.filter(|_| moves.len() < most) {
            moves.push((led.group, node));
            *leads.entry(me).or_default() -= 1;
            *leads.entry(node).or_default() += 1;
        }
    }
    let mut moved: BTreeSet<GroupId> = moves.iter().map(|(group, _)| *group).collect();
    while moves.len() < most {
        let mine = leads.get(&me).copied().unwrap_or(0);
        let of = |node: &NodeId| leads.get(node).copied().unwrap_or(0);
        let stays = |led: &&Led| led.asked_by == Some(me) || moved.contains(&led.group);
        let free = groups.iter().filter(|led| led.leader == me && !stays(led));
        let best = free
            .flat_map(|led| led.heirs.iter().map(move |heir| (led.group, *heir)))
            .filter(|(_, heir)| *heir != me)
            .min_by_key(|(group, heir)| (of(heir), *heir, core::cmp::Reverse(*group)));
        let Some((group, heir)) = best.filter(|(_, heir)| mine >= of(heir) + DIFFERENCE) else {
            return moves;
        };
        moved.insert(group);
        moves.push((group, heir));
        *leads.entry(me).or_default() -= 1;
        *leads.entry(heir).or_default() += 1;
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(leaders: &[u64], nodes: u64) -> Vec<Led> {
        let heirs: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        let led = |(i, leader): (usize, &u64)| Led {
            group: GroupId(i as u64 + 1),
            leader: NodeId(*leader),
            heirs: heirs.clone(),
            asked_by: None,
        };
        leaders.iter().enumerate().map(led).collect()
    }

    /// All nodes look at the same moment, again and again; leads per node in the end.
    fn settle(mut groups: Vec<Led>, nodes: u64) -> (Vec<usize>, usize) {
        for round in 0..100 {
            let mut all = Vec::new();
            for me in 1..=nodes {
                all.extend(moves(NodeId(me), &groups, 4));
            }
            if all.is_empty() {
                let of = |node| groups.iter().filter(|led| led.leader == NodeId(node)).count();
                return ((1..=nodes).map(of).collect(), round);
            }
            for (group, heir) in all {
                for led in groups.iter_mut().filter(|led| led.group == group) {
                    led.leader = heir;
                }
            }
        }
        panic!("leadership moves to and fro: {groups:?}");
    }

    #[test]
    fn leaders_are_spread_and_then_left_alone() {
        let (leads, rounds) = settle(world(&[1; 30], 3), 3);
        assert!(leads.iter().all(|n| (9..=11).contains(n)) && rounds < 10, "{leads:?} {rounds}");
        let (leads, _) = settle(world(&[[1; 15], [2; 15]].concat(), 3), 3);
        assert!(leads.iter().all(|n| (9..=11).contains(n)), "{leads:?}");
        assert_eq!(settle(world(&[1, 2, 2], 3), 3).1, 1);
        assert_eq!(settle(world(&[1, 2], 3), 3).1, 0, "one more is not too many");
    }

    #[test]
    fn a_group_without_heirs_stays_but_counts() {
        let mut groups = world(&[1, 1, 1], 2);
        groups[0].heirs.clear();
        assert_eq!(moves(NodeId(1), &groups, 9), [(GroupId(3), NodeId(2))]);
        groups[1].heirs.clear();
        groups[2].heirs.clear();
        assert_eq!(moves(NodeId(1), &groups, 9), []);
    }

    #[test]
    fn groups_without_a_leader_count_for_nobody() {
        assert_eq!(moves(NodeId(1), &world(&[0, 0, 1], 3), 9), []);
        assert_eq!(moves(NodeId(2), &world(&[1, 1, 1], 3), 9), []);
    }

    #[test]
    fn a_group_goes_where_it_is_asked_and_stays_there() {
        let mut groups = world(&[1, 1, 2, 2, 3, 3], 3);
        for led in &mut groups[..4] {
            led.asked_by = Some(NodeId(1));
        }
        assert_eq!(moves(NodeId(1), &groups, 9), []);
        assert_eq!(moves(NodeId(2), &groups, 1), [(GroupId(3), NodeId(1))]);
        let (leads, _) = settle(groups.clone(), 3);
        assert_eq!(leads, [4, 1, 1], "the others are spread");
        // Where nobody else asks any more all are.
        groups.iter_mut().for_each(|led| led.leader = NodeId(1));
        groups[0].asked_by = Some(NodeId(9));
        groups[1..].iter_mut().for_each(|led| led.asked_by = None);
        assert_eq!(settle(groups, 3).0, [2, 2, 2], "nor where who asks has no vote");
    }
}
