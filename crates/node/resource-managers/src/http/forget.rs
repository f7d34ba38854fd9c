//! Lets the service forget branches that are over.

use super::HttpParticipant;
use super::call::Said;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::name::BranchName;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};

impl HttpParticipant {
    pub(super) async fn forget_branches(
        &self,
        branches: &[BranchName],
        deadline: Deadline,
    ) -> Result<usize, Error> {
        // Half of what may be under way: branches that are to be ended must not wait behind these.
        let together = self.config.requests.div_ceil(2);
        let mut calls: Vec<BoxFuture<'_, Result<bool, Error>>> = Vec::with_capacity(branches.len());
        for branch in branches {
            calls.push(Box::pin(self.forget_branch(branch, deadline)));
        }
        let mut answers = stream::iter(calls).buffered(together);
        let mut forgotten = 0;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(true) => forgotten += 1,
                Ok(false) => return Ok(branches.len()),
                Err(error) if forgotten == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(forgotten)
    }

    /// Whether it forgets when it is told to: it may as well remove what is old by itself.
    async fn forget_branch(&self, branch: &BranchName, deadline: Deadline) -> Result<bool, Error> {
        let answered = match self.finish(branch, "forget", deadline).await {
            Err(Error::Refused { code, .. }) if code == "404" => return Ok(false),
            answered => answered?,
        };
        match answered.said {
            Said::Absent => Ok(true),
            said => Err(answered.senseless(&self.name, "forgetting a branch", said)),
        }
    }
}
