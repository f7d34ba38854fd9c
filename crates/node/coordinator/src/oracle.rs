//! What recovery asks: how did the transaction of a prepared branch end? The record says it.

use crate::service::Inner;
use crate::store::StoreError;
use quorate_resource_managers::{Answer, BranchName, Decision, Heuristic, Oracle, TransactionName};
use quorate_transactions::{Record, Stage, StoreRequest, Stored, Verdict};
use std::sync::Weak;
use std::time::Duration;

const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// Why a transaction is void whose record is made for a branch of it.
pub(crate) const ORPHANED: &str =
    "a branch of it was found prepared, and nobody had begun it or handed the branch in in time";

/// The records, as the managers' recovery sees them.
pub(crate) struct Records(pub Weak<Inner>);

/// What a transaction whose record is this says of a branch that was asked in this epoch.
///
/// Of one that is committed everywhere nothing is to be done: the scan saw what has ended since.
/// For as long as there is a record the fence row is there as well, and bars whatever comes late.
fn decided(record: &Record, epoch: u64) -> Decision {
    match &record.stage {
        Stage::Open if u64::from(record.asked) == epoch => Decision::Undecided,
        Stage::Finished(Verdict::Commit) if u64::from(record.asked) == epoch => Decision::Undecided,
        Stage::Decided(Verdict::Commit) if u64::from(record.asked) == epoch => Decision::Commit,
        _ => Decision::Abort,
    }
}

impl Inner {
    /// Makes a record that says that a transaction of which there was none is void: why. Whether
    /// there was none, so that there is this one now, or another is being made.
    pub(crate) async fn bury(&self, id: &str, why: &str) -> Result<bool, StoreError> {
        let wall_ms = self.moment().wall_ms;
        let record = Record::void(self.me, wall_ms, why);
        let store = self.store().ok_or(StoreError::Away)?;
        let stored = store.write(id, &StoreRequest { number: 1, at: None, record }).await?;
        let done = matches!(stored, Stored::Done(_));
        if done {
            tracing::info!(id, why, "a transaction without a record is void");
        }
        Ok(done)
    }

    async fn decision(&self, id: &str, epoch: u64, orphaned: bool) -> Result<Decision, String> {
        let store = self.store().ok_or("the records cannot be reached from this node yet")?;
        let words = |error: StoreError| error.to_string();
        let mut known = store.find(id, READ_TIMEOUT).await.map_err(words)?;
        // Its application may have prepared it, and be about to hand it in.
        if known.is_none() && orphaned {
            self.bury(id, ORPHANED).await.map_err(words)?;
            // Whoever was first with a record: it says how it is.
            known = store.find(id, READ_TIMEOUT).await.map_err(words)?;
        }
        Ok(match known {
            // A bundle has no branches outside: somebody else's transaction bears the same id.
            Some(known) if known.carried && known.is_settled() => Decision::Abort,
            Some(known) if !known.carried => decided(&known.record, epoch),
            _ => Decision::Undecided,
        })
    }
}

impl Oracle for Records {
    fn decision<'a>(
        &'a self,
        transaction: &'a TransactionName,
        orphaned: bool,
    ) -> Answer<'a, Result<Decision, String>> {
        Box::pin(async move {
            match self.0.upgrade() {
                Some(inner) => {
                    inner.decision(transaction.txid(), transaction.epoch(), orphaned).await
                }
                None => Ok(Decision::Undecided),
            }
        })
    }

    fn alarm(&self, branch: &BranchName, heuristic: Heuristic) {
        if let Some(inner) = self.0.upgrade() {
            inner.raise(branch, heuristic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_attempt_that_was_decided_on_is_committed() {
        let record = |stage| Record {
            content: 0,
            protocol: quorate_atomic_commit::Protocol::TwoPhase,
            owner: quorate_transactions::Owner::default(),
            asker: quorate_transactions::Owner::default(),
            epoch: 5,
            asked: 3,
            began_ms: 0,
            patience_ms: 0,
            changed_ms: 0,
            stage,
            branches: Vec::new(),
            carried: Vec::new(),
        };
        let abort = || Verdict::Abort { branch: None, reason: String::new() };
        for (stage, asked, other) in [
            (Stage::Open, Decision::Undecided, Decision::Abort),
            (Stage::Decided(Verdict::Commit), Decision::Commit, Decision::Abort),
            (Stage::Decided(abort()), Decision::Abort, Decision::Abort),
            (Stage::Finished(Verdict::Commit), Decision::Undecided, Decision::Abort),
            (Stage::Finished(abort()), Decision::Abort, Decision::Abort),
        ] {
            let record = record(stage);
            assert_eq!((decided(&record, 3), decided(&record, 2)), (asked, other), "{record:?}");
        }
    }
}
