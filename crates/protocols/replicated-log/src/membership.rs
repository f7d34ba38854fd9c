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
    /// A node leaves the group.
    Remove(NodeId),
    /// Members stay as they are; the entry exists for its context (a new address, say).
    Keep,
}
