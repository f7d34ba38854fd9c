//! What every engine must pass: a cluster of replicas in virtual time, with a network that loses
//! and delays, disks that hold what was written and nothing else, and checks at every step.
//!
//! Invariants checked: a round has one leader; no two replicas commit different entries at an
//! index; each hands out committed entries in order and without a gap; a read is ready at no lower
//! index than was committed anywhere when it was asked; nothing follows the end of an epoch; after
//! healing, all catch up.

mod alone;
mod cluster;
pub mod cost;
mod counts;
pub mod damage;
mod disk;
pub mod elections;
pub mod hostile;
mod lab;
pub mod long_answers;
pub mod partitions;
pub mod patience;
mod schedule;
mod sealing;
pub mod transcripts;
mod words;

pub use alone::Alone;
pub use cluster::{Cluster, Factory};
pub use counts::Counts;
pub use disk::Disk;
pub use schedule::{
    random_schedule, random_schedule_with_clocks, random_schedule_with_leases,
    random_schedule_with_quorums,
};
pub use sealing::random_schedule_with_seal;
pub use words::status as status_in_words;
