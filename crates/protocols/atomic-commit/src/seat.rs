//! What every site has: who it is, its journal of writes, and the door for messages.
//!
//! Rules kept here: a Yes never leaves before the prepared record is durable (1), nor a commit
//! before the decision is (2), because both name their write; a message of another attempt, site
//! or set of sites is not acted upon (6).

use crate::canary::Canary;
use crate::effects::{Effects, Event, Ignored, Refusal, Send, Write, WriteId};
use crate::ids::{Address, Key, Terms};
use crate::interface::Config;
use crate::message::{Body, Message};
use crate::record::Record;
use crate::vote::Vote;
use quorate_base::Instant;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Seat {
    pub config: Config,
    pub key: Key,
    pub terms: Terms,
    pub address: Address,
    pub timer: Option<Instant>,
    last: WriteId,
    durable: WriteId,
}

impl Seat {
    pub fn new(config: Config, key: Key, terms: Terms, address: Address) -> Self {
        assert!(terms.branches > 0 && terms.has(address), "the site is one of the transaction's");
        let (last, durable) = (WriteId(0), WriteId(0));
        Seat { config, key, terms, address, timer: None, last, durable }
    }

    pub fn has_canary(&self, bug: Canary) -> bool {
        cfg!(feature = "canary") && self.config.canary == Some(bug)
    }

    /// Writes a record down. The next sends that depend on it name it.
    pub fn write(&mut self, record: Record, forced: bool, out: &mut Effects) -> WriteId {
        self.last.0 += 1;
        out.writes.push(Write { id: self.last, record, forced });
        self.last
    }

    pub fn written(&mut self, id: WriteId) {
        assert!(id <= self.last, "only what was to be written is durable");
        self.durable = self.durable.max(id);
    }

    /// Whether that write, or one that was durable before this run, is durable.
    pub fn is_durable(&self, write: Option<WriteId>) -> bool {
        write.is_none_or(|write| write <= self.durable)
    }

    pub fn send(&self, to: Address, body: Body, after: Option<WriteId>, out: &mut Effects) {
        let after = after.filter(|&write| !self.is_durable(Some(write)));
        let message = Message { key: self.key, terms: self.terms, from: self.address, to, body };
        out.sends.push(Send { message, after });
    }

    /// Rule 1.
    pub fn send_vote(&self, to: Address, vote: Vote, after: Option<WriteId>, out: &mut Effects) {
        let bug = self.has_canary(Canary::VoteBeforeWritten);
        self.send(to, Body::Vote(vote), after.filter(|_| !bug), out);
    }

    /// Tells what became of something, which costs nothing if nobody listens.
    pub fn refuse(&self, refusal: Refusal, out: &mut Effects) {
        out.events.push(Event::Refused(refusal));
    }

    pub fn ignore(&self, why: Ignored, out: &mut Effects) {
        out.events.push(Event::Ignored(why));
    }

    /// Rule 6: whether to act upon a message of this very attempt.
    pub fn admits(&self, message: &Message, out: &mut Effects) -> Admission {
        if message.key.transaction != self.key.transaction || message.to != self.address {
            self.ignore(Ignored::NotMine, out);
            return Admission::Refused;
        }
        let epoch = message.key.epoch;
        if epoch > self.key.epoch && !self.has_canary(Canary::IgnoreEpoch) {
            return Admission::Superseded;
        }
        if epoch < self.key.epoch && !self.has_canary(Canary::IgnoreEpoch) {
            self.ignore(Ignored::EarlierEpoch, out);
            return Admission::Refused;
        }
        if message.terms != self.terms || !self.terms.has(message.from) {
            self.ignore(Ignored::UnknownSite, out);
            return Admission::Refused;
        }
        Admission::Granted
    }

    pub fn set_timer(&mut self, now: Instant, after: core::time::Duration) {
        self.timer = Some(now + after);
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.timer.is_some_and(|due| now >= due)
    }
}

/// What to do with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    /// Act upon it.
    Granted,
    /// A later attempt has begun: this one is aborted.
    Superseded,
    /// Nothing.
    Refused,
}
