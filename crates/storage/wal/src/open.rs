//! Opening: which files there are, what they hold, and where the log goes on.

use crate::error::WalError;
use crate::identity::Identity;
use crate::layout::{
    FIRST_BLOCK, FORMAT_VERSION, HeaderCopy, PAGE_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader,
    parse_name, segment_name,
};
use crate::log::{LastBlock, Resume};
use crate::options::{Recovery, WalOptions};
use crate::scan::{Scan, Segment};
use crate::segments::{Live, Segments};
use bytes::Bytes;
use quorate_disk::Disk;
use std::collections::{BTreeMap, VecDeque};

/// Reads the log on a disk.
pub(crate) fn recover(
    disk: &impl Disk,
    options: &WalOptions,
) -> Result<(Resume, Segments, Recovery), WalError> {
    let mut found: Vec<Segment> = Vec::new();
    let mut spares = VecDeque::new();
    let mut discards = Vec::new();
    for name in disk.list()? {
        if let Some(sequence) = parse_name(&name, ".log") {
            let bytes = read_segment(disk, &name)?;
            check_headers(&name, &bytes, options)?;
            found.push(Segment { sequence, bytes });
        } else if parse_name(&name, ".free").is_some() {
            let whole = disk.len(&name)? == options.segment_bytes;
            if whole && spares.len() < options.spares {
                spares.push_back(name);
            } else {
                discards.push(name);
            }
        }
    }
    found.sort_by_key(|segment| segment.sequence);
    let scan = Scan::run(&found, options)?;
    let (tail, report) = (scan.tail, scan.report);
    let Scan { mut replay, .. } = scan;
    let begun = tail.number > 0;
    check_end(&found, if begun { tail.segment } else { 0 })?;
    let next_sequence = if begun { tail.segment + 1 } else { 1 };
    let mut live = BTreeMap::new();
    let mut retired = VecDeque::new();
    for segment in &found {
        let bytes = segment.bytes.len() as u64;
        if begun && segment.sequence <= tail.segment {
            let ends = replay.segment_ends.remove(&segment.sequence).unwrap_or_default();
            let last = replay.segment_lasts.remove(&segment.sequence).unwrap_or(0);
            let after = header(segment).map_or(0, |header| header.after);
            live.insert(segment.sequence, Live { bytes, ends, after, last });
        } else if segment.sequence == next_sequence && bytes == options.segment_bytes {
            spares.push_front(segment_name(segment.sequence));
        } else {
            // Prepared once and never used; its name must not stand in the way.
            retired.push_back((segment.sequence, bytes));
        }
    }
    let recap = std::mem::take(&mut replay.recap);
    let (groups, places) = replay.finish();
    let last_block =
        tail.last_start.and_then(|start| last_block(&found, tail.segment, start, tail.offset));
    let resume = Resume {
        segment: if begun { tail.segment } else { 0 },
        offset: tail.offset,
        last_block,
        number: tail.number,
        run: report.run,
        recap,
        groups: places,
    };
    let segments = Segments {
        live,
        spares,
        discards,
        retired,
        next_sequence,
        run: report.run,
        ..Segments::default()
    };
    Ok((resume, segments, Recovery { groups, report }))
}

/// Where the log ends, a file that is missing or too short may have held what was promised last:
/// elsewhere the next block would tell. Files are made before, and given up after, those before
/// them, so that no crash leaves a gap. A file has its full length before it has a header, and its
/// header before any block; the file after it is made only then.
fn check_end(found: &[Segment], last: u64) -> Result<(), WalError> {
    let missing = |what: String| Err(WalError::Damaged { what });
    for (segment, next) in found.iter().zip(found.iter().skip(1)) {
        let sequence = segment.sequence;
        if sequence >= last && next.sequence > sequence + 1 {
            return missing(format!("log segment {:x}, which is missing", sequence + 1));
        }
        // Only the newest file may be one that a crash left half made.
        if sequence > last && header(segment).is_none() {
            return missing(format!("log segment {sequence:x}, of which the beginning is missing"));
        }
    }
    if let Some(first) = found.first().filter(|first| last == 0 && first.sequence > 1) {
        return missing(format!("the log before segment {:x}, which is missing", first.sequence));
    }
    for segment in found.iter().filter(|segment| segment.sequence >= last) {
        let (sequence, bytes) = (segment.sequence, segment.bytes.len() as u64);
        let cut = header(segment).map_or(0, |header| header.bytes.saturating_sub(bytes));
        if cut > 0 {
            return missing(format!("log segment {sequence:x}, of which {cut} bytes are missing"));
        }
    }
    Ok(())
}

/// A segment's header, from the first of its copies that is whole.
pub(crate) fn header(segment: &Segment) -> Option<SegmentHeader> {
    [0, PAGE_BYTES as usize].into_iter().find_map(|start| {
        let copy = segment.bytes.get(start..start + SEGMENT_HEADER_BYTES)?;
        match SegmentHeader::decode(&Bytes::copy_from_slice(copy)) {
            HeaderCopy::Good(header) => Some(header),
            _ => None,
        }
    })
}

fn last_block(found: &[Segment], segment: u64, start: u64, end: u64) -> Option<LastBlock> {
    let found = found.iter().find(|s| s.sequence == segment)?;
    let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
    let bytes = found.bytes.get(range.clone()).map(|_| found.bytes.slice(range))?;
    Some(LastBlock { segment, start, bytes })
}

/// A segment's content, cut to whole pages.
fn read_segment(disk: &impl Disk, name: &str) -> Result<Bytes, WalError> {
    let len = usize::try_from(disk.len(name)?).unwrap_or(usize::MAX);
    let mut bytes = disk.read(name, 0, len)?;
    bytes.truncate(bytes.len() - bytes.len() % PAGE_BYTES as usize);
    Ok(bytes)
}

/// Refuses a newer format and another node's log. A header that is damaged in both copies is no
/// reason to: every block names its segment itself.
fn check_headers(name: &str, bytes: &Bytes, options: &WalOptions) -> Result<(), WalError> {
    if (bytes.len() as u64) < FIRST_BLOCK {
        return Ok(());
    }
    for start in [0, PAGE_BYTES as usize] {
        match SegmentHeader::decode(&bytes.slice(start..start + SEGMENT_HEADER_BYTES)) {
            HeaderCopy::Bad => {}
            HeaderCopy::Newer(found) => {
                let what = format!("log segment {name}");
                return Err(WalError::NewerFormat { what, found, known: FORMAT_VERSION });
            }
            HeaderCopy::Good(header) => {
                let nobody = Identity::default();
                let expected = options.owner;
                let foreign =
                    header.owner != expected && header.owner != nobody && expected != nobody;
                if foreign {
                    return Err(WalError::Foreign { found: header.owner, expected });
                }
            }
        }
    }
    Ok(())
}
