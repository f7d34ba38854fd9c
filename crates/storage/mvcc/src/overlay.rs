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
    tables: [BTreeMap<Bytes, Pending>; 4],
    /// What was pending before each change since the mark.
    undo: Vec<(Table, Bytes, Option<Pending>)>,
}

impl<V: Source> Overlay<V> {
    /// No changes over `base`.
    pub fn new(base: V) -> Self {
        Overlay { base, tables: Default::default(), undo: Vec::with_capacity(8) }
    }

    /// Changes one key.
    pub fn set(&mut self, table: Table, key: Bytes, value: Pending) {
        let before = self.tables[table as usize].insert(key.clone(), value);
        self.undo.push((table, key, before));
    }

    /// What a key was changed to: a value, or removed. Nothing if it was not changed.
    pub fn pending(&self, table: Table, key: &[u8]) -> Option<Pending> {
        self.tables[table as usize].get(key).cloned()
    }

    /// What was changed so far stays, whatever is undone later.
    pub fn mark(&mut self) {
        self.undo.clear();
    }

    /// Undoes what was changed since the last mark.
    pub fn undo(&mut self) {
        while let Some((table, key, before)) = self.undo.pop() {
            let map = &mut self.tables[table as usize];
            match before {
                Some(before) => map.insert(key, before),
                None => map.remove(&key),
            };
        }
    }

    /// All changes, in order of table and key.
    pub fn into_batch(self) -> Vec<Change> {
        let count = self.tables.iter().map(BTreeMap::len).sum();
        let mut batch = Vec::with_capacity(count);
        for (table, pending) in Table::ALL.into_iter().zip(self.tables) {
            batch.extend(pending.into_iter().map(|(key, value)| (table, key, value)));
        }
        batch
    }

    fn merged(&self, table: Table, from: &[u8], to: Option<&[u8]>, back: bool) -> Scan<'_> {
        if to.is_some_and(|to| to <= from) {
            return Box::new(std::iter::empty());
        }
        let base = match back {
            false => self.base.scan(table, from, to),
            true => self.base.scan_back(table, from, to),
        };
        let map = &self.tables[table as usize];
        if map.is_empty() {
            return base;
        }
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let pending = map.range::<[u8], _>(bounds).map(|(k, v)| (k.clone(), v.clone()));
        let pending: Box<dyn Iterator<Item = (Bytes, Pending)>> = match back {
            false => Box::new(pending),
            true => Box::new(pending.rev()),
        };
        Box::new(Merged { base: base.peekable(), pending: pending.peekable(), back })
    }
}

impl<V: Source> Source for Overlay<V> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match self.tables[table as usize].get(key) {
            Some(pending) => Ok(pending.clone()),
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
