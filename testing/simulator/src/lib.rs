//! A whole cluster in one thread, in virtual time, with every fault in the book.
//!
//! The driver, the replicated log, the log on disk, the keyspace and the peers' codec are the real
//! ones; the network, the disks, the clocks, the clients and the order of everything are
//! simulated and decided by one seed. [`run`] runs a seed, [`run_many`] many of them; a run ends
//! by healing everything and demanding progress, and is then judged by `quorate-checkers`.
//!
//! Invariant: the same seed and options give the same run, whatever else the machine does.
//! `docs/fault-model.md` lists the faults and what is promised under each.

mod beyond;
mod boot;
mod canary;
mod clients;
mod clock;
mod codec;
mod counters;
mod damage;
mod disk;
mod driving;
mod finish;
mod neighbours;
mod nemesis;
mod network;
mod node;
mod plan;
mod queue;
mod record;
mod run;
mod seats;
mod serving;
mod sight;
mod switches;
mod trace;
mod transactions;
mod translate;
mod watching;
mod world;

pub use canary::Canary;
pub use counters::{Counters, Happening};
pub use quorate_checkers::Violation;
pub use run::{Options, Report, Summary, has_transactions, run, run_many, run_traced};
pub use switches::Switch;
pub use trace::Sink;
