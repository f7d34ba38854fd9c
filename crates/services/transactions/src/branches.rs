//! Branches in keyspaces: their names, what a keyspace's answers mean to the coordinator, and what
//! is to be done about a branch that nobody seems to see to.
//!
//! Invariant: an answer is believed only if it is about this branch and this epoch, which the
//! keyspace sees to.

use crate::coordinator::{End, Found, Vote};
use crate::record::{Owner, Stage};
use crate::records::Known;
use bytes::{BufMut, BytesMut};
use quorate_base::NodeId;
use quorate_keyspace::branch::{BranchError, BranchInfo, BranchState, Done, No};
use quorate_keyspace::{BranchId, BranchOutcome};

/// What ends a transaction's id in a branch's: no id contains it.
const END_OF_ID: u8 = 0;

/// The branch of a transaction in a keyspace, by its index. It bears the name of who began the
/// transaction, so that two who do so under one id at the same time have different branches, and
/// only one of them a record.
pub fn branch_id(transaction: &str, asker: Owner, branch: u16) -> BranchId {
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
pub fn transaction_of(branch: &BranchId) -> Option<(String, Owner)> {
    let name = &branch.transaction;
    let Some(end) = name.iter().position(|byte| *byte == END_OF_ID) else {
        return Some((String::from_utf8(name.to_vec()).ok()?, Owner::default()));
    };
    let number = |at: usize| name.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    let (node, run) = (number(end + 1)?, number(end + 9)?);
    let whole = name.len() == end + 17;
    let id = String::from_utf8(name[..end].to_vec()).ok().filter(|_| whole)?;
    Some((id, Owner { node: NodeId(node), run }))
}

/// What an outcome says of what the branch's transactions do, each, or, if it is committed, did.
pub fn answers(outcome: &BranchOutcome) -> Option<(&[Done], bool)> {
    match outcome {
        BranchOutcome::Prepared(done) => Some((done, false)),
        BranchOutcome::Committed { done, .. } => done.as_deref().map(|done| (done, true)),
        _ => None,
    }
}

/// What an outcome says as a vote; nothing, if it has to be asked for again.
pub fn vote(outcome: &BranchOutcome, alone: bool) -> Option<Vote> {
    let no = |reason: String| Some(Vote::No { reason, again: None });
    match outcome {
        BranchOutcome::Prepared(_) => Some(Vote::Yes),
        BranchOutcome::Committed { revision, .. } if alone => Some(Vote::Done(*revision)),
        BranchOutcome::Committed { revision, .. } => {
            no(format!("it was committed before, at revision {revision}"))
        }
        BranchOutcome::RolledBack(no @ No::Conflict { priority }) => {
            Some(Vote::No { reason: no.to_string(), again: Some(*priority) })
        }
        BranchOutcome::RolledBack(why) => no(why.to_string()),
        BranchOutcome::Waiting | BranchOutcome::Forgotten | BranchOutcome::Together(_) => None,
        BranchOutcome::Refused(BranchError::StillPrepared { .. }) => None,
        BranchOutcome::Refused(error) => no(error.to_string()),
    }
}

/// What an outcome says of how the branch has ended.
///
/// # Errors
/// In words: it has to be told again.
pub fn end(outcome: &BranchOutcome, commit: bool) -> Result<End, String> {
    Ok(match outcome {
        BranchOutcome::Committed { revision, .. } => End::Committed(*revision),
        BranchOutcome::RolledBack(_) => End::RolledBack,
        BranchOutcome::Refused(BranchError::OldEpoch { .. }) => End::Superseded,
        BranchOutcome::Refused(BranchError::Committed { revision }) => End::Committed(*revision),
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

/// What an outcome says of a vote that was closed.
///
/// # Errors
/// In words: it has to be asked again.
pub fn found(outcome: &BranchOutcome) -> Result<Found, String> {
    match outcome {
        BranchOutcome::Prepared(_) => Ok(Found::Yes),
        BranchOutcome::Committed { revision, .. } => Ok(Found::Committed(*revision)),
        BranchOutcome::RolledBack(No::Told) => Ok(Found::No(None)),
        BranchOutcome::RolledBack(why) => Ok(Found::No(Some(why.to_string()))),
        BranchOutcome::Refused(BranchError::OldEpoch { .. }) => Ok(Found::Superseded),
        other => Err(format!("its keyspace said {other:?}")),
    }
}

/// Whether a branch has locks, or waits for them.
pub fn holds(branch: &BranchInfo) -> bool {
    matches!(branch.state, BranchState::Prepared { .. } | BranchState::Waiting)
}

/// What is to be done about a branch that nobody seems to see to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Orphan {
    /// Nothing: its transaction is not over, or its outcome is remembered on purpose.
    Leave,
    /// It is rolled back once there is a record that says that its transaction is void.
    Bury,
    /// It can never be committed: it is rolled back.
    RollBack,
    /// It is over and its record gone: the keyspace forgets it.
    Forget,
}

/// The same, by the record of its transaction as of everything acknowledged before. Where the
/// record is of another asker the branch is a second beginner's, who can never commit it.
pub fn orphan(asker: Owner, known: Option<&Known>, holds: bool) -> Orphan {
    let over = if holds { Orphan::RollBack } else { Orphan::Forget };
    match known {
        // What a bundle has carried gets no record any more; what one carries may be let go.
        Some(known) if known.carried && !known.is_settled() => Orphan::Leave,
        Some(known) if !known.carried && known.record.asker == asker => match known.record.stage {
            Stage::Open | Stage::Decided(_) => Orphan::Leave,
            // Remembered on purpose: what a lost coordinator sent may still arrive.
            Stage::Finished(_) if !holds => Orphan::Leave,
            Stage::Finished(_) => over,
        },
        // Somebody else began a transaction of this id before: this one has no record, and never
        // gets one.
        Some(_) => over,
        None if holds => Orphan::Bury,
        None => over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_branch_tells_its_transaction_and_who_asked() {
        let asker = Owner { node: NodeId(7), run: u64::MAX };
        for (id, asker) in [("order-1", asker), ("x", Owner::default())] {
            let branch = branch_id(id, asker, 3);
            assert_eq!(transaction_of(&branch), Some((id.to_owned(), asker)));
            assert_eq!(branch.number, 4);
        }
        let longest = branch_id(&"i".repeat(crate::MAX_ID_BYTES), asker, 0);
        assert!(longest.transaction.len() <= quorate_keyspace::branch::MAX_TRANSACTION_BYTES);
        for foreign in [&b"a\0short"[..], b"a\0sixteen bytes here and more", b"\xff\xfe"] {
            let transaction = Bytes::from_static(foreign);
            assert_eq!(transaction_of(&BranchId { transaction, number: 1 }), None);
        }
    }
}
