//! The participant: a branch, and a site of the majority that decides.

use super::{Termination, Terminator, others, patience, tell};
use crate::branch::{Branch, Durability, Said};
use crate::canary::Canary;
use crate::effects::{Effects, Refusal};
use crate::ids::{Address, BranchId, Key, Terms};
use crate::input::Input;
use crate::interface::{AtomicCommit, Config, Phase, Status};
use crate::message::{Body, Message};
use crate::record::Record;
use crate::seat::{Admission, Seat};
use crate::vote::{Decision, Outcome, Reason, Vote};
use alloc::vec::Vec;
use quorate_base::Instant;

/// One participant's part in one attempt of one transaction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Participant {
    seat: Seat,
    branch: Branch,
    terminator: Terminator,
}

impl Participant {
    /// A participant that remembers `records`.
    pub fn restore(
        config: Config,
        termination: Termination,
        key: Key,
        terms: Terms,
        branch: BranchId,
        records: &[Record],
    ) -> Self {
        let mut seat = Seat::new(config, key, terms, Address::Participant(branch));
        let durability = Durability { refusal: false, read_only: true, abort: true };
        let branch = Branch::restore(records, &seat, durability);
        let terminator = Terminator::restore(termination, &seat, records);
        if branch.is_prepared() || branch.is_finishing() {
            seat.timer = Some(Instant::ZERO);
        }
        Participant { seat, branch, terminator }
    }

    fn say(&mut self, now: Instant, said: Said, out: &mut Effects) {
        if let Said::Vote(vote, write) = said {
            let refuses = matches!(vote, Vote::No(_));
            if vote == Vote::Yes {
                self.seat.timer = Some(patience(now, &self.seat));
            }
            self.seat.send_vote(Address::Coordinator, vote, write.filter(|_| !refuses), out);
        }
    }

    fn message(&mut self, now: Instant, message: Message, out: &mut Effects) {
        match self.seat.admits(&message, out) {
            Admission::Granted => {}
            Admission::Superseded => return self.branch.superseded(&mut self.seat, out),
            Admission::Refused => return,
        }
        if self.branch.phase() == Phase::Forgotten {
            return;
        }
        let from = message.from;
        match message.body {
            Body::Prepare => {
                let said = self.branch.prepare(false, &mut self.seat, out);
                self.say(now, said, out);
            }
            Body::Decide(decision) => self.decide(now, decision, from, out),
            body => {
                let reached = match self.branch.decision() {
                    Some((decision, write)) => {
                        // Nothing is open any more; whoever asks learns the end. The coordinator
                        // has it, or it would not be at its first attempt.
                        let asks = matches!(body, Body::Elect { .. } | Body::PreDecide { .. });
                        if asks {
                            tell(decision, write, from, &self.seat, out);
                        }
                        None
                    }
                    None => self.terminator.message(now, from, body, &mut self.seat, out),
                };
                self.reached(now, reached, out);
            }
        }
    }

    /// This site has brought about a decision, and tells it to everybody.
    fn reached(&mut self, now: Instant, outcome: Option<Outcome>, out: &mut Effects) {
        let decision = match outcome {
            None => return,
            Some(Outcome::Commit) => Decision::Commit,
            Some(Outcome::Abort) => Decision::abort(Reason::NotHeard),
        };
        if self.branch.phase() == Phase::Released {
            return;
        }
        self.decide(now, decision, Address::Coordinator, out);
        if let Some((decision, write)) = self.branch.decision() {
            for site in others(&self.seat) {
                tell(decision, write, site, &self.seat, out);
            }
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
            let reached = self.terminator.tick(now, &mut self.seat, out);
            self.reached(now, reached, out);
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
            Input::Begin { .. } | Input::Cancel => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.seat.timer
    }

    fn status(&self) -> Status {
        let decision = self.branch.decision().map(|(decision, _)| decision.clone());
        let phase = match self.branch.phase() {
            Phase::Prepared => self.terminator.phase().unwrap_or(Phase::Prepared),
            phase => phase,
        };
        let in_doubt = matches!(phase, Phase::Prepared | Phase::PreCommitted | Phase::PreAborted);
        let waits_for = if in_doubt { others(&self.seat).collect() } else { Vec::new() };
        Status { phase, decision, waits_for }
    }

    fn key(&self) -> Key {
        self.seat.key
    }

    fn terms(&self) -> Terms {
        self.seat.terms
    }
}
