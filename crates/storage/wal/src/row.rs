//! Rows: the fixed-size descriptions of a block's records.
//!
//! A row says everything about a record but its payload: kind, group, index, ballot, and the
//! payload's place, length and checksum. Its own checksum starts from the block's address, so a
//! row is only good where it was meant to be. Every block holds its table of rows twice, so that
//! a damaged payload is still known by group and index (Alagappan et al., FAST 2018, section 3.3:
//! an identifier stored apart from the entry).

use crate::layout::NUMBER_LIMIT;
use quorate_base::codec::{DecodeError, Reader};
use quorate_base::{Ballot, GroupId, Index, NodeId};

/// Bytes of a row.
pub const ROW_BYTES: usize = 48;

/// Largest payload of a record in bytes: lengths have 28 bits.
pub const PAYLOAD_LIMIT: u64 = (1 << 28) - 1;

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An entry that holds nothing.
    Noop = 1,
    /// An entry with a command.
    Command = 2,
    /// An entry with members.
    Members = 3,
    /// A hard state: the ballot is the promise, the index the commit.
    HardState = 4,
    /// Forget the entries from the index on; from 0 on the whole group.
    Truncate = 5,
    /// Forget all entries; the log begins after (index, ballot). The payload is the
    /// membership and the epoch.
    Reset = 6,
    /// Forget entries up to (index, ballot). The payload is the membership and the epoch.
    Compact = 7,
    /// What the blocks before this one touched; see [`crate::recap`].
    Recap = 8,
    /// An empty entry in its slot, in place of what was there: later slots stay.
    SlotNoop = 9,
    /// Likewise, with a command.
    SlotCommand = 10,
    /// Likewise, with members.
    SlotMembers = 11,
    /// An entry of a new leader. The payload is its ballot: round and node, 8 bytes each.
    Lead = 12,
    /// Likewise, in its slot.
    SlotLead = 13,
    /// An entry that ends an epoch. The payload is its ballot, as of a new leader's, and the code
    /// of the next epoch's protocol.
    Seal = 14,
    /// Likewise, in its slot.
    SlotSeal = 15,
}

impl Kind {
    /// Whether it is an entry that replaces what is in its slot, and nothing after it.
    pub fn is_slot(self) -> bool {
        use Kind::{SlotCommand, SlotLead, SlotMembers, SlotNoop, SlotSeal};
        matches!(self, SlotNoop | SlotCommand | SlotMembers | SlotLead | SlotSeal)
    }

    fn from_bits(bits: u32) -> Option<Kind> {
        Some(match bits {
            1 => Kind::Noop,
            2 => Kind::Command,
            3 => Kind::Members,
            4 => Kind::HardState,
            5 => Kind::Truncate,
            6 => Kind::Reset,
            7 => Kind::Compact,
            8 => Kind::Recap,
            9 => Kind::SlotNoop,
            10 => Kind::SlotCommand,
            11 => Kind::SlotMembers,
            12 => Kind::Lead,
            13 => Kind::SlotLead,
            14 => Kind::Seal,
            15 => Kind::SlotSeal,
            _ => return None,
        })
    }
}

/// One record, described.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// What it is.
    pub kind: Kind,
    /// Whose it is.
    pub group: GroupId,
    /// Of an entry or a base its position; see [`Kind`] for the rest.
    pub index: Index,
    /// Likewise.
    pub ballot: Ballot,
    /// The payload's first logical byte within the block.
    pub offset: u32,
    /// The payload's length in bytes.
    pub len: u32,
    /// CRC32C of the payload.
    pub payload_crc: u32,
}

impl Row {
    /// The row's bytes. `seed` is the block's address, `ordinal` the row's place in the table.
    pub fn encode(&self, seed: u32, ordinal: u32) -> [u8; ROW_BYTES] {
        let mut out = [0; ROW_BYTES];
        let kind_and_len = (self.kind as u32) << 28 | self.len;
        out[4..8].copy_from_slice(&kind_and_len.to_le_bytes());
        out[8..12].copy_from_slice(&self.offset.to_le_bytes());
        out[12..16].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[16..24].copy_from_slice(&self.group.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.index.to_le_bytes());
        out[32..40].copy_from_slice(&self.ballot.round.to_le_bytes());
        out[40..48].copy_from_slice(&self.ballot.node.0.to_le_bytes());
        let crc = row_crc(seed, ordinal, &out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a row, or nothing if it is not good at this place.
    pub fn decode(bytes: bytes::Bytes, seed: u32, ordinal: u32) -> Option<Row> {
        Self::try_decode(bytes, seed, ordinal).ok().flatten()
    }

    fn try_decode(
        bytes: bytes::Bytes,
        seed: u32,
        ordinal: u32,
    ) -> Result<Option<Row>, DecodeError> {
        let mut r = Reader::new(bytes);
        let crc = r.u32()?;
        let rest = r.take(ROW_BYTES - 4)?;
        if crc != row_crc(seed, ordinal, &rest) {
            return Ok(None);
        }
        let mut r = Reader::new(rest);
        let kind_and_len = r.u32()?;
        let Some(kind) = Kind::from_bits(kind_and_len >> 28) else { return Ok(None) };
        let row = Row {
            kind,
            len: kind_and_len & PAYLOAD_LIMIT as u32,
            offset: r.u32()?,
            payload_crc: r.u32()?,
            group: GroupId(r.u64()?),
            index: r.u64()?,
            ballot: Ballot::new(r.u64()?, NodeId(r.u64()?)),
        };
        Ok((row.index <= NUMBER_LIMIT).then_some(row))
    }
}

fn row_crc(seed: u32, ordinal: u32, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &ordinal.to_le_bytes()), rest)
}
