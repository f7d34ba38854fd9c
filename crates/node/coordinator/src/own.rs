//! Branches that applications prepare themselves, and hand in.
//!
//! Invariant: an id is taken only for the branch whose name it is. So what is handed in was made
//! for this transaction, and for no other.

use crate::error::RunError;
use crate::manager::{OWN_ATTEMPT, name};
use crate::request::Branch;
use crate::service::{Inner, Transactions, kind_of};
use quorate_resource_managers as rm;
use quorate_resource_managers::{Deadline, OwnBranch};
use std::time::Duration;

/// How long a participant may take to say whether it is fit.
const CHECK_LIMIT: Duration = Duration::from_secs(5);

impl Inner {
    /// Whether this id is that of this branch.
    pub(crate) fn check_own(
        &self,
        transaction: &str,
        branch: &Branch,
        handed_in: &str,
    ) -> Result<(), RunError> {
        let invalid = |why: String| RunError::Invalid(format!("branch {:?}: {why}", branch.name));
        let cluster = self.node.cluster();
        let name = name(cluster, transaction, OWN_ATTEMPT, &branch.participant, &branch.name)
            .map_err(|error| invalid(error.to_string()))?;
        match name.to_string() == handed_in {
            true => Ok(()),
            false => Err(invalid(format!(
                "what is handed in is {handed_in:?}, another branch's or another transaction's: \
                 here it must be {:?}",
                name.to_string()
            ))),
        }
    }
}

impl Transactions {
    /// What an application has to say to prepare this branch itself, and for how long it may then
    /// wait to hand it in. Finds out whether the participant is fit.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn name(
        &self,
        transaction: &str,
        branch: &str,
        kind: rm::Kind,
        participant: &str,
        by: Deadline,
    ) -> Result<(OwnBranch, Duration), RunError> {
        let inner = &self.0;
        quorate_transactions::check_id(transaction)
            .map_err(|why| RunError::Invalid(why.to_string()))?;
        let manager = inner.manager(kind_of(kind), participant)?;
        let cluster = inner.node.cluster();
        let name = name(cluster, transaction, OWN_ATTEMPT, participant, branch)
            .map_err(|error| RunError::Invalid(error.to_string()))?;
        inner.check(&*manager, by.min(Deadline::within(CHECK_LIMIT))).await?;
        Ok((OwnBranch::new(kind, &name), manager.hand_in()))
    }
}
