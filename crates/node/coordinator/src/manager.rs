//! A database or an HTTP service as a participant.
//!
//! Invariant: a commit is told only with the manager's proof; what is not known is asked again.

use crate::keyspace::Pauses;
use crate::live::Live;
use crate::service::Inner;
use quorate_base::ClusterId;
use quorate_resource_managers as rm;
use quorate_resource_managers::{BranchName, Deadline, ResourceManager, TransactionName, Work};
use quorate_transactions::{End, Vote};
use std::time::Duration;

/// How long one order may take before it is given again.
const ORDER_LIMIT: Duration = Duration::from_secs(5);

/// One branch at one participant outside.
pub(crate) struct Outside<'a> {
    pub inner: &'a Inner,
    pub live: &'a Live,
    pub manager: &'a dyn ResourceManager,
    pub name: BranchName,
    pub branch: u16,
}

/// The attempt whose branches an application may prepare itself: the first, and the only one of
/// such a transaction.
pub(crate) const OWN_ATTEMPT: u32 = 1;

/// What the branch is called at its participant. The names were checked.
pub(crate) fn name(
    cluster: ClusterId,
    transaction: &str,
    asked: u32,
    participant: &str,
    branch: &str,
) -> Result<BranchName, rm::Error> {
    let transaction = TransactionName::new(cluster, asked.into(), transaction)?;
    BranchName::new(transaction, participant, branch)
}

impl Outside<'_> {
    /// Asks for a vote, again and again, until there is one or it is not wanted any more.
    pub async fn prepare(
        &self,
        work: &Work,
        epoch: u32,
        deadline: Deadline,
        alone: bool,
    ) -> Option<Vote> {
        let mut pauses = Pauses::new();
        while self.live.wants(epoch) && !deadline.left().is_zero() {
            let vote = match work {
                Work::Prepared(_) => self.manager.adopt(&self.name, deadline).await,
                work => self.manager.prepare(&self.name, work, deadline).await,
            };
            match vote {
                rm::Vote::Yes if alone => return self.commit_alone(epoch).await,
                rm::Vote::Yes => return Some(Vote::Yes),
                rm::Vote::ReadOnly => return Some(Vote::ReadOnly),
                rm::Vote::No(refusal) => {
                    if refusal.is_unreachable() {
                        self.inner.doubt_fitness(self.manager.name());
                    }
                    if let Some(statement) = refusal.statement() {
                        self.live.blame(self.branch, statement);
                    }
                    return Some(Vote::No { reason: refusal.to_string(), again: None });
                }
                rm::Vote::Unknown(doubt) => self.live.trouble(self.branch, &doubt.to_string()),
            }
            pauses.pause().await;
        }
        None
    }

    /// Nobody else takes part: what is prepared can be committed.
    async fn commit_alone(&self, epoch: u32) -> Option<Vote> {
        let mut pauses = Pauses::new();
        while self.live.wants(epoch) {
            match self.manager.commit(&self.name, Deadline::within(ORDER_LIMIT)).await {
                rm::Outcome::Applied(_) => return Some(Vote::Done(0)),
                rm::Outcome::NotThere | rm::Outcome::Heuristic(_) => {
                    let reason = "it was rolled back before it was committed".to_owned();
                    return Some(Vote::No { reason, again: None });
                }
                rm::Outcome::Unknown(doubt) => self.live.trouble(self.branch, &doubt.to_string()),
            }
            pauses.pause().await;
        }
        None
    }

    /// Tells the decision, again and again, until it is certain that it is carried out. `alone`:
    /// it may have committed by itself.
    pub async fn settle(&self, commit: bool, alone: bool) -> End {
        let mut pauses = Pauses::new();
        loop {
            let deadline = Deadline::within(ORDER_LIMIT);
            let outcome = match alone && !commit {
                true => self.manager.rollback(&self.name, deadline).await,
                false => {
                    self.inner.recovery.settle(self.manager, &self.name, commit, deadline).await
                }
            };
            match outcome {
                rm::Outcome::Applied(_) => return End::Committed(0),
                rm::Outcome::NotThere => return End::RolledBack,
                rm::Outcome::Heuristic(rm::Heuristic::Committed) if alone => {
                    return End::Committed(0);
                }
                rm::Outcome::Heuristic(heuristic) => return End::Heuristic(heuristic.to_string()),
                rm::Outcome::Unknown(doubt) => self.live.trouble(self.branch, &doubt.to_string()),
            }
            pauses.pause().await;
        }
    }
}
