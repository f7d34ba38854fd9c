//! What is known of damage, or of doubt, outlives whatever told of it: the segment, or the promise
//! of that time.

use crate::damage::{FILE, FIRST, PAGE, blocks, options};
use crate::support::*;
use quorate_base::GroupId;
use quorate_disk::{Disk, MemoryDisk};
use quorate_replicated_log::Write;
use quorate_wal::Wal;

/// A slot is lost, and all before it is compacted. That something was accepted in it is known for
/// as long as it is not compacted too, whatever becomes of the segment it was in.
#[test]
fn a_lost_slot_is_not_taken_for_one_that_was_never_filled() {
    let (mut wal, _) = Wal::open(MemoryDisk::new(), options()).unwrap();
    let slots = |write: Write| Write {
        slots: vec![write.entries.clone()],
        entries: Default::default(),
        ..write
    };
    let begin = Write { reset: Some(Box::new(base(0, 0))), ..entries(1, 5, 1, 40) };
    put(&mut wal, 1, vec![(1, slots(begin))]);
    put(&mut wal, 2, vec![(1, slots(entries(6, 1, 1, 40)))]);
    let mut id = 3;
    put(&mut wal, id, vec![(2, Write { reset: Some(Box::new(base(0, 0))), ..nothing() })]);
    while wal.stats().segments < 2 {
        id += 1;
        put(&mut wal, id, vec![(2, entries(id - 3, 1, 1, 9_000))]);
    }
    put(&mut wal, id + 1, vec![(1, slots(entries(7, 1, 1, 40)))]);
    let mut disk = wal.into_disk();
    disk.crash();
    let mut content = disk.content(FILE).unwrap().to_vec();
    let (lost, len) = blocks(&disk, 64 << 10)[2];
    content[lost..lost + len].fill(0);
    disk.put(FILE, content);
    let (mut wal, found) = Wal::open(disk, options()).unwrap();
    assert_eq!(found.groups[&GroupId(1)].damaged, [6..=6]);
    let compact = |to| Write { compact: Some(Box::new(base(to, 1))), ..nothing() };
    put(&mut wal, 1, vec![(1, compact(5)), (2, compact(id - 3))]);
    for more in 2..12 {
        put(&mut wal, more, vec![(3, entries(more, 1, 1, 10))]);
    }
    let mut disk = wal.into_disk();
    disk.crash();
    let (mut wal, found) = Wal::open(disk, options()).unwrap();
    assert_eq!(found.groups[&GroupId(1)].damaged, [6..=6], "still");
    put(&mut wal, 1, vec![(1, compact(6))]);
    for more in 2..12 {
        put(&mut wal, more, vec![(3, entries(20 + more, 1, 1, 10))]);
    }
    assert!(!wal.disk().list().unwrap().contains(&FILE.to_owned()), "then it is given up");
}

/// A round is promised after an entry was lost: that the entry was of the one before stays known.
#[test]
fn the_ballots_of_a_lost_block_outlive_the_promise_of_its_time() {
    let (mut wal, _) = Wal::open(MemoryDisk::new(), options()).unwrap();
    let begin = Write {
        reset: Some(Box::new(base(0, 0))),
        hard_state: Some(hard_state(4, 0)),
        ..entries(1, 3, 4, 40)
    };
    put(&mut wal, 1, vec![(1, begin)]);
    put(&mut wal, 2, vec![(1, entries(4, 2, 4, 40))]);
    let promise = Write { hard_state: Some(hard_state(7, 3)), ..nothing() };
    put(&mut wal, 3, vec![(1, promise)]);
    let mut disk = wal.into_disk();
    disk.crash();
    let end = FIRST + 4 * PAGE;
    let (lost, len) = blocks(&disk, end)[2];
    let mut content = disk.content(FILE).unwrap().to_vec();
    content[lost..lost + len].fill(0);
    disk.put(FILE, content);
    let (_, found) = Wal::open(disk, options()).unwrap();
    let group = &found.groups[&GroupId(1)];
    assert_eq!((group.damaged.clone(), group.hard_state), (vec![4..=5], hard_state(7, 3)));
    let known: Vec<_> = group.damaged_ballots.iter().map(|it| (it.index, it.ballot)).collect();
    assert_eq!(known, [(4, ballot(4)), (5, ballot(4))]);
}

/// What the log begins with may have been lost while the segment before it still told how much that
/// was. That it is known outlives that segment.
#[test]
fn a_damaged_beginning_is_no_worse_without_the_segment_before_it() {
    let (mut wal, _) = Wal::open(MemoryDisk::new(), options()).unwrap();
    let mut id = 0;
    let mut write = |wal: &mut Wal<MemoryDisk>| {
        id += 1;
        put(wal, id, vec![(1, entries(id, 1, 1, 15_000))]);
        id
    };
    while wal.stats().segments < 2 {
        write(&mut wal);
    }
    write(&mut wal);
    let last = write(&mut wal);
    let mut disk = wal.into_disk();
    disk.crash();
    let second = "0000000000000002.log";
    let mut content = disk.content(second).unwrap().to_vec();
    let is_block = |page: usize| &content[page * PAGE + 8..page * PAGE + 12] == b"QBLK";
    let begins: Vec<usize> = (2..content.len() / PAGE).filter(|page| is_block(*page)).collect();
    assert_eq!(begins, [2, 6, 10], "three blocks of four pages");
    content[FIRST..10 * PAGE].fill(0x5a);
    disk.put(second, content);
    let (mut wal, found) = Wal::open(disk, options()).unwrap();
    assert_eq!(found.report.lost_blocks, 2);
    put(&mut wal, 1, vec![(1, Write { compact: Some(Box::new(base(last - 1, 1))), ..nothing() })]);
    let mut more = 1;
    while wal.disk().list().unwrap().contains(&FILE.to_owned()) {
        more += 1;
        assert!(more < 20, "the first segment is given up");
        put(&mut wal, more, vec![(2, entries(more, 1, 1, 10))]);
    }
    let mut disk = wal.into_disk();
    disk.crash();
    let (_, found) = Wal::open(disk, options()).expect("all is known of what is lost");
    assert_eq!(found.groups[&GroupId(1)].end(), last);
}

/// A crash between the parts of a write that takes entries away leaves those after its first part
/// in doubt. That they are outlives the segment that says so.
#[test]
fn a_doubt_outlives_the_segment_that_tells_of_it() {
    let (mut wal, _) = Wal::open(MemoryDisk::new(), options()).unwrap();
    let begin = Write { reset: Some(Box::new(base(0, 0))), ..entries(1, 5, 1, 40) };
    put(&mut wal, 1, vec![(1, begin)]);
    let first_part = FIRST + 2 * PAGE;
    let repair = Write { truncate_from: Some(3), ..entries(3, 18, 2, 2_000) };
    put(&mut wal, 2, vec![(1, repair)]);
    let mut disk = wal.into_disk();
    disk.crash();
    let parts = blocks(&disk, 64 << 10);
    let (start, len) = parts[2];
    assert_eq!(start, first_part);
    let mut content = disk.content(FILE).unwrap().to_vec();
    content[start + len..].fill(0);
    disk.put(FILE, content);
    let (mut wal, found) = Wal::open(disk, options()).unwrap();
    let group = &found.groups[&GroupId(1)];
    let (last, damaged) = (positions(group).last().unwrap().0, group.damaged.clone());
    assert_eq!(damaged, [last + 1..=20]);
    put(&mut wal, 1, vec![(1, Write { compact: Some(Box::new(base(last, 2))), ..nothing() })]);
    let (mut id, mut at) = (1, 0);
    while wal.disk().list().unwrap().contains(&FILE.to_owned()) {
        id += 1;
        let more = entries(id, 1, 1, 9_000);
        let compact = (id > 2).then(|| Box::new(base(id - 1, 1)));
        put(&mut wal, id, vec![(2, Write { compact, ..more })]);
        at += 1;
        if at == 30 {
            let mut disk = wal.into_disk();
            disk.crash();
            let (again, found) = Wal::open(disk, options()).unwrap();
            wal = again;
            assert_eq!(found.groups[&GroupId(1)].damaged, damaged, "still");
            put(
                &mut wal,
                id,
                vec![(1, Write { compact: Some(Box::new(base(20, 2))), ..nothing() })],
            );
        }
        assert!(at < 60, "then it is given up");
    }
    assert!(at >= 30, "the doubt was given up with its segment");
}
