//! Recovery: finishes the branches that a coordinator has left prepared.
//!
//! At the start and then periodically every participant is asked for this cluster's prepared
//! branches, and an oracle for what was decided about their transactions: what was decided to
//! commit is committed, what was decided otherwise is rolled back, what is undecided is left alone,
//! and so is for a while what nobody knows: an application may have prepared it to hand it in.
//! What is prepared again after its end was recorded is committed again if it was proven to be, and
//! left to people if they have seen to it.
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
use crate::name::BranchName;
use crate::outcome::{Doubt, Heuristic, InDoubt, Outcome, State};
use alarms::Alarms;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::{info, warn};

/// What was decided about a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// To commit; the decision is durable.
    Commit,
    /// To commit, and this branch was proven to be committed. Either it has ended since it was
    /// found, or its participant has gone back to an earlier state: then it is committed again.
    Committed,
    /// To commit; the branch was once found to have ended otherwise, and people have seen to that.
    /// What they have done nobody knows: if it is prepared now it is left to them, with an alarm.
    SeenTo,
    /// To roll back; the decision is durable.
    Abort,
    /// Nothing was known of it, and now a record says that it is never to be committed.
    Tombstoned,
    /// Nothing yet: its coordinator is at work, or an answer needs a quorum that is not there.
    Undecided,
    /// There is no record of it, yet.
    Unheard,
}

/// Who knows the decisions, and keeps the alarms.
///
/// Where there is no record of a transaction that is not under way, the oracle must make one before
/// it answers [`Decision::Tombstoned`]: else a late decision to commit races the rollback.
pub trait Oracle: Send + Sync {
    /// What was decided about a branch's transaction; an error is taken for
    /// [`Decision::Undecided`]. Where nothing is known of the transaction, that is
    /// [`Decision::Unheard`] unless the branch is `orphaned`: its application may yet hand it in,
    /// or its coordinator be writing the record.
    fn decision<'a>(
        &'a self,
        branch: &'a BranchName,
        orphaned: bool,
    ) -> Answer<'a, Result<Decision, String>>;

    /// A branch that a scan met was ended against the decision: kept until people have seen to it.
    fn alarm(&self, branch: &BranchName, heuristic: Heuristic);
}

/// How recovery works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecoverySettings {
    /// From the end of one scan of a participant to the next.
    pub interval: Duration,
    /// The same, where bundles may be: those of a coordinator that hangs have no record.
    pub bundles: Duration,
    /// How long one question to a participant may take.
    pub call_limit: Duration,
    /// How many branches of a participant are finished at a time.
    pub concurrency: usize,
    /// The pause after a failure; it doubles with every further one,
    pub first_pause: Duration,
    /// up to this.
    pub longest_pause: Duration,
    /// For how long a branch of a bundle that has no record is left alone: its coordinator may be
    /// writing it. Of others, an application may have prepared the branch, and how long that may
    /// take is the participant's matter.
    pub unheard: Duration,
}

impl Default for RecoverySettings {
    fn default() -> RecoverySettings {
        RecoverySettings {
            interval: Duration::from_secs(10),
            bundles: Duration::from_secs(2),
            call_limit: Duration::from_secs(5),
            concurrency: 8,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(10),
            unheard: Duration::from_millis(300),
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
    /// When each branch that is prepared was first met, by participant.
    met: Mutex<BTreeMap<String, BTreeMap<BranchName, Instant>>>,
    /// Wakes whoever waits for the next scan.
    hurry: watch::Sender<u64>,
}

/// What became of a branch that a scan has found.
enum End {
    /// It was told how it ends.
    Told(Outcome),
    /// Nothing: there is no decision yet, or nothing to be done.
    Left,
    /// Nothing: there is no record of it.
    Unheard,
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
    /// Of these, left alone: there is no decision yet, or it has ended since it was found.
    pub undecided: usize,
    /// The time until the first of those of which there is no record is rolled back, if there are
    /// such.
    pub again: Option<Duration>,
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
        let (met, hurry) = (Mutex::default(), watch::channel(0).0);
        Recovery { managers, oracle, settings, alarms, counters, met, hurry }
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

    /// Scans every participant soon: a coordinator was lost, which may have left branches that have
    /// no record.
    pub fn hurry(&self) {
        self.hurry.send_modify(|times| *times += 1);
    }

    async fn watch(&self, manager: &dyn ResourceManager) {
        // What hurries it during a scan lets the next one come at once. A member that never asks
        // this participant for anything looks for others' branches all the same.
        let (mut pause, mut hurry) = (self.settings.first_pause, self.hurry.subscribe());
        let interval = match manager.may_share() {
            true => self.settings.bundles.min(self.settings.interval),
            false => self.settings.interval,
        };
        loop {
            match self.scan(manager).await {
                Ok(scanned) if scanned.unknown == 0 => {
                    pause = self.settings.first_pause;
                    // What nobody hands in is rolled back when its time has come.
                    let next = scanned.again.unwrap_or(interval).max(pause);
                    rest(next.min(interval), &mut hurry).await;
                    continue;
                }
                Ok(scanned) => {
                    let (name, unknown) = (manager.name(), scanned.unknown);
                    warn!("{name}: {unknown} branches could not be finished; again in {pause:?}");
                }
                Err(error) => warn!("{error}; again in {pause:?}"),
            }
            rest(pause, &mut hurry).await;
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
        let left = self.meet(manager, &found);
        let concurrency = self.settings.concurrency.max(1);
        let mut all: Vec<BoxFuture<'_, (End, Duration)>> = Vec::with_capacity(found.len());
        for (in_doubt, left) in found.iter().zip(left) {
            let finish = self.finish(manager, in_doubt, left.is_zero());
            // Where the records cannot be read it is looked at again, but not all the time.
            let left = if left.is_zero() { self.settings.first_pause * 10 } else { left };
            all.push(Box::pin(async move { (finish.await, left) }));
        }
        let mut ends = stream::iter(all).buffer_unordered(concurrency);
        while let Some((end, left)) = ends.next().await {
            match end {
                End::Left => scanned.undecided += 1,
                End::Unheard => {
                    scanned.undecided += 1;
                    scanned.again = Some(scanned.again.map_or(left, |again| again.min(left)));
                }
                End::Told(Outcome::Applied(_)) => scanned.committed += 1,
                End::Told(Outcome::NotThere) => scanned.rolled_back += 1,
                End::Told(Outcome::Unknown(_)) => scanned.unknown += 1,
                End::Told(Outcome::Heuristic(_)) => scanned.heuristic += 1,
            }
        }
        self.counters.scanned(&scanned);
        Ok(scanned)
    }

    /// Notes when each of these branches was first met; how long from now on it may be without a
    /// record. By this process's own clock: a participant's may be any.
    fn meet(&self, manager: &dyn ResourceManager, found: &[InDoubt]) -> Vec<Duration> {
        let mut all = self.met.lock();
        let met = all.entry(manager.name().to_owned()).or_default();
        let now = Instant::now();
        let mut still = BTreeMap::new();
        let mut left = Vec::with_capacity(found.len());
        for InDoubt { branch, .. } in found {
            let since = met.get(branch).copied().unwrap_or(now);
            still.insert(branch.clone(), since);
            let limit = match branch.transaction().is_bundle() {
                true => self.settings.unheard,
                false => manager.hand_in(),
            };
            left.push(limit.saturating_sub(now.duration_since(since)));
        }
        *met = still;
        left
    }

    /// Finishes one branch, once.
    async fn finish(&self, manager: &dyn ResourceManager, found: &InDoubt, orphaned: bool) -> End {
        let (branch, limit) = (&found.branch, self.settings.call_limit);
        let asked = Deadline::within(limit);
        let decision = match asked.bound(self.oracle.decision(branch, orphaned)).await {
            Some(Ok(decision)) => decision,
            Some(Err(why)) => {
                warn!("what was decided about {} is not known: {why}", branch.transaction());
                unread(branch)
            }
            None => unread(branch),
        };
        let outcome = match decision {
            Decision::Commit => self.order(manager, branch, true).await,
            Decision::Abort | Decision::Tombstoned => self.order(manager, branch, false).await,
            Decision::Undecided => return End::Left,
            Decision::Unheard => return End::Unheard,
            // It was found before its record was read: only what is prepared now has come back.
            Decision::Committed | Decision::SeenTo => {
                match manager.inspect(branch, Deadline::within(limit)).await {
                    Ok(State::Prepared) if decision == Decision::Committed => {
                        self.order(manager, branch, true).await
                    }
                    Ok(State::Prepared) => {
                        self.alarms.raise(branch, Heuristic::CameBack);
                        Outcome::Heuristic(Heuristic::CameBack)
                    }
                    Ok(_) => return End::Left,
                    Err(error) => Outcome::Unknown(Doubt(error)),
                }
            }
        };
        match &outcome {
            Outcome::Applied(_) | Outcome::NotThere => {
                info!("recovered {branch} at {}: {decision:?}", manager.name());
            }
            Outcome::Heuristic(heuristic) => self.oracle.alarm(branch, *heuristic),
            Outcome::Unknown(_) => {}
        }
        End::Told(outcome)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counters.read(self.alarms.all().len())
    }
}

async fn rest(pause: Duration, hurry: &mut watch::Receiver<u64>) {
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        // It lives as long as whoever rests.
        _ = hurry.changed() => {}
    }
}

/// What is taken for the decision where the records do not answer: a bundle's branch, which may
/// have none, is soon looked at again.
fn unread(branch: &BranchName) -> Decision {
    match branch.transaction().is_bundle() {
        true => Decision::Unheard,
        false => Decision::Undecided,
    }
}
