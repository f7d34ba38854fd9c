//! The participant: the only proposer of the ballot zero of its own vote.

use crate::branch::{Branch, Durability, Said};
use crate::canary::Canary;
use crate::effects::{Effects, Ignored, Refusal, WriteId};
use crate::ids::{AcceptorId, Address, BranchId, Key, Terms};
use crate::input::Input;
use crate::interface::{AtomicCommit, Config, Phase, Status};
use crate::message::{Body, Message};
use crate::record::Record;
use crate::seat::{Admission, Seat};
use crate::vote::{Reason, Vote};
use alloc::vec;
use alloc::vec::Vec;
use quorate_base::{Ballot, Instant};

/// One participant's part in one attempt of one transaction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Participant {
    seat: Seat,
    branch: Branch,
    id: BranchId,
    /// Whether it has voted in this run: the votes after the first go to all acceptors.
    voted: bool,
    /// How often it asked in vain, and so whom it asks next.
    asked: u16,
}

impl Participant {
    /// A participant that remembers `records`.
    pub fn restore(
        config: Config,
        key: Key,
        terms: Terms,
        id: BranchId,
        records: &[Record],
    ) -> Self {
        let mut seat = Seat::new(config, key, terms, Address::Participant(id));
        let refusal = !seat.has_canary(Canary::RefuseBeforeWritten);
        let durability = Durability { refusal, read_only: true, abort: true };
        let branch = Branch::restore(records, &seat, durability);
        if branch.is_prepared() || branch.is_finishing() {
            seat.timer = Some(Instant::ZERO);
        }
        Participant { seat, branch, id, voted: false, asked: 0 }
    }

    fn say(&mut self, now: Instant, said: Said, out: &mut Effects) {
        match said {
            Said::Vote(vote @ Vote::No(_), write) => {
                let after = write.filter(|_| !self.seat.has_canary(Canary::RefuseBeforeWritten));
                self.seat.send_vote(Address::Coordinator, vote, after, out);
            }
            Said::Vote(vote, write) => {
                if vote == Vote::Yes {
                    self.seat.set_timer(now, self.seat.config.patience);
                }
                self.propose(vote, write, out);
            }
            Said::Nothing | Said::Alone => {}
        }
    }

    /// Phase 2a under the ballot zero.
    fn propose(&mut self, vote: Vote, write: Option<WriteId>, out: &mut Effects) {
        let terms = self.seat.terms;
        let few = if self.voted { terms.acceptors.into() } else { terms.acceptor_quorum() };
        self.voted = true;
        let bug = self.seat.has_canary(Canary::VoteBeforeWritten);
        for acceptor in terms.acceptors().take(few) {
            let votes = vec![(self.id, vote.clone())];
            let body = Body::AcceptVotes { ballot: Ballot::ZERO, votes };
            self.seat.send(acceptor, body, write.filter(|_| !bug), out);
        }
    }

    fn message(&mut self, now: Instant, message: Message, out: &mut Effects) {
        match self.seat.admits(&message, out) {
            Admission::Granted => {}
            Admission::Superseded => return self.branch.superseded(&mut self.seat, out),
            Admission::Refused => return,
        }
        match message.body {
            Body::Prepare => {
                let said = self.branch.prepare(false, &mut self.seat, out);
                self.say(now, said, out);
            }
            Body::Decide(decision) => {
                self.branch.decide(decision, message.from, &mut self.seat, out);
                self.seat.timer = None;
                if self.branch.is_finishing() {
                    self.seat.set_timer(now, self.seat.config.retry);
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
        if self.branch.is_finishing() {
            self.branch.remind(out);
            self.seat.set_timer(now, self.seat.config.retry);
        } else if self.branch.is_prepared() {
            if self.seat.has_canary(Canary::PreparedGivesUp) {
                return self.branch.give_up(Reason::TimedOut, &mut self.seat, out);
            }
            if let Said::Vote(vote, write) = self.branch.prepare(false, &mut self.seat, out) {
                self.voted = true;
                self.propose(vote, write, out);
            }
            self.inquire(out);
            self.seat.set_timer(now, self.seat.config.patience);
        }
    }

    /// Asks the coordinator, and one acceptor after the other, how it ended: who does not know
    /// finds out.
    fn inquire(&mut self, out: &mut Effects) {
        self.seat.send(Address::Coordinator, Body::Inquire, None, out);
        if let Some(turn) = self.asked.checked_rem(self.seat.terms.acceptors) {
            let acceptor = Address::Acceptor(AcceptorId(turn + 1));
            self.seat.send(acceptor, Body::Inquire, None, out);
            self.asked = turn + 1;
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
        let phase = self.branch.phase();
        let decision = self.branch.decision().map(|(decision, _)| decision.clone());
        let waits_for = match phase {
            Phase::Prepared => self.seat.terms.acceptors().collect(),
            _ => Vec::new(),
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
