//! A replicated log: the interface that Raft and Multi-Paxos implement, and what they share.
//!
//! A [`ReplicatedLog`] is a pure function of (state, input, now): each input adds to a batch of
//! [`Effects`], which the driver carries out. Nothing here reads a clock, a disk or a socket.
//!
//! Invariants: what may only be said after something is on disk carries that write's id
//! ([`Send::after`]); what is committed never changes; no queue grows without a limit.
#![no_std]
extern crate alloc;

#[cfg(feature = "conformance")]
pub mod conformance;

mod config;
mod effects;
mod entry;
mod epoch;
mod giving_up;
mod input;
mod interface;
mod journal;
mod log;
mod membership;
mod message;
mod progress;
mod quorum;
mod ranges;
mod reads;
mod search;
mod status;

pub use config::{Config, Limits};
pub use effects::{
    Effects, Event, MAX_GAP, ReadReady, Refusal, Send, SnapshotWanted, StepDown, Write, WriteId,
};
pub use entry::{Base, Entries, Entry, HardState, Payload};
pub use epoch::Epoch;
pub use giving_up::Leadership;
pub use input::{Input, ProposalId, ReadId};
pub use interface::{Protocol, Recovered, ReplicatedLog};
pub use journal::Journal;
pub use log::Log;
pub use membership::{Change, MAX_LEARNERS, MAX_VOTERS, Membership};
pub use message::{Accept, Accepted, Append, AppendOutcome, AppendReply, Body, Message, Promise};
pub use progress::{Followers, Mode, Progress};
pub use quorum::{QuorumSizes, QuorumSpec, VoteResult};
pub use ranges::Cover;
pub use reads::{AnswerReads, FollowerReads, LeaderReads, Reader, Reads, Standing};
pub use search::partition_from_back;
pub use status::{PeerStatus, Role, Status};
