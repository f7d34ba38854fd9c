//! Who waits for an answer of the driver: a slab of one-shot senders, owned by the driver thread.
//!
//! Invariant: a token is given to one waiter and never again, so that an answer that comes twice
//! or late meets nobody.

use quorate_driver::{Answer, RequestError, Token};
use tokio::sync::oneshot;

/// Where an answer goes.
pub(crate) type Reply<R> = oneshot::Sender<Result<Answer<R>, RequestError>>;

/// The waiters.
pub(crate) struct Waiting<R> {
    slots: Vec<Slot<R>>,
    free: Vec<u32>,
}

struct Slot<R> {
    generation: u32,
    reply: Option<Reply<R>>,
}

impl<R> Waiting<R> {
    /// Nobody.
    pub fn new() -> Self {
        Waiting { slots: Vec::new(), free: Vec::new() }
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

    /// Answers, if anybody still waits.
    pub fn answer(&mut self, token: Token, result: Result<Answer<R>, RequestError>) {
        let (generation, at) = ((token.0 >> 32) as u32, token.0 as u32);
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        if slot.generation != generation {
            return;
        }
        if let Some(reply) = slot.reply.take() {
            self.free.push(at);
            // Whoever asked may have gone: nobody to tell.
            let _ = reply.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_meets_its_waiter_once() {
        let mut waiting = Waiting::<u32>::new();
        let (sender, mut first) = oneshot::channel();
        let token = waiting.enter(sender);
        waiting.answer(token, Ok(Answer::Applied(1)));
        assert_eq!(first.try_recv(), Ok(Ok(Answer::Applied(1))));
        let (sender, mut second) = oneshot::channel();
        let again = waiting.enter(sender);
        assert_ne!(token, again);
        waiting.answer(token, Ok(Answer::Applied(2)));
        assert!(second.try_recv().is_err(), "the late answer is not its own");
        waiting.answer(again, Err(RequestError::Unavailable));
        assert_eq!(second.try_recv(), Ok(Err(RequestError::Unavailable)));
        assert_eq!(waiting.slots.len(), 1);
    }
}
