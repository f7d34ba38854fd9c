//! The coordinator: random schedules with faults, and each of its ends by itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ends;
mod participant;
mod schedules;
mod world;
