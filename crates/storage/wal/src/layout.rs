//! Where things are in a segment: pages, sectors and their stamps, the segment's header.
//!
//! A segment is a run of 4096-byte pages; the first two hold the header, twice. Blocks follow,
//! each a whole number of pages, so that no write touches a page that holds older, acknowledged
//! bytes. A page has eight 512-byte sectors; a block's sector begins with an 8-byte *stamp* that
//! tells which block was written there last. The bytes between the stamps are the block's
//! *logical* bytes.
//!
//! Invariant: stamps decide one question only, whether a broken tail is torn or corrupt; whether
//! content is good is decided by the checksums of headers, rows and payloads.

use crate::identity::Identity;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{ClusterId, NodeId};

/// The format that this version writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 2;

/// Alignment of blocks, in bytes.
pub const PAGE_BYTES: u64 = 4096;

/// What a disk writes whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// Bytes of a sector's stamp.
pub const STAMP_BYTES: usize = 8;

/// Logical bytes in a sector.
pub const SECTOR_ROOM: usize = SECTOR_BYTES - STAMP_BYTES;

/// Logical bytes in a page.
pub const PAGE_ROOM: usize = (PAGE_BYTES as usize / SECTOR_BYTES) * SECTOR_ROOM;

/// Where the first block begins: after the two copies of the header.
pub const FIRST_BLOCK: u64 = 2 * PAGE_BYTES;

/// Sequences, numbers, runs and indexes count up from 1 and never come near this.
pub const NUMBER_LIMIT: u64 = 1 << 62;

const SEGMENT_MAGIC: &[u8; 8] = b"QRTELOG\n";

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 68;

/// Of these, the first: magic, version, checksum and what that covers, in every format.
const CHECKED_BYTES: usize = 56;

/// What a segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Its number; a recycled file gets a new one.
    pub sequence: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// The run of the log that made it.
    pub run: u64,
    /// Whose log it is; zeros where nobody said.
    pub owner: Identity,
    /// Number of the last block before this segment, noted once the segment before it is no longer
    /// needed; zero until then.
    pub after: u64,
}

/// What a copy of a segment's header turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderCopy {
    /// Readable.
    Good(SegmentHeader),
    /// Written by a later version of the software.
    Newer(u32),
    /// Anything else.
    Bad,
}

impl SegmentHeader {
    /// The bytes of one copy.
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = Writer::with_capacity(CHECKED_BYTES);
        fields.u64(self.sequence).u64(self.bytes).u64(self.run);
        fields.u64(self.owner.cluster.0).u64(self.owner.node.0);
        let fields = fields.into_vec();
        let mut out = Writer::with_capacity(SEGMENT_HEADER_BYTES);
        out.raw(SEGMENT_MAGIC).u32(FORMAT_VERSION);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&FORMAT_VERSION.to_le_bytes()), &fields);
        out.u32(crc).raw(&fields);
        if self.after > 0 {
            out.u64(self.after).u32(self.after_crc());
        }
        out.into_vec()
    }

    fn after_crc(&self) -> u32 {
        let sum = crc32c::crc32c(&self.sequence.to_le_bytes());
        crc32c::crc32c_append(sum, &self.after.to_le_bytes())
    }

    /// Reads one copy. Magic, version and checksum keep their places in every later format, and
    /// the checksum its extent, so that a newer format can be told from a damaged header.
    pub fn decode(bytes: &bytes::Bytes) -> HeaderCopy {
        Self::try_decode(bytes).unwrap_or(HeaderCopy::Bad)
    }

    fn try_decode(bytes: &bytes::Bytes) -> Result<HeaderCopy, DecodeError> {
        let mut r = Reader::new(bytes.clone());
        let magic = r.take(SEGMENT_MAGIC.len())?;
        let (version, crc) = (r.u32()?, r.u32()?);
        let fields = r.take(CHECKED_BYTES - 16)?;
        let sum = crc32c::crc32c_append(crc32c::crc32c(&version.to_le_bytes()), &fields);
        if magic[..] != SEGMENT_MAGIC[..] || sum != crc {
            return Ok(HeaderCopy::Bad);
        }
        if version > FORMAT_VERSION {
            return Ok(HeaderCopy::Newer(version));
        }
        let (after, after_crc) = (r.u64()?, r.u32()?);
        let mut r = Reader::new(fields);
        let mut header = SegmentHeader {
            sequence: r.u64()?,
            bytes: r.u64()?,
            run: r.u64()?,
            owner: Identity { cluster: ClusterId(r.u64()?), node: NodeId(r.u64()?) },
            after,
        };
        if header.after_crc() != after_crc {
            header.after = 0;
        }
        Ok(HeaderCopy::Good(header))
    }
}

/// Name of the segment of this sequence.
pub fn segment_name(sequence: u64) -> String {
    format!("{sequence:016x}.log")
}

/// Name of a spare: a whole segment whose content is no longer needed.
pub fn spare_name(sequence: u64) -> String {
    format!("{sequence:016x}.free")
}

/// The sequence in a file's name, if it is a name with that ending.
pub fn parse_name(file: &str, ending: &str) -> Option<u64> {
    let digits = file.strip_suffix(ending)?;
    let plain = digits.len() == 16
        && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let sequence = if plain { u64::from_str_radix(digits, 16).ok() } else { None };
    sequence.filter(|sequence| *sequence <= NUMBER_LIMIT)
}

/// The stamp of a sector at `offset` of its file, written as part of block `number`.
pub fn stamp(number: u64, offset: u64) -> [u8; STAMP_BYTES] {
    let low = (number as u32).to_le_bytes();
    let check = crc32c::crc32c_append(crc32c::crc32c(&low), &offset.to_le_bytes());
    let mut out = [0; STAMP_BYTES];
    out[..4].copy_from_slice(&low);
    out[4..].copy_from_slice(&check.to_le_bytes());
    out
}

/// What a sector's stamp tells about the last write of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stamp {
    /// Never written since the file was made.
    Zero,
    /// Written here by the block whose number ends in these 32 bits.
    Of(u32),
    /// Neither: changed by something else than the log.
    Bad,
}

/// Reads the stamp of the sector at `offset` of its file.
pub fn read_stamp(sector: &[u8], offset: u64) -> Stamp {
    let Some(found) = sector.first_chunk::<STAMP_BYTES>() else { return Stamp::Bad };
    if *found == [0; STAMP_BYTES] {
        return Stamp::Zero;
    }
    let low = u32::from_le_bytes([found[0], found[1], found[2], found[3]]);
    if *found == stamp(u64::from(low), offset) { Stamp::Of(low) } else { Stamp::Bad }
}
