//! From what was found on disk to a replica: and damage, which may hide what was promised.
//!
//! An entry that was there and cannot be read may have been acknowledged (Alagappan and others,
//! *Protocol-aware recovery*, 2018). Until it is repaired, this replica does not vote for a log
//! that might lack it, and stands for election only if it knows what it lacks (see `mending`). What
//! a peer sends again stays in memory until all of it is there, and reaches the disk in one write:
//! a crash in between finds the damage, and so the doubt, again.

use crate::mending::Lost;
use crate::raft::Raft;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use quorate_base::{Ballot, Index, Instant, NodeId, Position};
use quorate_replicated_log::{Base, Effects, Entries, Epoch, Journal, Log, Recovered};

/// The durable state, made whole.
pub(crate) struct Found {
    pub promised: Ballot,
    pub log: Log,
    pub journal: Journal,
    pub commit: Index,
    pub applied: Index,
    pub promised_end: Option<Position>,
    pub lost: Lost,
    pub repair_from: Index,
}

pub(crate) fn recover(recovered: Recovered, now: Instant) -> Found {
    let Recovered { base, hard_state, entries, damaged, damaged_ballots, applied, written } =
        recovered;
    let end = entries.iter().filter_map(|run| run.last().map(|e| e.position())).max_by_key(key);
    let damaged_to = damaged.iter().map(|range| *range.end()).max().unwrap_or(0);
    let (log, rewrite) = contiguous(base, entries.clone(), &applied);
    let mut journal = Journal::after(written, log.last_index());
    let promised = hard_state
        .promised
        .max(Ballot::new(log.last().ballot.round, NodeId::NONE))
        .max(Ballot::new(end.map_or(0, |e| e.ballot.round), NodeId::NONE));
    // The most that may have been promised and is not in the log now.
    let mut lost = end.filter(|e| e.index > log.last_index());
    if damaged_to > log.last_index() && end.is_none_or(|e| e.index < damaged_to) {
        lost = Some(Position::new(damaged_to, Ballot::new(promised.round, NodeId::NONE)));
    }
    let mut lost = lost.filter(|end| !log.last().at_least_as_up_to_date_as(end));
    let mut holes = Lost::default();
    if let Some(end) = lost {
        let (found, end) = Lost::find(&log, &entries, &damaged_ballots, end, promised);
        (holes, lost) = (found, Some(end));
    }
    if rewrite {
        restage(&mut journal, &log, lost.is_some(), now);
    }
    let repair_from = log.last_index() + 1;
    let applied = applied.position.index;
    let commit = Epoch::committed(log.seal(), hard_state.commit.min(log.last_index()).max(applied));
    Found { promised, log, journal, commit, applied, promised_end: lost, lost: holes, repair_from }
}

fn key(position: &Position) -> (u64, Index) {
    (position.ballot.round, position.index)
}

/// The longest log without a gap that the service's state can go on with, and whether the disk
/// must be brought into line with it.
fn contiguous(base: Base, entries: Vec<Entries>, applied: &Base) -> (Log, bool) {
    let mut log = Log::new(base.clone());
    let mut stale = false;
    for run in &entries {
        if run.first_index() == Some(log.last_index() + 1) {
            // What was kept behind a snapshot, for it might have been promised, may not follow it.
            stale |= run.first().is_some_and(|e| e.ballot.round < log.last().ballot.round);
            if !stale {
                log.append(run.clone());
            }
        }
    }
    if log.holds(applied.position) {
        return (log, stale);
    }
    // The service is past a hole, or past the end: the log goes on after the service's state.
    let after = applied.position.index;
    let mut log = Log::new(applied.clone());
    for run in entries {
        let skip = run.iter().take_while(|e| e.index <= after).count();
        let run = run.slice(skip..run.len());
        let follows = run.first_index() == Some(log.last_index() + 1);
        if follows && run.first().is_some_and(|e| e.ballot.round >= log.last().ballot.round) {
            log.append(run);
        }
    }
    (log, true)
}

/// Stages the whole log for the disk again. The write leaves with the first step.
fn restage(journal: &mut Journal, log: &Log, in_doubt: bool, now: Instant) {
    let mut early = Effects::default();
    let last = log.last_index();
    if in_doubt {
        // What the disk still has after the hole is the only trace of what was promised.
        journal.compact(now, log.base().clone(), &mut early);
    } else {
        journal.reset(now, log.base().clone(), &mut early);
    }
    if last >= log.first_index() && !in_doubt {
        let all = log.runs(log.first_index(), last).flat_map(|run| run.to_vec()).collect();
        journal.append(now, Entries::new(all), &mut early);
    }
    debug_assert!(early.is_empty(), "a reset and what follows it are one write");
}

impl Raft {
    /// Whether damage may hide a promise that this replica cannot keep by its log alone.
    pub(crate) fn is_damaged(&self) -> bool {
        self.promised_end.is_some()
    }

    /// The position that a candidate's log must not be behind of.
    pub(crate) fn vote_floor(&self) -> Position {
        let last = self.log.last();
        match self.promised_end {
            Some(end) if end.at_least_as_up_to_date_as(&last) => end,
            _ => last,
        }
    }

    /// Writes what was repaired once that is all. Returns whether nothing is in doubt (any more).
    pub(crate) fn try_repair(&mut self, now: Instant, out: &mut Effects) -> bool {
        let Some(end) = self.promised_end else { return true };
        let last = self.log.last();
        if self.commit < end.index && !last.at_least_as_up_to_date_as(&end) {
            return false;
        }
        self.repaired(now, out);
        true
    }

    /// Nothing is in doubt any more: the disk is brought into line.
    pub(crate) fn repaired(&mut self, now: Instant, out: &mut Effects) {
        self.promised_end = None;
        self.lost = Lost::default();
        self.rewrite_from(now, self.repair_from, out);
    }

    fn rewrite_from(&mut self, now: Instant, from: Index, out: &mut Effects) {
        self.journal.truncate_from(now, from, out);
        if from <= self.log.last_index() {
            let tail = self.log.runs(from, self.log.last_index()).flat_map(|run| run.to_vec());
            self.journal.append(now, Entries::new(tail.collect()), out);
        }
    }

    /// The disk lost entries that are still in memory: they are written again.
    pub(crate) fn damaged(
        &mut self,
        now: Instant,
        range: &RangeInclusive<Index>,
        out: &mut Effects,
    ) {
        let from = (*range.start()).max(self.log.first_index());
        if from > self.log.last_index().min(*range.end()) {
            return;
        }
        if self.is_damaged() {
            self.repair_from = self.repair_from.min(from); // Written with the rest.
        } else {
            self.rewrite_from(now, from, out);
        }
    }

    pub(crate) fn compact(&mut self, now: Instant, index: Index, out: &mut Effects) {
        // The end of the epoch stays, to be known again after a restart.
        let end = self.log.seal().map_or(self.applied, |seal| self.applied.min(seal - 1));
        if let Some(base) = self.log.compact(index.min(end)) {
            let base = base.clone();
            self.repair_from = self.repair_from.max(base.position.index + 1);
            self.journal.compact(now, base, out);
        }
    }
}
