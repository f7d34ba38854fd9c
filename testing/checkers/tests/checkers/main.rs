//! The checkers against another implementation, and against histories known to be right or wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod against_adya;
mod against_stateright;
mod appends;
mod revisioned;
