//! A peer's message: ballots first, then its content.

use super::replica::MultiPaxos;
use crate::synod::may_accept;
use quorate_base::{Ballot, Instant, NodeId};
use quorate_replicated_log::{AnswerReads, Body, Cover, Effects, Message, Role};

/// Rounds beyond this are not believed, so that counting them cannot overflow. A round a
/// millisecond would take nine thousand years to get there.
const MAX_ROUND: u64 = 1 << 48;

impl MultiPaxos {
    pub(super) fn message(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Message,
        out: &mut Effects,
    ) {
        let Message { epoch, ballot, body } = message;
        if epoch != self.config.epoch || from == self.me() || from.is_none() {
            return;
        }
        if ballot.round > MAX_ROUND {
            return; // No election got that far: the peer lies.
        }
        match body {
            Body::PreVote { .. } => self.asked_for_pre_vote(now, from, ballot, out),
            Body::PreVoteReply { granted } => {
                self.pre_vote_answered(now, from, ballot, granted, out);
            }
            Body::Prepare { from: slot, transfer } => {
                self.prepare(now, from, (ballot, slot), transfer, out);
            }
            Body::Promise(promise) => self.promised_by(now, from, ballot, promise, out),
            Body::VoteReply { .. } => self.promise_refused(now, from, ballot),
            Body::Accept(accept) => {
                if self.heard_leader(now, from, ballot, out) {
                    self.accept(from, accept, out);
                }
            }
            Body::Heartbeat { session, commit, probe } => {
                if self.heard_leader(now, from, ballot, out) {
                    self.heartbeat(from, (session, probe), commit, out);
                }
            }
            Body::Accepted(accepted) => {
                if self.is_answer(now, ballot, out) {
                    self.accepted_by(now, from, &accepted, out);
                }
            }
            Body::HeartbeatReply { session, probe } => {
                if self.is_answer(now, ballot, out) {
                    self.heartbeat_answered(now, from, session, probe, out);
                }
            }
            Body::ReadIndex { id } => self.asked_for_index(from, id, out),
            Body::ReadIndexReply { id, index } => self.index_answered(from, id, index, out),
            Body::TimeoutNow => {
                let known = ballot == self.promised && from == self.leader;
                if known && self.membership().is_voter(self.me()) {
                    self.stand(now, true, out);
                }
            }
            // Another protocol's.
            Body::Vote { .. }
            | Body::Append(_)
            | Body::AppendReply(_)
            | Body::Pull { .. }
            | Body::Pulled { .. }
            | Body::Mend { .. }
            | Body::Mended { .. } => {}
        }
    }

    /// Whether an answer is to this leadership's messages. One that promised another ends it.
    fn is_answer(&mut self, now: Instant, ballot: Ballot, out: &mut Effects) -> bool {
        self.seen = self.seen.max(ballot.round);
        if self.role != Role::Leader {
            return false;
        }
        if ballot > self.promised {
            self.follow(now, NodeId::NONE, out);
            return false;
        }
        ballot == self.promised
    }

    /// A leader's message: whether it leads this replica. An outdated leader is told the ballot.
    fn heard_leader(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        out: &mut Effects,
    ) -> bool {
        if ballot.node != from {
            return false; // Nobody leads under another's ballot.
        }
        let lower =
            !self.is(crate::Canary::AcceptLowerBallot) && !may_accept(self.promised, ballot);
        if lower {
            let after = self.journal.gate_of(self.promise_write);
            self.send(out, from, Body::HeartbeatReply { session: 0, probe: 0 }, after);
            return false;
        }
        if ballot > self.promised {
            self.promise(ballot);
        }
        self.follow(now, from, out);
        if self.following != ballot {
            self.following = ballot;
            self.told = 0;
            let from = self.commit + 1;
            let held = if self.is(crate::Canary::MixBallots) {
                self.slots.filled_from(from)
            } else {
                self.slots.filled_under(ballot, from)
            };
            self.cover = Cover::new(held);
        }
        self.sticky_until = now + self.config.patience;
        self.await_leader(now);
        true
    }
}
