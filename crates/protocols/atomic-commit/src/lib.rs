//! Atomic commit: the interface of coordinator and participant, and three protocols behind it.
//!
//! A site of a transaction is an [`AtomicCommit`]: a pure function of (state, input, now). Each
//! input adds to a batch of [`Effects`], which the host carries out. Nothing here reads a clock, a
//! disk or a socket, and nothing knows what a branch does: the host adds the branch's work to the
//! request to prepare, and keeps it.
//!
//! # The seams
//!
//! A participant lies between a protocol and a *resource*: `prepare`, `commit`, `rollback` and
//! `forget` are [`Order`]s to the resource, which answers by [`Input::Resource`]. A site's durable
//! memory is a list of [`Record`]s, which it asks the host to write; [`Send::after`] names the
//! write that must be durable before a message may leave. Hosts differ in where these two live:
//!
//! - *A replicated group as participant.* An order is a command in the group's log; the answer is
//!   what applying it returned. Replaying the log rebuilds the resource, so a prepared branch in
//!   the group's state *is* [`Record::Prepared`], and one that has ended is [`Record::Decided`]:
//!   the host reports these writes as done at once, and gives the records back when the site is
//!   made again, at whichever replica leads.
//! - *A database as participant.* An order is a statement (`PREPARE TRANSACTION`, `XA COMMIT` …),
//!   and its list of prepared branches is the record. An answer needs proof: a commit that the
//!   database does not know any more is [`Answer::Committed`] only if the branch's fence row is
//!   there, else [`Answer::Heuristic`]. What the list does not have (ballots, a read-only vote)
//!   goes to a local log.
//! - *A coordinator in a replicated group.* Every [`Input`] is a command of the group, with the
//!   time in it, and the site is part of the service's state. A command is durable before it is
//!   applied, so every write is reported as done within the same step, and [`Effects::sends`]
//!   become the outbox that the group's leader sends, again and again, until it is answered.
//! - *A coordinator with a log of its own.* It writes the records to a local log, and with
//!   two-phase commit its death blocks whoever is prepared.
//!
//! # The rules
//!
//! 1. A Yes leaves only after the prepared record is durable (`branch.rs`, `seat.rs`).
//! 2. A commit leaves only after the commit record is; in Paxos Commit, once acceptors have it.
//! 3. A prepared participant never decides alone (`branch.rs` asserts it).
//! 4. "There is no record, so it is aborted" is on record before it is said
//!    (`two_phase/coordinator.rs`).
//! 5. A decision is kept until every participant has proven that it applied it. Only presumed
//!    aborts need no proof. [`Event::Completed`] is the moment after which sites may forget.
//! 6. Every message carries (transaction, epoch), both sites and the terms, and every handler may
//!    be given anything twice. An earlier epoch is ignored; a later one proves that this attempt
//!    was aborted, because an attempt begins only after the one before it was.
//!
//! What comes from outside in the wrong place is an [`Ignored`] message or a [`Refusal`], never a
//! panic; the assertions are about ourselves.
#![no_std]
extern crate alloc;

#[cfg(feature = "conformance")]
pub mod conformance;

mod branch;
mod canary;
mod effects;
mod ids;
mod input;
mod interface;
mod message;
pub mod paxos_commit;
mod record;
mod seat;
mod site;
pub mod three_phase;
pub mod two_phase;
mod vote;

pub use canary::Canary;
pub use effects::{Effects, Event, Ignored, Order, Refusal, Send, Write, WriteId};
pub use ids::{AcceptorId, Address, BranchId, Epoch, Key, Terms, TransactionId};
pub use input::{Answer, Input};
pub use interface::{AtomicCommit, Config, Phase, Protocol, Status};
pub use message::{Body, Message, Proof};
pub use record::Record;
pub use site::Site;
pub use vote::{Decision, MAX_REASON_BYTES, Outcome, Reason, Vote};
