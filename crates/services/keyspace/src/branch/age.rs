//! Who is older: the order that keeps anyone from waiting in a circle.

use super::BranchId;
use bytes::Bytes;
use quorate_base::Index;

/// The place of a branch or a waiting command in the order of ages; smaller is older.
///
/// A two-phase branch has the same age in every group. What holds no locks anywhere while it
/// waits (a plain command, a one-phase branch) gets an age of this group's own: the youngest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Age {
    /// The priority of the transaction's attempt.
    pub priority: u64,
    /// Orders those of the same priority.
    pub tie: Tie,
}

/// See [`Age`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tie {
    /// The transaction: the same everywhere.
    Transaction(Bytes),
    /// The log entry that brought the command: after all transactions of that priority.
    Entry(Index),
}

impl Age {
    /// The age of a two-phase branch.
    pub(crate) fn of_branch(priority: u64, id: &BranchId) -> Age {
        // A copy: the id shares the memory of a whole entry.
        let transaction = Bytes::copy_from_slice(&id.transaction);
        Age { priority, tie: Tie::Transaction(transaction) }
    }
}
