//! What a client does not want any more.
//!
//! Invariant: a cancellation changes nothing that is decided. Who drives the transaction is told,
//! if that is this member; else this member takes it over, which takes the word from whoever had
//! it.

use crate::error::RunError;
use crate::report::Report;
use crate::service::{Transactions, store_error};
use crate::takeover::{Why, take};
use quorate_resource_managers::Deadline;
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
    pub async fn cancel(&self, id: &str) -> Result<Report, RunError> {
        let (inner, deadline) = (&self.0, Deadline::within(LIMIT));
        let store = self.store().await?;
        loop {
            let kept = store.read(id, READ_TIMEOUT).await.map_err(store_error)?;
            let Some((record, revision)) = kept else {
                return Err(RunError::Unknown(format!("there is no transaction {id:?}")));
            };
            if record.stage.verdict().is_some() {
                return Ok(Report::of(id, record));
            }
            if deadline.left().is_zero() {
                return Err(RunError::InDoubt(format!(
                    "the transaction {id:?} is not decided yet: it may be cancelled all the same. \
                     Ask for it by `quorate txn show {id}`"
                )));
            }
            match inner.live.get(id) {
                Some(live) => live.cancel(),
                None => drop(take(inner, id.to_owned(), (record, revision), Why::Cancelled)),
            }
            sleep(PAUSE).await;
        }
    }
}
