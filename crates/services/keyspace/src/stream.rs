//! A large range read piece by piece.
//!
//! Invariant: all pieces are of one revision, fixed when the stream begins, yet no state is held
//! between pieces: a slow receiver costs no memory. Should compaction overtake the stream, it
//! ends with [`KeyspaceError::Compacted`](crate::KeyspaceError::Compacted).

use crate::command::Range;
use crate::reader::ReadError;
use crate::reply::KeyspaceError;
use bytes::Bytes;
use quorate_mvcc::{Engine, KeyMeta, KeyRange, KeyValue, RangeRequest, Reader, Revision};
use std::ops::ControlFlow;

/// A range being read. See [`crate::Reader::stream`].
pub struct RangeStream<E: Engine> {
    store: Reader<E>,
    range: Range,
    /// What is still to be read; nothing once the stream has ended.
    rest: Option<KeyRange>,
    /// The store's revision when the stream began.
    header_revision: Revision,
    sent: u64,
    count: u64,
}

/// One piece of a range.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Piece {
    /// Its keys, ascending.
    pub kvs: Vec<KeyValue>,
    /// Only in the last piece: whether the limit cut some off, how many keys there are in the
    /// range, and the store's revision when the stream began.
    pub end: Option<(bool, u64, Revision)>,
}

impl<E: Engine> RangeStream<E> {
    pub(crate) fn open(store: Reader<E>, range: &Range) -> Result<Self, ReadError> {
        let filtered = range.mod_revision != (0, 0) || range.create_revision != (0, 0);
        let sorted =
            range.sort.is_some_and(|(t, down)| down || t != crate::command::SortTarget::Key);
        if filtered || sorted {
            return Err(ReadError::Refused(KeyspaceError::Unsupported));
        }
        let header_revision = store.revision();
        let mut range = range.clone();
        if range.revision > header_revision {
            return Err(ReadError::Refused(KeyspaceError::FutureRevision));
        }
        if range.revision == 0 {
            range.revision = header_revision;
        }
        let rest = Some(range.range.clone());
        Ok(RangeStream { store, range, rest, header_revision, sent: 0, count: 0 })
    }

    /// The next piece, of about `max_bytes` and at least one key; nothing after the last.
    pub fn next_piece(&mut self, max_bytes: usize) -> Result<Option<Piece>, ReadError> {
        let Some(rest) = self.rest.take() else { return Ok(None) };
        if self.range.count_only {
            let count = self.count_of(rest)?;
            return Ok(Some(self.last(Vec::new(), count)));
        }
        let state = self.store.state();
        let room = match self.range.limit {
            0 => u64::MAX,
            limit => limit - self.sent,
        };
        let mut found: Vec<(Bytes, KeyMeta)> = Vec::new();
        let (mut bytes, mut cut) = (0, None);
        state.visit(&rest, self.range.revision, |key, meta| {
            if bytes >= max_bytes || found.len() as u64 >= room {
                cut = Some(key);
                return Ok(ControlFlow::Break(()));
            }
            let value_bytes = if self.range.keys_only { 0 } else { meta.value_bytes as usize };
            bytes += key.len() + value_bytes + 32;
            found.push((key, meta));
            Ok(ControlFlow::Continue(()))
        })?;
        let mut kvs = Vec::with_capacity(found.len());
        for (key, meta) in found {
            let value = if self.range.keys_only { Bytes::new() } else { state.value(&meta)? };
            kvs.push(meta.with(key, value));
        }
        self.sent += kvs.len() as u64;
        self.count += kvs.len() as u64;
        let Some(next) = cut else { return Ok(Some(self.last(kvs, 0))) };
        let rest = match rest {
            KeyRange::Between(_, to) => KeyRange::Between(next, to),
            KeyRange::One(_) | KeyRange::From(_) => KeyRange::From(next),
        };
        if self.range.limit != 0 && self.sent == self.range.limit {
            let beyond = self.count_of(rest)?;
            return Ok(Some(self.last(kvs, beyond)));
        }
        self.rest = Some(rest);
        Ok(Some(Piece { kvs, end: None }))
    }

    fn count_of(&self, range: KeyRange) -> Result<u64, ReadError> {
        let revision = self.range.revision;
        let one = RangeRequest { revision, limit: 1, keys_only: true, ..RangeRequest::of(range) };
        Ok(self.store.range(&one)?.count)
    }

    fn last(&mut self, kvs: Vec<KeyValue>, beyond: u64) -> Piece {
        let more = beyond > 0 && !self.range.count_only;
        Piece { kvs, end: Some((more, self.count + beyond, self.header_revision)) }
    }
}
