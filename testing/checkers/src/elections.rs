//! Election safety (Raft, figure 3): at most one leader for each ballot's round, in each epoch.

use crate::violation::Violation;
use quorate_base::{Ballot, NodeId};
use std::collections::BTreeMap;

/// Who led which round, and who voted for whom.
#[derive(Clone, Default, Debug)]
pub struct Elections {
    leaders: BTreeMap<(u32, u64), NodeId>,
    /// For each voter, epoch and round: who got the vote.
    votes: BTreeMap<(NodeId, u32, u64), NodeId>,
}

impl Elections {
    /// `node` says that it leads `ballot`'s round of an epoch.
    pub fn leads(&mut self, node: NodeId, epoch: u32, ballot: Ballot) -> Result<(), Violation> {
        let known = *self.leaders.entry((epoch, ballot.round)).or_insert(node);
        if known != node {
            let text = format!("{known} and {node} both lead round {}", ballot.round);
            return Err(Violation::new("election safety", text));
        }
        Ok(())
    }

    /// `voter` told `candidate` that it has its vote. A vote is given once in a round of an epoch,
    /// whatever happens to the voter.
    pub fn voted(
        &mut self,
        voter: NodeId,
        (epoch, round): (u32, u64),
        candidate: NodeId,
    ) -> Result<(), Violation> {
        let known = *self.votes.entry((voter, epoch, round)).or_insert(candidate);
        if known != candidate {
            let text = format!("{voter} votes for {known} and for {candidate} in round {round}");
            return Err(Violation::new("one vote for each round", text));
        }
        Ok(())
    }

    /// How many rounds had a leader.
    pub fn rounds(&self) -> usize {
        self.leaders.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leader_for_each_round() {
        let mut elections = Elections::default();
        let ballot = |round, node| Ballot::new(round, NodeId(node));
        assert!(elections.leads(NodeId(1), 0, ballot(1, 1)).is_ok());
        assert!(elections.leads(NodeId(1), 0, ballot(1, 1)).is_ok());
        assert!(elections.leads(NodeId(2), 0, ballot(2, 2)).is_ok());
        assert!(elections.leads(NodeId(2), 0, ballot(1, 2)).is_err());
        assert!(elections.leads(NodeId(2), 1, ballot(1, 2)).is_ok(), "another epoch's round");
        assert_eq!(elections.rounds(), 3);
    }

    #[test]
    fn one_vote_for_each_round() {
        let mut elections = Elections::default();
        let mut vote = |round, candidate| elections.voted(NodeId(3), (0, round), NodeId(candidate));
        assert!(vote(1, 1).is_ok() && vote(1, 1).is_ok() && vote(2, 2).is_ok());
        assert!(vote(1, 2).is_err());
    }
}
