//! A store on some engine beside its model, and the comparison of the two.

use crate::model::Model;
use bytes::Bytes;
use quorate_mvcc::{
    Canary, Change, ChangesRequest, Engine, Error, FjallEngine, FjallSettings, FjallShelf,
    KeyRange, MemoryEngine, RangeRequest, RangeResult, RevisionSub, Source, Store, Table,
};

/// An engine that the tests can close and open again.
pub trait Home {
    type Engine: Engine;
    fn open(&self) -> Self::Engine;
    /// A power failure, after which up to `keep` batches after the last durable are left. Only
    /// where that can be simulated.
    fn crash(&self, keep: u64);
}

pub struct InMemory(pub MemoryEngine);

impl Home for InMemory {
    type Engine = MemoryEngine;
    fn open(&self) -> MemoryEngine {
        self.0.clone()
    }
    fn crash(&self, keep: u64) {
        self.0.crash(keep);
    }
}

pub struct OnDisk(pub tempfile::TempDir);

impl Home for OnDisk {
    type Engine = FjallEngine;
    fn open(&self) -> FjallEngine {
        FjallEngine::open(self.0.path(), FjallSettings::default()).unwrap()
    }
    fn crash(&self, _: u64) {}
}

/// A state among others on a shelf.
pub struct OnShelf(pub tempfile::TempDir);

impl Home for OnShelf {
    type Engine = FjallEngine;
    fn open(&self) -> FjallEngine {
        let shelf = FjallShelf::open(self.0.path(), &FjallSettings::default()).unwrap();
        shelf.engine(7).unwrap()
    }
    fn crash(&self, _: u64) {}
}

#[derive(Clone, Debug)]
pub enum Operation {
    Put {
        key: Bytes,
        value: Bytes,
        lease: i64,
    },
    Delete(KeyRange),
    Meta {
        name: Bytes,
        value: Option<Bytes>,
    },
    /// At this part, in 256ths, of the way from the compacted to the latest revision.
    Compact(u8),
}

/// Operations at one revision, perhaps rolled back.
#[derive(Clone, Debug)]
pub struct Command {
    pub operations: Vec<Operation>,
    pub roll_back: bool,
}

pub struct World<H: Home> {
    pub home: H,
    pub canary: Canary,
    pub store: Option<Store<H::Engine>>,
    /// The model after each applied index, from 0.
    pub models: Vec<Model>,
}

impl<H: Home> World<H> {
    pub fn new(home: H, canary: Canary) -> Self {
        let store = Some(Store::open_with(home.open(), canary).unwrap());
        World { home, canary, store, models: vec![Model::new()] }
    }

    pub fn store(&mut self) -> &mut Store<H::Engine> {
        self.store.as_mut().unwrap()
    }

    pub fn model(&self) -> &Model {
        self.models.last().unwrap()
    }

    pub fn apply(&mut self, batch: &[Command]) {
        let mut model = self.model().clone();
        let applied = self.models.len() as u64;
        let mut txn = self.store().begin();
        for command in batch {
            txn.begin_command();
            let before = model.clone();
            let mut at = RevisionSub { main: model.revision + 1, sub: 0 };
            for operation in &command.operations {
                match operation.clone() {
                    Operation::Put { key, value, lease } => {
                        let was = model.at(u64::MAX).remove(&key);
                        let written = txn.put(key.clone(), value.clone(), lease).unwrap();
                        let previous =
                            written.previous.map(|p| txn.key_value(key.clone(), &p).unwrap());
                        assert_eq!(previous, was);
                        model.put(at, key.clone(), value, lease);
                        let now = txn.key_value(key.clone(), &written.now).unwrap();
                        assert_eq!(Some(now), model.at(u64::MAX).remove(&key));
                        at.sub += 1;
                    }
                    Operation::Delete(range) => {
                        let deleted = txn.delete(&range).unwrap();
                        assert_eq!(deleted.len() as u32, model.delete(at, &range));
                        at.sub += deleted.len() as u32;
                    }
                    Operation::Meta { name, value: Some(value) } => {
                        txn.put_meta(&name, value.clone());
                        model.metas.insert(name, value);
                    }
                    Operation::Meta { name, value: None } => {
                        txn.delete_meta(&name);
                        model.metas.remove(&name);
                    }
                    Operation::Compact(part) => {
                        let span = model.revision - model.compacted;
                        let to = model.compacted + span * u64::from(part) / 256;
                        let outcome = txn.compact(to);
                        assert_eq!(outcome.is_ok(), to > model.compacted);
                        model.compacted = to;
                    }
                }
            }
            if command.roll_back {
                txn.roll_back_command();
                model = before;
            }
            assert_eq!(txn.revision(), model.revision);
            let all = RangeRequest::of(KeyRange::From(Bytes::new()));
            let seen: Vec<_> = txn.range(&all).unwrap().kvs;
            assert_eq!(seen, model.at(u64::MAX).into_values().collect::<Vec<_>>());
        }
        txn.commit(applied).unwrap();
        self.models.push(model);
    }

    pub fn reopen(&mut self) {
        self.store = None;
        self.store = Some(Store::open_with(self.home.open(), self.canary).unwrap());
        let applied = self.store().applied();
        assert!(applied < self.models.len() as u64);
        self.models.truncate(applied as usize + 1);
    }

    pub fn crash(&mut self, keep: u64) {
        self.store = None;
        self.home.crash(keep);
        self.reopen();
    }

    /// Scrubs to the end; then exactly what may be read is left in the engine.
    pub fn scrub_all(&mut self, step: usize) {
        while self.store().scrub(step).unwrap() {}
        let model = self.model().clone();
        let view = self.store().engine().view();
        let count = |table| view.scan(table, &[], None).count();
        let left = model.left(model.compacted);
        assert_eq!(count(Table::History), left.len());
        let keys = model.at(u64::MAX).len();
        assert_eq!((count(Table::Current), count(Table::Index)), (keys, model.indexed(&left)));
    }

    /// Compares all that can be read.
    pub fn check(&mut self, range: &KeyRange, limit: u64) {
        let model = self.model().clone();
        let state = self.store().state();
        assert_eq!(state.revision(), model.revision);
        assert_eq!(state.compacted_revision(), model.compacted);
        assert_eq!(state.logical_bytes(), model.logical_bytes());
        assert_eq!(state.keys(), model.at(u64::MAX).len() as u64);
        for revision in model.compacted..=model.revision + 1 {
            let request = RangeRequest { revision, limit, ..RangeRequest::of(range.clone()) };
            if revision > model.revision {
                let future = Error::Future { requested: revision, current: model.revision };
                assert_eq!(state.range(&request), Err(future));
            } else if revision > 0 {
                let found = state.range(&request).unwrap();
                assert_eq!(found, expected(&model, &request), "at {revision}");
            }
        }
        if model.compacted > 1 {
            let requested = model.compacted - 1;
            let compacted = Error::Compacted { requested, compacted: model.compacted };
            let request = RangeRequest { revision: requested, ..RangeRequest::of(range.clone()) };
            assert_eq!(state.range(&request), Err(compacted));
        }
        self.check_changes(range);
        let metas = self.store().metas(&[]).unwrap();
        assert_eq!(metas, model.metas.into_iter().collect::<Vec<_>>());
    }

    fn check_changes(&mut self, range: &KeyRange) {
        let model = self.model().clone();
        let state = self.store().state();
        let (first, to) = (model.compacted, model.revision);
        let mut changes: Vec<Change> = Vec::new();
        let mut from = Some(first);
        while let Some(revision) = from {
            let range = range.clone();
            let request =
                ChangesRequest { from: revision, to, range, previous: true, max_bytes: 8 };
            let page = state.changes(&request).unwrap();
            assert!(page.next.is_none_or(|next| next > revision));
            changes.extend(page.changes);
            from = page.next;
        }
        let changes: Vec<_> = changes.into_iter().map(|c| (c.event, c.previous)).collect();
        assert_eq!(changes, model.changes(first, to, range));
    }
}

fn expected(model: &Model, request: &RangeRequest) -> RangeResult {
    let keys = model.at(request.revision).into_values();
    let mut kvs: Vec<_> = keys.filter(|kv| request.range.contains(&kv.key)).collect();
    let count = kvs.len() as u64;
    if request.limit > 0 {
        kvs.truncate(request.limit as usize);
    }
    RangeResult { more: (kvs.len() as u64) < count, kvs, count, revision: model.revision }
}
