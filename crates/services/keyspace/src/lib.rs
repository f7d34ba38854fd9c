//! A keyspace: etcd's data model as a deterministic state machine.

pub mod command;
pub mod reply;

pub use command::Command;
pub use reply::{KeyspaceError, Outcome, Reply};
