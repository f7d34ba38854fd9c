//! What the store costs: CPU per put, resident memory, disk and reopening time.
//!
//! `cargo run --release -p quorate-mvcc --example measure -- DIRECTORY [PUTS] [KEYS] [VALUE_BYTES]`
//! writes PUTS puts over KEYS keys in random order, in batches of 64, then reopens and reads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use quorate_base::Rng;
use quorate_mvcc::{FjallEngine, FjallSettings, KeyRange, RangeRequest, Store};
use std::path::Path;
use std::time::Instant;

/// The allocator that the binary uses, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// User and system time of this process in microseconds: the clock ticks are hundredths.
fn cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks * 10_000
}

fn memory_mib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(name)).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn directory_mib(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let bytes = |e: std::fs::DirEntry| match e.metadata() {
        Ok(m) if m.is_dir() => directory_mib(&e.path()) * 1024 * 1024,
        Ok(m) => m.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum::<u64>() / (1024 * 1024)
}

fn key(n: u64) -> Bytes {
    Bytes::from(format!("{n:08}"))
}

fn open(root: &Path) -> Store<FjallEngine> {
    Store::open(FjallEngine::open(root, FjallSettings::default()).unwrap()).unwrap()
}

fn write(root: &Path, puts: u64, keys: u64, value_bytes: usize) {
    let mut store = open(root);
    let mut rng = Rng::new(1);
    let (cpu, begun) = (cpu_us(), Instant::now());
    let mut longest_us = 0;
    for batch in 0..puts / 64 {
        let batch_begun = Instant::now();
        let mut txn = store.begin();
        for _ in 0..64 {
            txn.begin_command();
            let value: Vec<u8> =
                (0..value_bytes.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
            txn.put(key(rng.below(keys)), Bytes::from(value).slice(..value_bytes), 0).unwrap();
        }
        txn.put_meta(b"base", Bytes::from_static(&[7; 40]));
        txn.take_events();
        txn.commit(batch * 64).unwrap();
        longest_us = longest_us.max(batch_begun.elapsed().as_micros());
        if batch % 4096 == 4095 {
            let persist = store.persister();
            std::thread::spawn(|| persist().unwrap());
        }
    }
    println!(
        "puts: {:.2} us CPU, {:.2} us wall each; longest batch {longest_us} us; \
         peak memory {} MiB, now {} MiB",
        (cpu_us() - cpu) as f64 / puts as f64,
        begun.elapsed().as_micros() as f64 / puts as f64,
        memory_mib("VmHWM"),
        memory_mib("VmRSS"),
    );
    let (cpu, begun) = (cpu_us(), Instant::now());
    store.persister()().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    println!(
        "settling 3 s: {:.2} us CPU per put; persist and settle {} ms",
        (cpu_us() - cpu) as f64 / puts as f64,
        begun.elapsed().as_millis()
    );
    println!("disk: {} MiB; logical {} MiB", directory_mib(root), store.logical_bytes() >> 20);
    println!("memory at the end: {} MiB", memory_mib("VmRSS"));
}

fn read(root: &Path, keys: u64) {
    let begun = Instant::now();
    let store = open(root);
    println!("reopened in {} ms; memory {} MiB", begun.elapsed().as_millis(), memory_mib("VmRSS"));
    let reader = store.reader();
    let mut rng = Rng::new(2);
    let timed = |name: &str, times: u64, f: &mut dyn FnMut()| {
        let (cpu, begun) = (cpu_us(), Instant::now());
        (0..times).for_each(|_| f());
        let each = |us: u64| us as f64 / times as f64;
        println!(
            "{name}: {:.2} us CPU, {:.2} us wall",
            each(cpu_us() - cpu),
            each(begun.elapsed().as_micros() as u64)
        );
    };
    timed("get of one key", 100_000, &mut || {
        let one = RangeRequest::of(KeyRange::One(key(rng.below(keys))));
        reader.range(&one).unwrap();
    });
    let (first, last) = (reader.compacted_revision().max(2), reader.revision());
    timed("get of one key at a random revision", 20_000, &mut || {
        let one = KeyRange::One(key(rng.below(keys)));
        let revision = first + rng.below(last + 1 - first);
        reader.range(&RangeRequest { revision, ..RangeRequest::of(one) }).unwrap();
    });
    timed("range of 100 keys", 2_000, &mut || {
        let from = rng.below(keys);
        let range = KeyRange::Between(key(from), key(from + 100));
        reader.range(&RangeRequest::of(range)).unwrap();
    });
    let all = KeyRange::From(Bytes::new());
    timed("count of everything", 1, &mut || {
        let request = RangeRequest { limit: 1, ..RangeRequest::of(all.clone()) };
        println!("{} keys", reader.range(&request).unwrap().count);
    });
    println!("memory at the end: {} MiB", memory_mib("VmRSS"));
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().expect("a directory to write to");
    let mut number = |default| arguments.next().map_or(default, |a| a.parse().unwrap());
    let (puts, keys, value_bytes) = (number(1_000_000), number(1_000_000), number(256));
    let root = Path::new(&root);
    if puts > 0 {
        write(root, puts, keys, value_bytes as usize);
        // As a kill would leave it: without closing.
        std::process::exit(0);
    }
    read(root, keys);
}
