//! Ends what a lost or stuck coordinator left behind. Every node looks; the record's
//! compare-and-swap lets one of them through.

use crate::drive::Drive;
use crate::live::Live;
use crate::open::Open;
use crate::service::Inner;
use quorate_replicated_log::Role;
use quorate_transactions::records::Kept;
use quorate_transactions::{
    Coordinator, Kind, Record, Settings, Sight, Stage, Suspicion, SuspicionSettings, content_hash,
};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::sleep;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// How many transactions this node takes over at a time.
const AT_A_TIME: usize = 256;

/// Does so as long as the node lives.
pub(crate) async fn watch(inner: Weak<Inner>, settings: SuspicionSettings, page: u64) {
    let mut suspicion = Suspicion::new(settings);
    let mut open = Open::new(page);
    loop {
        sleep(PAUSE).await;
        let Some(inner) = inner.upgrade() else { return };
        if inner.node.has_ended() {
            return;
        }
        look(&inner, &mut suspicion, &mut open);
    }
}

/// Looks once.
fn look(inner: &Arc<Inner>, suspicion: &mut Suspicion, open: &mut Open) {
    let Some(store) = inner.store() else { return };
    if let Err(error) = open.follow(&store) {
        return tracing::warn!(%error, "cannot look for lost transactions");
    }
    let ids = open.ids();
    suspicion.retain(|id| ids.binary_search_by(|known| known.as_str().cmp(id)).is_ok());
    if ids.is_empty() {
        return;
    }
    let leads = store.0.consensus().role == Role::Leader;
    let (now, me) = (inner.moment().now, inner.me.node);
    let peers = inner.node.peers();
    for id in ids {
        if inner.live.get(&id).is_some() {
            continue;
        }
        let Some((record, revision)) = open.get(&id) else { continue };
        let node = record.owner.node;
        let connected = peers.iter().any(|(peer, stats)| *peer == node && stats.connected);
        let sight = Sight { now, me, leads, able: able(inner, &record) };
        if suspicion.look(&id, (&record, revision), connected, sight)
            && inner.taken.available_permits() > 0
        {
            take(inner, id, (record, revision), Why::Lost);
        }
    }
}

/// Whether this node reaches every participant.
fn able(inner: &Inner, record: &Record) -> bool {
    record.branches.iter().all(|branch| match branch.kind {
        Kind::Keyspace => inner.node.group(branch.group).is_some(),
        kind => inner.manager_ref(kind, &branch.participant).is_ok(),
    })
}

/// How many may be taken over at a time.
pub(crate) fn permits() -> Arc<tokio::sync::Semaphore> {
    Arc::new(tokio::sync::Semaphore::new(AT_A_TIME))
}

/// Why a transaction is taken over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// Nobody drives it.
    Lost,
    /// Its client does not want it any more.
    Cancelled,
    /// People have seen to an alarm.
    Acknowledged,
}

/// Takes one over, if it is not driven here already and there is room.
pub(crate) fn take(
    inner: &Arc<Inner>,
    id: String,
    (record, at): Kept,
    why: Why,
) -> Option<Arc<Live>> {
    let permit = inner.taken.clone().try_acquire_owned().ok()?;
    if matches!(record.stage, Stage::Finished(_)) {
        return None;
    }
    let live = Live::new(&id, record.clone());
    inner.live.add(&live).ok()?;
    let owner = record.owner.node;
    tracing::info!(id, %owner, stage = ?record.stage, ?why, "taking a transaction over");
    let mut effects = Vec::new();
    let begin = match why {
        Why::Lost | Why::Acknowledged => Coordinator::take_over,
        Why::Cancelled => Coordinator::take_to_cancel,
    };
    let coordinator = begin(
        Settings::default(),
        content_hash(id.as_bytes()),
        (record, at),
        inner.me,
        inner.moment(),
        &mut effects,
    );
    let drive = Drive::new(inner.clone(), live.clone(), coordinator, None);
    tokio::spawn(async move {
        drive.run(effects).await;
        drop(permit);
    });
    Some(live)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::{Alone, eventually};
    use crate::service::Settings as OfNode;
    use quorate_transactions::Verdict;
    use quorate_transactions::records::{FINISHED, OPEN};

    /// More than fit in a page, and more than are taken over at a time.
    #[test]
    fn all_that_an_earlier_life_left_open_is_taken_over() {
        let world = Alone::start();
        let n = AT_A_TIME + 60;
        world.begin_records(n);
        let transactions = world.transactions(OfNode { page: 50, ..OfNode::default() });
        let list = |prefix: &str| world.store.list(prefix, "", false, 1_000).unwrap();
        eventually("all are over", || list(OPEN).is_empty() && list(FINISHED).len() == n);
        for (id, (record, _)) in list(FINISHED) {
            let Stage::Finished(Verdict::Abort { reason, .. }) = &record.stage else {
                panic!("{id}: {record:?}")
            };
            assert!(reason.contains("was lost before it had decided"), "{reason}");
        }
        drop(transactions);
    }
}
