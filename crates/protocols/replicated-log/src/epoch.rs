//! Epochs: a group's log is a chain of them, each agreed on by one protocol.
//!
//! An epoch ends with a [`Payload::Seal`], an entry like any other: its engine agrees on it, and
//! with it on everything before. Whatever follows a committed seal in its epoch is void; the next
//! epoch goes on right after it, under the protocol that the seal names and with the members in
//! force there. `docs/epochs.md` has the rules and why they suffice.
//!
//! Invariants of every engine: nothing past a committed seal counts as committed or is handed out;
//! a leader that has a seal in its log proposes no command, and answers no read.
//!
//! The latter is what makes leases safe, for the next epoch's leader waits for no lease. Say that
//! a leader L of ballot b answers a read by its lease, and that a seal was committed before. If L
//! proposed the seal, or found it when it began to lead, it has it in its log, and answers nothing.
//! If a leader of a later ballot proposed it, a quorum elected that one, and each of its voters
//! waited until L's lease was over. If a leader of an earlier ballot proposed it, and L did not
//! find it, it is not committed, nor will it ever be. By a read index L answers no better: a
//! quorum's confirmation meets the quorum that accepted the seal.

use crate::entry::Payload;
use quorate_base::Index;

/// Numbers the epochs of a group's log, from 0. A message of another epoch is not this log's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The one after it.
    pub const fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }

    /// How far the log may count as committed once everything up to `index` was agreed on: not
    /// past the first seal.
    pub fn committed(seal: Option<Index>, index: Index) -> Index {
        seal.map_or(index, |seal| index.min(seal))
    }
}

impl core::fmt::Display for Epoch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.0, f)
    }
}

impl Payload {
    /// Whether it ends an epoch.
    pub fn is_seal(&self) -> bool {
        matches!(self, Payload::Seal { .. })
    }
}
