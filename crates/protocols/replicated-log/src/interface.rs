//! The interface at the heart.

use crate::effects::Effects;
use crate::entry::{Base, Entries, HardState};
use crate::input::Input;
use crate::status::{Role, Status};
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use quorate_base::{Index, Instant, NodeId};

/// One replica of one group's log.
///
/// The driver's side of the contract: `now` never goes back; effects are carried out in order;
/// `Written` follows only durable writes, in order; `Applied` follows the committed entries.
pub trait ReplicatedLog: core::marker::Send {
    /// Takes one input and adds what follows from it to `effects`.
    fn step(&mut self, now: Instant, input: Input, effects: &mut Effects);

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
    /// The entries after the base, consecutive, damaged ones left out.
    pub entries: Vec<Entries>,
    /// What was there and cannot be read: possibly promised, to be repaired from peers.
    pub damaged: Vec<RangeInclusive<Index>>,
    /// Where the service's durable state ends. May be past the base, never before it.
    pub applied: Base,
}
