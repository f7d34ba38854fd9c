//! Election safety (Raft, figure 3): at most one leader for each ballot's round.

use crate::violation::Violation;
use quorate_base::{Ballot, NodeId};
use std::collections::BTreeMap;

/// Who led which round.
#[derive(Clone, Default, Debug)]
pub struct Elections(BTreeMap<u64, NodeId>);

impl Elections {
    /// `node` says that it leads `ballot`'s round.
    pub fn leads(&mut self, node: NodeId, ballot: Ballot) -> Result<(), Violation> {
        let known = *self.0.entry(ballot.round).or_insert(node);
        if known != node {
            let text = format!("{known} and {node} both lead round {}", ballot.round);
            return Err(Violation::new("election safety", text));
        }
        Ok(())
    }

    /// How many rounds had a leader.
    pub fn rounds(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leader_for_each_round() {
        let mut elections = Elections::default();
        let ballot = |round, node| Ballot::new(round, NodeId(node));
        assert!(elections.leads(NodeId(1), ballot(1, 1)).is_ok());
        assert!(elections.leads(NodeId(1), ballot(1, 1)).is_ok());
        assert!(elections.leads(NodeId(2), ballot(2, 2)).is_ok());
        assert!(elections.leads(NodeId(2), ballot(1, 2)).is_err());
        assert_eq!(elections.rounds(), 2);
    }
}
