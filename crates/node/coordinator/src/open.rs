//! The open records as this node's replica has them, kept in memory: they are looked at many times
//! a second, and where they are kept, what has ended long since lies between them.
//!
//! Invariant: once loaded, what is here is what the replica has, as of the last batch of entries
//! that it applied.

use crate::store::{Store, StoreError};
use bytes::Bytes;
use parking_lot::Mutex;
use quorate_host::{KeyspaceHandle, Subscriber};
use quorate_keyspace::EventBatch;
use quorate_mvcc::{Event, Revision};
use quorate_transactions::Record;
use quorate_transactions::records::{Kept, OPEN};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

#[derive(Default)]
struct State {
    loaded: bool,
    records: BTreeMap<String, (Bytes, Revision)>,
    /// While it is not loaded: whose changes were heard of.
    heard: BTreeSet<String>,
}

#[derive(Default)]
struct Ear {
    state: Mutex<State>,
    /// The replica's state was replaced.
    jumped: AtomicBool,
}

impl Subscriber<EventBatch> for Ear {
    fn publish(&self, publications: &[EventBatch]) {
        let mut state = self.state.lock();
        for event in publications.iter().flat_map(|batch| &*batch.events) {
            let Some(id) = event.key().strip_prefix(OPEN.as_bytes()) else { continue };
            let id = String::from_utf8_lossy(id).into_owned();
            if !state.loaded {
                state.heard.insert(id.clone());
            }
            match event {
                Event::Put(kv) => {
                    state.records.insert(id, (kv.value.clone(), kv.mod_revision));
                }
                Event::Delete { .. } => {
                    state.records.remove(&id);
                }
            }
        }
    }

    fn jump(&self) {
        self.jumped.store(true, Relaxed);
    }
}

/// See the module.
pub(crate) struct Open {
    /// Whom it hears.
    of: Option<KeyspaceHandle>,
    ear: Arc<Ear>,
    /// How many are loaded at a time.
    page: u64,
}

impl Open {
    /// Nothing yet; so many will be loaded at a time.
    pub fn new(page: u64) -> Open {
        Open { of: None, ear: Arc::default(), page: page.max(1) }
    }

    /// Hears the replica of the records, and loads what it has, if that is still to be done.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn follow(&mut self, store: &Store) -> Result<(), StoreError> {
        if self.of.as_ref().is_none_or(KeyspaceHandle::is_closed) {
            self.ear = Arc::default();
            let ear: Arc<dyn Subscriber<EventBatch>> = self.ear.clone();
            store.0.subscribe(&ear);
            self.of = Some(store.0.clone());
        }
        if self.ear.jumped.swap(false, Relaxed) {
            *self.ear.state.lock() = State::default();
        }
        if self.ear.state.lock().loaded {
            return Ok(());
        }
        let mut after = String::new();
        loop {
            let page = store.list_raw(OPEN, &after, self.page)?;
            let more = page.len() as u64 == self.page;
            if let Some((last, ..)) = page.last() {
                after.clone_from(last);
            }
            let mut state = self.ear.state.lock();
            for (id, value, revision) in page {
                // What was heard meanwhile is newer, or the same.
                if !state.heard.contains(&id) {
                    state.records.insert(id, (value, revision));
                }
            }
            if !more {
                break;
            }
        }
        let mut state = self.ear.state.lock();
        state.heard.clear();
        state.loaded = true;
        Ok(())
    }

    /// The ids of all of them, in order.
    pub fn ids(&self) -> Vec<String> {
        self.ear.state.lock().records.keys().cloned().collect()
    }

    /// All of them, as their bytes.
    pub fn all(&self) -> Vec<(String, Bytes)> {
        let state = self.ear.state.lock();
        state.records.iter().map(|(id, (value, _))| (id.clone(), value.clone())).collect()
    }

    /// One of them, if it is still open. A record that cannot be read is passed over.
    pub fn get(&self, id: &str) -> Option<Kept> {
        let (value, revision) = self.ear.state.lock().records.get(id).cloned()?;
        match Record::decode(value) {
            Ok(record) => Some((record, revision)),
            Err(error) => {
                tracing::error!(id, %error, "cannot read a transaction's record");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::{Alone, eventually};

    #[test]
    fn as_many_pages_are_loaded_as_there_are() {
        let world = Alone::start();
        for (n, page) in [(0, 4), (1, 4), (4, 4), (9, 4)] {
            world.begin_records(n);
            let mut open = Open::new(page);
            open.follow(&world.store).unwrap();
            assert_eq!(open.ids(), world.ids(), "{n} more, in pages of {page}");
        }
        // What comes and goes later is heard of, and nothing is loaded again.
        let mut open = Open::new(4);
        open.follow(&world.store).unwrap();
        world.begin_records(1);
        eventually("the new one is heard of", || open.ids() == world.ids());
        assert_eq!(open.ids().len(), 15);
        assert!(open.ids().iter().all(|id| open.get(id).is_some()));
    }
}
