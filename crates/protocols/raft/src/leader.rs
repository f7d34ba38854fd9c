//! A leadership from its first entry to its end: proposals, commitment, and knowing when to stop.

use crate::canary::Canary;
use crate::raft::Raft;
use alloc::vec::Vec;
use bytes::Bytes;
use quorate_base::{Ballot, Index, Instant};
use quorate_replicated_log::{
    AnswerReads, Body, Effects, Entries, Entry, Event, Leadership, Mode, Payload, ProposalId,
    Refusal, Role, StepDown, WriteId,
};

impl Raft {
    /// Elected: an entry that says so commits whatever the predecessors left (Raft section 5.4.2).
    pub(crate) fn lead(&mut self, now: Instant, out: &mut Effects) {
        debug_assert!(self.promised.node == self.me() && self.journal.is_done(self.promise_write));
        self.role = Role::Leader;
        self.leader = self.me();
        self.votes.clear();
        self.led_since = now;
        self.progress_at = now;
        // That entry, which goes to everybody at once, tells who leads.
        self.heartbeat_at = now + self.config.heartbeat;
        self.ready = false;
        self.transfer = None;
        self.offered = false;
        self.reads.forget_lease();
        self.uncommitted.clear();
        self.uncommitted_bytes = 0;
        self.followers.clear();
        self.reads.start_first_probe(self.commit);
        self.first_own = self.log.last_index() + 1;
        self.note_members();
        let lead = Payload::Lead(self.own_ballot());
        self.append_own(now, [lead], out);
    }

    /// The followers are the members, and those whose removal they are still to hear of.
    pub(crate) fn note_members(&mut self) {
        let mut nodes = self.membership().all();
        let changed_at = self.log.membership_index();
        if changed_at > self.commit && changed_at > self.log.base().position.index {
            nodes.extend(self.log.membership_at(changed_at - 1).all());
            nodes.sort_unstable();
            nodes.dedup();
        }
        nodes.retain(|&n| n != self.me());
        self.steady_until = Instant::ZERO; // Others are to be heard from.
        self.next_session += 1;
        self.followers.set(&nodes, self.next_session, self.log.last_index() + 1);
    }

    pub(crate) fn leave_leadership(&mut self, out: &mut Effects) {
        self.fail_leader_reads(out);
        self.followers.clear();
        self.transfer = None;
        self.ready = false;
        self.reads.forget_lease();
        self.uncommitted.clear();
        self.uncommitted_bytes = 0;
    }

    pub(crate) fn propose(
        &mut self,
        now: Instant,
        id: ProposalId,
        commands: Vec<Bytes>,
        out: &mut Effects,
    ) {
        let refusal = if self.role != Role::Leader {
            Some(Refusal::NotLeader { leader: self.leader })
        } else if self.is_sealed() {
            Some(Refusal::Sealed)
        } else if self.transfer.is_some() {
            Some(Refusal::Transferring)
        } else if self.uncommitted_bytes > self.config.limits.uncommitted_bytes {
            Some(Refusal::Full)
        } else {
            None
        };
        if let Some(reason) = refusal {
            out.events.push(Event::Refused { id, reason });
            return;
        }
        let ballot = self.own_ballot();
        let first = self.append_own(now, commands.into_iter().map(Payload::Command), out);
        out.events.push(Event::Proposed { id, first, ballot });
    }

    pub(crate) fn own_ballot(&self) -> Ballot {
        Ballot::new(self.promised.round, self.me())
    }

    /// Appends entries of this leadership; returns the index of the first.
    pub(crate) fn append_own<P>(&mut self, now: Instant, payloads: P, out: &mut Effects) -> Index
    where
        P: IntoIterator<Item = Payload>,
    {
        let (first, ballot) = (self.log.last_index() + 1, self.own_ballot());
        let entries: Entries = payloads
            .into_iter()
            .zip(first..)
            .map(|(payload, index)| Entry { index, ballot, payload })
            .collect();
        let Some(last) = entries.last_index() else { return first };
        if self.uncommitted.is_empty() {
            self.progress_at = now; // Only now is there something to make progress with.
        }
        let bytes = entries.iter().map(Entry::weight).sum();
        self.uncommitted.push_back((last, bytes));
        self.uncommitted_bytes += bytes;
        self.log.append(entries.clone());
        self.journal.append(now, entries, out);
        first
    }

    pub(crate) fn written(&mut self, now: Instant, id: WriteId, out: &mut Effects) {
        self.journal.written(id);
        self.own_vote_written(now, out);
        if self.role == Role::Leader {
            self.advance_commit(now, out);
        }
    }

    /// Commits what a quorum holds, if it is of this leader's round (Raft section 5.4.2).
    pub(crate) fn advance_commit(&mut self, now: Instant, out: &mut Effects) {
        if self.commit >= self.log.last_index() {
            return;
        }
        let own = if self.is(Canary::CountBeforeWritten) {
            self.log.last_index()
        } else {
            self.journal.durable()
        };
        let reached = self.spec.reached(&self.deciding(), 0, |node| {
            if node == self.me() { own } else { self.followers.get(node).map_or(0, |p| p.matched) }
        });
        if reached <= self.commit {
            return;
        }
        let round = self.log.ballot_at(reached).map(|b| b.round);
        let own_round = round == Some(self.promised.round);
        if !(own_round || self.is(Canary::CommitEarlierRound)) {
            return;
        }
        // What follows the end of the epoch is agreed on too, though it counts for nothing.
        while let Some(&(last, bytes)) = self.uncommitted.front()
            && last <= reached
        {
            self.uncommitted.pop_front();
            self.uncommitted_bytes -= bytes;
        }
        let commit = self.committed(reached);
        if commit <= self.commit {
            return;
        }
        self.commit = commit;
        self.progress_at = now;
        self.members_committed(now, out);
    }

    /// At least every heartbeat interval.
    pub(crate) fn tick_leading(&mut self, now: Instant, out: &mut Effects) {
        if now > self.steady_until
            && let Some(reason) = self.must_step_down(now)
        {
            self.step_down(now, reason, out);
            return;
        }
        if self.transfer.is_some_and(|(_, until)| now >= until) {
            self.transfer = None;
        }
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + self.config.heartbeat;
            if self.config.lease_clock_drift_ppm.is_some() || self.reads.is_awaited() {
                // Also replaces a probe that was lost.
                self.start_probe(now);
            }
            self.send_heartbeats(out);
        }
    }

    /// Whether a leader can go on; and if so, until when it need not be asked again.
    fn must_step_down(&mut self, now: Instant) -> Option<StepDown> {
        let others = !self.followers.is_empty() && !self.is_only_voter();
        if !others {
            return None;
        }
        let heard = self.spec.reached(&self.deciding(), Instant::ZERO, |node| {
            if node == self.me() {
                now
            } else {
                self.followers.get(node).and_then(|p| p.heard).unwrap_or(self.led_since)
            }
        });
        let awaits = !self.uncommitted.is_empty();
        let leadership = Leadership {
            heard,
            patience: self.config.patience,
            stall_timeout: self.stall_timeout(),
            writing_since: self.journal.waiting_since(),
            committing_since: awaits.then_some(self.progress_at),
            catching_up: self.followers.iter().any(|p| p.mode == Mode::Snapshot),
        };
        let (reason, steady_until) = leadership.must_step_down(now);
        self.steady_until = steady_until;
        reason
    }

    /// What gathered during a step goes to the followers.
    pub(crate) fn finish_leading(&mut self, now: Instant, out: &mut Effects) {
        if self.is_only_voter() {
            self.advance_commit(now, out);
            if self.role != Role::Leader {
                return;
            }
        }
        self.send_appends(out);
        self.answer_reads(now, out);
        self.tell_commit(out);
    }

    /// Tells followers that hold committed entries that these are committed, unless what they
    /// were just sent says so: they answer clients of their own.
    fn tell_commit(&mut self, out: &mut Effects) {
        let commit = self.commit;
        let mut followers = core::mem::take(&mut self.followers);
        for progress in followers.iter_mut() {
            let known = commit.min(progress.matched);
            if known > progress.commit_told {
                progress.commit_told = known;
                let session = progress.session;
                let body = Body::Heartbeat { session, commit: known, probe: 0 };
                self.send(out, progress.node, body, None);
            }
        }
        self.followers = followers;
    }
}
