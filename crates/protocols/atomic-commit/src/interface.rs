//! The interface at the heart: what every site of every protocol is.

use crate::canary::Canary;
use crate::effects::Effects;
use crate::ids::{Address, Key, Terms};
use crate::input::Input;
use crate::vote::Decision;
use alloc::vec::Vec;
use core::time::Duration;
use quorate_base::Instant;

/// A way to agree on the end of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum Protocol {
    /// Two-phase commit, presumed abort.
    #[default]
    TwoPhase,
    /// Three-phase commit with Keidar and Dolev's quorum-based termination (E3PC).
    ThreePhase,
    /// Three-phase commit with Skeen's termination of 1981. It splits when the network is
    /// partitioned, and is here to show that.
    NaiveThreePhase,
    /// Gray and Lamport's Paxos Commit.
    PaxosCommit,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Protocol; 4] = [
        Protocol::TwoPhase,
        Protocol::NaiveThreePhase,
        Protocol::ThreePhase,
        Protocol::PaxosCommit,
    ];

    /// How people write it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::TwoPhase => "two-phase",
            Protocol::ThreePhase => "three-phase",
            Protocol::NaiveThreePhase => "naive-three-phase",
            Protocol::PaxosCommit => "paxos-commit",
        }
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
        named.ok_or("it is none of two-phase, naive-three-phase, three-phase, paxos-commit")
    }
}

/// What a site is told once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// After this long without an answer the same is said again.
    pub retry: Duration,
    /// After this long without a decision a site that waits for one takes the matter into its own
    /// hands, where its protocol lets it. Longer than a few round trips; the sites wait for
    /// different multiples of it, lest they hinder each other.
    pub patience: Duration,
    /// A deliberate bug; without the `canary` feature it is ignored.
    pub canary: Option<Canary>,
}

impl Default for Config {
    fn default() -> Self {
        let (retry, patience) = (Duration::from_millis(200), Duration::from_millis(500));
        Config { retry, patience, canary: None }
    }
}

/// Where a site is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Phase {
    /// It has no record of the transaction.
    Unknown,
    /// Coordinator: it collects votes.
    Collecting,
    /// Participant: its resource is preparing.
    Preparing,
    /// Participant: it may have said Yes, and is in doubt.
    Prepared,
    /// Three-phase: it accepted to commit.
    PreCommitted,
    /// Three-phase: it accepted to abort.
    PreAborted,
    /// Acceptor: it remembers votes.
    Accepting,
    /// It knows the decision, and it or others have not applied it yet.
    Deciding,
    /// It knows the decision, and has nothing to do any more but to tell.
    Finished,
    /// Participant: it voted read-only, and does not care.
    Released,
    /// It forgot the transaction: the host may drop it.
    Forgotten,
}

/// What a site knows, for people and for the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Where it is.
    pub phase: Phase,
    /// How the transaction ends, if it knows.
    pub decision: Option<Decision>,
    /// From whom something is missing.
    pub waits_for: Vec<Address>,
}

/// One site's part in one attempt of one transaction.
///
/// The host's side of the contract: `now` never goes back; effects are carried out in order;
/// `Written` follows only durable writes, in order; a site that starts again is made from the
/// durable records in the order of their writes, and is given a `Tick`.
pub trait AtomicCommit {
    /// Takes one input and adds what follows from it to `effects`.
    fn step(&mut self, now: Instant, input: Input, effects: &mut Effects);

    /// When the next `Tick` is due, at the latest.
    fn next_timeout(&self) -> Option<Instant>;

    /// Everything it knows.
    fn status(&self) -> Status;

    /// Which attempt it is about.
    fn key(&self) -> Key;

    /// Who takes part.
    fn terms(&self) -> Terms;
}
