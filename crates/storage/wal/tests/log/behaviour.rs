//! What a working disk must give back.

use crate::support::*;
use quorate_base::GroupId;
use quorate_disk::MemoryDisk;
use quorate_replicated_log::{Base, Payload, Write};
use quorate_wal::{RecoveredGroup, WalOptions};

#[test]
fn an_empty_disk_becomes_an_empty_log() {
    let (wal, recovery) = open(MemoryDisk::new());
    assert!(recovery.groups.is_empty());
    assert_eq!((recovery.report.run, recovery.report.blocks), (1, 0));
    let mut disk = wal.into_disk();
    disk.crash();
    assert_eq!(open(disk).1.report.run, 2);
}

#[test]
fn what_was_written_is_there_after_a_crash() {
    let (mut wal, _) = open(MemoryDisk::new());
    let members = quorate_replicated_log::Entry {
        index: 3,
        ballot: ballot(2),
        payload: Payload::members(base(0, 0).membership, "ctx".into()),
    };
    put(&mut wal, 1, vec![(1, entries(1, 2, 1, 300)), (2, entries(1, 1, 1, 5_000))]);
    let with_members = Write { entries: vec![members.clone()].into(), ..nothing() };
    put(&mut wal, 2, vec![(1, Write { hard_state: Some(hard_state(2, 2)), ..with_members })]);
    let mut disk = wal.into_disk();
    disk.crash();
    let (_, recovery) = open(disk);
    let one = &recovery.groups[&GroupId(1)];
    assert_eq!(positions(one), [(1, 1), (2, 1), (3, 2)]);
    assert_eq!(one.entries[0][2], members);
    assert_eq!(one.entries[0][0], entries(1, 2, 1, 300).entries[0]);
    assert_eq!(one.hard_state, hard_state(2, 2));
    assert_eq!(positions(&recovery.groups[&GroupId(2)]), [(1, 1)]);
    assert!(one.damaged.is_empty());
}

#[test]
fn who_holds_a_long_log_back_is_told_once_for_each_segment() {
    let (mut wal, _) = open(MemoryDisk::new());
    put(&mut wal, 1, vec![(2, entries(1, 3, 1, 100))]);
    let many = WalOptions::small().long_segments as u64 + 2;
    let mut told = Vec::new();
    let mut id = 1u64;
    // Group 1 goes on and is compacted; group 2 has three entries in the first segment.
    while wal.stats().segments < many {
        id += 1;
        let compact = Some(Box::new(base(id.saturating_sub(3), 1)));
        put(&mut wal, id, vec![(1, Write { compact, ..entries(id - 1, 1, 1, 60_000) })]);
        let held = wal.held_back();
        if !held.is_empty() {
            told.push((wal.stats().segments, held));
        }
    }
    let long = many - 2;
    assert_eq!(told, [long + 1, long + 2].map(|n| (n, vec![(GroupId(2), 3)])));
    put(&mut wal, id + 1, vec![(2, Write { compact: Some(Box::new(base(3, 1))), ..nothing() })]);
    put(&mut wal, id + 2, vec![(1, entries(id, 1, 1, 10))]);
    assert!(wal.stats().segments <= 2, "{:?}", wal.stats());
    assert_eq!(wal.held_back(), []);
}

#[test]
fn truncated_entries_stay_away_and_bases_move() {
    let (mut wal, _) = open(MemoryDisk::new());
    put(&mut wal, 1, vec![(1, entries(1, 9, 1, 10))]);
    put(&mut wal, 2, vec![(1, Write { truncate_from: Some(5), ..entries(5, 2, 3, 10) })]);
    put(&mut wal, 3, vec![(1, Write { compact: Some(Box::new(base(3, 1))), ..nothing() })]);
    put(&mut wal, 4, vec![(2, entries(1, 4, 1, 10))]);
    put(
        &mut wal,
        5,
        vec![(2, Write { reset: Some(Box::new(base(50, 4))), ..entries(51, 1, 4, 10) })],
    );
    let (_, recovery) = open(wal.into_disk());
    let one = &recovery.groups[&GroupId(1)];
    assert_eq!((positions(one), &one.base), (vec![(4, 1), (5, 3), (6, 3)], &base(3, 1)));
    let two = &recovery.groups[&GroupId(2)];
    assert_eq!((positions(two), &two.base), (vec![(51, 4)], &base(50, 4)));
}

#[test]
fn segments_are_recycled_and_what_lives_is_carried_forward() {
    let (mut wal, _) = open(MemoryDisk::new());
    // A quiet group whose promise and base are only in the first segment.
    let quiet = Write {
        reset: Some(Box::new(base(7, 2))),
        hard_state: Some(hard_state(9, 7)),
        ..nothing()
    };
    put(&mut wal, 1, vec![(2, quiet)]);
    let mut id = 1u64;
    for round in 0..400 {
        let from = 1 + round * 10;
        id += 2;
        put(&mut wal, id, vec![(1, entries(from, 10, 1, 400))]);
        let compact = Write { compact: Some(Box::new(base(from + 4, 1))), ..nothing() };
        put(&mut wal, id + 1, vec![(1, compact)]);
    }
    let stats = wal.stats();
    assert!(stats.bytes > 10 * WalOptions::small().segment_bytes, "{stats:?}");
    assert!(stats.segments <= 2 && stats.spares <= 3, "{stats:?}");
    let mut disk = wal.into_disk();
    disk.crash();
    let (_, recovery) = open(disk);
    let quiet = &recovery.groups[&GroupId(2)];
    let expected = RecoveredGroup {
        base: base(7, 2),
        hard_state: hard_state(9, 7),
        ..RecoveredGroup::default()
    };
    assert_eq!(quiet, &expected);
    let busy = &recovery.groups[&GroupId(1)];
    assert_eq!(busy.base, base(3_995, 1));
    assert_eq!(positions(busy), (3_996..=4_000).map(|i| (i, 1)).collect::<Vec<_>>());
}

#[test]
fn a_write_larger_than_a_block_is_split_and_comes_back_whole() {
    let (mut wal, _) = open(MemoryDisk::new());
    let large = Write { hard_state: Some(hard_state(4, 0)), ..entries(1, 300, 4, 1_000) };
    put(&mut wal, 1, vec![(1, large.clone())]);
    put(&mut wal, 2, vec![]);
    let (_, recovery) = open(wal.into_disk());
    let group = &recovery.groups[&GroupId(1)];
    let found: Vec<_> = group.entries.iter().flat_map(|run| run.to_vec()).collect();
    assert_eq!(found, large.entries.to_vec());
    assert_eq!(group.hard_state, hard_state(4, 0));
}

#[test]
fn a_forgotten_group_is_gone_and_holds_no_segment_back() {
    let (mut wal, _) = open(MemoryDisk::new());
    put(&mut wal, 1, vec![(1, entries(1, 1, 1, 10)), (2, entries(1, 9, 1, 500))]);
    put(&mut wal, 2, vec![(2, Write { hard_state: Some(hard_state(4, 2)), ..nothing() })]);
    put(&mut wal, 3, vec![(2, Write::forget())]);
    let (mut wal, recovery) = open(wal.into_disk());
    assert_eq!(recovery.groups.keys().collect::<Vec<_>>(), [&GroupId(1)]);
    // The other group's log moves on, and the segments come free.
    for id in 4..200 {
        let write =
            Write { compact: Some(Box::new(base(id - 3, 1))), ..entries(id - 2, 1, 1, 700) };
        put(&mut wal, id, vec![(1, write)]);
    }
    let stats = wal.stats();
    assert!(stats.segments <= 2, "{stats:?}");
    // It may begin anew, with nothing of before.
    put(&mut wal, 200, vec![(2, entries(1, 2, 7, 10))]);
    let (_, recovery) = open(wal.into_disk());
    let two = &recovery.groups[&GroupId(2)];
    assert_eq!((positions(two), two.hard_state), (vec![(1, 7), (2, 7)], Default::default()));
}

/// That there is a group of which nothing is known yet is not that there is none: its state may
/// have gone on when the log is found.
#[test]
fn a_group_that_begins_nowhere_is_there() {
    let (mut wal, _) = open(MemoryDisk::new());
    put(&mut wal, 1, vec![(1, Write::begin(Base::default())), (2, Write::begin(base(1, 0)))]);
    let (mut wal, recovery) = open(wal.into_disk());
    assert_eq!(recovery.groups.keys().collect::<Vec<_>>(), [&GroupId(1), &GroupId(2)]);
    assert_eq!(recovery.groups[&GroupId(1)], RecoveredGroup::default());
    put(&mut wal, 2, vec![(1, Write::forget())]);
    let (_, recovery) = open(wal.into_disk());
    assert_eq!(recovery.groups.keys().collect::<Vec<_>>(), [&GroupId(2)]);
}
