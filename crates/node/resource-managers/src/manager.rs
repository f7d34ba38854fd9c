//! The interface of a resource manager: what the driver of a transaction asks of a participant.
//!
//! Every call has a deadline, may be repeated, and may be dropped at any moment: what it had begun
//! is then rolled back by the participant, or found by recovery. Paper: the participant's side of
//! two-phase commit with presumed abort (Mohan, Lindsay, Obermarck 1986, section 3).

use crate::deadline::Deadline;
use crate::error::Error;
use crate::name::BranchName;
use crate::outcome::{InDoubt, Outcome, State, Vote};
use crate::work::Work;
use std::pin::Pin;
use std::time::Duration;

/// The answer of a manager, which takes time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How many branches one scan returns at the most; the next scan finds the others.
pub const SCAN_LIMIT: usize = 1000;

/// A participant outside of Quorate.
pub trait ResourceManager: Send + Sync {
    /// What the configuration calls it.
    fn name(&self) -> &str;

    /// For how long a prepared branch that no transaction is known of is left alone: its
    /// application may yet hand it in.
    fn hand_in(&self) -> Duration;

    /// Whether transactions of several clients may be carried out here as one, as far as is known
    /// since the last check.
    fn shares(&self) -> bool;

    /// Whether another member, which has looked, may carry them out so.
    fn may_share(&self) -> bool {
        self.shares()
    }

    /// Whether it can take part at all: reachable, credentials, settings, the fence. Call it for
    /// every participant before any of them prepares.
    fn check(&self, deadline: Deadline) -> Answer<'_, Result<(), Error>>;

    /// Creates what the participant must have, where that is possible; harmless if it is there.
    fn set_up(&self, deadline: Deadline) -> Answer<'_, Result<(), Error>>;

    /// Runs the branch's work and its fence row, and prepares it. After [`Vote::Yes`] the branch
    /// survives crashes of both sides.
    fn prepare<'a>(
        &'a self,
        branch: &'a BranchName,
        work: &'a Work,
        deadline: Deadline,
    ) -> Answer<'a, Vote>;

    /// Takes over a branch that the application has prepared itself under this name, with the
    /// fence row in it.
    fn adopt<'a>(&'a self, branch: &'a BranchName, deadline: Deadline) -> Answer<'a, Vote>;

    /// Commits a branch that has voted yes. Not to be called after [`ResourceManager::forget`]:
    /// a branch without any trace is then taken for one that somebody rolled back.
    fn commit<'a>(&'a self, branch: &'a BranchName, deadline: Deadline) -> Answer<'a, Outcome>;

    /// Rolls a branch back, prepared or not, and bars it: a prepare that comes late is refused.
    fn rollback<'a>(&'a self, branch: &'a BranchName, deadline: Deadline) -> Answer<'a, Outcome>;

    /// What the participant knows of a branch.
    fn inspect<'a>(
        &'a self,
        branch: &'a BranchName,
        deadline: Deadline,
    ) -> Answer<'a, Result<State, Error>>;

    /// The prepared branches of this cluster, whoever prepared them. Nobody else's.
    fn scan(&self, deadline: Deadline) -> Answer<'_, Result<Vec<InDoubt>, Error>>;

    /// Removes what the participant remembers of branches that are over, once the coordinator has
    /// recorded that *every* branch of their transactions is. From then on it must answer
    /// "abort" for them (presumed abort), so that a late prepare is found and rolled back.
    ///
    /// How many of the first of them it has forgotten: fewer than all if they are too many for one
    /// go, or something, as the deadline, stopped it on its way, and an error only if that is none.
    /// So whoever asks again for the rest gets on, however slow the participant is.
    fn forget<'a>(
        &'a self,
        branches: &'a [BranchName],
        deadline: Deadline,
    ) -> Answer<'a, Result<usize, Error>>;
}
