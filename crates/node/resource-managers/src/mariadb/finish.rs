//! The second phase, and what recovery needs: commit, rollback, inspect, adopt, scan, forget.

use super::session::{last_text, run, text};
use super::{MariaDb, answers};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::fence;
use crate::manager::SCAN_LIMIT;
use crate::name::{BranchName, XA_FORMAT_ID};
use crate::outcome::{Heuristic, InDoubt, Outcome, Proof, Refusal, State, Vote};
use mysql_async::Row;
use std::time::Duration;

const COMMITTING: &str = "committing a branch";
const ROLLING_BACK: &str = "rolling a branch back";
const INSPECTING: &str = "inspecting a branch";
const ADOPTING: &str = "adopting a branch";
const SCANNING: &str = "scanning for branches in doubt";
const FORGETTING: &str = "forgetting branches";

/// The pause before a row that somebody has locked is written again.
const BAR_WAIT: Duration = Duration::from_millis(10);

/// How long to leave the server to let a branch go whose session has ended or was killed, before
/// each try, in milliseconds. Few: a commit that meets the server at the moment in which
/// it lets the branch go is answered with "ok" and lost until it is restarted.
const RELEASE_WAITS_MS: [u64; 5] = [0, 10, 40, 160, 320];

/// How many rows of the fence are removed in one transaction.
const FORGOTTEN_TOGETHER: usize = 100;

/// What became of an order to finish a branch, beside its fence row.
enum Ordered {
    /// The server says it is done.
    Done,
    /// There is no such branch, neither prepared nor held by anybody.
    NoSuch,
}

impl MariaDb {
    pub(super) async fn commit_branch(
        &self,
        branch: &BranchName,
        deadline: Deadline,
    ) -> Result<Outcome, Error> {
        let order = format!("XA COMMIT {}", branch.xid());
        let (ordered, kind) = self.order(&order, branch, COMMITTING, deadline).await?;
        Ok(match (kind.as_deref(), ordered) {
            (Some(fence::COMMIT), _) => Outcome::Applied(Proof::seen()),
            (Some(_), _) | (None, Ordered::NoSuch) => Outcome::Heuristic(Heuristic::RolledBack),
            (None, Ordered::Done) => Outcome::Heuristic(Heuristic::Unproven),
        })
    }

    /// Gives an order and reads the fence row behind it: with the session that holds the branch,
    /// if it is ours and lives; else with any, once nobody holds the branch any more.
    async fn order(
        &self,
        order: &str,
        branch: &BranchName,
        doing: &'static str,
        deadline: Deadline,
    ) -> Result<(Ordered, Option<String>), Error> {
        if let Some(mut session) = self.holders.take(branch) {
            let both = format!("{order}; {}", fence::select(branch));
            match deadline.bound(run(&mut session, &both)).await {
                None => return Err(self.too_late(doing)),
                Some(Ok(rows)) => {
                    self.holders.over(branch);
                    self.branches.give_back(session);
                    return Ok((Ordered::Done, last_text(&rows)));
                }
                Some(Err(error)) => {
                    self.failed(doing, &error);
                }
            }
        }
        for wait in RELEASE_WAITS_MS {
            if wait > 0 {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            let answer = self.order_from_outside(order, branch, doing, deadline).await?;
            if let Some(answer) = answer {
                self.holders.over(branch);
                return Ok(answer);
            }
        }
        Err(Error::Refused {
            manager: self.name.clone(),
            doing,
            code: answers::NO_SUCH_XID.to_string(),
            said: format!(
                "{branch} is prepared, but the session that prepared it still lives. It must end, \
                 or be killed, before anybody else can finish the branch"
            ),
        })
    }

    /// The same, with a session that does not hold the branch. Nothing, if somebody else does.
    async fn order_from_outside(
        &self,
        order: &str,
        branch: &BranchName,
        doing: &'static str,
        deadline: Deadline,
    ) -> Result<Option<(Ordered, Option<String>)>, Error> {
        loop {
            let mut session = self.finisher(deadline).await?;
            let ordered = deadline.bound(run(&mut session, order)).await;
            let ordered = ordered.ok_or_else(|| self.too_late(doing))?;
            let done = match &ordered {
                Ok(_) => Ordered::Done,
                Err(error) => match answers::code(error) {
                    Some(answers::NO_SUCH_XID | answers::ROLLED_BACK) => Ordered::NoSuch,
                    _ => {
                        let failed = self.failed(doing, error);
                        if session.used && matches!(failed, Error::Unreachable { .. }) {
                            continue;
                        }
                        return Err(failed);
                    }
                },
            };
            self.finishers.give_back(session);
            if let Ordered::NoSuch = done
                && self.is_listed(branch, doing, deadline).await?
            {
                self.kill_holder(branch, deadline).await?;
                return Ok(None);
            }
            let rows = self.ask(&fence::select(branch), doing, deadline).await?;
            return Ok(Some((done, last_text(&rows))));
        }
    }

    /// Ends the session of ours that holds a branch and is out of our reach, if there is one.
    async fn kill_holder(&self, branch: &BranchName, deadline: Deadline) -> Result<(), Error> {
        let Some(session) = self.holders.lost(branch) else { return Ok(()) };
        let doing = "ending a session that was lost";
        match self.ask(&format!("KILL CONNECTION {session}"), doing, deadline).await {
            // It has ended by itself.
            Err(Error::Refused { code, .. }) if code == "1094" => Ok(()),
            other => other.map(|_| ()),
        }
    }

    pub(super) async fn roll_branch_back(
        &self,
        branch: &BranchName,
        deadline: Deadline,
    ) -> Result<Outcome, Error> {
        let order = format!("XA ROLLBACK {}", branch.xid());
        loop {
            let (_, mut kind) = self.order(&order, branch, ROLLING_BACK, deadline).await?;
            if kind.is_none() {
                // Nothing is prepared and nothing was: now nothing will be.
                match self.ask(&bar(branch), ROLLING_BACK, deadline).await {
                    Ok(rows) => kind = last_text(&rows),
                    // Somebody is about to prepare it, and then the order will reach it. To wait
                    // for the lock would be to wait for a branch that only we can end.
                    Err(Error::Refused { code, .. })
                        if code == answers::LOCK_WAIT.to_string()
                            && deadline.left() > BAR_WAIT * 2 =>
                    {
                        tokio::time::sleep(BAR_WAIT).await;
                        continue;
                    }
                    Err(error) => return Err(error),
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

    /// Runs statements that end with themselves; again with a new session, if the one that was
    /// kept was dead.
    pub(super) async fn ask(
        &self,
        sql: &str,
        doing: &'static str,
        deadline: Deadline,
    ) -> Result<Vec<Row>, Error> {
        loop {
            let mut session = self.finisher(deadline).await?;
            let answer = deadline.bound(run(&mut session, sql)).await;
            match answer.ok_or_else(|| self.too_late(doing))? {
                Ok(rows) => {
                    self.finishers.give_back(session);
                    return Ok(rows);
                }
                Err(error) => {
                    let failed = self.failed(doing, &error);
                    if !matches!(failed, Error::Unreachable { .. }) {
                        self.finishers.give_back(session);
                        return Err(failed);
                    }
                    if !session.used {
                        return Err(failed);
                    }
                }
            }
        }
    }

    /// The prepared branches of the whole server that are ours by their form.
    async fn listed(
        &self,
        doing: &'static str,
        deadline: Deadline,
    ) -> Result<Vec<BranchName>, Error> {
        let rows = self.ask("XA RECOVER", doing, deadline).await?;
        Ok(rows.iter().filter_map(branch_of).collect())
    }

    async fn is_listed(
        &self,
        branch: &BranchName,
        doing: &'static str,
        deadline: Deadline,
    ) -> Result<bool, Error> {
        Ok(self.listed(doing, deadline).await?.contains(branch))
    }

    pub(super) async fn inspect_branch(
        &self,
        branch: &BranchName,
        deadline: Deadline,
    ) -> Result<State, Error> {
        let listed = self.is_listed(branch, INSPECTING, deadline).await?;
        let rows = self.ask(&fence::select(branch), INSPECTING, deadline).await?;
        Ok(match (last_text(&rows).as_deref(), listed) {
            (Some(fence::COMMIT), _) => State::Applied(Proof::seen()),
            (Some(_), _) => State::RolledBack,
            (None, true) => State::Prepared,
            (None, false) => State::Absent,
        })
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
        // Its lock is on the row, though nobody sees the row yet.
        let probe = format!("{} FOR UPDATE NOWAIT", fence::select(branch));
        match self.ask(&probe, ADOPTING, deadline).await {
            Err(Error::Refused { code, .. }) if code == answers::LOCK_WAIT.to_string() => {
                Ok(Vote::Yes)
            }
            Err(error) => Err(error),
            Ok(_) => no("its fence row is not in it: nothing could prove its commit"),
        }
    }

    pub(super) async fn scan_branches(&self, deadline: Deadline) -> Result<Vec<InDoubt>, Error> {
        let listed = self.listed(SCANNING, deadline).await?;
        let ours = listed.into_iter().filter(|branch| {
            branch.transaction().cluster() == self.cluster && branch.participant() == &*self.name
        });
        Ok(ours.take(SCAN_LIMIT).map(|branch| InDoubt { branch, age: None }).collect())
    }

    pub(super) async fn forget_branches(
        &self,
        branches: &[BranchName],
        deadline: Deadline,
    ) -> Result<usize, Error> {
        let some = &branches[..branches.len().min(FORGOTTEN_TOGETHER)];
        if some.is_empty() {
            return Ok(0);
        }
        let mut session = self.finisher(deadline).await?;
        let deleted = deadline.bound(run(&mut session, &fence::delete_each(some))).await;
        // After an error the session has an open transaction, and is closed.
        let deleted = deleted.ok_or_else(|| self.too_late(FORGETTING))?;
        deleted.map_err(|error| self.failed(FORGETTING, &error))?;
        self.finishers.give_back(session);
        Ok(some.len())
    }
}

/// Writes the fence row of a branch that was rolled back, waiting for nobody, and reads what is
/// there.
fn bar(branch: &BranchName) -> String {
    format!(
        "SET SESSION innodb_lock_wait_timeout = 0; {}; {}",
        fence::insert_if_absent(branch, fence::ROLLBACK),
        fence::select(branch)
    )
}

/// The branch of a row of XA RECOVER: format, the lengths of its two parts, and both together.
fn branch_of(row: &Row) -> Option<BranchName> {
    let number = |column| row.get_opt::<u64, _>(column).and_then(Result::ok);
    if number(0)? != u64::from(XA_FORMAT_ID) {
        return None;
    }
    let data = text(row, 3)?;
    let (transaction, qualifier) = data.split_at_checked(usize::try_from(number(1)?).ok()?)?;
    BranchName::parse(transaction, qualifier)
}
