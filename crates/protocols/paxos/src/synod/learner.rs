//! The learner: knows what is chosen from what acceptors say they accepted.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use quorate_base::{Ballot, NodeId};

/// Collects acceptances until a quorum of one ballot is among them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Learner<V> {
    quorum: usize,
    /// Who accepted under each ballot. A ballot has one value.
    accepted: BTreeMap<Ballot, Vec<NodeId>>,
    chosen: Option<V>,
}

impl<V: Clone> Learner<V> {
    /// Of a decision that `quorum` acceptors make.
    pub fn new(quorum: usize) -> Self {
        Learner { quorum, accepted: BTreeMap::new(), chosen: None }
    }

    /// The chosen value, once it is known.
    pub fn chosen(&self) -> Option<&V> {
        self.chosen.as_ref()
    }

    /// An acceptor says that it accepted `value` under `ballot`. Returns the chosen value once it
    /// is known.
    pub fn learn(&mut self, from: NodeId, ballot: Ballot, value: &V) -> Option<&V> {
        let by = self.accepted.entry(ballot).or_default();
        if !by.contains(&from) {
            by.push(from);
        }
        if by.len() >= self.quorum && self.chosen.is_none() {
            self.chosen = Some(value.clone());
        }
        self.chosen.as_ref()
    }
}
