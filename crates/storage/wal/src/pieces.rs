//! Pieces: a batch cut into writes that each fit one block.

use crate::batch::{Batch, BatchId};
use crate::block::BLOCK_HEADER_BYTES;
use crate::error::WalError;
use crate::layout::{FIRST_BLOCK, PAGE_BYTES};
use crate::options::WalOptions;
use crate::records::{base_bytes, payload_bytes};
use crate::row::ROW_BYTES;
use quorate_base::{GroupId, Index};
use quorate_replicated_log::{Entries, Entry, Write};
use std::collections::VecDeque;

/// A part of a batch, whole within one block.
#[derive(Debug)]
pub(crate) struct Piece {
    pub batch: BatchId,
    /// Nothing where the batch had no writes at all.
    pub write: Option<(GroupId, Write)>,
    /// It takes entries away, and those that take their place, up to this one, are in later pieces:
    /// until these are there, what was there before may have been promised.
    pub in_doubt_to: Option<Index>,
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
        + write.slots.iter().map(|run| run.len()).sum::<usize>()
        + usize::from(write.hard_state.is_some())
}

/// All entries, wherever they go.
fn entries(write: &Write) -> impl Iterator<Item = &Entry> {
    write.entries.iter().chain(write.slots.iter().flat_map(|run| run.iter()))
}

fn payload(write: &Write) -> usize {
    let bases = write.reset.iter().chain(&write.compact);
    bases.map(|base| 2 * base_bytes(base)).sum::<usize>()
        + entries(write).map(|entry| payload_bytes(&entry.payload)).sum::<usize>()
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
    let grows = batch.writes.iter().any(|(_, write)| entries(write).next().is_some());
    let frees = |write: &Write| write.compact.is_some() || write.reset.is_some();
    grows && !batch.writes.iter().any(|(_, write)| frees(write))
}

/// Refuses a batch with a record over the limit.
pub(crate) fn check(batch: &Batch, options: &WalOptions) -> Result<(), WalError> {
    let limit = options.max_record_bytes;
    for (_, write) in &batch.writes {
        let entries = entries(write).map(|entry| payload_bytes(&entry.payload));
        let bases = write.reset.iter().chain(&write.compact).map(|base| base_bytes(base));
        if let Some(bytes) = entries.chain(bases).map(|n| n as u64).find(|n| *n > limit) {
            return Err(WalError::TooLarge { bytes, limit });
        }
    }
    Ok(())
}

/// Appends the batch's pieces. A write over the limit of a block is cut between its entries, its
/// other parts going with the first: each prefix is a state that the log may be in. What is known
/// to be committed goes no further in it than what is there: a slot may hold something older until
/// the piece with its entry is durable. And where it takes entries away, as a repair does, it says
/// how far those go that are to take their place.
pub(crate) fn split(batch: Batch, options: &WalOptions, queue: &mut VecDeque<Piece>) {
    let id = batch.id;
    let mut push = |group, write, in_doubt_to| {
        let write = Some((group, write));
        queue.push_back(Piece { batch: id, write, in_doubt_to, ends_batch: false });
    };
    for (group, mut write) in batch.writes {
        if block_bytes(&write) <= options.max_block_bytes {
            push(group, write, None);
            continue;
        }
        if let Some(base) = &write.reset {
            write.truncate_from.get_or_insert(base.position.index + 1);
        }
        let mut in_doubt_to = write.truncate_from.and(write.entries.last_index());
        let mut rest = Some(write);
        while let Some(write) = rest.take() {
            let (part, more) = cut(write, options.max_block_bytes);
            push(group, part, in_doubt_to.take());
            rest = more;
        }
    }
    match queue.back_mut() {
        Some(last) if last.batch == id && !last.ends_batch => last.ends_batch = true,
        _ => {
            let nothing = Piece { batch: id, write: None, in_doubt_to: None, ends_batch: true };
            queue.push_back(nothing);
        }
    }
}

/// The first part of a write, of at most `limit` in a block but with at least one entry, and the
/// rest of its entries.
fn cut(mut write: Write, limit: u64) -> (Write, Option<Write>) {
    let mut rest = Write {
        id: write.id,
        reset: None,
        compact: None,
        truncate_from: None,
        entries: Entries::default(),
        slots: Vec::new(),
        hard_state: None,
    };
    let (entries, slots) = (std::mem::take(&mut write.entries), std::mem::take(&mut write.slots));
    let mut room = limit.saturating_sub(block_bytes(&write));
    let mut taken = 0usize;
    let mut fitting = |run: &Entries| {
        let mut fits = 0;
        for entry in run.iter() {
            let bytes = framed(2 * ROW_BYTES + payload_bytes(&entry.payload));
            if taken > 0 && bytes > room {
                break;
            }
            room = room.saturating_sub(bytes);
            taken += 1;
            fits += 1;
        }
        fits
    };
    let fits = fitting(&entries);
    write.entries = entries.slice(0..fits);
    rest.entries = entries.slice(fits..entries.len());
    let mut full = !rest.entries.is_empty();
    for run in slots {
        let fits = if full { 0 } else { fitting(&run) };
        full |= fits < run.len();
        if fits > 0 {
            write.slots.push(run.slice(0..fits));
        }
        if fits < run.len() {
            rest.slots.push(run.slice(fits..run.len()));
        }
    }
    let firsts = rest.entries.first_index().into_iter();
    let next = firsts.chain(rest.slots.iter().filter_map(Entries::first_index)).min();
    let Some(next) = next else { return (write, None) };
    rest.hard_state = write.hard_state;
    if let Some(state) = &mut write.hard_state {
        state.commit = state.commit.min(next.saturating_sub(1));
    }
    (write, Some(rest))
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
