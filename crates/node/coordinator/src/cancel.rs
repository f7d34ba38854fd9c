//! What a client does not want any more.
//!
//! Invariant: a cancellation changes nothing that is decided. Who drives the transaction is told,
//! if that is this member; else this member takes it over, which takes the word from whoever had
//! it.

use crate::error::RunError;
use crate::report::Report;
use crate::service::{Transactions, store_error};
use crate::store::StoreError;
use crate::takeover::{Why, take};
use quorate_resource_managers::Deadline;
use quorate_transactions::CANCELLED;
use std::time::Duration;
use tokio::time::sleep;

const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take until it is decided.
const LIMIT: Duration = Duration::from_secs(10);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

impl Transactions {
    /// Rolls a transaction back if it is not decided yet; how it is decided then.
    ///
    /// # Errors
    /// [`RunError`]; an unknown one, if there is none of this id.
    pub async fn cancel(&self, id: &str, by: Deadline) -> Result<Report, RunError> {
        let (inner, deadline) = (&self.0, by.min(Deadline::within(LIMIT)));
        let store = self.store(by).await?;
        let (mut carried, mut begun) = (false, false);
        loop {
            // Once it is begun it may be done, whatever keeps the records away.
            let failed = |error: StoreError| match begun {
                true => in_doubt(id),
                false => store_error(error),
            };
            if begun && deadline.left().is_zero() {
                return Err(in_doubt(id));
            }
            let known = match store.find(id, READ_TIMEOUT.min(by.left())).await.map_err(failed)? {
                Some(known) => known,
                // Its bundle was taken apart: it has no record of its own yet, and gets none.
                None if carried => {
                    inner.bury(id, CANCELLED).await.map_err(failed)?;
                    continue;
                }
                None => return Err(RunError::Unknown(format!("there is no transaction {id:?}"))),
            };
            carried |= known.carried;
            if known.is_settled() {
                return Ok(Report::known(id, known));
            }
            begun = true;
            // A bundle is cancelled whole: those whom it carried besides go alone.
            match inner.live.get(&known.id) {
                Some(live) => live.cancel(),
                None => {
                    let kept = (known.record, known.revision);
                    drop(take(inner, known.id, kept, Why::Cancelled));
                }
            }
            sleep(PAUSE).await;
        }
    }
}

fn in_doubt(id: &str) -> RunError {
    RunError::InDoubt(format!(
        "the transaction {id:?} is not decided yet: it may be cancelled all the same. Ask for it \
         by `quorate txn show {id}`"
    ))
}
