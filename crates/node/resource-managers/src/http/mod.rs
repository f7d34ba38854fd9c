//! HTTP participants: try, confirm, cancel (TCC).
//!
//! The participant is somebody's service that keeps `docs/resource-managers.md`'s contract. It is
//! believed only where it says what it did in the header `Quorate-Outcome`: a status alone may
//! come from a proxy, or from a server that knows nothing of transactions. Invariant: every call
//! may be repeated, and carries a key that is the same each time.

mod body;
mod call;
mod config;
mod forget;

pub use config::HttpConfig;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::manager::{Answer, ResourceManager, SCAN_LIMIT};
use crate::name::{BranchName, TransactionName};
use crate::outcome::{Doubt, Heuristic, InDoubt, Outcome, Proof, Refusal, State, Vote};
use crate::pool::Pool;
use crate::work::{HttpWork, WORK_LIMIT, Work};
use bytes::Bytes;
use call::{Answered, Client, Request, Said};
use config::Base;
use quorate_base::ClusterId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// An HTTP service as a participant.
pub struct HttpParticipant {
    name: Arc<str>,
    cluster: ClusterId,
    config: HttpConfig,
    base: Base,
    client: Client,
    tries: Pool<()>,
    finishers: Pool<()>,
    /// Whether it was found to keep the contract.
    fit: AtomicBool,
    /// Whether it was told that the service lists nothing.
    listless: AtomicBool,
}

/// Connections are the client's own business; the pools count requests under way.
const NEVER: Duration = Duration::MAX;

impl HttpParticipant {
    /// A participant for the transactions of this cluster. Connects when it is used.
    ///
    /// # Errors
    /// The configuration's.
    pub fn new(cluster: ClusterId, config: HttpConfig) -> Result<HttpParticipant, Error> {
        let base = config.validate()?;
        let name: Arc<str> = config.name.as_str().into();
        Ok(HttpParticipant {
            tries: Pool::new(name.clone(), config.requests, NEVER),
            finishers: Pool::new(name.clone(), config.requests, NEVER),
            client: call::client(config.requests),
            name,
            cluster,
            config,
            base,
            fit: AtomicBool::new(false),
            listless: AtomicBool::new(false),
        })
    }

    /// Calls for one branch and one phase.
    async fn call(
        &self,
        pool: &Pool<()>,
        request: Request<'_>,
        deadline: Deadline,
    ) -> Result<Answered, Error> {
        let deadline = deadline.at_most(Duration::from_millis(self.config.request_limit_ms));
        let _permit = pool.permit(deadline).await?;
        call::call(&self.name, &self.client, &self.base, &self.config, &request, deadline).await
    }

    async fn finish(
        &self,
        branch: &BranchName,
        phase: &'static str,
        deadline: Deadline,
    ) -> Result<Answered, Error> {
        branch.check_belongs(&self.name)?;
        self.call(&self.finishers, Request::phase(branch, phase), deadline).await
    }

    async fn check_now(&self, deadline: Deadline) -> Result<(), Error> {
        let probe = TransactionName::new(self.cluster, 0, "check")?;
        let probe = BranchName::new(probe, &self.name, "check")?;
        let answered = self.finish(&probe, "status", deadline).await?;
        match answered.said {
            Said::Absent => {
                self.fit.store(true, Ordering::Relaxed);
                Ok(())
            }
            said => Err(answered.senseless(&self.name, "checking whether it is there", said)),
        }
    }

    async fn prepare_branch(&self, branch: &BranchName, work: &Work, deadline: Deadline) -> Vote {
        let admitted = async {
            branch.check_belongs(&self.name)?;
            let body = self.body(work)?;
            if !self.fit.load(Ordering::Relaxed) {
                self.check_now(deadline).await?;
            }
            Ok(body)
        };
        let (action, body) = match admitted.await {
            Ok(admitted) => admitted,
            Err(error) => return Vote::No(Refusal::Branch(error)),
        };
        let request = Request { branch, phase: "try", path: action.to_owned(), body };
        match self.call(&self.tries, request, deadline).await {
            Ok(Answered { said: Said::Reserved, .. }) => Vote::Yes,
            Ok(Answered { said: Said::Nothing, .. }) => Vote::ReadOnly,
            Ok(answered) if answered.said == Said::Refused => {
                Vote::No(Refusal::Participant(answered.reason()))
            }
            Ok(Answered { said: Said::Confirmed, .. }) => Vote::No(Refusal::Over { applied: true }),
            Ok(Answered { said: Said::Cancelled, .. }) => {
                Vote::No(Refusal::Over { applied: false })
            }
            Ok(answered) => {
                let said = answered.said;
                Vote::Unknown(Doubt(answered.senseless(&self.name, "trying a branch", said)))
            }
            Err(error @ (Error::Caller(_) | Error::Busy { .. })) => {
                Vote::No(Refusal::Branch(error))
            }
            Err(error) => Vote::Unknown(Doubt(error)),
        }
    }

    /// The path and the JSON of a branch's work.
    fn body<'a>(&self, work: &'a Work) -> Result<(&'a str, Bytes), Error> {
        let Work::Http(asked @ HttpWork { action, body }) = work else {
            let what = format!("{} is an HTTP participant: its branches have an action", self.name);
            return Err(Error::Caller(what));
        };
        asked.validate()?;
        let body = body.clone().unwrap_or_default();
        let json = serde_json::to_vec(&body)
            .map_err(|error| Error::Caller(format!("the body of {action} is no JSON: {error}")))?;
        if json.len() > WORK_LIMIT {
            let bytes = json.len();
            return Err(Error::Caller(format!(
                "a body of {bytes} bytes; allowed are {WORK_LIMIT}"
            )));
        }
        Ok((action, json.into()))
    }

    async fn commit_branch(
        &self,
        branch: &BranchName,
        deadline: Deadline,
    ) -> Result<Outcome, Error> {
        let answered = self.finish(branch, "confirm", deadline).await?;
        match answered.said {
            // Its own record, which the contract makes it read before it says so.
            Said::Confirmed => Ok(Outcome::Applied(Proof::seen())),
            Said::Cancelled | Said::Absent => Ok(Outcome::Heuristic(Heuristic::RolledBack)),
            said => Err(answered.senseless(&self.name, "confirming a branch", said)),
        }
    }

    async fn roll_branch_back(
        &self,
        branch: &BranchName,
        deadline: Deadline,
    ) -> Result<Outcome, Error> {
        let answered = self.finish(branch, "cancel", deadline).await?;
        match answered.said {
            Said::Cancelled => Ok(Outcome::NotThere),
            Said::Confirmed => Ok(Outcome::Heuristic(Heuristic::Committed)),
            said => Err(answered.senseless(&self.name, "cancelling a branch", said)),
        }
    }

    async fn inspect_branch(
        &self,
        branch: &BranchName,
        deadline: Deadline,
    ) -> Result<State, Error> {
        let answered = self.finish(branch, "status", deadline).await?;
        match answered.said {
            Said::Confirmed => Ok(State::Applied(Proof::seen())),
            Said::Reserved => Ok(State::Prepared),
            Said::Cancelled => Ok(State::RolledBack),
            Said::Absent => Ok(State::Absent),
            said => Err(answered.senseless(&self.name, "inspecting a branch", said)),
        }
    }

    async fn scan_branches(&self, deadline: Deadline) -> Result<Vec<InDoubt>, Error> {
        let probe = TransactionName::new(self.cluster, 0, "scan")?;
        let probe = BranchName::new(probe, &self.name, "scan")?;
        let answered = match self.finish(&probe, "reserved", deadline).await {
            // A participant need not have a list; its branches are then finished by the
            // coordinator's own record alone.
            Err(Error::Refused { code, .. }) if code == "404" => {
                if !self.listless.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        participant = %self.name,
                        "the service does not know /quorate/reserved (404), so nobody sees what is \
                         reserved there: what an application tries by itself and never hands in is \
                         never cancelled. Let it list what is reserved (docs/resource-managers.md)"
                    );
                }
                return Ok(Vec::new());
            }
            answered => answered?,
        };
        let doing = "listing what is reserved";
        if answered.said != Said::List {
            let said = answered.said;
            return Err(answered.senseless(&self.name, doing, said));
        }
        // What does not fit is found by a later scan, when this has ended.
        let lines = answered.lines(&self.name, doing)?;
        let parse = |line: &str| {
            let (transaction, branch) = line.trim().split_once(' ')?;
            BranchName::parse(transaction, branch)
        };
        let ours = lines.lines().filter_map(parse).filter(|branch| {
            branch.transaction().cluster() == self.cluster && branch.participant() == &*self.name
        });
        Ok(ours.take(SCAN_LIMIT).map(|branch| InDoubt { branch, age: None }).collect())
    }
}

impl ResourceManager for HttpParticipant {
    fn name(&self) -> &str {
        &self.name
    }

    fn hand_in(&self) -> Duration {
        Duration::from_millis(self.config.hand_in_ms)
    }

    fn shares(&self) -> bool {
        // An action is tried, confirmed and cancelled by itself.
        false
    }

    fn check(&self, deadline: Deadline) -> Answer<'_, Result<(), Error>> {
        Box::pin(self.check_now(deadline))
    }

    fn set_up(&self, _deadline: Deadline) -> Answer<'_, Result<(), Error>> {
        // The participant's barrier is its own.
        Box::pin(async { Ok(()) })
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
            match self.inspect_branch(branch, deadline).await {
                Ok(State::Prepared) => Vote::Yes,
                Ok(State::Applied(_)) => Vote::No(Refusal::Over { applied: true }),
                Ok(State::RolledBack) => Vote::No(Refusal::Over { applied: false }),
                Ok(State::Absent) => {
                    Vote::No(Refusal::NotAdoptable(format!("{branch}: nothing is reserved")))
                }
                Err(error) => Vote::Unknown(Doubt(error)),
            }
        })
    }

    fn commit<'a>(&'a self, branch: &'a BranchName, deadline: Deadline) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let outcome = self.commit_branch(branch, deadline).await;
            outcome.unwrap_or_else(|error| Outcome::Unknown(Doubt(error)))
        })
    }

    fn rollback<'a>(&'a self, branch: &'a BranchName, deadline: Deadline) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let outcome = self.roll_branch_back(branch, deadline).await;
            outcome.unwrap_or_else(|error| Outcome::Unknown(Doubt(error)))
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
