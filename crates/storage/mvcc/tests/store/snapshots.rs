//! Snapshots: round trips, golden bytes, damage.

use crate::world::{Home, InMemory, OnDisk, OnShelf};
use bytes::Bytes;
use quorate_mvcc::{Chunk, Engine, Error, KeyRange, MemoryEngine, Store};

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A state with one of everything, as another replica would have made it, too.
fn fill(store: &mut Store<impl Engine>) {
    let mut txn = store.begin();
    txn.begin_command();
    txn.put(text("a"), text("one"), 0).unwrap();
    txn.begin_command();
    txn.put(text("a\0"), text("two"), 77).unwrap();
    txn.put(text("b"), text("three"), 0).unwrap();
    txn.begin_command();
    txn.put(text("a"), text("four"), 0).unwrap();
    txn.begin_command();
    txn.delete(&KeyRange::One(text("b"))).unwrap();
    txn.put_meta(b"service", text("record"));
    txn.begin_command();
    // The sixteenth version has an index entry, and the next one's record says so.
    for _ in 0..17 {
        txn.put(text("hot"), text(""), 0).unwrap();
    }
    txn.begin_command();
    txn.compact(3).unwrap();
    txn.commit(9).unwrap();
    store.scrub(1).unwrap();
}

fn chunks(store: &Store<impl Engine>, max_bytes: usize) -> Vec<Chunk> {
    let mut source = store.snapshot();
    assert_eq!(source.applied(), store.applied());
    std::iter::from_fn(|| source.next_chunk(max_bytes).unwrap()).collect()
}

fn receive<E: Engine>(store: &mut Store<E>, chunks: Vec<Chunk>) -> Result<(), Error> {
    let mut receiver = store.receive()?;
    for chunk in chunks {
        receiver.write_chunk(chunk)?;
    }
    store.install(receiver)
}

fn round_trip(from: impl Home, to: impl Home) {
    let mut source = Store::open(from.open()).unwrap();
    fill(&mut source);
    let whole = chunks(&source, 1 << 20);
    assert_eq!(whole.len(), 1);
    let parts = chunks(&source, 1);
    assert!(parts.len() > 8 && parts.iter().filter(|c| c.last).count() == 1);
    let mut target = Store::open(to.open()).unwrap();
    target.begin().commit(4).unwrap();
    let (old, reader) = (target.state(), target.reader());
    receive(&mut target, parts).unwrap();
    assert_eq!((old.applied(), old.revision()), (4, 1), "an old state stays readable");
    assert_eq!(reader.state().hash(), source.state().hash());
    assert_eq!(chunks(&target, 1 << 20), whole);
    // It is durable at once, and life goes on.
    drop((old, reader, target));
    to.crash(0);
    let mut target = Store::open(to.open()).unwrap();
    assert_eq!(target.state().hash(), source.state().hash());
    fill_more(&mut source);
    fill_more(&mut target);
    assert_eq!(target.state().hash(), source.state().hash());
}

#[test]
fn a_snapshot_makes_the_same_state() {
    let memory = || InMemory(MemoryEngine::new());
    let disk = || OnDisk(tempfile::tempdir().unwrap());
    round_trip(memory(), memory());
    round_trip(memory(), disk());
    round_trip(disk(), memory());
    round_trip(disk(), disk());
    let shelf = || OnShelf(tempfile::tempdir().unwrap());
    round_trip(memory(), shelf());
    round_trip(shelf(), shelf());
}

#[test]
fn a_snapshot_is_not_changed_by_later_writes() {
    let mut store = Store::open(MemoryEngine::new()).unwrap();
    fill(&mut store);
    let whole = chunks(&store, 1);
    let mut source = store.snapshot();
    let mut got = Vec::new();
    while let Some(chunk) = source.next_chunk(1).unwrap() {
        got.push(chunk);
        fill_more(&mut store);
    }
    assert_eq!(got, whole);
}

fn fill_more(store: &mut Store<impl Engine>) {
    let mut txn = store.begin();
    txn.begin_command();
    txn.put(text("a"), text("later"), 0).unwrap();
    txn.delete(&KeyRange::From(text("a\0"))).unwrap();
    txn.commit(10).unwrap();
}

/// The bytes of version 1, which every later version must read.
const GOLDEN: &str = include_str!("golden/snapshot-1.hex");

#[test]
fn golden_bytes_of_version_1() {
    let mut store = Store::open(MemoryEngine::new()).unwrap();
    fill(&mut store);
    let made = chunks(&store, 1 << 20).remove(0).bytes;
    let hex: String = made
        .chunks(32)
        .map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n")
        .collect();
    assert_eq!(hex, GOLDEN);
    let bytes: Vec<u8> = GOLDEN
        .lines()
        .flat_map(|l| (0..l.len() / 2).map(|i| u8::from_str_radix(&l[2 * i..2 * i + 2], 16)))
        .map(Result::unwrap)
        .collect();
    let mut target = Store::open(MemoryEngine::new()).unwrap();
    receive(&mut target, vec![Chunk { bytes: bytes.into(), last: true }]).unwrap();
    assert_eq!(target.state().hash(), store.state().hash());
    assert_eq!(target.state().hash_kv(0), Ok(GOLDEN_HASH_KV));
}

/// The fingerprint of the golden state: it must not change between versions either.
const GOLDEN_HASH_KV: u64 = 16_201_113_066_421_534_201;

#[test]
fn damage_anywhere_is_refused_and_nothing_applied() {
    let mut source = Store::open(MemoryEngine::new()).unwrap();
    fill(&mut source);
    let good = chunks(&source, 1 << 20).remove(0).bytes;
    let mut target = Store::open(MemoryEngine::new()).unwrap();
    target.begin().commit(4).unwrap();
    let before = target.state().hash();
    let mut refused = |bytes: Vec<u8>, last: bool| {
        let got = receive(&mut target, vec![Chunk { bytes: bytes.into(), last }]);
        assert!(matches!(got, Err(Error::Peer(_) | Error::NewerFormat { .. })), "{got:?}");
        assert_eq!(target.state().hash(), before);
    };
    for cut in 0..good.len() {
        refused(good[..cut].to_vec(), true);
        refused(good[..cut].to_vec(), false);
    }
    for at in 0..good.len() {
        for flip in [1, 0x80] {
            let mut bytes = good.to_vec();
            bytes[at] ^= flip;
            refused(bytes, true);
        }
    }
    refused([&good[..], &[0]].concat(), true);
}

#[test]
fn a_future_version_is_told_from_damage() {
    let mut target = Store::open(MemoryEngine::new()).unwrap();
    let chunk = Chunk { bytes: Bytes::from_static(b"QSNP\x02whatever"), last: false };
    let newer = Error::NewerFormat { found: 2, supported: 1 };
    assert_eq!(receive(&mut target, vec![chunk]), Err(newer));
}

#[test]
fn a_receiver_dropped_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let home = OnDisk(dir);
    let mut source = Store::open(MemoryEngine::new()).unwrap();
    fill(&mut source);
    let target = Store::open(home.open()).unwrap();
    let mut receiver = target.receive().unwrap();
    receiver.write_chunk(chunks(&source, 1).remove(0)).unwrap();
    let states = || std::fs::read_dir(home.0.path()).unwrap().count();
    assert_eq!(states(), 3, "CURRENT and two states");
    drop(receiver);
    assert_eq!(states(), 2);
}
