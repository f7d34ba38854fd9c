//! The coordinator: it collects the votes and makes the first attempt to commit; after that it is
//! a site like the others, and collects the proofs.

use super::{Termination, Terminator, others, tell};
use crate::canary::Canary;
use crate::effects::{Effects, Event, Ignored, Refusal, WriteId};
use crate::ids::{Address, BranchId, Key, Terms};
use crate::input::Input;
use crate::interface::{AtomicCommit, Config, Phase, Status};
use crate::message::{Body, Message, Proof};
use crate::record::Record;
use crate::seat::{Admission, Seat};
use crate::vote::{Decision, Outcome, Reason, Vote, tally};
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use quorate_base::Instant;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum State {
    /// It has not begun, or does not remember; it may have accepted something.
    Unknown,
    Collecting {
        deadline: Instant,
    },
    /// It has asked to pre-commit. From here on it cannot abort alone.
    Attempting,
    Decided {
        decision: Decision,
        write: Option<WriteId>,
        unproven: BTreeSet<BranchId>,
    },
    Forgotten,
}

/// The coordinator of one attempt of one transaction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Coordinator {
    seat: Seat,
    state: State,
    votes: Vec<Option<Vote>>,
    terminator: Terminator,
    heuristic: BTreeSet<BranchId>,
}

impl Coordinator {
    /// A coordinator that remembers `records`.
    pub fn restore(
        config: Config,
        termination: Termination,
        key: Key,
        terms: Terms,
        records: &[Record],
    ) -> Self {
        let mut seat = Seat::new(config, key, terms, Address::Coordinator);
        let terminator = Terminator::restore(termination, &seat, records);
        let mut state = State::Unknown;
        for record in records {
            match (record, &mut state) {
                (Record::Decided { decision, unproven }, _) => {
                    let unproven = unproven.iter().copied().collect();
                    state = State::Decided { decision: decision.clone(), write: None, unproven };
                }
                (Record::Completed, State::Decided { unproven, .. }) => unproven.clear(),
                _ => {}
            }
        }
        // What it accepted binds it; it will see to it that there is a decision.
        if !records.is_empty() {
            seat.timer = Some(Instant::ZERO);
        }
        let votes = vec![None; usize::from(terms.branches)];
        Coordinator { seat, state, votes, terminator, heuristic: BTreeSet::new() }
    }

    fn begin(&mut self, now: Instant, deadline: Instant, out: &mut Effects) {
        if self.state != State::Unknown {
            return self.seat.refuse(Refusal::NotNew, out);
        }
        self.state = State::Collecting { deadline };
        self.ask(now, deadline, out);
    }

    /// Can you commit?
    fn ask(&mut self, now: Instant, deadline: Instant, out: &mut Effects) {
        for branch in self.missing() {
            self.seat.send(Address::Participant(branch), Body::Prepare, None, out);
        }
        self.seat.timer = Some((now + self.seat.config.retry).min(deadline));
    }

    fn missing(&self) -> Vec<BranchId> {
        let votes = self.seat.terms.branches().zip(&self.votes);
        votes.filter(|(_, vote)| vote.is_none()).map(|(branch, _)| branch).collect()
    }

    fn vote(&mut self, now: Instant, branch: BranchId, vote: Vote, out: &mut Effects) {
        // Whoever votes late was told, or will elect somebody.
        if !matches!(self.state, State::Collecting { .. }) {
            return;
        }
        let slot = &mut self.votes[usize::from(branch.0) - 1];
        if slot.as_ref().is_some_and(Vote::allows_commit) && !vote.allows_commit() {
            return self.seat.ignore(Ignored::Impossible, out);
        }
        *slot = Some(vote);
        let last_is_missing = self.missing() == [BranchId(self.seat.terms.branches)];
        let enough = self.seat.has_canary(Canary::CommitWithoutLast) && last_is_missing;
        let votes = self.seat.terms.branches().zip(&self.votes);
        match tally(votes.filter_map(|(branch, vote)| Some((branch, vote.as_ref()?)))) {
            Decision::Commit if enough || self.missing().is_empty() => self.attempt(now, out),
            Decision::Commit => {}
            // Nobody has been asked to pre-commit, and nobody ever will be.
            decision => self.conclude(now, decision, out),
        }
    }

    /// Everybody can commit.
    fn attempt(&mut self, now: Instant, out: &mut Effects) {
        let allowed = |vote: &Option<Vote>| vote.as_ref().is_some_and(Vote::allows_commit);
        let bug = self.seat.has_canary(Canary::CommitWithoutLast)
            || self.seat.has_canary(Canary::SilenceIsYes);
        assert!(bug || self.votes.iter().all(allowed), "AC3: commit only if all voted for it");
        self.state = State::Attempting;
        self.terminator.pre_commit(now, &mut self.seat, out);
    }

    fn conclude(&mut self, now: Instant, decision: Decision, out: &mut Effects) {
        if let State::Decided { decision: known, .. } = &self.state {
            if known.outcome() != decision.outcome() {
                self.seat.ignore(Ignored::Impossible, out);
            }
            return;
        }
        if self.state == State::Forgotten {
            return;
        }
        let votes = self.seat.terms.branches().zip(&self.votes);
        let commits = decision.outcome() == Outcome::Commit;
        let waits = |vote: &Option<Vote>| match vote {
            None | Some(Vote::Yes) => true,
            Some(Vote::ReadOnly | Vote::No(_)) => false,
        };
        let unproven = votes.filter(|(_, vote)| waits(vote)).map(|(branch, _)| branch);
        let unproven: BTreeSet<BranchId> = unproven.collect();
        let kept = unproven.iter().copied().collect();
        let record = Record::Decided { decision: decision.clone(), unproven: kept };
        // An abort needs no record: every majority comes to the same.
        let write = commits.then(|| self.seat.write(record, true, out));
        out.events.push(Event::Decided(decision.clone()));
        if unproven.is_empty() {
            out.events.push(Event::Completed);
        }
        self.state = State::Decided { decision, write, unproven };
        self.tell_unproven(now, out);
    }

    /// Tells the decision to whoever has not proven it, a commit once it is on record (rule 2).
    fn tell_unproven(&mut self, now: Instant, out: &mut Effects) {
        let State::Decided { decision, write, unproven } = &self.state else { return };
        let after = write.filter(|_| !self.seat.has_canary(Canary::CommitBeforeWritten));
        for branch in unproven.difference(&self.heuristic) {
            tell(decision, after, Address::Participant(*branch), &self.seat, out);
        }
        let more = unproven.len() > self.heuristic.len();
        self.seat.timer = more.then(|| now + self.seat.config.retry);
    }

    fn acknowledged(&mut self, branch: BranchId, proof: Proof, out: &mut Effects) {
        let State::Decided { unproven, .. } = &mut self.state else { return };
        if proof == Proof::Heuristic {
            if self.heuristic.insert(branch) {
                out.events.push(Event::Heuristic(branch));
            }
        } else if unproven.remove(&branch) && unproven.is_empty() {
            self.seat.timer = None;
            self.seat.write(Record::Completed, false, out);
            out.events.push(Event::Completed);
        }
    }

    fn message(&mut self, now: Instant, message: Message, out: &mut Effects) {
        if self.seat.admits(&message, out) != Admission::Granted || self.state == State::Forgotten {
            return;
        }
        let from = message.from;
        match (from, message.body) {
            (Address::Participant(branch), Body::Vote(vote)) => self.vote(now, branch, vote, out),
            (Address::Participant(branch), Body::Acknowledge(proof)) => {
                self.acknowledged(branch, proof, out);
            }
            (_, Body::Decide(decision)) => self.conclude(now, decision, out),
            (_, body) => {
                if let State::Decided { decision, write, .. } = &self.state {
                    if matches!(body, Body::Elect { .. } | Body::PreDecide { .. }) {
                        tell(decision, *write, from, &self.seat, out);
                    }
                    return;
                }
                let reached = self.terminator.message(now, from, body, &mut self.seat, out);
                self.reached(now, reached, out);
            }
        }
    }

    fn reached(&mut self, now: Instant, outcome: Option<Outcome>, out: &mut Effects) {
        match outcome {
            None => {}
            Some(Outcome::Commit) => self.conclude(now, Decision::Commit, out),
            Some(Outcome::Abort) => self.conclude(now, Decision::abort(Reason::NotHeard), out),
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Effects) {
        if !self.seat.is_due(now) {
            return;
        }
        match self.state {
            State::Collecting { deadline } if now < deadline => self.ask(now, deadline, out),
            State::Collecting { .. } if self.seat.has_canary(Canary::SilenceIsYes) => {
                self.attempt(now, out);
            }
            State::Collecting { .. } => {
                let branch = self.missing().first().copied();
                self.conclude(now, Decision::Abort { branch, reason: Reason::TimedOut }, out);
            }
            State::Attempting | State::Unknown => {
                let reached = self.terminator.tick(now, &mut self.seat, out);
                self.reached(now, reached, out);
            }
            State::Decided { .. } => self.tell_unproven(now, out),
            State::Forgotten => self.seat.timer = None,
        }
    }

    fn cancel(&mut self, now: Instant, out: &mut Effects) {
        match self.state {
            State::Collecting { .. } => {
                self.conclude(now, Decision::abort(Reason::Cancelled), out);
            }
            _ => self.seat.refuse(Refusal::TooLate, out),
        }
    }

    fn forget(&mut self, out: &mut Effects) {
        match &self.state {
            State::Decided { unproven, .. } if unproven.is_empty() => {
                self.state = State::Forgotten;
            }
            _ => self.seat.refuse(Refusal::StillNeeded, out),
        }
    }
}

impl AtomicCommit for Coordinator {
    fn step(&mut self, now: Instant, input: Input, out: &mut Effects) {
        match input {
            Input::Tick => self.tick(now, out),
            Input::Begin { deadline } => self.begin(now, deadline, out),
            Input::Cancel => self.cancel(now, out),
            Input::Message(message) => self.message(now, message, out),
            Input::Written { id } => self.seat.written(id),
            Input::Forget => self.forget(out),
            Input::Prepare | Input::Resource(_) => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.seat.timer
    }

    fn status(&self) -> Status {
        let every = |branches: Vec<BranchId>| -> Vec<Address> {
            branches.into_iter().map(Address::Participant).collect()
        };
        let status = |phase, decision, waits_for| Status { phase, decision, waits_for };
        match &self.state {
            State::Unknown => {
                let phase = self.terminator.phase().unwrap_or(Phase::Unknown);
                status(phase, None, Vec::new())
            }
            State::Collecting { .. } => status(Phase::Collecting, None, every(self.missing())),
            State::Attempting => {
                let phase = self.terminator.phase().unwrap_or(Phase::PreCommitted);
                status(phase, None, others(&self.seat).collect())
            }
            State::Decided { decision, unproven, .. } => {
                let done = unproven.is_empty();
                let phase = if done { Phase::Finished } else { Phase::Deciding };
                let waits_for = every(unproven.iter().copied().collect());
                status(phase, Some(decision.clone()), waits_for)
            }
            State::Forgotten => status(Phase::Forgotten, None, Vec::new()),
        }
    }

    fn key(&self) -> Key {
        self.seat.key
    }

    fn terms(&self) -> Terms {
        self.seat.terms
    }
}
