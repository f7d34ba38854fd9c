//! A replicated log: the interface that Raft and Multi-Paxos implement, and what they share.
//!
//! A [`ReplicatedLog`] is a pure function of (state, input, now): each input adds to a batch of
//! [`Effects`], which the driver carries out. Nothing here reads a clock, a disk or a socket.
//!
//! Invariants: what may only be said after something is on disk carries that write's id
//! ([`Send::after`]); what is committed never changes; no queue grows without a limit.
#![no_std]
extern crate alloc;

mod config;
mod effects;
mod entry;
mod input;
mod interface;
mod membership;
mod message;
mod status;

pub use config::{Config, Limits};
pub use effects::{
    Effects, Event, ReadReady, Refusal, Send, SnapshotWanted, StepDown, Write, WriteId,
};
pub use entry::{Base, Entries, Entry, HardState, Payload};
pub use input::{Input, ProposalId, ReadId};
pub use interface::{Recovered, ReplicatedLog};
pub use membership::{Change, Membership};
pub use message::{Append, AppendOutcome, AppendReply, Body, Epoch, Message};
pub use status::{PeerStatus, Role, Status};
