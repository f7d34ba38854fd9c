//! kill -9 of a process that writes to disk: what is found afterwards is the state after some
//! batch, not before the last one persisted.

use bytes::Bytes;
use quorate_base::Rng;
use quorate_mvcc::{FjallEngine, FjallSettings, KeyRange, RangeRequest, Store};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const DIRECTORY: &str = "QUORATE_MVCC_KILL_DIRECTORY";
const KEYS: u64 = 500;

fn open(path: &Path) -> Store<FjallEngine> {
    // Small memtables, so that they are being written out at the moment of the kill.
    let settings = FjallSettings { memtable_bytes: [16 << 10; 4], ..FjallSettings::default() };
    Store::open(FjallEngine::open(path, settings).unwrap()).unwrap()
}

/// Batch `n` writes the same whoever applies it.
fn apply(store: &mut Store<impl quorate_mvcc::Engine>, n: u64) {
    let mut rng = Rng::new(n);
    let mut txn = store.begin();
    for _ in 0..20 {
        txn.begin_command();
        let key = Bytes::from(format!("key {}", rng.below(KEYS)));
        if rng.below(5) == 0 {
            txn.delete(&KeyRange::One(key)).unwrap();
        } else {
            let value = Bytes::from(vec![n as u8; rng.below(400) as usize]);
            txn.put(key, value, 0).unwrap();
        }
    }
    if n.is_multiple_of(50) {
        txn.begin_command();
        let revision = txn.revision() - 100;
        txn.compact(revision).unwrap();
    }
    txn.put_meta(b"batch", Bytes::from(n.to_string()));
    txn.commit(n).unwrap();
}

/// Writes until killed; says on its output up to where it is durable.
fn write_for_ever(path: &Path) {
    let mut store = open(path);
    for n in store.applied() + 1.. {
        apply(&mut store, n);
        store.scrub(30).unwrap();
        if n.is_multiple_of(20) {
            println!("durable {}", store.persister()().unwrap());
        }
    }
}

#[test]
fn a_killed_process_leaves_a_prefix() {
    if let Some(path) = std::env::var_os(DIRECTORY) {
        return write_for_ever(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut twin = Store::open(quorate_mvcc::MemoryEngine::new()).unwrap();
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["kill::a_killed_process_leaves_a_prefix", "--exact", "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let durable_in = |line: &str| line.split("durable ").nth(1)?.parse::<u64>().ok();
        let first = lines.by_ref().find_map(|l| durable_in(&l.unwrap())).unwrap();
        std::thread::sleep(Duration::from_millis(100 + 70 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let durable = lines.filter_map(|l| durable_in(&l.ok()?)).last().unwrap_or(first);

        let store = open(dir.path());
        let applied = store.applied();
        assert!(applied >= durable, "{applied} found, {durable} promised");
        for n in twin.applied() + 1..=applied {
            apply(&mut twin, n);
        }
        assert_eq!(store.meta(b"batch").unwrap(), Some(Bytes::from(applied.to_string())));
        assert_eq!(store.state().hash(), twin.state().hash());
        let all = RangeRequest::of(KeyRange::From(Bytes::new()));
        assert_eq!(store.reader().range(&all), twin.reader().range(&all));
    }
}
