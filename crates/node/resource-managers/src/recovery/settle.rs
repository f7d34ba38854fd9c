//! One branch, until it is over: what a coordinator calls when it has decided.

use super::{Alarm, Recovery};
use crate::deadline::Deadline;
use crate::manager::ResourceManager;
use crate::name::BranchName;
use crate::outcome::Outcome;
use std::time::Duration;

/// The pause after the first attempt that did not settle it.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Recovery {
    /// Commits or rolls back a branch, again and again until that is certain, or until the
    /// deadline. An outcome against the decision raises an alarm.
    pub async fn settle(
        &self,
        manager: &dyn ResourceManager,
        branch: &BranchName,
        commit: bool,
        deadline: Deadline,
    ) -> Outcome {
        let mut pause = FIRST_PAUSE;
        loop {
            let outcome = self.order_until(manager, branch, commit, deadline).await;
            let Outcome::Unknown(_) = outcome else { return outcome };
            if deadline.left() <= pause {
                return outcome;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    pub(super) async fn order(
        &self,
        manager: &dyn ResourceManager,
        branch: &BranchName,
        commit: bool,
    ) -> Outcome {
        let deadline = Deadline::within(self.settings.call_limit);
        self.order_until(manager, branch, commit, deadline).await
    }

    async fn order_until(
        &self,
        manager: &dyn ResourceManager,
        branch: &BranchName,
        commit: bool,
        deadline: Deadline,
    ) -> Outcome {
        let deadline = deadline.at_most(self.settings.call_limit);
        let outcome = match commit {
            true => manager.commit(branch, deadline).await,
            false => manager.rollback(branch, deadline).await,
        };
        match &outcome {
            Outcome::Heuristic(heuristic) => self.alarms.raise(branch, *heuristic),
            Outcome::Applied(_) | Outcome::NotThere => self.alarms.ended_as_decided(branch),
            Outcome::Unknown(_) => {}
        }
        outcome
    }

    /// The alarms that nobody has acknowledged.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.alarms.all()
    }

    /// Ends an alarm, because an operator has seen to it; whether there was one. It comes back if
    /// the branch is met again and is still not as decided.
    pub fn acknowledge(&self, branch: &BranchName) -> bool {
        self.alarms.acknowledge(branch)
    }
}
