//! The slots of the log in memory: a base, and after it runs of accepted entries, with gaps where
//! nothing was accepted.
//!
//! Invariants: runs are sorted and do not overlap; a slot holds the value that was put there last.
//! Appending at the end, the usual case, keeps the batch as it is; sending it shares it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use quorate_base::{Ballot, Index, Position};
use quorate_replicated_log::{Base, Entries, Entry, Membership, Payload, partition_from_back};

#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    base: Position,
    last: Index,
    /// Nothing beyond it changes the members, ends the epoch or names its leader: most of the log.
    plain_after: Index,
    runs: VecDeque<Run>,
}

#[derive(Clone, Debug)]
struct Run {
    first: Index,
    /// Weight of all its entries.
    bytes: usize,
    /// Whether any of them changes the members.
    changes: bool,
    /// Whether any of them ends the epoch.
    seals: bool,
    /// Whether any of them names its leader's ballot.
    names: bool,
    entries: Entries,
}

impl Run {
    fn new(first: Index, entries: Entries) -> Self {
        let (mut bytes, mut changes, mut seals, mut names) = (0, false, false, false);
        for entry in entries.iter() {
            bytes += entry.weight();
            changes |= matches!(entry.payload, Payload::Members { .. });
            seals |= entry.payload.is_seal();
            names |= entry.payload.named_ballot().is_some();
        }
        Run { first, bytes, changes, seals, names, entries }
    }

    /// The slot after its last.
    fn end(&self) -> Index {
        self.first + self.entries.len() as Index
    }

    /// The part of it in `from..end`.
    fn part(&self, from: Index, end: Index) -> Run {
        let range = (from - self.first) as usize..(end - self.first) as usize;
        Run::new(from, self.entries.slice(range))
    }
}

impl Slots {
    /// No entry after `base`.
    pub fn new(base: Position) -> Self {
        Slots { base, last: base.index, plain_after: base.index, runs: VecDeque::new() }
    }

    /// What the slots begin after.
    pub fn base(&self) -> Position {
        self.base
    }

    /// The last slot in which something was accepted, or the base.
    pub fn last_index(&self) -> Index {
        self.last
    }

    fn run_of(&self, index: Index) -> Option<&Run> {
        // Nearly every lookup concerns the newest run.
        let run = match self.runs.back() {
            Some(run) if run.first <= index => run,
            _ => self
                .runs
                .get(partition_from_back(&self.runs, |run| run.first <= index).checked_sub(1)?)?,
        };
        Some(run).filter(|run| index < run.end())
    }

    /// What was accepted in a slot.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        let run = self.run_of(index)?;
        run.entries.get((index - run.first) as usize)
    }

    /// The ballot of what was accepted in a slot, or of the base.
    pub fn ballot_at(&self, index: Index) -> Option<Ballot> {
        if index == self.base.index {
            return Some(self.base.ballot);
        }
        self.get(index).map(|entry| entry.ballot)
    }

    /// Puts entries, which must lie after the base, in their slots, whatever was there before.
    pub fn put(&mut self, entries: Entries) {
        let (Some(first), Some(last)) = (entries.first_index(), entries.last_index()) else {
            return;
        };
        assert!(first > self.base.index, "what was compacted is not accepted again");
        let put = Run::new(first, entries);
        if put.changes || put.seals || put.names {
            self.plain_after = self.plain_after.max(last);
        }
        if first > self.last {
            self.runs.push_back(put);
            self.last = last;
            return;
        }
        let at = partition_from_back(&self.runs, |run| run.end() <= first);
        let overlaid = self.runs.split_off(at);
        let mut after = Vec::new();
        for run in overlaid {
            if run.first < first {
                self.runs.push_back(run.part(run.first, first));
            }
            if run.end() > last + 1 {
                after.push(run.part(run.first.max(last + 1), run.end()));
            }
        }
        self.runs.push_back(put);
        self.runs.extend(after);
        self.last = self.last.max(last);
    }

    /// Forgets everything up to the base's index; what was accepted beyond stays.
    pub fn compact(&mut self, base: Position) {
        while self.runs.front().is_some_and(|run| run.end() <= base.index + 1) {
            self.runs.pop_front();
        }
        if let Some(run) = self.runs.front_mut()
            && run.first <= base.index
        {
            *run = run.part(base.index + 1, run.end());
        }
        self.base = base;
        self.last = self.last.max(base.index);
    }

    /// The last of the slots that are filled from `from` on without a gap; `from - 1` if not even
    /// that one is.
    pub fn filled_from(&self, from: Index) -> Index {
        let mut end = from;
        let at = partition_from_back(&self.runs, |run| run.end() <= from);
        for run in self.runs.range(at..) {
            if run.first > end {
                break;
            }
            end = run.end();
        }
        end - 1
    }

    /// The last of the slots that hold `ballot`'s values from `from` on without a gap.
    pub fn filled_under(&self, ballot: Ballot, from: Index) -> Index {
        let filled = self.filled_from(from);
        let other = |entry: &&Entry| entry.ballot != ballot;
        let mut runs = self.runs(from, filled);
        let first = runs.find_map(|run| run.iter().find(other).map(|e| e.index));
        first.map_or(filled, |index| index - 1)
    }

    /// Consecutive entries from `from` on, at most `max_bytes` (but at least one), not past `to`
    /// nor a gap, and their weight. Empty if nothing was accepted at `from`.
    pub fn slice(&self, from: Index, to: Index, max_bytes: usize) -> (Entries, usize) {
        let Some(run) = self.run_of(from).filter(|_| from <= to) else {
            return (Entries::default(), 0);
        };
        let whole = run.first == from && run.end() <= to + 1;
        if whole && run.bytes <= max_bytes && run.bytes >= max_bytes / 2 {
            return (run.entries.clone(), run.bytes);
        }
        if whole && run.bytes <= max_bytes && run.end() > self.last.min(to) {
            return (run.entries.clone(), run.bytes);
        }
        let (mut gathered, mut bytes) = (Vec::new(), 0);
        let mut next = from;
        let at = partition_from_back(&self.runs, |run| run.end() <= from);
        for run in self.runs.range(at..) {
            if run.first > next {
                break;
            }
            for entry in &run.entries[(next - run.first) as usize..] {
                let weight = entry.weight();
                if entry.index > to || (bytes + weight > max_bytes && bytes > 0) {
                    return (Entries::new(gathered), bytes);
                }
                bytes += weight;
                gathered.push(entry.clone());
            }
            next = run.end();
        }
        (Entries::new(gathered), bytes)
    }

    /// What was accepted from `from` to `to`, in the runs that it is in.
    pub fn runs(&self, from: Index, to: Index) -> impl Iterator<Item = Entries> + '_ {
        let at = partition_from_back(&self.runs, |run| run.end() <= from);
        let within = self.runs.range(at..).take_while(move |run| run.first <= to);
        within.map(move |run| {
            let (first, end) = (run.first.max(from), run.end().min(to.saturating_add(1)));
            if first == run.first && end == run.end() {
                run.entries.clone()
            } else {
                run.part(first, end).entries
            }
        })
    }

    /// The first entry from `from` to `to` that ends the epoch.
    pub fn first_seal(&self, from: Index, to: Index) -> Option<Index> {
        if from > self.plain_after {
            return None;
        }
        let at = partition_from_back(&self.runs, |run| run.end() <= from);
        let within = self.runs.range(at..).take_while(|run| run.first <= to);
        let mut entries = within.filter(|run| run.seals).flat_map(|run| run.entries.iter());
        let seals = |entry: &&Entry| entry.payload.is_seal() && (from..=to).contains(&entry.index);
        entries.find(seals).map(|entry| entry.index)
    }

    /// The leaders' ballots that are named in what was accepted from `from` to `to`.
    pub fn named(&self, from: Index, to: Index) -> Vec<(Index, Ballot)> {
        if from > self.plain_after {
            return Vec::new();
        }
        let at = partition_from_back(&self.runs, |run| run.end() <= from);
        let within = self.runs.range(at..).take_while(|run| run.first <= to);
        let entries = within.filter(|run| run.names).flat_map(|run| run.entries.iter());
        entries
            .filter(|entry| (from..=to).contains(&entry.index))
            .filter_map(|entry| entry.payload.named_ballot().map(|ballot| (entry.index, ballot)))
            .collect()
    }

    /// The changes of members that were accepted from `from` to `to`.
    pub fn changes(&self, from: Index, to: Index) -> Vec<(Index, Membership)> {
        if from > self.plain_after {
            return Vec::new();
        }
        let at = partition_from_back(&self.runs, |run| run.end() <= from);
        let within = self.runs.range(at..).take_while(|run| run.first <= to);
        let entries = within.filter(|run| run.changes).flat_map(|run| run.entries.iter());
        entries
            .filter(|entry| (from..=to).contains(&entry.index))
            .filter_map(|entry| match &entry.payload {
                Payload::Members { membership, .. } => Some((entry.index, (**membership).clone())),
                _ => None,
            })
            .collect()
    }
}

/// The members by index: those of the base, and what chosen entries made of them since.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    base: (Index, Membership),
    after: Vec<(Index, Membership)>,
}

impl Members {
    pub fn new(base: &Base) -> Self {
        Members { base: (base.position.index, base.membership.clone()), after: Vec::new() }
    }

    /// In force after the last chosen entry.
    pub fn latest(&self) -> &Membership {
        &self.after.last().unwrap_or(&self.base).1
    }

    /// Index of the entry that brought them, or a later chosen one if that is not known any more.
    pub fn latest_index(&self) -> Index {
        self.after.last().unwrap_or(&self.base).0
    }

    /// In force after the entry at `index`.
    pub fn at(&self, index: Index) -> &Membership {
        let after = self.after.partition_point(|(i, _)| *i <= index);
        let found = after.checked_sub(1).and_then(|at| self.after.get(at));
        &found.unwrap_or(&self.base).1
    }

    pub fn chosen(&mut self, index: Index, members: Membership) {
        self.after.push((index, members));
    }

    /// Forgets what was in force before `index`.
    pub fn compact(&mut self, index: Index) {
        let after = self.after.partition_point(|(i, _)| *i <= index);
        if let Some(latest) = self.after.drain(..after).next_back() {
            self.base = latest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use bytes::Bytes;
    use quorate_base::{NodeId, Rng};

    fn entry(index: Index, round: u64) -> Entry {
        let payload = Payload::Command(Bytes::from_static(&[0; 68]));
        Entry { index, ballot: Ballot::new(round, NodeId(1)), payload }
    }

    /// Every operation against a plain map.
    #[test]
    fn they_do_what_a_map_does() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut slots = Slots::new(Position::ZERO);
            let (mut map, mut base) = (BTreeMap::new(), 0);
            for step in 1..40 {
                if rng.below(5) == 0 {
                    base = rng.between(base, base + 4);
                    slots.compact(Position::new(base, Ballot::ZERO));
                    map = map.split_off(&(base + 1));
                } else {
                    let last = slots.last_index();
                    let first = if rng.below(2) == 0 { last + 1 } else { base + 1 + rng.below(30) };
                    let run: Vec<_> =
                        (first..first + rng.between(1, 6)).map(|i| entry(i, step)).collect();
                    map.extend(run.iter().map(|e| (e.index, e.clone())));
                    slots.put(Entries::new(run));
                }
                let last = map.keys().next_back().copied().unwrap_or(base).max(base);
                assert_eq!(slots.last_index(), last);
                let from = base + 1 + rng.below(20);
                let to = from + rng.below(12);
                assert_eq!(slots.get(from), map.get(&from));
                let wanted: Vec<Entry> = map.range(from..=to).map(|(_, e)| e.clone()).collect();
                let runs: Vec<_> = slots.runs(from, to).flat_map(|r| r.to_vec()).collect();
                assert_eq!(runs, wanted);
                let filled = (from..).find(|i| !map.contains_key(i)).map_or(0, |i| i - 1);
                assert_eq!(slots.filled_from(from), filled);
                let (slice, bytes) = slots.slice(from, to, 250);
                assert_eq!(bytes, 100 * slice.len());
                let head: Vec<_> = (from..=to.min(filled)).map(|i| map[&i].clone()).collect();
                assert_eq!(slice[..], head[..head.len().min(2)]);
            }
        }
    }
}
