//! Who waits for an answer of the driver: a slab of one-shot senders, owned by the driver thread.
//!
//! Invariant: a token is given to one waiter and never again, so that an answer that comes twice
//! or late meets nobody.

use crate::lanes::{Lane, Round};
use quorate_driver::{Answer, RequestError, Token};
use tokio::sync::oneshot;

/// What became of a request.
pub(crate) type Outcome<R> = Result<Answer<R>, RequestError>;

/// Where an answer goes: to whom, and by which way.
pub(crate) struct Reply<R> {
    pub to: oneshot::Sender<Outcome<R>>,
    pub lane: Lane<R>,
}

/// The waiters.
pub(crate) struct Waiting<R> {
    slots: Vec<Slot<R>>,
    free: Vec<u32>,
    round: Round<R>,
}

struct Slot<R> {
    generation: u32,
    reply: Option<Reply<R>>,
}

impl<R: Send + 'static> Waiting<R> {
    /// Nobody.
    pub fn new() -> Self {
        Waiting { slots: Vec::new(), free: Vec::new(), round: Round::new() }
    }

    /// Somebody waits: the token that names it.
    pub fn enter(&mut self, reply: Reply<R>) -> Token {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, reply: None });
            // Far more waiters than the driver's limits admit would be needed to overflow.
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[at as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.reply = Some(reply);
        Token(u64::from(slot.generation) << 32 | u64::from(at))
    }

    /// Answers with the end of this round, if anybody still waits.
    pub fn answer(&mut self, token: Token, outcome: Outcome<R>) {
        let (generation, at) = ((token.0 >> 32) as u32, token.0 as u32);
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        if slot.generation != generation {
            return;
        }
        if let Some(reply) = slot.reply.take() {
            self.free.push(at);
            self.round.add(reply.lane, reply.to, outcome);
        }
    }

    /// Ends a round: its answers leave.
    pub fn end_round(&mut self) {
        self.round.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_meets_its_waiter_once() {
        let lane = Lane::open();
        let mut waiting = Waiting::<u32>::new();
        let (to, first) = oneshot::channel();
        let token = waiting.enter(Reply { to, lane: lane.clone() });
        waiting.answer(token, Ok(Answer::Applied(1)));
        waiting.end_round();
        assert_eq!(first.await, Ok(Ok(Answer::Applied(1))));
        let (to, mut second) = oneshot::channel();
        let again = waiting.enter(Reply { to, lane });
        assert_ne!(token, again);
        waiting.answer(token, Ok(Answer::Applied(2)));
        waiting.end_round();
        tokio::task::yield_now().await;
        assert!(second.try_recv().is_err(), "the late answer is not its own");
        waiting.answer(again, Err(RequestError::Unavailable));
        waiting.end_round();
        assert_eq!(second.await, Ok(Err(RequestError::Unavailable)));
        assert_eq!(waiting.slots.len(), 1);
    }
}
