//! Each deliberate bug breaks a promise that the log without it keeps, under the same events.

use crate::fault_disk::FaultDisk;
use crate::support::*;
use quorate_base::{GroupId, Index, Rng};
use quorate_disk::{Disk, MemoryDisk};
use quorate_replicated_log::Write;
use quorate_wal::{BatchId, Canary, Wal, WalOptions};

fn with(canary: Canary) -> WalOptions {
    WalOptions { canary, ..WalOptions::small() }
}

/// Whether the bug shows in `breaks`, and nothing shows without it.
fn proves(canary: Canary, breaks: impl Fn(WalOptions) -> bool) {
    assert!(!breaks(with(Canary::None)), "{canary:?}: broken even without the bug");
    assert!(breaks(with(canary)), "{canary:?} is not noticed");
}

fn end(disk: impl Disk, options: WalOptions, group: u64) -> Index {
    let (_, found) = Wal::open(disk, options).unwrap();
    found.groups.get(&GroupId(group)).map_or(0, quorate_wal::RecoveredGroup::end)
}

#[test]
fn acknowledging_before_the_sync_loses_batches() {
    proves(Canary::AcknowledgeBeforeSync, |options| {
        let (mut wal, _) = Wal::open(FaultDisk::new(), options.clone()).unwrap();
        wal.disk_mut().held = true;
        wal.submit(batch(1, vec![(1, entries(1, 1, 1, 10))])).unwrap();
        let mut rng = Rng::new(0);
        wal.disk_mut().step(&mut rng);
        let acknowledged = wal.poll().is_some_and(|(id, _)| id == BatchId(1));
        let mut survives = true;
        for seed in 0..20 {
            let mut disk = wal.disk().clone();
            disk.crash(&mut Rng::new(seed));
            survives &= end(disk, options.clone(), 1) == 1;
        }
        acknowledged && !survives
    });
}

#[test]
fn cutting_at_damage_loses_what_follows() {
    proves(Canary::TruncateAtDamage, |options| {
        let (mut wal, _) = Wal::open(MemoryDisk::new(), options.clone()).unwrap();
        for id in 1..=3 {
            put(&mut wal, id, vec![(1, entries(id, 1, 1, 100))]);
        }
        let mut disk = wal.into_disk();
        assert!(disk.corrupt("0000000000000001.log", 3 * 4096 + 200, 1));
        end(disk, options, 1) < 3
    });
}

#[test]
fn ignoring_the_address_believes_a_misdirected_block() {
    proves(Canary::IgnoreAddress, |options| {
        let (mut wal, _) = Wal::open(MemoryDisk::new(), options.clone()).unwrap();
        for id in 1..=4 {
            put(&mut wal, id, vec![(1, entries(id, 1, 1, 100))]);
        }
        // The first batch's block covers the last one's.
        let mut disk = wal.into_disk();
        let mut content = disk.content("0000000000000001.log").unwrap().to_vec();
        content.copy_within(3 * 4096..4 * 4096, 6 * 4096);
        disk.put("0000000000000001.log", content);
        // Refusing to open is right: what the last block promised is unknown.
        Wal::open(disk, options).is_ok_and(|(_, found)| found.groups[&GroupId(1)].end() < 4)
    });
}

#[test]
fn forgetting_the_hard_state_breaks_a_promise() {
    proves(Canary::ForgetHardState, |options| {
        let (mut wal, _) = Wal::open(MemoryDisk::new(), options.clone()).unwrap();
        put(&mut wal, 1, vec![(2, Write { hard_state: Some(hard_state(9, 0)), ..nothing() })]);
        for id in 2..200 {
            let compact =
                Write { compact: Some(Box::new(base(id, 1))), ..entries(id, 1, 1, 8_000) };
            put(&mut wal, id, vec![(1, compact)]);
        }
        let (_, found) = Wal::open(wal.into_disk(), options).unwrap();
        found.groups.get(&GroupId(2)).is_none_or(|group| group.hard_state != hard_state(9, 0))
    });
}

#[test]
fn skipping_the_directory_sync_loses_segments() {
    proves(Canary::SkipDirectorySync, |options| {
        let (mut wal, _) = Wal::open(MemoryDisk::new(), options.clone()).unwrap();
        for id in 1..100 {
            put(&mut wal, id, vec![(1, entries(id, 1, 1, 8_000))]);
        }
        let mut disk = wal.into_disk();
        disk.crash();
        end(disk, options, 1) != 99
    });
}

#[test]
fn ignoring_the_recap_misses_nothing() {
    proves(Canary::IgnoreRecap, |options| {
        let (mut wal, _) = Wal::open(MemoryDisk::new(), options.clone()).unwrap();
        put(&mut wal, 1, vec![(1, entries(1, 1, 1, 100))]);
        put(&mut wal, 2, vec![(1, Write { hard_state: Some(hard_state(9, 1)), ..nothing() })]);
        put(&mut wal, 3, vec![(2, entries(1, 1, 1, 100))]);
        // The promise's block is as if it had never been written.
        let mut disk = wal.into_disk();
        let mut content = disk.content("0000000000000001.log").unwrap().to_vec();
        content[4 * 4096..5 * 4096].fill(0);
        disk.put("0000000000000001.log", content);
        let (_, found) = Wal::open(disk, options).unwrap();
        found.groups[&GroupId(1)].hard_state != hard_state(9, 1)
    });
}

#[test]
fn a_sync_that_is_tried_again_lies() {
    proves(Canary::RetrySync, |options| {
        let (mut wal, _) = Wal::open(FaultDisk::new(), options.clone()).unwrap();
        // The write, then the sync.
        wal.disk_mut().fail_at = wal.disk().operations() + 2;
        wal.submit(batch(1, vec![(1, entries(1, 1, 1, 10))])).unwrap();
        let acknowledged = wal.poll().is_some_and(|(_, result)| result.is_ok());
        let lost = |seed: u64| {
            let mut disk = wal.disk().clone();
            disk.fail_at = u64::MAX;
            disk.crash(&mut Rng::new(seed));
            end(disk, options.clone(), 1) == 0
        };
        acknowledged && (0..20).any(lost)
    });
}
