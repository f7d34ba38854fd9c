//! Ends what a lost or stuck coordinator left behind. Every node looks; the record's
//! compare-and-swap lets one of them through.

use crate::drive::Drive;
use crate::live::Live;
use crate::service::Inner;
use quorate_replicated_log::Role;
use quorate_transactions::records::Kept;
use quorate_transactions::{
    Coordinator, Kind, Record, Settings, Sight, Stage, Suspicion, SuspicionSettings, content_hash,
};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// How many transactions this node takes over at a time.
const AT_A_TIME: usize = 256;
/// One that is not over after so long waits for somebody, and does not count any more: others,
/// whose participants are there, must not wait with it. What waits costs little more than its
/// record, which every member has in memory anyway.
const MOVES_FOR: Duration = Duration::from_secs(1);
/// With so many taken over and not over, those that wait among them, this node begins no others:
/// what it begins may be taken over in turn.
pub(crate) const MOST_TAKEN: usize = 65_536;

/// Does so as long as the node lives.
pub(crate) async fn watch(inner: Weak<Inner>, settings: SuspicionSettings) {
    let mut suspicion = Suspicion::new(settings);
    loop {
        sleep(PAUSE).await;
        let Some(inner) = inner.upgrade() else { return };
        if inner.node.has_ended() {
            return;
        }
        look(&inner, &mut suspicion);
    }
}

/// Looks once.
fn look(inner: &Arc<Inner>, suspicion: &mut Suspicion) {
    let Some(store) = inner.store() else { return };
    let mut open = inner.open.lock();
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
        if suspicion.look(&id, (&record, revision), connected, sight) && inner.taken.has_room() {
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

/// What this node has taken over, and is not done with.
pub(crate) struct Taken {
    /// For those that move.
    permits: Arc<Semaphore>,
    all: Arc<AtomicUsize>,
}

impl Taken {
    pub fn new() -> Taken {
        Taken { permits: Arc::new(Semaphore::new(AT_A_TIME)), all: Arc::default() }
    }

    /// How many there are, those that wait among them.
    pub fn len(&self) -> usize {
        self.all.load(Relaxed)
    }

    fn has_room(&self) -> bool {
        self.permits.available_permits() > 0
    }

    /// Room for one more, if there is any.
    fn one(&self) -> Option<Place> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        self.all.fetch_add(1, Relaxed);
        Some(Place { all: self.all.clone(), permit: Some(permit) })
    }
}

/// The place of one that was taken over.
struct Place {
    all: Arc<AtomicUsize>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Is held until this is done, but counts only as long as it moves.
    async fn hold(mut self, moves_for: Duration, drive: impl Future<Output = ()>) {
        let mut drive = pin!(drive);
        if timeout(moves_for, &mut drive).await.is_err() {
            self.permit = None;
            drive.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Relaxed);
    }
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
    if matches!(record.stage, Stage::Finished(_)) {
        return None;
    }
    let place = inner.taken.one()?;
    let live = Live::new(&id, record.clone());
    inner.live.add(&live).ok()?;
    inner.counters.taken_over(&record);
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
    tokio::spawn(place.hold(MOVES_FOR, drive.run(effects)));
    Some(live)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::{Alone, eventually};
    use crate::service::Settings as OfNode;
    use quorate_transactions::Verdict;
    use quorate_transactions::records::{FINISHED, OPEN};
    use std::future::pending;

    /// More than fit in a page, and more than are taken over at a time.
    #[test]
    fn all_that_an_earlier_life_left_open_is_taken_over() {
        let world = Alone::start();
        let n = AT_A_TIME + 60;
        world.begin_records(n);
        let transactions = world.transactions(OfNode { page: 50, ..OfNode::default() });
        let list = |prefix: &str| world.store.list(prefix, "", 1_000).unwrap();
        eventually("all are over", || list(OPEN).is_empty() && list(FINISHED).len() == n);
        for (id, (record, _)) in list(FINISHED) {
            let Stage::Finished(Verdict::Abort { reason, .. }) = &record.stage else {
                panic!("{id}: {record:?}")
            };
            assert!(reason.contains("was lost before it had decided"), "{reason}");
        }
        drop(transactions);
    }

    #[tokio::test]
    async fn what_waits_for_a_participant_leaves_its_place_to_others() {
        let taken = Taken::new();
        let waits: Vec<_> = (0..AT_A_TIME)
            .map(|_| tokio::spawn(taken.one().unwrap().hold(Duration::from_millis(20), pending())))
            .collect();
        assert!(!taken.has_room() && taken.one().is_none(), "all of them may move yet");
        while !taken.has_room() {
            sleep(Duration::from_millis(5)).await;
        }
        taken.one().unwrap().hold(MOVES_FOR, async {}).await;
        while taken.permits.available_permits() < AT_A_TIME {
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(taken.len(), AT_A_TIME, "they are driven all the same");
        waits.iter().for_each(tokio::task::JoinHandle::abort);
        for wait in waits {
            assert!(wait.await.unwrap_err().is_cancelled());
        }
        assert_eq!(taken.len(), 0);
    }
}
