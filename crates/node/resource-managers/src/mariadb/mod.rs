//! MariaDB: branches are prepared with `XA PREPARE`.
//!
//! An XA branch stays with the session that prepared it for as long as that lives; nobody else can
//! finish it before, and the server's answer to who tries is the same as for a branch that does not
//! exist. So the session is kept until the branch is over. Invariants: a session on which a
//! branch is prepared is never reset nor given to anybody, and one that is lost is killed at the
//! server, which then lets the branch go; the order of the questions is the list of prepared
//! branches first, and then the fence, since a branch leaves the list after it became visible.

mod answers;
mod check;
mod finish;
mod holders;
mod prepare;
mod session;
mod together;

use crate::config::DatabaseConfig;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::manager::{Answer, ResourceManager};
use crate::name::BranchName;
use crate::outcome::{Doubt, InDoubt, Outcome, State, Vote};
use crate::pool::{Lease, Pool};
use crate::work::Work;
use holders::Holders;
use mysql_async::Conn;
use quorate_base::ClusterId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// The server ends a session that has been idle for so long, and lets its prepared branch go: the
/// longest that a branch is out of reach when a coordinator's machine is cut off.
const SESSION_LIMIT: Duration = Duration::from_secs(15);
/// Sessions that nobody has used for so long are closed; before the server does it.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// A MariaDB database as a participant.
pub struct MariaDb {
    name: Arc<str>,
    cluster: ClusterId,
    config: DatabaseConfig,
    branches: Pool<Conn>,
    finishers: Pool<Conn>,
    holders: Holders,
    /// Whether the server was found fit since it was last lost.
    fit: AtomicBool,
}

impl MariaDb {
    /// A participant for the transactions of this cluster. Connects when it is used.
    ///
    /// # Errors
    /// The configuration's.
    pub fn new(cluster: ClusterId, config: DatabaseConfig) -> Result<MariaDb, Error> {
        config.validate()?;
        let name: Arc<str> = config.name.as_str().into();
        Ok(MariaDb {
            branches: Pool::new(name.clone(), config.branch_connections, IDLE_LIMIT),
            finishers: Pool::new(name.clone(), config.finish_connections, IDLE_LIMIT),
            holders: Holders::default(),
            name,
            cluster,
            config,
            fit: AtomicBool::new(false),
        })
    }

    /// A session to run a branch with. Sessions that hold branches are waited for no longer than
    /// the server keeps them: another member may have finished their branches.
    async fn brancher(&self, deadline: Deadline) -> Result<Lease<Conn>, Error> {
        loop {
            let next = self.holders.let_go();
            let until = next.map_or(deadline, |next| deadline.at_most(next));
            match self.branches.permit(until).await {
                Err(_) if until < deadline => {}
                permit => return self.session(&self.branches, permit?, deadline).await,
            }
        }
    }

    /// A session of this pool, kept or new.
    async fn session(
        &self,
        pool: &Pool<Conn>,
        permit: OwnedSemaphorePermit,
        deadline: Deadline,
    ) -> Result<Lease<Conn>, Error> {
        if let Some(session) = pool.take() {
            return Ok(Lease::new(session, permit, true));
        }
        let session = session::connect(&self.name, &self.config, deadline).await?;
        Ok(Lease::new(session, permit, false))
    }

    /// A session to finish or to look with.
    async fn finisher(&self, deadline: Deadline) -> Result<Lease<Conn>, Error> {
        let permit = self.finishers.permit(deadline).await?;
        self.session(&self.finishers, permit, deadline).await
    }

    /// Notes that the server is gone: its settings may have changed when it is back.
    fn lost(&self) {
        self.fit.store(false, Ordering::Relaxed);
        self.branches.clear();
        self.finishers.clear();
    }

    /// The error of a call, and what it means for the others.
    fn failed(&self, doing: &'static str, error: &mysql_async::Error) -> Error {
        let error = answers::error(&self.name, &self.config.user, doing, error);
        if matches!(error, Error::Unreachable { .. }) {
            self.lost();
        }
        error
    }

    fn too_late(&self, doing: &'static str) -> Error {
        Error::TooLate { manager: self.name.clone(), doing }
    }
}

impl ResourceManager for MariaDb {
    fn name(&self) -> &str {
        &self.name
    }

    fn hand_in(&self) -> Duration {
        Duration::from_millis(self.config.hand_in_ms)
    }

    fn shares(&self) -> bool {
        self.config.bundles
    }

    fn check(&self, deadline: Deadline) -> Answer<'_, Result<(), Error>> {
        Box::pin(self.check_now(deadline))
    }

    fn set_up(&self, deadline: Deadline) -> Answer<'_, Result<(), Error>> {
        Box::pin(self.create_fence(deadline))
    }

    fn prepare<'a>(
        &'a self,
        branch: &'a BranchName,
        work: &'a Work,
        deadline: Deadline,
    ) -> Answer<'a, Vote> {
        Box::pin(self.prepare_branch(branch, work, deadline))
    }

    fn adopt<'a>(&'a self, branch: &'a BranchName, deadline: Deadline) -> Answer<'a, Vote> {
        Box::pin(async move {
            let vote = async {
                branch.check_belongs(&self.name)?;
                self.adopt_branch(branch, deadline).await
            };
            vote.await.unwrap_or_else(|error| Vote::Unknown(Doubt(error)))
        })
    }

    fn commit<'a>(&'a self, branch: &'a BranchName, deadline: Deadline) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let outcome = async {
                branch.check_belongs(&self.name)?;
                self.commit_branch(branch, deadline).await
            };
            outcome.await.unwrap_or_else(|error| Outcome::Unknown(Doubt(error)))
        })
    }

    fn rollback<'a>(&'a self, branch: &'a BranchName, deadline: Deadline) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let outcome = async {
                branch.check_belongs(&self.name)?;
                self.roll_branch_back(branch, deadline).await
            };
            outcome.await.unwrap_or_else(|error| Outcome::Unknown(Doubt(error)))
        })
    }

    fn inspect<'a>(
        &'a self,
        branch: &'a BranchName,
        deadline: Deadline,
    ) -> Answer<'a, Result<State, Error>> {
        Box::pin(self.inspect_branch(branch, deadline))
    }

    fn scan(&self, deadline: Deadline) -> Answer<'_, Result<Vec<InDoubt>, Error>> {
        Box::pin(self.scan_branches(deadline))
    }

    fn forget<'a>(
        &'a self,
        branches: &'a [BranchName],
        deadline: Deadline,
    ) -> Answer<'a, Result<usize, Error>> {
        Box::pin(self.forget_branches(branches, deadline))
    }
}
