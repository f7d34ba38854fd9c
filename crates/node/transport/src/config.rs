//! What a transport is told once.

use quorate_base::{ClusterId, NodeId};
use std::time::Duration;

/// Settings of a transport.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its node.
    pub node: NodeId,
    /// Where other nodes reach it, as `host:port`: told in the hand-shake, so that a peer that
    /// has not yet applied the membership can answer. Empty if unknown.
    pub advertise: String,
    /// Tells its data directory from another; zero if there is none.
    pub birth: u64,
    /// Spreads the reconnects.
    pub seed: u64,
    /// The limits.
    pub limits: Limits,
    /// The times.
    pub timing: Timing,
}

impl Config {
    /// The defaults for a node of a cluster.
    pub fn of(cluster: ClusterId, node: NodeId) -> Config {
        Config {
            cluster,
            node,
            advertise: String::new(),
            birth: 0,
            seed: node.0,
            limits: Limits::default(),
            timing: Timing::default(),
        }
    }
}

/// Bounds of everything a transport holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest payload of a frame, in bytes.
    pub frame_bytes: usize,
    /// Messages waiting for one stream to one peer; more are dropped.
    pub queue_messages: usize,
    /// Bytes waiting for one stream to one peer; more are dropped.
    pub queue_bytes: usize,
    /// Connections from peers at a time.
    pub inbound_connections: usize,
    /// Peers known only from their own hand-shake.
    pub learned_peers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            frame_bytes: 32 << 20,
            queue_messages: 16_384,
            queue_bytes: 64 << 20,
            inbound_connections: 256,
            learned_peers: 64,
        }
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// To connect.
    pub connect: Duration,
    /// To shake hands.
    pub handshake: Duration,
    /// First wait before connecting again.
    pub backoff_min: Duration,
    /// Longest wait before connecting again.
    pub backoff_max: Duration,
    /// Sent bytes may stay unacknowledged for this long before the connection counts as broken.
    pub unacknowledged: Duration,
    /// An idle connection is probed after this long.
    pub keepalive: Duration,
    /// An unused bulk stream is closed after this long.
    pub bulk_idle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            connect: Duration::from_secs(1),
            handshake: Duration::from_secs(2),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            unacknowledged: Duration::from_secs(5),
            keepalive: Duration::from_secs(5),
            bulk_idle: Duration::from_secs(30),
        }
    }
}
