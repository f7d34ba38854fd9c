//! Holes in the log: an elected replica fills them before it leads.
//!
//! Where every replica is damaged at another place, nobody's log is whole, though each entry can be
//! read somewhere. Elections need no content, only where logs end: a replica that still knows the
//! ballot of every entry that it cannot read stands like any other (Alagappan and others,
//! *Protocol-aware recovery*, 2018, section 3.4). Once elected it asks for the very entries that it
//! lost, and leads only when it has them:
//!
//! - An index and a ballot name one entry, so that whatever a peer sends under both is the one that
//!   was lost, whoever the peer is.
//! - An entry that a quorum denies was never committed: a committed one is in a quorum's logs, one
//!   of which would be denied here, and whoever denies has first promised this round, so that no
//!   earlier leader can still commit it with his help. The log of an elected replica holds all
//!   that is committed; what follows an entry that is not committed is not either. So the log is
//!   cut before the denied entry. A voter that cannot read its own slot denies only another ballot.
//! - Both is decided for the first hole alone: before it the members are known. Votes are counted
//!   again by the members of the whole log.
//!
//! Ballots of lost entries are known from the log's row tables, and where the entries on both sides
//! are of one round: a round has one leader. At the log's end that is the promised round.

use crate::canary::Canary;
use crate::raft::Raft;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use quorate_base::{Ballot, Index, Instant, NodeId, Position};
use quorate_replicated_log::{
    Body, Effects, Entries, Entry, Event, Log, Role, SnapshotWanted, VoteResult,
};

/// Entries that are asked for in one message.
const MEND_ENTRIES: usize = 256;

/// After this many election timeouts without a leader, people are told what cannot be read.
const VAIN_TIMEOUTS: u32 = 3;

/// What is left of the log after its first hole.
#[derive(Clone, Default, Debug, Hash)]
pub(crate) struct Lost {
    /// Entries that can be read, or were fetched.
    pub islands: BTreeMap<Index, Entry>,
    /// Ballots of those that cannot.
    ballots: BTreeMap<Index, Ballot>,
    /// Every index up to the end is in one of the two.
    complete: bool,
    /// What each peer has sent of its own log, from where that agrees with this one: not this
    /// replica's until it reaches far enough (see `salvage`).
    pub staged: BTreeMap<NodeId, Vec<Entry>>,
    /// Election timeouts since a leader was heard.
    pub vain: u32,
}

/// Filling the first hole, once elected.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Mending {
    first: Index,
    pub again_at: Instant,
    denied_by: Vec<NodeId>,
}

impl Lost {
    /// What is known of a log that ends at `end` (exactly, or at most there) beyond its contiguous
    /// part. Also tells the end, if that is known better now.
    pub fn find(
        log: &Log,
        entries: &[Entries],
        known: &[Position],
        end: Position,
        promised: Ballot,
    ) -> (Lost, Position) {
        let mut lost = Lost::default();
        for entry in entries.iter().flat_map(|run| run.iter()) {
            if entry.index > log.last_index() {
                lost.islands.insert(entry.index, entry.clone());
            }
        }
        let readable = lost.islands.values().map(Entry::position);
        let mut marks: Vec<Position> = readable.chain(known.iter().copied()).collect();
        marks.retain(|mark| mark.index > log.last_index());
        marks.sort_unstable_by_key(|mark| mark.index);
        marks.dedup_by_key(|mark| mark.index);
        let mut before = log.last();
        lost.complete = true;
        for mark in marks {
            lost.complete &= lost.bridge(before, mark);
            if !lost.islands.contains_key(&mark.index) {
                lost.ballots.insert(mark.index, mark.ballot);
            }
            before = mark;
        }
        if before.index >= end.index {
            return (lost, before);
        }
        // Nothing says more of the end than that nothing is of a later round than the promised one.
        let last = Position::new(end.index, before.ballot);
        if before.ballot.round == promised.round && lost.bridge(before, last) {
            return (lost, last);
        }
        lost.complete = false;
        (lost, end)
    }

    /// Takes note of what lies between two positions, and of the later one. False if that, or
    /// whether they follow each other at all, is not known.
    fn bridge(&mut self, before: Position, mark: Position) -> bool {
        let adjacent = before.index + 1 == mark.index;
        let same = before.ballot.round == mark.ballot.round;
        if !(same || (adjacent && before.ballot.round < mark.ballot.round)) {
            return false;
        }
        let between = before.index + 1..=mark.index;
        let unread = between.filter(|index| !self.islands.contains_key(index));
        let unread: Vec<Index> = unread.collect();
        self.ballots.extend(unread.into_iter().map(|index| (index, mark.ballot)));
        true
    }

    pub fn ballot_of(&self, index: Index) -> Option<Ballot> {
        let island = self.islands.get(&index).map(|entry| entry.ballot);
        island.or_else(|| self.ballots.get(&index).copied())
    }

    /// How much is lost between `last` and `end` may be known now.
    pub fn recount(&mut self, last: Index, end: Option<Position>) {
        let known = (self.islands.len() + self.ballots.len()) as u64;
        self.complete |= end.is_some_and(|end| last + known == end.index);
    }

    /// The log now reaches up to `last`; what is known beyond goes on from there, or does not.
    pub fn overtaken(&mut self, last: Index, agrees: bool) {
        if agrees {
            self.islands = self.islands.split_off(&(last + 1));
            self.ballots = self.ballots.split_off(&(last + 1));
        } else {
            *self = Lost { vain: self.vain, ..Lost::default() };
        }
    }

    /// A leader sent entries: does what lies beyond follow them?
    pub fn overtaken_by(&mut self, new: &Entries, overruled: bool) {
        let Some(last) = new.last_index() else { return };
        let agrees = new.iter().all(|e| self.ballot_of(e.index) == Some(e.ballot));
        self.overtaken(last, agrees && !overruled);
    }
}

impl Raft {
    /// Whether it may stand though it is damaged.
    pub(crate) fn can_mend(&self) -> bool {
        self.lost.complete
    }

    /// The log was replaced by a snapshot that ends at `base`. Tells whether what was lost follows
    /// that, if this is known.
    pub(crate) fn lost_after(&mut self, base: Position) -> Option<bool> {
        let agrees = self.lost.ballot_of(base.index).map(|ballot| ballot == base.ballot);
        self.lost.overtaken(base.index, agrees == Some(true));
        self.absorb();
        self.lost.recount(self.log.last_index(), self.promised_end);
        agrees
    }

    /// What follows the log without a gap becomes part of it.
    pub(crate) fn absorb(&mut self) {
        let mut run = Vec::new();
        let (mut next, mut round) = (self.log.last_index() + 1, self.log.last().ballot.round);
        while let Some(entry) = self.lost.islands.get(&next)
            && entry.ballot.round >= round
        {
            (next, round) = (next + 1, entry.ballot.round);
            run.push(entry.clone());
        }
        self.lost.islands = self.lost.islands.split_off(&next);
        self.log.append(Entries::new(run));
    }

    /// Elected, but there are holes.
    pub(crate) fn mend(&mut self, now: Instant, out: &mut Effects) {
        self.absorb();
        let Some(end) = self.promised_end else { return };
        let first = self.log.last_index() + 1;
        if first > end.index {
            self.mended_whole(now, out);
            return;
        }
        let denied_by = match self.mending.take() {
            Some(mending) if mending.first == first => mending.denied_by,
            _ => Vec::new(),
        };
        let again_at = now + self.config.heartbeat;
        self.mending = Some(Mending { first, again_at, denied_by });
        let missing = self.lost.ballots.range(first..).zip(first..);
        let ballots: Vec<Ballot> = missing
            .take_while(|((index, _), wanted)| *index == wanted)
            .map(|((_, ballot), _)| *ballot)
            .take(MEND_ENTRIES)
            .collect();
        for to in self.membership().all() {
            if to != self.me() {
                let body = Body::Mend { first, ballots: ballots.clone() };
                self.send(out, to, body, None);
            }
        }
    }

    /// Questions and answers may be lost.
    pub(crate) fn tick_mending(&mut self, now: Instant, out: &mut Effects) {
        let due = self.mending.as_ref().is_some_and(|mending| now >= mending.again_at);
        if due && self.role == Role::Candidate {
            self.mend(now, out);
        }
    }

    fn mended_whole(&mut self, now: Instant, out: &mut Effects) {
        self.mending = None;
        self.repaired(now, out);
        // Others may vote by the log that was filled.
        if self.has_won() {
            self.lead(now, out);
        } else {
            self.ask_for_votes(out);
        }
    }

    /// An elected candidate asks for entries.
    pub(crate) fn asked_to_mend(
        &mut self,
        now: Instant,
        (from, ballot): (NodeId, Ballot),
        first: Index,
        ballots: &[Ballot],
        out: &mut Effects,
    ) {
        let is_led = ballot.round == self.promised.round && !self.leader.is_none();
        let ends = first.checked_add(ballots.len() as u64).is_some();
        if ballot.node != from || first == 0 || ballots.is_empty() || is_led || !ends {
            return; // No log is so long as the last: the peer lies.
        }
        if ballot.round > self.promised.round {
            self.follow(now, ballot.round, NodeId::NONE, out);
        }
        let after = self.journal.gate_of(self.promise_write);
        if ballot.round < self.promised.round {
            self.send(out, from, Body::HeartbeatReply { session: 0, probe: 0 }, after);
            return;
        }
        self.reset_election(now); // It is given the time.
        let (entries, denied) = self.readable(first, ballots);
        if entries.is_empty() && !denied && first <= self.log.base().position.index {
            // All there is to give is the service's state.
            out.snapshots.push(SnapshotWanted { to: from, session: 0 });
            return;
        }
        self.send(out, from, Body::Mended { first, entries, denied }, after);
    }

    /// Of the entries that have these ballots, those that can be read, as far as one message goes;
    /// and whether the first is certainly another here, or none.
    fn readable(&self, first: Index, ballots: &[Ballot]) -> (Vec<Entries>, bool) {
        let (mut run, mut runs, mut room) =
            (Vec::new(), Vec::new(), self.config.limits.append_bytes);
        for (ballot, index) in ballots.iter().zip(first..) {
            let entry = self.log.get(index).or_else(|| self.lost.islands.get(&index));
            let Some(entry) = entry.filter(|entry| entry.ballot == *ballot) else {
                runs.push(Entries::new(core::mem::take(&mut run)));
                continue;
            };
            let fits = entry.weight() <= room;
            let is_first = run.is_empty() && runs.iter().all(|run: &Entries| run.is_empty());
            if !fits && !is_first {
                break;
            }
            room = room.saturating_sub(entry.weight());
            run.push(entry.clone());
        }
        runs.push(Entries::new(run));
        runs.retain(|run| !run.is_empty());
        let known = self.log.ballot_at(first).or_else(|| self.lost.ballot_of(first));
        let end = self.promised_end.map_or(0, |end| end.index).max(self.log.last_index());
        let denied = match known {
            Some(ballot) => ballots.first() != Some(&ballot),
            None => first > end,
        };
        (runs, denied)
    }

    /// A peer's answer.
    pub(crate) fn mended(
        &mut self,
        now: Instant,
        from: NodeId,
        (first, entries, denied): (Index, Vec<Entries>, bool),
        out: &mut Effects,
    ) {
        let any_ballot = self.is(Canary::MendAnyBallot);
        let Some(mending) = &mut self.mending else { return };
        if self.role != Role::Candidate {
            return;
        }
        let mut news = false;
        for entry in entries.iter().flat_map(|run| run.iter()) {
            let lost = self.lost.ballots.get(&entry.index);
            if lost == Some(&entry.ballot) || (lost.is_some() && any_ballot) {
                self.lost.ballots.remove(&entry.index);
                self.lost.islands.insert(entry.index, entry.clone());
                news = true;
            }
        }
        if denied && first == mending.first && !mending.denied_by.contains(&from) {
            mending.denied_by.push(from);
            let denied_by = mending.denied_by.clone();
            let denies = |node| denied_by.contains(&node).then_some(true);
            let still_lost = self.lost.ballots.contains_key(&first);
            let quorum = self.spec.vote(&self.deciding(), denies) == VoteResult::Won;
            if still_lost && (quorum || self.is(Canary::CutAtOneDenial)) {
                // It was never committed, nor was anything after it.
                self.mended_whole(now, out);
                return;
            }
        }
        if news {
            self.mend(now, out);
        }
    }

    /// An election timeout of a replica that is damaged: is it time to say so?
    pub(crate) fn in_vain(&mut self, out: &mut Effects) {
        let Some(end) = self.promised_end else { return };
        self.lost.vain = self.lost.vain.saturating_add(1);
        if self.lost.vain == VAIN_TIMEOUTS {
            let first = self.log.last_index() + 1;
            let next = self.lost.islands.range(first..).next().map(|(index, _)| index - 1);
            let last = next.unwrap_or(end.index).max(first);
            out.events.push(Event::Unreadable { first, last });
        }
    }
}
