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
    /// One of what waits for what, or of the change of epochs.
    Driver(quorate_driver::Canary),
    /// One of the keyspace.
    Keyspace(quorate_keyspace::canary::Bug),
    /// One of a transaction's coordinator.
    Transactions(quorate_transactions::canary::Bug),
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

    /// Every deliberate bug.
    pub fn all() -> Vec<Canary> {
        let raft = quorate_raft::Canary::ALL.into_iter().map(Canary::Raft);
        let paxos = quorate_paxos::Canary::ALL.into_iter().map(Canary::Paxos);
        let wal = quorate_wal::Canary::ALL.into_iter().map(Canary::Wal);
        let store = quorate_mvcc::Bug::ALL.into_iter().map(Canary::Store);
        use quorate_keyspace::canary::Bug;
        let keyspace = Bug::ALL.into_iter().chain(Bug::BRANCHES).map(Canary::Keyspace);
        let coordinator = quorate_transactions::canary::Bug::ALL.map(Canary::Transactions);
        let driver = quorate_driver::Canary::ALL.into_iter().map(Canary::Driver);
        raft.chain(paxos)
            .chain(wal)
            .chain(store)
            .chain(driver)
            .chain(keyspace)
            .chain(coordinator)
            .collect()
    }

    /// Whether it is in the code that runs under `protocol`.
    pub fn concerns(self, protocol: Protocol) -> bool {
        match self {
            Canary::Raft(_) => protocol == Protocol::Raft,
            Canary::Paxos(_) => protocol == Protocol::Paxos,
            _ => true,
        }
    }

    pub(crate) fn wal(self) -> quorate_wal::Canary {
        match self {
            Canary::Wal(bug) => bug,
            _ => quorate_wal::Canary::None,
        }
    }

    pub(crate) fn driver(self) -> quorate_driver::Canary {
        match self {
            Canary::Driver(bug) => bug,
            _ => quorate_driver::Canary::None,
        }
    }

    pub(crate) fn keyspace(self) -> quorate_keyspace::Canary {
        match self {
            #[cfg(feature = "canary")]
            Canary::Keyspace(bug) => quorate_keyspace::Canary::of(bug),
            _ => quorate_keyspace::Canary::NONE,
        }
    }

    pub(crate) fn transactions(self) -> quorate_transactions::Canary {
        match self {
            #[cfg(feature = "canary")]
            Canary::Transactions(bug) => quorate_transactions::Canary::of(bug),
            _ => quorate_transactions::Canary::NONE,
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
