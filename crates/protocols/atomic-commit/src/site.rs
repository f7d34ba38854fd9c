//! Any site of any protocol, as one type.

use crate::effects::Effects;
use crate::ids::{Address, Key, Terms};
use crate::input::Input;
use crate::interface::{AtomicCommit, Config, Protocol, Status};
use crate::record::Record;
use crate::three_phase::Termination;
use crate::{paxos_commit, three_phase, two_phase};
use quorate_base::Instant;

/// One site, whatever its protocol and part. What a host that offers a choice of protocols keeps.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Site {
    /// Coordinator of two-phase commit.
    TwoPhaseCoordinator(two_phase::Coordinator),
    /// Participant of two-phase commit.
    TwoPhaseParticipant(two_phase::Participant),
    /// Coordinator of three-phase commit, with either termination.
    ThreePhaseCoordinator(three_phase::Coordinator),
    /// Participant of three-phase commit, with either termination.
    ThreePhaseParticipant(three_phase::Participant),
    /// Coordinator of Paxos Commit.
    PaxosCoordinator(paxos_commit::Coordinator),
    /// Participant of Paxos Commit.
    PaxosParticipant(paxos_commit::Participant),
    /// Acceptor of Paxos Commit.
    PaxosAcceptor(paxos_commit::Acceptor),
}

impl Site {
    /// The site at `address`, with the memory that its durable records give it.
    ///
    /// Panics if the transaction, or the protocol, has no such site: the host checks what comes
    /// from outside with [`Site::exists`].
    pub fn restore(
        protocol: Protocol,
        config: Config,
        (key, terms): (Key, Terms),
        address: Address,
        records: &[Record],
    ) -> Site {
        assert!(Site::exists(protocol, terms, address), "no such site: {address}");
        let termination = match protocol {
            Protocol::NaiveThreePhase => Termination::Skeen,
            _ => Termination::Quorum,
        };
        match (protocol, address) {
            (_, Address::Acceptor(id)) => Site::PaxosAcceptor(paxos_commit::Acceptor::restore(
                config, key, terms, id, records,
            )),
            (Protocol::TwoPhase, Address::Coordinator) => Site::TwoPhaseCoordinator(
                two_phase::Coordinator::restore(config, key, terms, records),
            ),
            (Protocol::TwoPhase, Address::Participant(branch)) => Site::TwoPhaseParticipant(
                two_phase::Participant::restore(config, key, terms, branch, records),
            ),
            (Protocol::PaxosCommit, Address::Coordinator) => Site::PaxosCoordinator(
                paxos_commit::Coordinator::restore(config, key, terms, records),
            ),
            (Protocol::PaxosCommit, Address::Participant(branch)) => Site::PaxosParticipant(
                paxos_commit::Participant::restore(config, key, terms, branch, records),
            ),
            (_, Address::Coordinator) => Site::ThreePhaseCoordinator(
                three_phase::Coordinator::restore(config, termination, key, terms, records),
            ),
            (_, Address::Participant(branch)) => Site::ThreePhaseParticipant(
                three_phase::Participant::restore(config, termination, key, terms, branch, records),
            ),
        }
    }

    /// Whether a transaction on these terms has this site, and the terms make sense.
    pub fn exists(protocol: Protocol, terms: Terms, address: Address) -> bool {
        let acceptors = match protocol {
            Protocol::PaxosCommit => terms.acceptors % 2 == 1,
            _ => terms.acceptors == 0,
        };
        terms.branches > 0 && acceptors && terms.has(address)
    }

    fn inner(&self) -> &dyn AtomicCommit {
        match self {
            Site::TwoPhaseCoordinator(site) => site,
            Site::TwoPhaseParticipant(site) => site,
            Site::ThreePhaseCoordinator(site) => site,
            Site::ThreePhaseParticipant(site) => site,
            Site::PaxosCoordinator(site) => site,
            Site::PaxosParticipant(site) => site,
            Site::PaxosAcceptor(site) => site,
        }
    }
}

impl AtomicCommit for Site {
    fn step(&mut self, now: Instant, input: Input, out: &mut Effects) {
        match self {
            Site::TwoPhaseCoordinator(site) => site.step(now, input, out),
            Site::TwoPhaseParticipant(site) => site.step(now, input, out),
            Site::ThreePhaseCoordinator(site) => site.step(now, input, out),
            Site::ThreePhaseParticipant(site) => site.step(now, input, out),
            Site::PaxosCoordinator(site) => site.step(now, input, out),
            Site::PaxosParticipant(site) => site.step(now, input, out),
            Site::PaxosAcceptor(site) => site.step(now, input, out),
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.inner().next_timeout()
    }

    fn status(&self) -> Status {
        self.inner().status()
    }

    fn key(&self) -> Key {
        self.inner().key()
    }

    fn terms(&self) -> Terms {
        self.inner().terms()
    }
}
