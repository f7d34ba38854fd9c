//! The coordinator: it asks participants to prepare, and is the first who learns.

use super::leader::Leader;
use crate::effects::{Effects, Ignored, Refusal};
use crate::ids::{Address, Key, Terms};
use crate::input::Input;
use crate::interface::{AtomicCommit, Config, Phase, Status};
use crate::message::{Body, Message};
use crate::record::Record;
use crate::seat::{Admission, Seat};
use crate::vote::{Decision, Vote};
use alloc::vec::Vec;
use quorate_base::Instant;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum State {
    Unknown,
    Collecting {
        deadline: Instant,
    },
    /// It leads a ballot of its own.
    Leading,
    Forgotten,
}

/// The coordinator of one attempt of one transaction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Coordinator {
    seat: Seat,
    state: State,
    leader: Leader,
}

impl Coordinator {
    /// A coordinator that remembers `records`.
    pub fn restore(config: Config, key: Key, terms: Terms, records: &[Record]) -> Self {
        assert!(terms.acceptors % 2 == 1, "2F + 1 acceptors");
        let seat = Seat::new(config, key, terms, Address::Coordinator);
        let mut leader = Leader::new(&seat);
        for record in records {
            if let Record::Round(round) = record {
                leader.heard_of(*round);
            }
        }
        Coordinator { seat, state: State::Unknown, leader }
    }

    fn begin(&mut self, now: Instant, deadline: Instant, out: &mut Effects) {
        if self.state != State::Unknown || self.leader.decision().is_some() {
            return self.seat.refuse(Refusal::NotNew, out);
        }
        self.state = State::Collecting { deadline };
        self.ask(now, deadline, out);
    }

    fn ask(&mut self, now: Instant, deadline: Instant, out: &mut Effects) {
        for branch in self.leader.missing(self.seat.terms) {
            self.seat.send(Address::Participant(branch), Body::Prepare, None, out);
        }
        self.seat.timer = Some((now + self.seat.config.retry).min(deadline));
    }

    /// Ends the matter under a ballot of its own. It may turn out to be a commit.
    fn take_over(&mut self, now: Instant, out: &mut Effects) {
        self.state = State::Leading;
        let round = self.leader.next_round();
        let write = self.seat.write(Record::Round(round), true, out);
        self.leader.take_over(&self.seat);
        self.leader.ask(&self.seat, Some(write), out);
        self.seat.timer = Some(self.leader.patience(now, &self.seat));
    }

    fn decided(&mut self, now: Instant, out: &mut Effects) {
        self.leader.tell(&self.seat, out);
        let more = self.leader.must_tell();
        self.seat.timer = more.then(|| now + self.seat.config.retry);
    }

    fn message(&mut self, now: Instant, message: Message, out: &mut Effects) {
        if self.seat.admits(&message, out) != Admission::Granted || self.state == State::Forgotten {
            return;
        }
        let Message { from, body, .. } = message;
        match (from, body) {
            (Address::Acceptor(_), Body::AcceptedVotes { ballot, votes }) => {
                if self.leader.accepted(from, ballot, &votes, &self.seat, out) {
                    self.decided(now, out);
                }
            }
            (Address::Acceptor(_), Body::Votes { ballot, accepted }) => {
                let votes = self.leader.promised(from, ballot, accepted, &self.seat);
                for acceptor in self.seat.terms.acceptors().filter(|_| votes.is_some()) {
                    let votes = votes.clone().unwrap_or_default();
                    self.seat.send(acceptor, Body::AcceptVotes { ballot, votes }, None, out);
                }
            }
            (_, Body::Outrun { promised }) => self.leader.heard_of(promised.round),
            (Address::Participant(branch), Body::Vote(Vote::No(reason))) => {
                // Its instance is free for ever, or chosen to be No.
                let decision = Decision::Abort { branch: Some(branch), reason };
                if self.leader.decide(decision, out) {
                    self.decided(now, out);
                }
            }
            (Address::Participant(_), Body::Inquire) => match self.leader.decision() {
                Some(decision) => {
                    self.seat.send(from, Body::Decide(decision.clone()), None, out);
                }
                None if self.state == State::Unknown => self.take_over(now, out),
                None => {}
            },
            (Address::Acceptor(_), Body::Decide(decision)) => {
                if self.leader.decide(decision, out) {
                    self.decided(now, out);
                }
            }
            (Address::Participant(branch), Body::Acknowledge(proof)) => {
                self.leader.acknowledged(branch, proof, out);
                if !self.leader.must_tell() && self.leader.decision().is_some() {
                    self.seat.timer = None;
                }
            }
            _ => self.seat.ignore(Ignored::NotMine, out),
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Effects) {
        if !self.seat.is_due(now) {
            return;
        }
        if self.leader.decision().is_some() {
            self.leader.tell(&self.seat, out);
            let more = self.leader.must_tell();
            self.seat.timer = more.then(|| now + self.seat.config.retry);
            return;
        }
        match self.state {
            State::Collecting { deadline } if now < deadline => self.ask(now, deadline, out),
            State::Collecting { .. } | State::Leading => self.take_over(now, out),
            State::Unknown | State::Forgotten => self.seat.timer = None,
        }
    }
}

impl AtomicCommit for Coordinator {
    fn step(&mut self, now: Instant, input: Input, out: &mut Effects) {
        match input {
            Input::Tick => self.tick(now, out),
            Input::Begin { deadline } => self.begin(now, deadline, out),
            Input::Cancel => match self.state {
                State::Collecting { .. } if self.leader.decision().is_none() => {
                    self.take_over(now, out);
                }
                _ => self.seat.refuse(Refusal::TooLate, out),
            },
            Input::Message(message) => self.message(now, message, out),
            Input::Written { id } => self.seat.written(id),
            Input::Forget => match self.leader.decision() {
                Some(_) if self.leader.unproven().is_empty() => self.state = State::Forgotten,
                _ => self.seat.refuse(Refusal::StillNeeded, out),
            },
            Input::Prepare | Input::Resource(_) => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.seat.timer
    }

    fn status(&self) -> Status {
        let unproven = self.leader.unproven();
        let decision = self.leader.decision().cloned();
        let waits = |of: Vec<_>| of.into_iter().map(Address::Participant).collect();
        let (phase, waits_for) = match (self.state, &decision) {
            (State::Forgotten, _) => (Phase::Forgotten, Vec::new()),
            (_, Some(_)) if unproven.is_empty() => (Phase::Finished, Vec::new()),
            (_, Some(_)) => (Phase::Deciding, waits(unproven.iter().copied().collect())),
            (State::Unknown, None) => (Phase::Unknown, Vec::new()),
            (State::Collecting { .. }, None) => {
                (Phase::Collecting, waits(self.leader.missing(self.seat.terms)))
            }
            (State::Leading, None) => (Phase::Collecting, self.seat.terms.acceptors().collect()),
        };
        Status { phase, decision, waits_for }
    }

    fn key(&self) -> Key {
        self.seat.key
    }

    fn terms(&self) -> Terms {
        self.seat.terms
    }
}
