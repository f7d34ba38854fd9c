//! The participant.

use crate::branch::{Branch, Durability, Said};
use crate::canary::Canary;
use crate::effects::{Effects, Ignored, Refusal};
use crate::ids::{Address, BranchId, Key, Terms};
use crate::input::Input;
use crate::interface::{AtomicCommit, Config, Phase, Status};
use crate::message::{Body, Message};
use crate::record::Record;
use crate::seat::{Admission, Seat};
use crate::vote::{Decision, Reason, Vote};
use alloc::vec;
use alloc::vec::Vec;
use quorate_base::Instant;

/// One participant's part in one attempt of one transaction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Participant {
    seat: Seat,
    branch: Branch,
}

impl Participant {
    /// A participant that remembers `records`.
    pub fn restore(
        config: Config,
        key: Key,
        terms: Terms,
        branch: BranchId,
        records: &[Record],
    ) -> Self {
        let mut seat = Seat::new(config, key, terms, Address::Participant(branch));
        let branch = Branch::restore(records, &seat, Durability::PRESUMED_ABORT);
        if branch.is_prepared() || branch.is_finishing() {
            seat.timer = Some(Instant::ZERO);
        }
        Participant { seat, branch }
    }

    fn say(&mut self, now: Instant, said: Said, out: &mut Effects) {
        match said {
            Said::Nothing => {}
            Said::Vote(vote, write) => {
                let waits = vote == Vote::Yes;
                // A No need not be durable: whoever hears it will never commit.
                let after = write.filter(|_| waits);
                self.seat.send_vote(Address::Coordinator, vote, after, out);
                if waits {
                    self.seat.set_timer(now, self.seat.config.patience);
                }
            }
            Said::Alone => self.tell(Address::Coordinator, out),
        }
    }

    /// Tells the decision, if it is known, once this site will remember it.
    fn tell(&self, to: Address, out: &mut Effects) {
        let known = match to {
            Address::Coordinator => self.branch.decision(),
            _ => self.branch.decision_for_peers(&self.seat),
        };
        if let Some((decision, write)) = known {
            self.seat.send(to, Body::Decide(decision.clone()), write, out);
        }
    }

    fn message(&mut self, now: Instant, message: Message, out: &mut Effects) {
        match self.seat.admits(&message, out) {
            Admission::Granted => {}
            Admission::Superseded => return self.branch.superseded(&mut self.seat, out),
            Admission::Refused => return,
        }
        match message.body {
            Body::Prepare | Body::PrepareAlone => {
                let alone = message.body == Body::PrepareAlone;
                let said = self.branch.prepare(alone, &mut self.seat, out);
                self.say(now, said, out);
            }
            Body::Decide(decision) => self.decide(now, decision, message.from, out),
            Body::Inquire => self.tell(message.from, out),
            _ => self.seat.ignore(Ignored::NotMine, out),
        }
    }

    fn decide(&mut self, now: Instant, decision: Decision, from: Address, out: &mut Effects) {
        self.branch.decide(decision, from, &mut self.seat, out);
        self.seat.timer = None;
        if self.branch.is_finishing() {
            self.seat.set_timer(now, self.seat.config.retry);
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Effects) {
        if !self.seat.is_due(now) {
            return;
        }
        self.seat.timer = None;
        if self.branch.is_finishing() {
            self.branch.remind(out);
            self.seat.set_timer(now, self.seat.config.retry);
        } else if self.branch.is_prepared() {
            if self.seat.has_canary(Canary::PreparedGivesUp) {
                return self.branch.give_up(Reason::TimedOut, &mut self.seat, out);
            }
            let peers = self.seat.terms.electorate();
            for peer in peers.filter(|peer| *peer != self.seat.address) {
                self.seat.send(peer, Body::Inquire, None, out);
            }
            self.seat.set_timer(now, self.seat.config.patience);
        }
    }
}

impl AtomicCommit for Participant {
    fn step(&mut self, now: Instant, input: Input, out: &mut Effects) {
        match input {
            Input::Tick => self.tick(now, out),
            Input::Prepare => {
                let said = self.branch.prepare(false, &mut self.seat, out);
                self.say(now, said, out);
            }
            Input::Message(message) => self.message(now, message, out),
            Input::Written { id } => self.seat.written(id),
            Input::Resource(answer) => {
                let said = self.branch.answered(answer, &mut self.seat, out);
                self.say(now, said, out);
            }
            Input::Forget => {
                if !self.branch.forget(out) {
                    self.seat.refuse(Refusal::StillNeeded, out);
                }
            }
            // The coordinator's.
            Input::Begin { .. } | Input::Cancel => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.seat.timer
    }

    fn status(&self) -> Status {
        let phase = self.branch.phase();
        let decision = self.branch.decision().map(|(decision, _)| decision.clone());
        let in_doubt = phase == Phase::Prepared;
        let waits_for = if in_doubt { vec![Address::Coordinator] } else { Vec::new() };
        Status { phase, decision, waits_for }
    }

    fn key(&self) -> Key {
        self.seat.key
    }

    fn terms(&self) -> Terms {
        self.seat.terms
    }
}
