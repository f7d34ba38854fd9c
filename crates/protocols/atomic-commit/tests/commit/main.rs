//! Every protocol against the suite that all must pass, every interleaving within bounds, its
//! deliberate bugs, and its cost model.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod canaries;
mod cost;
mod model;
mod rules;
mod schedules;
