//! Deliberate bugs, one at a time, in the code that is simulated: each must be found.

use quorate_base::Instant;
use quorate_paxos::MultiPaxos;
use quorate_raft::Raft;
use quorate_replicated_log::{Config, Protocol, Recovered, ReplicatedLog};

/// A deliberate bug. Without the feature `canary` none takes effect.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Canary {
    /// No bug.
    #[default]
    None,
    /// One of elections and replication.
    Raft(quorate_raft::Canary),
    /// One of Multi-Paxos.
    Paxos(quorate_paxos::Canary),
    /// One of the log on disk.
    Wal(quorate_wal::Canary),
    /// One of the versioned store.
    Store(quorate_mvcc::Bug),
    /// One of the keyspace.
    Keyspace(quorate_keyspace::canary::Bug),
}

impl Canary {
    /// The replica of a log under `protocol`, which the bug must be one of to take effect.
    pub(crate) fn log(
        self,
        protocol: Protocol,
        config: Config,
        recovered: Recovered,
        now: Instant,
    ) -> Box<dyn ReplicatedLog> {
        match (protocol, self) {
            #[cfg(feature = "canary")]
            (Protocol::Raft, Canary::Raft(bug)) => {
                Box::new(Raft::with_canary(config, now, recovered, Some(bug)))
            }
            #[cfg(feature = "canary")]
            (Protocol::Paxos, Canary::Paxos(bug)) => {
                Box::new(MultiPaxos::with_canary(config, now, recovered, Some(bug)))
            }
            (Protocol::Raft, _) => Box::new(Raft::new(config, now, recovered)),
            (Protocol::Paxos, _) => Box::new(MultiPaxos::new(config, now, recovered)),
        }
    }

    pub(crate) fn wal(self) -> quorate_wal::Canary {
        match self {
            Canary::Wal(bug) => bug,
            _ => quorate_wal::Canary::None,
        }
    }

    pub(crate) fn keyspace(self) -> quorate_keyspace::Canary {
        match self {
            #[cfg(feature = "canary")]
            Canary::Keyspace(bug) => quorate_keyspace::Canary::of(bug),
            _ => quorate_keyspace::Canary::NONE,
        }
    }

    pub(crate) fn store(self) -> quorate_mvcc::Canary {
        match self {
            #[cfg(feature = "canary")]
            Canary::Store(bug) => quorate_mvcc::Canary::of(bug),
            _ => quorate_mvcc::Canary::NONE,
        }
    }
}
