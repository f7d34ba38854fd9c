//! Reading versions of keys from any [`Source`]: the present one, an old one, or all changes.
//!
//! The latest version of a key is in the current table. Every version's record in history names
//! the version it superseded: an older one is found by walking from version to version. Deletions
//! and every few puts have an entry in the index table: a walk starts at the first one above the
//! revision asked for, and so it is short.

use crate::canary::{Bug, Canary};
use crate::engine::{Pair, Scan, Source, Table};
use crate::error::Error;
use crate::format::{
    Latest, PutRecord, Record, history_key, index_end, index_key, index_start, read_history_key,
    read_index_key, read_index_value, read_latest, read_record,
};
use crate::key_value::{Event, KeyMeta, KeyRange, KeyValue, Revision, RevisionSub};
use bytes::Bytes;
use std::iter::Peekable;
use std::ops::ControlFlow;

/// So many index entries of one key are walked over before the rest of them is jumped over.
const STEPS_BEFORE_SEEK: usize = 16;

/// What a visitor of keys says about going on.
pub type Visit = Result<ControlFlow<()>, Error>;

/// The latest version of a key.
pub fn latest(source: &impl Source, key: &[u8]) -> Result<Option<Latest>, Error> {
    source.get(Table::Current, key)?.map(read_latest).transpose()
}

/// The version of a key that was the latest at `revision`.
pub fn at_revision(
    source: &impl Source,
    key: &[u8],
    revision: Revision,
) -> Result<Option<KeyMeta>, Error> {
    let latest = latest(source, key)?.map(|l| l.meta);
    match latest {
        Some(meta) if meta.at.main <= revision => Ok(Some(meta)),
        _ => {
            let indexed = first_superseded_after(source, key, revision)?;
            walk(source, indexed.or(latest.map(|meta| meta.at)), revision)
        }
    }
}

/// What the first change of `key` after `revision` that has an index entry superseded.
fn first_superseded_after(
    source: &impl Source,
    key: &[u8],
    revision: Revision,
) -> Result<Option<RevisionSub>, Error> {
    let after = RevisionSub { main: revision.saturating_add(1), sub: 0 };
    let (from, to) = (index_key(key, after), index_end(key));
    match source.scan(Table::Index, &from, Some(&to)).next().transpose()? {
        Some((_, value)) => read_index_value(value).map(Some),
        None => Ok(None),
    }
}

/// The first version not above `revision` on the way from the version `from` to what it
/// superseded, and so on.
fn walk(
    source: &impl Source,
    from: Option<RevisionSub>,
    revision: Revision,
) -> Result<Option<KeyMeta>, Error> {
    let mut next = from;
    while let Some(at) = next {
        let Record { put, previous, .. } = record(source, at)?;
        if at.main <= revision {
            return put.map(|put| meta(at, &put)).transpose();
        }
        if previous.is_some_and(|previous| previous >= at) {
            let (main, sub) = (at.main, at.sub);
            return Err(Error::Corrupt(format!("revision {main}.{sub} superseded a later one")));
        }
        next = previous;
    }
    Ok(None)
}

fn meta(at: RevisionSub, put: &PutRecord) -> Result<KeyMeta, Error> {
    let PutRecord { create_revision, version, lease, .. } = *put;
    let too_long = |_| Error::Corrupt(format!("a value of {} bytes", put.value.len()));
    let value_bytes = u32::try_from(put.value.len()).map_err(too_long)?;
    Ok(KeyMeta { at, create_revision, version, lease, value_bytes })
}

/// The record of one change. Whoever knows the revision knows that it is there.
pub fn record(source: &impl Source, at: RevisionSub) -> Result<Record, Error> {
    match source.get(Table::History, &history_key(at))? {
        Some(bytes) => read_record(bytes),
        None => Err(Error::Corrupt(format!("revision {}.{} is missing", at.main, at.sub))),
    }
}

/// The value that a version of a key had.
pub fn value(source: &impl Source, at: RevisionSub) -> Result<Bytes, Error> {
    match record(source, at)?.put {
        Some(PutRecord { value, .. }) => Ok(value),
        None => Err(Error::Corrupt(format!("revision {}.{} has no value", at.main, at.sub))),
    }
}

/// Shows `visit` the keys of `range` as of `revision` (none: now), ascending.
pub fn visit(
    source: &impl Source,
    range: &KeyRange,
    revision: Option<Revision>,
    canary: Canary,
    mut visit: impl FnMut(Bytes, KeyMeta) -> Visit,
) -> Result<(), Error> {
    if let KeyRange::One(key) = range {
        let meta = match revision {
            Some(revision) => at_revision(source, key, revision)?,
            None => latest(source, key)?.map(|l| l.meta),
        };
        if let Some(meta) = meta {
            visit(key.clone(), meta)?.is_break();
        }
        return Ok(());
    }
    let (from, to) = range.bounds();
    if to.as_ref().is_some_and(|to| *to <= from) {
        return Ok(());
    }
    let current = source.scan(Table::Current, &from, to.as_deref());
    let Some(revision) = revision else {
        for pair in current {
            let (key, value) = pair?;
            if visit(key, read_latest(value)?.meta)?.is_break() {
                break;
            }
        }
        return Ok(());
    };
    let index_to = to.as_deref().map(index_start);
    let index = source.scan(Table::Index, &index_start(&from), index_to.as_deref());
    let mut old = Old { source, current: current.peekable(), index: index.peekable(), index_to };
    while let Some((key, meta)) = old.next_key(revision)? {
        if canary.sings(Bug::OldRangeForgetsDeleted) && latest(source, &key)?.is_none() {
            continue;
        }
        if let Some(meta) = meta
            && visit(key, meta)?.is_break()
        {
            break;
        }
    }
    Ok(())
}

/// The current and the index table walked side by side.
struct Old<'a, S> {
    source: &'a S,
    current: Peekable<Scan<'a>>,
    index: Peekable<Scan<'a>>,
    index_to: Option<Vec<u8>>,
}

fn peek(scan: &mut Peekable<Scan<'_>>) -> Result<Option<Pair>, Error> {
    scan.peek().cloned().transpose()
}

impl<S: Source> Old<'_, S> {
    /// The next key, and its version as of `revision` if it had one.
    fn next_key(&mut self, revision: Revision) -> Result<Option<(Bytes, Option<KeyMeta>)>, Error> {
        let current = peek(&mut self.current)?;
        let index = match peek(&mut self.index)? {
            Some((encoded, _)) => Some(read_index_key(&encoded)?.0),
            None => None,
        };
        let key = match (&current, &index) {
            (None, None) => return Ok(None),
            (Some((a, _)), Some(b)) => a.min(b).clone(),
            (Some((a, _)), None) => a.clone(),
            (None, Some(b)) => b.clone(),
        };
        let mut from = None;
        if index.is_some_and(|b| b == key) {
            from = self.skip_index(&key, revision)?;
        }
        if let Some((_, value)) = current.filter(|(a, _)| *a == key) {
            self.current.next();
            let meta = read_latest(value)?.meta;
            if meta.at.main <= revision {
                return Ok(Some((key, Some(meta))));
            }
            from = from.or(Some(meta.at));
        }
        let found = walk(self.source, from, revision)?;
        Ok(Some((key, found)))
    }

    /// Consumes all entries of `key` from the index; see [`first_superseded_after`].
    fn skip_index(&mut self, key: &[u8], revision: Revision) -> Result<Option<RevisionSub>, Error> {
        let prefix = index_start(key);
        let mut found = None;
        for step in 0.. {
            let Some((encoded, value)) = peek(&mut self.index)? else { break };
            let Some(at) = encoded.strip_prefix(&prefix[..]) else { break };
            if step == STEPS_BEFORE_SEEK {
                let rest =
                    self.source.scan(Table::Index, &index_end(key), self.index_to.as_deref());
                self.index = rest.peekable();
                return match found {
                    Some(found) => Ok(Some(found)),
                    None => first_superseded_after(self.source, key, revision),
                };
            }
            if found.is_none() && read_history_key(at)?.main > revision {
                found = Some(read_index_value(value)?);
            }
            self.index.next();
        }
        Ok(found)
    }
}

/// A change, and what the key was before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The change.
    pub event: Event,
    /// The key as it was, if that was asked for, if it was, and if it is not compacted.
    pub previous: Option<KeyValue>,
}

/// The changes in one stretch of history.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Changes {
    /// The changes, in order. A revision is never split.
    pub changes: Vec<Change>,
    /// The revision to read on from; none when all that was asked for was read.
    pub next: Option<Revision>,
}

/// Which stretch of history to read, and how.
#[derive(Clone, Debug)]
pub struct ChangesRequest {
    /// The first revision.
    pub from: Revision,
    /// The last revision.
    pub to: Revision,
    /// Of which keys.
    pub range: KeyRange,
    /// Whether to add what the keys were before.
    pub previous: bool,
    /// Stop, at the end of a revision, once so many bytes of keys and values were found.
    pub max_bytes: usize,
}

/// After so many changes a read of history stops at the end of the revision, found or not.
const MAX_CHANGES_WALKED: usize = 16_384;

/// Reads a stretch of history; see [`ChangesRequest`].
pub fn changes(
    source: &impl Source,
    request: &ChangesRequest,
    compacted: Revision,
) -> Result<Changes, Error> {
    let start = history_key(RevisionSub { main: request.from, sub: 0 });
    let end = history_key(RevisionSub { main: request.to.saturating_add(1), sub: 0 });
    let mut found = Changes::default();
    let (mut bytes, mut last) = (0, 0);
    for (walked, pair) in source.scan(Table::History, &start, Some(&end)).enumerate() {
        let (encoded, value) = pair?;
        let at = read_history_key(&encoded)?;
        if at.main != last && (bytes >= request.max_bytes || walked >= MAX_CHANGES_WALKED) {
            found.next = Some(at.main);
            break;
        }
        last = at.main;
        let record = read_record(value)?;
        if !request.range.contains(&record.key) {
            continue;
        }
        let previous = match record.previous {
            Some(before) if request.previous && at.main > compacted => {
                key_value_at(source, before)?
            }
            _ => None,
        };
        bytes += record.key.len() + previous.as_ref().map_or(0, |p| p.value.len());
        bytes += record.put.as_ref().map_or(0, |p| p.value.len());
        found.changes.push(Change { event: event(record, at), previous });
    }
    Ok(found)
}

/// The key that the put at `at` wrote; nothing if that was a deletion.
pub fn key_value_at(source: &impl Source, at: RevisionSub) -> Result<Option<KeyValue>, Error> {
    match event(record(source, at)?, at) {
        Event::Put(kv) => Ok(Some(kv)),
        Event::Delete { .. } => Ok(None),
    }
}

/// What a record says happened.
pub fn event(record: Record, at: RevisionSub) -> Event {
    match record.put {
        None => Event::Delete { key: record.key, revision: at.main },
        Some(put) => Event::Put(KeyValue {
            key: record.key,
            create_revision: put.create_revision,
            mod_revision: at.main,
            version: put.version,
            value: put.value,
            lease: put.lease,
        }),
    }
}
