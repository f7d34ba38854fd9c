//! Paxos (Lamport, *The Part-Time Parliament*, 1998; *Paxos Made Simple*, 2001).
//!
//! [`synod`] is the single-decree protocol, its three roles apart. [`MultiPaxos`] is a replicated
//! log: the synod's acceptor rules in every slot, one phase 1 for all of them. Pure: functions of
//! (state, input, now). Invariants: a promise, and what is accepted, is durable before it is said;
//! a round is promised to one proposer; what is chosen in a slot is never replaced.
#![no_std]
extern crate alloc;

mod canary;
mod multi;
pub mod synod;

pub use canary::Canary;
pub use multi::MultiPaxos;
