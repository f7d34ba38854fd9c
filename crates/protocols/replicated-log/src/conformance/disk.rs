//! A disk of one replica: what is written stays, what is not is lost.

use crate::{Base, Entries, Entry, HardState, Recovered, Write};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use quorate_base::{Index, Position};

/// The durable state of one replica.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Disk {
    base: Base,
    hard_state: HardState,
    entries: BTreeMap<Index, Entry>,
    damaged: BTreeSet<Index>,
    /// The ballots of what is damaged cannot be read either.
    wholly: bool,
}

impl Disk {
    /// An empty one: the log begins after `base`.
    pub fn new(base: Base) -> Self {
        Disk { base, ..Disk::default() }
    }

    /// Where the log begins.
    pub fn base(&self) -> Base {
        self.base.clone()
    }

    /// What was promised, and is known to be committed.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The entries, in order, damaged ones too.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Whether it has this very entry.
    pub fn holds(&self, entry: &Entry) -> bool {
        self.entries.get(&entry.index) == Some(entry)
    }

    /// The index of one of the entries, if there are any.
    pub fn nth(&self, at: usize) -> Option<Index> {
        let at = at.checked_rem(self.entries.len())?;
        self.entries.keys().nth(at).copied()
    }

    /// An entry becomes unreadable, its ballot with it or not.
    pub fn damage(&mut self, index: Index, wholly: bool) {
        self.wholly = wholly;
        self.damaged.insert(index);
    }

    /// Whether an entry is unreadable.
    pub fn is_damaged(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// Whether this one is.
    pub fn is_damaged_at(&self, index: Index) -> bool {
        self.damaged.contains(&index)
    }

    /// A write ends.
    pub fn apply(&mut self, write: &Write) {
        if let Some(base) = &write.reset {
            self.entries.clear();
            self.damaged.clear();
            self.base.clone_from(base);
        }
        if let Some(base) = &write.compact {
            self.drop_entries(|index| index <= base.position.index);
            self.base.clone_from(base);
        }
        if let Some(from) = write.truncate_from {
            self.drop_entries(|index| index >= from);
        }
        if let Some(first) = write.entries.first_index() {
            let end = self.entries.keys().next_back().copied().unwrap_or(self.base.position.index);
            assert_eq!(first, end + 1, "entries follow what is on disk");
            self.put(&write.entries);
        }
        for run in &write.slots {
            assert!(run.first_index() > Some(self.base.position.index), "after the base");
            self.put(run);
        }
        if let Some(state) = write.hard_state {
            assert!(state.promised.round >= self.hard_state.promised.round, "rounds grow");
            self.hard_state = state;
        }
    }

    fn put(&mut self, run: &Entries) {
        for entry in run.iter() {
            self.damaged.remove(&entry.index);
            self.entries.insert(entry.index, entry.clone());
        }
    }

    fn drop_entries(&mut self, gone: impl Fn(Index) -> bool) {
        self.entries.retain(|index, _| !gone(*index));
        self.damaged.retain(|index| !gone(*index));
    }

    /// What a restart finds.
    pub fn recover(&self, applied: &Base) -> Recovered {
        let mut entries = Vec::new();
        let mut run: Vec<Entry> = Vec::new();
        for entry in self.entries.values().filter(|e| !self.damaged.contains(&e.index)) {
            if run.last().is_some_and(|last| last.index + 1 != entry.index) {
                entries.push(Entries::new(core::mem::take(&mut run)));
            }
            run.push(entry.clone());
        }
        entries.push(Entries::new(run));
        let hidden = self.damaged.iter().filter_map(|index| self.entries.get(index));
        let mut ballots: Vec<Position> = hidden.map(Entry::position).collect();
        let (mut base, mut damaged) = (self.base.clone(), ranges(&self.damaged));
        if applied.position.index < base.position.index {
            // The state is lost, and with it all that the log's base stood for.
            damaged.insert(0, 1..=base.position.index);
            ballots.insert(0, base.position);
            base = applied.clone();
        }
        Recovered {
            base,
            hard_state: self.hard_state,
            entries: entries.into_iter().filter(|run| !run.is_empty()).collect(),
            damaged,
            damaged_ballots: if self.wholly { Vec::new() } else { ballots },
            applied: applied.clone(),
            ..Recovered::default()
        }
    }
}

fn ranges(indexes: &BTreeSet<Index>) -> Vec<RangeInclusive<Index>> {
    let mut ranges: Vec<RangeInclusive<Index>> = Vec::new();
    for &index in indexes {
        match ranges.last_mut() {
            Some(last) if *last.end() + 1 == index => *last = *last.start()..=index,
            _ => ranges.push(index..=index),
        }
    }
    ranges
}
