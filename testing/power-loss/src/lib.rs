//! A file system that loses power: what was not synced is forgotten, what was in flight is torn.
//!
//! `kill -9` is not a power failure: the kernel's page cache survives it, and with it everything
//! that was ever written. Here the file system is a process of ours, over FUSE, with the disk in
//! memory; it knows what was synced, and when the power fails it keeps that and what the seed
//! spares of the rest, sector by sector. It also fails syncs and writes on demand, fills up, and
//! can lie, which shows that the tests would notice.
//!
//! `docs/fault-model.md` has what it models and what not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod disk;
mod ledger;
mod machine;
mod machines;
mod mount;
mod trial;

pub use disk::{Faults, Loss, Ordering, Settings};
pub use machine::PoweredDisk;
pub use machines::{Machines, Server};
pub use trial::{Report, Trial, Victims};
