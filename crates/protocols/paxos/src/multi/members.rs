//! Changes of members, one server at a time, the end of an epoch, and hand-over of leadership.
//!
//! A change is an entry; the members it brings decide about the slots after it. So nothing is
//! proposed after it until it is chosen, and with it everything before: each such entry ends one
//! stretch of the log and begins the next. Old and new members differ in one voter, so their
//! majorities meet. A seal ends the epoch likewise: nothing is proposed after it at all.
//!
//! Whoever is told that a voter was removed may shut it down at once. So that is told only when
//! those who stay can do without it, whatever else they forget: a quorum of them has accepted that
//! a leader, who knew that the removal is chosen, leads behind it, and holds all before that; with
//! the leader's word it was made durable that the removal is chosen. Otherwise they might have to
//! ask the old members for it after a power failure.

use super::replica::MultiPaxos;
use crate::canary::Canary;
use bytes::Bytes;
use quorate_base::{Index, Instant, NodeId};
use quorate_replicated_log::{
    Body, Change, Effects, Epoch, Event, Payload, ProposalId, Protocol, Refusal, Role, StepDown,
};

impl MultiPaxos {
    pub(super) fn change(
        &mut self,
        now: Instant,
        (id, judged): (ProposalId, Index),
        change: &Change,
        context: Bytes,
        out: &mut Effects,
    ) {
        let busy = self.commit < self.repaired_to || self.is_changing() || self.is_parting();
        let next = self.membership().apply_at_once(change);
        let reason = if self.role != Role::Leader {
            Refusal::NotLeader { leader: self.leader }
        } else if self.is_sealed() {
            Refusal::Sealed
        } else if self.transfer.is_some() {
            Refusal::Transferring
        } else if busy {
            Refusal::ChangeInProgress
        } else if *change != Change::Keep && self.members.latest_index() > judged {
            Refusal::Outdated
        } else if let Some(membership) = next.filter(|_| !self.is_behind(change)) {
            let ballot = self.own_ballot();
            let first = self.propose_own(now, [Payload::members(membership, context)]);
            self.note_members();
            out.events.push(Event::Proposed { id, first, ballot });
            return;
        } else if self.is_behind(change) {
            Refusal::NotReady
        } else {
            Refusal::BadChange
        };
        out.events.push(Event::Refused { id, reason });
    }

    /// Ends the epoch.
    pub(super) fn seal(
        &mut self,
        now: Instant,
        id: ProposalId,
        (next, judged): (Protocol, Epoch),
        out: &mut Effects,
    ) {
        let refusal = if self.role != Role::Leader {
            Some(Refusal::NotLeader { leader: self.leader })
        } else if judged != self.config.epoch {
            Some(Refusal::Outdated)
        } else if self.is_sealed() {
            Some(Refusal::Sealed)
        } else if next == Protocol::Paxos {
            Some(Refusal::BadChange)
        } else if self.transfer.is_some() {
            Some(Refusal::Transferring)
        } else if self.commit < self.repaired_to || self.is_changing() || self.is_parting() {
            Some(Refusal::ChangeInProgress)
        } else {
            None
        };
        if let Some(reason) = refusal {
            out.events.push(Event::Refused { id, reason });
            return;
        }
        let ballot = self.own_ballot();
        let first = self.propose_own(now, [Payload::Seal { next, ballot }]);
        self.proposed_seal = true;
        out.events.push(Event::Proposed { id, first, ballot });
    }

    /// Whether the epoch has ended, or this leader has proposed (again) that it end.
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed.is_some() || self.proposed_seal
    }

    /// Something was chosen: perhaps the end of the epoch.
    pub(super) fn note_seal(&mut self) {
        if self.slots.get(self.commit).is_some_and(|entry| entry.payload.is_seal()) {
            self.sealed = Some(self.commit);
        }
    }

    /// How far the slots count as chosen once everything up to `index` is.
    pub(super) fn committed(&self, index: Index) -> Index {
        if self.is(Canary::GoOnAfterSeal) {
            return index;
        }
        let seal = self.sealed.or_else(|| self.slots.first_seal(self.commit + 1, index));
        Epoch::committed(seal, index)
    }

    /// Whether a vote would go to a learner that lacks more than a tenth of the log.
    fn is_behind(&self, change: &Change) -> bool {
        let Change::Promote(node) = *change else { return false };
        let Some(learner) = self.followers.get(node) else { return false };
        let is_learner = self.membership().learners.contains(&node);
        is_learner && learner.matched.saturating_mul(10) < self.slots.last_index().saturating_mul(9)
    }

    /// Whether a voter's removal is chosen, and not yet that a leader leads behind it: nobody is
    /// told of it yet.
    pub(super) fn is_parting(&self) -> bool {
        let at = self.members.latest_index();
        if at <= self.slots.base().index || self.leads.goes_on_after(at) {
            return false;
        }
        let stays = |node: &NodeId| self.membership().is_voter(*node);
        let leaves = !self.members.at(at - 1).voters.iter().all(stays);
        leaves && !self.is(Canary::PartAtOnce)
    }

    /// A change was chosen. If a voter left, those who stay are to choose that this leader leads:
    /// it says so (again) now that it knows of the change, and with it tells them.
    pub(super) fn members_chosen(&mut self, now: Instant) {
        self.parts = true;
        self.say_that_it_leads(now);
        let said = self.repaired_to > self.members.latest_index();
        if self.is_parting() && !said && !self.is_sealed() {
            self.propose_own(now, [Payload::Lead(self.promised)]);
        }
    }

    /// Whoever left is told, and leaves, once the others can do without.
    pub(super) fn part(&mut self, now: Instant, out: &mut Effects) {
        let parts = self.parts || !self.may_stay();
        if !parts || self.is_changing() || self.is_parting() || self.commit < self.repaired_to {
            return;
        }
        self.parts = false;
        self.send_accepts(out);
        for progress in self.followers.iter() {
            if !self.membership().contains(progress.node) {
                // It is told so once; then it is nobody's follower any more. It believes as much of
                // it as it holds, or is about to hold.
                let (session, commit) = (progress.session, self.commit);
                let body = Body::Heartbeat { session, commit, probe: 0 };
                self.send(out, progress.node, body, None);
            }
        }
        self.note_members();
        if !self.may_stay() {
            self.send_heartbeats(out);
            self.step_down(now, StepDown::Removed, out);
        }
    }

    /// Whether the leader goes on: not once it has been removed.
    pub(super) fn may_stay(&self) -> bool {
        self.membership().is_voter(self.me())
    }

    pub(super) fn start_transfer(&mut self, now: Instant, to: NodeId, out: &mut Effects) {
        let possible = self.role == Role::Leader
            && to != self.me()
            && self.membership().voters.contains(&to)
            && self.transfer.is_none();
        if possible {
            self.transfer = Some((to, now + self.config.election_timeout));
            // The successor need not wait for this leader's lease.
            self.reads.end_lease();
            self.transfer_caught_up(to, out);
        }
    }

    /// The successor is told to stand once it holds the whole log: it could lead without, but
    /// would have to ask for the rest first.
    pub(super) fn transfer_caught_up(&mut self, from: NodeId, out: &mut Effects) {
        let caught_up =
            self.followers.get(from).is_some_and(|p| p.matched == self.slots.last_index());
        let awaited = self.transfer.is_some_and(|(to, _)| to == from);
        if self.role == Role::Leader && awaited && caught_up {
            // No lease from here on: the successor's voters do not wait for its end.
            self.offered = true;
            self.send(out, from, Body::TimeoutNow, None);
        }
    }
}
