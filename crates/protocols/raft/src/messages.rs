//! A peer's message: rounds first, then its content.

use crate::raft::Raft;
use quorate_base::{Instant, NodeId};
use quorate_replicated_log::{AnswerReads, Body, Effects, Message, Role};

/// Rounds beyond this are not believed, so that counting them cannot overflow. A round a
/// millisecond would take nine thousand years to get there.
const MAX_ROUND: u64 = 1 << 48;

impl Raft {
    pub(crate) fn message(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Message,
        out: &mut Effects,
    ) {
        if message.epoch != self.config.epoch || from == self.me() || from.is_none() {
            return;
        }
        let round = message.ballot.round;
        if round > MAX_ROUND {
            return; // No election got that far: the peer lies.
        }
        match message.body {
            Body::PreVote { last } => self.asked_for_pre_vote(now, from, message.ballot, last, out),
            Body::PreVoteReply { granted } => {
                self.pre_vote_answered(now, from, message.ballot, granted, out);
            }
            Body::Vote { last, transfer } => {
                self.asked_for_vote(now, from, message.ballot, last, transfer, out);
            }
            Body::VoteReply { granted } => {
                if !self.outranked(now, round, out) && round == self.promised.round {
                    self.vote_answered(now, from, granted, out);
                }
            }
            Body::Append(append) => {
                if self.heard_leader(now, from, round, out) {
                    self.append(now, from, append, out);
                }
            }
            Body::Heartbeat { session, commit, probe } => {
                if self.heard_leader(now, from, round, out) {
                    self.heartbeat(from, session, commit, probe, out);
                }
            }
            Body::AppendReply(reply) => {
                if self.is_answer(now, round, out) {
                    self.append_answered(now, from, &reply, out);
                }
            }
            Body::HeartbeatReply { session, probe } => {
                if self.is_answer(now, round, out) {
                    self.heartbeat_answered(now, from, session, probe, out);
                }
            }
            Body::ReadIndex { id } => self.asked_for_index(from, id, out),
            Body::ReadIndexReply { id, index } => self.index_answered(from, id, index, out),
            Body::Pull { id, last } => self.asked_for_more(from, id, last, out),
            Body::Pulled { id, previous, entries, last } => {
                self.pulled(now, (from, round), id, (previous, entries, last), out);
            }
            Body::Mend { first, ballots } => {
                self.asked_to_mend(now, (from, message.ballot), first, &ballots, out);
            }
            Body::Mended { first, entries, denied } => {
                if !self.outranked(now, round, out) && round == self.promised.round {
                    self.mended(now, from, (first, entries, denied), out);
                }
            }
            // Another protocol's.
            Body::Prepare { .. } | Body::Promise(_) | Body::Accept(_) | Body::Accepted(_) => {}
            Body::TimeoutNow => {
                if round == self.promised.round && from == self.leader && self.is_voter() {
                    self.stand(now, true, out);
                }
            }
        }
    }

    /// A higher round than this replica's is news: it follows, leader unknown.
    fn outranked(&mut self, now: Instant, round: u64, out: &mut Effects) -> bool {
        let higher = round > self.promised.round;
        if higher {
            self.follow(now, round, NodeId::NONE, out);
        }
        higher
    }

    /// Whether an answer is to this leadership's messages.
    fn is_answer(&mut self, now: Instant, round: u64, out: &mut Effects) -> bool {
        let outranked = self.outranked(now, round, out);
        !outranked && self.role == Role::Leader && round == self.promised.round
    }

    /// A leader's message: whether it leads this replica. An outdated leader is told the round.
    fn heard_leader(&mut self, now: Instant, from: NodeId, round: u64, out: &mut Effects) -> bool {
        if round < self.promised.round {
            let after = self.journal.gate_of(self.promise_write);
            self.send(out, from, Body::HeartbeatReply { session: 0, probe: 0 }, after);
            return false;
        }
        if round == self.promised.round && self.role == Role::Leader {
            return false; // A round has one leader: the peer lies.
        }
        let known = round == self.promised.round && !self.leader.is_none();
        if known && self.leader != from {
            return false;
        }
        self.follow(now, round, from, out);
        self.lost.vain = 0;
        self.sticky_until = now + self.config.patience;
        self.await_leader(now);
        true
    }
}
