//! Ends branches that nobody will end any more: a prepare that came after its transaction was over
//! and forgotten, and what is remembered of transactions whose records are gone.
//!
//! Invariant: nothing is done to a branch whose transaction is not over. Where there is no record,
//! one is made first that says that the transaction is void. Where the record is of another asker
//! the branch is a second beginner's, who can never commit it.

use crate::keyspace::transaction_of;
use crate::outbox;
use crate::service::Inner;
use quorate_host::{KeyspaceHandle, TRANSACTIONS};
use quorate_keyspace::BranchCommand;
use quorate_keyspace::branch::{BranchId, BranchInfo, BranchState};
use quorate_replicated_log::Role;
use quorate_transactions::{Owner, Stage};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::sleep;

/// The pause between two scans.
const PAUSE: Duration = Duration::from_secs(2);
/// A branch is looked at when it was seen in so many scans in a row.
const SCANS: u32 = 2;
/// How many branches of a keyspace are ended in one scan.
const MOST: usize = 1_000;
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// Branches and their epochs, by group, with the number of scans that have seen them.
type Seen = BTreeMap<(u64, BranchId, u64), u32>;

/// Does so as long as the node lives, for the keyspaces that it leads.
pub(crate) async fn watch(inner: Weak<Inner>) {
    let mut seen = Seen::new();
    loop {
        sleep(PAUSE).await;
        let Some(inner) = inner.upgrade() else { return };
        if inner.node.has_ended() {
            return;
        }
        let mut now = Seen::new();
        for keyspace in inner.node.hosted() {
            if keyspace.consensus().role == Role::Leader && keyspace.name() != TRANSACTIONS {
                scan(&inner, &keyspace, &seen, &mut now).await;
            }
        }
        seen = now;
    }
}

async fn scan(inner: &Arc<Inner>, keyspace: &KeyspaceHandle, seen: &Seen, now: &mut Seen) {
    let Ok(branches) = keyspace.with_keyspace(|keyspace| keyspace.branches()).await else {
        return;
    };
    let mut ended = 0;
    for branch in branches {
        let Some((id, asker)) = transaction_of(&branch.id) else { continue };
        if inner.live.get(&id).is_some_and(|live| live.asker == asker) {
            continue;
        }
        let key = (keyspace.id().0, branch.id.clone(), branch.epoch);
        let times = seen.get(&key).map_or(1, |times| times + 1);
        if times >= SCANS && ended < MOST {
            ended += 1;
            if let Err(why) = end(inner, keyspace, (&id, asker), &branch).await {
                let name = keyspace.name();
                tracing::debug!(id, name, why, "a branch could not be ended yet");
            }
        }
        now.insert(key, times);
    }
}

/// Ends one branch, if its transaction is over or was never heard of.
async fn end(
    inner: &Arc<Inner>,
    keyspace: &KeyspaceHandle,
    (id, asker): (&str, Owner),
    branch: &BranchInfo,
) -> Result<(), String> {
    let Some(store) = inner.store() else {
        return Err("the records cannot be reached from this node yet".to_owned());
    };
    let words = |error: crate::store::StoreError| error.to_string();
    let record = store.read(id, READ_TIMEOUT).await.map_err(words)?;
    let holds = matches!(branch.state, BranchState::Prepared { .. } | BranchState::Waiting);
    match record.map(|(record, _)| (record.asker == asker, record.stage)) {
        // Somebody else began a transaction of this id before: this one has no record, and never
        // gets one.
        Some((false, _)) => {}
        Some((true, stage)) => match stage {
            Stage::Open | Stage::Decided(_) => return Ok(()),
            // Remembered on purpose: what a lost coordinator sent may still arrive.
            Stage::Finished(_) if !holds => return Ok(()),
            Stage::Finished(_) => {}
        },
        None if holds => inner.bury(id).await.map_err(words)?,
        None => {}
    }
    let (branch_id, epoch) = (branch.id.clone(), branch.epoch);
    let command = match holds {
        true => {
            let name = keyspace.name();
            tracing::info!(id, name, "rolling back a branch that came late");
            BranchCommand::Rollback { id: branch_id, epoch }
        }
        false => BranchCommand::Forget { id: branch_id, epoch },
    };
    outbox::ask(inner, keyspace.id(), command).await.map(drop)
}
