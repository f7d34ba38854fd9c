//! Blocks: what one write puts into the log.
//!
//! Logical layout: header, rows, payloads, zeros, the rows again, the header again (the
//! *trailer*, in the block's last bytes). Each header copy names the block's address (segment and
//! start), so a misdirected or stale block is not good where it is found, and the block before
//! it, so a block that vanished is missed.

use crate::canary::Canary;
use crate::layout::{
    NUMBER_LIMIT, PAGE_BYTES, PAGE_ROOM, SECTOR_BYTES, SECTOR_ROOM, STAMP_BYTES, Stamp, read_stamp,
    stamp,
};
use crate::row::{Kind, ROW_BYTES, Row};
use bytes::{BufMut, Bytes, BytesMut};
use quorate_base::codec::{DecodeError, Reader};
use quorate_base::{Ballot, GroupId, Index};

/// Bytes of a block's header.
pub const BLOCK_HEADER_BYTES: usize = 64;

const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"QBLK");

/// Set on the first block of a run. It promises nothing to anybody.
pub const FLAG_OPENING: u32 = 1;

/// What a block says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockHeader {
    /// Sequence of the segment it was written for.
    pub segment: u64,
    /// Where it begins in that segment, in bytes.
    pub start: u64,
    /// Its number; grows through the whole log.
    pub number: u64,
    /// Number of the block before it; zero for the first.
    pub previous: u64,
    /// The run of the log that wrote it.
    pub run: u64,
    /// Its length in pages.
    pub pages: u32,
    /// How many rows its table has.
    pub rows: u32,
    /// [`FLAG_OPENING`] or nothing.
    pub flags: u32,
}

impl BlockHeader {
    /// The header's bytes, and its checksum, from which its rows' checksums start.
    pub fn encode(&self) -> ([u8; BLOCK_HEADER_BYTES], u32) {
        let mut out = [0; BLOCK_HEADER_BYTES];
        out[..4].copy_from_slice(&BLOCK_MAGIC.to_le_bytes());
        let longs = [self.segment, self.start, self.number, self.previous, self.run];
        for (i, long) in longs.into_iter().enumerate() {
            out[8 + 8 * i..16 + 8 * i].copy_from_slice(&long.to_le_bytes());
        }
        for (i, short) in [self.pages, self.rows, self.flags].into_iter().enumerate() {
            out[48 + 4 * i..52 + 4 * i].copy_from_slice(&short.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        (out, crc)
    }

    /// Reads a header and its checksum, or nothing if it is not a good one.
    pub fn decode(bytes: Bytes) -> Option<(BlockHeader, u32)> {
        if bytes.len() < BLOCK_HEADER_BYTES || bytes[..4] != BLOCK_MAGIC.to_le_bytes() {
            return None;
        }
        Self::try_decode(bytes.slice(..BLOCK_HEADER_BYTES)).ok().flatten()
    }

    fn try_decode(bytes: Bytes) -> Result<Option<(BlockHeader, u32)>, DecodeError> {
        let sum = crc32c::crc32c(&bytes[8..]);
        let mut r = Reader::new(bytes);
        let (_magic, crc) = (r.u32()?, r.u32()?);
        if sum != crc {
            return Ok(None);
        }
        let header = BlockHeader {
            segment: r.u64()?,
            start: r.u64()?,
            number: r.u64()?,
            previous: r.u64()?,
            run: r.u64()?,
            pages: r.u32()?,
            rows: r.u32()?,
            flags: r.u32()?,
        };
        Ok(Some((header, crc)))
    }

    /// The block's length in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.pages) * PAGE_BYTES
    }

    /// Whether it is the first block of a run.
    pub fn is_opening(&self) -> bool {
        self.flags & FLAG_OPENING != 0
    }

    /// Whether this header belongs at this place of this segment, and its block fits there.
    fn fits(&self, segment: u64, start: u64, segment_bytes: u64, canary: Canary) -> bool {
        let here = self.segment == segment && self.start == start;
        let room = segment_bytes.saturating_sub(start);
        let logical = u64::from(self.pages) * PAGE_ROOM as u64;
        let tables = 2 * (BLOCK_HEADER_BYTES as u64 + u64::from(self.rows) * ROW_BYTES as u64);
        (here || canary == Canary::IgnoreAddress)
            && self.pages > 0
            && self.previous < self.number
            && self.number.max(self.run) <= NUMBER_LIMIT
            && self.bytes() <= room
            && tables <= logical
    }
}

/// Records on their way into one block.
#[derive(Default, Debug)]
pub struct BlockBuilder {
    rows: Vec<Row>,
    payloads: Vec<Bytes>,
    payload_bytes: usize,
}

impl BlockBuilder {
    /// Adds a record.
    pub fn push(
        &mut self,
        kind: Kind,
        group: GroupId,
        index: Index,
        ballot: Ballot,
        payload: Bytes,
    ) {
        assert!(payload.len() as u64 <= crate::row::PAYLOAD_LIMIT, "a payload within its limit");
        self.rows.push(Row {
            kind,
            group,
            index,
            ballot,
            // Relative to the first payload until the number of rows is known.
            offset: self.payload_bytes as u32,
            len: payload.len() as u32,
            payload_crc: crc32c::crc32c(&payload),
        });
        self.payload_bytes += payload.len();
        if !payload.is_empty() {
            self.payloads.push(payload);
        }
    }

    /// Makes the last row lie about where its payload is.
    pub fn mislead(&mut self, offset: u32, len: u32) {
        if let Some(row) = self.rows.last_mut() {
            row.offset = offset >> 1;
            row.len = len & crate::row::PAYLOAD_LIMIT as u32;
        }
    }

    /// How many pages the block takes.
    pub fn pages(&self) -> u32 {
        pages_for(self.rows.len(), self.payload_bytes)
    }

    /// Appends the finished block to `out` and forgets the records. The header's `pages` and
    /// `rows` are filled in here.
    pub fn finish(&mut self, mut header: BlockHeader, out: &mut BytesMut) -> BlockHeader {
        header.pages = self.pages();
        header.rows = self.rows.len() as u32;
        let (encoded, seed) = header.encode();
        let table = self.rows.len() * ROW_BYTES;
        let first_payload = (BLOCK_HEADER_BYTES + table) as u32;
        out.reserve(header.bytes() as usize);
        let mut frame = Frame { number: header.number, offset: header.start, room: 0, out };
        frame.put(&encoded);
        for (ordinal, row) in self.rows.iter_mut().enumerate() {
            row.offset += first_payload;
            frame.put(&row.encode(seed, ordinal as u32));
        }
        for payload in self.payloads.drain(..) {
            frame.put(&payload);
        }
        let logical = header.pages as usize * PAGE_ROOM;
        let used = 2 * (BLOCK_HEADER_BYTES + table) + self.payload_bytes;
        frame.put_zeros(logical - used);
        for (ordinal, row) in self.rows.drain(..).enumerate() {
            frame.put(&row.encode(seed, ordinal as u32));
        }
        frame.put(&encoded);
        assert_eq!((frame.room, frame.offset), (0, header.start + header.bytes()), "whole pages");
        self.payload_bytes = 0;
        header
    }
}

/// Pages of a block with so many rows and payload bytes.
pub fn pages_for(rows: usize, payload_bytes: usize) -> u32 {
    let logical = 2 * (BLOCK_HEADER_BYTES + rows * ROW_BYTES) + payload_bytes;
    logical.div_ceil(PAGE_ROOM) as u32
}

/// Puts a stamp before every sector's logical bytes.
struct Frame<'a> {
    number: u64,
    offset: u64,
    room: usize,
    out: &'a mut BytesMut,
}

impl Frame<'_> {
    fn step(&mut self, wanted: usize) -> usize {
        if self.room == 0 {
            self.out.put_slice(&stamp(self.number, self.offset));
            self.offset += SECTOR_BYTES as u64;
            self.room = SECTOR_ROOM;
        }
        let n = wanted.min(self.room);
        self.room -= n;
        n
    }

    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let n = self.step(bytes.len());
            self.out.put_slice(&bytes[..n]);
            bytes = &bytes[n..];
        }
    }

    fn put_zeros(&mut self, mut count: usize) {
        while count > 0 {
            let n = self.step(count);
            self.out.put_bytes(0, n);
            count -= n;
        }
    }
}

/// A block as found on disk.
#[derive(Clone, Debug)]
pub struct Block {
    /// Its header, from whichever copy is good.
    pub header: BlockHeader,
    /// Its rows in order; nothing where neither copy is good.
    pub rows: Vec<Option<Row>>,
    logical: Bytes,
    /// Whether every copy of everything is good.
    pub intact: bool,
    /// Whether something is missing that no copy makes up for.
    pub broken: bool,
}

impl Block {
    /// A record's payload, or nothing if it is damaged.
    pub fn payload(&self, row: &Row) -> Option<Bytes> {
        let start = row.offset as usize;
        let end = start.checked_add(row.len as usize)?;
        if end > self.logical.len() {
            return None;
        }
        let payload = self.logical.slice(start..end);
        let good = !self.broken || crc32c::crc32c(&payload) == row.payload_crc;
        good.then_some(payload)
    }
}

/// A header at the beginning of a page. One that lies inside another block's payload is not
/// believed: the stamps of its sector, or of the sector before it, give it away.
pub fn header_at(
    segment: &Bytes,
    sequence: u64,
    start: u64,
    canary: Canary,
) -> Option<(BlockHeader, u32)> {
    let at = usize::try_from(start).ok()?;
    let sector = segment.get(at..at.checked_add(SECTOR_BYTES)?)?;
    let found = BlockHeader::decode(segment.slice(at + STAMP_BYTES..at + SECTOR_BYTES))?;
    let number = found.0.number;
    let stamped_by_another =
        matches!(read_stamp(sector, start), Stamp::Of(low) if low != number as u32);
    let inside = at >= SECTOR_BYTES
        && read_stamp(&segment[at - SECTOR_BYTES..at], start - SECTOR_BYTES as u64)
            == Stamp::Of(number as u32);
    let good = found.0.fits(sequence, start, segment.len() as u64, canary);
    (good && !stamped_by_another && !inside).then_some(found)
}

/// The block that begins at `start`, by its header or else by its trailer, if it is later `than`
/// that number: an earlier one's header may be left where a later one's is stale.
pub fn block_at(
    segment: &Bytes,
    sequence: u64,
    start: u64,
    than: u64,
    canary: Canary,
) -> Option<Block> {
    if let Some((header, seed)) = header_at(segment, sequence, start, canary)
        && header.number > than
    {
        return Some(read_block(segment, start, header, seed));
    }
    let mut end = start + PAGE_BYTES;
    while end <= segment.len() as u64 {
        if let Some((header, seed)) = trailer_at(segment, sequence, end, canary)
            && end - header.bytes() == start
            && header.number > than
        {
            return Some(read_block(segment, start, header, seed));
        }
        end += PAGE_BYTES;
    }
    None
}

/// The second header of a block that ends at `end`, at the end of a page.
pub fn trailer_at(
    segment: &Bytes,
    sequence: u64,
    end: u64,
    canary: Canary,
) -> Option<(BlockHeader, u32)> {
    let to = usize::try_from(end).ok()?;
    let from = to.checked_sub(BLOCK_HEADER_BYTES)?;
    segment.get(from..to)?;
    let found = BlockHeader::decode(segment.slice(from..to))?;
    let (header, _) = &found;
    let start = end.checked_sub(header.bytes())?;
    let good = header.fits(sequence, start, segment.len() as u64, canary)
        && last_sector_is_of(segment, end, header.number);
    good.then_some(found)
}

fn last_sector_is_of(segment: &Bytes, end: u64, number: u64) -> bool {
    let offset = end - SECTOR_BYTES as u64;
    match read_stamp(&segment[offset as usize..end as usize], offset) {
        Stamp::Of(low) => low == number as u32,
        Stamp::Bad => true,
        Stamp::Zero => false,
    }
}

fn read_block(segment: &Bytes, start: u64, header: BlockHeader, seed: u32) -> Block {
    let physical = segment.slice(start as usize..(start + header.bytes()) as usize);
    let mut logical = BytesMut::with_capacity(header.pages as usize * PAGE_ROOM);
    for sector in physical.chunks_exact(SECTOR_BYTES) {
        logical.put_slice(&sector[STAMP_BYTES..]);
    }
    let logical = logical.freeze();
    let table = header.rows as usize * ROW_BYTES;
    let first = BLOCK_HEADER_BYTES;
    let second = logical.len() - BLOCK_HEADER_BYTES - table;
    let row = |base: usize, i: usize| {
        let at = base + i * ROW_BYTES;
        Row::decode(logical.slice(at..at + ROW_BYTES), seed, i as u32)
    };
    let mut intact = true;
    let mut rows = Vec::with_capacity(header.rows as usize);
    for i in 0..header.rows as usize {
        let (a, b) = (row(first, i), row(second, i));
        intact &= a.is_some() && b.is_some();
        rows.push(a.or(b));
    }
    let (encoded, _) = header.encode();
    intact &= logical[..first] == encoded && logical[logical.len() - first..] == encoded;
    // Broken until the contrary is shown, so that payloads are checked.
    let mut block = Block { header, rows, logical, intact, broken: true };
    let good = |row: &Option<Row>| row.as_ref().is_some_and(|row| block.payload(row).is_some());
    block.broken = !block.rows.iter().all(good);
    block.intact &= !block.broken;
    block
}
