//! Readers beside a writer: every read is of one revision, whole.

use crate::world::{Home, InMemory, OnDisk};
use bytes::Bytes;
use quorate_mvcc::{
    ChangesRequest, Engine, Error, KeyRange, MemoryEngine, RangeRequest, Reader, Store,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const KEYS: u64 = 10;
/// So often it writes at least.
const ROUNDS: u64 = 400;
/// So often at most, if the readers see nothing change.
const MOST_ROUNDS: u64 = 100_000;

/// Each round writes its number to all keys, in ten commands of one batch; the old values stay
/// readable until they are compacted, which happens, too.
fn write<E: Engine>(store: &mut Store<E>, changes_seen: &AtomicU64) {
    for round in 1..=MOST_ROUNDS {
        if round > ROUNDS && changes_seen.load(Ordering::Relaxed) > 4 {
            break;
        }
        let mut txn = store.begin();
        for key in 0..KEYS {
            txn.begin_command();
            let value = Bytes::from(round.to_string());
            txn.put(Bytes::from(vec![key as u8]), value, 0).unwrap();
        }
        if round % 16 == 0 {
            let revision = txn.revision();
            txn.begin_command();
            txn.compact(revision - 3 * KEYS).unwrap();
        }
        txn.commit(round).unwrap();
        store.scrub(32).unwrap();
    }
}

/// Reads until told to stop; counts when it sees another state than before.
fn read<E: Engine>(reader: &Reader<E>, stop: &AtomicBool, changes_seen: &AtomicU64) {
    let all = RangeRequest::of(KeyRange::From(Bytes::new()));
    let mut last = 1;
    while !stop.load(Ordering::Relaxed) {
        let now = reader.range(&all).unwrap();
        if now.revision == 1 {
            continue;
        }
        changes_seen.fetch_add(u64::from(now.revision != last), Ordering::Relaxed);
        last = now.revision;
        let values: Vec<_> = now.kvs.iter().map(|kv| &kv.value).collect();
        assert_eq!(values.len() as u64, KEYS);
        assert!(values.iter().all(|v| *v == values[0]), "half a batch: {values:?}");
        assert_eq!((now.revision - 1) % KEYS, 0);
        let round = ((now.revision - 1) / KEYS).to_string();
        assert_eq!(*values[0], round.as_bytes(), "the header is of another state");
        // Five changes earlier, half the keys have the round before.
        let revision = now.revision - KEYS / 2;
        let (range, to) = (KeyRange::From(Bytes::new()), now.revision);
        let changes =
            ChangesRequest { from: revision + 1, to, range, previous: false, max_bytes: 10_000 };
        match (reader.range(&RangeRequest { revision, ..all.clone() }), reader.changes(&changes)) {
            (Err(Error::Compacted { .. }), _) | (_, Err(Error::Compacted { .. })) => {}
            (Ok(old), Ok(changes)) => {
                let differ = old.kvs.iter().zip(&now.kvs).filter(|(a, b)| a != b).count() as u64;
                let missing = KEYS - old.count;
                assert_eq!(differ.max(missing), KEYS / 2);
                assert_eq!(changes.changes.len() as u64, KEYS / 2);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn together(home: impl Home) {
    let mut store = Store::open(home.open()).unwrap();
    let reader = store.reader();
    let (stop, changes_seen) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let readers = [(); 2].map(|()| {
            let reader = reader.clone();
            scope.spawn(|| {
                let reader = reader;
                read(&reader, &stop, &changes_seen);
            })
        });
        write(&mut store, &changes_seen);
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|r| r.join().unwrap());
        let seen = changes_seen.load(Ordering::Relaxed);
        assert!(seen > 2, "the readers saw nothing change: {seen}");
    });
}

#[test]
fn readers_beside_a_writer_in_memory() {
    together(InMemory(MemoryEngine::new()));
}

#[test]
fn readers_beside_a_writer_on_disk() {
    together(OnDisk(tempfile::tempdir().unwrap()));
}

/// A view that nobody needs keeps the engine from freeing what is overwritten, perhaps in hundreds
/// of other states.
#[test]
fn nobody_holds_a_view_between_reads_and_writes() {
    let engine = MemoryEngine::new();
    let mut store = Store::open(engine.clone()).unwrap();
    let reader = store.reader();
    assert_eq!(engine.views(), 0);
    let mut txn = store.begin();
    txn.begin_command();
    txn.put(Bytes::from_static(b"k"), Bytes::from_static(b"v"), 0).unwrap();
    txn.compact(1).unwrap();
    txn.commit(1).unwrap();
    store.scrub(100).unwrap();
    reader.range(&RangeRequest::of(KeyRange::From(Bytes::new()))).unwrap();
    assert_eq!((engine.views(), reader.revision()), (0, 2));
    let state = reader.state();
    assert_eq!(engine.views(), 1);
    drop((store.begin(), state));
    assert_eq!(engine.views(), 0);
}
