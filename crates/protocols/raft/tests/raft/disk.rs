//! The disk of one replica, for tests that move it by hand: it has what was written, whole writes
//! in order, and nothing else.

use quorate_base::Index;
use quorate_replicated_log::{Base, Entries, Entry, HardState, Recovered, Write};
use std::ops::RangeInclusive;

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Disk {
    pub base: Base,
    pub hard_state: HardState,
    pub entries: Vec<Entry>,
    pub damaged: Option<RangeInclusive<Index>>,
}

impl Disk {
    pub fn new(base: Base) -> Self {
        Disk { base, ..Disk::default() }
    }

    pub fn apply(&mut self, write: &Write) {
        if let Some(base) = &write.reset {
            self.entries.clear();
            self.damaged = None;
            self.base.clone_from(base);
        }
        if let Some(base) = &write.compact {
            self.keep(|index| index > base.position.index);
            self.base.clone_from(base);
        }
        if let Some(from) = write.truncate_from {
            self.keep(|index| index < from);
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

    /// Whether it has this very entry.
    pub fn holds(&self, entry: &Entry) -> bool {
        let first = self.base.position.index + 1;
        entry.index >= first && self.entries.get((entry.index - first) as usize) == Some(entry)
    }

    fn keep(&mut self, stays: impl Fn(Index) -> bool) {
        self.entries.retain(|e| stays(e.index));
        let kept = self.damaged.take().into_iter().flatten().filter(|&i| stays(i));
        let kept: Vec<Index> = kept.collect();
        self.damaged = kept.first().zip(kept.last()).map(|(from, to)| *from..=*to);
    }

    /// What a restart finds, when the service's own state ends at `applied`.
    pub fn recover(&self, applied: Base) -> Recovered {
        let damaged = self.damaged.clone();
        let hidden = |e: &Entry| damaged.as_ref().is_some_and(|range| range.contains(&e.index));
        let runs = self.entries.chunk_by(|a, b| hidden(a) == hidden(b));
        let runs = runs.filter(|run| run.iter().any(|e| !hidden(e)));
        Recovered {
            base: self.base.clone(),
            hard_state: self.hard_state,
            entries: runs.map(|run| Entries::new(run.to_vec())).collect(),
            damaged: damaged.clone().into_iter().collect(),
            damaged_ballots: Vec::new(),
            applied,
            ..Recovered::default()
        }
    }
}
