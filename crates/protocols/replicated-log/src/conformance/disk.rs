//! A disk of one replica: what is written stays, what is not is lost.

use crate::{Base, Entries, Entry, HardState, Recovered, Write};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use quorate_base::Index;

/// The durable state of one replica.
#[derive(Clone, Default)]
pub(super) struct Disk {
    base: Base,
    hard_state: HardState,
    entries: BTreeMap<Index, Entry>,
    damaged: Option<Index>,
}

impl Disk {
    pub fn new(base: Base) -> Self {
        Disk { base, ..Disk::default() }
    }

    /// One entry becomes unreadable, if there are any.
    pub fn damage(&mut self, at: usize) {
        if !self.entries.is_empty() {
            self.damaged = self.entries.keys().nth(at % self.entries.len()).copied();
        }
    }

    /// Whether an entry is unreadable.
    pub fn is_damaged(&self) -> bool {
        self.damaged.is_some()
    }

    pub fn apply(&mut self, write: Write) {
        if let Some(base) = write.reset {
            self.entries.clear();
            self.damaged = None;
            self.base = base;
        }
        if let Some(base) = write.compact {
            self.drop_entries(|index| index <= base.position.index);
            self.base = base;
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
            self.damaged = self.damaged.filter(|&index| index != entry.index);
            self.entries.insert(entry.index, entry.clone());
        }
    }

    fn drop_entries(&mut self, gone: impl Fn(Index) -> bool) {
        self.entries.retain(|index, _| !gone(*index));
        self.damaged = self.damaged.filter(|&index| !gone(index));
    }

    /// What a restart finds.
    pub fn recover(&self, applied: &Base) -> Recovered {
        let mut entries = Vec::new();
        let mut run: Vec<Entry> = Vec::new();
        for entry in self.entries.values().filter(|e| Some(e.index) != self.damaged) {
            if run.last().is_some_and(|last| last.index + 1 != entry.index) {
                entries.push(Entries::new(core::mem::take(&mut run)));
            }
            run.push(entry.clone());
        }
        entries.push(Entries::new(run));
        Recovered {
            base: self.base.clone(),
            hard_state: self.hard_state,
            entries: entries.into_iter().filter(|run| !run.is_empty()).collect(),
            damaged: self.damaged.map_or(Vec::new(), |hole| vec![hole..=hole]),
            applied: applied.clone(),
        }
    }
}
