//! Recovery: finishes the branches that a coordinator has left prepared.
//!
//! At the start and then periodically every participant is asked for this cluster's prepared
//! branches, and an oracle for what was decided about their transactions: what was decided to
//! commit is committed, what was decided otherwise is rolled back, what is undecided is left alone.
//! Invariants: nothing is done to a branch without a decision about its transaction; a branch is
//! over only when its manager has said so with a proof; an alarm stays until it is acknowledged.

mod alarms;
mod counts;
mod settle;

pub use alarms::Alarm;
use counts::Counters;
pub use counts::Counts;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::manager::{Answer, ResourceManager};
use crate::name::TransactionName;
use crate::outcome::{InDoubt, Outcome};
use alarms::Alarms;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// What was decided about a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// To commit; the decision is durable.
    Commit,
    /// To roll back; the decision is durable.
    Abort,
    /// Nothing was known of it, and now a record says that it is never to be committed.
    Tombstoned,
    /// Nothing yet: its coordinator is at work, or an answer needs a quorum that is not there.
    Undecided,
}

/// Who knows the decisions.
///
/// Where there is no record of a transaction that is not under way, the oracle must make one before
/// it answers [`Decision::Tombstoned`]: else a late decision to commit races the rollback.
pub trait Oracle: Send + Sync {
    /// What was decided; an error is taken for [`Decision::Undecided`].
    fn decision<'a>(
        &'a self,
        transaction: &'a TransactionName,
    ) -> Answer<'a, Result<Decision, String>>;
}

/// How recovery works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecoverySettings {
    /// From the end of one scan of a participant to the next.
    pub interval: Duration,
    /// How long one question to a participant may take.
    pub call_limit: Duration,
    /// How many branches of a participant are finished at a time.
    pub concurrency: usize,
    /// The pause after a failure; it doubles with every further one,
    pub first_pause: Duration,
    /// up to this.
    pub longest_pause: Duration,
}

impl Default for RecoverySettings {
    fn default() -> RecoverySettings {
        RecoverySettings {
            interval: Duration::from_secs(10),
            call_limit: Duration::from_secs(5),
            concurrency: 8,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(10),
        }
    }
}

/// Finishes branches, at whichever participants.
pub struct Recovery {
    managers: Vec<Arc<dyn ResourceManager>>,
    oracle: Arc<dyn Oracle>,
    settings: RecoverySettings,
    alarms: Alarms,
    counters: Counters,
}

/// What one scan of one participant came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Scanned {
    /// Branches found prepared.
    pub found: usize,
    /// Of these, proven to be committed now.
    pub committed: usize,
    /// Of these, rolled back now, and barred.
    pub rolled_back: usize,
    /// Of these, left alone: there is no decision yet.
    pub undecided: usize,
    /// Of these, not known: the next scan tries again.
    pub unknown: usize,
    /// Of these, against the decision: alarms.
    pub heuristic: usize,
}

impl Recovery {
    /// Recovery for these participants.
    pub fn new(
        managers: Vec<Arc<dyn ResourceManager>>,
        oracle: Arc<dyn Oracle>,
        settings: RecoverySettings,
    ) -> Recovery {
        let (alarms, counters) = (Alarms::default(), Counters::default());
        Recovery { managers, oracle, settings, alarms, counters }
    }

    /// Scans every participant at once, and then each in its interval, until this future is
    /// dropped. A participant that fails is asked less and less often, and delays no other.
    pub async fn run(&self) {
        // Boxed, so that the compiler sees that the whole can move between threads.
        let mut all: Vec<BoxFuture<'_, ()>> = Vec::with_capacity(self.managers.len());
        for manager in &self.managers {
            all.push(Box::pin(self.watch(&**manager)));
        }
        futures_util::future::join_all(all).await;
    }

    async fn watch(&self, manager: &dyn ResourceManager) {
        let mut pause = self.settings.first_pause;
        loop {
            match self.scan(manager).await {
                Ok(scanned) if scanned.unknown == 0 => {
                    pause = self.settings.first_pause;
                    tokio::time::sleep(self.settings.interval).await;
                    continue;
                }
                Ok(scanned) => {
                    let (name, unknown) = (manager.name(), scanned.unknown);
                    warn!("{name}: {unknown} branches could not be finished; again in {pause:?}");
                }
                Err(error) => warn!("{error}; again in {pause:?}"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.settings.longest_pause);
        }
    }

    /// Scans one participant once, and finishes what it finds.
    ///
    /// # Errors
    /// The participant could not be asked.
    pub async fn scan(&self, manager: &dyn ResourceManager) -> Result<Scanned, Error> {
        let found = manager.scan(Deadline::within(self.settings.call_limit)).await;
        let found = found.inspect_err(|_| self.counters.failed_scan())?;
        let mut scanned = Scanned { found: found.len(), ..Scanned::default() };
        let concurrency = self.settings.concurrency.max(1);
        let mut all: Vec<BoxFuture<'_, Option<Outcome>>> = Vec::with_capacity(found.len());
        for in_doubt in &found {
            all.push(Box::pin(self.finish(manager, in_doubt)));
        }
        let mut ends = stream::iter(all).buffer_unordered(concurrency);
        while let Some(end) = ends.next().await {
            match end {
                None => scanned.undecided += 1,
                Some(Outcome::Applied(_)) => scanned.committed += 1,
                Some(Outcome::NotThere) => scanned.rolled_back += 1,
                Some(Outcome::Unknown(_)) => scanned.unknown += 1,
                Some(Outcome::Heuristic(_)) => scanned.heuristic += 1,
            }
        }
        self.counters.scanned(&scanned);
        Ok(scanned)
    }

    /// Finishes one branch, once; nothing, if there is no decision.
    async fn finish(&self, manager: &dyn ResourceManager, found: &InDoubt) -> Option<Outcome> {
        let transaction = found.branch.transaction();
        let asked = Deadline::within(self.settings.call_limit);
        let decision = match asked.bound(self.oracle.decision(transaction)).await {
            Some(Ok(decision)) => decision,
            Some(Err(why)) => {
                warn!("what was decided about {transaction} is not known: {why}");
                Decision::Undecided
            }
            None => Decision::Undecided,
        };
        let commit = match decision {
            Decision::Commit => true,
            Decision::Abort | Decision::Tombstoned => false,
            Decision::Undecided => return None,
        };
        let outcome = self.order(manager, &found.branch, commit).await;
        if let Outcome::Applied(_) | Outcome::NotThere = outcome {
            info!("recovered {} at {}: {decision:?}", found.branch, manager.name());
        }
        Some(outcome)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counters.read(self.alarms.all().len())
    }
}
