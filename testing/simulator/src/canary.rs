//! Deliberate bugs, one at a time, in the code that is simulated: each must be found.

use quorate_base::Instant;
use quorate_raft::Raft;
use quorate_replicated_log::{Config, Recovered, ReplicatedLog};

/// A deliberate bug. Without the feature `canary` none takes effect.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Canary {
    /// No bug.
    #[default]
    None,
    /// One of elections and replication.
    Raft(quorate_raft::Canary),
    /// One of the log on disk.
    Wal(quorate_wal::Canary),
    /// One of the versioned store.
    Store(quorate_mvcc::Bug),
    /// One of the keyspace.
    Keyspace(quorate_keyspace::canary::Bug),
}

impl Canary {
    pub(crate) fn raft(
        self,
        config: Config,
        recovered: Recovered,
        now: Instant,
    ) -> Box<dyn ReplicatedLog> {
        match self {
            #[cfg(feature = "canary")]
            Canary::Raft(bug) => Box::new(Raft::with_canary(config, now, recovered, Some(bug))),
            _ => Box::new(Raft::new(config, now, recovered)),
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
