//! Votes, decisions, and why.

use crate::ids::BranchId;
use alloc::string::String;

/// Longest text of a refusal, in bytes. Whoever makes one cuts it.
pub const MAX_REASON_BYTES: usize = 512;

/// How a transaction ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// Every branch takes effect.
    Commit,
    /// No branch does.
    Abort,
}

/// What a participant says when it was asked to prepare.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Vote {
    /// It can commit and can roll back, whatever happens to it, until it is told which.
    Yes,
    /// It changed nothing, and does not care how the transaction ends.
    ReadOnly,
    /// It cannot commit, and has rolled back.
    No(Reason),
}

impl Vote {
    /// Whether the transaction may commit as far as this vote goes.
    pub fn allows_commit(&self) -> bool {
        !matches!(self, Vote::No(_))
    }
}

/// Why a branch, and so the transaction, cannot commit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// The resource refused, in its own words (at most [`MAX_REASON_BYTES`]).
    Refused(String),
    /// No vote came before the deadline.
    TimedOut,
    /// Whoever took over found no vote.
    NotHeard,
    /// The client asked for it.
    Cancelled,
    /// The coordinator has no record of the transaction, and now has one that says so.
    NoRecord,
    /// A later attempt of the transaction has begun.
    Superseded,
}

/// What was decided.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Decision {
    /// Every branch commits.
    Commit,
    /// Every branch rolls back.
    Abort {
        /// The branch that caused it, if one did.
        branch: Option<BranchId>,
        /// Why.
        reason: Reason,
    },
}

impl Decision {
    /// An abort that no branch in particular caused.
    pub fn abort(reason: Reason) -> Self {
        Decision::Abort { branch: None, reason }
    }

    /// The decision without its reason.
    pub fn outcome(&self) -> Outcome {
        match self {
            Decision::Commit => Outcome::Commit,
            Decision::Abort { .. } => Outcome::Abort,
        }
    }
}

/// The decision that votes make once all are known: commit if none is No (AC3).
pub(crate) fn tally<'a>(votes: impl Iterator<Item = (BranchId, &'a Vote)>) -> Decision {
    let mut votes = votes;
    let refusal = votes.find_map(|(branch, vote)| match vote {
        Vote::No(reason) => Some((branch, reason.clone())),
        _ => None,
    });
    match refusal {
        None => Decision::Commit,
        Some((branch, reason)) => Decision::Abort { branch: Some(branch), reason },
    }
}
