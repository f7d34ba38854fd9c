//! How much each node asks of a keyspace: counted as it is applied, for whoever decides where its
//! leader should be.
//!
//! Not replicated, and nothing that is depends on it: each replica counts what it has applied
//! since it was opened.

use quorate_base::NodeId;
use std::collections::BTreeMap;

/// What one node has asked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Asked {
    /// Commands,
    pub commands: u64,
    /// and those of them that are about branches of transactions.
    pub branches: u64,
}

/// What every node has asked.
#[derive(Clone, Default, Debug)]
pub(crate) struct Asks(BTreeMap<NodeId, Asked>);

impl Asks {
    pub fn count(&mut self, node: NodeId, is_branch: bool) {
        let asked = self.0.entry(node).or_default();
        asked.commands += 1;
        asked.branches += u64::from(is_branch);
    }

    pub fn add(&mut self, more: &Asks) {
        for (node, more) in &more.0 {
            let asked = self.0.entry(*node).or_default();
            asked.commands += more.commands;
            asked.branches += more.branches;
        }
    }

    pub fn list(&self) -> Vec<(NodeId, Asked)> {
        self.0.iter().map(|(node, asked)| (*node, *asked)).collect()
    }
}
