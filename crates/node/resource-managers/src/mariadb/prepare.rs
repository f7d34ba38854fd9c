//! The first phase: a branch runs, writes its fence row, and is prepared.

use super::session::run;
use super::{MariaDb, answers, together};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::fence;
use crate::name::BranchName;
use crate::outcome::{Doubt, Refusal, State, Vote};
use crate::pool::Lease;
use crate::sql;
use crate::work::{Parameter, SqlWork, Statement, Work};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row, Value};

const RUNNING: &str = "running a branch";
const PREPARING: &str = "preparing a branch";

/// Why a branch did not get prepared.
enum Stop {
    /// The transaction is to be rolled back; the session can be used again. Certainly not prepared.
    Vote(Refusal),
    /// So is the transaction, but the session is of no more use. Certainly not prepared.
    Broken(Error),
    /// The fence has a row of this branch, or a transaction that is under way has written one.
    Fenced(Error),
    /// The last step was under way: perhaps prepared.
    Unknown(Error),
}

impl MariaDb {
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
            check_reads(work)?;
            self.check_once(deadline).await
        };
        if let Err(error) = admitted.await {
            return Vote::No(Refusal::Branch(error));
        }
        if self.holders.has(branch) {
            return Vote::Yes;
        }
        let mut attempted = self.attempt(branch, work, deadline).await;
        if let Err(Stop::Broken(Error::Unreachable { .. })) = attempted {
            // The server closed a session while it was idle: nothing of the branch has happened.
            attempted = self.attempt(branch, work, deadline).await;
        }
        match attempted {
            Ok(vote) => vote,
            Err(Stop::Vote(refusal)) => Vote::No(refusal),
            Err(Stop::Broken(error)) => Vote::No(Refusal::Branch(error)),
            Err(Stop::Unknown(error)) => Vote::Unknown(Doubt(error)),
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
        let session = self.brancher(deadline).await;
        let mut session = session.map_err(|error| Stop::Vote(Refusal::Branch(error)))?;
        let too_late = || Stop::Broken(self.too_late(RUNNING));
        let begun = async {
            let together = branch.transaction().is_bundle().then(|| together::all(work)).flatten();
            match together {
                Some(all) => self.run_together(&mut session, branch, work, (&all, deadline)).await,
                None => {
                    let made = self.begin_branch(&mut session, branch, work, deadline).await?;
                    Ok(self.run_branch(&mut session, &made, work).await)
                }
            }
        };
        let begun = deadline.bound(begun).await;
        let mut outcome = match begun.unwrap_or_else(|| Err(too_late())) {
            Ok(ran) => ran,
            Err(Stop::Broken(error)) => return Err(Stop::Broken(error)),
            Err(stop) => {
                // Nothing is open in the session. To roll the branch back here would roll back one
                // of the same name that was prepared before.
                self.branches.give_back(session);
                return Err(stop);
            }
        };
        if outcome.is_ok() {
            outcome = self.last_step(&mut session, branch, work, deadline).await;
        }
        match outcome {
            Ok(()) if work.read_only => {
                self.holders.over(branch);
                self.branches.give_back(session);
                Ok(Vote::ReadOnly)
            }
            Ok(()) => {
                self.holders.hold(branch, session);
                Ok(Vote::Yes)
            }
            Err(stop @ (Stop::Vote(_) | Stop::Fenced(_))) => {
                self.abandon(session, branch, work, deadline).await;
                Err(stop)
            }
            Err(stop) => Err(stop),
        }
    }

    /// Prepares the statements, and begins the branch as the last thing. After an error that is
    /// not [`Stop::Broken`] it has not begun.
    async fn begin_branch(
        &self,
        session: &mut Lease<Conn>,
        branch: &BranchName,
        work: &SqlWork,
        deadline: Deadline,
    ) -> Result<Vec<mysql_async::Statement>, Stop> {
        let mut all = Vec::with_capacity(work.statements.len());
        for (i, statement) in work.statements.iter().enumerate() {
            let made = session.prep(&statement.sql).await;
            let made = made.map_err(|error| self.statement_failed(i, &error))?;
            let (wants, has) = (usize::from(made.num_params()), statement.parameters.len());
            if wants != has {
                let what = format!("it has {has} parameters where {wants} are needed");
                let error = Error::Caller(what);
                return Err(Stop::Vote(Refusal::Statement { statement: i + 1, error }));
            }
            all.push(made);
        }
        match run(session, &begin(branch, work, deadline)).await {
            Ok(_) => Ok(all),
            Err(error) => Err(self.not_begun(&error)),
        }
    }

    /// Begins the branch and runs all of it, in one request: how it ran. After an error that is
    /// not [`Stop::Broken`] it has not begun.
    async fn run_together(
        &self,
        session: &mut Lease<Conn>,
        branch: &BranchName,
        work: &SqlWork,
        (all, deadline): (&str, Deadline),
    ) -> Result<Result<(), Stop>, Stop> {
        let begin = begin(branch, work, deadline);
        let before = begin.split("; ").count();
        let (affected, ran) = together::run(session, &format!("{begin}; {all}")).await;
        let Some(affected) = affected.get(before..).filter(|_| affected.len() >= before) else {
            return Err(match ran {
                Err(error) => self.not_begun(&error),
                Ok(()) => Stop::Broken(self.too_late(RUNNING)),
            });
        };
        for (i, (affected, statement)) in affected.iter().zip(&work.statements).enumerate() {
            if let Some(wanted) = statement.affects.filter(|wanted| wanted != affected) {
                let (statement, affected) = (i + 1, *affected);
                return Ok(Err(Stop::Vote(Refusal::Expectation { statement, wanted, affected })));
            }
        }
        Ok(ran.map_err(|error| self.statement_failed(affected.len(), &error)))
    }

    fn not_begun(&self, error: &mysql_async::Error) -> Stop {
        let exists = answers::code(error) == Some(answers::DUPLICATE_XID);
        let error = self.failed(RUNNING, error);
        if exists { Stop::Fenced(error) } else { Stop::Broken(error) }
    }

    async fn run_branch(
        &self,
        session: &mut Lease<Conn>,
        made: &[mysql_async::Statement],
        work: &SqlWork,
    ) -> Result<(), Stop> {
        for (i, (made, statement)) in made.iter().zip(&work.statements).enumerate() {
            let affected = execute(session, made, statement).await;
            let affected = affected.map_err(|error| self.statement_failed(i, &error))?;
            if let Some(wanted) = statement.affects.filter(|wanted| *wanted != affected) {
                let statement = i + 1;
                return Err(Stop::Vote(Refusal::Expectation { statement, wanted, affected }));
            }
        }
        Ok(())
    }

    fn statement_failed(&self, index: usize, error: &mysql_async::Error) -> Stop {
        let code = answers::code(error);
        match self.failed(RUNNING, error) {
            error @ Error::Unreachable { .. } => Stop::Broken(error),
            // Perhaps for the same branch, which was prepared before.
            error if waited_in_vain(code) => Stop::Fenced(error),
            error => Stop::Vote(Refusal::Statement { statement: index + 1, error }),
        }
    }

    /// Fence row and prepare, in one request of which the server stops at the first that fails.
    /// From here on a lost connection leaves the outcome open.
    async fn last_step(
        &self,
        session: &mut Lease<Conn>,
        branch: &BranchName,
        work: &SqlWork,
        deadline: Deadline,
    ) -> Result<(), Stop> {
        let xid = branch.xid();
        let sql = match work.read_only {
            true => "COMMIT".to_owned(),
            false => format!("{}; XA END {xid}; XA PREPARE {xid}", fence::insert(branch)),
        };
        // Until the answer is here, whoever finishes the branch has to get it from this session.
        self.holders.lose(branch, session.id());
        let error = match deadline.bound(run(session, &sql)).await {
            None => return Err(Stop::Unknown(self.too_late(PREPARING))),
            Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => error,
        };
        let code = answers::code(&error);
        match self.failed(PREPARING, &error) {
            error @ Error::Unreachable { .. } => Err(Stop::Unknown(error)),
            error if code == Some(answers::DUPLICATE) || waited_in_vain(code) => {
                Err(Stop::Fenced(error))
            }
            error => Err(Stop::Vote(Refusal::Branch(error))),
        }
    }

    /// Rolls back what is open in a session, and keeps it if that worked. The server would prepare
    /// a branch in which a statement has failed: that it is not is up to us.
    async fn abandon(
        &self,
        mut session: Lease<Conn>,
        branch: &BranchName,
        work: &SqlWork,
        deadline: Deadline,
    ) {
        let xid = branch.xid();
        let ended = async {
            if work.read_only {
                return run(&mut session, "ROLLBACK").await;
            }
            // Where the branch has ended already this fails; what counts is whether it can be
            // rolled back.
            let _ = run(&mut session, &format!("XA END {xid}")).await;
            run(&mut session, &format!("XA ROLLBACK {xid}")).await
        };
        if let Some(Ok(_)) = deadline.bound(ended).await {
            self.holders.over(branch);
            self.branches.give_back(session);
        }
    }
}

/// Refuses what could write in a branch that only reads: a procedure may end the read-only
/// transaction, and the statements behind that in it are committed one by one. In an XA branch the
/// server refuses to end the transaction, and a function may not.
fn check_reads(work: &SqlWork) -> Result<(), Error> {
    match work.statements.iter().position(|statement| sql::is_call(&statement.sql)) {
        Some(at) if work.read_only => Err(Error::Caller(format!(
            "statement {} is a CALL: in MariaDB a procedure may end a transaction that only reads, \
             and write. Leave read-only away",
            at + 1
        ))),
        _ => Ok(()),
    }
}

fn waited_in_vain(code: Option<u16>) -> bool {
    matches!(code, Some(answers::LOCK_WAIT | answers::STATEMENT_TIMEOUT))
}

/// Begins a branch. Its limits of time are the server's too: a deadlock between databases is seen
/// by neither of them. Locks are waited for in whole seconds, so that the limit of a statement,
/// which is finer, usually comes first.
fn begin(branch: &BranchName, work: &SqlWork, deadline: Deadline) -> String {
    let wait_ms = deadline.lock_wait_ms();
    let isolation = work
        .isolation
        .map(|level| format!("SET TRANSACTION ISOLATION LEVEL {}; ", level.sql()))
        .unwrap_or_default();
    let start = match work.read_only {
        true => "START TRANSACTION READ ONLY".to_owned(),
        false => format!("XA START {}", branch.xid()),
    };
    format!(
        "SET SESSION innodb_lock_wait_timeout = {}, max_statement_time = {}.{:03}; \
         {isolation}{start}",
        wait_ms.div_ceil(1000),
        wait_ms / 1000,
        wait_ms % 1000
    )
}

/// Runs one statement: how many rows it affected, or returned.
async fn execute(
    session: &mut Conn,
    prepared: &mysql_async::Statement,
    statement: &Statement,
) -> Result<u64, mysql_async::Error> {
    let values: Vec<Value> = statement.parameters.iter().map(value).collect();
    let parameters = if values.is_empty() { Params::Empty } else { Params::Positional(values) };
    let mut result = session.exec_iter(prepared, parameters).await?;
    let mut returned = 0;
    while !result.is_empty() {
        result.for_each(|_: Row| returned += 1).await?;
    }
    let affected = result.affected_rows();
    result.drop_result().await?;
    Ok(if returned > 0 { returned } else { affected })
}

fn value(parameter: &Parameter) -> Value {
    match parameter {
        Parameter::Boolean(value) => Value::Int(i64::from(*value)),
        Parameter::Integer(value) => Value::Int(*value),
        Parameter::Float(value) => Value::Double(*value),
        Parameter::Text(text) => Value::Bytes(text.as_bytes().to_vec()),
        Parameter::Null { .. } => Value::NULL,
    }
}
