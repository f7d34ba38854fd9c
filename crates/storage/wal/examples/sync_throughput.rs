//! Measures the log on a real disk: `sync_throughput DIRECTORY [BATCHES] [ENTRIES] [BYTES]`.
//!
//! Writes so many batches of so many entries of so many bytes, one batch per sync, and prints the
//! latency of a batch and how long the log then takes to open.
#![allow(clippy::print_stdout)]

use quorate_base::{Ballot, GroupId, NodeId};
use quorate_disk::{Clock, OsClock, OsDisk};
use quorate_replicated_log::{Entries, Entry, Payload, Write, WriteId};
use quorate_wal::{Batch, BatchId, Wal, WalOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("which directory?")?;
    let mut number = |default: u64| -> Result<u64, std::num::ParseIntError> {
        arguments.next().map_or(Ok(default), |text| text.parse())
    };
    let (batches, entries, bytes) = (number(2_000)?, number(10)?, number(256)?);
    let clock = OsClock::new();
    let micros = |from: quorate_base::Instant| (clock.now().0 - from.0) / 1_000;
    let from = clock.now();
    let disk = OsDisk::open(directory.as_ref())?;
    let (mut wal, found) = Wal::open(disk, WalOptions::default())?;
    let end = found.groups.get(&GroupId(1)).map_or(0, quorate_wal::RecoveredGroup::end);
    println!("opened in {} us with {end} entries, {:?}", micros(from), found.report);
    let payload = bytes::Bytes::from(vec![7; bytes as usize]);
    let mut took = Vec::new();
    let start = clock.now();
    for batch in 0..batches {
        let first = end + 1 + batch * entries;
        let run = (first..first + entries).map(|index| Entry {
            index,
            ballot: Ballot::new(1, NodeId(1)),
            payload: Payload::Command(payload.clone()),
        });
        let write = Write {
            id: WriteId(batch + 1),
            reset: None,
            compact: None,
            truncate_from: None,
            entries: Entries::new(run.collect()),
            slots: Vec::new(),
            hard_state: None,
        };
        let from = clock.now();
        wal.submit(Batch { id: BatchId(batch + 1), writes: vec![(GroupId(1), write)] })?;
        let (_, result) = wal.poll().ok_or("a real disk completes inline")?;
        result?;
        took.push(micros(from));
    }
    let total = micros(start);
    took.sort_unstable();
    let at = |share: usize| took[(took.len() * share / 1_000).min(took.len() - 1)];
    println!("{batches} batches of {entries} x {bytes} bytes in {total} us: {:?}", wal.stats());
    println!(
        "per batch: p50 {} us, p99 {} us, p99.9 {} us, max {} us",
        at(500),
        at(990),
        at(999),
        at(1_000)
    );
    Ok(())
}
