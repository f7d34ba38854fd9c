//! A keyspace: etcd's data model as a deterministic state machine.
//!
//! [`Keyspace`] executes [`Command`]s, which reach it as the committed entries of a log, and owns
//! the versioned keys, the leases, the member table and the alarms. [`Reader`] reads them from
//! other threads, [`WatchHub`] tells watchers, [`SpaceGuard`] minds the quota.
//!
//! Invariants: what entries do depends on the state and the entries alone; time matters only to
//! the leader's [`Lessor`], which turns it into commands; a request is executed once.

mod apply;
mod asked;
mod batch;
pub mod branch;
pub mod canary;
mod claims;
pub mod codec;
pub mod command;
mod keyspace;
mod leases;
mod lessor;
mod members;
mod question;
mod range;
mod reader;
pub mod reply;
mod snapshot;
mod space;
mod state;
mod stream;
mod txn;
pub mod watch;

pub use asked::Asked;
pub use branch::{BranchCommand, BranchId, BranchOutcome, Part, Prepare};
pub use canary::Canary;
pub use command::Command;
pub use keyspace::{Config, EventBatch, Keyspace};
pub use lessor::{Lessor, LessorConfig, MAX_TTL_SECONDS, minimum_ttl_seconds};
pub use members::Members;
pub use question::{LeaseAnswer, Question};
pub use reader::{Hash, History, LeaseInfo, ReadError, Reader, Sizes};
pub use reply::{KeyspaceError, Outcome, Reply};
pub use space::SpaceGuard;
pub use stream::{Piece, RangeStream};
pub use watch::WatchHub;
