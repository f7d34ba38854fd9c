//! From what was found on disk to a replica: and damage, which may hide what was accepted.
//!
//! A slot that was written and cannot be read may hold a value whose choosing rests on this
//! acceptor's memory. It still promises and accepts; but it says of which slots it cannot speak
//! (Alagappan and others, *Protocol-aware recovery*, 2018), and whoever collects promises counts
//! it in those slots as one that did not answer. So each slot is decided by a quorum that
//! remembers it, also where every replica is damaged in another place.

use super::leads::Leads;
use super::replica::MultiPaxos;
use super::slots::{Members, Slots};
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use quorate_base::{Ballot, Index, Instant};
use quorate_replicated_log::{Base, Effects, Entries, Epoch, Journal, Recovered};

/// The durable state, made whole as far as it can be.
pub(super) struct Found {
    pub promised: Ballot,
    pub slots: Slots,
    pub journal: Journal,
    pub damaged: Vec<RangeInclusive<Index>>,
    pub members: Members,
    pub leads: Leads,
    pub commit: Index,
    pub remembered: Index,
    /// Where the service's state, or the log's base, is: beyond `commit`, perhaps.
    pub at: Index,
    pub state: Base,
}

/// `believes` is a deliberate bug: all that the state is ahead of is taken for chosen.
pub(super) fn recover(recovered: Recovered, now: Instant, believes: bool) -> Found {
    let Recovered { base, hard_state, entries, damaged, applied, written, .. } = recovered;
    let mut slots = Slots::new(base.position);
    let mut promised = hard_state.promised;
    for run in entries {
        for entry in run.iter() {
            promised = promised.max(entry.ballot); // To accept is to promise.
        }
        slots.put(run);
    }
    let at = applied.position.index.max(base.position.index);
    // The service's state may be ahead of what the disk remembers to be chosen. Slots in between
    // may hold values that were overruled before the state's were chosen: they are what this
    // acceptor accepted, and no more, until somebody says what is chosen there.
    let remembered = match believes {
        true => at,
        false => hard_state.commit.clamp(base.position.index, at),
    };
    let whole = slots.filled_from(base.position.index + 1) >= at;
    let mut journal = Journal::after(written, slots.last_index().max(at));
    let (commit, members, leads) = if whole {
        let mut members = Members::new(&base);
        for (index, changed) in slots.changes(base.position.index + 1, remembered) {
            members.chosen(index, changed);
        }
        let mut leads = Leads::new(base.position.ballot.min(applied.position.ballot));
        leads.chosen(slots.named(base.position.index + 1, remembered));
        (remembered, members, leads)
    } else {
        // The service's state is past a hole: the slots go on after it.
        slots.compact(applied.position);
        let mut early = Effects::default();
        journal.compact(now, applied.clone(), &mut early);
        debug_assert!(early.is_empty(), "the write leaves with the first step");
        (at, Members::new(&applied), Leads::new(applied.position.ballot))
    };
    let mut found = Found {
        promised,
        damaged: after(damaged, at),
        commit,
        remembered: hard_state.commit,
        at,
        state: applied,
        slots,
        journal,
        members,
        leads,
    };
    found.go_on_to(hard_state.commit);
    found
}

fn after(ranges: Vec<RangeInclusive<Index>>, index: Index) -> Vec<RangeInclusive<Index>> {
    let clipped = ranges.into_iter().map(|r| (*r.start()).max(index + 1)..=*r.end());
    clipped.filter(|range| !range.is_empty()).collect()
}

impl Found {
    /// What is known to be chosen up to `commit`, as far as it is held.
    fn go_on_to(&mut self, commit: Index) {
        let to = self.slots.filled_from(self.commit + 1).min(commit).max(self.commit);
        let to = Epoch::committed(self.slots.first_seal(self.commit + 1, to), to);
        for (index, changed) in self.slots.changes(self.commit + 1, to) {
            self.members.chosen(index, changed);
        }
        self.leads.chosen(self.slots.named(self.commit + 1, to));
        self.commit = to;
        self.damaged = after(core::mem::take(&mut self.damaged), to);
    }
}

impl MultiPaxos {
    /// The disk lost entries that are still in memory: they are written again.
    pub(super) fn lost_on_disk(&mut self, range: &RangeInclusive<Index>) {
        let from = (*range.start()).max(self.slots.base().index + 1);
        if from > *range.end() {
            return;
        }
        for run in self.slots.runs(from, *range.end()) {
            self.journal.accept_again(run);
        }
    }

    /// What is accepted anew is damaged no more.
    pub(super) fn mend(&mut self, entries: &Entries) {
        let (Some(first), Some(last)) = (entries.first_index(), entries.last_index()) else {
            return;
        };
        if self.damaged.is_empty() {
            return;
        }
        let mut left = Vec::new();
        for range in self.damaged.drain(..) {
            let before = *range.start()..=(*range.end()).min(first.saturating_sub(1));
            let behind = (*range.start()).max(last.saturating_add(1))..=*range.end();
            left.extend([before, behind].into_iter().filter(|range| !range.is_empty()));
        }
        self.damaged = left;
    }

    /// The service's state was replaced: slots up to its base are chosen and gone.
    pub(super) fn snapshot_installed(
        &mut self,
        now: Instant,
        base: Base,
        from: quorate_base::NodeId,
        session: u64,
        out: &mut Effects,
    ) {
        let index = base.position.index;
        if index <= self.commit {
            return;
        }
        // What was accepted beyond must not be forgotten, whatever the snapshot holds.
        self.slots.compact(base.position);
        self.members = Members::new(&base);
        self.steady_until = Instant::ZERO;
        self.leads = Leads::new(base.position.ballot);
        self.commit = index;
        self.cover.raise(index);
        self.damaged = after(core::mem::take(&mut self.damaged), index);
        self.handed_out = index;
        self.applied = self.applied.max(index);
        self.journal.compact(now, base, out);
        self.campaign_goes_on(now, out);
        if self.campaign.is_none() && self.role != quorate_replicated_log::Role::Leader {
            self.role = self.resting_role();
        }
        if from == self.leader && self.following == self.promised {
            self.tell_accepted(from, session, 0, &Entries::default(), out);
        }
    }
}
