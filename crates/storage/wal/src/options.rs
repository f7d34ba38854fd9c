//! What can be set, and what is reported.

use crate::canary::Canary;
use crate::error::WalError;
use crate::identity::Identity;
use crate::layout::{FIRST_BLOCK, PAGE_BYTES};
use crate::replay::RecoveredGroup;
use crate::row::PAYLOAD_LIMIT;
use quorate_base::GroupId;
use quorate_replicated_log::Protocol;
use std::collections::BTreeMap;

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// Length of a segment in bytes, a multiple of 4096.
    pub segment_bytes: u64,
    /// Largest payload of one record, in bytes.
    pub max_record_bytes: u64,
    /// Most bytes of records that are joined into one write. A single larger write of a group is
    /// split between its entries.
    pub max_block_bytes: u64,
    /// Bytes at the end of the last segment that entries may not use while no further segment
    /// could be made: hard states, truncations and compactions still fit on a full disk. More than
    /// the entries that a caller may hold back meanwhile.
    pub reserve_bytes: u64,
    /// A log of more segments than this that hold records is long: [`Wal::held_back`] then tells
    /// who keeps it so.
    ///
    /// [`Wal::held_back`]: crate::Wal::held_back
    pub long_segments: usize,
    /// Whole segments kept for reuse beside the prepared one.
    pub spares: usize,
    /// Whose log it is. Zeros: not checked.
    pub owner: Identity,
    /// The protocol of groups whose records, in format 1, name none.
    pub unnamed_protocol: Protocol,
    /// A deliberate bug. Takes effect only with the feature `canary`.
    pub canary: Canary,
}

impl Default for WalOptions {
    fn default() -> Self {
        WalOptions {
            segment_bytes: 64 << 20,
            max_record_bytes: 8 << 20,
            max_block_bytes: 4 << 20,
            reserve_bytes: 1 << 20,
            long_segments: 4,
            spares: 2,
            owner: Identity::default(),
            unnamed_protocol: Protocol::default(),
            canary: Canary::None,
        }
    }
}

impl WalOptions {
    /// Small segments, for tests and simulations.
    pub fn small() -> Self {
        WalOptions {
            segment_bytes: 256 << 10,
            max_record_bytes: 128 << 10,
            max_block_bytes: 64 << 10,
            reserve_bytes: 32 << 10,
            ..WalOptions::default()
        }
    }

    /// Suited to a disk with so many bytes free: segments of a sixteenth of them, between 2 and
    /// 64 MiB. A log may have segments of different lengths, so this may change between runs.
    pub fn for_space(free_bytes: u64) -> Self {
        let segment_bytes = (free_bytes / 16).clamp(2 << 20, 64 << 20) / PAGE_BYTES * PAGE_BYTES;
        WalOptions {
            segment_bytes,
            max_record_bytes: (segment_bytes * 3 / 4).min(8 << 20),
            max_block_bytes: (segment_bytes / 4).min(4 << 20),
            reserve_bytes: segment_bytes / 16,
            ..WalOptions::default()
        }
    }

    pub(crate) fn check(&self) -> Result<(), WalError> {
        let wrong = |why| Err(WalError::Options(why));
        if !self.segment_bytes.is_multiple_of(PAGE_BYTES) || self.segment_bytes > 1 << 31 {
            return wrong("segment_bytes must be a multiple of 4096, at most 2 GiB");
        }
        if self.max_record_bytes > PAYLOAD_LIMIT {
            return wrong("max_record_bytes is at most 268435455");
        }
        let block = self.max_block_bytes.max(self.max_record_bytes);
        let overhead = FIRST_BLOCK + 4 * PAGE_BYTES + block / 32;
        if self.segment_bytes < block + self.reserve_bytes + overhead {
            return wrong("segment_bytes must exceed the largest block and the reserve");
        }
        Ok(())
    }

    pub(crate) fn canary(&self) -> Canary {
        if cfg!(feature = "canary") { self.canary } else { Canary::None }
    }
}

/// What opening a log found.
#[derive(Clone, Default, Debug)]
pub struct Recovery {
    /// Every group that the log knows.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// How it was found, for people and tests.
    pub report: RecoveryReport,
}

/// How a log was found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RecoveryReport {
    /// Segments read.
    pub segments: u64,
    /// Blocks taken.
    pub blocks: u64,
    /// The run that now begins, from 1.
    pub run: u64,
    /// Bytes of an unfinished write at the end that were cut off. Nobody was told of them.
    pub torn_bytes: u64,
    /// Blocks of which only later blocks' recaps told.
    pub lost_blocks: u64,
    /// Records with an unreadable payload.
    pub damaged_records: u64,
    /// Blocks with a damaged copy of something whose other copy was good.
    pub repaired_blocks: u64,
}

/// What the log has done since it was opened, and how it stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WalStats {
    /// Bytes of blocks written.
    pub bytes: u64,
    /// Syncs of blocks.
    pub syncs: u64,
    /// Batches made durable.
    pub batches: u64,
    /// Segments that hold records.
    pub segments: u64,
    /// Spare segments, the prepared one included.
    pub spares: u64,
    /// Bytes that can be written before another segment must be made.
    pub room_bytes: u64,
    /// Whether the last attempt to make a segment found the disk full.
    pub full: bool,
}
