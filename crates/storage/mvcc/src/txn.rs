//! One batch of commands being applied.
//!
//! Invariant: nothing is visible to readers, nor in the engine, before [`WriteTxn::commit`]; then
//! all of it is, together with the applied index.

use crate::engine::{Engine, Source, Table};
use crate::error::Error;
use crate::format::{
    HEADER_NAME, Header, Latest, MAX_KEY_BYTES, PutRecord, Record, history_key, index_key,
    read_latest, service_name, version_bytes, write_index_value, write_latest, write_record,
};
use crate::key_value::{Event, KeyMeta, KeyRange, KeyValue, LeaseId, Revision, RevisionSub};
use crate::overlay::Overlay;
use crate::reader::{RangeRequest, RangeResult, range};
use crate::store::Store;
use crate::versions;
use bytes::Bytes;
use quorate_base::Index;
use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher};

/// What a put did to the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// What the key was, if it was. Its value is had from [`WriteTxn::value`].
    pub previous: Option<KeyMeta>,
    /// What it is now.
    pub now: KeyMeta,
}

/// A batch of commands being applied. Dropped without a commit it leaves no trace.
pub struct WriteTxn<'a, E: Engine> {
    store: &'a mut Store<E>,
    overlay: Overlay<E::View>,
    header: Header,
    /// The header as it was when the command began.
    before_command: Header,
    /// Number of the command's next change.
    sub: u32,
    /// Keys that the engine does not have: what is to be new is compared first, and made then.
    absent: RefCell<HashSet<Vec<u8>, BuildHasherDefault<DefaultHasher>>>,
    events: Vec<Event>,
    events_before_command: usize,
}

impl<'a, E: Engine> WriteTxn<'a, E> {
    pub(crate) fn new(store: &'a mut Store<E>) -> Self {
        let header = store.header().clone();
        let overlay = Overlay::new(store.view());
        WriteTxn {
            store,
            overlay,
            before_command: header.clone(),
            header,
            sub: 0,
            absent: RefCell::default(),
            events: Vec::with_capacity(64),
            events_before_command: 0,
        }
    }

    /// The next command begins: its first change makes a new revision, and
    /// [`WriteTxn::roll_back_command`] goes back to here.
    pub fn begin_command(&mut self) {
        self.overlay.mark();
        self.before_command = self.header.clone();
        self.sub = 0;
        self.events_before_command = self.events.len();
    }

    /// Within the command, what follows makes another revision, if it changes anything.
    pub fn next_revision(&mut self) {
        self.sub = 0;
    }

    /// Undoes all that was done since the command began.
    pub fn roll_back_command(&mut self) {
        self.overlay.undo();
        self.header = self.before_command.clone();
        self.sub = 0;
        self.events.truncate(self.events_before_command);
    }

    /// The latest revision, this command's changes included.
    pub fn revision(&self) -> Revision {
        self.header.revision
    }

    /// The oldest revision that can be read.
    pub fn compacted_revision(&self) -> Revision {
        self.header.compacted
    }

    /// The bytes of the versions that can be read, the same on every replica.
    pub fn logical_bytes(&self) -> u64 {
        self.header.logical_bytes()
    }

    /// How many keys there are.
    pub fn keys(&self) -> u64 {
        self.header.keys
    }

    /// What is known of a key now.
    pub fn get(&self, key: &[u8]) -> Result<Option<KeyMeta>, Error> {
        Ok(self.look_up(key, true)?.map(|l| l.meta))
    }

    fn latest(&self, key: &[u8]) -> Result<Option<Latest>, Error> {
        self.look_up(key, false)
    }

    /// Whether it is `asked` for: then it may be written next.
    fn look_up(&self, key: &[u8], asked: bool) -> Result<Option<Latest>, Error> {
        if let Some(pending) = self.overlay.pending(Table::Current, key) {
            return pending.map(read_latest).transpose();
        }
        if let Some(known) = self.store.recent().get(key) {
            return Ok(known);
        }
        let mut absent = self.absent.borrow_mut();
        if absent.contains(key) {
            return Ok(None);
        }
        let found = versions::latest(&self.overlay, key)?;
        if asked && found.is_none() {
            absent.insert(key.to_vec());
        }
        Ok(found)
    }

    /// The value of a version of a key.
    pub fn value(&self, meta: &KeyMeta) -> Result<Bytes, Error> {
        versions::value(&self.overlay, meta.at)
    }

    /// A version of a key with its value.
    pub fn key_value(&self, key: Bytes, meta: &KeyMeta) -> Result<KeyValue, Error> {
        Ok(meta.with(key, self.value(meta)?))
    }

    /// Reads keys as of now, or as of an old revision, as [`crate::Reader::range`] does.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResult, Error> {
        range(&self.overlay, &self.header, request, self.store.canary())
    }

    /// Shows `visit` the keys of `range` as of now, ascending, without their values.
    pub fn visit(
        &self,
        range: &KeyRange,
        visit: impl FnMut(Bytes, KeyMeta) -> versions::Visit,
    ) -> Result<(), Error> {
        versions::visit(&self.overlay, range, None, self.store.canary(), visit)
    }

    /// The place of the next change; the command's first one makes a revision.
    fn next_place(&mut self) -> RevisionSub {
        if self.sub == 0 {
            self.header.revision += 1;
        }
        let at = RevisionSub { main: self.header.revision, sub: self.sub };
        self.sub += 1;
        at
    }

    /// The revision of what the command changes, made by this if by nothing before: for what is
    /// kept beside the keys and has to be told from what was there at an earlier revision.
    pub fn take_revision(&mut self) -> Revision {
        self.next_place().main
    }

    /// The index entry of a change that superseded `previous`.
    fn set_index(&mut self, key: &Bytes, at: RevisionSub, previous: RevisionSub) {
        let encoded = Bytes::from(index_key(key, at));
        self.overlay.set(Table::Index, encoded, Some(write_index_value(previous)));
    }

    /// Writes one key.
    pub fn put(&mut self, key: Bytes, value: Bytes, lease: LeaseId) -> Result<Written, Error> {
        let value_bytes = value_length(&value)?;
        if key.len() > MAX_KEY_BYTES {
            return Err(Error::KeyTooLong { bytes: key.len() });
        }
        let superseded = self.latest(&key)?;
        let previous = superseded.map(|l| l.meta);
        let at = self.next_place();
        match &previous {
            Some(p) => self.header.superseded_bytes += version_bytes(&key, p.value_bytes),
            None => self.header.keys += 1,
        }
        let now = KeyMeta {
            at,
            create_revision: previous.map_or(at.main, |p| p.create_revision),
            version: previous.map_or(1, |p| p.version + 1),
            lease,
            value_bytes,
        };
        let latest = Latest::after(superseded, now);
        if let Some(previous) = previous.filter(|_| latest.is_indexed()) {
            self.set_index(&key, at, previous.at);
        }
        self.header.written_bytes += version_bytes(&key, value_bytes);
        let (create_revision, version) = (now.create_revision, now.version);
        let record = Record {
            put: Some(PutRecord { create_revision, version, lease, value: value.clone() }),
            key: key.clone(),
            previous: previous.map(|p| p.at),
            previous_is_indexed: superseded.is_some_and(|l| l.is_indexed()),
            superseded_bytes: self.header.superseded_bytes,
        };
        self.push_history(at, &record);
        self.overlay.set(Table::Current, key.clone(), Some(write_latest(&latest)));
        self.events.push(Event::Put(now.with(key, value)));
        Ok(Written { previous, now })
    }

    fn push_history(&mut self, at: RevisionSub, record: &Record) {
        let key = Bytes::copy_from_slice(&history_key(at));
        self.overlay.push_history(key, write_record(record));
    }

    /// Deletes keys; what they were, ascending.
    pub fn delete(&mut self, range: &KeyRange) -> Result<Vec<(Bytes, KeyMeta)>, Error> {
        let found = self.latest_of(range)?;
        for (key, superseded) in &found {
            let previous = &superseded.meta;
            let at = self.next_place();
            self.header.superseded_bytes += version_bytes(key, previous.value_bytes);
            // The deletion itself is gone, too, once it is compacted.
            self.header.written_bytes += version_bytes(key, 0);
            self.header.superseded_bytes += version_bytes(key, 0);
            self.header.keys -= 1;
            let record = Record {
                put: None,
                key: key.clone(),
                previous: Some(previous.at),
                previous_is_indexed: superseded.is_indexed(),
                superseded_bytes: self.header.superseded_bytes,
            };
            self.push_history(at, &record);
            self.set_index(key, at, previous.at);
            self.overlay.set(Table::Current, key.clone(), None);
            self.events.push(Event::Delete { key: key.clone(), revision: at.main });
        }
        Ok(found.into_iter().map(|(key, latest)| (key, latest.meta)).collect())
    }

    /// The keys of a range, ascending.
    fn latest_of(&self, range: &KeyRange) -> Result<Vec<(Bytes, Latest)>, Error> {
        if let KeyRange::One(key) = range {
            let found = self.latest(key)?;
            return Ok(found.map(|latest| (key.clone(), latest)).into_iter().collect());
        }
        let (from, to) = range.bounds();
        let pairs = self.overlay.scan(Table::Current, &from, to.as_deref());
        pairs.map(|pair| pair.and_then(|(key, value)| Ok((key, read_latest(value)?)))).collect()
    }

    /// Makes `revision` the oldest that can be read. What that frees is physically removed by
    /// [`Store::scrub`]. Not undone by [`WriteTxn::roll_back_command`] alone: begin a command.
    pub fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        if revision <= self.header.compacted {
            let compacted = self.header.compacted;
            return Err(Error::Compacted { requested: revision, compacted });
        }
        if revision > self.header.revision {
            let current = self.header.revision;
            return Err(Error::Future { requested: revision, current });
        }
        // The last change up to there knows how much was superseded; the revision itself may have
        // none. What an earlier compaction knew may be removed.
        let to = history_key(RevisionSub { main: revision + 1, sub: 0 });
        let last = self.overlay.scan_back(Table::History, &[], Some(&to)).next();
        if let Some((_, value)) = last.transpose()? {
            let superseded = crate::format::read_record(value)?.superseded_bytes;
            self.header.compacted_bytes = self.header.compacted_bytes.max(superseded);
        }
        self.header.compacted = revision;
        Ok(())
    }

    /// A named record of the service.
    pub fn meta(&self, name: &[u8]) -> Result<Option<Bytes>, Error> {
        self.overlay.get(Table::Meta, &service_name(name))
    }

    /// Writes a named record of the service.
    pub fn put_meta(&mut self, name: &[u8], value: Bytes) {
        self.overlay.set(Table::Meta, service_name(name), Some(value));
    }

    /// Removes a named record of the service.
    pub fn delete_meta(&mut self, name: &[u8]) {
        self.overlay.set(Table::Meta, service_name(name), None);
    }

    /// Takes the events of the batch so far, in order: what watchers are told after the commit.
    /// Call it between commands only.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events_before_command = 0;
        std::mem::take(&mut self.events)
    }

    /// Writes everything in one atomic batch with the index of the last applied entry, and shows
    /// it to readers. Not durable before the next persist.
    pub fn commit(mut self, applied: Index) -> Result<(), Error> {
        self.header.applied = applied;
        let name = Bytes::from_static(HEADER_NAME);
        self.overlay.set(Table::Meta, name, Some(self.header.encode()));
        let (batch, before) = self.overlay.into_batch();
        self.store.write(batch, before, self.header)
    }
}

fn value_length(value: &Bytes) -> Result<u32, Error> {
    u32::try_from(value.len()).map_err(|_| Error::Full("a value of over 4 GiB".into()))
}

#[cfg(test)]
mod tests {
    use crate::{Error, Event, KeyRange, MemoryEngine, RangeRequest, Store};
    use bytes::Bytes;

    fn b(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn a_command_may_make_several_revisions_and_is_undone_whole() {
        let mut store = Store::open(MemoryEngine::new()).unwrap();
        let mut txn = store.begin();
        for undone in [true, false] {
            txn.begin_command();
            for value in ["1", "2"] {
                txn.next_revision();
                // One that changes nothing makes none.
                txn.next_revision();
                txn.put(b("k"), b(value), 0).unwrap();
            }
            assert_eq!(txn.revision(), 3);
            if undone {
                txn.roll_back_command();
                assert_eq!((txn.revision(), txn.get(b"k").unwrap()), (1, None));
            }
        }
        let now = txn.get(b"k").unwrap().unwrap();
        assert_eq!((now.create_revision, now.at.main, now.version), (2, 3, 2));
        assert_eq!(txn.take_events().len(), 2);
    }

    #[test]
    fn a_revision_may_be_taken_for_something_beside_the_keys() {
        let mut store = Store::open(MemoryEngine::new()).unwrap();
        let mut txn = store.begin();
        for value in ["1", "2"] {
            txn.begin_command();
            txn.put(b("k"), b(value), 0).unwrap();
        }
        txn.begin_command();
        assert_eq!(txn.take_revision(), 4);
        assert_eq!((txn.take_revision(), txn.revision()), (4, 4));
        let before = txn.logical_bytes();
        txn.begin_command();
        txn.compact(4).unwrap();
        assert_eq!(txn.logical_bytes() * 2, before, "one of two is left");
        txn.begin_command();
        txn.put(b("k"), b("3"), 0).unwrap();
        txn.begin_command();
        txn.compact(5).unwrap();
        assert_eq!(txn.logical_bytes() * 2, before);
    }

    #[test]
    fn a_batch_sees_itself_and_readers_see_it_whole_or_not_at_all() {
        let mut store = Store::open(MemoryEngine::new()).unwrap();
        let reader = store.reader();
        let mut txn = store.begin();
        txn.begin_command();
        assert_eq!(txn.put(b("a"), b("1"), 0).unwrap().previous, None);
        txn.begin_command();
        let written = txn.put(b("a"), b("2"), 7).unwrap();
        assert_eq!(txn.value(&written.previous.unwrap()).unwrap(), b("1"));
        assert_eq!((written.now.version, written.now.at.main, txn.revision()), (2, 3, 3));
        assert_eq!(reader.revision(), 1);
        txn.commit(5).unwrap();
        let all = RangeRequest::of(KeyRange::From(Bytes::new()));
        let now = reader.range(&all).unwrap();
        assert_eq!((now.revision, now.count, now.kvs[0].value.clone()), (3, 1, b("2")));
        let old = reader.range(&RangeRequest { revision: 2, ..all.clone() }).unwrap();
        assert_eq!((old.kvs[0].value.clone(), old.kvs[0].version), (b("1"), 1));
        let future = reader.range(&RangeRequest { revision: 4, ..all });
        assert_eq!(future, Err(Error::Future { requested: 4, current: 3 }));
        assert_eq!(store.applied(), 5);
    }

    #[test]
    fn a_command_rolled_back_leaves_no_trace() {
        let mut store = Store::open(MemoryEngine::new()).unwrap();
        let mut txn = store.begin();
        txn.begin_command();
        txn.put(b("a"), b("1"), 0).unwrap();
        let (bytes, keys) = (txn.logical_bytes(), txn.keys());
        txn.begin_command();
        txn.put(b("a"), b("2"), 0).unwrap();
        txn.put(b("b"), b("2"), 0).unwrap();
        txn.delete(&KeyRange::One(b("a"))).unwrap();
        txn.put_meta(b"m", b("x"));
        txn.roll_back_command();
        assert_eq!((txn.logical_bytes(), txn.keys(), txn.revision()), (bytes, keys, 2));
        assert_eq!(txn.meta(b"m").unwrap(), None);
        assert_eq!(txn.get(b"b").unwrap(), None);
        assert_eq!(txn.get(b"a").unwrap().unwrap().version, 1);
        let events = txn.take_events();
        assert!(matches!(&events[..], [Event::Put(kv)] if kv.value == b("1")), "{events:?}");
        txn.begin_command();
        assert!(txn.delete(&KeyRange::One(b("none"))).unwrap().is_empty());
        assert_eq!(txn.revision(), 2, "deleting nothing makes no revision");
        txn.commit(1).unwrap();
    }
}
