//! Questions to the leader's service about state that is not replicated (a lease's time to live).
//!
//! A question goes to the leader, which first confirms by a read index that it still leads, and
//! only then asks its service. Questions are idempotent: a lost one is asked again.

use super::reads::Waiter;
use super::{Context, Group};
use crate::event::{Answer, RequestError, Token, Work};
use crate::peer::PeerMessage;
use bytes::Bytes;
use quorate_base::{Instant, NodeId};
use quorate_replicated_log::Role;
use std::collections::BTreeMap;

/// A question of this node's client.
struct Asked {
    token: Token,
    deadline: Instant,
    question: Bytes,
    /// When it is asked again; nothing while it is queued.
    retry_at: Option<Instant>,
}

/// A question being answered by this node.
struct Answering {
    /// The asking node and its number of the question; this node itself included.
    from: NodeId,
    id: u64,
    question: Bytes,
}

/// Questions asked and questions to be answered.
pub(super) struct Queries {
    next_id: u64,
    asked: BTreeMap<u64, Asked>,
    queue: Vec<u64>,
    next_answer: u64,
    answering: BTreeMap<u64, Answering>,
}

impl Queries {
    pub fn new(run: u64) -> Self {
        Queries {
            next_id: run << 40,
            asked: BTreeMap::new(),
            queue: Vec::new(),
            next_answer: 0,
            answering: BTreeMap::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.answering.is_empty()
    }

    /// Whatever was asked may be lost: ask again.
    pub fn resend(&mut self) {
        self.queue.clear();
        for (id, asked) in &mut self.asked {
            asked.retry_at = None;
            self.queue.push(*id);
        }
    }

    pub fn drain_tokens(&mut self) -> Vec<Token> {
        self.queue.clear();
        self.answering.clear();
        core::mem::take(&mut self.asked).into_values().map(|asked| asked.token).collect()
    }
}

impl Group {
    pub(super) fn request_query<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        token: Token,
        deadline: Instant,
        question: Bytes,
    ) {
        if self.queries.asked.len() >= cx.config.limits.pending_reads {
            cx.reply(token, RequestError::TooManyRequests);
            return;
        }
        self.queries.next_id += 1;
        let id = self.queries.next_id;
        self.queries.asked.insert(id, Asked { token, deadline, question, retry_at: None });
        self.queries.queue.push(id);
    }

    /// Asks what is queued of whoever leads.
    pub(super) fn flush_queries<R>(&mut self, cx: &mut Context<'_, R>) {
        let leader = self.log.leader();
        if self.queries.queue.is_empty() || leader.is_none() {
            return;
        }
        for id in core::mem::take(&mut self.queries.queue) {
            let Some(asked) = self.queries.asked.get_mut(&id) else { continue };
            asked.retry_at = Some(cx.now + cx.config.retry_interval * 2);
            let (question, deadline) = (asked.question.clone(), asked.deadline);
            if leader == cx.config.node {
                self.answer(cx.config.node, id, question, deadline);
            } else {
                let message = PeerMessage::Query { group: self.id, id, question };
                cx.send(leader, message);
            }
        }
        self.flush_reads(cx);
    }

    /// A peer's question, or this node's own: it waits for leadership to be confirmed.
    fn answer(&mut self, from: NodeId, id: u64, question: Bytes, deadline: Instant) {
        self.queries.next_answer += 1;
        let answering = Answering { from, id, question };
        self.queries.answering.insert(self.queries.next_answer, answering);
        self.reads.queue(deadline, Waiter::Question(self.queries.next_answer));
    }

    pub(super) fn peer_asks<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        from: NodeId,
        id: u64,
        question: Bytes,
    ) {
        let full = self.queries.answering.len() >= cx.config.limits.pending_reads;
        if self.log.role() != Role::Leader || full {
            cx.send(from, PeerMessage::QueryReply { group: self.id, id, answer: None });
            return;
        }
        self.answer(from, id, question, cx.now + cx.config.retry_interval * 4);
        self.schedule_sweep(cx);
    }

    /// This node was the leader after the question arrived.
    pub(super) fn question_confirmed<R>(&mut self, cx: &mut Context<'_, R>, id: u64) {
        if !self.leading {
            self.question_failed(cx, id);
        } else if let Some(answering) = self.queries.answering.get(&id) {
            let question = answering.question.clone();
            cx.outputs.work.push((self.id, Work::Query { id, question }));
        }
    }

    /// It is not, or no longer.
    pub(super) fn question_failed<R>(&mut self, cx: &mut Context<'_, R>, id: u64) {
        self.service_told(cx, id, None);
    }

    /// The service answered, or nobody could.
    pub(super) fn service_told<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        id: u64,
        answer: Option<Bytes>,
    ) {
        let Some(answering) = self.queries.answering.remove(&id) else { return };
        if answering.from == cx.config.node {
            self.told(cx, answering.id, answer);
        } else {
            let message = PeerMessage::QueryReply { group: self.id, id: answering.id, answer };
            cx.send(answering.from, message);
        }
    }

    pub(super) fn peer_told<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        from: NodeId,
        id: u64,
        answer: Option<Bytes>,
    ) {
        if answer.is_some() || from == self.leader {
            self.told(cx, id, answer);
        }
    }

    fn told<R>(&mut self, cx: &mut Context<'_, R>, id: u64, answer: Option<Bytes>) {
        match answer {
            Some(answer) => {
                if let Some(asked) = self.queries.asked.remove(&id) {
                    cx.outputs.replies.push((asked.token, Ok(Answer::Told(answer))));
                }
            }
            None => {
                if let Some(asked) = self.queries.asked.get_mut(&id) {
                    asked.retry_at = Some(cx.now + cx.config.retry_interval / 4);
                }
            }
        }
    }

    /// Peers' questions that wait for a confirmation this node can no longer get.
    pub(super) fn refuse_peer_questions<R>(&mut self, cx: &mut Context<'_, R>) {
        let ids: Vec<u64> = self.queries.answering.keys().copied().collect();
        for id in ids {
            self.question_failed(cx, id);
        }
    }

    pub(super) fn sweep_queries<R>(&mut self, cx: &mut Context<'_, R>) {
        let now = cx.now;
        let mut expired = Vec::new();
        self.queries.asked.retain(|_, asked| {
            let late = asked.deadline <= now;
            if late {
                expired.push(asked.token);
            }
            !late
        });
        for token in expired {
            cx.reply(token, RequestError::Unavailable);
        }
        for (id, asked) in &mut self.queries.asked {
            if asked.retry_at.is_some_and(|at| at <= now) {
                asked.retry_at = None;
                self.queries.queue.push(*id);
            }
        }
    }
}
