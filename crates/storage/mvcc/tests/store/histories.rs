//! Cases worth naming, on both engines.

use crate::random::everything;
use crate::world::{Command, Home, InMemory, OnDisk, Operation, World};
use bytes::Bytes;
use quorate_mvcc::{
    Canary, ChangesRequest, Engine, Error, FjallEngine, FjallSettings, KeyRange, MemoryEngine,
    RangeRequest, Source, Store, Table,
};

fn put(key: &str, value: &str) -> Command {
    let text = |t: &str| Bytes::copy_from_slice(t.as_bytes());
    let operation = Operation::Put { key: text(key), value: text(value), lease: 0 };
    Command { operations: vec![operation], roll_back: false }
}

fn one(operation: Operation) -> Command {
    Command { operations: vec![operation], roll_back: false }
}

fn on_both(test: impl Fn(&mut dyn Steps)) {
    test(&mut World::new(InMemory(MemoryEngine::new()), Canary::NONE));
    test(&mut World::new(OnDisk(tempfile::tempdir().unwrap()), Canary::NONE));
}

/// What the cases need of a world, whatever its engine.
trait Steps {
    fn apply(&mut self, batch: &[Command]);
    fn check(&mut self);
    fn scrub_all(&mut self);
    fn reopen(&mut self);
    fn left(&mut self) -> usize;
}

impl<H: Home> Steps for World<H> {
    fn apply(&mut self, batch: &[Command]) {
        World::apply(self, batch);
    }
    fn check(&mut self) {
        World::check(self, &everything(), 0);
    }
    fn scrub_all(&mut self) {
        World::scrub_all(self, 1);
    }
    fn reopen(&mut self) {
        World::reopen(self);
    }
    fn left(&mut self) -> usize {
        let model = self.model();
        model.left(model.compacted).len()
    }
}

#[test]
fn a_key_with_many_versions_is_jumped_over_at_an_old_revision() {
    on_both(|world| {
        world.apply(&[put("a", "0"), put("m", "0"), put("z", "0")]);
        let many: Vec<Command> = (1..=40).map(|n| put("m", &n.to_string())).collect();
        world.apply(&many);
        world.apply(&[one(Operation::Delete(KeyRange::One(Bytes::from_static(b"m"))))]);
        world.check();
    });
}

#[test]
fn hot_keys_are_found_at_every_revision_through_compaction() {
    on_both(|world| {
        for round in 0..6 {
            for n in 0..24 {
                let value = format!("{round} {n}");
                world.apply(&[put("hot", &value), put("hot\0", &value)]);
            }
            if round == 3 {
                world.apply(&[one(Operation::Delete(KeyRange::One(Bytes::from_static(b"hot"))))]);
                world.check();
            }
        }
        world.check();
        world.reopen();
        world.apply(&[one(Operation::Compact(100))]);
        world.check();
        world.scrub_all();
        world.check();
        world.apply(&[one(Operation::Compact(200))]);
        world.scrub_all();
        world.check();
    });
}

#[test]
fn a_walk_over_large_values_is_short() {
    let mut store = Store::open(MemoryEngine::new()).unwrap();
    let key = Bytes::from_static(b"large");
    for n in 0..=8u8 {
        let mut txn = store.begin();
        txn.begin_command();
        txn.put(key.clone(), Bytes::from(vec![n; 64 << 10]), 0).unwrap();
        txn.commit(u64::from(n) + 1).unwrap();
    }
    // Every version but the first: from each one, the one before is one step away.
    assert_eq!(store.engine().view().scan(Table::Index, &[], None).count(), 8);
    for n in 0..=8u8 {
        let request = RangeRequest { revision: u64::from(n) + 2, ..RangeRequest::of(everything()) };
        assert_eq!(store.reader().range(&request).unwrap().kvs[0].value[0], n);
    }
}

#[test]
fn deleted_and_compacted_keys_disappear() {
    on_both(|world| {
        world.apply(&[put("a", "1"), put("b", "1"), put("a", "2")]);
        world.apply(&[one(Operation::Delete(everything())), put("c", "1"), put("c", "2")]);
        world.apply(&[one(Operation::Compact(255))]);
        world.reopen();
        world.scrub_all();
        world.check();
        assert!(world.left() <= 2, "the compacted revision and the one after");
    });
}

#[test]
fn a_change_at_the_compacted_revision_can_be_watched() {
    let mut store = Store::open(MemoryEngine::new()).unwrap();
    let key = Bytes::from_static(b"k");
    let mut txn = store.begin();
    txn.begin_command();
    txn.put(key.clone(), Bytes::from_static(b"v"), 0).unwrap();
    txn.begin_command();
    assert_eq!(txn.delete(&KeyRange::One(key.clone())).unwrap().len(), 1);
    txn.begin_command();
    txn.compact(3).unwrap();
    assert_eq!(txn.compact(3), Err(Error::Compacted { requested: 3, compacted: 3 }));
    assert_eq!(txn.compact(4), Err(Error::Future { requested: 4, current: 3 }));
    txn.commit(1).unwrap();
    while store.scrub(10).unwrap() {}
    let request = |from| ChangesRequest {
        from,
        to: 3,
        range: KeyRange::One(key.clone()),
        previous: true,
        max_bytes: 1,
    };
    let reader = store.reader();
    assert_eq!(reader.changes(&request(3)).unwrap().changes.len(), 1);
    assert_eq!(reader.changes(&request(2)), Err(Error::Compacted { requested: 2, compacted: 3 }));
}

#[test]
fn keys_have_a_limit_and_keys_only_leaves_values_out() {
    let mut store = Store::open(MemoryEngine::new()).unwrap();
    let mut txn = store.begin();
    txn.begin_command();
    let long = Bytes::from(vec![0; quorate_mvcc::MAX_KEY_BYTES + 1]);
    let refused = txn.put(long.clone(), Bytes::new(), 0);
    assert_eq!(refused, Err(Error::KeyTooLong { bytes: long.len() }));
    txn.put(long.slice(1..), Bytes::from_static(b"value"), 0).unwrap();
    txn.commit(1).unwrap();
    let request = RangeRequest { keys_only: true, ..RangeRequest::of(everything()) };
    let found = store.reader().range(&request).unwrap();
    assert_eq!((found.kvs[0].key.len(), found.kvs[0].value.len()), (long.len() - 1, 0));
}

#[test]
fn a_failed_sync_poisons_until_the_restart() {
    let engine = MemoryEngine::new();
    let mut store = Store::open(engine.clone()).unwrap();
    store.begin().commit(1).unwrap();
    engine.fail_next_persist();
    assert!(matches!(store.persister()(), Err(Error::Disk(_))));
    assert_eq!(store.persister()(), Err(Error::Poisoned));
    assert_eq!(store.begin().commit(2), Err(Error::Poisoned));
    engine.crash(0);
    let mut store = Store::open(engine).unwrap();
    assert_eq!(store.applied(), 0);
    store.begin().commit(1).unwrap();
    assert_eq!(store.persister()(), Ok(1));
}

#[test]
fn a_directory_in_use_or_damaged_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = || FjallEngine::open(dir.path(), FjallSettings::default());
    let engine = open().unwrap();
    let mut store = Store::open(engine).unwrap();
    store.begin().commit(1).unwrap();
    assert!(matches!(open(), Err(Error::Disk(why)) if why.contains("another process")));
    drop(store);
    std::fs::remove_file(dir.path().join("CURRENT")).unwrap();
    assert!(matches!(open(), Err(Error::Corrupt(why)) if why.contains("CURRENT is missing")));
    std::fs::write(dir.path().join("CURRENT"), "quorate-state 1 9\n").unwrap();
    assert!(matches!(open(), Err(Error::Corrupt(why)) if why.contains("state-9 is missing")));
    std::fs::write(dir.path().join("CURRENT"), "quorate-state 1 1\n").unwrap();
    std::fs::create_dir(dir.path().join("state-2")).unwrap();
    assert_eq!(Store::open(open().unwrap()).unwrap().applied(), 1);
    assert!(!dir.path().join("state-2").exists(), "leftovers are removed");
}

#[test]
fn an_engine_keeps_what_a_view_sees_and_forgets_it_afterwards() {
    let engine = MemoryEngine::new();
    let mut store = Store::open(engine.clone()).unwrap();
    let state = store.state();
    let before = state.hash();
    for n in 1..100u64 {
        let mut txn = store.begin();
        txn.put_meta(b"n", Bytes::from(vec![0; 1000]));
        txn.commit(n).unwrap();
    }
    assert_eq!(state.hash(), before);
    store.persister()().unwrap();
    assert!(engine.disk_bytes() > 90_000, "{}", engine.disk_bytes());
    drop(state);
    store.begin().commit(100).unwrap();
    assert!(engine.disk_bytes() < 5_000, "{}", engine.disk_bytes());
}
