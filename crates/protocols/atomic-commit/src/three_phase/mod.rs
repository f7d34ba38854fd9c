//! Three-phase commit: can-commit, pre-commit, do-commit (Skeen 1981), with the quorum-based
//! termination of Keidar and Dolev (*Increasing the Resilience of Distributed and Replicated
//! Database Systems*, 1998), called E3PC.
//!
//! Once everybody can commit, the coordinator asks all sites to *pre-commit*, and decides when a
//! majority has. A site that waits too long has itself *elected* under a ballot of its own by a
//! majority, and continues the last attempt that any of them knows of: to commit if that was a
//! pre-commit, else to abort. A majority of the coordinator and the participants always comes to a
//! decision, whoever of them has died.
//!
//! That is a synod whose value is the outcome: the paper's *last elected* is the promised ballot,
//! its *last attempt* the accepted one, and an acceptor's rules are those of
//! [`quorate_paxos::synod`]. The coordinator's attempt has the ballot (1, coordinator), whose only
//! value is commit; every later one has a higher round.
//!
//! Invariants: commit is only ever proposed by a coordinator that has every vote, or because it
//! was accepted under the highest ballot of a majority; ballots are durable before they are told.
//!
//! [`Termination::Skeen`] is the original, which trusts that a silent site is dead: a test subject
//! that splits when the network is partitioned.

mod coordinator;
mod elections;
mod participant;
mod skeen;

pub use coordinator::Coordinator;
pub use participant::Participant;

use crate::effects::{Effects, WriteId};
use crate::ids::{Address, Terms};
use crate::interface::Phase;
use crate::message::Body;
use crate::record::Record;
use crate::seat::Seat;
use crate::vote::{Decision, Outcome};
use elections::Elections;
use quorate_base::Instant;
use skeen::Skeen;

/// How sites that wait in vain come to a decision.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Termination {
    /// Keidar and Dolev, 1998: a majority decides.
    Quorum,
    /// Skeen, 1981: whoever can be reached decides. Splits.
    Skeen,
}

/// The part of a site that all sites have: it pre-commits, and terminates.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Terminator {
    Quorum(Elections),
    Skeen(Skeen),
}

impl Terminator {
    fn restore(termination: Termination, seat: &Seat, records: &[Record]) -> Self {
        match termination {
            Termination::Quorum => Terminator::Quorum(Elections::restore(seat, records)),
            Termination::Skeen => Terminator::Skeen(Skeen::restore(records)),
        }
    }

    /// The coordinator has every vote.
    fn pre_commit(&mut self, now: Instant, seat: &mut Seat, out: &mut Effects) {
        match self {
            Terminator::Quorum(elections) => elections.pre_commit(now, seat, out),
            Terminator::Skeen(skeen) => skeen.pre_commit(now, seat, out),
        }
    }

    /// A message that is about pre-commits and elections. Returns the outcome once this site has
    /// brought about a decision.
    fn message(
        &mut self,
        now: Instant,
        from: Address,
        body: Body,
        seat: &mut Seat,
        out: &mut Effects,
    ) -> Option<Outcome> {
        match self {
            Terminator::Quorum(elections) => elections.message(now, from, body, seat, out),
            Terminator::Skeen(skeen) => skeen.message(from, body, seat, out),
        }
    }

    /// This site waits for a decision, and has waited long enough.
    fn tick(&mut self, now: Instant, seat: &mut Seat, out: &mut Effects) -> Option<Outcome> {
        match self {
            Terminator::Quorum(elections) => {
                elections.elect(now, seat, out);
                None
            }
            Terminator::Skeen(skeen) => skeen.tick(now, seat, out),
        }
    }

    /// What was accepted last.
    fn accepted(&self) -> Option<Outcome> {
        match self {
            Terminator::Quorum(elections) => elections.accepted(),
            Terminator::Skeen(skeen) => skeen.accepted(),
        }
    }

    fn phase(&self) -> Option<Phase> {
        self.accepted().map(|outcome| match outcome {
            Outcome::Commit => Phase::PreCommitted,
            Outcome::Abort => Phase::PreAborted,
        })
    }
}

/// Answers with the decision whatever may be asked of a site that knows it.
fn tell(decision: &Decision, write: Option<WriteId>, to: Address, seat: &Seat, out: &mut Effects) {
    seat.send(to, Body::Decide(decision.clone()), write, out);
}

/// Everybody but this site.
fn others(seat: &Seat) -> impl Iterator<Item = Address> + use<> {
    let (terms, own): (Terms, Address) = (seat.terms, seat.address);
    terms.electorate().filter(move |site| *site != own)
}

/// When a site that waits becomes impatient: sites have different patience, lest they hinder each
/// other.
fn patience(now: Instant, seat: &Seat) -> Instant {
    let rank = u32::try_from(seat.terms.node(seat.address).0).unwrap_or(u32::MAX);
    now + seat.config.patience.saturating_mul(rank)
}
