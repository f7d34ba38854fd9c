//! The coordinator.

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
    /// No record, and not begun.
    Unknown,
    Collecting {
        deadline: Instant,
    },
    /// The only participant decides.
    Delegated,
    /// Decided; `write` remembers it. Who is in `unproven` has not proven a commit.
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
    /// Branches that were finished by hand against the decision: kept for people to see, and told
    /// no more.
    heuristic: BTreeSet<BranchId>,
}

impl Coordinator {
    /// A coordinator that remembers `records`: none, for a transaction that is to begin or that it
    /// was asked about.
    pub fn restore(config: Config, key: Key, terms: Terms, records: &[Record]) -> Self {
        let mut seat = Seat::new(config, key, terms, Address::Coordinator);
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
        if matches!(&state, State::Decided { unproven, .. } if !unproven.is_empty()) {
            seat.timer = Some(Instant::ZERO);
        }
        let votes = vec![None; usize::from(terms.branches)];
        Coordinator { seat, state, votes, heuristic: BTreeSet::new() }
    }

    fn begin(&mut self, now: Instant, deadline: Instant, out: &mut Effects) {
        if self.state != State::Unknown {
            return self.seat.refuse(Refusal::NotNew, out);
        }
        self.state = match self.seat.terms.branches {
            1 => State::Delegated,
            _ => State::Collecting { deadline },
        };
        self.ask(now, out);
    }

    /// Asks whoever has not voted, and sets the time to ask again.
    fn ask(&mut self, now: Instant, out: &mut Effects) {
        let body = match self.state {
            State::Delegated => Body::PrepareAlone,
            _ => Body::Prepare,
        };
        for branch in self.missing() {
            self.seat.send(Address::Participant(branch), body.clone(), None, out);
        }
        let mut due = now + self.seat.config.retry;
        if let State::Collecting { deadline } = self.state {
            due = due.min(deadline);
        }
        self.seat.timer = Some(due);
    }

    fn missing(&self) -> Vec<BranchId> {
        let votes = self.seat.terms.branches().zip(&self.votes);
        votes.filter(|(_, vote)| vote.is_none()).map(|(branch, _)| branch).collect()
    }

    fn vote(&mut self, now: Instant, branch: BranchId, vote: Vote, out: &mut Effects) {
        if self.state == State::Delegated {
            // The application had it prepared, and it has nothing to decide any more.
            return match vote {
                Vote::Yes => {}
                Vote::ReadOnly => self.told(Decision::Commit, out),
                Vote::No(reason) => {
                    self.told(Decision::Abort { branch: Some(branch), reason }, out);
                }
            };
        }
        if !matches!(self.state, State::Collecting { .. }) {
            // Whoever votes late was told, or will ask; but a Yes in an unknown transaction is a
            // question.
            let asks = self.state == State::Unknown && vote == Vote::Yes;
            return if asks {
                self.inquire(branch, out)
            };
        }
        let slot = &mut self.votes[usize::from(branch.0) - 1];
        if slot.as_ref().is_some_and(Vote::allows_commit) && !vote.allows_commit() {
            // It said Yes, and nobody may take that back.
            return self.seat.ignore(Ignored::Impossible, out);
        }
        *slot = Some(vote);
        let last_is_missing = self.missing() == [BranchId(self.seat.terms.branches)];
        let enough = self.seat.has_canary(Canary::CommitWithoutLast) && last_is_missing;
        let refused = self.votes.iter().flatten().any(|vote| !vote.allows_commit());
        if refused || enough || self.missing().is_empty() {
            self.tally(now, out);
        }
    }

    fn tally(&mut self, now: Instant, out: &mut Effects) {
        let votes = self.seat.terms.branches().zip(&self.votes);
        let decision = tally(votes.filter_map(|(branch, vote)| Some((branch, vote.as_ref()?))));
        match decision {
            Decision::Commit => self.commit(now, out),
            decision => self.abort(decision, out),
        }
    }

    fn commit(&mut self, now: Instant, out: &mut Effects) {
        let branches = self.seat.terms.branches();
        let allowed = |vote: &Option<Vote>| vote.as_ref().is_some_and(Vote::allows_commit);
        let bug = self.seat.has_canary(Canary::CommitWithoutLast)
            || self.seat.has_canary(Canary::SilenceIsYes);
        assert!(bug || self.votes.iter().all(allowed), "AC3: commit only if all voted for it");
        let released = |vote: &Option<Vote>| *vote == Some(Vote::ReadOnly);
        let yes = branches.zip(&self.votes).filter(|(_, vote)| !released(vote));
        let unproven: BTreeSet<BranchId> = yes.map(|(branch, _)| branch).collect();
        if unproven.is_empty() {
            // Nobody changed anything: there is nothing to remember and nobody to tell.
            return self.conclude(Decision::Commit, None, unproven, out);
        }
        let decision = Decision::Commit;
        let kept = unproven.iter().copied().collect();
        let write = self.seat.write(Record::Decided { decision, unproven: kept }, true, out);
        self.conclude(Decision::Commit, Some(write), unproven, out);
        self.tell(now, out);
    }

    fn abort(&mut self, decision: Decision, out: &mut Effects) {
        let branches = self.seat.terms.branches();
        let prepared = |vote: &Option<Vote>| matches!(vote, None | Some(Vote::Yes));
        let told = branches.zip(&self.votes).filter(|(_, vote)| prepared(vote));
        for (branch, _) in told {
            let body = Body::Decide(decision.clone());
            self.seat.send(Address::Participant(branch), body, None, out);
        }
        // Presumed: neither written nor acknowledged.
        self.conclude(decision, None, BTreeSet::new(), out);
    }

    fn conclude(
        &mut self,
        decision: Decision,
        write: Option<WriteId>,
        unproven: BTreeSet<BranchId>,
        out: &mut Effects,
    ) {
        self.seat.timer = None;
        let completed = unproven.is_empty();
        let told = self.seat.is_durable(write);
        self.state = State::Decided { decision: decision.clone(), write, unproven };
        if told {
            out.events.push(Event::Decided(decision));
        }
        if completed && told {
            out.events.push(Event::Completed);
        }
    }

    /// Tells the commit to whoever has not proven it (rule 2: once it is on record).
    fn tell(&mut self, now: Instant, out: &mut Effects) {
        let State::Decided { decision, write, unproven } = &self.state else { return };
        let bug = self.seat.has_canary(Canary::CommitBeforeWritten);
        for branch in unproven.difference(&self.heuristic) {
            let body = Body::Decide(decision.clone());
            let after = write.filter(|_| !bug);
            self.seat.send(Address::Participant(*branch), body, after, out);
        }
        let more = unproven.len() > self.heuristic.len();
        self.seat.timer = more.then(|| now + self.seat.config.retry);
    }

    /// A participant in doubt asks, or votes late.
    fn inquire(&mut self, branch: BranchId, out: &mut Effects) {
        match &self.state {
            State::Unknown => {
                // Rule 4: the tombstone first, or a transaction that begins late could commit.
                let decision = Decision::abort(Reason::NoRecord);
                if self.seat.terms.branches == 1 {
                    // The only participant decides, and may have: this asks it to abort if not.
                    let to = Address::Participant(branch);
                    return self.seat.send(to, Body::Decide(decision), None, out);
                }
                if self.seat.has_canary(Canary::NoTombstone) {
                    let to = Address::Participant(branch);
                    return self.seat.send(to, Body::Decide(decision), None, out);
                }
                let record = Record::Decided { decision: decision.clone(), unproven: Vec::new() };
                let write = self.seat.write(record, true, out);
                self.conclude(decision, Some(write), BTreeSet::new(), out);
                self.inquire(branch, out);
            }
            State::Decided { decision, write, .. } => {
                let body = Body::Decide(decision.clone());
                let bug = self.seat.has_canary(Canary::CommitBeforeWritten);
                let after = write.filter(|_| !bug);
                self.seat.send(Address::Participant(branch), body, after, out);
            }
            // It will be told.
            State::Collecting { .. } | State::Delegated | State::Forgotten => {}
        }
    }

    fn acknowledged(&mut self, branch: BranchId, proof: Proof, out: &mut Effects) {
        if self.state == State::Delegated {
            return self.told(Decision::Commit, out);
        }
        let forgets = self.seat.has_canary(Canary::ForgetEarly);
        let State::Decided { unproven, .. } = &mut self.state else { return };
        if proof == Proof::Heuristic {
            if self.heuristic.insert(branch) {
                out.events.push(Event::Heuristic(branch));
            }
            return;
        }
        let removed = unproven.remove(&branch);
        if removed && (unproven.is_empty() || forgets) {
            self.seat.timer = None;
            out.events.push(Event::Completed);
            if forgets {
                self.state = State::Unknown;
            }
            self.seat.write(Record::Completed, false, out);
        }
    }

    /// The only participant has decided.
    fn told(&mut self, decision: Decision, out: &mut Effects) {
        match &self.state {
            State::Delegated => self.conclude(decision, None, BTreeSet::new(), out),
            State::Decided { decision: known, .. } if known.outcome() != decision.outcome() => {
                self.seat.ignore(Ignored::Impossible, out);
            }
            _ => {}
        }
    }

    fn message(&mut self, now: Instant, message: Message, out: &mut Effects) {
        match self.seat.admits(&message, out) {
            Admission::Granted => {}
            Admission::Superseded => return self.seat.ignore(Ignored::NotMine, out),
            Admission::Refused => return,
        }
        let Address::Participant(branch) = message.from else {
            return self.seat.ignore(Ignored::UnknownSite, out);
        };
        match message.body {
            Body::Vote(vote) => self.vote(now, branch, vote, out),
            Body::Inquire => self.inquire(branch, out),
            Body::Acknowledge(proof) => self.acknowledged(branch, proof, out),
            Body::Decide(decision) => self.told(decision, out),
            _ => self.seat.ignore(Ignored::NotMine, out),
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Effects) {
        if !self.seat.is_due(now) {
            return;
        }
        match self.state {
            State::Collecting { deadline } if now >= deadline => {
                if self.seat.has_canary(Canary::SilenceIsYes) {
                    return self.commit(now, out);
                }
                let branch = self.missing().first().copied();
                self.abort(Decision::Abort { branch, reason: Reason::TimedOut }, out);
            }
            State::Delegated if self.seat.has_canary(Canary::DecideForTheOther) => {
                self.abort(Decision::abort(Reason::TimedOut), out);
            }
            State::Collecting { .. } | State::Delegated => self.ask(now, out),
            State::Decided { .. } => self.tell(now, out),
            State::Unknown | State::Forgotten => self.seat.timer = None,
        }
    }

    fn written(&mut self, id: WriteId, out: &mut Effects) {
        let before = self.seat.clone();
        self.seat.written(id);
        let State::Decided { decision, write, unproven } = &self.state else { return };
        if !before.is_durable(*write) && self.seat.is_durable(*write) {
            out.events.push(Event::Decided(decision.clone()));
            if unproven.is_empty() && decision.outcome() == Outcome::Abort {
                out.events.push(Event::Completed);
            }
        }
    }

    fn cancel(&mut self, out: &mut Effects) {
        match self.state {
            State::Collecting { .. } => self.abort(Decision::abort(Reason::Cancelled), out),
            _ => self.seat.refuse(Refusal::TooLate, out),
        }
    }

    fn forget(&mut self, out: &mut Effects) {
        let State::Decided { unproven, .. } = &self.state else {
            return self.seat.refuse(Refusal::StillNeeded, out);
        };
        if unproven.is_empty() {
            self.state = State::Forgotten;
        } else {
            self.seat.refuse(Refusal::StillNeeded, out);
        }
    }
}

impl AtomicCommit for Coordinator {
    fn step(&mut self, now: Instant, input: Input, out: &mut Effects) {
        match input {
            Input::Tick => self.tick(now, out),
            Input::Begin { deadline } => self.begin(now, deadline, out),
            Input::Cancel => self.cancel(out),
            Input::Message(message) => self.message(now, message, out),
            Input::Written { id } => self.written(id, out),
            Input::Forget => self.forget(out),
            // A participant's.
            Input::Prepare | Input::Resource(_) => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.seat.timer
    }

    fn status(&self) -> Status {
        let every = |branches: Vec<BranchId>| {
            branches.into_iter().map(Address::Participant).collect::<Vec<_>>()
        };
        let status = |phase, decision, waits_for| Status { phase, decision, waits_for };
        match &self.state {
            State::Unknown => status(Phase::Unknown, None, Vec::new()),
            State::Collecting { .. } | State::Delegated => {
                status(Phase::Collecting, None, every(self.missing()))
            }
            State::Decided { decision, write, unproven } => {
                let known = self.seat.is_durable(*write).then(|| decision.clone());
                let done = known.is_some() && unproven.is_empty();
                let phase = if done { Phase::Finished } else { Phase::Deciding };
                status(phase, known, every(unproven.iter().copied().collect()))
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
