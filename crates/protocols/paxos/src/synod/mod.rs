//! Single-decree Paxos: a set of acceptors chooses one value, once (*Paxos Made Simple*,
//! section 2).
//!
//! A [`Proposer`] proposes a value under a ballot of its own: phase 1 asks a quorum of acceptors
//! to promise the ballot, phase 2 asks them to accept a value, which is its own only if none of
//! the quorum had accepted one before. An [`Acceptor`] keeps two promises: it accepts nothing
//! below the ballot it promised, and tells what it accepted. A [`Learner`] knows a value is chosen
//! when a quorum accepted it under one ballot.
//!
//! The rules of the acceptor are two functions, [`may_promise`] and [`may_accept`], which
//! [`MultiPaxos`](crate::MultiPaxos) applies to every slot of its log.

mod acceptor;
mod learner;
mod proposer;

pub use acceptor::{Acceptor, Promise, may_accept, may_promise};
pub use learner::Learner;
pub use proposer::{Phase, Proposer};
