//! The state engine's files after power failed: unsynced sectors and names are missing.

use bytes::Bytes;
use quorate_mvcc::{Engine, Error, FjallEngine, FjallSettings, Source, Table};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SECTOR: usize = 512;
/// Values of this length make batches begin and end anywhere within sectors.
const VALUE_BYTES: usize = 300;

fn open(path: &Path, settings: FjallSettings) -> Result<FjallEngine, Error> {
    FjallEngine::open(path, settings)
}

/// Batch number `i`: in every table the same, so that a state is seen to be of one batch.
fn write(engine: &FjallEngine, i: u32) {
    let value = Bytes::from(vec![i as u8; VALUE_BYTES]);
    let own = Bytes::from(i.to_be_bytes().to_vec());
    let batch = vec![
        (Table::Meta, Bytes::from_static(b"last"), Some(own.clone())),
        (Table::Current, own.clone(), Some(value.clone())),
        (Table::History, own, Some(value)),
    ];
    engine.write(batch).unwrap();
}

/// The number of the last batch, after checking that all before it, and nothing else, is there.
fn last(engine: &FjallEngine) -> u32 {
    let view = engine.view();
    let last = view.get(Table::Meta, b"last").unwrap();
    let last = last.map_or(0, |bytes| u32::from_be_bytes(bytes[..].try_into().unwrap()));
    for table in [Table::Current, Table::History] {
        let found: Vec<u32> = view
            .scan(table, b"", None)
            .map(|pair| u32::from_be_bytes(pair.unwrap().0[..].try_into().unwrap()))
            .collect();
        assert_eq!(found, (1..=last).collect::<Vec<_>>(), "{table:?} is not of batch {last}");
    }
    last
}

fn journal(root: &Path) -> PathBuf {
    let state = fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).find(|p| p.is_dir());
    let files = fs::read_dir(state.unwrap()).unwrap().map(|e| e.unwrap().path());
    files.filter(|p| p.extension().is_some_and(|e| e == "jnl")).max().unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Where the journal's bytes end: behind them are zeros.
fn used(journal: &Path) -> usize {
    fs::read(journal).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
}

fn erase(journal: &Path, sector: usize) {
    let file = OpenOptions::new().write(true).open(journal).unwrap();
    file.write_all_at(&[0; SECTOR], (sector * SECTOR) as u64).unwrap();
}

#[test]
fn whichever_unsynced_sector_is_missing_a_prefix_of_the_batches_is_there() {
    let place = tempfile::tempdir().unwrap();
    let whole = place.path().join("whole");
    let engine = open(&whole, FjallSettings::default()).unwrap();
    (1..=5).for_each(|i| write(&engine, i));
    engine.persist().unwrap();
    let synced = used(&journal(&whole));
    (6..=12).for_each(|i| write(&engine, i));
    // The last handle writes out what is still in fjall's own buffer.
    drop(engine);
    let end = used(&journal(&whole));
    let mut seen = std::collections::BTreeSet::new();
    for sector in synced.div_ceil(SECTOR)..end.div_ceil(SECTOR) {
        let torn = place.path().join(format!("torn-{sector}"));
        copy(&whole, &torn);
        erase(&journal(&torn), sector);
        let engine = open(&torn, FjallSettings::default()).unwrap();
        let found = last(&engine);
        assert!((5..12).contains(&found), "sector {sector}: batch {found}");
        seen.insert(found);
        // And the node goes on from there.
        write(&engine, found + 1);
        engine.persist().unwrap();
        drop(engine);
        assert_eq!(last(&open(&torn, FjallSettings::default()).unwrap()), found + 1);
        fs::remove_dir_all(torn).unwrap();
    }
    assert!(seen.len() > 4, "{seen:?}");
}

#[test]
fn a_hole_in_front_of_what_a_table_holds_is_damage() {
    let place = tempfile::tempdir().unwrap();
    // So small that tables are written out while the journal is still the first.
    let settings = FjallSettings { memtable_bytes: [4096; 4], ..FjallSettings::default() };
    let engine = open(place.path(), settings.clone()).unwrap();
    for i in 1..=200 {
        write(&engine, i);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    drop(engine);
    erase(&journal(place.path()), 2);
    match open(place.path(), settings) {
        Err(Error::Corrupt(why)) => assert!(why.contains("journal"), "{why}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a hole in durable batches goes unnoticed"),
    }
}

/// What there is below a directory, the directory's own name left out.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// A state that is not the present one yet, as a first start that was cut short leaves it: once
/// for each of its files, without that one. `fill` is done to the state before.
fn cut_short(fill: impl Fn(&FjallEngine), check: impl Fn(Result<FjallEngine, Error>, &Path)) {
    let place = tempfile::tempdir().unwrap();
    let whole = place.path().join("whole");
    let engine = open(&whole, FjallSettings::default()).unwrap();
    fill(&engine);
    engine.persist().unwrap();
    drop(engine);
    fs::remove_file(whole.join("CURRENT")).unwrap();
    for (i, file) in files(&whole).iter().enumerate() {
        let cut = place.path().join(format!("cut-{i}"));
        copy(&whole, &cut);
        let missing = file.strip_prefix(&whole).unwrap();
        fs::remove_file(cut.join(missing)).unwrap();
        check(open(&cut, FjallSettings::default()), missing);
    }
}

#[test]
fn a_first_start_that_was_cut_short_is_begun_anew() {
    let begun = std::cell::Cell::new(0);
    cut_short(
        |_| {},
        |engine, missing| {
            let engine = engine.unwrap_or_else(|e| panic!("without {}: {e}", missing.display()));
            write(&engine, 1);
            engine.persist().unwrap();
            assert_eq!(last(&engine), 1);
            begun.set(begun.get() + 1);
        },
    );
    assert!(begun.get() > 5, "{begun:?}");
}

#[test]
fn a_state_with_data_is_never_begun_anew() {
    cut_short(
        |engine| write(engine, 1),
        |engine, missing| match engine {
            // What is missing was the journal, and with it all there was.
            Ok(_) => assert_eq!(missing.extension().unwrap(), "jnl"),
            Err(Error::Corrupt(why)) => assert!(why.contains("CURRENT"), "{why}"),
            Err(other) => panic!("without {}: {other:?}", missing.display()),
        },
    );
}
