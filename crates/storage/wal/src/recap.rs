//! Recaps: each block repeats in short what the blocks before it touched.
//!
//! Should a block vanish whole (a lost or misdirected write, a bad patch of the disk), the next
//! block still tells which groups it concerned, which indexes, and what was promised. Invariant:
//! the recap covers the block before it, and up to [`RECAP_BLOCKS`] while that costs no more than
//! [`RECAP_ROWS`] rows. It tells the epoch of a group too: were the record lost by which a log
//! entered an epoch, that epoch's entries would be taken for the last one's.

use crate::block::BlockBuilder;
use crate::layout::NUMBER_LIMIT;
use crate::row::Kind;
use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{Ballot, GroupId, Index, NodeId};
use quorate_replicated_log::{Epoch, HardState};
use std::collections::VecDeque;

/// Most blocks that a recap covers.
pub const RECAP_BLOCKS: usize = 4;

/// Most rows of a recap that covers more than one block.
pub const RECAP_ROWS: usize = 64;

const TOUCH_BYTES: usize = 52;
/// In format 1, without epochs.
const OLD_TOUCH_BYTES: usize = 48;
/// The index of a recap's row tells its format: nothing in format 1.
const WITH_EPOCHS: Index = 1;

/// The first index that a block touched which made the log forget the group.
pub const FORGOTTEN: Index = 0;

/// What a block did to a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Touch {
    /// The group.
    pub group: GroupId,
    /// The first index that it wrote or truncated; `Index::MAX` if none, [`FORGOTTEN`] if the group
    /// was forgotten.
    pub first: Index,
    /// The last index of the group's log after it.
    pub end: Index,
    /// The group's hard state after it.
    pub hard_state: HardState,
    /// The epoch of the group's log after it.
    pub epoch: Epoch,
}

/// What one block did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockTouches {
    /// The block's number.
    pub number: u64,
    /// The number of the block before it.
    pub previous: u64,
    /// The groups it touched.
    pub touches: Vec<Touch>,
}

/// The latest blocks' touches, oldest first.
#[derive(Clone, Default, Debug)]
pub struct Recap {
    blocks: VecDeque<BlockTouches>,
}

impl Recap {
    /// Adds the newest block.
    pub fn push(&mut self, block: BlockTouches) {
        self.blocks.push_back(block);
        while self.blocks.len() > 1
            && (self.blocks.len() > RECAP_BLOCKS || self.rows() > RECAP_ROWS)
        {
            self.blocks.pop_front();
        }
    }

    fn rows(&self) -> usize {
        self.blocks.iter().map(|block| block.touches.len()).sum()
    }

    /// Upper bound of the payload in bytes.
    pub fn bytes(&self) -> usize {
        self.blocks.len() * 26 + self.rows() * TOUCH_BYTES + 10
    }

    /// Appends the recap's record.
    pub fn push_into(&self, builder: &mut BlockBuilder) {
        let mut w = Writer::with_capacity(self.bytes());
        w.varint(self.blocks.len() as u64);
        for block in &self.blocks {
            w.u64(block.number).u64(block.previous).varint(block.touches.len() as u64);
            for touch in &block.touches {
                w.u64(touch.group.0).u64(touch.first).u64(touch.end);
                let HardState { promised, commit } = touch.hard_state;
                w.u64(promised.round).u64(promised.node.0).u64(commit).u32(touch.epoch.0);
            }
        }
        builder.push(Kind::Recap, GroupId(0), WITH_EPOCHS, Ballot::ZERO, w.into_bytes());
    }

    /// Reads a recap's payload; `format` is its row's index.
    pub fn decode(payload: Bytes, format: Index) -> Result<Vec<BlockTouches>, DecodeError> {
        let touch_bytes = match format {
            0 => OLD_TOUCH_BYTES,
            WITH_EPOCHS => TOUCH_BYTES,
            other => return Err(DecodeError::Unknown { field: "recap format", value: other }),
        };
        let mut r = Reader::new(payload);
        let blocks = r.count(RECAP_BLOCKS as u64, 17)?;
        let mut out = Vec::with_capacity(blocks);
        for _ in 0..blocks {
            let (number, previous) = (r.u64()?, r.u64()?);
            let n = r.count(u64::from(u32::MAX), touch_bytes)?;
            let mut touches = Vec::with_capacity(n);
            for _ in 0..n {
                let (group, first, end) = (GroupId(r.u64()?), r.u64()?, r.u64()?);
                if end > NUMBER_LIMIT {
                    return Err(DecodeError::TooLong { claimed: end, limit: NUMBER_LIMIT });
                }
                touches.push(Touch {
                    group,
                    first,
                    end,
                    hard_state: HardState {
                        promised: Ballot::new(r.u64()?, NodeId(r.u64()?)),
                        commit: r.u64()?,
                    },
                    epoch: Epoch(if format == WITH_EPOCHS { r.u32()? } else { 0 }),
                });
            }
            out.push(BlockTouches { number, previous, touches });
        }
        r.finish()?;
        Ok(out)
    }
}
