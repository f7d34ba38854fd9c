//! Whether anything is under way in a keyspace that is to be dropped.
//!
//! Invariant: what was on record when it was asked is told. A transaction that begins afterwards
//! is not: whoever drops a keyspace sees to it that nobody uses it.

use crate::error::RunError;
use crate::service::{Transactions, store_error};
use crate::store::{Store, StoreError};
use quorate_base::GroupId;
use quorate_host::{KeyspaceRefusal, TRANSACTIONS};
use quorate_resource_managers::Deadline;
use quorate_transactions::Record;
use quorate_transactions::records::OPEN;
use std::time::Duration;

const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// Records that are looked at at a time.
const PAGE: u64 = 1_000;

impl Transactions {
    /// The ids of some transactions, `most` at the most, that are not over and have a branch in
    /// this group.
    ///
    /// # Errors
    /// [`RunError`], where this member cannot read the records at the moment.
    pub async fn open_in(
        &self,
        group: GroupId,
        most: usize,
        by: Deadline,
    ) -> Result<Vec<String>, RunError> {
        let store = match self.0.node.keyspace(TRANSACTIONS) {
            Ok(found) => Store(found),
            Err(KeyspaceRefusal::Unknown) if self.has_none(by).await? => return Ok(Vec::new()),
            Err(refusal) => {
                let why = format!("the records of transactions: {refusal}");
                return Err(RunError::Unavailable(why));
            }
        };
        let read = store.0.read(READ_TIMEOUT.min(by.left())).await;
        read.map_err(|e| store_error(StoreError::Request(e)))?;
        let (mut found, mut after) = (Vec::new(), String::new());
        while found.len() < most {
            let page = store.list(OPEN, &after, PAGE).map_err(store_error)?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            let is_there = |record: &Record| record.branches.iter().any(|it| it.group == group);
            found.extend(page.into_iter().filter(|(_, (it, _))| is_there(it)).map(|(id, _)| id));
        }
        found.truncate(most);
        Ok(found)
    }

    /// Whether nobody ever ran one: this member may not have heard of it yet.
    async fn has_none(&self, by: Deadline) -> Result<bool, RunError> {
        let all = self.0.node.list_keyspaces(READ_TIMEOUT.min(by.left())).await;
        let all = all.map_err(|error| RunError::Unavailable(format!("the directory: {error}")))?;
        Ok(all.iter().all(|known| known.name != TRANSACTIONS))
    }
}
