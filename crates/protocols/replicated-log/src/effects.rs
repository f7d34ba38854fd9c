//! What a replicated log wants done.

use crate::entry::{Base, Entries, HardState};
use crate::input::{ProposalId, ReadId};
use crate::message::Message;
use crate::status::Role;
use alloc::boxed::Box;
use alloc::vec::Vec;
use quorate_base::{Ballot, Index, NodeId};

/// Numbers a group's writes, from 1, growing. Durable means: this one and every earlier one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct WriteId(pub u64);

/// Slots that may lie between the end of a log and one that is written beyond it: more than a
/// leader has under way, and few enough to be filled one by one.
pub const MAX_GAP: Index = 1 << 20;

/// One change of a group's durable log. Its parts take effect together, in field order.
// What is rare is boxed: a write is moved several times on its way to the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// Its number.
    pub id: WriteId,
    /// Forget all entries; the log now begins after this base (a snapshot was installed).
    pub reset: Option<Box<Base>>,
    /// Forget entries up to the base's index; the rest stays (the log was compacted).
    pub compact: Option<Box<Base>>,
    /// Forget the entries from this index on: a new leader overruled them.
    pub truncate_from: Option<Index>,
    /// Remember these, which follow what is left.
    pub entries: Entries,
    /// Remember these in their slots, in place of what was there; all other slots stay as they
    /// are. What lies between the end of the log and a slot beyond it, at most [`MAX_GAP`], was
    /// never accepted.
    pub slots: Vec<Entries>,
    /// Remember this.
    pub hard_state: Option<HardState>,
}

impl Write {
    /// Forget everything, the hard state included, as if the group had never been there: a reset
    /// to where nothing has begun, and not a word beside it.
    pub fn forget() -> Write {
        Write {
            id: WriteId(0),
            reset: Some(Box::default()),
            compact: None,
            truncate_from: None,
            entries: Entries::default(),
            slots: Vec::new(),
            hard_state: None,
        }
    }

    /// The log begins after `base`, perhaps nowhere yet, and from now on there is one: that nothing
    /// was promised is said in so many words, so that this is no [`Write::forget`].
    pub fn begin(base: Base) -> Write {
        Write {
            reset: Some(Box::new(base)),
            hard_state: Some(HardState::default()),
            ..Write::forget()
        }
    }

    /// Whether it is [`Write::forget`].
    pub fn is_forget(&self) -> bool {
        let resets = self.reset.as_ref().is_some_and(|base| **base == Base::default());
        let keeps = self.hard_state.is_some() || !self.entries.is_empty() || !self.slots.is_empty();
        resets && !keeps
    }
}

/// A message to a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Send {
    /// To whom.
    pub to: NodeId,
    /// What.
    pub message: Message,
    /// It may only leave once this write is durable.
    pub after: Option<WriteId>,
}

/// A read may be answered once the service has applied this index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadReady {
    /// The attempt.
    pub id: ReadId,
    /// The index.
    pub index: Index,
}

/// A follower is behind the start of the log and needs the service's state instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotWanted {
    /// The follower.
    pub to: NodeId,
    /// To be sent with the snapshot and handed back when it is installed.
    pub session: u64,
}

/// Why something asked for was not done. Nothing has happened then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Another replica leads, or none is known to.
    NotLeader {
        /// The leader, as far as known.
        leader: NodeId,
    },
    /// The log has more uncommitted bytes or entries than its limit.
    Full,
    /// A change of members is under way, or nothing of this leader's ballot is committed yet.
    ChangeInProgress,
    /// The change makes no sense: the node is already there, is not there, or is the last voter;
    /// the group has the protocol already.
    BadChange,
    /// The members, or the epoch, changed after whoever asks last looked.
    Outdated,
    /// The epoch is ending: proposals wait for the next one.
    Sealed,
    /// The learner to be promoted lacks too much of the log.
    NotReady,
    /// Leadership is being handed over.
    Transferring,
}

/// Something the driver should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The proposal was appended as the entries from `first` on, under `ballot`. If any other
    /// ballot's entry is committed at its index, the proposal was lost.
    Proposed {
        /// The proposal.
        id: ProposalId,
        /// Index of its first command.
        first: Index,
        /// The ballot.
        ballot: Ballot,
    },
    /// The proposal was not appended.
    Refused {
        /// The proposal.
        id: ProposalId,
        /// Why.
        reason: Refusal,
    },
    /// The read cannot be answered; a fresh attempt may be made.
    ReadFailed {
        /// The attempt.
        id: ReadId,
    },
    /// This replica's role, ballot or known leader changed.
    RoleChanged {
        /// Its role now.
        role: Role,
        /// The ballot now.
        ballot: Ballot,
        /// Who leads, if known.
        leader: NodeId,
    },
    /// This replica leads and has applied everything its predecessors committed.
    ReadyToLead,
    /// Nobody can lead: these entries may have been committed, and not enough of the replicas that
    /// can be reached can read them. Told once for a range, after some vain attempts.
    Unreadable {
        /// The first of them.
        first: Index,
        /// The last.
        last: Index,
    },
    /// The leader gave up leadership by itself.
    SteppedDown {
        /// Why.
        reason: StepDown,
    },
}

/// Why a leader gave up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepDown {
    /// No quorum was heard from for an election timeout (check-quorum).
    NoQuorum,
    /// Its own disk did not finish a write in time.
    DiskStalled,
    /// Its entries were not committed in time though a quorum answers.
    NoProgress,
    /// It is no longer a voter.
    Removed,
}

/// A batch of effects, reused from step to step: the driver drains it and hands it back.
#[derive(Default, Debug)]
pub struct Effects {
    /// For the disk, in order.
    pub writes: Vec<Write>,
    /// For the network, in order per peer.
    pub sends: Vec<Send>,
    /// For the service: newly committed entries, in order, each exactly once per run.
    pub committed: Vec<Entries>,
    /// Reads that may be answered.
    pub reads: Vec<ReadReady>,
    /// Followers to be sent a snapshot.
    pub snapshots: Vec<SnapshotWanted>,
    /// The rest.
    pub events: Vec<Event>,
}

impl Effects {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
            && self.sends.is_empty()
            && self.committed.is_empty()
            && self.reads.is_empty()
            && self.snapshots.is_empty()
            && self.events.is_empty()
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.writes.clear();
        self.sends.clear();
        self.committed.clear();
        self.reads.clear();
        self.snapshots.clear();
        self.events.clear();
    }
}
