//! Changes of members through joint consensus (Raft section 6), the end of an epoch, and hand-over
//! of leadership (Ongaro's thesis, section 3.10).

use crate::canary::Canary;
use crate::raft::Raft;
use bytes::Bytes;
use quorate_base::{Index, Instant, NodeId};
use quorate_replicated_log::{
    Body, Change, Effects, Epoch, Event, Payload, ProposalId, Protocol, Refusal, Role, StepDown,
};

impl Raft {
    pub(crate) fn change(
        &mut self,
        now: Instant,
        (id, judged): (ProposalId, Index),
        change: &Change,
        context: Bytes,
        out: &mut Effects,
    ) {
        let busy = self.is_changing();
        let next = self.membership().apply(change);
        let reason = if self.role != Role::Leader {
            Refusal::NotLeader { leader: self.leader }
        } else if self.is_sealed() {
            Refusal::Sealed
        } else if self.transfer.is_some() {
            Refusal::Transferring
        } else if busy {
            Refusal::ChangeInProgress
        } else if *change != Change::Keep && self.log.membership_index() > judged {
            Refusal::Outdated
        } else if let Some(membership) = next.filter(|_| !self.is_behind(change)) {
            let ballot = self.own_ballot();
            let payload = Payload::members(membership, context);
            let first = self.append_own(now, [payload], out);
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

    /// Whether a change of members is under way, or nothing of this leadership is committed yet.
    fn is_changing(&self) -> bool {
        self.commit < self.first_own
            || self.log.membership_index() > self.commit
            || self.membership().is_joint()
    }

    /// Ends the epoch.
    pub(crate) fn seal(
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
        } else if next == Protocol::Raft {
            Some(Refusal::BadChange)
        } else if self.transfer.is_some() {
            Some(Refusal::Transferring)
        } else if self.is_changing() {
            Some(Refusal::ChangeInProgress)
        } else {
            None
        };
        if let Some(reason) = refusal {
            out.events.push(Event::Refused { id, reason });
            return;
        }
        let ballot = self.own_ballot();
        let first = self.append_own(now, [Payload::Seal { next, ballot }], out);
        out.events.push(Event::Proposed { id, first, ballot });
    }

    /// Whether this log knows of an end of its epoch, committed or not.
    pub(crate) fn is_sealed(&self) -> bool {
        self.log.seal().is_some()
    }

    /// How far the log counts as committed once everything up to `index` is.
    pub(crate) fn committed(&self, index: Index) -> Index {
        let seal = self.log.seal().filter(|_| !self.is(Canary::GoOnAfterSeal));
        Epoch::committed(seal, index)
    }

    /// Whether a vote would go to a learner that lacks more than a tenth of the log: the group
    /// could be left waiting for it (Ongaro's thesis, section 4.2.1).
    fn is_behind(&self, change: &Change) -> bool {
        let Change::Promote(node) = *change else { return false };
        let Some(learner) = self.followers.get(node) else { return false };
        let is_learner = self.membership().learners.contains(&node);
        is_learner && learner.matched.saturating_mul(10) < self.log.last_index().saturating_mul(9)
    }

    /// Something was committed: joint consensus goes on to its end, and whoever left, leaves.
    pub(crate) fn members_committed(&mut self, now: Instant, out: &mut Effects) {
        if self.log.membership_index() > self.commit {
            return;
        }
        if self.membership().is_joint() {
            let membership = self.membership().leave_joint();
            let payload = Payload::members(membership, Bytes::new());
            self.append_own(now, [payload], out);
            self.note_members();
            return;
        }
        let left = self.followers.iter().any(|p| !self.membership().contains(p.node));
        if left {
            // Whoever left is told so once; then it is nobody's follower any more.
            let commit = self.commit;
            for progress in self.followers.iter() {
                let session = progress.session;
                let known = commit.min(progress.matched);
                if !self.membership().contains(progress.node) {
                    let body = Body::Heartbeat { session, commit: known, probe: 0 };
                    self.send(out, progress.node, body, None);
                }
            }
            self.note_members();
        }
        if !self.is_voter() {
            self.send_appends(out);
            self.send_heartbeats(out);
            self.step_down(now, StepDown::Removed, out);
        }
    }

    pub(crate) fn start_transfer(&mut self, now: Instant, to: NodeId, out: &mut Effects) {
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

    /// The successor is told to stand once it holds the whole log.
    pub(crate) fn transfer_caught_up(&mut self, from: NodeId, out: &mut Effects) {
        let caught_up =
            self.followers.get(from).is_some_and(|p| p.matched == self.log.last_index());
        let awaited = self.transfer.is_some_and(|(to, _)| to == from);
        if self.role == Role::Leader && awaited && caught_up {
            // No lease from here on: the successor's voters do not wait for its end.
            self.offered = true;
            self.send(out, from, Body::TimeoutNow, None);
        }
    }
}
