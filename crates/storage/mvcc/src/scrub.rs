//! Removing what compaction freed, a bounded piece at a time.
//!
//! A change at a revision below the compacted one says which version it superseded: that version
//! can be read no more, and a deletion of that age has nothing left to delete. So one walk along
//! history, never looking anything up, finds all that is to go. Nothing that can be read depends
//! on how far the walk got, which is remembered beside the data and is not replicated.

use crate::canary::{Bug, Canary};
use crate::engine::{Change, Source, Table};
use crate::error::Error;
use crate::format::{SCRUB_NAME, damaged, history_key, index_key, read_history_key, read_record};
use crate::key_value::{Revision, RevisionSub};
use crate::versions;
use bytes::Bytes;
use quorate_base::codec::{Reader, Writer};

/// One piece of scrubbing.
pub struct Piece {
    /// What to remove, and the new position.
    pub batch: Vec<Change>,
    /// Whether there is more to do.
    pub more: bool,
}

/// The change that scrubbing goes on from.
fn position(source: &impl Source) -> Result<RevisionSub, Error> {
    let Some(bytes) = source.get(Table::Meta, SCRUB_NAME)? else {
        return Ok(RevisionSub::default());
    };
    let mut r = Reader::new(bytes);
    let mut read = || {
        let main = r.varint()?;
        Ok(RevisionSub { main, sub: r.u32()? })
    };
    read().map_err(damaged("the scrub position"))
}

fn write_position(at: RevisionSub) -> Change {
    let mut w = Writer::with_capacity(12);
    w.varint(at.main).u32(at.sub);
    (Table::Meta, Bytes::from_static(SCRUB_NAME), Some(w.into_bytes()))
}

fn remove(batch: &mut Vec<Change>, key: &[u8], at: RevisionSub, is_indexed: bool) {
    if is_indexed {
        batch.push((Table::Index, Bytes::from(index_key(key, at)), None));
    }
    batch.push((Table::History, Bytes::copy_from_slice(&history_key(at)), None));
}

/// Walks over at most `max_changes` changes below `compacted`; nothing if all was walked over.
pub fn piece(
    source: &impl Source,
    compacted: Revision,
    max_changes: usize,
    canary: Canary,
) -> Result<Option<Piece>, Error> {
    let begin = position(source)?;
    let end = RevisionSub { main: compacted, sub: 0 };
    if begin >= end {
        return Ok(None);
    }
    let (from, to) = (history_key(begin), history_key(end));
    let mut batch = Vec::new();
    let (mut walked, mut next) = (0, end);
    for pair in source.scan(Table::History, &from, Some(&to)) {
        let (encoded, value) = pair?;
        let at = read_history_key(&encoded)?;
        if walked == max_changes.max(1) {
            next = at;
            break;
        }
        walked += 1;
        let record = read_record(value)?;
        if let Some(previous) = record.previous {
            remove(&mut batch, &record.key, previous, record.previous_is_indexed);
        }
        if record.put.is_none() {
            remove(&mut batch, &record.key, at, true);
        }
        if canary.sings(Bug::CompactionDropsLatest)
            && versions::latest(source, &record.key)?.is_some_and(|l| l.meta.at == at)
        {
            remove(&mut batch, &record.key, at, true);
            batch.push((Table::Current, record.key, None));
        }
    }
    batch.push(write_position(next));
    Ok(Some(Piece { batch, more: next < end }))
}
