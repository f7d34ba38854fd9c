//! The acceptor: the memory of the protocol.
//!
//! Its whole state is durable before any answer leaves: whoever drives it writes
//! [`Acceptor`] down first.

use quorate_base::Ballot;

/// Whether an acceptor that promised `promised` may promise `ballot` (P1a).
///
/// A round is promised to one proposer, although ballots of one round are ordered: so a round has
/// one leader, which is stricter than Paxos needs and never wrong. The same ballot again is the
/// same promise.
pub fn may_promise(promised: Ballot, ballot: Ballot) -> bool {
    ballot.round > promised.round || ballot == promised
}

/// Whether an acceptor that promised `promised` may accept a value under `ballot` (P1a, the other
/// way round: it must not if it promised a higher one).
pub fn may_accept(promised: Ballot, ballot: Ballot) -> bool {
    ballot >= promised
}

/// One acceptor's part in choosing one value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Acceptor<V> {
    promised: Ballot,
    accepted: Option<(Ballot, V)>,
}

/// What an acceptor says when it promises: the value it accepted under the highest ballot so far.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Promise<V> {
    /// What was accepted, and under which ballot.
    pub accepted: Option<(Ballot, V)>,
}

impl<V> Default for Acceptor<V> {
    fn default() -> Self {
        Acceptor { promised: Ballot::ZERO, accepted: None }
    }
}

impl<V: Clone> Acceptor<V> {
    /// An acceptor that starts again with what it had written down.
    pub fn restore(promised: Ballot, accepted: Option<(Ballot, V)>) -> Self {
        Acceptor { promised, accepted }
    }

    /// The ballot it promised: it accepts nothing below.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// What it accepted last.
    pub fn accepted(&self) -> Option<&(Ballot, V)> {
        self.accepted.as_ref()
    }

    /// Phase 1: asked to promise `ballot`.
    ///
    /// # Errors
    /// The promised ballot, which is in the way. Nothing has changed then.
    pub fn prepare(&mut self, ballot: Ballot) -> Result<Promise<V>, Ballot> {
        if !may_promise(self.promised, ballot) {
            return Err(self.promised);
        }
        self.promised = ballot;
        Ok(Promise { accepted: self.accepted.clone() })
    }

    /// Phase 2: asked to accept `value` under `ballot`.
    ///
    /// # Errors
    /// The promised ballot, which is in the way. Nothing has changed then.
    pub fn accept(&mut self, ballot: Ballot, value: V) -> Result<(), Ballot> {
        if !may_accept(self.promised, ballot) {
            return Err(self.promised);
        }
        self.promised = ballot;
        self.accepted = Some((ballot, value));
        Ok(())
    }
}
