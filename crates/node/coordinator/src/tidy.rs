//! Forgets what ended long ago: finished records, the databases' fence rows, and the history of
//! the records' keyspace.
//!
//! Invariant: how long ago something ended is measured by revisions that this node has seen itself
//! at times of its own clock; nobody else's clock can make a record be forgotten early. And none is
//! forgotten while a branch that people have seen to is prepared, or might be.

use crate::manager::name;
use crate::service::Inner;
use crate::store::Store;
use crate::traces::{self, Participant};
use quorate_mvcc::Revision;
use quorate_replicated_log::Role;
use quorate_resource_managers::{BranchName, Deadline, State};
use quorate_transactions::records::{FINISHED, Kept, Over};
use quorate_transactions::{BranchRecord, BranchState, Kind, Record};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Weak;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The pause between two rounds.
const PAUSE: Duration = Duration::from_secs(30);
/// Records in one page.
const PAGE: u64 = 500;
/// Branches that a participant is asked to forget at a time,
const FORGOTTEN_TOGETHER: usize = 500;
/// and how long it may take.
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
        let page = match store.list(FINISHED, &after, PAGE) {
            Ok(page) => page,
            Err(error) => return tracing::warn!(%error, "cannot read finished transactions"),
        };
        let Some((last, _)) = page.last() else { return };
        after.clone_from(last);
        let is_old = |(_, (_, revision)): &(String, Kept)| *revision <= old;
        let mut due = match store.over(page.into_iter().filter(is_old).collect()) {
            Ok(due) => due,
            Err(error) => return tracing::warn!(%error, "cannot read finished transactions"),
        };
        // A stray that was found a moment ago may not even be rolled back yet.
        due.retain(|over| over.noted <= old);
        let (mut kept, mut silent) = (BTreeSet::new(), BTreeSet::new());
        for over in &due {
            if comes_back(inner, &over.id, &over.record, &mut silent).await {
                kept.insert(over.id.clone());
            }
        }
        silent.iter().for_each(|participant| deaf.warn(participant, "it does not answer"));
        due.retain(|over| !kept.contains(&over.id));
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

/// Lets the participants outside forget these; those that are kept by none of them any more.
async fn forgotten_outside(inner: &Inner, mut due: Vec<Over>, deaf: &mut Deaf) -> Vec<Over> {
    let mut failed = BTreeSet::new();
    for (participant, names) in traces::of(inner.node.cluster(), &due) {
        match forgotten_by(inner, &participant, names).await {
            Ok(()) => deaf.forgot(&participant),
            Err(error) => {
                deaf.warn(&participant, &error);
                failed.insert(participant);
            }
        }
    }
    due.retain(|over| traces::participants(over).is_disjoint(&failed));
    due
}

/// Lets one participant forget branches, some at a time, for as long as it gets on: what a slow one
/// has not come to in time is asked for again, without what it has forgotten.
async fn forgotten_by(
    inner: &Inner,
    (kind, name): &Participant,
    mut names: impl Iterator<Item = BranchName>,
) -> Result<(), String> {
    let manager = inner.manager(*kind, name).map_err(|error| error.to_string())?;
    let mut some: Vec<BranchName> = Vec::new();
    loop {
        some.extend(names.by_ref().take(FORGOTTEN_TOGETHER - some.len()));
        if some.is_empty() {
            return Ok(());
        }
        let forgotten = manager.forget(&some, Deadline::within(FORGET_LIMIT)).await;
        match forgotten.map_err(|error| error.to_string())? {
            0 => return Err("it forgets nothing in time".to_owned()),
            n => drop(some.drain(..n.min(some.len()))),
        }
    }
}

#[cfg(test)]
mod tests;
