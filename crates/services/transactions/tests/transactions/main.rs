//! The coordinator: random schedules with faults and without, each of its ends by itself, and
//! what it costs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bundles;
mod cost;
mod ends;
mod participant;
mod schedules;
mod store;
mod waits;
mod world;
