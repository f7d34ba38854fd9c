//! Entries and the runs of them that are stored, sent and applied.

use crate::epoch::Epoch;
use crate::interface::Protocol;
use crate::membership::Membership;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::ops::{Deref, Range};
use quorate_base::{Ballot, Index, Position};

/// What an entry holds.
// Members are boxed for the sake of all the commands, which are smaller.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Payload {
    /// Nothing: a filled gap.
    Noop,
    /// A leader's first entry under its ballot. The ballot is part of the value: one that a
    /// service goes by must be the same on every replica, and that of an entry need not be.
    Lead(Ballot),
    /// A command for the group's service.
    Command(Bytes),
    /// From this entry on (not from its commit on) the group has these members.
    Members {
        /// The members.
        membership: Box<Membership>,
        /// For the service alone, which sees it when the entry is applied: names, addresses.
        context: Bytes,
    },
    /// The epoch ends here: once this is committed, the log goes on under another protocol, and
    /// whatever follows in this epoch is void.
    Seal {
        /// The protocol of the next epoch.
        next: Protocol,
        /// The ballot of the leader that proposed it: part of the value, as with `Lead`.
        ballot: Ballot,
    },
}

impl Payload {
    /// A change of members.
    pub fn members(membership: Membership, context: Bytes) -> Payload {
        Payload::Members { membership: Box::new(membership), context }
    }

    /// The ballot of the leader that it names, if it is one that services go by.
    pub fn named_ballot(&self) -> Option<Ballot> {
        match self {
            Payload::Lead(ballot) | Payload::Seal { ballot, .. } => Some(*ballot),
            Payload::Noop | Payload::Command(_) | Payload::Members { .. } => None,
        }
    }
}

/// One slot of the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Its position, from 1.
    pub index: Index,
    /// The leader that wrote it; under Paxos the last one whose proposal this replica accepted.
    pub ballot: Ballot,
    /// What it holds.
    pub payload: Payload,
}

impl Entry {
    /// Index and ballot together.
    pub fn position(&self) -> Position {
        Position::new(self.index, self.ballot)
    }

    /// Bytes the entry counts for in limits: its content and a fixed overhead of 32.
    pub fn weight(&self) -> usize {
        32 + match &self.payload {
            Payload::Noop => 0,
            Payload::Lead(_) | Payload::Seal { .. } => 16,
            Payload::Command(bytes) => bytes.len(),
            Payload::Members { context, .. } => context.len() + 256,
        }
    }
}

/// A run of consecutive entries, shared: cloning or narrowing it copies no entry.
///
/// The leader's log, its disk write and its messages to every follower hold the same run.
// The default run shares one empty slice: it costs no allocation.
#[derive(Clone, Default)]
pub struct Entries {
    run: Arc<[Entry]>,
    from: u32,
    to: u32,
}

impl Entries {
    /// A run of `entries`, whose indexes must be consecutive.
    pub fn new(entries: Vec<Entry>) -> Self {
        debug_assert!(entries.windows(2).all(|w| w[0].index + 1 == w[1].index));
        assert!(u32::try_from(entries.len()).is_ok(), "a run of entries fits 32 bits");
        Entries { from: 0, to: entries.len() as u32, run: entries.into() }
    }

    /// The part of the run whose offsets are in `range`.
    pub fn slice(&self, range: Range<usize>) -> Entries {
        assert!(range.start <= range.end && range.end <= self.len(), "slice within the run");
        Entries {
            run: self.run.clone(),
            from: self.from + range.start as u32,
            to: self.from + range.end as u32,
        }
    }

    /// Index of the first entry, if there is one.
    pub fn first_index(&self) -> Option<Index> {
        self.first().map(|e| e.index)
    }

    /// Index of the last entry, if there is one.
    pub fn last_index(&self) -> Option<Index> {
        self.last().map(|e| e.index)
    }
}

impl FromIterator<Entry> for Entries {
    /// A run made in place: an iterator that knows its length costs one allocation, no copy.
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let run: Arc<[Entry]> = entries.into_iter().collect();
        debug_assert!(run.windows(2).all(|w| w[0].index + 1 == w[1].index));
        assert!(u32::try_from(run.len()).is_ok(), "a run of entries fits 32 bits");
        Entries { from: 0, to: run.len() as u32, run }
    }
}

impl Deref for Entries {
    type Target = [Entry];
    fn deref(&self) -> &[Entry] {
        &self.run[self.from as usize..self.to as usize]
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Entries {}

impl core::hash::Hash for Entries {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl core::fmt::Debug for Entries {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl From<Vec<Entry>> for Entries {
    fn from(entries: Vec<Entry>) -> Self {
        Entries::new(entries)
    }
}

/// What a replica must remember to keep its word. Durable before anything that follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct HardState {
    /// The highest round seen and whom it was promised to (`NodeId::NONE`: nobody yet).
    pub promised: Ballot,
    /// An index known to be committed. A hint: it may lag, never lead.
    pub commit: Index,
}

/// Where a log begins: everything up to here lives in the service's state and nowhere else.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Base {
    /// The last position before the log's first entry.
    pub position: Position,
    /// The members in force at that position.
    pub membership: Membership,
    /// The epoch of what follows.
    pub epoch: Epoch,
    /// The protocol of that epoch.
    pub protocol: Protocol,
}

impl Base {
    /// Where a group's log begins: its first epoch.
    pub fn first(position: Position, membership: Membership, protocol: Protocol) -> Self {
        Base { position, membership, epoch: Epoch(0), protocol }
    }

    /// What follows from an entry that was applied at `index`: position, members, epoch.
    pub fn apply(&mut self, index: Index, payload: &Payload) {
        self.position.index = index;
        // Not an entry's own ballot: under Paxos that may differ from replica to replica.
        self.position.ballot = payload.named_ballot().unwrap_or(self.position.ballot);
        match payload {
            Payload::Noop | Payload::Command(_) | Payload::Lead(_) => {}
            Payload::Members { membership, .. } => self.membership.clone_from(membership),
            Payload::Seal { next, .. } => {
                self.epoch = self.epoch.next();
                self.protocol = *next;
            }
        }
    }
}
