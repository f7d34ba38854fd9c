//! The interface at the heart.

use crate::effects::{Effects, WriteId};
use crate::entry::{Base, Entries, HardState};
use crate::input::Input;
use crate::status::{Role, Status};
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use quorate_base::{Index, Instant, NodeId, Position};

/// A way to agree on a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum Protocol {
    /// Raft: a leader has the most up-to-date log of a quorum, and its log is everybody's.
    #[default]
    Raft,
    /// Multi-Paxos: any connected replica may lead, and first learns what a quorum accepted. A
    /// committed entry's content is the same everywhere, its ballot may differ.
    Paxos,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Protocol; 2] = [Protocol::Raft, Protocol::Paxos];

    /// How people write it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Raft => "raft",
            Protocol::Paxos => "paxos",
        }
    }

    /// How it is stored and sent.
    pub fn code(self) -> u8 {
        match self {
            Protocol::Raft => 1,
            Protocol::Paxos => 2,
        }
    }

    /// The protocol of that code, if there is one.
    pub fn of_code(code: u8) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.code() == code)
    }
}

impl core::fmt::Display for Protocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

impl core::str::FromStr for Protocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Protocol, &'static str> {
        let named = Protocol::ALL.into_iter().find(|protocol| protocol.name() == text);
        named.ok_or("it is neither `raft` nor `paxos`")
    }
}

/// One replica of one group's log.
///
/// The driver's side of the contract: `now` never goes back; effects are carried out in order;
/// `Written` follows only durable writes, in order; `Applied` follows the committed entries.
pub trait ReplicatedLog: core::marker::Send {
    /// Takes one input and adds what follows from it to `effects`.
    fn step(&mut self, now: Instant, input: Input, effects: &mut Effects);

    /// Which protocol this is.
    fn protocol(&self) -> Protocol;

    /// When the next `Tick` is due, at the latest.
    fn next_timeout(&self) -> Option<Instant>;

    /// The replica's role: cheap, for every step.
    fn role(&self) -> Role;

    /// Who leads, if known: cheap.
    fn leader(&self) -> NodeId;

    /// Committed up to here: cheap.
    fn commit(&self) -> Index;

    /// Applied position and the members in force there: what a snapshot taken now ends at.
    fn applied_base(&self) -> Base;

    /// Everything it knows of itself.
    fn status(&self) -> Status;
}

/// What was found on disk when the node started.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The log begins after this.
    pub base: Base,
    /// What was promised.
    pub hard_state: HardState,
    /// The entries after the base, in order, damaged ones left out. Under Raft consecutive but for
    /// those; under Paxos slots may be missing: nothing was accepted there.
    pub entries: Vec<Entries>,
    /// What was there and cannot be read: possibly promised, to be repaired from peers.
    pub damaged: Vec<RangeInclusive<Index>>,
    /// Of those, the ones whose ballot can still be read, in order.
    pub damaged_ballots: Vec<Position>,
    /// Where the service's durable state ends. May be past the base, never before it.
    pub applied: Base,
    /// The last write that an engine of an earlier epoch asked for: writes are numbered on.
    pub written: WriteId,
}
