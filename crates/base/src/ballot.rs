//! The number that orders leaders, and the position it gives an entry.

use crate::ids::{Index, NodeId};
use core::fmt;

/// (round, node), ordered by round and then by node. Raft calls the round a *term*.
///
/// In an entry or a leader's message the node is the leader of that round. In a hard state it is
/// the node that was promised the round ([`NodeId::NONE`]: nobody yet).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ballot {
    /// The round; zero precedes every election.
    pub round: u64,
    /// The node that leads, or asks to lead, this round.
    pub node: NodeId,
}

impl Ballot {
    /// The ballot before every election.
    pub const ZERO: Ballot = Ballot { round: 0, node: NodeId::NONE };

    /// The ballot of `node` in `round`.
    pub const fn new(round: u64, node: NodeId) -> Self {
        Ballot { round, node }
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.node)
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where an entry is and under which ballot it was written. `ZERO` is "before the first entry".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Position {
    /// Index of the entry.
    pub index: Index,
    /// Ballot of the entry.
    pub ballot: Ballot,
}

impl Position {
    /// Before the first entry.
    pub const ZERO: Position = Position { index: 0, ballot: Ballot::ZERO };

    /// The position of an entry at `index` written under `ballot`.
    pub const fn new(index: Index, ballot: Ballot) -> Self {
        Position { index, ballot }
    }

    /// Raft section 5.4.1: the log with the later last round is more up to date; of two with the
    /// same last round, the longer.
    pub fn at_least_as_up_to_date_as(&self, other: &Position) -> bool {
        (self.ballot.round, self.index) >= (other.ballot.round, other.index)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.ballot)
    }
}
