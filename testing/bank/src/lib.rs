//! A bank whose accounts are spread over keyspaces and databases of other people, while everything
//! that can die dies.
//!
//! Money moves by transactions of two to four branches, between accounts of one *circle*: one
//! account at each place. Nodes and databases are killed, paused and cut off meanwhile, by a seed.
//! What must hold is checked in three ways: readers that read all of a circle's accounts in
//! keyspaces by one transaction find its money whole; at the end every account has been written
//! exactly as often as transfers were committed; and all the money is there, with nothing in doubt.
//! Beside it others append to lists, and what these show must be strictly serializable.
//!
//! Invariant: whatever is started ends with the run, however it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod clients;
mod doubt;
mod faults;
mod judge;
mod ledger;
mod lists;
mod money;
mod outside;
mod places;
mod report;
mod requests;
mod trial;

pub use faults::Fault;
pub use report::Report;
pub use trial::Trial;
