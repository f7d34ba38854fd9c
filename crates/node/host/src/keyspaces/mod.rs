//! Many keyspaces on one node: the directory of them, and what follows from it.
//!
//! The directory is a keyspace itself, `system`, in a group of its own that every member of the
//! cluster has a replica of; it is founded by a command of the default keyspace. A record says
//! which nodes have a replica of a keyspace. Each node reads it from its own replica and opens and
//! closes replicas accordingly ([`Opener`]); a keyspace's leader makes the members of its group
//! follow ([`follow_members`]); leaders go where they are asked, and are spread over the nodes
//! otherwise ([`place_leaders`]).
//!
//! Invariants: a group's number is never given twice. What the directory said when a replica was
//! opened or closed is durable before the log learns of either, so that no restart can take an
//! earlier word for the present one and a replica forgets what it promised only after the
//! directory said for ever that it is none.

mod admin;
mod directory;
mod leaders;
mod leaving;
mod members;
mod name;
mod opener;
mod record;

pub use admin::{AdminError, Description, NewKeyspace};
pub(crate) use leaders::place_leaders;
pub(crate) use members::follow_members;
pub(crate) use opener::{Opener, OpenerWork};
pub(crate) use record::Record;

use quorate_base::GroupId;

/// The group of the directory.
pub const SYSTEM: GroupId = GroupId(2);
/// The name of the directory.
pub(crate) const SYSTEM_NAME: &str = "system";
/// The keyspace that has the records of transactions: made when the first transaction is run, with
/// a replica on every member. It is not for clients.
pub const TRANSACTIONS: &str = "transactions";
/// The first group that a keyspace made by request gets; those below are the node's own.
pub(crate) const FIRST_GROUP: u64 = 16;
/// Keyspaces that a directory holds at most.
pub(crate) const MAX_KEYSPACES: usize = 1_024;
