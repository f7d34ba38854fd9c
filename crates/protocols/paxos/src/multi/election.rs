//! Who may ask for promises: whoever reaches a quorum in both directions, for nobody else has a
//! leader. That is a ballot leader election (Ng, Haridi and Carbone, *Omni-Paxos*, 2023, section
//! 5) with the questions asked when a leader is missed instead of all the time: a pre-vote is
//! granted whatever the candidate's log holds, unless a leader was heard from within an election
//! timeout; and a leader that does not hear a quorum for so long gives up.

use super::replica::MultiPaxos;
use alloc::vec::Vec;
use core::time::Duration;
use quorate_base::{Ballot, Index, Instant, NodeId, Position};
use quorate_replicated_log::{AnswerReads, Body, Effects, Membership, Role, VoteResult};

impl MultiPaxos {
    /// Nothing was heard of a leader for long enough.
    pub(super) fn election_timeout(&mut self, now: Instant, out: &mut Effects) {
        self.reset_election(now);
        self.in_vain(out);
        self.campaign = None;
        if !self.may_stand(now) {
            if !self.leader.is_none() || self.role != self.resting_role() {
                self.follow(now, NodeId::NONE, out);
            }
            return;
        }
        self.fail_follower_reads(out);
        self.role = Role::PreCandidate;
        self.leader = NodeId::NONE;
        self.votes.clear();
        self.votes.push((self.me(), true));
        if self.votes_so_far() == VoteResult::Won {
            self.stand(now, false, out);
            return;
        }
        let ballot = self.next_ballot();
        for to in self.other_voters() {
            // Where its log ends is nobody's concern.
            self.send_as(out, to, ballot, Body::PreVote { last: Position::ZERO }, None);
        }
    }

    /// Who is alone waits for nobody. In an epoch that just opens nobody leads yet, and nobody's
    /// lease is to be waited for: whoever led before stands when it knows that others are ready,
    /// and if it is gone, one of them does soon.
    pub(super) fn hasten_first_election(&mut self, now: Instant) {
        let timeout = self.config.election_timeout;
        if self.is_only_voter() {
            self.election_at = now;
        } else if self.config.opens {
            self.election_at = now + self.rng.duration(timeout / 4, timeout / 2);
        }
    }

    /// Others are ready for an election.
    pub(super) fn campaign_now(&mut self, now: Instant) {
        if self.leader.is_none() && self.role != Role::Candidate {
            self.election_at = now;
        }
    }

    /// The ballot that this replica would ask for.
    pub(super) fn next_ballot(&self) -> Ballot {
        Ballot::new(self.promised.round.max(self.seen) + 1, self.me())
    }

    /// The leader's connection broke: it may be dead. Whoever follows it asks around at once, and
    /// does not hold on to it; if it lives, its next message ends that.
    pub(super) fn peer_lost(&mut self, now: Instant, node: NodeId) {
        if self.role == Role::Leader {
            self.ask_again(node);
        }
        if node != self.leader || self.role == Role::Leader {
            return;
        }
        if self.config.lease_clock_drift_ppm.is_some() {
            return; // The leader's lease rests on this replica's patience.
        }
        self.sticky_until = now;
        self.asked.busy_until = now;
        let longest = (self.config.heartbeat / 4).max(Duration::from_millis(2));
        let soon = now + self.rng.duration(Duration::from_millis(1), longest);
        self.election_at = self.election_at.min(soon);
    }

    pub(super) fn other_voters(&self) -> Vec<NodeId> {
        let chosen = self.changes_behind_damage();
        let found = chosen.iter().flat_map(|(_, members)| members.voters.iter());
        let mut voters: Vec<NodeId> =
            self.membership().voters.iter().chain(found).copied().collect();
        voters.sort_unstable();
        voters.dedup();
        voters.retain(|&node| node != self.me());
        voters
    }

    /// Changes of members that are chosen, though this replica cannot read all that is before them.
    fn changes_behind_damage(&self) -> Vec<(Index, Membership)> {
        self.slots.changes(self.commit + 1, self.known_chosen())
    }

    /// Whether a quorum is reached: of the members as far as they are known for certain, or of
    /// later ones. It is the promises that decide.
    fn votes_so_far(&self) -> VoteResult {
        let vote = |members: &Membership| {
            self.spec.vote(members, |node| {
                self.votes.iter().find(|(voter, _)| *voter == node).map(|(_, granted)| *granted)
            })
        };
        let later = self.changes_behind_damage();
        let results = later.iter().map(|(_, members)| vote(members));
        results.fold(vote(self.membership()), |one, other| match (one, other) {
            (VoteResult::Won, _) | (_, VoteResult::Won) => VoteResult::Won,
            (VoteResult::Lost, VoteResult::Lost) => VoteResult::Lost,
            _ => VoteResult::Pending,
        })
    }

    pub(super) fn sticks_to_leader(&self, now: Instant) -> bool {
        self.role == Role::Leader || now < self.sticky_until
    }

    pub(super) fn asked_for_pre_vote(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        out: &mut Effects,
    ) {
        let engaged = self.sticks_to_leader(now) || now < self.asked.busy_until;
        let granted = ballot.round > self.promised.round && !engaged;
        let answer = if granted { ballot } else { self.promised };
        let after = if granted { None } else { self.journal.gate_of(self.promise_write) };
        self.send_as(out, from, answer, Body::PreVoteReply { granted }, after);
    }

    pub(super) fn pre_vote_answered(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        granted: bool,
        out: &mut Effects,
    ) {
        let asked = self.next_ballot();
        if self.role != Role::PreCandidate || (granted && ballot != asked) {
            return;
        }
        if !granted {
            self.seen = self.seen.max(ballot.round);
        }
        if !self.votes.iter().any(|(node, _)| *node == from) {
            self.votes.push((from, granted));
        }
        match self.votes_so_far() {
            VoteResult::Won => self.stand(now, false, out),
            VoteResult::Lost => self.role = self.resting_role(),
            VoteResult::Pending => {}
        }
    }
}
