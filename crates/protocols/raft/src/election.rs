//! Elections: Raft section 5.2 and 5.4.1, pre-vote (Ongaro's thesis, section 9.6) and stickiness
//! (section 4.2.3): nobody votes while a leader was heard from within an election timeout.

use crate::canary::Canary;
use crate::raft::Raft;
use core::time::Duration;
use quorate_base::{Ballot, Instant, NodeId, Position};
use quorate_replicated_log::{AnswerReads, Body, Effects, Role, VoteResult};

impl Raft {
    /// Nothing was heard of a leader for long enough.
    pub(crate) fn election_timeout(&mut self, now: Instant, out: &mut Effects) {
        self.reset_election(now);
        self.mending = None;
        if !self.is_electable() || now < self.resting_until || !self.knows_its_log() {
            if !self.leader.is_none() {
                self.follow(now, self.promised.round, NodeId::NONE, out);
            }
            if self.is_damaged() && self.is_electable() {
                self.pull = self.pull.wrapping_add(1);
                self.ask_all_for_more(out);
            }
            return;
        }
        self.fail_follower_reads(out);
        self.role = Role::PreCandidate;
        self.leader = NodeId::NONE;
        self.standing_by_transfer = false;
        self.pull = self.pull.wrapping_add(1);
        self.votes.clear();
        self.votes.push((self.me(), true));
        if self.votes_so_far() == VoteResult::Won {
            self.stand(now, false, out);
            return;
        }
        let ballot = Ballot::new(self.promised.round + 1, self.me());
        let last = self.vote_floor();
        for to in self.other_voters() {
            self.send_as(out, to, ballot, Body::PreVote { last }, None);
        }
        if self.is_damaged() {
            self.ask_all_for_more(out); // What it lacks anybody may have.
        }
    }

    /// Who is alone waits for nobody. In an epoch that just opens nobody leads yet, and nobody's
    /// lease is to be waited for: whoever led before stands when it knows that others are ready,
    /// and if it is gone, one of them does soon.
    pub(crate) fn hasten_first_election(&mut self, now: Instant) {
        let timeout = self.config.election_timeout;
        if self.is_only_voter() {
            self.election_at = now;
        } else if self.config.opens {
            self.election_at = now + self.rng.duration(timeout / 4, timeout / 2);
        }
    }

    /// Others are ready for an election.
    pub(crate) fn campaign(&mut self, now: Instant) {
        if self.leader.is_none() && self.role != Role::Candidate {
            self.election_at = now;
        }
    }

    /// The leader's connection broke: it may be dead. Whoever follows it asks around at once, and
    /// does not hold on to it; if it lives, its next message ends that.
    pub(crate) fn peer_lost(&mut self, now: Instant, node: NodeId) {
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
        let longest = (self.config.heartbeat / 4).max(Duration::from_millis(2));
        let soon = now + self.rng.duration(Duration::from_millis(1), longest);
        self.election_at = self.election_at.min(soon);
    }

    /// Asks for votes in a new round.
    pub(crate) fn stand(&mut self, now: Instant, transfer: bool, out: &mut Effects) {
        if !self.knows_its_log() {
            return;
        }
        self.fail_follower_reads(out);
        self.role = Role::Candidate;
        self.mending = None;
        self.leader = NodeId::NONE;
        self.standing_by_transfer = transfer;
        self.votes.clear();
        self.reset_election(now);
        self.promise(Ballot::new(self.promised.round + 1, self.me()));
        self.ask_for_votes(out);
    }

    /// Asks whoever has not voted yet.
    pub(crate) fn ask_for_votes(&self, out: &mut Effects) {
        // Not before its own vote is durable: a leader of this round must remember that it was.
        let after = self.journal.gate_of(self.promise_write);
        let (last, transfer) = (self.vote_floor(), self.standing_by_transfer);
        for to in self.other_voters() {
            if !self.votes.iter().any(|(voter, _)| *voter == to) {
                self.send(out, to, Body::Vote { last, transfer }, after);
            }
        }
    }

    pub(crate) fn has_won(&self) -> bool {
        self.votes_so_far() == VoteResult::Won
    }

    /// Whether it knows which entries its log has, if not what is in each.
    fn knows_its_log(&self) -> bool {
        !self.is_damaged() || self.can_mend()
    }

    /// The candidate's own vote counts once it is durable.
    pub(crate) fn own_vote_written(&mut self, now: Instant, out: &mut Effects) {
        let durable = self.journal.is_done(self.promise_write);
        let counted = self.votes.iter().any(|(node, _)| *node == self.me());
        if self.role == Role::Candidate && durable && !counted {
            self.vote_answered(now, self.me(), true, out);
        }
    }

    pub(crate) fn other_voters(&self) -> alloc::vec::Vec<NodeId> {
        let members = self.membership();
        members.all().into_iter().filter(|&n| n != self.me() && members.is_voter(n)).collect()
    }

    fn votes_so_far(&self) -> VoteResult {
        self.spec.vote(&self.deciding(), |node| {
            self.votes.iter().find(|(voter, _)| *voter == node).map(|(_, granted)| *granted)
        })
    }

    fn note_vote(&mut self, from: NodeId, granted: bool) {
        if !self.votes.iter().any(|(node, _)| *node == from) {
            self.votes.push((from, granted));
        }
    }

    fn sticks_to_leader(&self, now: Instant) -> bool {
        if self.is(Canary::NoStickiness) {
            return false;
        }
        self.role == Role::Leader || now < self.sticky_until
    }

    pub(crate) fn asked_for_pre_vote(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        last: Position,
        out: &mut Effects,
    ) {
        let floor = self.vote_floor();
        let granted = ballot.round > self.promised.round
            && !self.sticks_to_leader(now)
            && (last.at_least_as_up_to_date_as(&floor) || self.is(Canary::IgnoreLogInVote));
        let answer = if granted { ballot } else { self.promised };
        let after = if granted { None } else { self.journal.gate_of(self.promise_write) };
        self.send_as(out, from, answer, Body::PreVoteReply { granted }, after);
    }

    pub(crate) fn pre_vote_answered(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        granted: bool,
        out: &mut Effects,
    ) {
        if !granted && self.role == Role::PreCandidate {
            self.ask_for_more(from, out);
        }
        if !granted && ballot.round > self.promised.round {
            self.follow(now, ballot.round, NodeId::NONE, out);
            return;
        }
        let asked = Ballot::new(self.promised.round + 1, self.me());
        if self.role != Role::PreCandidate || (granted && ballot != asked) {
            return;
        }
        self.note_vote(from, granted);
        match self.votes_so_far() {
            VoteResult::Won => self.stand(now, false, out),
            VoteResult::Lost => self.role = self.resting_role(),
            VoteResult::Pending => {}
        }
    }

    pub(crate) fn asked_for_vote(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        last: Position,
        transfer: bool,
        out: &mut Effects,
    ) {
        if ballot.node != from {
            return; // Nobody asks on another's behalf.
        }
        if ballot.round > self.promised.round {
            if !transfer && self.sticks_to_leader(now) {
                return;
            }
            self.follow(now, ballot.round, NodeId::NONE, out);
        }
        let free = self.promised.node.is_none() || self.promised.node == from;
        let free = free || self.is(Canary::VoteTwice);
        let current = ballot.round == self.promised.round && self.leader.is_none();
        let floor = self.vote_floor();
        let up_to_date = last.at_least_as_up_to_date_as(&floor) || self.is(Canary::IgnoreLogInVote);
        let granted = current && free && up_to_date;
        if granted {
            if self.promised != ballot {
                self.promise(ballot); // Asked again, it needs no further write.
            }
            self.reset_election(now);
        }
        let after = self.journal.gate_of(self.promise_write);
        let after = after.filter(|_| !granted || !self.is(Canary::VoteBeforeWritten));
        self.send(out, from, Body::VoteReply { granted }, after);
    }

    pub(crate) fn vote_answered(
        &mut self,
        now: Instant,
        from: NodeId,
        granted: bool,
        out: &mut Effects,
    ) {
        // Nobody is asked before this replica's own vote is written: who answers sooner lies.
        if self.role != Role::Candidate || !self.journal.is_done(self.promise_write) {
            return;
        }
        self.note_vote(from, granted);
        match self.votes_so_far() {
            VoteResult::Won if self.is_damaged() => self.mend(now, out),
            VoteResult::Won => self.lead(now, out),
            VoteResult::Lost => {
                // Votes were split. Nobody leads: try again soon, but not all at once.
                self.role = self.resting_role();
                let timeout = self.config.election_timeout;
                self.election_at = now + self.rng.duration(timeout / 50, timeout / 5);
            }
            VoteResult::Pending => {}
        }
    }
}
