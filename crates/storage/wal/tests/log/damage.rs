//! Damage behind the log's back: bits, sectors, pages, misdirected and lost writes. Whatever was
//! acknowledged is found again or reported damaged by group and index; the log never panics.

use crate::support::*;
use quorate_base::{GroupId, Index, Rng};
use quorate_disk::{Disk, MemoryDisk, Operation};
use quorate_replicated_log::{Entry, Write};
use quorate_wal::{RecoveredGroup, Recovery, Wal, WalError, WalOptions};
use std::collections::BTreeMap;

pub(crate) const FILE: &str = "0000000000000001.log";
pub(crate) const PAGE: usize = 4096;
/// Blocks begin here; the first is the opening one.
pub(crate) const FIRST: usize = 2 * PAGE;

pub(crate) fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 64 << 10,
        max_record_bytes: 16 << 10,
        max_block_bytes: 20 << 10,
        reserve_bytes: 8 << 10,
        ..WalOptions::default()
    }
}

struct Known {
    hard_state: quorate_replicated_log::HardState,
    base: quorate_replicated_log::Base,
    entries: BTreeMap<Index, Entry>,
}

/// A log of six blocks after the opening one, ending at the returned offset.
fn small_log() -> (MemoryDisk, BTreeMap<u64, Known>, usize) {
    let (mut wal, _) = Wal::open(MemoryDisk::new(), options()).unwrap();
    let begin = |round| Write {
        reset: Some(Box::new(base(0, 0))),
        hard_state: Some(hard_state(round, 0)),
        ..entries(1, 3, round, 40)
    };
    put(&mut wal, 1, vec![(1, begin(1)), (2, begin(2))]);
    put(&mut wal, 2, vec![(1, entries(4, 2, 1, 2_500))]);
    put(&mut wal, 3, vec![(2, Write { truncate_from: Some(3), ..entries(3, 2, 4, 60) })]);
    put(&mut wal, 4, vec![(1, Write { hard_state: Some(hard_state(5, 4)), ..nothing() })]);
    put(&mut wal, 5, vec![(2, Write { compact: Some(Box::new(base(1, 2))), ..nothing() })]);
    let last = Write { hard_state: Some(hard_state(6, 5)), ..entries(6, 1, 6, 700) };
    put(&mut wal, 6, vec![(1, last)]);
    let pages = wal.stats().bytes as usize;
    let mut disk = wal.into_disk();
    disk.crash();
    let (_, recovery) = Wal::open(disk.clone(), options()).unwrap();
    let known = recovery.groups.iter().map(|(id, group)| {
        assert!(group.damaged.is_empty());
        let all = group.entries.iter().flat_map(|run| run.to_vec());
        let entries = all.map(|entry| (entry.index, entry)).collect();
        (id.0, Known { hard_state: group.hard_state, base: group.base.clone(), entries })
    });
    let known: BTreeMap<_, _> = known.collect();
    let counts: Vec<_> = known.values().map(|known| known.entries.len()).collect();
    assert_eq!(counts, [6, 3]);
    (disk, known, FIRST + pages)
}

fn is_damaged(group: &RecoveredGroup, index: Index) -> bool {
    group.damaged.iter().any(|range| range.contains(&index))
}

/// Every entry is as it was or reported; nothing else is there; returns how many are reported.
fn check(found: &Recovery, known: &BTreeMap<u64, Known>, hint: &str) -> usize {
    let mut damaged = 0;
    for (id, known) in known {
        let group = found.groups.get(&GroupId(*id)).unwrap_or_else(|| panic!("{hint}: {id}"));
        assert_eq!(group.hard_state, known.hard_state, "{hint}: hard state of {id}");
        assert_eq!(group.base, known.base, "{hint}: base of {id}");
        let entries = group.entries.iter().flat_map(|run| run.to_vec());
        let entries: BTreeMap<_, _> = entries.map(|entry| (entry.index, entry)).collect();
        for (index, entry) in &known.entries {
            match entries.get(index) {
                Some(found) => assert_eq!(found, entry, "{hint}"),
                None => assert!(is_damaged(group, *index), "{hint}: entry {index} of {id} lost"),
            }
            damaged += usize::from(!entries.contains_key(index));
        }
        assert!(entries.keys().all(|index| known.entries.contains_key(index)), "{hint}: revived");
    }
    assert_eq!(found.groups.len(), known.len(), "{hint}");
    damaged
}

#[test]
fn every_flipped_byte_is_harmless_or_names_its_entry() {
    let (disk, known, end) = small_log();
    let mut reported = BTreeMap::<usize, usize>::new();
    for offset in 0..end + PAGE {
        let mut disk = disk.clone();
        let mask = [0x01, 0x80, 0xff, 0x10][offset % 4];
        assert!(disk.corrupt(FILE, offset, mask));
        let hint = format!("byte {offset:#x}");
        let (mut wal, found) = Wal::open(disk, options()).unwrap_or_else(|e| panic!("{hint}: {e}"));
        let damaged = check(&found, &known, &hint);
        assert!(damaged <= 1, "{hint}: one byte hurts one entry");
        *reported.entry(damaged).or_default() += 1;
        if offset % 64 == 0 {
            // The log goes on, and what was found is found again.
            put(&mut wal, 1, vec![(3, entries(1, 1, 1, 1))]);
            let (_, mut again) = Wal::open(wal.into_disk(), options()).unwrap();
            assert_eq!(positions(&again.groups[&GroupId(3)]), [(1, 1)]);
            again.groups.remove(&GroupId(3));
            assert_eq!(again.groups, found.groups, "{hint}");
        }
    }
    assert!(reported[&1] > 5_000, "payload bytes were hit: {reported:?}");
}

/// The pages of the log's blocks, each as (first page, pages).
pub(crate) fn blocks(disk: &MemoryDisk, end: usize) -> Vec<(usize, usize)> {
    let content = disk.content(FILE).unwrap();
    let starts: Vec<usize> = (FIRST..end)
        .step_by(PAGE)
        .filter(|start| &content[start + 8..start + 12] == b"QBLK")
        .collect();
    let ends = starts.iter().skip(1).copied().chain([end]);
    starts.iter().zip(ends).map(|(start, end)| (*start, end - start)).collect()
}

#[test]
fn a_block_that_vanished_is_missed_and_attributed() {
    let (disk, known, end) = small_log();
    let blocks = blocks(&disk, end);
    assert_eq!(blocks.len(), 7);
    // The last block's loss is a write that never was; every other's has witnesses.
    for (start, len) in &blocks[..6] {
        for fill in [0u8, 0xa5] {
            let mut content = disk.content(FILE).unwrap().to_vec();
            content[*start..start + len].fill(fill);
            let mut disk = disk.clone();
            disk.put(FILE, content);
            let hint = format!("block at {start:#x}");
            let (_, found) = match Wal::open(disk, options()) {
                Ok(opened) => opened,
                Err(error) => {
                    panic!("{hint}: {error}");
                }
            };
            assert_eq!(found.report.lost_blocks, 1, "{hint}");
            let mut bare = found.clone();
            for (id, group) in &mut bare.groups {
                // A base lives in its block alone: without it, what it covered is reported.
                let known = &known[&id.0];
                if group.base != known.base {
                    let first = group.base.position.index + 1;
                    let covered = first..=known.base.position.index;
                    let entries: Vec<_> = positions(group);
                    for index in covered {
                        let there = entries.iter().any(|(i, _)| *i == index);
                        assert!(there || is_damaged(group, index), "{hint}: {index}");
                    }
                    group.base = known.base.clone();
                    group.entries = group
                        .entries
                        .iter()
                        .map(|run| {
                            let first = known.base.position.index + 1;
                            run.iter().filter(|e| e.index >= first).cloned().collect::<Vec<_>>()
                        })
                        .map(Into::into)
                        .collect();
                }
            }
            check(&bare, &known, &hint);
        }
    }
}

#[test]
fn a_misdirected_block_is_believed_nowhere() {
    let (disk, known, end) = small_log();
    let blocks = blocks(&disk, end);
    for (from, len) in &blocks {
        for (to, room) in &blocks[1..6] {
            // The first block's base would go with it; see the test above.
            if from == to || len > room || *to == blocks[1].0 || *to == blocks[5].0 {
                continue;
            }
            let mut content = disk.content(FILE).unwrap().to_vec();
            let moved = content[*from..from + len].to_vec();
            content[*to..to + len].copy_from_slice(&moved);
            let mut disk = disk.clone();
            disk.put(FILE, content);
            let hint = format!("block at {from:#x} over {to:#x}");
            match Wal::open(disk, options()) {
                Ok((_, found)) => {
                    let damaged = check(&found, &known, &hint);
                    // Where a longer block lost its first page only, its trailer still tells.
                    assert!(damaged > 0 || found.report.lost_blocks == 1, "{hint}");
                }
                Err(error) => panic!("{hint}: {error}"),
            }
        }
    }
}

/// The first block of a run promises nothing and may be torn. But that there was a block before it,
/// which is gone, it says as long as its header can be read.
#[test]
fn what_tells_of_a_lost_block_is_not_cut_off() {
    let (disk, known, end) = small_log();
    let (lost, len) = *blocks(&disk, end).last().unwrap();
    let (wal, _) = Wal::open(disk, options()).unwrap();
    let mut disk = wal.into_disk();
    disk.crash();
    let mut refused = 0;
    for at in end..end + PAGE {
        let mut content = disk.content(FILE).unwrap().to_vec();
        content[lost..lost + len].fill(0);
        content[at] ^= 0x41;
        let mut disk = disk.clone();
        disk.put(FILE, content);
        let hint = format!("the last block is lost, byte {at:#x} of the next changed");
        match Wal::open(disk, options()) {
            Ok((_, found)) => assert!(check(&found, &known, &hint) > 0, "{hint}"),
            Err(WalError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("{hint}: {error}"),
        }
    }
    assert!(refused < PAGE / 2, "most damage leaves enough: {refused} refused");
}

/// A write went astray, and the file it went to is another segment by now. Should the log end right
/// before what is left of it, that is no block of which both headers are gone.
#[test]
fn what_went_astray_in_an_earlier_segment_does_not_end_the_log() {
    let (mut wal, _) = Wal::open(MemoryDisk::new(), options()).unwrap();
    for id in 1..=4 {
        put(&mut wal, id, vec![(1, entries(id, 1, 1, 15_000))]);
    }
    let mut disk = wal.into_disk();
    disk.crash();
    let (_, known) = Wal::open(disk.clone(), options()).unwrap();
    let names = disk.list().unwrap();
    let content = |name: &str| disk.content(name).unwrap().to_vec();
    let in_use = |name: &&String| content(name)[FIRST..].iter().any(|byte| *byte != 0);
    let newest = names.iter().filter(in_use).max().unwrap();
    assert!(newest.as_str() > FILE);
    let pages = content(newest);
    let end = pages.chunks(PAGE).rposition(|page| page.iter().any(|byte| *byte != 0)).unwrap() + 1;
    let (from, len) = *blocks(&disk, 64 << 10).iter().find(|(_, len)| *len > 2 * PAGE).unwrap();
    let stray = content(FILE)[from..from + len].to_vec();
    for overwritten in (0..len).step_by(PAGE) {
        let left = &stray[overwritten..];
        let mut pages = pages.clone();
        pages[end * PAGE..end * PAGE + left.len()].copy_from_slice(left);
        let mut disk = disk.clone();
        disk.put(newest, pages);
        for _ in 0..2 {
            let (wal, found) = Wal::open(disk, options()).expect("it is no end of the log");
            assert_eq!(found.groups, known.groups, "{overwritten:#x} bytes are written over");
            disk = wal.into_disk();
            disk.crash();
        }
    }
}

#[test]
fn any_lost_sectors_are_reported_or_refused() {
    let (disk, known, end) = small_log();
    let last = blocks(&disk, end)[6].0;
    let mut refused = 0;
    for seed in 0..3_000 {
        let mut rng = Rng::new(seed);
        let mut content = disk.content(FILE).unwrap().to_vec();
        for _ in 0..rng.between(1, 4) {
            let at = rng.below((last / 512) as u64) as usize * 512;
            let sectors = rng.between(1, 3) as usize;
            for byte in &mut content[at..(at + sectors * 512).min(last)] {
                *byte = rng.next_u64() as u8;
            }
        }
        let mut disk = disk.clone();
        disk.put(FILE, content);
        match Wal::open(disk, options()) {
            Err(WalError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("seed {seed}: {error}"),
            Ok((_, mut found)) => {
                for (id, group) in &mut found.groups {
                    let known = &known[&id.0];
                    // As above, a lost base leaves an older one in force.
                    if group.base != known.base {
                        assert!(group.base.position.index <= known.base.position.index);
                        group.base = known.base.clone();
                        group.entries = Vec::new();
                        let last = known.entries.keys().last().unwrap();
                        group.damaged = vec![1..=*last];
                    }
                }
                check(&found, &known, &format!("seed {seed}"));
            }
        }
    }
    assert!((1..2_000).contains(&refused), "{refused}");
}

#[test]
fn a_whole_segment_that_vanished_is_missed() {
    let (mut wal, _) = Wal::open(MemoryDisk::new(), options()).unwrap();
    for id in 1..40 {
        put(&mut wal, id, vec![(1, entries(id, 1, 1, 5_000))]);
    }
    assert!(wal.stats().segments > 3);
    let disk = wal.into_disk();
    for sequence in 1..=4 {
        let name = format!("{sequence:016x}.log");
        let mut blank = disk.clone();
        let pages = disk.content(&name).unwrap().len();
        blank.put(&name, vec![0; pages]);
        let refused = Wal::open(blank, options());
        assert!(matches!(refused, Err(WalError::Damaged { .. })), "segment {sequence}");
    }
}

/// Whatever file is gone or ends too early: the log is refused, or names what it lost.
#[test]
fn a_file_that_is_gone_or_cut_is_missed() {
    let (mut wal, _) = Wal::open(MemoryDisk::new(), options()).unwrap();
    for id in 1..40 {
        put(&mut wal, id, vec![(1, entries(id, 1, 1, 5_000))]);
    }
    let last = wal.stats().segments;
    let disk = wal.into_disk();
    let prepared = format!("{:016x}.log", last + 1);
    assert!(disk.list().unwrap().contains(&prepared), "the next file is there before it is used");
    let misses = |disk: MemoryDisk, what: &str| match Wal::open(disk, options()) {
        Err(error @ WalError::Damaged { .. }) => {
            assert!(error.to_string().contains("remove this member"), "{what}: {error}");
            true
        }
        Err(error) => panic!("{what}: {error}"),
        Ok((_, found)) => {
            let group = &found.groups[&GroupId(1)];
            let runs = || group.entries.iter().flat_map(|run| run.iter());
            let known = |index| runs().any(|e| e.index == index) || is_damaged(group, index);
            assert!((1..40).all(known), "{what}: {group:?}");
            false
        }
    };
    for sequence in 1..=last {
        let name = format!("{sequence:016x}.log");
        let mut gone = disk.clone();
        gone.submit(Operation::Remove { file: name.clone() });
        while gone.poll().is_some() {}
        let refused = misses(gone, &name);
        assert!(refused || sequence < last, "{name} is gone, and nobody minds");
        let content = disk.content(&name).unwrap().to_vec();
        for page in 0..content.len() / PAGE {
            let mut cut = disk.clone();
            cut.put(&name, content[..page * PAGE].to_vec());
            let refused = misses(cut, &format!("{name} cut to {page} pages"));
            assert!(refused || sequence < last, "{name} cut to {page} pages, and nobody minds");
        }
    }
}

/// A log whose last block is the first of its segment, the newest file; returns its name and the
/// block's length.
fn ends_in_a_new_segment() -> (MemoryDisk, String, usize) {
    let (mut wal, _) = Wal::open(MemoryDisk::new(), options()).unwrap();
    let mut id = 0;
    while wal.stats().segments < 2 {
        id += 1;
        put(&mut wal, id, vec![(1, entries(id, 1, 1, 5_000))]);
    }
    let mut disk = wal.into_disk();
    disk.crash();
    let last = "0000000000000002.log".to_owned();
    let after = "0000000000000003.log".to_owned();
    disk.submit(Operation::Remove { file: after });
    while disk.poll().is_some() {}
    let content = disk.content(&last).unwrap();
    let end =
        content.chunks(PAGE).rposition(|page| page.iter().any(|byte| *byte != 0)).unwrap() + 1;
    let len = end * PAGE - FIRST;
    assert!(Wal::open(disk.clone(), options()).is_ok(), "without the damage nothing is missed");
    (disk, last, len)
}

/// What was written last may be the first block of a segment that nothing else tells of.
#[test]
fn the_first_block_of_the_last_segment_is_missed() {
    let (disk, name, len) = ends_in_a_new_segment();
    let content = disk.content(&name).unwrap().to_vec();
    let refused = |content: Vec<u8>, what: &str| {
        let mut disk = disk.clone();
        disk.put(&name, content);
        let opened = Wal::open(disk, options());
        assert!(matches!(opened, Err(WalError::Damaged { .. })), "{what}: nobody minds");
    };
    let mut headless = content.clone();
    headless[FIRST + 40] ^= 2;
    headless[FIRST + len - 20] ^= 2;
    refused(headless, "both headers damaged");
    for end in (PAGE..content.len()).step_by(211) {
        refused(content[..end].to_vec(), &format!("cut to {end} bytes"));
    }
}

#[test]
fn garbage_is_never_a_panic() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut disk = MemoryDisk::new();
        let garbage = (0..rng.below(40_000)).map(|_| rng.next_u64() as u8).collect();
        disk.put(FILE, garbage);
        disk.put("000000000000000z.log", vec![1]);
        disk.put("0000000000000009.free", vec![1]);
        match Wal::open(disk, options()) {
            Ok((_, found)) => assert!(found.groups.is_empty()),
            Err(WalError::Damaged { .. }) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
}

#[test]
fn a_newer_format_is_refused_with_what_to_do() {
    let (disk, ..) = small_log();
    let mut content = disk.content(FILE).unwrap().to_vec();
    for copy in [0, PAGE] {
        content[copy + 8] = 3;
        let crc = {
            let version = crc32c(&content[copy + 8..copy + 12], 0);
            crc32c(&content[copy + 16..copy + 56], version)
        };
        content[copy + 12..copy + 16].copy_from_slice(&crc.to_le_bytes());
    }
    let mut disk = disk.clone();
    disk.put(FILE, content);
    let error = Wal::open(disk, options()).unwrap_err().to_string();
    assert!(error.contains("format 3") && error.contains("start the version"), "{error}");
}

/// Plain bitwise CRC-32C, so that the format does not rest on one library's word.
pub(crate) fn crc32c(bytes: &[u8], before: u32) -> u32 {
    let mut crc = !before;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

#[test]
fn the_log_of_another_node_is_refused() {
    let owner = |node| quorate_wal::Identity {
        cluster: quorate_base::ClusterId(7),
        node: quorate_base::NodeId(node),
    };
    let with = |node| WalOptions { owner: owner(node), ..options() };
    let (wal, _) = Wal::open(MemoryDisk::new(), with(1)).unwrap();
    let disk = wal.into_disk();
    assert!(disk.list().unwrap().contains(&FILE.to_owned()));
    assert!(Wal::open(disk.clone(), with(1)).is_ok());
    let error = Wal::open(disk, with(2)).unwrap_err();
    assert!(matches!(error, WalError::Foreign { found, .. } if found == owner(1)), "{error}");
}
