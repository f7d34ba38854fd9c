//! The hub itself: see [`crate::watch`] for what it promises and how it is driven.

use super::index::{GroupId, Index, Interest};
use super::{Message, StreamId, Watch, WatchError, WatchId};
use crate::canary::{Bug, Canary};
use crate::keyspace::EventBatch;
use crate::reader::History;
use quorate_mvcc::{Event, Revision};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

type Key = (StreamId, WatchId);

/// All watchers of a node.
#[derive(Default, Debug)]
pub struct WatchHub {
    canary: Canary,
    /// Synced watchers were told, or have queued, everything up to here.
    revision: Revision,
    streams: BTreeMap<StreamId, Stream>,
    watchers: BTreeMap<Key, Watcher>,
    index: Index,
    members: Vec<Members>,
    /// Streams with room and watchers behind, by the least revision that is owed.
    starving: BTreeSet<(Revision, StreamId)>,
    woken: BTreeSet<StreamId>,
}

/// The watchers of a group.
#[derive(Default, Debug)]
struct Members {
    synced: BTreeSet<Key>,
    /// All of them, also those behind.
    count: usize,
    /// The events of the batch at hand that they want.
    wanted: Vec<usize>,
}

#[derive(Debug)]
struct Stream {
    budget_bytes: usize,
    queued_bytes: usize,
    queue: VecDeque<(usize, Message)>,
    /// The watchers behind, by the revision owed next.
    behind: BTreeSet<(Revision, WatchId)>,
    /// The stream's place in `starving`.
    starving_at: Option<Revision>,
    next_id: WatchId,
    watchers: usize,
    /// Progress was asked for while some watcher was behind.
    progress_wanted: bool,
}

impl Stream {
    /// Half the budget is free: whatever comes next is taken. So history is read in worthwhile
    /// pieces, and a message larger than the budget gets through.
    fn has_room(&self) -> bool {
        self.queued_bytes <= self.budget_bytes / 2
    }
}

#[derive(Debug)]
struct Watcher {
    group: GroupId,
    /// Every event below this revision it was told or does not want.
    next: Revision,
    place: Place,
    prev_kv: bool,
    progress_notify: bool,
    fragment: bool,
    /// It was told nothing since progress was last due.
    quiet: bool,
}

/// Where a watcher is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    New,
    Synced,
    /// Among those behind in its stream, under this revision.
    Behind(Revision),
}

impl WatchHub {
    /// A hub without watchers, for a store that is at `revision`.
    pub fn new(revision: Revision, canary: Canary) -> Self {
        WatchHub { canary, revision, ..WatchHub::default() }
    }

    /// The latest revision it was told of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many watchers there are, and how many of them are behind.
    pub fn counts(&self) -> (usize, usize) {
        (self.watchers.len(), self.streams.values().map(|s| s.behind.len()).sum())
    }

    /// Bytes of events that a stream has queued.
    pub fn queued_bytes(&self, stream: StreamId) -> usize {
        self.streams.get(&stream).map_or(0, |s| s.queued_bytes)
    }

    /// Opens a stream that queues at most about `budget_bytes` of events.
    pub fn open(&mut self, stream: StreamId, budget_bytes: usize) {
        self.close(stream);
        self.streams.insert(
            stream,
            Stream {
                budget_bytes,
                queued_bytes: 0,
                queue: VecDeque::new(),
                behind: BTreeSet::new(),
                starving_at: None,
                next_id: 0,
                watchers: 0,
                progress_wanted: false,
            },
        );
    }

    /// Forgets a stream, its watchers and its queue.
    pub fn close(&mut self, stream: StreamId) {
        let ids: Vec<WatchId> = self.ids(stream);
        for id in ids {
            self.remove(stream, id);
        }
        if let Some(gone) = self.streams.remove(&stream)
            && let Some(at) = gone.starving_at
        {
            self.starving.remove(&(at, stream));
        }
        self.woken.remove(&stream);
    }

    fn ids(&self, stream: StreamId) -> Vec<WatchId> {
        let all = (stream, WatchId::MIN)..=(stream, WatchId::MAX);
        self.watchers.range(all).map(|((_, id), _)| *id).collect()
    }

    /// Makes a watcher, of this id or one that is free, and queues its [`Message::Created`].
    pub fn create(
        &mut self,
        stream: StreamId,
        id: Option<WatchId>,
        watch: Watch,
    ) -> Result<WatchId, WatchError> {
        let s = self.streams.get_mut(&stream).ok_or(WatchError::UnknownStream)?;
        let id = match id {
            Some(id) if self.watchers.contains_key(&(stream, id)) => {
                return Err(WatchError::DuplicateId);
            }
            Some(id) => id,
            None => {
                while self.watchers.contains_key(&(stream, s.next_id)) {
                    s.next_id += 1;
                }
                s.next_id += 1;
                s.next_id - 1
            }
        };
        s.watchers += 1;
        let Watch { range, start_revision, no_put, no_delete, .. } = watch;
        let group = self.index.group(Interest { range, no_put, no_delete });
        if group >= self.members.len() {
            self.members.resize_with(group + 1, Members::default);
        }
        self.members[group].count += 1;
        let next = if start_revision == 0 { self.revision + 1 } else { start_revision };
        let (prev_kv, progress_notify) = (watch.prev_kv, watch.progress_notify);
        let fragment = watch.fragment;
        let (place, quiet) = (Place::New, true);
        let watcher = Watcher { group, next, place, prev_kv, progress_notify, fragment, quiet };
        self.watchers.insert((stream, id), watcher);
        self.push(stream, 0, Message::Created { id, revision: self.revision });
        self.place((stream, id), next);
        Ok(id)
    }

    /// Ends a watcher and queues its [`Message::Canceled`]; tells whether there was one.
    pub fn cancel(&mut self, stream: StreamId, id: WatchId) -> bool {
        let known = self.remove(stream, id);
        if known {
            self.push(stream, 0, Message::Canceled { id, compacted: None });
            self.answer_progress(stream);
        }
        known
    }

    /// Tells the watchers of what happened. Batches come in order; one that was skipped (a
    /// snapshot took its place) is read from history.
    pub fn publish(&mut self, batch: &EventBatch) {
        if batch.before > self.revision {
            self.observe(batch.revision);
        }
        if batch.revision <= self.revision {
            return;
        }
        let mut touched: Vec<GroupId> = Vec::new();
        for (i, event) in batch.events.iter().enumerate() {
            if event.revision() <= self.revision {
                continue;
            }
            self.index.matching(event, |group| {
                let members = &mut self.members[group];
                if members.synced.is_empty() {
                    return;
                }
                if members.wanted.is_empty() {
                    touched.push(group);
                }
                members.wanted.push(i);
            });
        }
        self.revision = batch.revision;
        for group in touched {
            let wanted = std::mem::take(&mut self.members[group].wanted);
            let events = match wanted.len() == batch.events.len() {
                true => batch.events.clone(),
                false => wanted.iter().map(|i| batch.events[*i].clone()).collect(),
            };
            self.tell_group(group, &events, batch.revision);
        }
    }

    fn tell_group(&mut self, group: GroupId, events: &Arc<[Event]>, revision: Revision) {
        let Some(first) = events.first().map(Event::revision) else { return };
        let weight = weight(events);
        let synced: Vec<Key> = self.members[group].synced.iter().copied().collect();
        for key in synced {
            let next = self.watchers.get(&key).map_or(0, |w| w.next);
            if next <= first {
                self.tell(key, events.clone(), weight, revision);
                continue;
            }
            // It starts, or was told, further on.
            let rest: Arc<[Event]> =
                events.iter().filter(|e| e.revision() >= next).cloned().collect();
            if !rest.is_empty() {
                let weight = self::weight(&rest);
                self.tell(key, rest, weight, revision);
            }
        }
    }

    /// Queues events, or lets the watcher fall behind where there is no room. Tells which.
    fn tell(&mut self, key: Key, events: Arc<[Event]>, weight: usize, revision: Revision) -> bool {
        let (stream, id) = key;
        let Some(first) = events.first().map(Event::revision) else { return true };
        let room = self.streams.get(&stream).is_some_and(|s| {
            s.has_room() || s.queued_bytes.saturating_add(weight) <= s.budget_bytes
        });
        if !room {
            self.place(key, first);
            return false;
        }
        let Some(watcher) = self.watchers.get_mut(&key) else { return true };
        (watcher.quiet, watcher.next) = (false, revision + 1);
        let (prev_kv, fragment) = (watcher.prev_kv, watcher.fragment);
        self.push(stream, weight, Message::Events { id, revision, events, prev_kv, fragment });
        true
    }

    /// The store is at `revision`, however it got there: what was not published is owed.
    pub fn observe(&mut self, revision: Revision) {
        if revision <= self.revision {
            return;
        }
        let owed = self.revision + 1;
        self.revision = revision;
        let synced: Vec<Key> = self.members.iter().flat_map(|m| &m.synced).copied().collect();
        for key in synced {
            let next = self.watchers.get(&key).map_or(owed, |w| w.next.max(owed));
            self.place(key, next);
        }
    }

    /// From which revision history is wanted, if any watcher is behind and has room.
    pub fn wants_history(&self) -> Option<Revision> {
        self.starving.first().map(|(revision, _)| *revision)
    }

    /// Serves the watchers that are owed something within this stretch of history. What is ahead
    /// of the hub is left to the batches to come, so that no watcher gets ahead of progress.
    pub fn feed(&mut self, history: &History) {
        let to = history.to.min(self.revision);
        if to < history.from {
            return;
        }
        let known = history.events.partition_point(|e| e.revision() <= to);
        let known = &history.events[..known];
        let streams: Vec<StreamId> =
            self.starving.range(..=(to, StreamId(u64::MAX))).map(|(_, stream)| *stream).collect();
        // Watchers of a group that are owed the same share one list.
        let mut lists: BTreeMap<(GroupId, Revision), Arc<[Event]>> = BTreeMap::new();
        for stream in streams {
            let Some(s) = self.streams.get(&stream) else { continue };
            let owed = s.behind.range((history.from, WatchId::MIN)..=(to, WatchId::MAX));
            let owed: Vec<(Revision, WatchId)> = owed.copied().collect();
            for (next, id) in owed {
                let Some(group) = self.watchers.get(&(stream, id)).map(|w| w.group) else {
                    continue;
                };
                let index = &self.index;
                let events = lists.entry((group, next)).or_insert_with(|| {
                    let from = known.partition_point(|e| e.revision() < next);
                    let interest = index.interest(group);
                    let wanted = |e: &&Event| interest.is_some_and(|i| i.wants(e));
                    known[from..].iter().filter(wanted).cloned().collect()
                });
                let (events, weight) = (events.clone(), weight(events));
                if self.tell((stream, id), events, weight, to) {
                    self.place((stream, id), to + 1);
                }
            }
        }
    }

    /// History was compacted: whoever is owed more than what is left is cancelled.
    pub fn compacted(&mut self, compacted: Revision) {
        let streams: Vec<StreamId> = self.streams.keys().copied().collect();
        for stream in streams {
            let Some(s) = self.streams.get(&stream) else { continue };
            let lost: Vec<WatchId> =
                s.behind.range(..(compacted, WatchId::MIN)).map(|(_, id)| *id).collect();
            for id in lost {
                if self.canary.sings(Bug::WatchSkipsCompacted) {
                    self.place((stream, id), compacted + 1);
                    continue;
                }
                self.remove(stream, id);
                self.push(stream, 0, Message::Canceled { id, compacted: Some(compacted) });
            }
            self.answer_progress(stream);
        }
    }

    /// Progress is wanted on the whole stream: it comes once none of its watchers is behind.
    pub fn request_progress(&mut self, stream: StreamId) {
        if let Some(s) = self.streams.get_mut(&stream) {
            s.progress_wanted = s.watchers > 0;
            self.answer_progress(stream);
        }
    }

    /// Time has come for the progress of those who want it now and then: the synced ones that
    /// were told nothing since the last time.
    pub fn notify_progress(&mut self, stream: StreamId) {
        for id in self.ids(stream) {
            let Some(watcher) = self.watchers.get_mut(&(stream, id)) else { continue };
            let due = watcher.progress_notify && watcher.place == Place::Synced && watcher.quiet;
            watcher.quiet = true;
            if due {
                let revision = self.revision;
                self.push(stream, 0, Message::Progress { id: Some(id), revision });
            }
        }
    }

    /// The streams that have something queued which they had not when they were last named.
    pub fn take_woken(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.woken).into_iter().collect()
    }

    /// The next message of a stream.
    pub fn take(&mut self, stream: StreamId) -> Option<Message> {
        let s = self.streams.get_mut(&stream)?;
        let (weight, message) = s.queue.pop_front()?;
        s.queued_bytes -= weight;
        self.update_starving(stream);
        Some(message)
    }

    fn push(&mut self, stream: StreamId, weight: usize, message: Message) {
        if let Some(s) = self.streams.get_mut(&stream) {
            s.queued_bytes += weight;
            s.queue.push_back((weight, message));
            self.woken.insert(stream);
            self.update_starving(stream);
        }
    }

    /// The watcher is owed everything from `next` on: puts it among the synced or behind.
    fn place(&mut self, key: Key, next: Revision) {
        let (stream, id) = key;
        let Some(watcher) = self.watchers.get_mut(&key) else { return };
        let Some(s) = self.streams.get_mut(&stream) else { return };
        if let Place::Behind(at) = watcher.place {
            s.behind.remove(&(at, id));
        }
        let caught_up = next > self.revision;
        let was = match caught_up {
            true => std::mem::replace(&mut watcher.place, Place::Synced),
            false => std::mem::replace(&mut watcher.place, Place::Behind(next)),
        };
        watcher.next = next;
        if caught_up {
            if matches!(was, Place::Behind(_)) && self.canary.sings(Bug::WatchSkipsAtResync) {
                watcher.next += 1;
            }
            self.members[watcher.group].synced.insert(key);
        } else {
            self.members[watcher.group].synced.remove(&key);
            s.behind.insert((next, id));
        }
        self.update_starving(stream);
        self.answer_progress(stream);
    }

    fn remove(&mut self, stream: StreamId, id: WatchId) -> bool {
        let Some(watcher) = self.watchers.remove(&(stream, id)) else { return false };
        let members = &mut self.members[watcher.group];
        members.synced.remove(&(stream, id));
        members.count -= 1;
        if members.count == 0 {
            self.index.forget(watcher.group);
        }
        if let Some(s) = self.streams.get_mut(&stream) {
            if let Place::Behind(at) = watcher.place {
                s.behind.remove(&(at, id));
            }
            s.watchers -= 1;
        }
        self.update_starving(stream);
        true
    }

    fn update_starving(&mut self, stream: StreamId) {
        let Some(s) = self.streams.get_mut(&stream) else { return };
        let at = s.behind.first().map(|(next, _)| *next).filter(|_| s.has_room());
        if at == s.starving_at {
            return;
        }
        if let Some(old) = std::mem::replace(&mut s.starving_at, at) {
            self.starving.remove(&(old, stream));
        }
        if let Some(at) = at {
            self.starving.insert((at, stream));
        }
    }

    fn answer_progress(&mut self, stream: StreamId) {
        let Some(s) = self.streams.get_mut(&stream) else { return };
        if s.progress_wanted && s.behind.is_empty() {
            s.progress_wanted = false;
            if s.watchers > 0 {
                let revision = self.revision;
                self.push(stream, 0, Message::Progress { id: None, revision });
            }
        }
    }
}

/// What events count for in a stream's budget, in bytes.
fn weight(events: &[Event]) -> usize {
    let one = |event: &Event| match event {
        Event::Put(kv) => kv.key.len() + kv.value.len() + 64,
        Event::Delete { key, .. } => key.len() + 64,
    };
    events.iter().map(one).sum()
}
