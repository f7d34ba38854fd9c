//! Where replicas are, and the next step from there to where they should be.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use quorate_base::NodeId;
use quorate_replicated_log::Membership;

/// `wanted` of the candidates, those with the least load first; of equals those of lower id.
/// Nothing if there are not so many.
pub fn choose(
    candidates: &[NodeId],
    load: &BTreeMap<NodeId, usize>,
    wanted: usize,
) -> Option<Vec<NodeId>> {
    let mut order: Vec<NodeId> = candidates.to_vec();
    order.sort_unstable_by_key(|node| (load.get(node).copied().unwrap_or(0), *node));
    order.dedup();
    let mut chosen = order.get(..wanted)?.to_vec();
    chosen.sort_unstable();
    Some(chosen)
}

/// How a group's replicas stand.
#[derive(Clone, Copy, Debug)]
pub struct Replicas<'a> {
    /// The voters of the cluster: where replicas can be.
    pub cluster: &'a [NodeId],
    /// How many replicas the group should have.
    pub wanted: usize,
    /// How many of them vote at the most; the others follow as learners.
    pub voting: usize,
    /// Where the directory says that they are.
    pub listed: &'a [NodeId],
    /// Who belongs to the group by its own log.
    pub members: &'a Membership,
    /// How many replicas each node of the cluster has.
    pub load: &'a BTreeMap<NodeId, usize>,
}

/// One change on the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The directory says now: these nodes.
    List(Vec<NodeId>),
    /// The node is sent the group's log, and does not vote yet.
    AddLearner(NodeId),
    /// The learner votes.
    Promote(NodeId),
    /// The node leaves the group.
    Remove(NodeId),
}

/// What is to be done next, if anything. For the group's leader to ask.
pub fn next_step(replicas: &Replicas<'_>) -> Option<Step> {
    let Replicas { cluster, wanted, voting, listed, members, load } = *replicas;
    if members.is_joint() {
        return None;
    }
    let keep: Vec<NodeId> = listed.iter().copied().filter(|node| cluster.contains(node)).collect();
    if keep.len() < wanted {
        let free: Vec<NodeId> =
            cluster.iter().copied().filter(|node| !listed.contains(node)).collect();
        if let Some(more) = choose(&free, load, 1) {
            let mut list = listed.to_vec();
            list.extend(more);
            list.sort_unstable();
            return Some(Step::List(list));
        }
    }
    if let Some(node) = keep.iter().find(|node| !members.contains(**node)) {
        return Some(Step::AddLearner(*node));
    }
    let votes = keep.iter().filter(|node| members.voters.contains(node)).count();
    if votes < voting
        && let Some(node) = keep.iter().find(|node| members.learners.contains(node))
    {
        return Some(Step::Promote(*node));
    }
    let all = members.voters.iter().chain(&members.learners);
    if let Some(node) = all.into_iter().find(|node| !keep.contains(node))
        && !keep.is_empty()
    {
        return Some(Step::Remove(*node));
    }
    (keep.len() < listed.len() && !keep.is_empty()).then_some(Step::List(keep))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn nodes(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn the_least_loaded_are_chosen() {
        let load = [(NodeId(1), 5), (NodeId(2), 0), (NodeId(3), 5)].into();
        assert_eq!(choose(&nodes(&[1, 2, 3, 4]), &load, 3), Some(nodes(&[1, 2, 4])));
        assert_eq!(choose(&nodes(&[1, 2]), &load, 3), None);
    }

    /// Steps until nothing is to be done, each carried out at once.
    fn settle(cluster: &[u64], wanted: usize, listed: &[u64], voters: &[u64]) -> Vec<Step> {
        settle_with(usize::MAX, cluster, wanted, listed, voters)
    }

    fn settle_with(
        voting: usize,
        cluster: &[u64],
        wanted: usize,
        listed: &[u64],
        voters: &[u64],
    ) -> Vec<Step> {
        let (cluster, mut listed) = (nodes(cluster), nodes(listed));
        let mut members = Membership::of(nodes(voters));
        let (mut steps, load) = (Vec::new(), BTreeMap::new());
        loop {
            let view = Replicas {
                cluster: &cluster,
                wanted,
                voting,
                listed: &listed,
                members: &members,
                load: &load,
            };
            let Some(step) = next_step(&view) else { return steps };
            match &step {
                Step::List(list) => listed.clone_from(list),
                Step::AddLearner(node) => members.learners.push(*node),
                Step::Promote(node) => {
                    members.learners.retain(|learner| learner != node);
                    members.voters.push(*node);
                }
                Step::Remove(node) => {
                    members.voters.retain(|voter| voter != node);
                    members.learners.retain(|learner| learner != node);
                }
            }
            steps.push(step);
            assert!(steps.len() < 30, "it ends");
        }
    }

    #[test]
    fn nothing_is_done_where_all_is_well() {
        assert_eq!(settle(&[1, 2, 3, 4], 3, &[1, 2, 3], &[1, 2, 3]), []);
    }

    #[test]
    fn a_removed_node_is_replaced_before_it_goes() {
        let steps = settle(&[1, 2, 4, 5], 3, &[1, 2, 3], &[1, 2, 3]);
        let (new, old) = (NodeId(4), NodeId(3));
        assert_eq!(
            steps,
            [
                Step::List(nodes(&[1, 2, 3, 4])),
                Step::AddLearner(new),
                Step::Promote(new),
                Step::Remove(old),
                Step::List(nodes(&[1, 2, 4])),
            ]
        );
    }

    #[test]
    fn without_a_replacement_it_just_goes_and_comes_back_with_the_next_node() {
        let steps = settle(&[1, 2], 3, &[1, 2, 3], &[1, 2, 3]);
        assert_eq!(steps, [Step::Remove(NodeId(3)), Step::List(nodes(&[1, 2]))]);
        let steps = settle(&[1, 2, 9], 3, &[1, 2], &[1, 2]);
        assert_eq!(steps.len(), 3);
        assert_eq!(steps[2], Step::Promote(NodeId(9)));
    }

    #[test]
    fn where_one_votes_the_others_follow() {
        let steps = settle_with(1, &[1, 2, 3], 3, &[2], &[2]);
        let (one, three) = (NodeId(1), NodeId(3));
        assert_eq!(
            steps,
            [
                Step::List(nodes(&[1, 2])),
                Step::List(nodes(&[1, 2, 3])),
                Step::AddLearner(one),
                Step::AddLearner(three),
            ]
        );
        // The vote passes to another before its node goes, as long as that runs on.
        let steps = settle_with(1, &[1, 3], 2, &[1, 2, 3], &[2]);
        assert_eq!(
            steps,
            [
                Step::AddLearner(one),
                Step::AddLearner(three),
                Step::Promote(one),
                Step::Remove(NodeId(2)),
                Step::List(nodes(&[1, 3])),
            ]
        );
    }

    #[test]
    fn a_change_under_way_is_left_alone_and_the_last_replica_stays() {
        let mut members = Membership::of(nodes(&[1, 2]));
        members.outgoing = nodes(&[3]);
        let load = BTreeMap::new();
        let cluster = nodes(&[1]);
        let view = Replicas {
            cluster: &cluster,
            wanted: 1,
            voting: 1,
            listed: &cluster,
            members: &members,
            load: &load,
        };
        assert_eq!(next_step(&view), None);
        assert_eq!(settle(&[], 1, &[1], &[1]), vec![]);
    }
}
