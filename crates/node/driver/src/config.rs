//! What a driver is told once.

use crate::canary::Canary;
use core::time::Duration;
use quorate_base::{GroupId, NodeId};

/// Settings of one node's driver.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// Who this node is.
    pub node: NodeId,
    /// Which run of the node this is: larger than every earlier run's. It keeps the identities of
    /// requests, reads and questions of different runs apart.
    pub run: u64,
    /// After so long without an answer a forwarded request, a read or a part of a snapshot is
    /// tried again; deadlines are looked at about as often.
    pub retry_interval: Duration,
    /// The service is asked to persist at least this often while entries are applied.
    pub persist_interval: Duration,
    /// The timers of groups that this node leads come at multiples of this (zero: when they are
    /// due), so that the heartbeats of all of them leave together, in one frame for each peer. A
    /// little more than the time between two: a timer that fires late must not miss the next
    /// multiple.
    pub leading_grid: Duration,
    /// The same for the groups from this one on, whose heartbeats are rarer.
    pub calm_grid: (GroupId, Duration),
    /// The limits.
    pub limits: DriverLimits,
    /// A deliberate bug. Takes effect only with the feature `canary`.
    pub canary: Canary,
}

/// Bounds of everything a driver queues, per group.
#[derive(Clone, Copy, Debug)]
pub struct DriverLimits {
    /// Proposals of this node that wait for their outcome.
    pub pending_proposals: usize,
    /// Bytes of those proposals.
    pub pending_bytes: usize,
    /// Bytes of one command.
    pub command_bytes: usize,
    /// Reads and questions of this node, and questions of peers, that wait for theirs.
    pub pending_reads: usize,
    /// Committed entries that the service has not applied yet; beyond, proposals are refused.
    pub apply_lag_entries: u64,
    /// Command bytes in one forwarding message (at least one command always goes).
    pub forward_bytes: usize,
    /// Read rounds under way at a time: fewer rounds carry more reads each.
    pub read_rounds: usize,
    /// Applied entries kept in the log for followers that lag.
    pub catch_up_entries: u64,
    /// Bytes of those entries.
    pub catch_up_bytes: u64,
    /// The log is compacted once it holds this many entries beyond those to be kept, so that
    /// compaction is rare.
    pub compact_step_entries: u64,
    /// The service is asked to persist after this many applied entry bytes.
    pub persist_bytes: u64,
}

impl DriverConfig {
    /// The grid of a group's timers where this node leads it.
    pub(crate) fn grid_of(&self, group: GroupId) -> Duration {
        let (first, calm) = self.calm_grid;
        if group < first { self.leading_grid } else { calm }
    }

    /// Whether a deliberate bug is to take effect.
    pub(crate) fn is(&self, bug: Canary) -> bool {
        cfg!(feature = "canary") && self.canary == bug
    }
}

impl Default for DriverLimits {
    fn default() -> Self {
        DriverLimits {
            pending_proposals: 65_536,
            pending_bytes: 256 << 20,
            command_bytes: 2 << 20,
            pending_reads: 65_536,
            apply_lag_entries: 20_000,
            forward_bytes: 1 << 20,
            read_rounds: 2,
            catch_up_entries: 5_000,
            catch_up_bytes: 32 << 20,
            compact_step_entries: 1_000,
            persist_bytes: 32 << 20,
        }
    }
}
