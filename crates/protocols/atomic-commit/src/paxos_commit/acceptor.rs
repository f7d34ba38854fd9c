//! The acceptor: remembers the votes of all branches, and leads when it is asked to.

use super::leader::Leader;
use crate::canary::Canary;
use crate::effects::{Effects, Ignored, Refusal, WriteId};
use crate::ids::{AcceptorId, Address, BranchId, Key, Terms};
use crate::input::Input;
use crate::interface::{AtomicCommit, Config, Phase, Status};
use crate::message::{Body, Message};
use crate::record::Record;
use crate::seat::{Admission, Seat};
use crate::vote::Vote;
use alloc::vec;
use alloc::vec::Vec;
use quorate_base::{Ballot, Instant};
use quorate_paxos::synod;

/// One acceptor's part in one attempt of one transaction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Acceptor {
    seat: Seat,
    /// One for each branch. They promise together.
    instances: Vec<synod::Acceptor<Vote>>,
    /// Votes under the ballot zero that wait for the rest, as if they were still under way.
    gathered: Vec<Option<Vote>>,
    write: Option<WriteId>,
    leader: Leader,
    forgotten: bool,
}

impl Acceptor {
    /// An acceptor that remembers `records`.
    pub fn restore(
        config: Config,
        key: Key,
        terms: Terms,
        acceptor: AcceptorId,
        records: &[Record],
    ) -> Self {
        let seat = Seat::new(config, key, terms, Address::Acceptor(acceptor));
        let mut instances = vec![synod::Acceptor::default(); usize::from(terms.branches)];
        let mut leader = Leader::new(&seat);
        for record in records {
            let Record::Votes { promised, accepted } = record else { continue };
            leader.heard_of(promised.round);
            let forgets = seat.has_canary(Canary::ForgetPromise);
            let promised = if forgets { Ballot::ZERO } else { *promised };
            for (instance, accepted) in instances.iter_mut().zip(accepted) {
                *instance = synod::Acceptor::restore(promised, accepted.clone());
            }
        }
        let gathered = vec![None; instances.len()];
        Acceptor { seat, instances, gathered, write: None, leader, forgotten: false }
    }

    fn promised(&self) -> Ballot {
        self.instances.iter().map(|instance| instance.promised()).max().unwrap_or(Ballot::ZERO)
    }

    fn remember(&mut self, out: &mut Effects) -> Option<WriteId> {
        let accepted = self.instances.iter().map(|instance| instance.accepted().cloned()).collect();
        let record = Record::Votes { promised: self.promised(), accepted };
        self.write = Some(self.seat.write(record, true, out));
        self.answer_after()
    }

    fn answer_after(&self) -> Option<WriteId> {
        self.write.filter(|_| !self.seat.has_canary(Canary::AnswerBeforeWritten))
    }

    /// Phase 1a, for every branch.
    fn ask(&mut self, from: Address, ballot: Ballot, out: &mut Effects) {
        self.leader.heard_of(ballot.round);
        let promised = self.promised();
        let mut accepted = Vec::new();
        for instance in &mut self.instances {
            match instance.prepare(ballot) {
                Ok(promise) => accepted.push(promise.accepted),
                Err(_) => return self.seat.send(from, Body::Outrun { promised }, None, out),
            }
        }
        self.gathered.fill(None);
        let after = if ballot == promised { self.answer_after() } else { self.remember(out) };
        self.seat.send(from, Body::Votes { ballot, accepted }, after, out);
    }

    /// Phase 2a of a leader, for every branch.
    fn accept(
        &mut self,
        from: Address,
        ballot: Ballot,
        votes: Vec<(BranchId, Vote)>,
        out: &mut Effects,
    ) {
        if !votes.iter().map(|(branch, _)| *branch).eq(self.seat.terms.branches()) {
            return self.seat.ignore(Ignored::Impossible, out);
        }
        self.leader.heard_of(ballot.round);
        let promised = self.promised();
        if !synod::may_accept(promised, ballot) {
            return self.seat.send(from, Body::Outrun { promised }, None, out);
        }
        let before = self.instances.clone();
        for (instance, (_, vote)) in self.instances.iter_mut().zip(&votes) {
            let accepted = instance.accept(ballot, vote.clone());
            assert!(accepted.is_ok(), "the instances have promised the same");
        }
        let again = before == self.instances;
        let after = if again { self.answer_after() } else { self.remember(out) };
        self.seat.send(from, Body::AcceptedVotes { ballot, votes }, after, out);
    }

    /// Phase 2a of a participant, about its own vote: gathered until all are here.
    fn gather(&mut self, from: Address, votes: Vec<(BranchId, Vote)>, out: &mut Effects) {
        if self.promised() != Ballot::ZERO {
            // Overtaken: the participant will ask how it ended.
            return;
        }
        for (branch, vote) in votes {
            if from != Address::Participant(branch) {
                return self.seat.ignore(Ignored::Impossible, out);
            }
            let at = usize::from(branch.0) - 1;
            match self.instances[at].accepted() {
                // It came again: what was said was lost.
                Some(_) => self.report(out),
                None => self.gathered[at] = Some(vote),
            }
        }
        let complete =
            |at: usize| self.gathered[at].is_some() || self.instances[at].accepted().is_some();
        if self.gathered.iter().all(Option::is_none) {
            return;
        }
        if (0..self.instances.len()).all(complete) {
            self.take_in(out);
        }
    }

    /// Accepts what was gathered, complete or not.
    fn take_in(&mut self, out: &mut Effects) {
        let mut new = false;
        for (instance, vote) in self.instances.iter_mut().zip(&mut self.gathered) {
            if let Some(vote) = vote.take() {
                new |= instance.accept(Ballot::ZERO, vote).is_ok();
            }
        }
        if new {
            self.remember(out);
            self.report(out);
        }
    }

    /// Phase 2b of the ballot zero, to the first leader.
    fn report(&self, out: &mut Effects) {
        let accepted = self.seat.terms.branches().zip(&self.instances);
        let votes = accepted.filter_map(|(branch, instance)| match instance.accepted() {
            Some((Ballot::ZERO, vote)) => Some((branch, vote.clone())),
            _ => None,
        });
        let body = Body::AcceptedVotes { ballot: Ballot::ZERO, votes: votes.collect() };
        self.seat.send(Address::Coordinator, body, self.answer_after(), out);
    }

    fn take_over(&mut self, now: Instant, out: &mut Effects) {
        self.take_in(out);
        let ballot = self.leader.take_over(&self.seat);
        // It asks itself first: its own promise sees to it that it never leads this round again.
        self.ask(self.seat.address, ballot, out);
        self.leader.ask(&self.seat, self.write, out);
        self.seat.timer = Some(self.leader.patience(now, &self.seat));
    }

    fn decided(&mut self, now: Instant, out: &mut Effects) {
        self.leader.tell(&self.seat, out);
        if let Some(decision) = self.leader.decision() {
            self.seat.send(Address::Coordinator, Body::Decide(decision.clone()), None, out);
        }
        let more = self.leader.must_tell();
        self.seat.timer = more.then(|| now + self.seat.config.retry);
    }

    fn message(&mut self, now: Instant, message: Message, out: &mut Effects) {
        if self.seat.admits(&message, out) != Admission::Granted || self.forgotten {
            return;
        }
        let Message { from, body, .. } = message;
        match body {
            Body::AskVotes { ballot } => self.ask(from, ballot, out),
            Body::AcceptVotes { ballot, votes } => match ballot {
                Ballot::ZERO => self.gather(from, votes, out),
                ballot => self.accept(from, ballot, votes, out),
            },
            Body::Votes { ballot, accepted } => {
                let Some(votes) = self.leader.promised(from, ballot, accepted, &self.seat) else {
                    return;
                };
                for acceptor in self.seat.terms.acceptors() {
                    let body = Body::AcceptVotes { ballot, votes: votes.clone() };
                    if acceptor != self.seat.address {
                        self.seat.send(acceptor, body, None, out);
                    }
                }
                self.accept(self.seat.address, ballot, votes, out);
            }
            Body::AcceptedVotes { ballot, votes } => {
                if self.leader.accepted(from, ballot, &votes, &self.seat, out) {
                    self.decided(now, out);
                }
            }
            Body::Outrun { promised } => self.leader.heard_of(promised.round),
            Body::Inquire => match self.leader.decision() {
                Some(decision) => self.seat.send(from, Body::Decide(decision.clone()), None, out),
                None if !self.leader.leads() => self.take_over(now, out),
                None => {}
            },
            Body::Acknowledge(proof) => {
                if let Address::Participant(branch) = from {
                    self.leader.acknowledged(branch, proof, out);
                }
            }
            _ => self.seat.ignore(Ignored::NotMine, out),
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Effects) {
        if !self.seat.is_due(now) {
            return;
        }
        self.seat.timer = None;
        if self.leader.decision().is_some() {
            self.leader.tell(&self.seat, out);
            let more = self.leader.must_tell();
            self.seat.timer = more.then(|| now + self.seat.config.retry);
        } else if self.leader.leads() {
            self.take_over(now, out);
        }
    }
}

impl AtomicCommit for Acceptor {
    fn step(&mut self, now: Instant, input: Input, out: &mut Effects) {
        match input {
            Input::Tick => self.tick(now, out),
            Input::Message(message) => self.message(now, message, out),
            Input::Written { id } => self.seat.written(id),
            Input::Forget => match self.leader.leads() || self.leader.must_tell() {
                true => self.seat.refuse(Refusal::StillNeeded, out),
                false => self.forgotten = true,
            },
            Input::Begin { .. } | Input::Cancel | Input::Prepare | Input::Resource(_) => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.seat.timer
    }

    fn status(&self) -> Status {
        let decision = self.leader.decision().cloned();
        let phase = match &decision {
            _ if self.forgotten => Phase::Forgotten,
            Some(_) if self.leader.must_tell() => Phase::Deciding,
            Some(_) => Phase::Finished,
            None if self.write.is_none() && self.promised() == Ballot::ZERO => Phase::Unknown,
            None => Phase::Accepting,
        };
        let waits_for = match self.leader.leads() {
            true => self.seat.terms.acceptors().collect(),
            false => Vec::new(),
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
