//! Linearizable reads: many waiters share one read index attempt.
//!
//! Invariant: a waiter joins only attempts that start after it arrived, and every attempt has a
//! fresh id, also across runs of the node; a late answer can satisfy nobody it should not.

use super::{Context, Group};
use crate::canary::Canary;
use crate::event::{Answer, RequestError, Token};
use quorate_base::{Index, Instant};
use quorate_replicated_log::{Input, ReadId, ReadReady};
use std::collections::BTreeMap;

/// Who waits for a read index.
pub(super) enum Waiter {
    /// A client that will then read this node's service.
    Client(Token),
    /// A question to this node's service, which may be answered only by a confirmed leader.
    Question(u64),
}

type Waiting = (Instant, Waiter);

struct Attempt {
    id: ReadId,
    retry_at: Instant,
    waiters: Vec<Waiting>,
}

/// The reads of this node.
pub(super) struct Reads {
    next_id: u64,
    queued: Vec<Waiting>,
    attempts: Vec<Attempt>,
    /// Confirmed, and waiting for the service to have applied the index.
    confirmed: BTreeMap<Index, Vec<Waiting>>,
    waiting: usize,
}

impl Reads {
    pub fn new(run: u64) -> Self {
        Reads {
            next_id: run << 40,
            queued: Vec::new(),
            attempts: Vec::new(),
            confirmed: BTreeMap::new(),
            waiting: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub fn queue(&mut self, deadline: Instant, waiter: Waiter) {
        self.waiting += 1;
        self.queued.push((deadline, waiter));
    }

    /// The attempts under way will get no answer: their waiters join a new one.
    pub fn retry_all(&mut self) {
        for attempt in self.attempts.drain(..) {
            self.queued.extend(attempt.waiters);
        }
    }

    fn retry(&mut self, mut which: impl FnMut(&Attempt) -> bool) {
        for attempt in self.attempts.extract_if(.., |attempt| which(attempt)) {
            self.queued.extend(attempt.waiters);
        }
    }

    pub fn drain_tokens(&mut self) -> Vec<Token> {
        self.retry_all();
        self.waiting = 0;
        let confirmed = core::mem::take(&mut self.confirmed).into_values().flatten();
        let client = |(_, waiter)| match waiter {
            Waiter::Client(token) => Some(token),
            Waiter::Question(_) => None,
        };
        self.queued.drain(..).chain(confirmed).filter_map(client).collect()
    }

    /// Takes out whoever waited too long.
    fn expire(&mut self, now: Instant) -> Vec<Waiter> {
        let late = |(deadline, _): &mut Waiting| *deadline <= now;
        let mut expired: Vec<Waiting> = self.queued.extract_if(.., late).collect();
        for attempt in &mut self.attempts {
            expired.extend(attempt.waiters.extract_if(.., late));
        }
        for waiters in self.confirmed.values_mut() {
            expired.extend(waiters.extract_if(.., late));
        }
        self.waiting -= expired.len();
        expired.into_iter().map(|(_, waiter)| waiter).collect()
    }
}

impl Group {
    pub(super) fn request_read<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        token: Token,
        deadline: Instant,
    ) {
        if self.reads.waiting >= cx.config.limits.pending_reads {
            cx.reply(token, RequestError::TooManyRequests);
        } else {
            self.reads.queue(deadline, Waiter::Client(token));
        }
    }

    /// Starts an attempt for everyone who waits, unless enough are under way.
    pub(super) fn flush_reads<R>(&mut self, cx: &mut Context<'_, R>) {
        let busy = self.reads.attempts.len() >= cx.config.limits.read_rounds;
        if self.reads.queued.is_empty() || busy || self.log.leader().is_none() {
            return;
        }
        self.reads.next_id += 1;
        let id = ReadId(self.reads.next_id);
        let waiters = core::mem::take(&mut self.reads.queued);
        let retry_at = cx.now + cx.config.retry_interval;
        self.reads.attempts.push(Attempt { id, retry_at, waiters });
        self.input(cx, Input::Read { id });
    }

    /// The index at which an attempt's waiters may be served is known.
    pub(super) fn read_ready<R>(&mut self, cx: &mut Context<'_, R>, ready: ReadReady) {
        let Some(at) = self.reads.attempts.iter().position(|attempt| attempt.id == ready.id) else {
            return;
        };
        let attempt = self.reads.attempts.swap_remove(at);
        self.reads.confirmed.entry(ready.index).or_default().extend(attempt.waiters);
        self.release_reads(cx);
    }

    pub(super) fn read_failed<R>(&mut self, cx: &mut Context<'_, R>, id: ReadId) {
        // Not at once: the sweep retries it, or the news of a leader does.
        if let Some(attempt) = self.reads.attempts.iter_mut().find(|attempt| attempt.id == id) {
            attempt.retry_at = cx.now + cx.config.retry_interval / 8;
        }
    }

    /// Serves the confirmed reads whose index is applied.
    pub(super) fn release_reads<R>(&mut self, cx: &mut Context<'_, R>) {
        let applied = self.applied.position.index;
        while let Some(entry) = self.reads.confirmed.first_entry() {
            let index = *entry.key();
            if index > applied && !cx.config.is(Canary::ReadBeforeApplied) {
                return;
            }
            for (_, waiter) in entry.remove() {
                self.reads.waiting -= 1;
                match waiter {
                    Waiter::Client(token) => {
                        cx.outputs.replies.push((token, Ok(Answer::Readable(index))));
                    }
                    Waiter::Question(id) => self.question_confirmed(cx, id),
                }
            }
        }
    }

    pub(super) fn sweep_reads<R>(&mut self, cx: &mut Context<'_, R>) {
        for waiter in self.reads.expire(cx.now) {
            match waiter {
                Waiter::Client(token) => cx.reply(token, RequestError::Unavailable),
                Waiter::Question(id) => self.question_failed(cx, id),
            }
        }
        let now = cx.now;
        self.reads.retry(|attempt| attempt.retry_at <= now);
    }
}
