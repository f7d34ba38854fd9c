//! The state engine on a disk that loses power: what was persisted is there, whole.

use crate::file_system::Mounted;
use bytes::Bytes;
use quorate_mvcc::{Engine, FjallEngine, FjallSettings, Source, Table};
use quorate_power_loss::Settings;
use std::path::Path;

const TABLES: [Table; 4] = [Table::Meta, Table::Current, Table::Index, Table::History];

fn open(path: &Path) -> FjallEngine {
    FjallEngine::open(path, FjallSettings::default()).unwrap()
}

/// Batch number `i`: one pair in every table, which says in which table it was put.
fn write(engine: &FjallEngine, i: u32) {
    let key = Bytes::from(i.to_be_bytes().to_vec());
    let value = |table: Table| Some(Bytes::from(vec![table as u8; 300]));
    engine.write(TABLES.map(|table| (table, key.clone(), value(table))).to_vec()).unwrap();
}

/// How many batches are there, after checking that every table holds these, and its own.
fn batches(engine: &FjallEngine) -> u32 {
    let view = engine.view();
    let [found, rest @ ..] = TABLES.map(|table| {
        let pairs: Vec<(Bytes, Bytes)> = view.scan(table, b"", None).map(|p| p.unwrap()).collect();
        for (i, (key, value)) in (1u32..).zip(&pairs) {
            assert_eq!(key[..], i.to_be_bytes(), "{table:?}");
            assert_eq!(value[..], [table as u8; 300], "{table:?} holds another table's pair {i}");
        }
        pairs.len()
    });
    assert!(rest.iter().all(|n| *n == found), "the tables hold {found} and {rest:?} batches");
    u32::try_from(found).unwrap()
}

/// Power fails again and again, with something unsynced each time, and nothing persisted is lost.
fn survives(seed: u64, keep_ppm: u32) {
    let settings = Settings { seed, keep_ppm: Some(keep_ppm), ..Settings::default() };
    let Some(mut mounted) = Mounted::new("the state engine", settings) else { return };
    let path = mounted.path("state");
    let mut persisted = 0;
    for _ in 0..3 {
        let engine = open(&path);
        let found = batches(&engine);
        assert!(found >= persisted, "seed {seed}: {found} of {persisted} batches are there");
        persisted = found + 4;
        (found + 1..=persisted).for_each(|i| write(&engine, i));
        engine.persist().unwrap();
        (persisted + 1..persisted + 8).for_each(|i| write(&engine, i));
        drop(engine);
        mounted.lose_power();
    }
    assert!(batches(&open(&path)) >= persisted, "seed {seed}");
}

#[test]
fn what_was_persisted_is_there_when_nothing_unsynced_is() {
    survives(1, 0);
}

#[test]
fn what_was_persisted_is_there_whatever_else_is() {
    (1..=6).for_each(|seed| survives(seed, 500_000));
}
