//! The acceptor's side of both phases: the synod's rules ([`crate::synod`]), for every slot at
//! once.

use super::campaign::WAIT;
use super::replica::MultiPaxos;
use crate::canary::Canary;
use crate::synod::may_promise;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use quorate_base::{Ballot, Index, Instant, NodeId};
use quorate_replicated_log::{
    Accept, Accepted, Body, Effects, Entries, MAX_GAP, Promise, SnapshotWanted,
};

/// What the candidate whose ballot is promised has asked.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Asked {
    /// The slot from which it asked last; zero: it has not.
    pub from: Index,
    /// It gets on, so that nobody else is encouraged before this.
    pub busy_until: Instant,
}

impl MultiPaxos {
    /// Phase 1: asked to promise `ballot` for every slot from `from` on.
    pub(super) fn prepare(
        &mut self,
        now: Instant,
        candidate: NodeId,
        (ballot, from): (Ballot, Index),
        transfer: bool,
        out: &mut Effects,
    ) {
        if ballot.node != candidate || from == 0 {
            return; // Nobody asks on another's behalf, and slots are numbered from 1.
        }
        let lower = self.is(Canary::PromiseLowerBallot);
        if !may_promise(self.promised, ballot) && !lower {
            let after = self.journal.gate_of(self.promise_write);
            self.send(out, candidate, Body::VoteReply { granted: false }, after);
            return;
        }
        if ballot != self.promised {
            if !transfer && self.sticks_to_leader(now) {
                return;
            }
            self.follow(now, NodeId::NONE, out);
            self.promise(ballot);
        }
        // A question that is not only put again tells that the candidate gets on.
        if self.leader.is_none() && (from != self.asked.from || from == WAIT) {
            if self.asked.from != 0 {
                self.asked.busy_until = now + self.config.election_timeout;
            }
            self.asked.from = from;
            self.reset_election(now);
        }
        if from == WAIT {
            return;
        }
        if from <= self.slots.base().index {
            // All there is to give is the service's state.
            out.snapshots.push(SnapshotWanted { to: candidate, session: 0 });
        }
        let promise = self.promise_from(from);
        let after = self.journal.gate_of(self.promise_write);
        self.send(out, candidate, Body::Promise(promise), after);
    }

    /// What this acceptor has to say of the slots from `from` on, as far as one message goes.
    pub(super) fn promise_from(&self, from: Index) -> Promise {
        let (mut entries, mut room) = (Vec::new(), self.config.limits.append_bytes);
        let mut next = None;
        for run in self.slots.runs(from, self.slots.last_index()) {
            let weights = run.iter().map(quorate_replicated_log::Entry::weight);
            let mut fits = 0;
            for weight in weights {
                if weight > room && (fits > 0 || !entries.is_empty()) {
                    break;
                }
                room = room.saturating_sub(weight);
                fits += 1;
            }
            let cut = fits < run.len();
            if cut {
                next = run.get(fits).map(|entry| entry.index);
            }
            if fits > 0 {
                entries.push(run.slice(0..fits));
            }
            if cut {
                break;
            }
        }
        let damaged = self.told_damaged();
        let (commit, base) = (self.known_chosen(), self.slots.base().index);
        Promise { from, commit, entries, damaged, next, base }
    }

    /// The slots of which this acceptor cannot speak.
    pub(super) fn told_damaged(&self) -> Vec<RangeInclusive<Index>> {
        if self.is(Canary::DenyDamaged) { Vec::new() } else { self.damaged.clone() }
    }

    /// Phase 2: asked to accept values by the leader of the promised ballot.
    pub(super) fn accept(&mut self, from: NodeId, accept: Accept, out: &mut Effects) {
        let Accept { session, mut entries, commit, probe } = accept;
        if !self.is_well_formed(&entries, commit) {
            return; // The peer is broken, or lies; nothing of it is believed.
        }
        let known = entries.iter().take_while(|e| e.index <= self.commit).count();
        entries = entries.slice(known..entries.len());
        if entries.first_index().is_some_and(|first| self.is_far(first)) {
            // From a leader that does not know yet how little is here; or that lies.
            entries = Entries::default();
        }
        if let (Some(first), Some(last)) = (entries.first_index(), entries.last_index()) {
            self.mend(&entries);
            self.slots.put(entries.clone());
            self.journal.accept(entries.clone());
            self.cover.add(first, last);
        }
        self.learn_from(commit);
        self.tell_accepted(from, session, probe, &entries, out);
    }

    /// Whether more than may be missing is missing before this slot.
    fn is_far(&self, slot: Index) -> bool {
        slot > self.slots.last_index().saturating_add(MAX_GAP + 1)
    }

    /// Consecutive, and of the leader's ballot or chosen already.
    fn is_well_formed(&self, entries: &Entries, commit: Index) -> bool {
        let mut before = entries.first_index().unwrap_or(1).saturating_sub(1);
        entries.iter().all(|entry| {
            let follows = before.checked_add(1) == Some(entry.index) && entry.index > 0;
            before = entry.index;
            let own = entry.ballot == self.following;
            follows && (own || (entry.index <= commit && entry.ballot < self.following))
        })
    }

    /// The leader knows what is chosen up to `commit`: so does this replica, as far as it holds
    /// the leader's values without a gap. What fills a gap later may have been sent earlier, when
    /// the leader knew less.
    fn learn_from(&mut self, commit: Index) {
        self.told = self.told.max(commit);
        let commit = self.told;
        let held = if self.is(Canary::CommitOtherBallots) {
            self.slots.filled_from(self.commit + 1)
        } else {
            self.cover.upto()
        };
        self.learn_chosen(commit.min(held));
    }

    pub(super) fn tell_accepted(
        &self,
        to: NodeId,
        session: u64,
        probe: u64,
        entries: &Entries,
        out: &mut Effects,
    ) {
        let upto = self.cover.upto();
        let beyond = match (entries.first_index(), entries.last_index()) {
            (Some(first), Some(last)) if last > upto => (first, last),
            _ => (1, 0),
        };
        let body = Body::Accepted(Accepted { session, probe, upto, beyond });
        // The deliberate bug: it pretends not to have promised another.
        let ballot =
            if self.is(Canary::AcceptLowerBallot) { self.following } else { self.promised };
        self.send_as(out, to, ballot, body, self.journal.gate());
    }

    pub(super) fn heartbeat(
        &mut self,
        from: NodeId,
        (session, probe): (u64, u64),
        commit: Index,
        out: &mut Effects,
    ) {
        self.learn_from(commit);
        if probe != 0 {
            let after = self.journal.gate_of(self.promise_write);
            self.send(out, from, Body::HeartbeatReply { session, probe }, after);
        }
    }
}
