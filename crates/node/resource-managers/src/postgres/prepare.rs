//! The first phase: a branch runs, writes its fence row, and is prepared.

use super::pipeline::{self, Request};
use super::{Postgres, Session, answers};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::fence;
use crate::name::BranchName;
use crate::outcome::{Doubt, Refusal, State, Vote};
use crate::pool::Lease;
use crate::work::{SqlWork, Work};
use tokio_postgres::error::SqlState;

const RUNNING: &str = "running a branch";
const PREPARING: &str = "preparing a branch";
const INSERT: &str = "INSERT INTO quorate_fence (gid, branch, kind) VALUES ($1, $2, 'commit')";

/// How many requests are sent before the first answer is awaited.
const PIPELINE: usize = 16;

/// Why a branch did not get to the end of its statements. It is certainly not prepared.
enum Stop {
    /// The transaction is to be rolled back; the session can be used again.
    Vote(Refusal),
    /// So is the transaction, but the session is of no more use.
    Broken(Error),
    /// The fence has a row of this branch, or a transaction that is under way has written one.
    Fenced(Error),
}

impl Postgres {
    pub(super) async fn prepare_branch(
        &self,
        branch: &BranchName,
        work: &Work,
        deadline: Deadline,
    ) -> Vote {
        let work = match work {
            Work::Sql(work) => work,
            Work::Http(_) | Work::Prepared(_) => {
                let what = format!("{} is a database: its branches have statements", self.name);
                return Vote::No(Refusal::Branch(Error::Caller(what)));
            }
        };
        let admitted = async {
            branch.check_belongs(&self.name)?;
            work.validate_merged()?;
            self.check_once(deadline).await
        };
        if let Err(error) = admitted.await {
            return Vote::No(Refusal::Branch(error));
        }
        match self.attempt(branch, work, deadline).await {
            // The server closed a session while it was idle: nothing of the branch has happened.
            Err(Stop::Broken(Error::Unreachable { .. })) => {}
            attempted => return self.judge_attempt(attempted, branch, deadline).await,
        }
        let again = self.attempt(branch, work, deadline).await;
        self.judge_attempt(again, branch, deadline).await
    }

    async fn judge_attempt(
        &self,
        attempted: Result<Vote, Stop>,
        branch: &BranchName,
        deadline: Deadline,
    ) -> Vote {
        match attempted {
            Ok(vote) => vote,
            Err(Stop::Vote(refusal)) => Vote::No(refusal),
            Err(Stop::Broken(error)) => Vote::No(Refusal::Branch(error)),
            Err(Stop::Fenced(error)) => match self.inspect_branch(branch, deadline).await {
                Ok(State::Prepared) => Vote::Yes,
                Ok(State::Applied(_)) => Vote::No(Refusal::Over { applied: true }),
                Ok(State::RolledBack) => Vote::No(Refusal::Over { applied: false }),
                Ok(State::Absent) => Vote::No(Refusal::Branch(error)),
                Err(error) => Vote::Unknown(Doubt(error)),
            },
        }
    }

    async fn attempt(
        &self,
        branch: &BranchName,
        work: &SqlWork,
        deadline: Deadline,
    ) -> Result<Vote, Stop> {
        let session = self.session(&self.branches, deadline).await;
        let mut session = session.map_err(|error| Stop::Vote(Refusal::Branch(error)))?;
        let ran = deadline.bound(self.run(&mut session, branch, work, deadline)).await;
        match ran.unwrap_or_else(|| Err(Stop::Broken(self.too_late(RUNNING)))) {
            Ok(()) => {}
            Err(Stop::Broken(error)) => return Err(Stop::Broken(error)),
            Err(stop) => {
                self.abandon(session, deadline).await;
                return Err(stop);
            }
        }
        Ok(self.finish_phase(session, branch, work, deadline).await)
    }

    /// Everything before the last step.
    async fn run(
        &self,
        session: &mut Lease<Session>,
        branch: &BranchName,
        work: &SqlWork,
        deadline: Deadline,
    ) -> Result<(), Stop> {
        let mut statements = Vec::with_capacity(work.statements.len());
        for (i, statement) in work.statements.iter().enumerate() {
            let prepared = session.statement(&statement.sql).await;
            let prepared = prepared.map_err(|error| self.statement_failed(i, &error))?;
            let (wants, has) = (prepared.params().len(), statement.parameters.len());
            if wants != has {
                let what = format!("it has {has} parameters where {wants} are needed");
                let error = Error::Caller(what);
                return Err(Stop::Vote(Refusal::Statement { statement: i + 1, error }));
            }
            statements.push(prepared);
        }
        let fence = session.statement(INSERT).await.map_err(|error| self.fence_failed(&error))?;
        let client = &session.client;
        let begin = begin(work, deadline);
        let mut requests: Vec<Request<'_>> = Vec::with_capacity(statements.len() + 2);
        requests.push(Box::pin(async { client.batch_execute(&begin).await.map(|()| 0) }));
        for (prepared, statement) in statements.iter().zip(&work.statements) {
            requests.push(Box::pin(client.execute_raw(prepared, &statement.parameters)));
        }
        if !work.read_only {
            let key = [branch.transaction().as_str(), branch.qualifier()];
            requests.push(Box::pin(client.execute_raw(&fence, key)));
        }
        let mut answers = Vec::with_capacity(requests.len());
        while !requests.is_empty() {
            let rest = requests.split_off(requests.len().min(PIPELINE));
            answers.extend(pipeline::run(requests).await);
            requests = rest;
        }
        self.judge_answers(&answers, work)
    }

    /// The first thing that went wrong, if any: the errors behind it only follow from it.
    fn judge_answers(
        &self,
        answers: &[Result<u64, tokio_postgres::Error>],
        work: &SqlWork,
    ) -> Result<(), Stop> {
        let (begun, rest) = answers.split_first().unwrap_or((&Ok(0), &[]));
        if let Err(error) = begun {
            return Err(Stop::Broken(self.failed(RUNNING, error)));
        }
        for (i, (answer, statement)) in rest.iter().zip(&work.statements).enumerate() {
            let affected = *answer.as_ref().map_err(|error| self.statement_failed(i, error))?;
            if let Some(wanted) = statement.affects.filter(|wanted| *wanted != affected) {
                let statement = i + 1;
                return Err(Stop::Vote(Refusal::Expectation { statement, wanted, affected }));
            }
        }
        match rest.get(work.statements.len()) {
            Some(Err(error)) => Err(self.fence_failed(error)),
            _ => Ok(()),
        }
    }

    fn statement_failed(&self, index: usize, error: &tokio_postgres::Error) -> Stop {
        let waited = answers::is(error, &SqlState::LOCK_NOT_AVAILABLE);
        match self.failed(RUNNING, error) {
            error @ Error::Unreachable { .. } => Stop::Broken(error),
            // Perhaps for the same branch, which was prepared before.
            error if waited => Stop::Fenced(error),
            error => Stop::Vote(Refusal::Statement { statement: index + 1, error }),
        }
    }

    fn fence_failed(&self, error: &tokio_postgres::Error) -> Stop {
        let fenced = answers::is(error, &SqlState::UNIQUE_VIOLATION)
            || answers::is(error, &SqlState::LOCK_NOT_AVAILABLE);
        match self.failed(RUNNING, error) {
            error @ Error::Unreachable { .. } => Stop::Broken(error),
            error if fenced => Stop::Fenced(error),
            error => Stop::Vote(Refusal::Branch(error)),
        }
    }

    /// The last step: from here on a lost connection leaves the outcome open.
    async fn finish_phase(
        &self,
        session: Lease<Session>,
        branch: &BranchName,
        work: &SqlWork,
        deadline: Deadline,
    ) -> Vote {
        let sql = match work.read_only {
            true => "COMMIT".to_owned(),
            false => format!("PREPARE TRANSACTION '{}'", branch.postgres_gid()),
        };
        match deadline.bound(session.end(&sql)).await {
            None => Vote::Unknown(Doubt(self.too_late(PREPARING))),
            Some((Ok(()), reset)) => {
                if reset {
                    self.branches.give_back(session);
                }
                if work.read_only { Vote::ReadOnly } else { Vote::Yes }
            }
            Some((Err(error), _)) => match self.failed(PREPARING, &error) {
                error @ Error::Unreachable { .. } => Vote::Unknown(Doubt(error)),
                error => {
                    self.abandon(session, deadline).await;
                    Vote::No(Refusal::Branch(error))
                }
            },
        }
    }

    /// Rolls back what is open in a session, and keeps it if that worked.
    async fn abandon(&self, session: Lease<Session>, deadline: Deadline) {
        if let Some((Ok(()), true)) = deadline.bound(session.end("ROLLBACK")).await {
            self.branches.give_back(session);
        }
    }
}

/// Begins a branch. Its limits of time are the server's too: a deadlock between databases is seen
/// by neither of them, and a session whose owner is gone must not hold locks.
fn begin(work: &SqlWork, deadline: Deadline) -> String {
    let isolation = work.isolation.map(|level| format!(" ISOLATION LEVEL {}", level.sql()));
    let mode = if work.read_only { "READ ONLY" } else { "READ WRITE" };
    let (lock, all) = (deadline.lock_wait_ms(), deadline.left_ms());
    format!(
        "BEGIN{} {mode}; SET LOCAL lock_timeout = {lock}; SET LOCAL statement_timeout = {all}; \
         SET LOCAL idle_in_transaction_session_timeout = {all}",
        isolation.unwrap_or_default()
    )
}

/// What an application writes into its own branch.
pub(super) fn probe(branch: &BranchName) -> String {
    // Long enough for a busy server to find the lock, short enough for a caller who waits.
    format!("BEGIN READ WRITE; SET LOCAL lock_timeout = 50; {}", fence::insert(branch))
}
