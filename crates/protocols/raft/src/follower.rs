//! The follower's side of replication: Raft section 5.3, and snapshots (section 7).

use crate::canary::Canary;
use crate::mending::Lost;
use crate::raft::Raft;
use quorate_base::{Index, Instant, NodeId, Position};
use quorate_replicated_log::{Append, AppendOutcome, AppendReply, Base, Body, Effects, Entries};

impl Raft {
    pub(crate) fn append(&mut self, now: Instant, from: NodeId, append: Append, out: &mut Effects) {
        let Append { session, previous, entries, commit, probe } = append;
        if !self.is_well_formed(previous, &entries) {
            return; // The peer is broken, or lies; nothing of it is believed.
        }
        let outcome = self.take_entries(now, previous, entries, commit, out);
        let Some(outcome) = outcome else { return };
        let after = self.journal.gate().filter(|_| !self.is(Canary::ReplyBeforeWritten));
        let reply = AppendReply { session, probe, outcome };
        self.send(out, from, Body::AppendReply(reply), after);
    }

    /// Consecutive after `previous`, and of rounds that never fall nor pass the leader's.
    fn is_well_formed(&self, previous: Position, entries: &Entries) -> bool {
        let mut before = previous;
        for entry in entries.iter() {
            let follows = before.index.checked_add(1) == Some(entry.index)
                && entry.ballot.round >= before.ballot.round;
            if !follows {
                return false;
            }
            before = entry.position();
        }
        before.ballot.round <= self.promised.round
    }

    fn take_entries(
        &mut self,
        now: Instant,
        mut previous: Position,
        mut entries: Entries,
        leader_commit: Index,
        out: &mut Effects,
    ) -> Option<AppendOutcome> {
        let asked = previous.index;
        if previous.index < self.commit {
            // What is committed here agrees with every leader's log (leader completeness).
            let known = entries.iter().take_while(|e| e.index <= self.commit).count();
            entries = entries.slice(known..entries.len());
            let ballot = self.log.ballot_at(self.commit)?;
            previous = Position::new(self.commit, ballot);
        } else if !self.log.holds(previous) {
            let at = previous.index.saturating_sub(1);
            let hint = self
                .log
                .last_agreeable(at, previous.ballot.round)
                .unwrap_or(self.log.base().position);
            return Some(AppendOutcome::Rejected { previous: previous.index, hint });
        }
        let matched = entries.last_index().unwrap_or(previous.index);
        let agreeing = if self.is(Canary::TruncateAlways) {
            0
        } else {
            entries.iter().take_while(|e| self.log.holds(e.position())).count()
        };
        let new = entries.slice(agreeing..entries.len());
        if let Some(first) = new.first() {
            if first.index <= self.commit || first.ballot.round < self.log_round(first.index - 1) {
                return None; // It contradicts what is committed: the peer lies.
            }
            self.put_in_place(now, new, out);
            self.role = self.resting_role();
        }
        let limit = if self.is(Canary::CommitUnmatched) { self.log.last_index() } else { matched };
        self.commit = self.commit.max(self.committed(leader_commit.min(limit)));
        if !self.try_repair(now, out) {
            // Held in memory alone: nothing to count, but the leader may go on from there.
            let hint = self.log.last();
            return Some(AppendOutcome::Rejected { previous: asked, hint });
        }
        Some(AppendOutcome::Accepted { matched })
    }

    /// Entries take the place of what the log has there and after, if anything.
    pub(crate) fn put_in_place(&mut self, now: Instant, new: Entries, out: &mut Effects) {
        let Some(from) = new.first_index() else { return };
        let overruled = from <= self.log.last_index();
        if overruled {
            self.log.truncate_from(from);
        }
        self.log.append(new.clone());
        if self.is_damaged() {
            self.lost.overtaken_by(&new, overruled);
            self.repair_from = self.repair_from.min(from); // Not on disk yet: see `recovery`.
        } else {
            if overruled {
                self.journal.truncate_from(now, from, out);
            }
            self.journal.append(now, new, out);
        }
    }

    fn log_round(&self, index: Index) -> u64 {
        self.log.ballot_at(index).map_or(0, |ballot| ballot.round)
    }

    pub(crate) fn heartbeat(
        &mut self,
        from: NodeId,
        session: u64,
        commit: Index,
        probe: u64,
        out: &mut Effects,
    ) {
        // The leader knows that this log agreed up to `commit`. What was pulled since (see `pull`)
        // may differ, so that the leader's word counts only while the log ends with what he wrote
        // himself: then all of it is a part of his.
        let agrees = self.log.last().ballot.round == self.promised.round;
        if agrees || self.is(Canary::HeartbeatAfterPull) {
            let commit = self.committed(commit.min(self.log.last_index()));
            self.commit = self.commit.max(commit);
        }
        if probe != 0 {
            let after = self.journal.gate_of(self.promise_write);
            self.send(out, from, Body::HeartbeatReply { session, probe }, after);
        }
    }

    /// The service's state was replaced: the log begins after it.
    pub(crate) fn snapshot_installed(
        &mut self,
        now: Instant,
        base: Base,
        from: NodeId,
        session: u64,
        out: &mut Effects,
    ) {
        let index = base.position.index;
        if index <= self.commit {
            return;
        }
        self.steady_until = Instant::ZERO;
        self.repair_from = self.repair_from.max(index + 1);
        if self.log.holds(base.position) {
            self.log.compact(index);
            self.journal.compact(now, base, out);
        } else {
            self.log.reset(base.clone());
            let agrees = self.lost_after(base.position);
            self.repair_from = index + 1;
            // Where the log had another entry there, nothing that followed it was committed.
            let doubtful = agrees != Some(false);
            if doubtful && self.promised_end.is_some_and(|end| end.index > index) {
                self.journal.compact(now, base, out);
            } else {
                self.promised_end = None;
                self.lost = Lost::default();
                self.journal.reset(now, base, out);
            }
        }
        self.commit = index;
        self.try_repair(now, out);
        self.handed_out = index;
        self.applied = self.applied.max(index);
        self.role = match self.role {
            quorate_replicated_log::Role::Leader => self.role,
            _ => self.resting_role(),
        };
        if from == self.leader && !self.is_damaged() {
            let outcome = AppendOutcome::Accepted { matched: index };
            let reply = AppendReply { session, probe: 0, outcome };
            let after = self.journal.gate();
            self.send(out, from, Body::AppendReply(reply), after);
        }
    }
}
