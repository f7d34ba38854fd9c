//! The second phase, and what recovery needs: commit, rollback, inspect, adopt, scan, forget.
//!
//! The order of the questions matters. Whether a branch is prepared is read from shared memory,
//! its fence row from a snapshot; a commit first becomes visible and then leaves the list. So the
//! list is asked first: what it does not have any more, the snapshot taken later has.

use super::prepare::probe;
use super::{Postgres, Session, answers};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::fence;
use crate::manager::SCAN_LIMIT;
use crate::name::{BranchName, TransactionName};
use crate::outcome::{Heuristic, InDoubt, Outcome, Proof, Refusal, State, Vote};
use crate::pool::Lease;
use std::time::Duration;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

const COMMITTING: &str = "committing a branch";
const ROLLING_BACK: &str = "rolling a branch back";
const INSPECTING: &str = "inspecting a branch";
const ADOPTING: &str = "adopting a branch";
const SCANNING: &str = "scanning for branches in doubt";
const FORGETTING: &str = "forgetting branches";

type Answered<T> = Result<T, tokio_postgres::Error>;

impl Postgres {
    pub(super) async fn commit_branch(
        &self,
        branch: &BranchName,
        deadline: Deadline,
    ) -> Result<Outcome, Error> {
        let order = format!("COMMIT PREPARED '{}'", branch.postgres_gid());
        let (ordered, kind) = self.order(&order, branch, COMMITTING, deadline).await?;
        match (kind.as_deref(), ordered) {
            (Some(fence::COMMIT), _) => Ok(Outcome::Applied(Proof::seen())),
            (Some(_), _) => Ok(Outcome::Heuristic(Heuristic::RolledBack)),
            (None, Ok(())) => Ok(Outcome::Heuristic(Heuristic::Unproven)),
            (None, Err(error)) if answers::is(&error, &SqlState::UNDEFINED_OBJECT) => {
                Ok(Outcome::Heuristic(Heuristic::RolledBack))
            }
            (None, Err(error)) => Err(self.failed(COMMITTING, &error)),
        }
    }

    /// Gives an order and reads the fence row behind it, both at once; again with a new session,
    /// if the one that was kept was dead.
    async fn order(
        &self,
        order: &str,
        branch: &BranchName,
        doing: &'static str,
        deadline: Deadline,
    ) -> Result<(Answered<()>, Option<String>), Error> {
        loop {
            let session = self.finisher(deadline).await?;
            let select = fence::select(branch);
            let both = async {
                let order = session.client.batch_execute(order);
                let select = session.client.simple_query(&select);
                futures_util::future::join(order, select).await
            };
            let (ordered, selected) =
                deadline.bound(both).await.ok_or_else(|| self.too_late(doing))?;
            match selected {
                Ok(rows) => {
                    self.finishers.give_back(session);
                    return Ok((ordered, only(&rows)));
                }
                Err(error) => {
                    let failed = self.failed(doing, &error);
                    if !(session.used && matches!(failed, Error::Unreachable { .. })) {
                        return Err(failed);
                    }
                }
            }
        }
    }

    pub(super) async fn roll_branch_back(
        &self,
        branch: &BranchName,
        deadline: Deadline,
    ) -> Result<Outcome, Error> {
        let order = format!("ROLLBACK PREPARED '{}'", branch.postgres_gid());
        loop {
            let (ordered, mut kind) = self.order(&order, branch, ROLLING_BACK, deadline).await?;
            if let Err(error) = ordered
                && !answers::is(&error, &SqlState::UNDEFINED_OBJECT)
            {
                return Err(self.failed(ROLLING_BACK, &error));
            }
            if kind.is_none() {
                // Nothing is prepared and nothing was: now nothing will be.
                let (barred, found) =
                    self.order_and_abandon(&bar(branch), branch, deadline).await?;
                match barred {
                    // Somebody is about to prepare it, and then the order will reach it. To wait
                    // longer for the lock would be to wait for a branch that only we can end.
                    Err(error)
                        if answers::is(&error, &SqlState::LOCK_NOT_AVAILABLE)
                            && found.is_none()
                            && !deadline.left().is_zero() =>
                    {
                        continue;
                    }
                    Err(error) if found.is_none() => return Err(self.failed(ROLLING_BACK, &error)),
                    _ => kind = found,
                }
            }
            return match kind.as_deref() {
                Some(fence::ROLLBACK) => Ok(Outcome::NotThere),
                Some(_) => Ok(Outcome::Heuristic(Heuristic::Committed)),
                None => Err(Error::NotSetUp {
                    manager: self.name.clone(),
                    said: "a row that was written is not there".to_owned(),
                }),
            };
        }
    }

    /// As [`Postgres::order`], for an order that may leave an aborted transaction behind.
    async fn order_and_abandon(
        &self,
        order: &str,
        branch: &BranchName,
        deadline: Deadline,
    ) -> Result<(Answered<()>, Option<String>), Error> {
        let session = self.finisher(deadline).await?;
        let select = fence::select(branch);
        let all = async {
            let ordered = session.client.batch_execute(order).await;
            if ordered.is_err() {
                session.client.batch_execute("ROLLBACK").await?;
            }
            let rows = session.client.simple_query(&select).await?;
            Ok::<_, tokio_postgres::Error>((ordered, only(&rows)))
        };
        let answer = deadline.bound(all).await.ok_or_else(|| self.too_late(ROLLING_BACK))?;
        let answer = answer.map_err(|error| self.failed(ROLLING_BACK, &error))?;
        self.finishers.give_back(session);
        Ok(answer)
    }

    pub(super) async fn inspect_branch(
        &self,
        branch: &BranchName,
        deadline: Deadline,
    ) -> Result<State, Error> {
        let listed = format!(
            "SELECT 1 FROM pg_prepared_xacts WHERE gid = '{}' AND database = current_database()",
            branch.postgres_gid()
        );
        let select = fence::select(branch);
        let rows = self.ask(&[&listed, &select], INSPECTING, deadline).await?;
        Ok(match (rows[1].first().map(String::as_str), rows[0].is_empty()) {
            (Some(fence::COMMIT), _) => State::Applied(Proof::seen()),
            (Some(_), _) => State::RolledBack,
            (None, false) => State::Prepared,
            (None, true) => State::Absent,
        })
    }

    /// Asks questions one behind the other: of each, the first column of every row.
    async fn ask(
        &self,
        questions: &[&str],
        doing: &'static str,
        deadline: Deadline,
    ) -> Result<Vec<Vec<String>>, Error> {
        loop {
            let session = self.finisher(deadline).await?;
            let all = async {
                let mut answers = Vec::with_capacity(questions.len());
                for question in questions {
                    answers.push(column(&session.client.simple_query(question).await?, 0));
                }
                Ok::<_, tokio_postgres::Error>(answers)
            };
            match deadline.bound(all).await.ok_or_else(|| self.too_late(doing))? {
                Ok(answers) => {
                    self.finishers.give_back(session);
                    return Ok(answers);
                }
                Err(error) => {
                    let failed = self.failed(doing, &error);
                    if !(session.used && matches!(failed, Error::Unreachable { .. })) {
                        return Err(failed);
                    }
                }
            }
        }
    }

    pub(super) async fn adopt_branch(
        &self,
        branch: &BranchName,
        deadline: Deadline,
    ) -> Result<Vote, Error> {
        self.check_once(deadline).await?;
        let no = |why: &str| Ok(Vote::No(Refusal::NotAdoptable(format!("{branch}: {why}"))));
        match self.inspect_branch(branch, deadline).await? {
            State::Prepared => {}
            State::Applied(_) => return Ok(Vote::No(Refusal::Over { applied: true })),
            State::RolledBack => return Ok(Vote::No(Refusal::Over { applied: false })),
            State::Absent => return no("no such transaction is prepared"),
        }
        let owned = format!(
            "SELECT 1 FROM pg_prepared_xacts WHERE gid = '{}' AND (owner = current_user OR \
             current_setting('is_superuser') = 'on')",
            branch.postgres_gid()
        );
        if self.ask(&[&owned], ADOPTING, deadline).await?[0].is_empty() {
            return no("another user has prepared it; only that user or a superuser may commit it");
        }
        let session = self.finisher(deadline).await?;
        match deadline.bound(self.holds_fence(&session, branch)).await {
            None => Err(self.too_late(ADOPTING)),
            Some(Err(error)) => Err(self.failed(ADOPTING, &error)),
            Some(Ok(holds)) => {
                self.finishers.give_back(session);
                match holds {
                    true => Ok(Vote::Yes),
                    false => no("its fence row is not in it: nothing could prove its commit"),
                }
            }
        }
    }

    /// Whether the branch has written its fence row: the same key then has to wait.
    async fn holds_fence(
        &self,
        session: &Lease<Session>,
        branch: &BranchName,
    ) -> Result<bool, tokio_postgres::Error> {
        let probed = session.client.batch_execute(&probe(branch)).await;
        session.client.batch_execute("ROLLBACK").await?;
        match probed {
            Ok(()) => Ok(false),
            Err(error) if answers::is(&error, &SqlState::LOCK_NOT_AVAILABLE) => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn scan_branches(&self, deadline: Deadline) -> Result<Vec<InDoubt>, Error> {
        let question = format!(
            "SELECT gid || ' ' || (extract(epoch FROM now() - prepared) * 1000)::bigint \
             FROM pg_prepared_xacts WHERE database = current_database() \
             AND starts_with(gid, '{}') ORDER BY prepared LIMIT {SCAN_LIMIT}",
            TransactionName::prefix(self.cluster)
        );
        let rows = self.ask(&[&question], SCANNING, deadline).await?.swap_remove(0);
        let ours = rows.iter().filter_map(|row| {
            let (gid, age_ms) = row.rsplit_once(' ')?;
            let age = age_ms.parse().ok().map(Duration::from_millis);
            let branch = BranchName::from_postgres_gid(gid)?;
            (branch.participant() == &*self.name).then_some(InDoubt { branch, age })
        });
        Ok(ours.collect())
    }

    pub(super) async fn forget_branches(
        &self,
        branches: &[BranchName],
        deadline: Deadline,
    ) -> Result<usize, Error> {
        let some = &branches[..branches.len().min(SCAN_LIMIT)];
        if some.is_empty() {
            return Ok(0);
        }
        let sql = format!("BEGIN READ WRITE; {}; COMMIT", fence::delete(some));
        let session = self.finisher(deadline).await?;
        let deleted = deadline.bound(session.client.batch_execute(&sql)).await;
        let deleted = deleted.ok_or_else(|| self.too_late(FORGETTING))?;
        deleted.map_err(|error| self.failed(FORGETTING, &error))?;
        self.finishers.give_back(session);
        Ok(some.len())
    }
}

/// Writes the fence row of a branch that was rolled back, waiting for a moment only.
fn bar(branch: &BranchName) -> String {
    format!(
        "BEGIN READ WRITE; SET LOCAL lock_timeout = 50; {} ON CONFLICT DO NOTHING; COMMIT",
        fence::insert_kind(branch, fence::ROLLBACK)
    )
}

fn column(answer: &[SimpleQueryMessage], index: usize) -> Vec<String> {
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(index).map(str::to_owned),
        _ => None,
    });
    rows.collect()
}

fn only(answer: &[SimpleQueryMessage]) -> Option<String> {
    column(answer, 0).pop()
}
