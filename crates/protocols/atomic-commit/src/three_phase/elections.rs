//! Attempts and elections of E3PC: the synod with the outcome as its value.

use super::{others, patience};
use crate::canary::Canary;
use crate::effects::{Effects, WriteId};
use crate::ids::Address;
use crate::message::Body;
use crate::record::Record;
use crate::seat::Seat;
use crate::vote::Outcome;
use quorate_base::{Ballot, Instant};
use quorate_paxos::synod::{Acceptor, Learner, Promise, Proposer};

/// One attempt of this site, under a ballot of its own.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Attempt {
    ballot: Ballot,
    /// Of the election; the coordinator's first attempt needs none.
    election: Option<Proposer<Outcome>>,
    /// Some site of the majority has pre-committed (for a deliberate bug).
    found_commit: bool,
    /// What it asks to accept, once it knows.
    outcome: Option<Outcome>,
    learner: Learner<Outcome>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Elections {
    acceptor: Acceptor<Outcome>,
    write: Option<WriteId>,
    /// Highest round heard of.
    seen: u64,
    attempt: Option<Attempt>,
}

fn quorum(seat: &Seat) -> usize {
    let minority = usize::from(seat.has_canary(Canary::MinorityDecides));
    seat.terms.majority() - minority
}

impl Elections {
    pub fn restore(seat: &Seat, records: &[Record]) -> Self {
        let (mut acceptor, mut seen) = (Acceptor::default(), 0);
        for record in records {
            let Record::Ballots { promised, accepted } = record else { continue };
            seen = promised.round;
            let forgets = seat.has_canary(Canary::ForgetPromise);
            let promised = if forgets { Ballot::ZERO } else { *promised };
            acceptor = Acceptor::restore(promised, *accepted);
        }
        Elections { acceptor, write: None, seen, attempt: None }
    }

    pub fn accepted(&self) -> Option<Outcome> {
        self.acceptor.accepted().map(|(_, outcome)| *outcome)
    }

    fn remember(&mut self, seat: &mut Seat, out: &mut Effects) {
        let (promised, accepted) = (self.acceptor.promised(), self.acceptor.accepted().copied());
        self.write = Some(seat.write(Record::Ballots { promised, accepted }, true, out));
    }

    fn answer_after(&self, seat: &Seat) -> Option<WriteId> {
        self.write.filter(|_| !seat.has_canary(Canary::AnswerBeforeWritten))
    }

    /// The coordinator's attempt to commit: it has the ballot to itself, and so needs no election.
    pub fn pre_commit(&mut self, now: Instant, seat: &mut Seat, out: &mut Effects) {
        let ballot = Ballot::new(1, seat.terms.node(seat.address));
        let (election, outcome) = (None, Some(Outcome::Commit));
        let learner = Learner::new(quorum(seat));
        let found_commit = true;
        self.attempt = Some(Attempt { ballot, election, found_commit, outcome, learner });
        self.propose(ballot, Outcome::Commit, seat, out);
        seat.timer = Some(patience(now, seat));
    }

    /// Has itself elected, under a new ballot.
    pub fn elect(&mut self, now: Instant, seat: &mut Seat, out: &mut Effects) {
        // Round 1 is the coordinator's.
        let round = self.seen.max(self.acceptor.promised().round).max(1) + 1;
        let ballot = Ballot::new(round, seat.terms.node(seat.address));
        let election = Some(Proposer::propose(ballot, Outcome::Abort, quorum(seat)));
        let learner = Learner::new(quorum(seat));
        let (found_commit, outcome) = (false, None);
        self.attempt = Some(Attempt { ballot, election, found_commit, outcome, learner });
        // It asks itself first: its own promise sees to it that it never uses the ballot again.
        self.elected_by_me(seat.address, ballot, seat, out);
        for site in others(seat) {
            seat.send(site, Body::Elect { ballot }, self.write, out);
        }
        seat.timer = Some(patience(now, seat));
    }

    fn propose(&mut self, ballot: Ballot, outcome: Outcome, seat: &mut Seat, out: &mut Effects) {
        for site in others(seat) {
            seat.send(site, Body::PreDecide { ballot, outcome }, None, out);
        }
        self.accept(seat.address, ballot, outcome, seat, out);
    }

    /// Asked to elect `from`.
    fn elected_by_me(&mut self, from: Address, ballot: Ballot, seat: &mut Seat, out: &mut Effects) {
        self.seen = self.seen.max(ballot.round);
        let before = self.acceptor.promised();
        match self.acceptor.prepare(ballot) {
            Ok(Promise { accepted }) => {
                if before != ballot {
                    self.remember(seat, out);
                }
                let body = Body::Elected { ballot, accepted };
                seat.send(from, body, self.answer_after(seat), out);
            }
            Err(promised) => seat.send(from, Body::Outrun { promised }, None, out),
        }
    }

    /// Asked to pre-commit or pre-abort.
    fn accept(
        &mut self,
        from: Address,
        ballot: Ballot,
        outcome: Outcome,
        seat: &mut Seat,
        out: &mut Effects,
    ) {
        self.seen = self.seen.max(ballot.round);
        if seat.has_canary(Canary::AcceptLowerBallot) {
            self.acceptor = Acceptor::restore(ballot, Some((ballot, outcome)));
        }
        let again = self.acceptor.accepted() == Some(&(ballot, outcome));
        match self.acceptor.accept(ballot, outcome) {
            Ok(()) => {
                if !again {
                    self.remember(seat, out);
                }
                seat.send(from, Body::PreDecided { ballot }, self.answer_after(seat), out);
            }
            Err(promised) => seat.send(from, Body::Outrun { promised }, None, out),
        }
    }

    pub fn message(
        &mut self,
        now: Instant,
        from: Address,
        body: Body,
        seat: &mut Seat,
        out: &mut Effects,
    ) -> Option<Outcome> {
        match body {
            Body::PreDecide { ballot, outcome } => {
                self.accept(from, ballot, outcome, seat, out);
                // Somebody is at work: wait for the result.
                if seat.timer.is_some() {
                    seat.timer = Some(patience(now, seat));
                }
                None
            }
            Body::Elect { ballot } => {
                self.elected_by_me(from, ballot, seat, out);
                None
            }
            Body::Elected { ballot, accepted } => {
                self.elected(from, ballot, accepted, seat, out);
                None
            }
            Body::PreDecided { ballot } => {
                let attempt = self.attempt.as_mut().filter(|attempt| attempt.ballot == ballot)?;
                let outcome = attempt.outcome?;
                attempt.learner.learn(seat.terms.node(from), ballot, &outcome).copied()
            }
            Body::Outrun { promised } => {
                self.seen = self.seen.max(promised.round);
                None
            }
            _ => None,
        }
    }

    /// A site elected this one.
    fn elected(
        &mut self,
        from: Address,
        ballot: Ballot,
        accepted: Option<(Ballot, Outcome)>,
        seat: &mut Seat,
        out: &mut Effects,
    ) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.ballot == ballot) else {
            return;
        };
        let Some(election) = &mut attempt.election else { return };
        attempt.found_commit |= matches!(accepted, Some((_, Outcome::Commit)));
        let last_attempt = election.promised(seat.terms.node(from), Promise { accepted }).copied();
        let Some(mut outcome) = last_attempt else { return };
        if attempt.found_commit && seat.has_canary(Canary::AnyPreCommitWins) {
            outcome = Outcome::Commit;
        }
        attempt.outcome = Some(outcome);
        self.propose(ballot, outcome, seat, out);
    }
}
