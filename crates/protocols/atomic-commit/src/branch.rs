//! A participant's branch between protocol and resource: the part that all protocols share.
//!
//! Rules kept here: the prepared record precedes the Yes (1); what is prepared never ends without
//! a decision from outside (3); a commit is acknowledged only when the resource has proven it and
//! the record is durable (5); everything may be said twice (6); a decision is never reversed
//! (AC2).

use crate::canary::Canary;
use crate::effects::{Effects, Event, Ignored, Order, WriteId};
use crate::ids::Address;
use crate::input::Answer;
use crate::interface::Phase;
use crate::message::{Body, Proof};
use crate::record::Record;
use crate::seat::Seat;
use crate::vote::{Decision, Outcome, Reason, Vote};
use alloc::vec::Vec;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum State {
    Unknown,
    /// The resource prepares; or, `alone`, prepares and commits.
    Preparing {
        alone: bool,
    },
    Prepared {
        write: Option<WriteId>,
    },
    /// Voted read-only: released.
    ReadOnly {
        write: Option<WriteId>,
    },
    /// The resource carries the decision out. Who is in `tell` waits for the proof.
    Finishing {
        decision: Decision,
        write: Option<WriteId>,
        tell: Option<Address>,
    },
    Finished {
        decision: Decision,
        write: Option<WriteId>,
        proof: Proof,
    },
    Forgotten,
}

/// What the branch has to say after the resource answered.
pub(crate) enum Said {
    Nothing,
    /// It votes; a Yes or a No may leave after the write.
    Vote(Vote, Option<WriteId>),
    /// It is the only participant, and has decided.
    Alone,
}

/// What a protocol waits for the disk for, apart from the prepared record and a commit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Durability {
    /// A refusal is durable before it is told.
    pub refusal: bool,
    /// So is a read-only vote, which would otherwise be forgotten at a restart and could become
    /// another vote.
    pub read_only: bool,
    /// So is an abort, and it is acknowledged like a commit.
    pub abort: bool,
}

impl Durability {
    /// Neither: whoever forgets is told again.
    pub const PRESUMED_ABORT: Durability =
        Durability { refusal: false, read_only: false, abort: false };

    /// Whether who told this decision waits for a proof.
    fn proves(self, decision: &Decision) -> bool {
        self.abort || decision.outcome() == Outcome::Commit
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Branch {
    state: State,
    durability: Durability,
}

impl Branch {
    pub fn restore(records: &[Record], seat: &Seat, durability: Durability) -> Self {
        let mut state = State::Unknown;
        for record in records {
            match record {
                Record::Prepared => state = State::Prepared { write: None },
                Record::ReadOnly => state = State::ReadOnly { write: None },
                Record::Decided { decision, .. } => {
                    // Not known to be applied: the resource is asked again.
                    let decision = decision.clone();
                    state = State::Finishing { decision, write: None, tell: None };
                }
                _ => {}
            }
        }
        if seat.has_canary(Canary::ForgetPrepared) && matches!(state, State::Prepared { .. }) {
            let decision = Decision::abort(Reason::NotHeard);
            state = State::Finishing { decision, write: None, tell: None };
        }
        Branch { state, durability }
    }

    /// Asked to prepare. Returns what it said already, to be said again.
    pub fn prepare(&mut self, alone: bool, seat: &mut Seat, out: &mut Effects) -> Said {
        match &self.state {
            State::Prepared { .. } if alone => {
                // The application had it prepared, and the coordinator leaves the decision to it.
                self.decide(Decision::Commit, Address::Coordinator, seat, out);
                Said::Nothing
            }
            State::Unknown => {
                self.state = State::Preparing { alone };
                out.orders.push(if alone { Order::CommitAlone } else { Order::Prepare });
                Said::Nothing
            }
            State::Prepared { write } => Said::Vote(Vote::Yes, *write),
            State::ReadOnly { write } => Said::Vote(Vote::ReadOnly, *write),
            State::Finished { .. } if alone => Said::Alone,
            State::Finished { decision: Decision::Abort { reason, .. }, write, .. } => {
                Said::Vote(Vote::No(reason.clone()), *write)
            }
            _ => Said::Nothing,
        }
    }

    /// The resource answered.
    pub fn answered(&mut self, answer: Answer, seat: &mut Seat, out: &mut Effects) -> Said {
        match (&mut self.state, answer) {
            (State::Preparing { .. }, Answer::Prepared(Vote::Yes)) => {
                let write = seat.write(Record::Prepared, true, out);
                self.state = State::Prepared { write: Some(write) };
                Said::Vote(Vote::Yes, Some(write))
            }
            (State::Preparing { .. }, Answer::Prepared(Vote::ReadOnly)) => {
                let keeps = self.durability.read_only;
                let write = keeps.then(|| seat.write(Record::ReadOnly, true, out));
                self.state = State::ReadOnly { write };
                Said::Vote(Vote::ReadOnly, write)
            }
            (State::Preparing { alone }, Answer::Prepared(Vote::No(reason))) => {
                let alone = *alone;
                let write = self.refuse(reason.clone(), seat, out);
                if alone { Said::Alone } else { Said::Vote(Vote::No(reason), Some(write)) }
            }
            (State::Preparing { alone: true }, Answer::Committed) => {
                self.applied(Decision::Commit, Proof::Applied, seat, out);
                Said::Alone
            }
            (State::Finishing { decision, .. }, Answer::Committed)
                if decision.outcome() == Outcome::Commit =>
            {
                self.prove(Proof::Applied, seat, out);
                Said::Nothing
            }
            (State::Finishing { decision, .. }, Answer::RolledBack)
                if decision.outcome() == Outcome::Abort =>
            {
                self.prove(Proof::Applied, seat, out);
                Said::Nothing
            }
            (State::Finishing { decision, .. }, Answer::Heuristic(found)) => {
                let proof =
                    if found == decision.outcome() { Proof::Applied } else { Proof::Heuristic };
                self.prove(proof, seat, out);
                Said::Nothing
            }
            _ => Said::Nothing,
        }
    }

    /// Ends the branch without being told to, which only one that has not said Yes may (rule 3).
    fn refuse(&mut self, reason: Reason, seat: &mut Seat, out: &mut Effects) -> WriteId {
        let gives_up = seat.has_canary(Canary::PreparedGivesUp);
        let may = matches!(self.state, State::Unknown | State::Preparing { .. });
        assert!(may || gives_up, "a prepared participant never decides alone");
        let branch = match seat.address {
            Address::Participant(branch) => Some(branch),
            _ => None,
        };
        let decision = Decision::Abort { branch, reason };
        out.orders.push(Order::Rollback);
        self.record(decision, Proof::Applied, self.durability.refusal, seat, out)
    }

    fn applied(&mut self, decision: Decision, proof: Proof, seat: &mut Seat, out: &mut Effects) {
        self.record(decision, proof, true, seat, out);
    }

    fn record(
        &mut self,
        decision: Decision,
        proof: Proof,
        forced: bool,
        seat: &mut Seat,
        out: &mut Effects,
    ) -> WriteId {
        let record = Record::Decided { decision: decision.clone(), unproven: Vec::new() };
        let write = seat.write(record, forced, out);
        out.events.push(Event::Decided(decision.clone()));
        self.state = State::Finished { decision, write: Some(write), proof };
        write
    }

    /// Rolls back what it has not promised; the canary, what it has.
    pub fn give_up(&mut self, reason: Reason, seat: &mut Seat, out: &mut Effects) {
        self.refuse(reason, seat, out);
    }

    /// Told how the transaction ends, by `from`.
    pub fn decide(
        &mut self,
        decision: Decision,
        from: Address,
        seat: &mut Seat,
        out: &mut Effects,
    ) {
        let durability = self.durability;
        match &mut self.state {
            State::Unknown | State::Preparing { .. } | State::Prepared { .. } => {
                let commits = decision.outcome() == Outcome::Commit;
                if commits && matches!(self.state, State::Preparing { .. }) {
                    // It has not voted, so nobody can have decided to commit.
                    return seat.ignore(Ignored::Impossible, out);
                }
                if commits && self.state == State::Unknown {
                    // Whoever commits had our Yes, which was durable: it was applied, proven and
                    // forgotten. The resource proves it again, or raises the alarm.
                    out.orders.push(Order::Commit);
                    self.state = State::Finishing { decision, write: None, tell: Some(from) };
                    return;
                }
                let record = Record::Decided { decision: decision.clone(), unproven: Vec::new() };
                let write = seat.write(record, durability.proves(&decision), out);
                out.orders.push(if commits { Order::Commit } else { Order::Rollback });
                out.events.push(Event::Decided(decision.clone()));
                let (write, tell) = (Some(write), Some(from));
                self.state = State::Finishing { decision, write, tell };
                if commits && seat.has_canary(Canary::AcknowledgeEarly) {
                    seat.send(from, Body::Acknowledge(Proof::Applied), None, out);
                }
            }
            State::Finishing { decision: known, tell, .. } => {
                if known.outcome() == decision.outcome() {
                    *tell = Some(from);
                } else {
                    seat.ignore(Ignored::Impossible, out);
                }
            }
            State::Finished { decision: known, write, proof } => {
                if known.outcome() != decision.outcome() {
                    seat.ignore(Ignored::Impossible, out);
                } else if durability.proves(known) {
                    seat.send(from, Body::Acknowledge(*proof), *write, out);
                }
            }
            State::ReadOnly { write } => {
                // Forgotten, its vote could still become another.
                if durability.proves(&decision) {
                    seat.send(from, Body::Acknowledge(Proof::Applied), *write, out);
                }
            }
            State::Forgotten => {}
        }
    }

    /// The resource has carried the decision out.
    fn prove(&mut self, proof: Proof, seat: &mut Seat, out: &mut Effects) {
        let State::Finishing { decision, write, tell } = &self.state else { return };
        let (decision, write, tell) = (decision.clone(), *write, *tell);
        if let Some(to) = tell.filter(|_| self.durability.proves(&decision)) {
            seat.send(to, Body::Acknowledge(proof), write, out);
        }
        if let (Proof::Heuristic, Address::Participant(branch)) = (proof, seat.address) {
            out.events.push(Event::Heuristic(branch));
        }
        self.state = State::Finished { decision, write, proof };
    }

    /// A later attempt has begun, so this one is aborted, whatever was promised in it.
    pub fn superseded(&mut self, seat: &mut Seat, out: &mut Effects) {
        let known = self.decision().map(|(decision, _)| decision.outcome());
        match (&self.state, known) {
            (State::ReadOnly { .. } | State::Forgotten, _) | (_, Some(Outcome::Abort)) => {}
            (_, Some(Outcome::Commit)) => seat.ignore(Ignored::Impossible, out),
            (_, None) => {
                let decision = Decision::abort(Reason::Superseded);
                self.decide(decision, seat.address, seat, out);
            }
        }
    }

    /// Asks the resource again for what it has not answered.
    pub fn remind(&self, out: &mut Effects) {
        if let State::Finishing { decision, .. } = &self.state {
            out.orders.push(match decision.outcome() {
                Outcome::Commit => Order::Commit,
                Outcome::Abort => Order::Rollback,
            });
        }
    }

    /// The host asks to forget.
    pub fn forget(&mut self, out: &mut Effects) -> bool {
        let done = match &self.state {
            State::Finished { proof, .. } => *proof == Proof::Applied,
            State::ReadOnly { .. } | State::Unknown => true,
            _ => false,
        };
        if done {
            out.orders.push(Order::Forget);
            self.state = State::Forgotten;
        }
        done
    }

    /// The decision, if it is known, and the write that remembers it.
    pub fn decision(&self) -> Option<(&Decision, Option<WriteId>)> {
        match &self.state {
            State::Finishing { decision, write, .. } | State::Finished { decision, write, .. } => {
                Some((decision, *write))
            }
            _ => None,
        }
    }

    /// The decision, if others may rely on it: a refusal of this branch's own may be forgotten at
    /// a restart, unless it was forced.
    pub fn decision_for_peers(&self, seat: &Seat) -> Option<(&Decision, Option<WriteId>)> {
        let mine = |decision: &Decision| match (decision, seat.address) {
            (Decision::Abort { branch: Some(cause), .. }, Address::Participant(branch)) => {
                *cause == branch
            }
            _ => false,
        };
        self.decision().filter(|(decision, _)| self.durability.refusal || !mine(decision))
    }

    pub fn is_prepared(&self) -> bool {
        matches!(self.state, State::Prepared { .. })
    }

    /// Whether the resource owes an answer to a decision.
    pub fn is_finishing(&self) -> bool {
        matches!(self.state, State::Finishing { .. })
    }

    pub fn phase(&self) -> Phase {
        match self.state {
            State::Unknown => Phase::Unknown,
            State::Preparing { .. } => Phase::Preparing,
            State::Prepared { .. } => Phase::Prepared,
            State::ReadOnly { .. } => Phase::Released,
            State::Finishing { .. } => Phase::Deciding,
            State::Finished { .. } => Phase::Finished,
            State::Forgotten => Phase::Forgotten,
        }
    }
}
