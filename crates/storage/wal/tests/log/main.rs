//! The log against its promises.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod behaviour;
mod crashes;
mod fault_disk;
mod model;
mod support;
