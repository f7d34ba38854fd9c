//! Pieces: a batch cut into writes that each fit one block.

use crate::batch::{Batch, BatchId};
use crate::block::BLOCK_HEADER_BYTES;
use crate::error::WalError;
use crate::layout::{FIRST_BLOCK, PAGE_BYTES};
use crate::options::WalOptions;
use crate::records::{base_bytes, payload_bytes};
use crate::row::ROW_BYTES;
use quorate_base::GroupId;
use quorate_replicated_log::{Entry, Write};
use std::collections::VecDeque;

/// A part of a batch, whole within one block.
#[derive(Debug)]
pub(crate) struct Piece {
    pub batch: BatchId,
    /// Nothing where the batch had no writes at all.
    pub write: Option<(GroupId, Write)>,
    pub ends_batch: bool,
}

impl Piece {
    /// How many rows it takes.
    pub fn rows(&self) -> usize {
        self.write.as_ref().map_or(0, |(_, write)| rows(write))
    }

    /// How many bytes of payload it takes.
    pub fn payload_bytes(&self) -> usize {
        self.write.as_ref().map_or(0, |(_, write)| payload(write))
    }

    /// How much it counts for in a block.
    pub fn bytes(&self) -> u64 {
        self.write.as_ref().map_or(0, |(_, write)| block_bytes(write))
    }
}

fn rows(write: &Write) -> usize {
    let bases = usize::from(write.reset.is_some()) + usize::from(write.compact.is_some());
    2 * bases
        + usize::from(write.truncate_from.is_some())
        + write.entries.len()
        + usize::from(write.hard_state.is_some())
}

fn payload(write: &Write) -> usize {
    let bases = write.reset.iter().chain(&write.compact);
    bases.map(|base| 2 * base_bytes(base)).sum::<usize>()
        + write.entries.iter().map(|entry| payload_bytes(&entry.payload)).sum::<usize>()
}

/// How much a write counts for in a block, stamps included.
pub(crate) fn block_bytes(write: &Write) -> u64 {
    framed(rows(write) * 2 * ROW_BYTES + payload(write))
}

/// Stamps take a 64th.
fn framed(logical: usize) -> u64 {
    logical as u64 + logical as u64 / 63 + 1
}

/// Whether the batch has to wait where only the reserve is left: it has entries, and nothing that
/// frees room. (A caller that joins what waits would else keep back the very compaction that
/// ends the waiting.)
pub(crate) fn may_wait(batch: &Batch) -> bool {
    let grows = batch.writes.iter().any(|(_, write)| !write.entries.is_empty());
    let frees = |write: &Write| write.compact.is_some() || write.reset.is_some();
    grows && !batch.writes.iter().any(|(_, write)| frees(write))
}

/// Refuses a batch with a record over the limit.
pub(crate) fn check(batch: &Batch, options: &WalOptions) -> Result<(), WalError> {
    let limit = options.max_record_bytes;
    for (_, write) in &batch.writes {
        let entries = write.entries.iter().map(|entry| payload_bytes(&entry.payload));
        let bases = write.reset.iter().chain(&write.compact).map(base_bytes);
        if let Some(bytes) = entries.chain(bases).map(|n| n as u64).find(|n| *n > limit) {
            return Err(WalError::TooLarge { bytes, limit });
        }
    }
    Ok(())
}

/// Appends the batch's pieces. A write over the limit of a block is cut between its entries, its
/// other parts going with the first: each prefix is a state that the log may be in.
pub(crate) fn split(batch: Batch, options: &WalOptions, queue: &mut VecDeque<Piece>) {
    let id = batch.id;
    let mut push = |group, write| {
        queue.push_back(Piece { batch: id, write: Some((group, write)), ends_batch: false });
    };
    for (group, write) in batch.writes {
        if block_bytes(&write) <= options.max_block_bytes {
            push(group, write);
            continue;
        }
        let cuts = cuts(&write.entries, options.max_block_bytes);
        let mut from = 0;
        for to in cuts {
            let entries = write.entries.slice(from..to);
            let part = Write { entries, ..write.clone() };
            let rest = Write {
                id: write.id,
                reset: None,
                compact: None,
                truncate_from: None,
                entries: part.entries.clone(),
                hard_state: None,
            };
            push(group, if from == 0 { part } else { rest });
            from = to;
        }
    }
    match queue.back_mut() {
        Some(last) if last.batch == id && !last.ends_batch => last.ends_batch = true,
        _ => queue.push_back(Piece { batch: id, write: None, ends_batch: true }),
    }
}

/// Ends of the parts that entries are cut into.
fn cuts(entries: &[Entry], limit: u64) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut bytes = 0;
    for (i, entry) in entries.iter().enumerate() {
        let next = framed(2 * ROW_BYTES + payload_bytes(&entry.payload));
        if bytes > 0 && bytes + next > limit {
            cuts.push(i);
            bytes = 0;
        }
        bytes += next;
    }
    cuts.push(entries.len());
    cuts
}

/// How many of the first pieces go into the next block, which already has so many rows and
/// payload bytes. Whole batches where even one fits, so that a crash rarely finds part of a batch;
/// at least one piece, if there is any.
pub(crate) fn how_many(
    queue: &VecDeque<Piece>,
    options: &WalOptions,
    rows: usize,
    bytes: usize,
) -> usize {
    let fixed = framed(2 * (BLOCK_HEADER_BYTES + rows * ROW_BYTES) + bytes) + PAGE_BYTES;
    let limit = options.max_block_bytes.min(options.segment_bytes - FIRST_BLOCK);
    let mut total = fixed;
    let mut whole = 0;
    for (count, piece) in queue.iter().enumerate() {
        total += piece.bytes();
        if total > limit {
            return if whole > 0 { whole } else { count.max(1) };
        }
        if piece.ends_batch {
            whole = count + 1;
        }
    }
    queue.len()
}
