//! What a replica is told once.

use crate::epoch::Epoch;
use core::time::Duration;
use quorate_base::NodeId;

/// Settings of one replica.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it is.
    pub node: NodeId,
    /// The epoch of the log.
    pub epoch: Epoch,
    /// Whether this replica opens the epoch now. Then no earlier run of it can have promised a
    /// leader of this epoch anything, and nobody leads yet: it waits less before it stands.
    pub opens: bool,
    /// The leader is silent for at most this long.
    pub heartbeat: Duration,
    /// Base of the election timeout; each wait is drawn from one to one and a half times this.
    pub election_timeout: Duration,
    /// What a follower waits, in place of the election timeout, for a leader that it has heard
    /// from, and a leader for a quorum: the election timeout itself or, where heartbeats are rare
    /// and somebody else tells when a node falls silent ([`Input::PeerLost`]), more than that.
    ///
    /// [`Input::PeerLost`]: crate::Input::PeerLost
    pub patience: Duration,
    /// A declared bound on how much faster one node's clock may run than another's, in parts per
    /// million. `Some` turns leader leases on: reads without a quorum round.
    pub lease_clock_drift_ppm: Option<u32>,
    /// Seeds the generator that spreads election timeouts and numbers read attempts: different in
    /// every run of the node, lest an answer to an earlier run's read fit one of this run's.
    pub seed: u64,
    /// The limits.
    pub limits: Limits,
}

/// Bounds of everything a replica queues.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entry bytes in one append message (at least one entry always goes).
    pub append_bytes: usize,
    /// Append messages under way to one follower.
    pub inflight_messages: usize,
    /// Entry bytes under way to one follower.
    pub inflight_bytes: usize,
    /// Entry bytes appended and not yet committed; more are refused.
    pub uncommitted_bytes: usize,
    /// Read attempts waiting for their leadership probe.
    pub pending_reads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            append_bytes: 1 << 20,
            inflight_messages: 256,
            inflight_bytes: 16 << 20,
            uncommitted_bytes: 64 << 20,
            pending_reads: 16_384,
        }
    }
}
