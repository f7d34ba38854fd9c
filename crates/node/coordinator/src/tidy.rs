//! Forgets what ended long ago: finished records, the databases' fence rows, and the history of
//! the records' keyspace.
//!
//! Invariant: how long ago something ended is measured by revisions that this node has seen itself
//! at times of its own clock; nobody else's clock can make a record be forgotten early. And none is
//! forgotten while a branch that people have seen to is prepared, or might be.

use crate::manager::name;
use crate::service::Inner;
use crate::store::Store;
use quorate_mvcc::Revision;
use quorate_replicated_log::Role;
use quorate_resource_managers::{Deadline, State};
use quorate_transactions::records::{FINISHED, Kept};
use quorate_transactions::{BranchRecord, BranchState, Kind, Record};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Weak;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The pause between two rounds.
const PAUSE: Duration = Duration::from_secs(30);
/// Records in one page.
const PAGE: u64 = 500;
/// How long a participant may take to forget a page's branches.
const FORGET_LIMIT: Duration = Duration::from_secs(10);

/// Does so as long as the node lives, while it leads the records' group.
pub(crate) async fn watch(inner: Weak<Inner>, retention: Duration) {
    let mut seen: VecDeque<(Instant, Revision)> = VecDeque::new();
    let mut deaf = Deaf::default();
    loop {
        sleep(PAUSE.min(retention)).await;
        let Some(inner) = inner.upgrade() else { return };
        if inner.node.has_ended() {
            return;
        }
        let Some(store) = inner.store() else { continue };
        if store.0.consensus().role != Role::Leader {
            seen.clear();
            continue;
        }
        let now = Instant::now();
        let last = seen.back().map(|(_, revision)| *revision);
        seen.push_back((now, store.0.reader().revision()));
        let mut old = None;
        while seen.front().is_some_and(|(at, _)| now.duration_since(*at) >= retention) {
            old = seen.pop_front().map(|(_, revision)| revision);
        }
        if let Some(old) = old {
            forget(&inner, &store, old, &mut deaf).await;
        }
        if let Some(last) = last.filter(|last| *last > store.0.reader().compacted_revision())
            && let Err(error) = store.compact(last).await
        {
            tracing::debug!(%error, "the records' history is not compacted yet");
        }
    }
}

/// A participant outside.
type Participant = (Kind, String);

/// Participants that did not forget what they were asked to. Each is warned of once, until it has
/// forgotten something again: their records are kept, however long that takes.
#[derive(Default)]
struct Deaf(BTreeSet<Participant>);

impl Deaf {
    /// Whether that is news.
    fn failed(&mut self, participant: &Participant) -> bool {
        self.0.insert(participant.clone())
    }

    fn warn(&mut self, participant: &Participant, error: &str) {
        if self.failed(participant) {
            let (kind, name) = (participant.0.name(), &participant.1);
            tracing::warn!(
                kind,
                name,
                error,
                "a participant does not forget branches that are over: their records are kept \
                 until it does, and this is said once (docs/in-doubt.md)"
            );
        }
    }

    fn forgot(&mut self, participant: &Participant) {
        self.0.remove(participant);
    }
}

/// Forgets every record that has not changed since revision `old`.
async fn forget(inner: &Inner, store: &Store, old: Revision, deaf: &mut Deaf) {
    let mut after = String::new();
    loop {
        let page = match store.list(FINISHED, &after, false, PAGE) {
            Ok(page) => page,
            Err(error) => return tracing::warn!(%error, "cannot read finished transactions"),
        };
        let Some((last, _)) = page.last() else { return };
        after.clone_from(last);
        let mut due: Vec<(String, Kept)> =
            page.into_iter().filter(|(_, (_, revision))| *revision <= old).collect();
        let (mut kept, mut silent) = (BTreeSet::new(), BTreeSet::new());
        for (id, (record, _)) in &due {
            if comes_back(inner, id, record, &mut silent).await {
                kept.insert(id.clone());
            }
        }
        silent.iter().for_each(|participant| deaf.warn(participant, "it does not answer"));
        due.retain(|(id, _)| !kept.contains(id));
        let due = forgotten_outside(inner, due, deaf).await;
        if !due.is_empty()
            && let Err(error) = store.remove(&due).await
        {
            return tracing::debug!(%error, "finished transactions are not removed yet");
        }
    }
}

/// Whether a branch that people have seen to may be prepared now: without its record nobody would
/// know any more how its transaction ended, and a scan would roll it back. Others were proven to be
/// over, and nothing but a participant that was set back undoes that.
/// One that does not answer is asked once: others must not wait with it.
async fn comes_back(
    inner: &Inner,
    id: &str,
    record: &Record,
    silent: &mut BTreeSet<Participant>,
) -> bool {
    let seen_to = |it: &&BranchRecord| {
        it.kind != Kind::Keyspace && matches!(it.state, BranchState::Acknowledged(_))
    };
    for branch in record.branches.iter().filter(seen_to) {
        let participant = (branch.kind, branch.participant.clone());
        if silent.contains(&participant) {
            return true;
        }
        let cluster = inner.node.cluster();
        let named = name(cluster, id, record.asked, &branch.participant, &branch.name);
        let (Ok(name), Ok(manager)) = (named, inner.manager(branch.kind, &branch.participant))
        else {
            silent.insert(participant);
            return true;
        };
        match manager.inspect(&name, Deadline::within(FORGET_LIMIT)).await {
            Ok(State::Applied(_) | State::RolledBack | State::Absent) => {}
            Ok(State::Prepared) => return true,
            Err(_) => {
                silent.insert(participant);
                return true;
            }
        }
    }
    false
}

/// Lets the participants outside forget these; those that are kept by none of them any more. What a
/// slow one has not come to is asked for again in the next round, without what it has forgotten.
async fn forgotten_outside(
    inner: &Inner,
    due: Vec<(String, Kept)>,
    deaf: &mut Deaf,
) -> Vec<(String, Kept)> {
    let mut branches = BTreeMap::<Participant, Vec<_>>::new();
    for (id, (record, _)) in &due {
        for branch in record.branches.iter().filter(|branch| branch.kind != Kind::Keyspace) {
            let (asked, cluster) = (record.asked, inner.node.cluster());
            if let Ok(name) = name(cluster, id, asked, &branch.participant, &branch.name) {
                let participant = (branch.kind, branch.participant.clone());
                branches.entry(participant).or_default().push((id.clone(), name));
            }
        }
    }
    let mut kept = BTreeSet::new();
    for (participant, named) in branches {
        let (ids, names): (Vec<String>, Vec<_>) = named.into_iter().unzip();
        let forgotten = match inner.manager(participant.0, &participant.1) {
            Ok(manager) => manager
                .forget(&names, Deadline::within(FORGET_LIMIT))
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match &forgotten {
            Ok(_) => deaf.forgot(&participant),
            Err(error) => deaf.warn(&participant, error),
        }
        kept.extend(not_forgotten(ids, &forgotten));
    }
    due.into_iter().filter(|(id, _)| !kept.contains(id)).collect()
}

/// The records, of those whose branches a participant was to forget, that have to wait for it.
fn not_forgotten<E>(
    ids: Vec<String>,
    forgotten: &Result<usize, E>,
) -> impl Iterator<Item = String> + use<E> {
    let first = *forgotten.as_ref().unwrap_or(&0);
    ids.into_iter().skip(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slow_participant_has_forgotten_is_over() {
        let kept = |forgotten| {
            let ids = ["a", "b", "c"].map(str::to_owned).to_vec();
            not_forgotten::<()>(ids, &forgotten).collect::<Vec<_>>()
        };
        assert_eq!(kept(Ok(2)), ["c"]);
        assert!(kept(Ok(3)).is_empty());
        assert_eq!(kept(Err(())), ["a", "b", "c"]);
    }

    #[test]
    fn a_participant_that_does_not_forget_is_news_once() {
        let mut deaf = Deaf::default();
        let (bank, shop) =
            ((Kind::Postgres, "bank".to_owned()), (Kind::MariaDb, "bank".to_owned()));
        assert!(deaf.failed(&bank) && deaf.failed(&shop));
        assert!(!deaf.failed(&bank) && !deaf.failed(&shop));
        deaf.forgot(&bank);
        assert!(deaf.failed(&bank), "it was well in between");
        assert!(!deaf.failed(&shop));
    }
}
