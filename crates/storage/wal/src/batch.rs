//! What the driver hands to the log: the writes of many groups, made durable by one sync.

use quorate_base::GroupId;
use quorate_replicated_log::Write;

/// Numbers the batches of one run of a node, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct BatchId(pub u64);

/// Writes of any number of groups, in order within each group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Its number.
    pub id: BatchId,
    /// The writes.
    pub writes: Vec<(GroupId, Write)>,
}
