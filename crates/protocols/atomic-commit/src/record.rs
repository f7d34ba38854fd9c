//! What is durable. A site's whole memory is the list of its records, in order.

use crate::ids::BranchId;
use crate::vote::{Decision, Outcome, Vote};
use alloc::vec::Vec;
use quorate_base::Ballot;

/// One record. A host may keep it in a local log, as part of a replicated group's state, or leave
/// it out where the resource remembers the same (a prepared branch of a database).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Record {
    /// Participant: the branch is prepared; Yes may have been said.
    Prepared,
    /// Participant: it voted read-only (where that must not be forgotten).
    ReadOnly,
    /// The decision, as far as this site is concerned. At a coordinator without a record of the
    /// transaction this is the tombstone.
    Decided {
        /// What it is.
        decision: Decision,
        /// Coordinator: the branches that must prove that they applied it.
        unproven: Vec<BranchId>,
    },
    /// Coordinator: every branch has proven that it applied the decision.
    Completed,
    /// Three-phase: the ballots of this site. Keidar and Dolev call them last elected and last
    /// attempt.
    Ballots {
        /// It accepts nothing below.
        promised: Ballot,
        /// What it accepted last.
        accepted: Option<(Ballot, Outcome)>,
    },
    /// Paxos Commit: an acceptor's whole state.
    Votes {
        /// It accepts nothing below.
        promised: Ballot,
        /// What it accepted last, for each branch in order.
        accepted: Vec<Option<(Ballot, Vote)>>,
    },
    /// Paxos Commit: a leader that is no acceptor will never lead this round again.
    Round(u64),
}
