//! Raft (Ongaro and Ousterhout, 2014; Ongaro's thesis) behind the replicated-log interface.
//!
//! Pure: a function of (state, input, now). Pre-vote and check-quorum are not options. Invariants:
//! a round has one leader; a vote, and what a reply claims to hold, is durable before it is said;
//! only entries of the leader's own round are committed by counting; what is committed stays.
#![no_std]
extern crate alloc;

mod canary;
mod election;
mod fingerprint;
mod follower;
mod leader;
mod members;
mod mending;
mod messages;
mod pull;
mod raft;
mod reads;
mod recovery;
mod replication;
mod salvage;

pub use canary::Canary;
pub use raft::Raft;
