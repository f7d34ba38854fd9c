//! Many states in one database: apart from each other, replaced and removed one by one.

use bytes::Bytes;
use quorate_mvcc::{
    Error, FjallEngine, FjallSettings, FjallShelf, KeyRange, MemoryEngine, RangeRequest, Store,
};
use std::path::Path;

fn open(path: &Path) -> FjallShelf {
    FjallShelf::open(path, &FjallSettings::default()).unwrap()
}

fn put(store: &mut Store<FjallEngine>, index: u64, value: &str) {
    let mut txn = store.begin();
    txn.begin_command();
    txn.put(Bytes::from_static(b"key"), Bytes::copy_from_slice(value.as_bytes()), 0).unwrap();
    txn.commit(index).unwrap();
}

fn fingerprint(value: Option<&str>) -> u64 {
    let mut store = Store::open(MemoryEngine::new()).unwrap();
    if let Some(value) = value {
        let mut txn = store.begin();
        txn.begin_command();
        txn.put(Bytes::from_static(b"key"), Bytes::copy_from_slice(value.as_bytes()), 0).unwrap();
        txn.commit(5).unwrap();
    }
    store.state().hash().unwrap()
}

fn found(shelf: &FjallShelf, place: u64) -> u64 {
    Store::open(shelf.engine(place).unwrap()).unwrap().state().hash().unwrap()
}

#[test]
fn states_are_apart_and_one_goes_without_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = open(dir.path());
    for place in [1, 2, u64::MAX] {
        let mut store = Store::open(shelf.engine(place).unwrap()).unwrap();
        put(&mut store, 5, &format!("of {place}"));
    }
    shelf.persist().unwrap();
    drop(shelf);
    let shelf = open(dir.path());
    assert_eq!(found(&shelf, 1), fingerprint(Some("of 1")));
    assert_eq!(found(&shelf, u64::MAX), fingerprint(Some("of 18446744073709551615")));
    assert_eq!(shelf.places(), Ok(vec![1, 2, u64::MAX]));
    shelf.remove(2).unwrap();
    assert_eq!(shelf.places(), Ok(vec![1, u64::MAX]));
    shelf.remove(9).unwrap();
    // Whatever is left of it: who comes to its place finds nothing, before and after the sweep.
    assert_eq!(found(&shelf, 2), fingerprint(None));
    drop(shelf);
    let shelf = open(dir.path());
    assert_eq!(found(&shelf, 2), fingerprint(None));
    let mut sweeps = 0;
    while shelf.sweep().unwrap() {
        sweeps += 1;
    }
    assert!(sweeps < 9);
    drop(shelf);
    let shelf = open(dir.path());
    assert!(!shelf.sweep().unwrap(), "nothing is left");
    assert_eq!(found(&shelf, 2), fingerprint(None));
    assert_eq!(found(&shelf, 1), fingerprint(Some("of 1")));
}

#[test]
fn what_an_interrupted_snapshot_left_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = open(dir.path());
    let mut source = Store::open(shelf.engine(3).unwrap()).unwrap();
    put(&mut source, 5, "a value");
    let store = Store::open(shelf.engine(4).unwrap()).unwrap();
    let (mut snapshot, mut receiver) = (source.snapshot(), store.receive().unwrap());
    receiver.write_chunk(snapshot.next_chunk(1).unwrap().unwrap()).unwrap();
    shelf.persist().unwrap();
    // The process dies: nobody lets go of anything.
    std::mem::forget(receiver);
    drop((source, store));
    let copy = tempfile::tempdir().unwrap();
    copy_tree(dir.path(), copy.path());
    let shelf = open(copy.path());
    assert!(!shelf.sweep().unwrap(), "one sweep is enough");
    assert_eq!(found(&shelf, 4), fingerprint(None));
    assert_eq!(found(&shelf, 3), fingerprint(Some("a value")));
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => std::fs::copy(entry.path(), target).map(drop).unwrap(),
        }
    }
}

/// The keys go a piece at a time, and somebody else's may come to their place: a reader that is
/// left must not see half of them, or those.
#[test]
fn who_reads_what_was_removed_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = open(dir.path());
    let mut store = Store::open(shelf.engine(1).unwrap()).unwrap();
    put(&mut store, 5, "mine");
    let (reader, all) = (store.reader(), RangeRequest::of(KeyRange::From(Bytes::new())));
    let before = reader.state();
    drop(store);
    shelf.remove(1).unwrap();
    while shelf.sweep().unwrap() {}
    put(&mut Store::open(shelf.engine(1).unwrap()).unwrap(), 5, "another's");
    assert_eq!(reader.range(&all), Err(Error::Closed));
    assert_eq!(before.range(&all).unwrap().kvs[0].value, "mine", "a read that began before");
}
