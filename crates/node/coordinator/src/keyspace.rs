//! A keyspace of this cluster as a participant.
//!
//! Invariant: what is asked is asked again until there is an answer; an answer is believed only if
//! it is about this branch and this epoch, which the keyspace sees to.

use crate::live::Live;
use crate::outbox::{self, Said};
use crate::service::Inner;
use bytes::{BufMut, BytesMut};
use quorate_base::GroupId;
use quorate_driver::RequestError;
use quorate_keyspace::branch::{BranchError, Done, No};
use quorate_keyspace::command::Txn;
use quorate_keyspace::{BranchCommand, BranchId, BranchOutcome, Prepare};
use quorate_transactions::{End, Found, Owner, Vote};
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

/// What ends a transaction's id in a branch's: no id contains it.
const END_OF_ID: u8 = 0;

/// The branch of a transaction in a keyspace. It bears the name of who began the transaction, so
/// that two who do so under one id at the same time have different branches, and only one of them
/// a record.
pub(crate) fn branch_id(transaction: &str, asker: Owner, branch: u16) -> BranchId {
    let mut name = BytesMut::with_capacity(transaction.len() + 17);
    name.put_slice(transaction.as_bytes());
    if asker != Owner::default() {
        name.put_u8(END_OF_ID);
        name.put_u64(asker.node.0);
        name.put_u64(asker.run);
    }
    BranchId { transaction: name.freeze(), number: u32::from(branch) + 1 }
}

/// The transaction of a branch, and who asked for it; nobody, if the record is of a version that
/// did not know it. Nothing, if the branch is not one of ours.
pub(crate) fn transaction_of(branch: &BranchId) -> Option<(String, Owner)> {
    let name = &branch.transaction;
    let Some(end) = name.iter().position(|byte| *byte == END_OF_ID) else {
        return Some((String::from_utf8(name.to_vec()).ok()?, Owner::default()));
    };
    let number = |at: usize| name.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    let (node, run) = (number(end + 1)?, number(end + 9)?);
    let whole = name.len() == end + 17;
    let id = String::from_utf8(name[..end].to_vec()).ok().filter(|_| whole)?;
    Some((id, Owner { node: quorate_base::NodeId(node), run }))
}

/// A request's failure in words.
pub(crate) fn trouble(error: &RequestError) -> String {
    match error {
        RequestError::Unavailable => "its group has no leader at the moment".to_owned(),
        RequestError::DeadlineExceeded => "its group did not answer in time".to_owned(),
        other => format!("its group did not answer: {other:?}"),
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
        txns: &[Txn],
        or_else: bool,
        (epoch, priority): (u32, u64),
        alone: bool,
    ) -> Option<Vote> {
        let prepare = Prepare {
            id: self.id(),
            epoch: epoch.into(),
            priority,
            txns: txns.to_vec(),
            or_else,
            one_phase: alone,
        };
        let mut pauses = Pauses::new();
        while self.live.wants(epoch) {
            match self.ask(BranchCommand::Prepare(prepare.clone())).await {
                Ok(Ok(outcome)) => {
                    if let Some(vote) = self.vote(outcome, alone) {
                        return Some(vote);
                    }
                }
                Ok(Err(error)) => {
                    let reason = format!("the keyspace refuses it: {error:?}");
                    return Some(Vote::No { reason, again: None });
                }
                Err(what) => self.live.trouble(self.branch, &what),
            }
            pauses.pause().await;
        }
        None
    }

    fn answered(&self, done: Option<Vec<Done>>) {
        if let Some(done) = done {
            self.live.answered(self.branch, done, true);
        }
    }

    /// What an outcome says as a vote; nothing, if it has to be asked for again.
    fn vote(&self, outcome: BranchOutcome, alone: bool) -> Option<Vote> {
        let no = |reason: String| Some(Vote::No { reason, again: None });
        match outcome {
            BranchOutcome::Prepared(done) => {
                self.live.answered(self.branch, done, false);
                Some(Vote::Yes)
            }
            BranchOutcome::Committed { revision, done } if alone => {
                self.answered(done);
                Some(Vote::Done(revision))
            }
            BranchOutcome::Committed { revision, .. } => {
                no(format!("it was committed before, at revision {revision}"))
            }
            BranchOutcome::RolledBack(no @ No::Conflict { priority }) => {
                Some(Vote::No { reason: no.to_string(), again: Some(priority) })
            }
            BranchOutcome::RolledBack(why) => no(why.to_string()),
            BranchOutcome::Waiting | BranchOutcome::Forgotten | BranchOutcome::Together(_) => None,
            BranchOutcome::Refused(BranchError::StillPrepared { .. }) => None,
            BranchOutcome::Refused(error) => no(error.to_string()),
        }
    }

    /// Tells the decision, again and again, until it is certain that it is carried out.
    pub async fn settle(&self, commit: bool, epoch: u32) -> End {
        let mut pauses = Pauses::new();
        loop {
            let (id, epoch) = (self.id(), epoch.into());
            let command = match commit {
                true => BranchCommand::Commit { id, epoch },
                false => BranchCommand::Rollback { id, epoch },
            };
            let what = match self.ask(command).await {
                Ok(Ok(outcome)) => match self.end(outcome, commit) {
                    Ok(end) => return end,
                    Err(what) => what,
                },
                Ok(Err(error)) => format!("its keyspace said {error:?}"),
                Err(what) if self.is_gone().await => return gone(commit, &what),
                Err(what) => what,
            };
            self.live.trouble(self.branch, &what);
            pauses.pause().await;
        }
    }

    fn end(&self, outcome: BranchOutcome, commit: bool) -> Result<End, String> {
        Ok(match outcome {
            BranchOutcome::Committed { revision, done } => {
                self.answered(done);
                End::Committed(revision)
            }
            BranchOutcome::RolledBack(_) => End::RolledBack,
            BranchOutcome::Refused(BranchError::OldEpoch { .. }) => End::Superseded,
            BranchOutcome::Refused(BranchError::Committed { revision }) => End::Committed(revision),
            BranchOutcome::Refused(BranchError::RolledBack) => End::RolledBack,
            BranchOutcome::Refused(error @ (BranchError::Unknown | BranchError::NotPrepared))
                if commit =>
            {
                End::Heuristic(format!("its keyspace does not know it as prepared: {error}"))
            }
            BranchOutcome::Refused(error) => return Err(error.to_string()),
            BranchOutcome::Prepared(_)
            | BranchOutcome::Waiting
            | BranchOutcome::Forgotten
            | BranchOutcome::Together(_) => {
                return Err("its keyspace answered something else".to_owned());
            }
        })
    }

    /// Closes the vote and tells it, again and again until it is certain.
    pub async fn resolve(&self, epoch: u32) -> Found {
        let mut pauses = Pauses::new();
        loop {
            let command = BranchCommand::Resolve { id: self.id(), epoch: epoch.into() };
            let what = match self.ask(command).await {
                Ok(Ok(BranchOutcome::Prepared(_))) => return Found::Yes,
                Ok(Ok(BranchOutcome::Committed { revision, .. })) => {
                    return Found::Committed(revision);
                }
                Ok(Ok(BranchOutcome::RolledBack(No::Told))) => return Found::No(None),
                Ok(Ok(BranchOutcome::RolledBack(why))) => return Found::No(Some(why.to_string())),
                Ok(Ok(BranchOutcome::Refused(BranchError::OldEpoch { .. }))) => {
                    return Found::Superseded;
                }
                Ok(said) => format!("its keyspace said {said:?}"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_base::NodeId;

    #[test]
    fn a_branch_tells_its_transaction_and_who_asked() {
        let asker = Owner { node: NodeId(7), run: u64::MAX };
        for (id, asker) in [("order-1", asker), ("x", Owner::default())] {
            let branch = branch_id(id, asker, 3);
            assert_eq!(transaction_of(&branch), Some((id.to_owned(), asker)));
            assert_eq!(branch.number, 4);
        }
        let longest = branch_id(&"i".repeat(quorate_transactions::MAX_ID_BYTES), asker, 0);
        assert!(longest.transaction.len() <= quorate_keyspace::branch::MAX_TRANSACTION_BYTES);
        for foreign in [&b"a\0short"[..], b"a\0sixteen bytes here and more", b"\xff\xfe"] {
            let transaction = Bytes::from_static(foreign);
            assert_eq!(transaction_of(&BranchId { transaction, number: 1 }), None);
        }
    }
}
