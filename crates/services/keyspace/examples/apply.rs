//! What applying costs: CPU per put, from the entry's bytes to the committed batch.
//!
//! `cargo run --release -p quorate-keyspace --example apply -- DIRECTORY [PUTS] [KEYS]` applies
//! PUTS puts of 256 bytes over KEYS keys, in batches of 1, 16 and 64 entries; first over the engine
//! in memory, which shows what the keyspace itself costs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use quorate_base::{Ballot, NodeId, RequestId, Rng};
use quorate_keyspace::command::Put;
use quorate_keyspace::{Command, Config, Keyspace, codec};
use quorate_mvcc::{Engine, FjallEngine, FjallSettings, MemoryEngine};
use quorate_replicated_log::{Entries, Entry, Payload};
use quorate_service::{Applied, Envelope, Service};
use std::time::Instant;

/// User and system time of this process in microseconds: the clock ticks are hundredths.
fn cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks * 10_000
}

fn entries(rng: &mut Rng, first: u64, count: u64, keys: u64) -> Entries {
    let one = |index: u64| {
        let key = format!("/registry/things/{:08}", rng.below(keys)).into();
        let put = Put { key, value: vec![index as u8; 256].into(), ..Put::default() };
        let request = RequestId {
            node: NodeId(1),
            run: 1,
            sequence: index,
            settled: index.saturating_sub(100),
        };
        let bytes = Envelope::encode(request, &codec::encode(&Command::Put(put)).unwrap());
        let ballot = Ballot::new(1, NodeId(1));
        Entry { index, ballot, payload: Payload::Command(bytes) }
    };
    Entries::new((first..first + count).map(one).collect())
}

fn main() {
    let mut args = std::env::args().skip(1);
    let directory = args.next().expect("a directory");
    let mut number = |default: u64| args.next().map_or(default, |n| n.parse().unwrap());
    let (puts, keys) = (number(100_000), number(50_000));
    println!("in memory");
    measure(MemoryEngine::new(), puts, keys);
    println!("on disk");
    let engine = FjallEngine::open(directory.as_ref(), FjallSettings::default()).unwrap();
    measure(engine, puts, keys);
}

fn measure<E: Engine>(engine: E, puts: u64, keys: u64) {
    let mut keyspace = Keyspace::open(engine, Config::default()).unwrap();
    let mut rng = Rng::new(1);
    for batch in [1, 16, 64] {
        let first = keyspace.base().position.index + 1;
        let batches: Vec<Entries> =
            (0..puts / batch).map(|n| entries(&mut rng, first + n * batch, batch, keys)).collect();
        let (cpu, begun) = (cpu_us(), Instant::now());
        for entries in &batches {
            let mut applied = Applied::default();
            keyspace.apply(entries, &mut applied).unwrap();
            assert_eq!(applied.replies.len(), entries.len());
        }
        let done = (puts / batch * batch) as f64;
        println!(
            "batches of {batch}: {:.1} us CPU and {:.1} us per put",
            (cpu_us() - cpu) as f64 / done,
            begun.elapsed().as_micros() as f64 / done
        );
    }
}
