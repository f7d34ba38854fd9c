//! The store against a naive model, on every engine; threads; kills; snapshots; canaries.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "canary")]
mod canary;
mod histories;
mod kill;
mod long_keys;
mod model;
mod power;
mod random;
mod shelf;
mod snapshots;
mod threads;
mod world;
