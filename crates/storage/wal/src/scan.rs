//! Scanning: finds the blocks of the segments, and tells a torn tail from corruption.
//!
//! The rule. A block is written only after the sync of the block before it has returned. So
//! whatever shows that a later block was ever begun proves that all earlier ones were complete,
//! and may have been promised: their damage is *corruption*, and is reported. Only the last block
//! can be unfinished. It is cut off as *torn* when a sector of it still holds what was there
//! before, which proves that its sync never returned. When every sector was written and something
//! is still bad, nothing proves that it was not promised, and it counts as corruption too.

use crate::block::{BLOCK_HEADER_BYTES, Block, BlockHeader, block_at, header_at, trailer_at};
use crate::canary::Canary;
use crate::error::WalError;
use crate::layout::{FIRST_BLOCK, PAGE_BYTES, SECTOR_BYTES, STAMP_BYTES, Stamp, read_stamp};
use crate::options::RecoveryReport;
use crate::options::WalOptions;
use crate::replay::Replay;
use bytes::Bytes;

/// A segment's content.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub sequence: u64,
    pub bytes: Bytes,
}

/// Where the log ends.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Tail {
    /// Sequence of the segment to go on writing to, zero if there is none.
    pub segment: u64,
    /// Where the next block goes.
    pub offset: u64,
    /// Where the last good block begins, if it is in this segment.
    pub last_start: Option<u64>,
    /// Number of the last good block.
    pub number: u64,
    /// Highest run seen.
    pub run: u64,
}

/// Reads blocks in order.
pub(crate) struct Scan<'a> {
    segments: &'a [Segment],
    canary: Canary,
    pub replay: Replay,
    pub report: RecoveryReport,
    pub tail: Tail,
    /// Pages of whole segments before the first block that could be read.
    skipped_pages: u64,
}

/// Blocks of so many segments before are looked for among what is left in a file.
const EARLIER_USES: u64 = 64;

enum Verdict {
    Torn,
    Corrupt,
}

impl<'a> Scan<'a> {
    /// Reads everything in `segments`, which are in order of sequence.
    pub fn run(segments: &'a [Segment], options: &WalOptions) -> Result<Scan<'a>, WalError> {
        let canary = options.canary();
        let mut scan = Scan {
            segments,
            canary,
            replay: Replay::new(options.unnamed_protocol),
            report: RecoveryReport::default(),
            tail: Tail::default(),
            skipped_pages: 0,
        };
        if let Some(first) = segments.first()
            && let Some(header) = crate::open::header(first)
            && header.sequence == first.sequence
        {
            scan.replay.after = header.after;
        }
        for i in 0..segments.len() {
            if !scan.segment(i)? {
                break;
            }
        }
        scan.replay.check_attributed(scan.tail.number)?;
        scan.replay.check_epochs()?;
        scan.report.lost_blocks = scan.replay.lost_blocks;
        scan.report.damaged_records = scan.replay.damaged_records;
        scan.report.segments = segments.len() as u64;
        scan.report.run = scan.tail.run + 1;
        Ok(scan)
    }

    /// Reads one segment; says whether the log may go on in the next.
    fn segment(&mut self, i: usize) -> Result<bool, WalError> {
        let Segment { sequence, bytes } = &self.segments[i];
        let mut at = FIRST_BLOCK;
        let mut used = false;
        while at < bytes.len() as u64 {
            match block_at(bytes, *sequence, at, self.follows_after(), self.canary) {
                Some(block) => {
                    if block.broken && self.was_cut_off(i, at, &block) {
                        let number = block.header.number;
                        let Some(next) = self.next_header(i, at + PAGE_BYTES, number) else {
                            break;
                        };
                        at = next;
                        continue;
                    }
                    if block.broken && !self.keep_broken(i, at, &block) {
                        self.report.torn_bytes += block.header.bytes();
                        self.end_at(*sequence, at, used);
                        self.judge_around(i, at, used, &block.header)?;
                        return Ok(false);
                    }
                    at += block.header.bytes();
                    self.take(&block)?;
                    used = true;
                }
                None => {
                    let Some(next) = self.next_header(i, at, self.follows_after()) else { break };
                    if self.canary == Canary::TruncateAtDamage {
                        self.end_at(*sequence, at, used);
                        return Ok(false);
                    }
                    at = next;
                }
            }
        }
        if self.later_segment_has_blocks(i, self.follows_after())
            && self.canary != Canary::TruncateAtDamage
        {
            if self.report.blocks == 0 {
                self.skipped_pages += bytes.len() as u64 / PAGE_BYTES;
            }
            return Ok(true);
        }
        if used || self.tail.segment == 0 {
            self.end_at(*sequence, at, used);
        }
        let number = self.follows_after();
        if at < bytes.len() as u64 {
            self.judge_end(i, at, number)?;
        }
        self.judge_next(i, number)?;
        Ok(false)
    }

    /// The log may have gone on in the next segment, with a block that nothing else tells of.
    fn judge_next(&mut self, i: usize, than: u64) -> Result<(), WalError> {
        let next = self.segments.get(i + 1);
        match next.is_some_and(|next| next.bytes.len() as u64 > FIRST_BLOCK) {
            true => self.judge_end(i + 1, FIRST_BLOCK, than),
            false => Ok(()),
        }
    }

    /// Judges where else the log may have gone on after what looks like its last block, of this
    /// number, turned out to be torn: in the next segment; or, with something smaller, in the one
    /// before, if the torn block was to be the first of this one. What was begun before it and not
    /// finished was cut off. The first block of a run may not be torn at all, and its run have gone
    /// on behind it; another run's may have the same number.
    fn judge_around(
        &mut self,
        i: usize,
        at: u64,
        used: bool,
        torn: &BlockHeader,
    ) -> Result<(), WalError> {
        let behind = at + torn.bytes();
        if behind < self.segments[i].bytes.len() as u64 {
            self.judge_end(i, behind, torn.number)?;
        }
        let number = torn.number - 1;
        let Tail { segment, offset, .. } = self.tail;
        if let Some(before) = i.checked_sub(1).filter(|_| !used)
            && self.segments[before].sequence == segment
            && offset < self.segments[before].bytes.len() as u64
        {
            self.judge_end(before, offset, number)?;
        }
        self.judge_next(i, number)
    }

    fn end_at(&mut self, sequence: u64, at: u64, used: bool) {
        if used || self.tail.segment == 0 {
            self.tail.segment = sequence;
            self.tail.offset = at;
        }
    }

    fn take(&mut self, block: &Block) -> Result<(), WalError> {
        let header = &block.header;
        let first = self.report.blocks == 0;
        let before = (header.start - FIRST_BLOCK) / PAGE_BYTES;
        let skipped = if first { self.skipped_pages + before } else { 0 };
        if matches!(self.canary, Canary::IgnoreAddress | Canary::IgnoreRecap) {
            self.replay.believe(header);
        }
        self.replay.take(block, skipped)?;
        self.report.blocks += 1;
        self.report.repaired_blocks += u64::from(!block.intact && !block.broken);
        self.tail.number = header.number;
        self.tail.run = self.tail.run.max(header.run);
        self.tail.segment = header.segment;
        self.tail.offset = header.start + header.bytes();
        self.tail.last_start = Some(header.start);
        Ok(())
    }

    /// A block is later than this number if the log goes on with it: else it is left over from
    /// what was cut off, also before the log's beginning.
    fn follows_after(&self) -> u64 {
        match self.canary {
            Canary::IgnoreAddress => 0,
            _ => self.tail.number.max(self.replay.after),
        }
    }

    /// Whether a broken block is what a crash left of it, which was cut off as torn and written
    /// over: it lies bare again if the block that took its place is lost. A later block tells: it
    /// begins within, or none of those before it that it names is this one.
    fn was_cut_off(&self, i: usize, at: u64, block: &Block) -> bool {
        let number = block.header.number;
        let end = at + block.header.bytes();
        let mut from = at + PAGE_BYTES;
        for later in i..self.segments.len() {
            let Segment { sequence, bytes } = &self.segments[later];
            while let Some(start) = self.next_header(later, from, number) {
                if later == i && start < end {
                    return true;
                }
                let witness = block_at(bytes, *sequence, start, number, self.canary);
                if let Some(known) = witness.and_then(|it| Replay::knows(&it, number)) {
                    return !known;
                }
                from = start + PAGE_BYTES;
            }
            from = FIRST_BLOCK;
        }
        false
    }

    /// Whether a broken block must be kept, because it may have been promised.
    fn keep_broken(&self, i: usize, at: u64, block: &Block) -> bool {
        if self.canary == Canary::TruncateAtDamage {
            return false;
        }
        // Whatever its own fate, a block proves that those before it were complete.
        if block.header.previous > self.follows_after() {
            return true;
        }
        let end = at + block.header.bytes();
        // What an earlier run left of a block that was torn is no later one.
        let number = block.header.number;
        if self.next_header(i, end, number).is_some() || self.later_segment_has_blocks(i, number) {
            return true;
        }
        let bytes = &self.segments[i].bytes;
        let sectors = &bytes[at as usize..end as usize];
        let unwritten = sectors.chunks(SECTOR_BYTES).enumerate().any(|(s, sector)| {
            let offset = at + (s * SECTOR_BYTES) as u64;
            match read_stamp(sector, offset) {
                Stamp::Zero => true,
                Stamp::Of(low) => low != number as u32,
                Stamp::Bad => self.is_left_over(i, sector, offset, number),
            }
        });
        // The first block of a run promises nothing; but what it repeats of a segment that is to be
        // given up may be nowhere else by now.
        let promises_nothing = block.header.is_opening() && block.header.rows == 1;
        !unwritten && !promises_nothing
    }

    /// Whether the sector at `at`, in the block of this number, is what an earlier block wrote,
    /// stamped for another page of the file: its write went astray when the file was last used, or
    /// not long before. Only what a disk can have done counts, so that other bytes, of which there
    /// may be thousands of sectors, do not pass for that by chance.
    fn is_left_over(&self, i: usize, sector: &[u8], at: u64, number: u64) -> bool {
        let Segment { sequence, bytes } = &self.segments[i];
        let first = header_at(bytes, *sequence, FIRST_BLOCK, self.canary);
        let first = first.map_or(number, |(header, _)| header.number);
        let Some(low) = sector.first_chunk::<4>().map(|low| u32::from_le_bytes(*low)) else {
            return false;
        };
        let behind = u64::from((first as u32).wrapping_sub(low));
        let pages = bytes.len() as u64 / PAGE_BYTES;
        let mut places = (0..pages).map(|page| page * PAGE_BYTES + at % PAGE_BYTES);
        (1..first.min(EARLIER_USES * pages + 1)).contains(&behind)
            && places.any(|place| read_stamp(sector, place) == Stamp::Of(low))
    }

    /// Where the next block after a bad place begins, if one later `than` this is in this segment.
    fn next_header(&self, i: usize, from: u64, than: u64) -> Option<u64> {
        let Segment { sequence, bytes } = &self.segments[i];
        let mut at = from;
        while at < bytes.len() as u64 {
            if let Some((header, _)) = header_at(bytes, *sequence, at, self.canary)
                && header.number > than
            {
                return Some(at);
            }
            at += PAGE_BYTES;
            // Its first header may be what is bad.
            if let Some((header, _)) = trailer_at(bytes, *sequence, at, self.canary)
                && header.number > than
                && at - header.bytes() >= from
            {
                return Some(at - header.bytes());
            }
        }
        None
    }

    fn later_segment_has_blocks(&self, i: usize, than: u64) -> bool {
        let has = |later| self.next_header(later, FIRST_BLOCK, than).is_some();
        (i + 1..self.segments.len()).any(has)
    }

    /// Judges the page where no block was found and after which none follows: what was written
    /// there counts if it is later `than` that number.
    fn judge_end(&mut self, i: usize, at: u64, than: u64) -> Result<(), WalError> {
        let Segment { sequence, bytes } = &self.segments[i];
        let page = &bytes[at as usize..(at + PAGE_BYTES) as usize];
        let astray = astray(bytes, *sequence, at);
        let mut written = 0;
        let mut unwritten = 0;
        for (s, sector) in page.chunks(SECTOR_BYTES).enumerate() {
            let offset = at + (s * SECTOR_BYTES) as u64;
            match read_stamp(sector, offset) {
                Stamp::Bad if astray.iter().any(|block| block.left(sector, offset)) => {
                    unwritten += 1;
                }
                Stamp::Of(low) if low.wrapping_sub(than as u32) as i32 > 0 => {
                    written += 1;
                }
                Stamp::Bad => written += 1,
                Stamp::Zero | Stamp::Of(_) => unwritten += 1,
            }
        }
        let verdict = if unwritten > 0 { Verdict::Torn } else { Verdict::Corrupt };
        match verdict {
            Verdict::Torn => {
                self.report.torn_bytes += if written > 0 { PAGE_BYTES } else { 0 };
                Ok(())
            }
            Verdict::Corrupt if self.canary == Canary::TruncateAtDamage => Ok(()),
            Verdict::Corrupt => Err(WalError::Damaged {
                what: format!(
                    "the last block of log segment {sequence:x}, at byte {at}, in both headers"
                ),
            }),
        }
    }
}

/// A block of an earlier segment whose write went astray, and the file was used anew since. What
/// is left of it was there before any block of this segment.
struct Astray {
    header: BlockHeader,
    /// Where it lies.
    start: u64,
}

impl Astray {
    /// Whether the sector at `offset` is as this block left it: stamped for where it belongs.
    fn left(&self, sector: &[u8], offset: u64) -> bool {
        let belongs = self.header.start + (offset - self.start);
        read_stamp(sector, belongs) == Stamp::Of(self.header.number as u32)
    }
}

/// What went astray to the page at `at`, by its header there, or its trailer there or later.
fn astray(bytes: &Bytes, sequence: u64, at: u64) -> Vec<Astray> {
    let header = |from: u64| {
        let from = from as usize;
        let header = bytes.get(from..from + BLOCK_HEADER_BYTES).is_some();
        let (header, _) = header.then(|| BlockHeader::decode(bytes.slice(from..)))??;
        let sound = header.segment < sequence && header.start <= bytes.len() as u64;
        sound.then_some(header)
    };
    let here = header(at + STAMP_BYTES as u64).map(|header| Astray { header, start: at });
    let ends =
        (at / PAGE_BYTES + 1..=bytes.len() as u64 / PAGE_BYTES).map(|page| page * PAGE_BYTES);
    let later = ends.filter_map(|end| {
        let header = header(end - BLOCK_HEADER_BYTES as u64)?;
        let start = end.checked_sub(header.bytes()).filter(|start| *start <= at)?;
        Some(Astray { header, start })
    });
    here.into_iter().chain(later).collect()
}
