//! The simulator over many seeds, over itself, and over deliberate bugs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod against_adya;
mod canaries;
mod seeds;
mod switches;
