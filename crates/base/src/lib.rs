//! The words every other crate speaks: identities, ballots, time, seeded randomness, byte codecs.
//!
//! Invariant: pure and `no_std`. Nothing here reads a clock, an environment or a random source.
#![no_std]
extern crate alloc;

pub mod ballot;
pub mod canary;
pub mod codec;
pub mod ids;
pub mod rng;
pub mod time;

pub use ballot::{Ballot, Position};
pub use canary::Canary;
pub use ids::{ClusterId, GroupId, Index, NodeId, RequestId};
pub use rng::Rng;
pub use time::Instant;
