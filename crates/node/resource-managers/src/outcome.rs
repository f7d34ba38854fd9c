//! Votes and outcomes, typed so that nothing ambiguous can be taken for success.
//!
//! Invariant: [`Outcome::Applied`] exists only with a [`Proof`], and only a manager that has *seen*
//! the participant's own committed record makes one. An answer of "ok" is not a proof.

use crate::error::Error;
use crate::name::BranchName;
use std::fmt;
use std::time::Duration;

/// What a participant answers to prepare.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Vote {
    /// It is prepared: it can commit whatever happens, and waits for the decision.
    Yes,
    /// It wrote nothing and has ended already: it needs no second phase.
    ReadOnly,
    /// It has rolled back, or will never have prepared; the transaction must be rolled back.
    No(Refusal),
    /// It may or may not be prepared: no vote. Only a rollback, or another prepare, settles it.
    Unknown(Doubt),
}

/// Why a participant votes no.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A statement affected another number of rows than it had to.
    Expectation {
        /// Which statement, from 1.
        statement: usize,
        /// How many rows it had to affect.
        wanted: u64,
        /// How many it affected.
        affected: u64,
    },
    /// A statement failed.
    Statement {
        /// Which statement, from 1.
        statement: usize,
        /// Why.
        error: Error,
    },
    /// The branch as a whole could not be prepared.
    Branch(Error),
    /// There was a prepare of this branch before, and it is over: the fence holds its row.
    Over {
        /// Whether it was committed.
        applied: bool,
    },
    /// The participant refused, with these words.
    Participant(String),
    /// The application handed in a branch that is not prepared as it must be.
    NotAdoptable(String),
}

/// What databases say where a statement met somebody else's: deadlocks, serialization failures.
const OF_OTHERS: [&str; 3] = ["40P01", "40001", "1213"];

impl Refusal {
    /// Whether the participant was not reached.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Refusal::Branch(Error::Unreachable { .. })
                | Refusal::Statement { error: Error::Unreachable { .. }, .. }
        )
    }

    /// The statement that caused it, from 1, if one did by itself: one that met others, in a
    /// deadlock or as of another moment, did not.
    pub fn statement(&self) -> Option<usize> {
        match self {
            Refusal::Statement { error: Error::Refused { code, .. }, .. }
                if OF_OTHERS.contains(&code.as_str()) =>
            {
                None
            }
            Refusal::Expectation { statement, .. } | Refusal::Statement { statement, .. } => {
                Some(*statement)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Expectation { statement, wanted, affected } => {
                write!(f, "statement {statement} affected {affected} rows where {wanted} must be")
            }
            Refusal::Statement { statement, error } => {
                write!(f, "statement {statement} failed: {error}")
            }
            Refusal::Branch(error) => error.fmt(f),
            Refusal::Over { applied: true } => f.write_str("the branch was committed before"),
            Refusal::Over { applied: false } => f.write_str("the branch was rolled back before"),
            Refusal::NotAdoptable(why) | Refusal::Participant(why) => f.write_str(why),
        }
    }
}

/// Why an outcome is not known. Asking again is always safe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Doubt(pub Error);

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not known yet: {}", self.0)
    }
}

/// That a branch was committed: the participant's own committed record of it was seen.
///
/// Made by the managers only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proof(());

impl Proof {
    /// Call only where the record was just read.
    pub(crate) fn seen() -> Proof {
        Proof(())
    }
}

/// How commit or rollback of a branch ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Committed, and proven.
    Applied(Proof),
    /// Rolled back, or never there; and barred: a prepare that comes late will be refused.
    NotThere,
    /// Not known; do it again later.
    Unknown(Doubt),
    /// Somebody else decided otherwise: an alarm, which only an operator ends.
    Heuristic(Heuristic),
}

/// What a participant was found to have done against the decision, or without it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heuristic {
    /// To be committed, but neither prepared nor committed any more.
    RolledBack,
    /// To be rolled back, but its record is committed.
    Committed,
    /// The participant says it was committed, but its record is not to be seen.
    Unproven,
    /// People have seen to an alarm about it, and now it is prepared.
    CameBack,
}

impl fmt::Display for Heuristic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Heuristic::RolledBack => {
                "decided to commit, but the branch is neither prepared nor committed: somebody \
                 rolled it back, or the database lost it"
            }
            Heuristic::Committed => "decided to roll back, but somebody committed the branch",
            Heuristic::Unproven => {
                "the database reported a commit, but the fence row of the branch is not there"
            }
            Heuristic::CameBack => {
                "decided to commit, and after its alarm was acknowledged the branch is prepared \
                 again: commit it or roll it back at the database, by what was done about the alarm"
            }
        })
    }
}

/// What a participant knows of a branch at this moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// Committed, and proven.
    Applied(Proof),
    /// Prepared: it waits for a decision.
    Prepared,
    /// Rolled back, and barred.
    RolledBack,
    /// Nothing is known of it. A prepare may still come.
    Absent,
}

/// A prepared branch that a scan found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InDoubt {
    /// Its name.
    pub branch: BranchName,
    /// For how long it has been prepared, where the participant knows.
    pub age: Option<Duration>,
}
