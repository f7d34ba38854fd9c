//! Which node has a replica of which group, and which of them leads it.
//!
//! Pure functions of what a node sees; whoever calls them carries one step out and looks again.
//! Invariants: a step never takes a replica away while one that is to replace it does not vote
//! yet; leadership moves only where the difference is larger than what one move changes, so that
//! nodes that look at the same time do not pass it to and fro.
#![no_std]

extern crate alloc;

mod asking;
mod leaders;
mod replicas;

pub use asking::{Asking, Asks};
pub use leaders::{Led, moves};
pub use replicas::{Replicas, Step, choose, next_step};
