//! A disk that says no: failed writes and syncs, and no space.

use crate::fault_disk::FaultDisk;
use crate::support::*;
use quorate_base::{GroupId, Rng};
use quorate_replicated_log::Write;
use quorate_wal::{BatchId, Wal, WalError, WalOptions};

#[test]
fn any_failed_operation_poisons_the_log_for_good() {
    let (mut wal, _) = Wal::open(FaultDisk::new(), WalOptions::small()).unwrap();
    put(&mut wal, 1, vec![(1, entries(1, 1, 1, 10))]);
    let operations = wal.disk().operations();
    for fail_at in [operations + 1, operations + 2] {
        let mut disk = wal.disk().clone();
        disk.kill();
        let (mut wal, _) = Wal::open(disk, WalOptions::small()).unwrap();
        let next = wal.disk().operations() + fail_at - operations;
        wal.disk_mut().fail_at = next;
        wal.submit(batch(2, vec![(1, entries(2, 1, 1, 10))])).unwrap();
        let (id, result) = wal.poll().unwrap();
        assert_eq!(id, BatchId(2));
        let error = result.unwrap_err();
        assert!(matches!(error, WalError::Poisoned { .. }), "{error}");
        assert!(error.to_string().contains(&format!("operation {next}")), "{error}");
        assert!(wal.is_poisoned());
        let syncs = wal.disk().syncs;
        for id in 3..6 {
            let refused = wal.submit(batch(id, vec![(1, entries(2, 1, 1, 10))]));
            assert!(matches!(refused, Err(WalError::Poisoned { .. })));
            assert!(wal.poll().is_none());
        }
        assert_eq!(wal.disk().syncs, syncs, "a failed sync is never repeated");
        // After a restart the log works, with or without the batch that failed.
        let mut disk = wal.into_disk();
        disk.kill();
        let (mut wal, found) = Wal::open(disk, WalOptions::small()).unwrap();
        let end = found.groups[&GroupId(1)].end();
        assert!((1..=2).contains(&end));
        put(&mut wal, 1, vec![(1, entries(end + 1, 1, 1, 10))]);
    }
}

#[test]
fn a_failure_while_opening_is_an_error_of_open() {
    let mut disk = FaultDisk::new();
    disk.fail_at = 3;
    assert!(matches!(Wal::open(disk, WalOptions::small()), Err(WalError::Poisoned { .. })));
}

#[test]
fn a_full_disk_refuses_entries_keeps_promises_and_recovers() {
    let options = WalOptions::small();
    let mut disk = FaultDisk::new();
    disk.capacity = 3 * options.segment_bytes;
    let (mut wal, _) = Wal::open(disk, options.clone()).unwrap();
    let (mut id, mut end) = (0, 0);
    let refused = loop {
        id += 1;
        match wal.submit(batch(id, vec![(1, entries(end + 1, 4, 1, 1_000))])) {
            Ok(()) => {
                let (done, result) = wal.poll().unwrap();
                assert_eq!(done, BatchId(id));
                result.unwrap();
                end += 4;
            }
            Err(WalError::Full { batch }) => break batch,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(end > 300 && wal.stats().full && !wal.is_poisoned());
    // The reserve takes promises, truncations and compactions.
    for round in 2..8 {
        id += 1;
        let promise = Write { hard_state: Some(hard_state(round, end)), ..nothing() };
        put(&mut wal, id, vec![(1, promise)]);
    }
    assert!(matches!(wal.submit(refused.clone()), Err(WalError::Full { .. })));
    // What waited may go with the compaction that frees segments.
    let mut joined = refused;
    let compact = Write { compact: Some(Box::new(base(end - 1, 1))), ..nothing() };
    joined.writes.push((GroupId(1), compact));
    wal.submit(joined).unwrap();
    wal.poll().unwrap().1.unwrap();
    put(&mut wal, id + 1, vec![(2, entries(1, 4, 1, 1_000))]);
    assert!(!wal.stats().full);
    let mut disk = wal.into_disk();
    disk.crash(&mut Rng::new(1));
    let (_, found) = Wal::open(disk, options).unwrap();
    let group = &found.groups[&GroupId(1)];
    assert_eq!((group.end(), group.hard_state.promised.round), (end + 4, 7));
    assert!(group.damaged.is_empty());
}

#[test]
fn a_log_opened_without_a_byte_of_room_is_ready_once_there_is_some() {
    let options = WalOptions::small();
    let mut disk = FaultDisk::new();
    disk.capacity = 2 * options.segment_bytes;
    let (mut wal, _) = Wal::open(disk, options.clone()).unwrap();
    let mut id = 0;
    let full = loop {
        id += 1;
        let promise = Write { hard_state: Some(hard_state(id, 0)), ..nothing() };
        match wal.submit(batch(id, vec![(1, entries(id, 1, 1, 3_000)), (1, promise)])) {
            Ok(()) => wal.poll().unwrap().1.unwrap(),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, WalError::Full { .. }));
    // Even what is kept back for promises is used up.
    while let Ok(()) = {
        id += 1;
        let promise = Write { hard_state: Some(hard_state(id, 0)), ..nothing() };
        wal.submit(batch(id, vec![(1, promise)]))
    } {
        wal.poll().unwrap().1.unwrap();
    }
    // Every start takes a page for its first block, until there is none.
    for _ in 0..8 {
        let (again, found) = Wal::open(wal.into_disk(), options.clone()).unwrap();
        assert_eq!(found.groups[&GroupId(1)].hard_state.promised.round, id - 1);
        wal = again;
    }
    assert!(wal.poll().is_none() && !wal.is_ready());
    wal.disk_mut().capacity += options.segment_bytes;
    assert!(wal.poll().is_none() && wal.is_ready());
    put(&mut wal, id, vec![(1, Write { hard_state: Some(hard_state(id, 0)), ..nothing() })]);
}

#[test]
fn a_record_over_the_limit_is_refused_and_nothing_is_written() {
    let (mut wal, _) = Wal::open(FaultDisk::new(), WalOptions::small()).unwrap();
    let limit = WalOptions::small().max_record_bytes;
    let before = wal.stats();
    let refused = wal.submit(batch(1, vec![(1, entries(1, 1, 1, limit as usize + 1))]));
    assert!(matches!(refused, Err(WalError::TooLarge { bytes, .. }) if bytes == limit + 1));
    assert_eq!(wal.stats(), before);
    put(&mut wal, 1, vec![(1, entries(1, 1, 1, limit as usize))]);
}

#[test]
fn options_that_cannot_work_are_refused() {
    let wrong = [
        WalOptions { segment_bytes: 5_000, ..WalOptions::small() },
        WalOptions { segment_bytes: 64 << 10, ..WalOptions::small() },
        WalOptions { max_record_bytes: 1 << 40, ..WalOptions::default() },
    ];
    for options in wrong {
        let refused = Wal::open(FaultDisk::new(), options);
        assert!(matches!(refused, Err(WalError::Options(_))));
    }
    for free in [0, 64 << 20, 1 << 30, u64::MAX] {
        Wal::open(FaultDisk::new(), WalOptions::for_space(free)).unwrap();
    }
}
