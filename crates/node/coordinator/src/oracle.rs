//! What recovery asks: how did the transaction of a prepared branch end? The record says it.

use crate::service::Inner;
use crate::store::StoreError;
use quorate_resource_managers::{Answer, BranchName, Decision, Heuristic, Oracle};
use quorate_transactions::{BranchState, Kind, Record, Stage, StoreRequest, Stored, Verdict};
use std::sync::Weak;
use std::time::Duration;

const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// Why a transaction is void whose record is made for a branch of it.
pub(crate) const ORPHANED: &str =
    "a branch of it was found prepared, and in time nobody had handed it in or written a record";

/// The records, as the managers' recovery sees them.
pub(crate) struct Records(pub Weak<Inner>);

/// What a transaction whose record is this says of one of its branches.
///
/// An attempt that was not decided on is void, and so is a branch that nobody handed in while there
/// was time. Of one that is committed everywhere the record says how it was proven: for as long as
/// there is a record the fence row is there as well, unless the participant was set back.
fn decided(record: &Record, branch: &BranchName) -> Decision {
    if u64::from(record.asked) != branch.transaction().epoch() {
        return Decision::Abort;
    }
    let mut branches = record.branches.iter().filter(|it| it.kind != Kind::Keyspace);
    let known = branches
        .find(|it| it.name == branch.branch() && it.participant == branch.participant())
        .map(|it| &it.state);
    match (&record.stage, known) {
        (Stage::Open, _) => Decision::Undecided,
        (Stage::Decided(Verdict::Abort { .. }) | Stage::Finished(Verdict::Abort { .. }), _)
        | (_, None) => Decision::Abort,
        (_, Some(BranchState::Acknowledged(_))) => Decision::SeenTo,
        (Stage::Decided(Verdict::Commit), _) => Decision::Commit,
        (Stage::Finished(Verdict::Commit), _) => Decision::Committed,
    }
}

impl Inner {
    /// Makes a record that says that a transaction of which there was none is void: why. Whether
    /// there was none, so that there is this one now, or another is being made.
    pub(crate) async fn bury(&self, id: &str, why: &str) -> Result<bool, StoreError> {
        let wall_ms = self.moment().wall_ms;
        let record = Record::void(self.me, wall_ms, why);
        let store = self.store().ok_or(StoreError::Away)?;
        let request = StoreRequest { number: 1, at: None, record, free_as_of: 0 };
        let stored = store.write(id, &request).await?;
        let done = matches!(stored, Stored::Done(_));
        if done {
            tracing::info!(id, why, "a transaction without a record is void");
        }
        Ok(done)
    }

    async fn decision(&self, branch: &BranchName, orphaned: bool) -> Result<Decision, String> {
        let id = branch.transaction().txid();
        let store = self.store().ok_or("the records cannot be reached from this node yet")?;
        let words = |error: StoreError| error.to_string();
        let mut known = store.find(id, READ_TIMEOUT).await.map_err(words)?;
        if known.is_none() && self.live.get(id).is_some() {
            // It is driven here, and its record will be written.
            return Ok(Decision::Undecided);
        }
        // Its application may have prepared it, and be about to hand it in; or its coordinator may
        // be about to write the record, if it is a bundle.
        if known.is_none() && orphaned {
            self.bury(id, ORPHANED).await.map_err(words)?;
            // Whoever was first with a record: it says how it is.
            known = store.find(id, READ_TIMEOUT).await.map_err(words)?;
        }
        let Some(known) = known else { return Ok(Decision::Unheard) };
        let decision = match known.carried {
            // A bundle's branches bear its own id: this one is of another transaction of the same
            // id as one that it carries.
            true if known.is_settled() => Decision::Abort,
            true => Decision::Undecided,
            false => decided(&known.record, branch),
        };
        if decision == Decision::Abort {
            self.note_stray(&known, branch).await.map_err(words)?;
        }
        Ok(decision)
    }
}

impl Oracle for Records {
    fn decision<'a>(
        &'a self,
        branch: &'a BranchName,
        orphaned: bool,
    ) -> Answer<'a, Result<Decision, String>> {
        Box::pin(async move {
            match self.0.upgrade() {
                Some(inner) => inner.decision(branch, orphaned).await,
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
    use quorate_base::{ClusterId, GroupId};
    use quorate_resource_managers::TransactionName;
    use quorate_transactions::BranchRecord;

    fn record(stage: Stage, state: BranchState) -> Record {
        let branch = |name: &str, kind, participant: &str| BranchRecord {
            kind,
            state: state.clone(),
            ..BranchRecord::keyspace(name, participant, GroupId(0))
        };
        let branches =
            vec![branch("order", Kind::Keyspace, "bank"), branch("debit", Kind::Postgres, "bank")];
        Record {
            protocol: quorate_atomic_commit::Protocol::TwoPhase,
            asked: 3,
            epoch: 5,
            stage,
            branches,
            ..Record::void(quorate_transactions::Owner::default(), 0, "")
        }
    }

    fn branch(epoch: u64, participant: &str, name: &str) -> BranchName {
        let transaction = TransactionName::new(ClusterId(7), epoch, "t").unwrap();
        BranchName::new(transaction, participant, name).unwrap()
    }

    #[test]
    fn only_the_attempt_that_was_decided_on_is_committed() {
        let abort = || Verdict::Abort { branch: None, reason: String::new() };
        let (asked, other) = (branch(3, "bank", "debit"), branch(2, "bank", "debit"));
        for (stage, expected) in [
            (Stage::Open, Decision::Undecided),
            (Stage::Decided(Verdict::Commit), Decision::Commit),
            (Stage::Decided(abort()), Decision::Abort),
            (Stage::Finished(Verdict::Commit), Decision::Committed),
            (Stage::Finished(abort()), Decision::Abort),
        ] {
            let record = record(stage, BranchState::Committed(0));
            let both = (decided(&record, &asked), decided(&record, &other));
            assert_eq!(both, (expected, Decision::Abort), "{record:?}");
        }
    }

    #[test]
    fn what_people_have_seen_to_is_left_to_them_and_what_was_not_handed_in_is_void() {
        let seen_to = || BranchState::Acknowledged("by hand".to_owned());
        for stage in [Stage::Decided(Verdict::Commit), Stage::Finished(Verdict::Commit)] {
            let record = record(stage, seen_to());
            assert_eq!(decided(&record, &branch(3, "bank", "debit")), Decision::SeenTo);
            for (participant, name) in [("bank", "credit"), ("shop", "debit"), ("bank", "order")] {
                let stranger = branch(3, participant, name);
                assert_eq!(decided(&record, &stranger), Decision::Abort, "{stranger}");
            }
        }
        let open = record(Stage::Open, BranchState::Prepared);
        assert_eq!(decided(&open, &branch(3, "bank", "credit")), Decision::Undecided);
    }
}
