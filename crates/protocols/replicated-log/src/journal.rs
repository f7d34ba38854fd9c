//! What a replica has asked its disk to do, and how much of that is durable.
//!
//! A step stages its changes; they leave as one write at its end, or as several where one cannot
//! hold them in order. Invariants: write ids grow by one; nothing counts as durable before its
//! write is; what was truncated stops counting at once, even if its write is still under way.

use crate::effects::{Effects, Write, WriteId};
use crate::entry::{Base, Entries, HardState};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use quorate_base::{Index, Instant};

/// The writes of one replica.
#[derive(Clone, Debug)]
pub struct Journal {
    staged: Write,
    has_staged: bool,
    /// The latest durable write.
    done: WriteId,
    /// Not yet durable: id, when it was handed over, and where the log then ended.
    under_way: VecDeque<(WriteId, Instant, Index)>,
    /// Where the log ends once all that is staged and under way is durable.
    end: Index,
    /// The log is durable up to here.
    durable: Index,
}

impl Journal {
    /// Of a replica whose log on disk ends at `end`.
    pub fn new(end: Index) -> Self {
        Journal {
            staged: write(WriteId(1)),
            has_staged: false,
            done: WriteId(0),
            under_way: VecDeque::new(),
            end,
            durable: end,
        }
    }

    /// The same after `last`, the last write that there was before.
    pub fn after(last: WriteId, end: Index) -> Self {
        let staged = write(WriteId(last.0 + 1));
        Journal { staged, done: last, ..Journal::new(end) }
    }

    /// The log is durable up to here.
    pub fn durable(&self) -> Index {
        self.durable
    }

    /// Whether `id` is durable.
    pub fn is_done(&self, id: WriteId) -> bool {
        id <= self.done
    }

    /// The write that everything staged or handed over so far becomes durable with; nothing if it
    /// is durable already. What follows from it may be said after that.
    pub fn gate(&self) -> Option<WriteId> {
        if self.has_staged {
            Some(self.staged.id)
        } else {
            self.under_way.back().map(|(id, ..)| *id)
        }
    }

    /// `gate`, if not even `id` is durable: for what follows from that write alone.
    pub fn gate_of(&self, id: WriteId) -> Option<WriteId> {
        if self.is_done(id) { None } else { Some(id) }
    }

    /// When the oldest write under way was handed over.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.under_way.front().map(|(_, at, _)| *at)
    }

    /// The log begins anew after `base`.
    pub fn reset(&mut self, now: Instant, base: Base, effects: &mut Effects) {
        self.close(now, effects);
        self.cut(0);
        self.end = base.position.index;
        self.staged.reset = Some(Box::new(base));
        self.has_staged = true;
    }

    /// The log was compacted to `base`.
    pub fn compact(&mut self, now: Instant, base: Base, effects: &mut Effects) {
        if self.staged.truncate_from.is_some()
            || !self.staged.entries.is_empty()
            || !self.staged.slots.is_empty()
        {
            self.close(now, effects);
        }
        // The base itself is durable elsewhere.
        self.end = self.end.max(base.position.index);
        self.staged.compact = Some(Box::new(base));
        self.has_staged = true;
    }

    /// The log was truncated from `index` on.
    pub fn truncate_from(&mut self, now: Instant, index: Index, effects: &mut Effects) {
        if self.staged.truncate_from.is_some() || !self.staged.entries.is_empty() {
            self.close(now, effects);
        }
        self.cut(index.saturating_sub(1));
        self.staged.truncate_from = Some(index);
        self.has_staged = true;
    }

    /// Entries were appended at the end.
    pub fn append(&mut self, now: Instant, entries: Entries, effects: &mut Effects) {
        let Some(last) = entries.last_index() else { return };
        if !self.staged.entries.is_empty() {
            self.close(now, effects);
        }
        self.end = last;
        self.staged.entries = entries;
        self.has_staged = true;
    }

    /// Entries were accepted in their slots, whatever was there before. The log then counts as
    /// durable up to the last of them: for a leader alone, who accepts its own without a gap.
    pub fn accept(&mut self, entries: Entries) {
        let Some(last) = entries.last_index() else { return };
        self.end = last;
        self.staged.slots.push(entries);
        self.has_staged = true;
    }

    /// Entries are written again in their slots: what counts as durable stays as it is.
    pub fn accept_again(&mut self, entries: Entries) {
        self.staged.slots.push(entries);
        self.has_staged = true;
    }

    /// From here on nothing after `index` counts as durable, though it stays on the disk: a new
    /// leader has yet to accept it under its own ballot.
    pub fn recount_from(&mut self, index: Index) {
        self.cut(index);
        self.end = index;
        self.durable = index;
    }

    /// This must be remembered. Returns the write it goes with.
    pub fn remember(&mut self, state: HardState) -> WriteId {
        self.staged.hard_state = Some(state);
        self.has_staged = true;
        self.staged.id
    }

    /// Whether something is staged, with which more may go along for free.
    pub fn has_staged(&self) -> bool {
        self.has_staged
    }

    /// Hands what is staged to the disk.
    pub fn close(&mut self, now: Instant, effects: &mut Effects) {
        if !self.has_staged {
            return;
        }
        let id = self.staged.id;
        self.under_way.push_back((id, now, self.end));
        let next = write(WriteId(id.0 + 1));
        effects.writes.push(core::mem::replace(&mut self.staged, next));
        self.has_staged = false;
    }

    /// `id` and all before it are durable. Ids never handed out are ignored.
    pub fn written(&mut self, id: WriteId) {
        while let Some(&(front, _, end)) = self.under_way.front()
            && front <= id
        {
            self.under_way.pop_front();
            self.done = front;
            self.durable = self.durable.max(end);
        }
        if self.under_way.is_empty() && !self.has_staged {
            self.durable = self.end;
        }
    }

    /// How many more writes must end before `id` is durable; zero if it is.
    pub fn until_done(&self, id: WriteId) -> u64 {
        id.0.saturating_sub(self.done.0)
    }

    /// Feeds `state` with what decides the journal's future, apart from time and from how many
    /// writes there were before: for exhaustive checking, between steps.
    pub fn fingerprint<H: core::hash::Hasher>(&self, state: &mut H) {
        use core::hash::Hash;
        let Journal { staged: _, has_staged, done: _, under_way, end, durable } = self;
        debug_assert!(!has_staged, "a step leaves nothing staged");
        for (id, _, end) in under_way {
            (self.until_done(*id), end).hash(state);
        }
        (end, durable).hash(state);
    }

    /// Nothing after `index` counts as durable, nor will by a write already handed over.
    fn cut(&mut self, index: Index) {
        self.end = self.end.min(index);
        self.durable = self.durable.min(index);
        for (_, _, end) in &mut self.under_way {
            *end = (*end).min(index);
        }
    }
}

fn write(id: WriteId) -> Write {
    Write {
        id,
        reset: None,
        compact: None,
        truncate_from: None,
        entries: Entries::default(),
        slots: Vec::new(),
        hard_state: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, Payload};
    use alloc::vec;
    use quorate_base::Ballot;

    fn run(from: Index, to: Index) -> Entries {
        (from..=to)
            .map(|index| Entry { index, ballot: Ballot::ZERO, payload: Payload::Noop })
            .collect::<vec::Vec<_>>()
            .into()
    }

    #[test]
    fn a_step_is_one_write_and_counts_once_durable() {
        let mut journal = Journal::new(3);
        let mut out = Effects::default();
        journal.truncate_from(Instant(1), 3, &mut out);
        journal.append(Instant(1), run(3, 5), &mut out);
        journal.remember(HardState::default());
        assert_eq!((journal.durable(), journal.gate()), (2, Some(WriteId(1))));
        journal.close(Instant(1), &mut out);
        assert_eq!((out.writes.len(), journal.gate()), (1, Some(WriteId(1))));
        assert_eq!(journal.waiting_since(), Some(Instant(1)));
        journal.written(WriteId(1));
        assert_eq!((journal.durable(), journal.gate()), (5, None));
    }

    #[test]
    fn order_that_one_write_cannot_hold_takes_two() {
        let mut journal = Journal::new(0);
        let mut out = Effects::default();
        journal.append(Instant(0), run(1, 2), &mut out);
        journal.append(Instant(0), run(3, 3), &mut out);
        journal.close(Instant(0), &mut out);
        assert_eq!(out.writes.len(), 2);
        journal.written(WriteId(1));
        assert_eq!(journal.durable(), 2);
    }

    #[test]
    fn a_truncated_entry_does_not_become_durable_by_its_old_write() {
        let mut journal = Journal::new(0);
        let mut out = Effects::default();
        journal.append(Instant(0), run(1, 9), &mut out);
        journal.close(Instant(0), &mut out);
        journal.truncate_from(Instant(0), 4, &mut out);
        journal.append(Instant(0), run(4, 6), &mut out);
        journal.close(Instant(0), &mut out);
        journal.written(WriteId(1));
        assert_eq!(journal.durable(), 3);
        journal.written(WriteId(2));
        assert_eq!(journal.durable(), 6);
    }
}
