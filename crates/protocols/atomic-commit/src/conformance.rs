//! What every protocol must pass: the sites of one transaction in virtual time, with a network that
//! loses, repeats, delays and cuts, logs that hold what was written and nothing else, resources
//! that vote as they are told to; and a judge.
//!
//! Invariants checked at every step (AC1 to AC3 of Bernstein, Hadzilacos and Goodman, chapter 7):
//! deciders agree; nobody goes back on a decision; a commit has every vote; and the six rules by
//! which the protocols see to that. After a run without
//! faults, that all who could commit have (AC4); after healing, that nobody is in doubt (AC5).

mod counts;
mod judge;
mod resource;
pub mod rules;
pub mod scenarios;
mod schedule;
mod world;

pub use counts::Counts;
pub use judge::Judge;
pub use resource::Resource;
pub use schedule::{Ending, Report, random_calm, random_schedule};
pub use world::{Ended, Setup, World};
