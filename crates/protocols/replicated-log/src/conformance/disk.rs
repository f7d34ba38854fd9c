//! A disk of one replica: what is written stays, what is not is lost.

use crate::{Base, Entries, Entry, HardState, Recovered, Write};
use alloc::vec;
use alloc::vec::Vec;
use quorate_base::Index;

/// The durable state of one replica.
#[derive(Clone, Default)]
pub(super) struct Disk {
    base: Base,
    hard_state: HardState,
    entries: Vec<Entry>,
    damaged: Option<Index>,
}

impl Disk {
    pub fn new(base: Base) -> Self {
        Disk { base, ..Disk::default() }
    }

    /// One entry becomes unreadable, if there are any.
    pub fn damage(&mut self, at: usize) {
        if !self.entries.is_empty() {
            self.damaged = Some(self.entries[at % self.entries.len()].index);
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
            let end = self.entries.last().map_or(self.base.position.index, |e| e.index);
            assert_eq!(first, end + 1, "entries follow what is on disk");
            self.entries.extend(write.entries.iter().cloned());
        }
        if let Some(state) = write.hard_state {
            assert!(state.promised.round >= self.hard_state.promised.round, "rounds grow");
            self.hard_state = state;
        }
    }

    fn drop_entries(&mut self, gone: impl Fn(Index) -> bool) {
        self.entries.retain(|e| !gone(e.index));
        self.damaged = self.damaged.filter(|&index| !gone(index));
    }

    /// What a restart finds.
    pub fn recover(&self, applied: &Base) -> Recovered {
        let (before, after): (Vec<Entry>, Vec<Entry>) = match self.damaged {
            None => (self.entries.clone(), Vec::new()),
            Some(hole) => {
                let readable = self.entries.iter().filter(|e| e.index != hole).cloned();
                readable.partition(|e| e.index < hole)
            }
        };
        let runs = [before, after].into_iter().filter(|run| !run.is_empty());
        Recovered {
            base: self.base.clone(),
            hard_state: self.hard_state,
            entries: runs.map(Entries::new).collect(),
            damaged: self.damaged.map_or(Vec::new(), |hole| vec![hole..=hole]),
            applied: applied.clone(),
        }
    }
}
