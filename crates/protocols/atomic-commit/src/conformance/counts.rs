//! What a run costs.

use crate::{Address, Body, Write};

/// Messages between different sites, by kind, and forced writes, by site.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Requests to prepare.
    pub prepares: u64,
    /// Votes to the coordinator.
    pub votes: u64,
    /// Pre-commits and pre-aborts.
    pub pre_decisions: u64,
    /// Answers to them.
    pub pre_decided: u64,
    /// Phase 2a of Paxos Commit.
    pub accepts: u64,
    /// Phase 2b of Paxos Commit.
    pub accepted: u64,
    /// Decisions.
    pub decisions: u64,
    /// Proofs that they are applied.
    pub acknowledgements: u64,
    /// Elections, phase 1, questions, and their answers.
    pub recovery: u64,
    /// Forced by the coordinator.
    pub forced_by_coordinator: u64,
    /// Forced by participants.
    pub forced_by_participants: u64,
    /// Forced by acceptors.
    pub forced_by_acceptors: u64,
}

impl Counts {
    pub(super) fn message(&mut self, body: &Body) {
        *match body {
            Body::Prepare | Body::PrepareAlone => &mut self.prepares,
            Body::Vote(_) => &mut self.votes,
            Body::Decide(_) => &mut self.decisions,
            Body::Acknowledge(_) => &mut self.acknowledgements,
            Body::PreDecide { .. } => &mut self.pre_decisions,
            Body::PreDecided { .. } => &mut self.pre_decided,
            Body::AcceptVotes { .. } => &mut self.accepts,
            Body::AcceptedVotes { .. } => &mut self.accepted,
            Body::Inquire
            | Body::Elect { .. }
            | Body::Elected { .. }
            | Body::AskVotes { .. }
            | Body::Votes { .. }
            | Body::Outrun { .. } => &mut self.recovery,
        } += 1;
    }

    pub(super) fn write(&mut self, by: Address, write: &Write) {
        *match by {
            Address::Coordinator => &mut self.forced_by_coordinator,
            Address::Participant(_) => &mut self.forced_by_participants,
            Address::Acceptor(_) => &mut self.forced_by_acceptors,
        } += u64::from(write.forced);
    }

    /// All messages.
    pub fn messages(&self) -> u64 {
        self.prepares
            + self.votes
            + self.pre_decisions
            + self.pre_decided
            + self.accepts
            + self.accepted
            + self.decisions
            + self.acknowledgements
            + self.recovery
    }

    /// All forced writes.
    pub fn forced(&self) -> u64 {
        self.forced_by_coordinator + self.forced_by_participants + self.forced_by_acceptors
    }
}
