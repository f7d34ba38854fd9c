//! Who belongs to a group, and how that changes.

use alloc::vec::Vec;
use quorate_base::NodeId;

/// The members of a group. Every list is sorted and free of duplicates.
///
/// While `outgoing` is not empty the group is in *joint consensus* (Raft section 6): a decision
/// needs a quorum of `voters` and a quorum of `outgoing`.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Membership {
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who voted before the change under way; empty when none is.
    pub outgoing: Vec<NodeId>,
    /// Who receives the log and does not vote.
    pub learners: Vec<NodeId>,
}

impl Membership {
    /// A group of `voters` alone.
    pub fn of(voters: impl IntoIterator<Item = NodeId>) -> Self {
        let mut voters: Vec<NodeId> = voters.into_iter().collect();
        voters.sort_unstable();
        voters.dedup();
        Membership { voters, outgoing: Vec::new(), learners: Vec::new() }
    }

    /// Whether a change is under way.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `node` votes, in the old or the new set.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Whether `node` belongs to the group at all.
    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.contains(&node)
    }

    /// Everyone who receives the log, each once, in order.
    pub fn all(&self) -> Vec<NodeId> {
        let mut all = self.voters.clone();
        all.extend_from_slice(&self.outgoing);
        all.extend_from_slice(&self.learners);
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A change of members: the sets wanted once it is complete.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// A new node receives the log without a vote.
    AddLearner(NodeId),
    /// A learner, or a new node, becomes a voter.
    AddVoter(NodeId),
    /// A learner becomes a voter, if it holds nearly all of the log.
    Promote(NodeId),
    /// A node leaves the group.
    Remove(NodeId),
    /// Members stay as they are; the entry exists for its context (a new address, say).
    Keep,
}

/// A group has at most this many voters, old and new sets each.
pub const MAX_VOTERS: usize = 32;

/// A group has at most this many learners.
pub const MAX_LEARNERS: usize = 64;

impl Membership {
    /// The membership after `change` in one step, or nothing if the change makes no sense: for an
    /// engine whose old and new majorities meet because they differ in one voter.
    pub fn apply_at_once(&self, change: &Change) -> Option<Membership> {
        self.apply(change).map(|next| next.leave_joint())
    }

    /// The membership that starts `change`, or nothing if the change makes no sense here.
    ///
    /// Who votes changes only through joint consensus, which [`Membership::leave_joint`] ends;
    /// learners come and go directly. A change is not possible while another is under way.
    pub fn apply(&self, change: &Change) -> Option<Membership> {
        if self.is_joint() {
            return None;
        }
        let mut next = self.clone();
        match *change {
            Change::Keep => return Some(next),
            Change::AddLearner(node) => {
                if node.is_none() || self.contains(node) || self.learners.len() >= MAX_LEARNERS {
                    return None;
                }
                insert(&mut next.learners, node);
            }
            Change::Promote(node) if !self.learners.contains(&node) => return None,
            Change::AddVoter(node) | Change::Promote(node) => {
                if node.is_none() || self.is_voter(node) || self.voters.len() >= MAX_VOTERS {
                    return None;
                }
                next.learners.retain(|&n| n != node);
                next.outgoing = core::mem::take(&mut next.voters);
                next.voters.clone_from(&next.outgoing);
                insert(&mut next.voters, node);
            }
            Change::Remove(node) => {
                if self.learners.contains(&node) {
                    next.learners.retain(|&n| n != node);
                    return Some(next);
                }
                if !self.is_voter(node) || self.voters.len() == 1 {
                    return None;
                }
                next.outgoing = core::mem::take(&mut next.voters);
                next.voters = next.outgoing.iter().copied().filter(|&n| n != node).collect();
            }
        }
        Some(next)
    }

    /// The membership after joint consensus: the new voters alone.
    pub fn leave_joint(&self) -> Membership {
        Membership {
            voters: self.voters.clone(),
            outgoing: Vec::new(),
            learners: self.learners.clone(),
        }
    }
}

fn insert(sorted: &mut Vec<NodeId>, node: NodeId) {
    if let Err(at) = sorted.binary_search(&node) {
        sorted.insert(at, node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Membership {
        let nodes = |ids: &[u64]| ids.iter().map(|&n| NodeId(n)).collect();
        Membership { voters: nodes(voters), outgoing: nodes(outgoing), learners: nodes(learners) }
    }

    #[test]
    fn voters_change_through_joint_consensus_alone() {
        let start = group(&[1, 3], &[], &[2]);
        let joint = start.apply(&Change::AddVoter(NodeId(2))).unwrap();
        assert_eq!(start.apply(&Change::Promote(NodeId(2))), Some(joint.clone()));
        assert_eq!(joint, group(&[1, 2, 3], &[1, 3], &[]));
        assert_eq!(joint.apply(&Change::Keep), None, "one change at a time");
        assert_eq!(joint.leave_joint(), group(&[1, 2, 3], &[], &[]));
        let joint = start.apply(&Change::Remove(NodeId(1))).unwrap();
        assert_eq!(joint, group(&[3], &[1, 3], &[2]));
    }

    #[test]
    fn learners_change_directly() {
        let start = group(&[1], &[], &[]);
        let more = start.apply(&Change::AddLearner(NodeId(2))).unwrap();
        assert_eq!(more, group(&[1], &[], &[2]));
        assert_eq!(more.apply(&Change::Remove(NodeId(2))), Some(start));
    }

    #[test]
    fn changes_that_make_no_sense_are_refused() {
        let start = group(&[1], &[], &[2]);
        let refused = [
            Change::Remove(NodeId(1)),
            Change::Remove(NodeId(9)),
            Change::AddVoter(NodeId(1)),
            Change::AddVoter(NodeId::NONE),
            Change::Promote(NodeId(1)),
            Change::Promote(NodeId(9)),
            Change::AddLearner(NodeId(1)),
            Change::AddLearner(NodeId(2)),
            Change::AddLearner(NodeId::NONE),
        ];
        assert!(refused.iter().all(|change| start.apply(change).is_none()));
    }
}
