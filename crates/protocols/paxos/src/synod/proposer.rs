//! The proposer: makes sure that what it proposes cannot contradict what may be chosen already.

use super::acceptor::Promise;
use alloc::vec::Vec;
use quorate_base::{Ballot, NodeId};

/// How far a proposer is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// It collects promises.
    Prepare,
    /// It asks to accept its value, and collects acceptances.
    Accept,
    /// Its value is chosen.
    Chosen,
}

/// One attempt of one proposer, under one ballot.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Proposer<V> {
    ballot: Ballot,
    value: V,
    /// Ballot of the accepted value that replaced its own.
    adopted: Option<Ballot>,
    quorum: usize,
    phase: Phase,
    promised: Vec<NodeId>,
    accepted: Vec<NodeId>,
}

impl<V: Clone> Proposer<V> {
    /// Proposes `value` under `ballot`, which must be its own and never used before; `quorum`
    /// acceptors decide, and any two quorums must share one.
    pub fn propose(ballot: Ballot, value: V, quorum: usize) -> Self {
        Proposer {
            ballot,
            value,
            adopted: None,
            quorum,
            phase: Phase::Prepare,
            promised: Vec::new(),
            accepted: Vec::new(),
        }
    }

    /// Its ballot.
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The value it asks to accept, or will: its own, unless an accepted one came up.
    pub fn value(&self) -> &V {
        &self.value
    }

    /// An acceptor promised the ballot. Returns the value to be accepted once a quorum has: that
    /// of the highest ballot any of them accepted (P2c), else its own.
    pub fn promised(&mut self, from: NodeId, promise: Promise<V>) -> Option<&V> {
        if self.phase != Phase::Prepare || !insert(&mut self.promised, from) {
            return None;
        }
        if let Some((ballot, value)) = promise.accepted
            && self.adopted.is_none_or(|adopted| ballot > adopted)
        {
            self.adopted = Some(ballot);
            self.value = value;
        }
        if self.promised.len() < self.quorum {
            return None;
        }
        self.phase = Phase::Accept;
        Some(&self.value)
    }

    /// An acceptor accepted the value under the ballot. Returns it once it is chosen.
    pub fn accepted(&mut self, from: NodeId) -> Option<&V> {
        if self.phase != Phase::Accept || !insert(&mut self.accepted, from) {
            return None;
        }
        if self.accepted.len() < self.quorum {
            return None;
        }
        self.phase = Phase::Chosen;
        Some(&self.value)
    }
}

/// Adds a node to a sorted list; tells whether it is new.
fn insert(nodes: &mut Vec<NodeId>, node: NodeId) -> bool {
    let at = nodes.binary_search(&node);
    if let Err(at) = at {
        nodes.insert(at, node);
    }
    at.is_err()
}
