//! The tail of a log in memory: a base, and after it a deque of shared runs of entries.
//!
//! Invariants: the runs are consecutive from the base on; rounds never fall along the log.
//! Appending a batch keeps the batch as it is, narrowing or sending it shares it; only a reader
//! that is far behind gets small runs copied together into one message.

use crate::entry::{Base, Entries, Entry, Payload};
use crate::membership::Membership;
use crate::search::partition_from_back;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use quorate_base::{Ballot, Index, Position};

/// The entries after a base, and the memberships they bring.
#[derive(Clone, Hash, Debug, Default)]
pub struct Log {
    base: Base,
    /// Index of the entry that brought the base's members, or a later one if it is not known.
    base_membership_index: Index,
    last: Position,
    runs: VecDeque<Run>,
    /// Memberships after the base's, by the index of their entry.
    memberships: Vec<(Index, Membership)>,
    /// Index of the first entry that ends the epoch, compacted or not.
    seal: Option<Index>,
}

#[derive(Clone, Hash, Debug)]
struct Run {
    first: Index,
    /// Weight of all its entries.
    bytes: usize,
    entries: Entries,
}

impl Run {
    fn new(first: Index, entries: Entries) -> Self {
        let bytes = entries.iter().map(Entry::weight).sum();
        Run { first, bytes, entries }
    }

    fn end(&self) -> Index {
        self.first + self.entries.len() as Index
    }
}

impl Log {
    /// An empty log after `base`.
    pub fn new(base: Base) -> Self {
        Log {
            base_membership_index: base.position.index,
            last: base.position,
            base,
            runs: VecDeque::new(),
            memberships: Vec::new(),
            seal: None,
        }
    }

    /// Where the epoch ends, as far as this log goes.
    pub fn seal(&self) -> Option<Index> {
        self.seal
    }

    /// What the log begins after.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Index of the first entry there is or will be.
    pub fn first_index(&self) -> Index {
        self.base.position.index + 1
    }

    /// Where the log ends: its last entry, or the base.
    pub fn last(&self) -> Position {
        self.last
    }

    /// Index of the last entry, or of the base.
    pub fn last_index(&self) -> Index {
        self.last.index
    }

    /// The members in force at the end of the log.
    pub fn membership(&self) -> &Membership {
        self.memberships.last().map_or(&self.base.membership, |(_, m)| m)
    }

    /// Index of the entry that brought the members in force. Where that is not known any more,
    /// for the log was compacted past it before a restart, a later one that is committed.
    pub fn membership_index(&self) -> Index {
        self.memberships.last().map_or(self.base_membership_index, |(i, _)| *i)
    }

    /// The members in force at `index`.
    pub fn membership_at(&self, index: Index) -> &Membership {
        let after = self.memberships.partition_point(|(i, _)| *i <= index);
        match after.checked_sub(1) {
            Some(at) => &self.memberships[at].1,
            None => &self.base.membership,
        }
    }

    /// Position of the run that holds `index`, which must lie after the base and not past the end.
    fn run_of(&self, index: Index) -> usize {
        debug_assert!(index > self.base.position.index && index <= self.last.index);
        match self.runs.back() {
            // Nearly every lookup concerns the newest run.
            Some(run) if run.first <= index => self.runs.len() - 1,
            _ => partition_from_back(&self.runs, |run| run.first <= index) - 1,
        }
    }

    /// The entry at `index`, if the log holds it.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        if index <= self.base.position.index || index > self.last.index {
            return None;
        }
        let run = &self.runs[self.run_of(index)];
        run.entries.get((index - run.first) as usize)
    }

    /// The ballot at `index`: of the base or an entry; nothing before the base or past the end.
    pub fn ballot_at(&self, index: Index) -> Option<Ballot> {
        if index == self.last.index {
            Some(self.last.ballot)
        } else if index == self.base.position.index {
            Some(self.base.position.ballot)
        } else {
            self.get(index).map(|e| e.ballot)
        }
    }

    /// Whether the log holds `position`, in an entry or as its base.
    pub fn holds(&self, position: Position) -> bool {
        self.ballot_at(position.index) == Some(position.ballot)
    }

    /// The last position at or before `index` whose round is at most `round`: where two logs that
    /// differ may still agree. Nothing if even the base's round is higher, or `index` precedes it.
    pub fn last_agreeable(&self, index: Index, round: u64) -> Option<Position> {
        let base = self.base.position;
        let index = index.min(self.last.index);
        if index < base.index || base.ballot.round > round {
            return None;
        }
        // Rounds never fall along the log: search the runs, then the one run.
        let runs = partition_from_back(&self.runs, |run| {
            run.first <= index && run.entries.first().is_some_and(|e| e.ballot.round <= round)
        });
        let Some(run) = runs.checked_sub(1).map(|at| &self.runs[at]) else {
            return Some(base);
        };
        let within = run.entries.partition_point(|e| e.index <= index && e.ballot.round <= round);
        Some(run.entries.get(within - 1).map_or(base, Entry::position))
    }

    /// Appends a run that follows the end.
    pub fn append(&mut self, entries: Entries) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return;
        };
        assert_eq!(first.index, self.last.index + 1, "appended entries follow the log");
        assert!(first.ballot.round >= self.last.ballot.round, "rounds never fall along the log");
        let (first, last) = (first.index, last.position());
        let mut bytes = 0;
        for entry in entries.iter() {
            bytes += entry.weight();
            match &entry.payload {
                Payload::Members { membership, .. } => {
                    self.memberships.push((entry.index, (**membership).clone()));
                }
                Payload::Seal { .. } if self.seal.is_none() => self.seal = Some(entry.index),
                _ => {}
            }
        }
        self.last = last;
        self.runs.push_back(Run { first, bytes, entries });
    }

    /// Drops the entries from `index` on, which must come after the base.
    pub fn truncate_from(&mut self, index: Index) {
        assert!(index > self.base.position.index, "what was compacted cannot be truncated");
        if index > self.last.index {
            return;
        }
        let at = self.run_of(index);
        let keep = (index - self.runs[at].first) as usize;
        self.runs.truncate(at + 1);
        if let Some(run) = self.runs.pop_back()
            && keep > 0
        {
            self.runs.push_back(Run::new(run.first, run.entries.slice(0..keep)));
        }
        self.memberships.retain(|(i, _)| *i < index);
        self.seal = self.seal.filter(|seal| *seal < index);
        self.last = match self.runs.back().and_then(|run| run.entries.last()) {
            Some(entry) => entry.position(),
            None => self.base.position,
        };
    }

    /// Moves the base up to `index`, dropping the entries up to it; a lower index changes nothing.
    /// Returns the new base if it moved. `index` must not lie past the end.
    pub fn compact(&mut self, index: Index) -> Option<&Base> {
        if index <= self.base.position.index {
            return None;
        }
        let ballot = self.ballot_at(index)?;
        let membership = self.membership_at(index).clone();
        let brought = self.memberships.iter().rev().find(|(i, _)| *i <= index);
        self.base_membership_index = brought.map_or(self.base_membership_index, |(i, _)| *i);
        self.memberships.retain(|(i, _)| *i > index);
        while self.runs.front().is_some_and(|run| run.end() <= index + 1) {
            self.runs.pop_front();
        }
        if let Some(run) = self.runs.front_mut()
            && run.first <= index
        {
            let keep = (index + 1 - run.first) as usize..run.entries.len();
            *run = Run::new(index + 1, run.entries.slice(keep));
        }
        let position = Position::new(index, ballot);
        self.base = Base { position, membership, ..self.base };
        Some(&self.base)
    }

    /// Forgets everything and begins after `base`.
    pub fn reset(&mut self, base: Base) {
        *self = Log::new(base);
    }

    /// A run from `from` on of at most `max_bytes` (but at least one entry) and not past `to`.
    /// Empty if the log does not hold `from` or `to` lies before it. Also tells the run's weight.
    pub fn slice(&self, from: Index, to: Index, max_bytes: usize) -> (Entries, usize) {
        let to = to.min(self.last.index);
        if from <= self.base.position.index || from > to {
            return (Entries::default(), 0);
        }
        let at = self.run_of(from);
        let run = &self.runs[at];
        let start = (from - run.first) as usize;
        // Whole runs are shared as they are, unless more would fit and is there.
        if run.end() > to || run.bytes >= max_bytes / 2 {
            let end = run.entries.len().min((to + 1 - run.first) as usize);
            if start == 0 && end == run.entries.len() && run.bytes <= max_bytes {
                return (run.entries.clone(), run.bytes);
            }
            let (fits, bytes) = fitting(&run.entries[start..end], max_bytes);
            return (run.entries.slice(start..start + fits), bytes);
        }
        self.gather(at, start, to, max_bytes)
    }

    /// Copies small runs together.
    fn gather(&self, at: usize, start: usize, to: Index, max_bytes: usize) -> (Entries, usize) {
        let (mut gathered, mut bytes, mut start) = (Vec::new(), 0, start);
        for run in self.runs.range(at..) {
            for entry in &run.entries[start..] {
                let weight = entry.weight();
                if entry.index > to || (bytes + weight > max_bytes && bytes > 0) {
                    return (Entries::new(gathered), bytes);
                }
                bytes += weight;
                gathered.push(entry.clone());
            }
            start = 0;
        }
        (Entries::new(gathered), bytes)
    }

    /// The entries from `from` to `to` as the runs they are in. Both must be in the log.
    pub fn runs(&self, from: Index, to: Index) -> impl Iterator<Item = Entries> + '_ {
        let at = if from > to { self.runs.len() } else { self.run_of(from) };
        self.runs.range(at..).take_while(move |run| run.first <= to).map(move |run| {
            let start = from.saturating_sub(run.first) as usize;
            let end = run.entries.len().min((to + 1 - run.first) as usize);
            if start == 0 && end == run.entries.len() {
                run.entries.clone()
            } else {
                run.entries.slice(start..end)
            }
        })
    }
}

/// How many of `entries` fit `max_bytes`, at least one, and their weight.
fn fitting(entries: &[Entry], max_bytes: usize) -> (usize, usize) {
    let (mut fits, mut bytes) = (0, 0);
    for entry in entries {
        let weight = entry.weight();
        if fits > 0 && bytes + weight > max_bytes {
            break;
        }
        fits += 1;
        bytes += weight;
    }
    (fits, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use bytes::Bytes;
    use quorate_base::{NodeId, Rng};

    fn entry(index: Index, round: u64) -> Entry {
        let payload = Payload::Command(Bytes::from_static(&[0; 68]));
        Entry { index, ballot: Ballot::new(round, NodeId(round)), payload }
    }

    /// A log whose entries have these rounds, in runs of these lengths.
    fn log(rounds: &[u64], lengths: &[usize]) -> Log {
        let mut log = Log::default();
        let mut entries: VecDeque<Entry> =
            rounds.iter().zip(1..).map(|(&round, index)| entry(index, round)).collect();
        for &length in lengths {
            log.append(Entries::new(entries.drain(..length).collect()));
        }
        assert!(entries.is_empty());
        log
    }

    fn indexes(entries: &Entries) -> Vec<Index> {
        entries.iter().map(|e| e.index).collect()
    }

    #[test]
    fn a_batch_is_shared_not_copied() {
        let mut log = Log::default();
        let batch = Entries::new((1..=4).map(|i| entry(i, 1)).collect());
        log.append(batch.clone());
        let (sent, bytes) = log.slice(1, 4, 1 << 20);
        assert_eq!(bytes, 400);
        assert!(core::ptr::eq(&batch[0], &sent[0]), "same memory");
        assert!(log.runs(2, 3).all(|run| core::ptr::eq(&batch[1], &run[0])));
    }

    #[test]
    fn slices_keep_the_limit_and_always_move() {
        let log = log(&[1; 6], &[3, 1, 1, 1]);
        // Every entry weighs 100.
        let slice = |from, to, max_bytes| indexes(&log.slice(from, to, max_bytes).0);
        assert_eq!(slice(1, 6, 250), [1, 2]);
        assert_eq!(slice(1, 6, 1), [1]);
        assert_eq!(slice(3, 6, 1_000), [3, 4, 5, 6]);
        assert_eq!(slice(4, 5, 1_000), [4, 5]);
        assert!(slice(7, 9, 1_000).is_empty() && slice(0, 9, 1_000).is_empty());
    }

    #[test]
    fn it_is_searched_for_where_logs_may_agree() {
        let log = log(&[1, 1, 4, 4, 5, 6], &[2, 2, 2]);
        let at = |index, round| log.last_agreeable(index, round).map(|p| p.index);
        assert_eq!(at(6, 3), Some(2));
        assert_eq!(at(4, 4), Some(4));
        assert_eq!(at(9, 9), Some(6));
        assert_eq!(at(6, 5), Some(5));
        assert_eq!(at(6, 0), Some(0));
    }

    /// Every operation against a plain vector.
    #[test]
    fn it_does_what_a_vector_does() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let (mut log, mut model, mut base) = (Log::default(), Vec::<Entry>::new(), 0);
            for step in 0..60u64 {
                let last = base + model.len() as Index;
                match rng.below(4) {
                    0 | 1 => {
                        let run: Vec<_> =
                            (1..=rng.between(1, 5)).map(|i| entry(last + i, 1 + step)).collect();
                        model.extend(run.iter().cloned());
                        log.append(Entries::new(run));
                    }
                    2 => {
                        let from = rng.between(base + 1, last + 1);
                        model.truncate((from - base - 1) as usize);
                        log.truncate_from(from);
                    }
                    _ => {
                        let to = rng.between(base, last);
                        model.drain(..(to - base) as usize);
                        log.compact(to);
                        base = to;
                    }
                }
                let last = base + model.len() as Index;
                assert_eq!((log.first_index(), log.last_index()), (base + 1, last));
                for (i, e) in (base + 1..).zip(&model) {
                    assert_eq!(log.get(i), Some(e));
                }
                let from = rng.between(base + 1, last + 1);
                let to = rng.between(from - 1, last);
                let wanted = &model[(from - base - 1) as usize..(to - base) as usize];
                let runs: Vec<_> = log.runs(from, to).flat_map(|r| r.to_vec()).collect();
                assert_eq!(runs, wanted);
                let (slice, bytes) = log.slice(from, to, 250);
                assert_eq!(bytes, 100 * slice.len());
                assert_eq!(&slice[..], &wanted[..slice.len()]);
                assert!(slice.len() <= 2 && (!slice.is_empty() || wanted.is_empty()));
            }
        }
    }

    #[test]
    fn members_follow_the_log() {
        let members = |index, voters: &[u64]| Entry {
            index,
            ballot: Ballot::new(1, NodeId(1)),
            payload: Payload::members(
                Membership::of(voters.iter().map(|&n| NodeId(n))),
                Bytes::new(),
            ),
        };
        let mut log = Log::new(Base { membership: Membership::of([NodeId(1)]), ..Base::default() });
        log.append(Entries::new(vec![entry(1, 1), members(2, &[1, 2]), members(3, &[1, 2, 3])]));
        assert_eq!((log.membership().voters.len(), log.membership_index()), (3, 3));
        assert_eq!(log.membership_at(1).voters.len(), 1);
        log.truncate_from(3);
        assert_eq!((log.membership().voters.len(), log.membership_index()), (2, 2));
        log.compact(2);
        assert_eq!((log.base().membership.voters.len(), log.membership_index()), (2, 2));
    }
}
