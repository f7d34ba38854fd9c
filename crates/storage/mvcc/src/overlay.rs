//! Changes not yet written, over a state: how a batch's later commands see its earlier ones.

use crate::engine::{Change, Pair, Scan, Source, Table};
use crate::error::Error;
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

/// What a key is to become: a value, or removed.
pub type Pending = Option<Bytes>;

/// A state with changes on top, which can be undone back to the last mark.
pub struct Overlay<V> {
    base: V,
    /// What was changed, but in history.
    tables: [BTreeMap<Bytes, Pending>; 4],
    /// What was added to history, which only grows at its end: ascending.
    history: Vec<Pair>,
    /// How much of it was there at the mark.
    history_marked: usize,
    /// What was pending before each change since the mark.
    undo: Vec<(Table, Bytes, Option<Pending>)>,
}

impl<V: Source> Overlay<V> {
    /// No changes over `base`.
    pub fn new(base: V) -> Self {
        Overlay {
            base,
            tables: Default::default(),
            history: Vec::with_capacity(64),
            history_marked: 0,
            undo: Vec::with_capacity(8),
        }
    }

    /// Adds a record after all others of history.
    pub fn push_history(&mut self, key: Bytes, value: Bytes) {
        assert!(
            self.history.last().is_none_or(|(last, _)| *last < key),
            "history grows at its end"
        );
        self.history.push((key, value));
    }

    /// Changes one key of another table than history.
    pub fn set(&mut self, table: Table, key: Bytes, value: Pending) {
        let before = self.tables[table as usize].insert(key.clone(), value);
        self.undo.push((table, key, before));
    }

    /// What a key was changed to: a value, or removed. Nothing if it was not changed.
    pub fn pending(&self, table: Table, key: &[u8]) -> Option<Pending> {
        if table == Table::History {
            let found = self.history.binary_search_by(|(k, _)| k[..].cmp(key)).ok()?;
            return self.history.get(found).map(|(_, value)| Some(value.clone()));
        }
        self.tables[table as usize].get(key).cloned()
    }

    /// What was changed from `from` (included) to `to` (excluded; none: the end).
    fn pending_between(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> PendingScan<'_> {
        if table == Table::History {
            let start = self.history.partition_point(|(k, _)| k[..] < *from);
            let rest = self.history.iter().skip(start);
            let count = to.map_or(usize::MAX, |to| {
                self.history.partition_point(|(k, _)| k[..] < *to).saturating_sub(start)
            });
            return Box::new(rest.take(count).map(|(k, v)| (k.clone(), Some(v.clone()))));
        }
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let pending = self.tables[table as usize].range::<[u8], _>(bounds);
        Box::new(pending.map(|(k, v)| (k.clone(), v.clone())))
    }

    /// What was changed so far stays, whatever is undone later.
    pub fn mark(&mut self) {
        self.undo.clear();
        self.history_marked = self.history.len();
    }

    /// Undoes what was changed since the last mark.
    pub fn undo(&mut self) {
        self.history.truncate(self.history_marked);
        while let Some((table, key, before)) = self.undo.pop() {
            let map = &mut self.tables[table as usize];
            match before {
                Some(before) => map.insert(key, before),
                None => map.remove(&key),
            };
        }
    }

    /// All changes, in order of table and key, and the state that they are to be made to.
    pub fn into_batch(self) -> (Vec<Change>, V) {
        let count: usize = self.tables.iter().map(BTreeMap::len).sum();
        let mut batch = Vec::with_capacity(count + self.history.len());
        for (table, pending) in Table::ALL.into_iter().zip(self.tables) {
            batch.extend(pending.into_iter().map(|(key, value)| (table, key, value)));
        }
        let history = self.history.into_iter();
        batch.extend(history.map(|(key, value)| (Table::History, key, Some(value))));
        (batch, self.base)
    }

    fn merged(&self, table: Table, from: &[u8], to: Option<&[u8]>, back: bool) -> Scan<'_> {
        if to.is_some_and(|to| to <= from) {
            return Box::new(std::iter::empty());
        }
        let base = match back {
            false => self.base.scan(table, from, to),
            true => self.base.scan_back(table, from, to),
        };
        let unchanged = match table {
            Table::History => self.history.is_empty(),
            _ => self.tables[table as usize].is_empty(),
        };
        if unchanged {
            return base;
        }
        let pending = self.pending_between(table, from, to);
        let pending: Box<dyn Iterator<Item = (Bytes, Pending)>> = match back {
            false => pending,
            true => Box::new(pending.rev()),
        };
        Box::new(Merged { base: base.peekable(), pending: pending.peekable(), back })
    }
}

impl<V: Source> Source for Overlay<V> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match self.pending(table, key) {
            Some(pending) => Ok(pending),
            None => self.base.get(table, key),
        }
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> Scan<'_> {
        self.merged(table, from, to, false)
    }

    fn scan_back(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> Scan<'_> {
        self.merged(table, from, to, true)
    }
}

type PendingScan<'a> = Box<dyn DoubleEndedIterator<Item = (Bytes, Pending)> + 'a>;

struct Merged<'a> {
    base: std::iter::Peekable<Scan<'a>>,
    pending: std::iter::Peekable<Box<dyn Iterator<Item = (Bytes, Pending)> + 'a>>,
    back: bool,
}

impl Iterator for Merged<'_> {
    type Item = Result<Pair, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.base.peek(), self.pending.peek()) {
                (None | Some(Err(_)), None) | (Some(Err(_)), Some(_)) => return self.base.next(),
                (Some(Ok(_)), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(Ok((a, _))), Some((b, _))) if self.back => b.cmp(a),
                (Some(Ok((a, _))), Some((b, _))) => a.cmp(b),
            };
            if order == Ordering::Less {
                return self.base.next();
            }
            if order == Ordering::Equal {
                self.base.next();
            }
            if let (key, Some(value)) = self.pending.next()? {
                return Some(Ok((key, value)));
            }
        }
    }
}
