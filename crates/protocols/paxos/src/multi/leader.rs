//! A leadership from the end of phase 1 to its end: proposals, choosing, and knowing when to stop.

use super::replica::MultiPaxos;
use crate::canary::Canary;
use alloc::vec::Vec;
use bytes::Bytes;
use quorate_base::{Ballot, Index, Instant, NodeId};
use quorate_replicated_log::{
    AnswerReads, Body, Cover, Effects, Entries, Entry, Event, Leadership, Mode, Payload,
    ProposalId, Refusal, Role, StepDown,
};

impl MultiPaxos {
    /// Phase 1 is over: what a quorum accepted is proposed again, and everything after it is free.
    pub(super) fn lead(&mut self, now: Instant) {
        let Some(campaign) = self.campaign.take() else { return };
        let ballot = self.promised;
        let bug = self.canary.filter(|_| cfg!(feature = "canary"));
        let (known, repaired) = campaign.repaired(ballot, bug);
        self.role = Role::Leader;
        self.leader = self.me();
        self.votes.clear();
        self.led_since = now;
        self.progress_at = now;
        // What it says first, which goes to everybody at once, tells who leads.
        self.heartbeat_at = now + self.config.heartbeat;
        self.ready = false;
        self.transfer = None;
        self.offered = false;
        self.reads.forget_lease();
        self.uncommitted.clear();
        self.uncommitted_bytes = 0;
        self.followers.clear();
        self.covers.clear();
        let known = Entries::new(known);
        self.mend(&known);
        self.slots.put(known.clone());
        self.journal.accept(known);
        self.learn_chosen(campaign.chosen());
        // Whatever else the disk holds was accepted under other ballots.
        self.following = ballot;
        self.cover = Cover::new(self.commit);
        self.journal.recount_from(self.commit);
        self.take_own(now, Entries::new(repaired));
        let end = self.slots.last_index();
        self.proposed_seal = self.slots.first_seal(self.commit + 1, end).is_some();
        self.repaired_to = Index::MAX;
        // Whoever led before may not have come to tell those who left.
        self.parts = self.is_parting();
        self.say_that_it_leads(now);
        self.reads.start_first_probe(self.commit);
        self.note_members();
        for progress in self.followers.iter_mut() {
            progress.probe_from(self.commit + 1);
        }
        for (node, commit) in campaign.commits() {
            if let Some(progress) = self.followers.get_mut(node) {
                progress.probe_from(commit + 1);
                progress.heard = Some(now);
            }
        }
    }

    /// The first value of its own: an entry that says who leads. Not while a found change of
    /// members is not chosen: it is yet to be known who decides about later slots; nor where the
    /// epoch ends: nobody would hear of it.
    pub(super) fn say_that_it_leads(&mut self, now: Instant) {
        if self.repaired_to == Index::MAX && !self.is_changing() && !self.is_sealed() {
            let lead = Payload::Lead(self.promised);
            self.repaired_to = self.propose_own(now, [lead]);
        }
    }

    pub(super) fn leave_leadership(&mut self, out: &mut Effects) {
        self.fail_leader_reads(out);
        self.followers.clear();
        self.covers.clear();
        self.transfer = None;
        self.ready = false;
        self.proposed_seal = false;
        self.parts = false;
        self.reads.forget_lease();
        self.uncommitted.clear();
        self.uncommitted_bytes = 0;
    }

    /// Whether a change of members was proposed that is not chosen yet: until then it is not known
    /// who decides about the slots after it.
    pub(super) fn is_changing(&self) -> bool {
        !self.slots.changes(self.commit + 1, self.slots.last_index()).is_empty()
    }

    pub(super) fn propose(
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
        } else if self.transfer.is_some() || self.is_changing() || !self.may_stay() {
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
        let ballot = self.promised;
        let first = self.propose_own(now, commands.into_iter().map(Payload::Command));
        out.events.push(Event::Proposed { id, first, ballot });
    }

    /// Proposes values in the next slots; returns the first of these.
    pub(super) fn propose_own<P>(&mut self, now: Instant, payloads: P) -> Index
    where
        P: IntoIterator<Item = Payload>,
    {
        let (first, ballot) = (self.slots.last_index() + 1, self.promised);
        let entries: Entries = payloads
            .into_iter()
            .zip(first..)
            .map(|(payload, index)| Entry { index, ballot, payload })
            .collect();
        self.take_own(now, entries);
        first
    }

    /// The leader is the first to accept what it proposes.
    fn take_own(&mut self, now: Instant, entries: Entries) {
        let Some(last) = entries.last_index() else { return };
        if self.uncommitted.is_empty() {
            self.progress_at = now; // Only now is there something to make progress with.
        }
        let bytes = entries.iter().map(Entry::weight).sum();
        self.uncommitted.push_back((last, bytes));
        self.uncommitted_bytes += bytes;
        self.mend(&entries);
        self.slots.put(entries.clone());
        self.journal.accept(entries);
    }

    /// The last slot that a replication quorum has accepted from `slot` on without a gap;
    /// `slot - 1` if not even that one.
    fn chosen_from(&self, slot: Index) -> Index {
        let own = if self.is(Canary::CountBeforeWritten) {
            self.slots.last_index()
        } else {
            self.journal.durable()
        };
        // What shows that members can do without who left is held by a quorum with all before it.
        let whole = self.is_parting();
        let ends = |node: NodeId| {
            if node == self.me() {
                return own;
            }
            let matched = self.followers.get(node).map_or(0, |p| p.matched);
            let beyond = self.covers.iter().find(|(n, _)| *n == node && matched < slot && !whole);
            beyond.map_or(matched, |(_, cover)| cover.end_from(slot))
        };
        if self.is(Canary::CountMinority) {
            return self.membership().voters.iter().map(|&n| ends(n)).max().unwrap_or(0);
        }
        self.spec.reached(self.membership(), slot - 1, |node| ends(node).max(slot - 1))
    }

    /// Learns what has been chosen. Each slot is decided by the members in force there.
    pub(super) fn advance_commit(&mut self, now: Instant) {
        let before = self.commit;
        let mut changed = false;
        while self.commit < self.slots.last_index() {
            let reached = self.chosen_from(self.commit + 1).min(self.slots.last_index());
            let reached = self.committed(reached);
            if reached <= self.commit {
                break;
            }
            let change = self.slots.changes(self.commit + 1, reached).first().map(|(i, _)| *i);
            changed |= change.is_some();
            self.learn_chosen(change.unwrap_or(reached));
            if change.is_none() && self.covers.is_empty() {
                break; // The same voters have reached no more.
            }
        }
        if self.commit == before {
            return;
        }
        self.progress_at = now;
        let commit = self.commit;
        self.covers.retain(|(_, cover)| !cover.beyond().is_empty() && cover.upto() < commit);
        while let Some(&(last, bytes)) = self.uncommitted.front()
            && last <= self.commit
        {
            self.uncommitted.pop_front();
            self.uncommitted_bytes -= bytes;
        }
        if changed {
            self.members_chosen(now);
        }
    }

    /// At least every heartbeat interval.
    pub(super) fn tick_leading(&mut self, now: Instant, out: &mut Effects) {
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
        let heard = self.spec.reached(self.membership(), Instant::ZERO, |node| {
            if node == self.me() {
                now
            } else {
                self.followers.get(node).and_then(|p| p.heard).unwrap_or(self.led_since)
            }
        });
        // What was found past the end of the epoch is void: nobody waits for it.
        let awaits = !self.uncommitted.is_empty() && self.sealed.is_none();
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
    pub(super) fn finish_leading(&mut self, now: Instant, out: &mut Effects) {
        if self.is_only_voter() {
            self.advance_commit(now);
        }
        self.part(now, out);
        if self.role != Role::Leader {
            return;
        }
        // A snapshot may have brought the change of members that it waited for.
        self.say_that_it_leads(now);
        self.send_accepts(out);
        self.answer_reads(now, out);
        self.tell_commit(out);
    }

    /// Tells followers that hold chosen entries that these are chosen, unless what they were just
    /// sent says so: they answer clients of their own.
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

    pub(super) fn own_ballot(&self) -> Ballot {
        self.promised
    }
}
