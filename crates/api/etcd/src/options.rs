//! What can be chosen about the API, and the limits it keeps.

use crate::metrics::Measures;
use std::time::Duration;
use tokio::runtime::Handle;
use tonic::service::Routes;

/// The version of etcd this server is compatible with, as told to clients.
pub const SERVER_VERSION: &str = "3.7.0";
/// The cluster's version: the least its members have in common.
pub const CLUSTER_VERSION: &str = "3.7.0";
/// The storage version, as etcd tells it.
pub const STORAGE_VERSION: &str = "3.7.0";

/// What a message may have beyond the largest request: etcd's allowance for framing.
pub(crate) const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

/// The API's settings. The defaults are etcd's.
#[derive(Clone, Debug)]
pub struct Options {
    /// The largest request, in bytes.
    pub max_request_bytes: usize,
    /// The most operations of a transaction.
    pub max_txn_ops: usize,
    /// The most streams a connection may have open at a time.
    pub max_concurrent_streams: u32,
    /// The most connections.
    pub max_connections: usize,
    /// How long an election takes at most, when all is well.
    pub election_timeout: Duration,
    /// How often a quiet watcher that asked for it is told the revision.
    pub progress_notify_interval: Duration,
    /// How many bytes of events may wait to be handed to watchers. Beyond it they are read from
    /// history instead.
    pub recent_event_bytes: usize,
    /// Serves the paths of gRPC services that are not etcd's (`/quorate.`…).
    pub control: Option<Routes>,
    /// What `/metrics` tells besides.
    pub measures: Option<Measures>,
    /// Runtimes that serve connections in turn with the one that `serve` runs on.
    pub workers: Vec<Handle>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_request_bytes: 1536 * 1024,
            max_txn_ops: 128,
            max_concurrent_streams: 1 << 20,
            max_connections: 100_000,
            election_timeout: Duration::from_secs(1),
            progress_notify_interval: Duration::from_secs(600),
            recent_event_bytes: 16 << 20,
            control: None,
            measures: None,
            workers: Vec::new(),
        }
    }
}

impl Options {
    /// How long a request may take: as etcd, 5 s and two elections.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }

    /// The largest message that is taken off the wire at all, in bytes.
    pub fn max_message_bytes(&self) -> usize {
        self.max_request_bytes.saturating_add(GRPC_OVERHEAD_BYTES)
    }

    /// The shortest lease: as etcd, one and a half elections, in whole seconds.
    pub fn min_lease_ttl_seconds(&self) -> i64 {
        let millis = self.election_timeout.as_millis().saturating_mul(3).div_ceil(2);
        i64::try_from(millis.div_ceil(1000)).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_etcds() {
        let options = Options::default();
        assert_eq!(options.request_timeout(), Duration::from_secs(7));
        assert_eq!(options.max_message_bytes(), 2 * 1024 * 1024);
        assert_eq!(options.min_lease_ttl_seconds(), 2);
    }
}
