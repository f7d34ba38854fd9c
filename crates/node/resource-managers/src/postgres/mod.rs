//! PostgreSQL: branches are prepared with `PREPARE TRANSACTION`.
//!
//! A prepared transaction belongs to no session and survives a crash, so any session of the same
//! database may finish it. Invariants: sessions are read-only outside of a `BEGIN READ WRITE`, so
//! that nothing can be written outside of a branch even if a statement ended it; the fence row is
//! a branch's last statement, and fails where the transaction is aborted already, because
//! `PREPARE TRANSACTION` itself then answers without an error that it has rolled back; a session
//! comes back to the pool only without what its branch has set in it.

mod answers;
mod check;
mod finish;
mod parameter;
mod pipeline;
mod prepare;
mod session;

use crate::config::DatabaseConfig;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::manager::{Answer, ResourceManager};
use crate::name::BranchName;
use crate::outcome::{Doubt, InDoubt, Outcome, State, Vote};
use crate::pool::{Lease, Pool};
use crate::work::Work;
use quorate_base::ClusterId;
use session::Session;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Sessions that nobody has used for so long are closed.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// A PostgreSQL database as a participant.
pub struct Postgres {
    name: Arc<str>,
    cluster: ClusterId,
    config: DatabaseConfig,
    branches: Pool<Session>,
    finishers: Pool<Session>,
    /// Whether the server was found fit since it was last lost.
    fit: AtomicBool,
    /// Whether it has constraints that are checked at the end of a transaction only: what breaks
    /// one of them could be mended by whoever shares its transaction.
    defers: AtomicBool,
}

impl Postgres {
    /// A participant for the transactions of this cluster. Connects when it is used.
    ///
    /// # Errors
    /// The configuration's.
    pub fn new(cluster: ClusterId, config: DatabaseConfig) -> Result<Postgres, Error> {
        config.validate()?;
        let name: Arc<str> = config.name.as_str().into();
        Ok(Postgres {
            branches: Pool::new(name.clone(), config.branch_connections, IDLE_LIMIT),
            finishers: Pool::new(name.clone(), config.finish_connections, IDLE_LIMIT),
            name,
            cluster,
            config,
            fit: AtomicBool::new(false),
            defers: AtomicBool::new(true),
        })
    }

    /// A session of this pool, kept or new.
    async fn session(
        &self,
        pool: &Pool<Session>,
        deadline: Deadline,
    ) -> Result<Lease<Session>, Error> {
        let permit = pool.permit(deadline).await?;
        while let Some(session) = pool.take() {
            if !session.is_closed() {
                return Ok(Lease::new(session, permit, true));
            }
        }
        let session = session::connect(&self.name, &self.config, deadline).await?;
        Ok(Lease::new(session, permit, false))
    }

    /// A session to finish or to look with.
    async fn finisher(&self, deadline: Deadline) -> Result<Lease<Session>, Error> {
        self.session(&self.finishers, deadline).await
    }

    /// Notes that the server is gone: its settings may have changed when it is back.
    fn lost(&self) {
        self.fit.store(false, Ordering::Relaxed);
        self.branches.clear();
        self.finishers.clear();
    }

    /// The error of a call, and what it means for the others.
    fn failed(&self, doing: &'static str, error: &tokio_postgres::Error) -> Error {
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

impl ResourceManager for Postgres {
    fn name(&self) -> &str {
        &self.name
    }

    fn hand_in(&self) -> Duration {
        Duration::from_millis(self.config.hand_in_ms)
    }

    fn shares(&self) -> bool {
        self.config.bundles && !self.defers.load(Ordering::Relaxed)
    }

    fn may_share(&self) -> bool {
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
