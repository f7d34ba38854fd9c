//! A keyspace of this cluster as a participant.
//!
//! Invariant: what is asked is asked again until there is an answer; an answer is believed only if
//! it is about this branch and this epoch, which the keyspace sees to.

use crate::live::Live;
use crate::outbox::{self, Said};
use crate::service::Inner;
use quorate_base::GroupId;
use quorate_driver::RequestError;
use quorate_keyspace::command::Txn;
use quorate_keyspace::{BranchCommand, BranchId, BranchOutcome, Prepare};
use quorate_transactions::branches::{self, branch_id};
use quorate_transactions::{End, Found, Vote};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How long the list of keyspaces may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a request that failed; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// One branch at one keyspace.
pub(crate) struct Participant<'a> {
    pub inner: &'a Arc<Inner>,
    pub live: &'a Live,
    pub group: GroupId,
    pub branch: u16,
}

/// Pauses that grow.
pub(crate) struct Pauses(Duration);

impl Pauses {
    pub fn new() -> Pauses {
        Pauses(FIRST_PAUSE)
    }

    pub async fn pause(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

/// A request's failure in words.
pub(crate) fn trouble(error: &RequestError) -> String {
    match error {
        RequestError::Unavailable => "its group has no leader at the moment".to_owned(),
        RequestError::DeadlineExceeded => "its group did not answer in time".to_owned(),
        other => format!("its group did not answer: {other}"),
    }
}

impl Participant<'_> {
    fn id(&self) -> BranchId {
        branch_id(&self.live.id, self.live.asker, self.branch)
    }

    /// Asks once. An error is in words.
    async fn ask(&self, command: BranchCommand) -> Result<Said, String> {
        outbox::ask(self.inner, self.group, command).await
    }

    /// Asks for a vote, again and again, until there is one or it is not wanted any more.
    pub async fn prepare(
        &self,
        txns: &Arc<[Txn]>,
        or_else: bool,
        (epoch, priority): (u32, u64),
        alone: bool,
    ) -> Option<Vote> {
        let prepare = Prepare {
            id: self.id(),
            epoch: epoch.into(),
            priority,
            txns: txns.clone(),
            or_else,
            one_phase: alone,
        };
        let mut pauses = Pauses::new();
        while self.live.wants(epoch) {
            match self.ask(BranchCommand::Prepare(prepare.clone())).await {
                Ok(Ok(outcome)) => {
                    if let Some(vote) = branches::vote(&outcome, alone) {
                        if matches!(vote, Vote::Yes | Vote::Done(_)) {
                            self.answered(&outcome);
                        }
                        return Some(vote);
                    }
                }
                Ok(Err(error)) => {
                    let reason = format!("the keyspace refuses it: {error}");
                    return Some(Vote::No { reason, again: None });
                }
                Err(what) => self.live.trouble(self.branch, &what),
            }
            pauses.pause().await;
        }
        None
    }

    fn answered(&self, outcome: &BranchOutcome) {
        if let Some((done, committed)) = branches::answers(outcome) {
            self.live.answered(self.branch, done.to_vec(), committed);
        }
    }

    /// Tells the decision, again and again, until it is certain that it is carried out.
    pub async fn settle(&self, commit: bool, epoch: u32) -> End {
        let (mut pauses, mut first) = (Pauses::new(), true);
        loop {
            let (id, epoch) = (self.id(), epoch.into());
            let command = match commit {
                true => BranchCommand::Commit { id, epoch },
                false => BranchCommand::Rollback { id, epoch },
            };
            // Told again it is in a hurry.
            let said = match commit && self.live.is_patient() && std::mem::take(&mut first) {
                true => outbox::ask_in_company(self.inner, self.group, command).await,
                false => self.ask(command).await,
            };
            let what = match said {
                Ok(Ok(outcome)) => match branches::end(&outcome, commit) {
                    Ok(end) => {
                        self.answered(&outcome);
                        return end;
                    }
                    Err(what) => what,
                },
                Ok(Err(error)) => format!("its keyspace said: {error}"),
                Err(what) if self.is_gone().await => return gone(commit, &what),
                Err(what) => what,
            };
            self.live.trouble(self.branch, &what);
            pauses.pause().await;
        }
    }

    /// Closes the vote and tells it, again and again until it is certain.
    pub async fn resolve(&self, epoch: u32) -> Found {
        let mut pauses = Pauses::new();
        loop {
            let command = BranchCommand::Resolve { id: self.id(), epoch: epoch.into() };
            let what = match self.ask(command).await {
                Ok(Ok(outcome)) => match branches::found(&outcome) {
                    Ok(found) => return found,
                    Err(what) => what,
                },
                Ok(Err(error)) => format!("its keyspace said: {error}"),
                Err(_) if self.is_gone().await => {
                    return Found::No(Some("its keyspace was dropped".to_owned()));
                }
                Err(what) => what,
            };
            self.live.trouble(self.branch, &what);
            pauses.pause().await;
        }
    }

    /// Whether the keyspace was dropped for ever: a group's number is never given twice.
    async fn is_gone(&self) -> bool {
        if self.inner.node.group(self.group).is_some() {
            return false;
        }
        match self.inner.node.list_keyspaces(LIST_TIMEOUT).await {
            Ok(all) => all.iter().all(|known| known.group != self.group),
            Err(_) => false,
        }
    }

    /// Lets the keyspace forget the branch. Where that fails, a scan does it later.
    pub fn forget(&self, epoch: u32) {
        let command = BranchCommand::Forget { id: self.id(), epoch: epoch.into() };
        outbox::forget(self.inner, self.group, command);
    }
}

fn gone(commit: bool, what: &str) -> End {
    match commit {
        true => End::Heuristic(format!("the keyspace was dropped ({what})")),
        false => End::RolledBack,
    }
}
