//! Identities. Each is a number of its own type, so that one cannot be passed for another.

use core::fmt;

/// Position of an entry in a group's log, from 1. Zero means "before the first entry".
pub type Index = u64;

/// One node: one process with one data directory. Zero is never a node; it means "nobody".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

impl NodeId {
    /// Nobody: no leader known, no vote given.
    pub const NONE: NodeId = NodeId(0);

    /// Whether this names no node.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// One group: the unit of replication.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GroupId(pub u64);

/// One cluster. Nodes of different clusters refuse each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub u64);

/// Names one proposal for ever, so that a proposal sent twice is applied once.
///
/// A *session* is one run of one node: `node` with a `run` that grows at every start. `sequence`
/// numbers the session's proposals from 1. `settled` says that the session no longer waits for
/// (and will never send again) any sequence below it, which bounds what a service must remember.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct RequestId {
    /// The node that proposed.
    pub node: NodeId,
    /// Which run of that node; larger is later.
    pub run: u64,
    /// Number of the proposal within the run, from 1.
    pub sequence: u64,
    /// Every sequence below this one is settled.
    pub settled: u64,
}

macro_rules! hex_id {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }
    )*};
}
hex_id!(NodeId, GroupId, ClusterId);
