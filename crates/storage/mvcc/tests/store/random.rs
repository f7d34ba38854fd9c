//! Random histories on every engine, with restarts, crashes, compaction and scrubbing anywhere.

use crate::world::{Command, Home, InMemory, OnDisk, OnShelf, Operation, World};
use bytes::Bytes;
use proptest::prelude::*;
use quorate_mvcc::{Canary, Chunk, KeyRange, MemoryEngine, Store};

/// Keys whose order a careless encoding would get wrong.
const KEYS: [&[u8]; 14] = [
    b"",
    b"\0",
    b"\0\0",
    b"\0\x01",
    b"\0\xff",
    b"a",
    b"a\0",
    b"a\0\0",
    b"a\0b",
    b"a\x01",
    b"ab",
    b"b",
    b"\xff",
    b"\xff\xff",
];

#[derive(Clone, Debug)]
pub enum Step {
    Batch(Vec<Command>),
    Persist,
    Crash { keep: u64 },
    Reopen,
    Scrub { changes: usize },
    SendTo,
    Check { range: KeyRange, limit: u64 },
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(KEYS.to_vec()).prop_map(Bytes::from_static)
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        2 => key().prop_map(KeyRange::One),
        2 => (key(), key()).prop_map(|(a, b)| KeyRange::Between(a, b)),
        1 => key().prop_map(KeyRange::From),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let value = prop::collection::vec(any::<u8>(), 0..6).prop_map(Bytes::from);
    let name = prop::sample::select(vec![&b""[..], b"a", b"b"]).prop_map(Bytes::from_static);
    let put = (key(), value.clone(), 0..3i64);
    prop_oneof![
        12 => put.prop_map(|(key, value, lease)| Operation::Put { key, value, lease }),
        4 => range().prop_map(Operation::Delete),
        1 => (name, prop::option::of(value)).prop_map(|(name, value)| {
            Operation::Meta { name, value }
        }),
        2 => any::<u8>().prop_map(Operation::Compact),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let operations = prop_oneof![
        6 => prop::collection::vec(operation(), 1),
        1 => prop::collection::vec(operation(), 0..4),
    ];
    (operations, prop::bool::weighted(0.1))
        .prop_map(|(operations, roll_back)| Command { operations, roll_back })
}

/// Many versions of one key: so many that some are found through the index.
fn burst() -> impl Strategy<Value = Vec<Command>> {
    (key(), 1..40usize).prop_map(|(key, count)| {
        let put = |n: usize| {
            let value = Bytes::from(n.to_string());
            let operations = vec![Operation::Put { key: key.clone(), value, lease: 0 }];
            Command { operations, roll_back: false }
        };
        (0..count).map(put).collect()
    })
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => prop::collection::vec(command(), 1..6).prop_map(Step::Batch),
        1 => burst().prop_map(Step::Batch),
        2 => Just(Step::Persist),
        2 => (0..3u64).prop_map(|keep| Step::Crash { keep }),
        1 => Just(Step::Reopen),
        3 => (1..8usize).prop_map(|changes| Step::Scrub { changes }),
        1 => Just(Step::SendTo),
        3 => (range(), 0..4u64).prop_map(|(range, limit)| Step::Check { range, limit }),
    ];
    prop::collection::vec(step, 1..24)
}

pub fn everything() -> KeyRange {
    KeyRange::From(Bytes::new())
}

/// Runs the steps, checking as asked and at the end.
pub fn run<H: Home>(home: H, canary: Canary, steps: &[Step]) {
    let mut world = World::new(home, canary);
    let mut batches: Vec<Vec<Command>> = Vec::new();
    for step in steps {
        match step {
            Step::Batch(batch) => {
                world.apply(batch);
                batches.push(batch.clone());
            }
            Step::Persist => {
                let applied = world.models.len() as u64 - 1;
                assert_eq!(world.store().persister()(), Ok(applied));
            }
            Step::Crash { keep } => world.crash(*keep),
            Step::Reopen => world.reopen(),
            Step::Scrub { changes } => {
                world.store().scrub(*changes).unwrap();
            }
            Step::SendTo => send_to_itself(&mut world),
            Step::Check { range, limit } => world.check(range, *limit),
        }
        batches.truncate(world.models.len() - 1);
    }
    world.check(&everything(), 0);
    // A replica that lived an easier life has the same content.
    let mut easy = World::new(InMemory(MemoryEngine::new()), Canary::NONE);
    batches.iter().for_each(|batch| easy.apply(batch));
    let (ours, theirs) = (world.store().state(), easy.store().state());
    assert_eq!(ours.hash(), theirs.hash());
    for revision in ours.compacted_revision()..=ours.revision() {
        assert_eq!(ours.hash_kv(revision), theirs.hash_kv(revision));
    }
    world.scrub_all(3);
    world.check(&everything(), 2);
    assert_eq!(world.store().state().hash(), theirs.hash());
}

/// A snapshot of the present state, installed over it, changes nothing.
fn send_to_itself<H: Home>(world: &mut World<H>) {
    let store: &mut Store<H::Engine> = world.store();
    let before = store.state().hash().unwrap();
    let mut source = store.snapshot();
    let mut receiver = store.receive().unwrap();
    while let Some(chunk) = source.next_chunk(40).unwrap() {
        receiver.write_chunk(Chunk { bytes: chunk.bytes, last: chunk.last }).unwrap();
    }
    store.install(receiver).unwrap();
    assert_eq!(store.state().hash(), Ok(before));
}

#[test]
fn random_histories_in_memory() {
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() };
    proptest!(config, |(steps in steps())| {
        run(InMemory(MemoryEngine::new()), Canary::NONE, &steps);
    });
}

#[test]
fn random_histories_on_disk() {
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() };
    proptest!(config, |(steps in steps())| {
        run(OnDisk(tempfile::tempdir().unwrap()), Canary::NONE, &steps);
    });
}

#[test]
fn random_histories_on_a_shelf() {
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() };
    proptest!(config, |(steps in steps())| {
        run(OnShelf(tempfile::tempdir().unwrap()), Canary::NONE, &steps);
    });
}
