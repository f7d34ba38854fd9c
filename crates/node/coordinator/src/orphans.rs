//! Ends branches that nobody will end any more: a prepare that came after its transaction was over
//! and forgotten, and what is remembered of transactions whose records are gone.
//!
//! Invariant: nothing is done to a branch whose transaction is not over. Where there is no record,
//! one is made first that says that the transaction is void. Where the record is of another asker
//! the branch is a second beginner's, who can never commit it.

use crate::oracle::ORPHANED;
use crate::outbox;
use crate::service::Inner;
use crate::store::Store;
use quorate_base::NodeId;
use quorate_host::{KeyspaceHandle, TRANSACTIONS};
use quorate_keyspace::BranchCommand;
use quorate_keyspace::branch::{BranchId, BranchInfo};
use quorate_replicated_log::Role;
use quorate_transactions::branches::{Orphan, holds, orphan, transaction_of};
use quorate_transactions::{Owner, Record, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The pause between two scans.
const PAUSE: Duration = Duration::from_secs(2);
/// The pause between two looks at who is away.
const LOOK: Duration = Duration::from_millis(100);
/// What a node asked for that has not been connected for so long is looked for at every look,
const AWAY: Duration = Duration::from_millis(150);
/// until so long after it was lost.
const HURRY: Duration = Duration::from_secs(15);
/// When participants outside are looked at after a node's loss, each after the one before.
const HURRIES_MS: [u64; 8] = [0, 350, 500, 1_000, 2_000, 3_000, 4_000, 4_000];
/// A branch is looked at when it was seen in so many scans in a row.
const SCANS: u32 = 2;
/// How many branches of a keyspace are ended in one scan.
const MOST: usize = 1_000;
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// Branches and their epochs, by group, with the number of scans that have seen them.
type Seen = BTreeMap<(u64, BranchId, u64), u32>;

/// Since when which nodes have not been connected.
#[derive(Default)]
struct Away(BTreeMap<NodeId, Instant>);

impl Away {
    /// Those that were lost a moment ago, and not long ago.
    fn look(
        &mut self,
        now: Instant,
        peers: impl Iterator<Item = (NodeId, bool)>,
    ) -> BTreeSet<NodeId> {
        for (peer, connected) in peers {
            match connected {
                true => drop(self.0.remove(&peer)),
                false => drop(self.0.entry(peer).or_insert(now)),
            }
        }
        let lately = |since: &Instant| (AWAY..HURRY).contains(&now.duration_since(*since));
        self.0.iter().filter(|(_, since)| lately(since)).map(|(node, _)| *node).collect()
    }
}

/// Does so as long as the node lives, for the keyspaces that it leads.
pub(crate) async fn watch(inner: Weak<Inner>) {
    let (mut seen, mut away, mut last) = (Seen::new(), Away::default(), Instant::now());
    let mut noticed = BTreeSet::new();
    let weak = inner;
    loop {
        sleep(LOOK).await;
        let Some(inner) = weak.upgrade() else { return };
        if inner.node.has_ended() {
            return;
        }
        let peers = inner.node.peers().into_iter();
        let lost = away.look(Instant::now(), peers.map(|(peer, stats)| (peer, stats.connected)));
        if !lost.is_subset(&noticed) {
            tokio::spawn(hurry_outside(weak.clone()));
        }
        noticed.clone_from(&lost);
        if last.elapsed() >= PAUSE {
            let mut now = Seen::new();
            for keyspace in leads(&inner) {
                scan(&inner, &keyspace, &seen, &mut now).await;
            }
            (seen, last) = (now, Instant::now());
        } else if !lost.is_empty() {
            for keyspace in leads(&inner) {
                hurry(&inner, &keyspace, &lost).await;
            }
        }
    }
}

/// The keyspaces that this node leads and that know of branches: few of many.
fn leads(inner: &Inner) -> impl Iterator<Item = KeyspaceHandle> {
    inner.node.hosted().into_iter().filter(|keyspace| {
        keyspace.reader().knows_branches()
            && keyspace.consensus().role == Role::Leader
            && keyspace.name() != TRANSACTIONS
    })
}

/// Ends the branches of lost nodes that have no record: they hold locks, and nobody takes them
/// over.
async fn hurry(inner: &Arc<Inner>, keyspace: &KeyspaceHandle, lost: &BTreeSet<NodeId>) {
    let Ok(branches) = keyspace.with_keyspace(|keyspace| keyspace.branches()).await else {
        return;
    };
    let Some(store) = inner.store() else { return };
    for branch in branches.iter().filter(|branch| holds(branch)).take(MOST) {
        let Some((id, asker)) = transaction_of(&branch.id) else { continue };
        // What has a record has somebody who sees to it.
        let known = store.look(&id).ok().flatten();
        let driven = known.is_some_and(|(record, _)| record.asker == asker && is_open(&record));
        if driven || !lost.contains(&asker.node) {
            continue;
        }
        if let Err(why) = end(inner, keyspace, (&id, asker), branch).await {
            let name = keyspace.name();
            tracing::debug!(id, name, why, "a lost node's branch could not be ended yet");
        }
    }
}

/// Looks for what a lost node has left at participants outside; again and again for a while, for a
/// participant may be slow.
async fn hurry_outside(inner: Weak<Inner>) {
    for pause in HURRIES_MS {
        sleep(Duration::from_millis(pause)).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.recovery.hurry();
    }
}

fn is_open(record: &Record) -> bool {
    !matches!(record.stage, Stage::Finished(_))
}

async fn scan(inner: &Arc<Inner>, keyspace: &KeyspaceHandle, seen: &Seen, now: &mut Seen) {
    let Ok(branches) = keyspace.with_keyspace(|keyspace| keyspace.branches()).await else {
        return;
    };
    let Some(store) = inner.store() else { return };
    let mut ended = 0;
    for branch in in_turn(branches) {
        let Some((id, asker)) = transaction_of(&branch.id) else { continue };
        if inner.live.get(&id).is_some_and(|live| live.asker == asker) {
            continue;
        }
        let key = (keyspace.id().0, branch.id.clone(), branch.epoch);
        let times = seen.get(&key).map_or(1, |times| times + 1);
        if times >= SCANS && ended < MOST && !is_left(&store, &id, asker, &branch) {
            ended += 1;
            if let Err(why) = end(inner, keyspace, (&id, asker), &branch).await {
                let name = keyspace.name();
                tracing::debug!(id, name, why, "a branch could not be ended yet");
            }
        }
        now.insert(key, times);
    }
}

/// Who holds locks comes first.
fn in_turn(branches: Vec<BranchInfo>) -> impl Iterator<Item = BranchInfo> {
    let (holding, others): (Vec<_>, Vec<_>) = branches.into_iter().partition(holds);
    holding.into_iter().chain(others)
}

/// Whether nothing is to be done about a branch as far as this node's replica of the records knows.
/// Most are like that, and remembered for long: they cost neither a question to others nor the turn
/// of one that has to be ended.
fn is_left(store: &Store, id: &str, asker: Owner, branch: &BranchInfo) -> bool {
    let known = store.look_for(id);
    known.is_ok_and(|known| orphan(asker, known.as_ref(), holds(branch)) == Orphan::Leave)
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
    let known = store.find(id, READ_TIMEOUT).await.map_err(words)?;
    let (id_of_branch, epoch) = (branch.id.clone(), branch.epoch);
    let command = match orphan(asker, known.as_ref(), holds(branch)) {
        Orphan::Leave => return Ok(()),
        // Somebody has begun one at this moment: it is looked at again.
        Orphan::Bury if !inner.bury(id, ORPHANED).await.map_err(words)? => return Ok(()),
        Orphan::Bury | Orphan::RollBack => {
            let name = keyspace.name();
            tracing::info!(id, name, "rolling back a branch that came late");
            BranchCommand::Rollback { id: id_of_branch, epoch }
        }
        Orphan::Forget => BranchCommand::Forget { id: id_of_branch, epoch },
    };
    outbox::ask(inner, keyspace.id(), command).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::Alone;
    use bytes::Bytes;
    use quorate_keyspace::branch::{BranchState, No};
    use quorate_transactions::branches::branch_id;

    fn branch(id: BranchId, state: BranchState) -> BranchInfo {
        BranchInfo { id, epoch: 1, state }
    }

    #[test]
    fn who_holds_locks_comes_first() {
        let prepared = BranchState::Prepared { priority: 7 };
        let states = [
            BranchState::Committed(3),
            prepared,
            BranchState::RolledBack(No::Told),
            BranchState::Waiting,
            BranchState::Committed(4),
            prepared,
        ];
        let id = |n: usize| BranchId { transaction: Bytes::from_static(b"t"), number: n as u32 };
        let all = states.iter().enumerate().map(|(n, state)| branch(id(n), *state)).collect();
        let turns: Vec<u32> = in_turn(all).map(|it| it.id.number).collect();
        assert_eq!(turns, [1, 3, 5, 0, 2, 4]);
    }

    #[test]
    fn what_this_replica_knows_to_be_seen_to_is_left_without_asking_others() {
        let world = Alone::start();
        world.begin_records(1);
        let (id, prepared) = (&world.ids()[0], BranchState::Prepared { priority: 7 });
        let left = |id: &str, asker, state| {
            is_left(&world.store, id, asker, &branch(branch_id(id, asker, 0), state))
        };
        let (asker, stranger) = (world.asker(), world.stranger());
        assert!(left(id, asker, prepared), "its transaction is under way");
        assert!(left(id, asker, BranchState::Committed(3)));
        assert!(!left(id, stranger, prepared), "it has no record, and gets none");
        assert!(!left("unknown", asker, prepared));
        assert!(!left("unknown", asker, BranchState::Committed(3)), "its record is forgotten");
    }

    #[test]
    fn a_node_is_hurried_after_from_a_moment_after_its_loss_for_a_while() {
        let (mut away, start) = (Away::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let look = |away: &mut Away, ms, connected| {
            away.look(at(ms), [(NodeId(1), connected), (NodeId(2), true)].into_iter()).len()
        };
        assert_eq!(look(&mut away, 0, false), 0, "it may be back at once");
        assert_eq!(look(&mut away, 160, false), 1);
        assert_eq!(look(&mut away, 14_900, false), 1);
        assert_eq!(look(&mut away, 15_100, false), 0, "what it asked for has been found by then");
        assert_eq!(look(&mut away, 16_000, true), 0);
        assert_eq!(look(&mut away, 16_100, false), 0, "it counts anew");
        assert_eq!(look(&mut away, 16_300, false), 1);
    }
}
