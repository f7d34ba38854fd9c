//! The log against its promises.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod behaviour;
#[cfg(feature = "canary")]
mod canary;
mod crashes;
mod cut_off;
mod damage;
mod failures;
mod fault_disk;
mod format;
mod identity;
mod model;
mod outlived;
mod support;
