//! What a crash left unfinished, was cut off and written over, and lies bare again because the
//! block that took its place is lost.

use crate::support::*;
use quorate_base::{GroupId, Index};
use quorate_disk::MemoryDisk;
use quorate_replicated_log::Write;
use quorate_wal::{Recovery, WalError, WalOptions};

const FILE: &str = "0000000000000001.log";
const PAGE: usize = 4096;

fn content(disk: &MemoryDisk) -> Vec<u8> {
    disk.content(FILE).unwrap().to_vec()
}

/// Where the last page ends of which anything is written.
fn end(content: &[u8]) -> usize {
    let written = |page: &[u8]| page.iter().any(|byte| *byte != 0);
    content.chunks(PAGE).rposition(written).map_or(0, |page| (page + 1) * PAGE)
}

fn damaged(found: &Recovery) -> Vec<Index> {
    found.groups[&GroupId(1)].damaged.iter().cloned().flatten().collect()
}

/// A log with entries 1 to 3, and what a crash left of a block of several pages: its first page.
/// Where that block began, and the disk after the crash.
fn torn(unfinished: Write) -> (usize, MemoryDisk) {
    let (mut wal, _) = open(MemoryDisk::new());
    put(&mut wal, 1, vec![(1, Write { reset: Some(Box::new(base(0, 0))), ..nothing() })]);
    put(&mut wal, 2, vec![(1, entries(1, 3, 1, 40))]);
    let mut disk = wal.into_disk();
    disk.crash();
    let (mut wal, _) = open(disk.clone());
    put(&mut wal, 3, vec![(1, unfinished)]);
    let mut whole = wal.into_disk();
    whole.crash();
    let all = content(&whole);
    // The opening block of the last run stands before it, in one page.
    let start = end(&content(&disk)) + PAGE;
    assert!(end(&all) >= start + 2 * PAGE, "several pages");
    let mut left = all;
    left[start + PAGE..].fill(0);
    whole.put(FILE, left);
    (start, whole)
}

/// The log of [`torn`] once it has gone on with one-page blocks for these writes; the opening
/// block before them, which took the place of what was torn, is lost.
fn bare_again(unfinished: Write, later: Vec<Write>) -> Recovery {
    let (start, disk) = torn(unfinished);
    let left = content(&disk);
    let (mut wal, recovery) = open(disk);
    assert_eq!(positions(&recovery.groups[&GroupId(1)]), [(1, 1), (2, 1), (3, 1)]);
    assert!(recovery.report.torn_bytes > 0);
    let pages = later.len();
    for (id, write) in (10..).zip(later) {
        put(&mut wal, id, vec![(1, write)]);
    }
    let mut disk = wal.into_disk();
    disk.crash();
    let mut now = content(&disk);
    assert_eq!(end(&now), start + (1 + pages) * PAGE, "each in a page");
    now[start..start + PAGE].copy_from_slice(&left[start..start + PAGE]);
    disk.put(FILE, now);
    let (wal, found) = open(disk);
    // What it goes on with is what it found.
    let (_, again) = open(wal.into_disk());
    assert_eq!(again.groups, found.groups);
    found
}

fn many_pages(from: Index) -> Write {
    entries(from, 1, 2, 3 * PAGE)
}

#[test]
fn what_begins_within_what_was_cut_off_is_read() {
    let found = bare_again(many_pages(4), vec![entries(4, 1, 3, 40), entries(5, 1, 3, 40)]);
    let known = [(1, 1), (2, 1), (3, 1), (4, 3), (5, 3)];
    assert_eq!(positions(&found.groups[&GroupId(1)]), known);
    assert_eq!(damaged(&found), [] as [Index; 0]);
    // The same where only one block follows.
    let found = bare_again(many_pages(4), vec![entries(4, 1, 3, 40)]);
    assert_eq!(positions(&found.groups[&GroupId(1)]), known[..4]);
}

#[test]
fn what_was_cut_off_does_not_count_again() {
    // All rows of the unfinished block can be read: it must not truncate what was promised.
    let unfinished =
        Write { truncate_from: Some(2), hard_state: Some(hard_state(2, 1)), ..many_pages(2) };
    let later = Write { hard_state: Some(hard_state(3, 1)), ..nothing() };
    let found = bare_again(unfinished, vec![later]);
    let group = &found.groups[&GroupId(1)];
    assert_eq!(positions(group), [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(group.hard_state, hard_state(3, 1));
    assert_eq!(damaged(&found), [] as [Index; 0]);
}

/// In one page too: nothing begins within it, but the blocks behind it tell.
#[test]
fn a_page_that_was_cut_off_does_not_count_again() {
    let (mut wal, _) = open(MemoryDisk::new());
    put(&mut wal, 1, vec![(1, Write { reset: Some(Box::new(base(0, 0))), ..nothing() })]);
    put(&mut wal, 2, vec![(1, entries(1, 3, 1, 40))]);
    let mut disk = wal.into_disk();
    disk.crash();
    let start = end(&content(&disk)) + PAGE;
    let (mut wal, _) = open(disk);
    let unfinished = Write { truncate_from: Some(2), ..entries(2, 1, 2, 2_500) };
    put(&mut wal, 3, vec![(1, unfinished)]);
    let mut disk = wal.into_disk();
    disk.crash();
    let mut tried = 0;
    for sectors in 1..PAGE / 512 {
        let mut disk = disk.clone();
        let mut left = content(&disk);
        assert_eq!(end(&left), start + PAGE);
        left[start + sectors * 512..start + PAGE].fill(0);
        disk.put(FILE, left.clone());
        let (mut wal, recovery) = open(disk);
        if recovery.report.torn_bytes == 0 {
            continue; // Either copy of everything is there: it is not torn.
        }
        tried += 1;
        put(&mut wal, 4, vec![(1, entries(4, 1, 3, 40))]);
        put(&mut wal, 5, vec![(1, entries(5, 1, 3, 40))]);
        let mut disk = wal.into_disk();
        disk.crash();
        let mut now = content(&disk);
        now[start..start + PAGE].copy_from_slice(&left[start..start + PAGE]);
        disk.put(FILE, now);
        let (_, found) = open(disk);
        let known = [(1, 1), (2, 1), (3, 1), (4, 3), (5, 3)];
        assert_eq!(positions(&found.groups[&GroupId(1)]), known, "{sectors} sectors");
        assert_eq!(damaged(&found), [] as [Index; 0], "{sectors} sectors");
    }
    assert!(tried > 3, "{tried}");
}

/// A block of several pages did not fit and was to begin the next segment, where its first page is
/// whole; the first block of the next run fitted, and is torn as well. Neither was promised.
#[test]
fn two_torn_blocks_in_two_segments_are_cut_off() {
    const NEXT: &str = "0000000000000002.log";
    let (mut wal, _) = open(MemoryDisk::new());
    put(&mut wal, 1, vec![(1, Write { reset: Some(Box::new(base(0, 0))), ..nothing() })]);
    let mut entry = 0;
    // One page is left.
    while wal.stats().bytes + 3 * (PAGE as u64) < WalOptions::small().segment_bytes {
        entry += 1;
        put(&mut wal, 1 + entry, vec![(1, entries(entry, 1, 1, 40))]);
    }
    put(&mut wal, 2 + entry, vec![(1, many_pages(entry + 1))]);
    let mut disk = wal.into_disk();
    disk.crash();
    let mut next = disk.content(NEXT).unwrap().to_vec();
    assert!(end(&next) > 3 * PAGE, "it is there");
    next[3 * PAGE..].fill(0);
    disk.put(NEXT, next);
    let (wal, known) = open(disk);
    assert_eq!(known.groups[&GroupId(1)].end(), entry);
    let mut disk = wal.into_disk();
    disk.crash();
    let mut now = content(&disk);
    let last = now.len() - PAGE;
    assert!(now[last..].iter().any(|byte| *byte != 0), "the first block of the run fitted");
    now[last..last + 512].fill(0);
    disk.put(FILE, now);
    let (_, found) = open(disk);
    assert_eq!(found.groups, known.groups);
}

/// What is cut off proves that there was something before it, though nothing of that can be read.
#[test]
fn a_log_of_which_only_an_unfinished_block_is_left_does_not_open_empty() {
    let (start, mut disk) = torn(many_pages(4));
    let mut left = content(&disk);
    left[2 * PAGE..start].fill(0);
    disk.put(FILE, left);
    match try_open(disk) {
        Ok((_, found)) => {
            assert_eq!(found.groups[&GroupId(1)].end(), 4, "entries 1 to 3 are missed")
        }
        Err(error) => assert!(matches!(error, WalError::Damaged { .. }), "{error}"),
    }
}

/// A sector at `place` as the block of this number left it, if its write went astray.
fn astray(number: u32, place: u64) -> Vec<u8> {
    let low = number.to_le_bytes();
    let check = crc32c::crc32c_append(crc32c::crc32c(&low), &place.to_le_bytes());
    let mut sector = vec![0x5a; 512];
    sector[..4].copy_from_slice(&low);
    sector[4..8].copy_from_slice(&check.to_le_bytes());
    sector
}

/// A file is used anew, and in it lies a block of before whose write went astray. Where the last
/// block, which lost its power, did not replace it, that proves that it was not finished.
#[test]
fn what_went_astray_in_an_earlier_use_of_the_file_proves_what_is_torn() {
    const NEXT: &str = "0000000000000002.log";
    let (mut wal, _) = open(MemoryDisk::new());
    put(&mut wal, 1, vec![(1, Write { reset: Some(Box::new(base(0, 0))), ..nothing() })]);
    let (mut entry, mut fits) = (0, true);
    while fits {
        entry += 1;
        put(&mut wal, 1 + entry, vec![(1, entries(entry, 1, 1, 40))]);
        fits = wal.stats().bytes + 2 * (PAGE as u64) < WalOptions::small().segment_bytes;
    }
    for _ in 0..3 {
        entry += 1;
        put(&mut wal, 1 + entry, vec![(1, entries(entry, 1, 1, 1_500))]);
    }
    let mut disk = wal.into_disk();
    disk.crash();
    let whole = disk.content(NEXT).unwrap().to_vec();
    let last = end(&whole) - PAGE;
    assert!(last > 3 * PAGE, "there is a block before it");
    let number = u32::from_le_bytes(*whole[last..].first_chunk().unwrap());
    let mut found = |number: u32| {
        let mut left = whole.clone();
        // All but the header and what repeats it at the end.
        let sectors = (1..PAGE / 512 - 1).map(|sector| last + sector * 512);
        sectors.for_each(|at| {
            left[at..at + 512].copy_from_slice(&astray(number, (at - 3 * PAGE) as u64));
        });
        disk.put(NEXT, left);
        try_open(disk.clone()).map(|(_, found)| found)
    };
    let torn = found(3).unwrap();
    assert_eq!(torn.groups[&GroupId(1)].end(), entry - 1);
    assert_eq!(damaged(&torn), [] as [Index; 0]);
    assert!(torn.report.torn_bytes > 0);
    // One of this use proves nothing, nor one of before the log's beginning, nor one that is far
    // away: the last block may have been promised.
    for number in [number, number - 1, 0, number.wrapping_sub(1 << 30)] {
        match found(number) {
            Ok(found) => assert_eq!(damaged(&found), [entry], "{number}"),
            Err(error) => assert!(matches!(error, WalError::Damaged { .. }), "{error}"),
        }
    }
}
