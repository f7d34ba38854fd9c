//! Watchers are told exactly what history says, whatever is slow, skipped, compacted or cut.

use crate::generate::Generator;
use crate::harness::{Replica, b};
use quorate_base::Rng;
use quorate_keyspace::canary::Canary;
use quorate_keyspace::command::{Delete, Put, Txn};
use quorate_keyspace::watch::{Message, StreamId, Watch, WatchError, WatchHub, WatchId};
use quorate_keyspace::{Command, EventBatch, History, KeyspaceError, ReadError};
use quorate_mvcc::{Event, KeyRange, Revision};
use std::collections::{BTreeMap, VecDeque};

const BUDGET_BYTES: usize = 400;

/// What a watcher wants, and what it was told.
struct Seen {
    watch: Watch,
    start: Revision,
    events: Vec<Event>,
    /// Told everything up to here.
    up_to: Revision,
}

impl Seen {
    fn wants(&self, event: &Event) -> bool {
        let kind = match event {
            Event::Put(_) => !self.watch.no_put,
            Event::Delete { .. } => !self.watch.no_delete,
        };
        kind && event.revision() >= self.start && self.watch.range.contains(event.key())
    }
}

/// A node's watchers and clients.
struct World {
    replica: Replica,
    hub: WatchHub,
    rng: Rng,
    generator: Generator,
    /// Published, and not yet come to the hub.
    pending: VecDeque<EventBatch>,
    /// Read from history, and not yet fed.
    reading: Vec<History>,
    seen: BTreeMap<(StreamId, WatchId), Seen>,
    /// What is to come once `Created` does.
    wanted: BTreeMap<(StreamId, WatchId), Watch>,
    compacted_cancels: usize,
    behind: usize,
}

impl World {
    fn new(seed: u64, canary: Canary) -> Self {
        let mut hub = WatchHub::new(1, canary);
        (0..3).for_each(|n| hub.open(StreamId(n), BUDGET_BYTES));
        World {
            replica: Replica::new(canary),
            hub,
            rng: Rng::new(seed),
            generator: Generator::new(seed + 7),
            pending: VecDeque::new(),
            reading: Vec::new(),
            seen: BTreeMap::new(),
            wanted: BTreeMap::new(),
            compacted_cancels: 0,
            behind: 0,
        }
    }

    fn write(&mut self) {
        self.generator.revision = self.replica.keyspace.reader().revision();
        let command = self.generator.command();
        if matches!(command, Command::Compact { .. }) && self.rng.below(3) > 0 {
            return;
        }
        self.replica.run(command);
        self.pending.extend(self.replica.batches.drain(..));
    }

    fn create(&mut self) {
        let revision = self.replica.keyspace.reader().revision();
        let watch = Watch {
            range: self.generator.key_range(),
            start_revision: if self.rng.below(2) == 0 { 0 } else { self.rng.below(revision + 4) },
            no_put: self.rng.below(6) == 0,
            no_delete: self.rng.below(6) == 0,
            prev_kv: false,
            progress_notify: self.rng.below(2) == 0,
            fragment: false,
        };
        let stream = StreamId(self.rng.below(3));
        let id = self.hub.create(stream, None, watch.clone()).unwrap();
        self.wanted.insert((stream, id), watch);
    }

    fn cancel(&mut self) {
        let keys: Vec<_> = self.seen.keys().copied().collect();
        if let Some((stream, id)) = self.rng.pick(&keys).copied() {
            self.hub.cancel(stream, id);
        }
    }

    fn publish(&mut self) {
        match self.rng.below(30) {
            // A snapshot took the place of what was pending.
            0 => {
                self.pending.clear();
                self.hub.observe(self.replica.keyspace.reader().revision());
            }
            // One of them is skipped: the next one tells.
            1 if self.pending.len() > 1 => {
                self.pending.pop_front();
            }
            _ => {
                if let Some(batch) = self.pending.pop_front() {
                    self.hub.publish(&batch);
                }
            }
        }
    }

    fn read_history(&mut self) {
        let Some(from) = self.hub.wants_history() else { return };
        let reader = self.replica.keyspace.reader();
        match reader.history(from, self.rng.below(300) as usize) {
            Ok(history) => self.reading.push(history),
            Err(ReadError::Refused(KeyspaceError::Compacted)) => {
                self.hub.compacted(reader.compacted_revision());
            }
            Err(e) => panic!("{e}"),
        }
    }

    fn feed(&mut self) {
        if !self.reading.is_empty() {
            let history =
                self.reading.swap_remove(self.rng.below(self.reading.len() as u64) as usize);
            self.hub.feed(&history);
        }
    }

    fn take(&mut self, stream: StreamId) -> Result<bool, String> {
        let queued = self.hub.queued_bytes(stream);
        let Some(message) = self.hub.take(stream) else { return Ok(false) };
        let largest = 16 * (BUDGET_BYTES + 64);
        assert!(queued <= BUDGET_BYTES + largest, "{queued} bytes are queued");
        match message {
            Message::Created { id, revision } => {
                let watch = self.wanted.remove(&(stream, id)).unwrap();
                let start =
                    if watch.start_revision == 0 { revision + 1 } else { watch.start_revision };
                let seen = Seen { watch, start, events: Vec::new(), up_to: start - 1 };
                self.seen.insert((stream, id), seen);
            }
            Message::Events { id, revision, events, .. } => {
                let seen = self.seen.get_mut(&(stream, id)).ok_or("events of no watcher")?;
                let first = events.first().ok_or("no events")?.revision();
                if first <= seen.up_to && seen.up_to >= seen.start {
                    return Err(format!("revision {first} comes again or in parts"));
                }
                seen.up_to = revision;
                seen.events.extend_from_slice(&events);
                self.check_up_to(stream, id, revision)?;
            }
            Message::Progress { id, revision } => {
                let ids: Vec<WatchId> = match id {
                    Some(id) => vec![id],
                    None => self.seen.keys().filter(|k| k.0 == stream).map(|k| k.1).collect(),
                };
                for id in ids {
                    self.check_up_to(stream, id, revision)?;
                }
            }
            Message::Canceled { id, compacted } => {
                let compacted_now = self.replica.keyspace.reader().compacted_revision();
                if let Some(compacted) = compacted {
                    assert!(compacted <= compacted_now);
                    self.compacted_cancels += 1;
                }
                let seen = self.seen.remove(&(stream, id)).ok_or("cancelled twice")?;
                self.is_prefix(&seen, seen.up_to)?;
            }
        }
        Ok(true)
    }

    fn check_up_to(&self, stream: StreamId, id: WatchId, up_to: Revision) -> Result<(), String> {
        self.is_prefix(&self.seen[&(stream, id)], up_to)
    }

    /// Whether a watcher was told exactly what it wants up to a revision.
    fn is_prefix(&self, seen: &Seen, up_to: Revision) -> Result<(), String> {
        let wanted = self.replica.events.iter().filter(|e| seen.wants(e) && e.revision() <= up_to);
        if wanted.clone().eq(&seen.events) {
            return Ok(());
        }
        let wanted: Vec<_> = wanted.collect();
        Err(format!("up to {up_to}: told {:?}\n not {wanted:?}", seen.events))
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.below(14) {
            0..=3 => self.write(),
            4 => self.create(),
            5 if self.rng.below(6) == 0 => self.cancel(),
            6 | 7 => self.publish(),
            8 => self.read_history(),
            9 => self.feed(),
            10 => {
                let stream = StreamId(self.rng.below(3));
                match self.rng.below(2) {
                    0 => self.hub.request_progress(stream),
                    _ => self.hub.notify_progress(stream),
                }
            }
            _ => {
                // The third stream is slow.
                let stream = StreamId(self.rng.below(3));
                if stream != StreamId(2) || self.rng.below(20) == 0 {
                    self.take(stream)?;
                }
            }
        }
        self.behind = self.behind.max(self.hub.counts().1);
        Ok(())
    }

    /// Everything settles: every watcher has been told everything.
    fn finish(mut self) -> Result<(usize, usize), String> {
        while let Some(batch) = self.pending.pop_front() {
            self.hub.publish(&batch);
        }
        self.hub.observe(self.replica.keyspace.reader().revision());
        let mut rounds = 0;
        loop {
            self.read_history();
            self.feed();
            let took = (0..3).map(|n| self.take(StreamId(n))).collect::<Result<Vec<_>, _>>()?;
            let quiet = !took.contains(&true) && self.reading.is_empty();
            if quiet && self.hub.wants_history().is_none() {
                break;
            }
            rounds += 1;
            if rounds > 100_000 {
                return Err("it never settles".into());
            }
        }
        if self.hub.counts() != (self.seen.len(), 0) {
            return Err(format!("{:?} watchers, but {} known", self.hub.counts(), self.seen.len()));
        }
        for seen in self.seen.values() {
            self.is_prefix(seen, Revision::MAX)?;
        }
        Ok((self.compacted_cancels, self.behind))
    }
}

/// One random run; tells what went wrong.
pub fn wrong(seed: u64, steps: usize, canary: Canary) -> Result<(usize, usize), String> {
    let mut world = World::new(seed, canary);
    for n in 0..steps {
        world.step().map_err(|e| format!("seed {seed}, step {n}: {e}"))?;
    }
    world.finish().map_err(|e| format!("seed {seed}, at the end: {e}"))
}

#[test]
fn watchers_are_told_what_history_says() {
    let (mut compacted, mut behind) = (0, 0);
    for seed in 0..200 {
        let (c, b) = wrong(seed, 400, Canary::NONE).unwrap();
        compacted += c;
        behind += b;
    }
    assert!(compacted > 100 && behind > 500, "rare cases occurred: {compacted}, {behind}");
}

fn watch(range: KeyRange, start_revision: Revision) -> Watch {
    let (no_put, no_delete, prev_kv) = (false, false, true);
    let (progress_notify, fragment) = (false, true);
    Watch { range, start_revision, no_put, no_delete, prev_kv, progress_notify, fragment }
}

#[test]
fn ids_are_chosen_or_given() {
    let stream = StreamId(1);
    let mut hub = WatchHub::new(1, Canary::NONE);
    let all = || watch(KeyRange::From(b("")), 0);
    assert_eq!(hub.create(stream, None, all()), Err(WatchError::UnknownStream));
    hub.open(stream, 1_000);
    assert_eq!(hub.create(stream, Some(1), all()), Ok(1));
    assert_eq!(hub.create(stream, None, all()), Ok(0));
    assert_eq!(hub.create(stream, None, all()), Ok(2), "one is taken");
    assert_eq!(hub.create(stream, Some(2), all()), Err(WatchError::DuplicateId));
    assert!(hub.cancel(stream, 2) && !hub.cancel(stream, 2));
    assert_eq!(hub.take_woken(), [stream]);
    assert_eq!(hub.take(stream), Some(Message::Created { id: 1, revision: 1 }));
    hub.close(stream);
    assert_eq!((hub.counts(), hub.take(stream)), ((0, 0), None));
}

#[test]
fn a_revision_comes_whole_and_says_what_was_wanted() {
    let mut replica = Replica::new(Canary::NONE);
    let stream = StreamId(1);
    let mut hub = WatchHub::new(1, Canary::NONE);
    hub.open(stream, 1);
    hub.create(stream, Some(5), watch(KeyRange::Between(b("a"), b("c")), 0)).unwrap();
    hub.take(stream);
    let put = |key| Put { key: b(key), value: b("1"), ..Put::default() };
    let put = |key| quorate_keyspace::command::Operation::Put(put(key));
    let success = vec![put("a"), put("b"), put("c")];
    replica.run(Command::Txn(Txn { success, ..Txn::default() }));
    hub.publish(&replica.batches[0]);
    let Some(Message::Events { id: 5, revision: 2, events, prev_kv: true, fragment: true }) =
        hub.take(stream)
    else {
        panic!("events of watcher 5")
    };
    assert_eq!(events.iter().map(Event::key).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(hub.take(stream), None);
}

#[test]
fn manual_progress_waits_for_everyone() {
    let mut replica = Replica::new(Canary::NONE);
    let (slow, empty) = (StreamId(1), StreamId(2));
    let mut hub = WatchHub::new(1, Canary::NONE);
    hub.open(slow, 1_000);
    hub.open(empty, 1_000);
    replica.run(Command::Put(Put { key: b("a"), ..Put::default() }));
    hub.publish(&replica.batches[0]);
    hub.create(slow, None, watch(KeyRange::One(b("a")), 1)).unwrap();
    hub.request_progress(slow);
    hub.request_progress(empty);
    assert_eq!(hub.take(empty), None, "nobody watches");
    assert_eq!(hub.take(slow), Some(Message::Created { id: 0, revision: 2 }));
    assert_eq!(hub.take(slow), None, "not yet");
    let history = replica.keyspace.reader().history(hub.wants_history().unwrap(), 1_000).unwrap();
    hub.feed(&history);
    assert!(matches!(hub.take(slow), Some(Message::Events { .. })));
    assert_eq!(hub.take(slow), Some(Message::Progress { id: None, revision: 2 }));
}

#[test]
fn a_slow_stream_holds_up_nobody_else_and_little_memory() {
    let mut replica = Replica::new(Canary::NONE);
    let (slow, fast) = (StreamId(1), StreamId(2));
    let mut hub = WatchHub::new(1, Canary::NONE);
    for stream in [slow, fast] {
        hub.open(stream, 10_000);
        hub.create(stream, None, watch(KeyRange::From(b("")), 0)).unwrap();
    }
    let mut told = 0;
    for _ in 0..1_000 {
        let value = vec![7; 256].into();
        replica.run(Command::Put(Put { key: b("k"), value, ..Put::default() }));
        hub.publish(&replica.batches.pop().unwrap());
        while let Some(message) = hub.take(fast) {
            told += usize::from(matches!(message, Message::Events { .. }));
        }
        assert!(hub.queued_bytes(slow) <= 10_000);
    }
    assert_eq!((told, hub.counts()), (1_000, (2, 1)));
    replica.run(Command::Delete(Delete { range: KeyRange::One(b("k")), prev_kv: false }));
    hub.publish(&replica.batches.pop().unwrap());
    let mut late = 0;
    loop {
        while let Some(message) = hub.take(slow) {
            if let Message::Events { events, .. } = message {
                late += events.len();
            }
        }
        let Some(from) = hub.wants_history() else { break };
        hub.feed(&replica.keyspace.reader().history(from, 5_000).unwrap());
        assert!(hub.queued_bytes(slow) <= 20_000);
    }
    assert_eq!((late, hub.counts()), (1_001, (2, 0)));
}
