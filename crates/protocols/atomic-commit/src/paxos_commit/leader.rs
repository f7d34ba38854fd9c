//! The leader: learns what the acceptors chose, and takes over when that does not come to an end.
//! The coordinator has one, and so has every acceptor.

use crate::canary::Canary;
use crate::effects::{Effects, Event, Ignored, WriteId};
use crate::ids::{Address, BranchId, Terms};
use crate::message::{Body, Proof};
use crate::seat::Seat;
use crate::vote::{Decision, Outcome, Reason, Vote, tally};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use quorate_base::{Ballot, Instant};
use quorate_paxos::synod::{Learner, Promise, Proposer};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leader {
    /// The ballot it leads; zero while it only listens to the participants' own.
    ballot: Ballot,
    /// One for each branch, while it leads.
    proposers: Vec<Proposer<Vote>>,
    learners: Vec<Learner<Vote>>,
    /// Highest round heard of.
    seen: u64,
    decision: Option<Decision>,
    unproven: BTreeSet<BranchId>,
    /// Branches that were finished by hand against the decision.
    heuristic: BTreeSet<BranchId>,
}

impl Leader {
    pub fn new(seat: &Seat) -> Self {
        let quorum = match seat.has_canary(Canary::CountOneAcceptor) {
            true => 1,
            false => seat.terms.acceptor_quorum(),
        };
        Leader {
            ballot: Ballot::ZERO,
            proposers: Vec::new(),
            learners: seat.terms.branches().map(|_| Learner::new(quorum)).collect(),
            seen: 0,
            decision: None,
            unproven: BTreeSet::new(),
            heuristic: BTreeSet::new(),
        }
    }

    pub fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    /// Who has not proven that it applied the decision.
    pub fn unproven(&self) -> &BTreeSet<BranchId> {
        &self.unproven
    }

    pub fn leads(&self) -> bool {
        self.ballot != Ballot::ZERO && self.decision.is_none()
    }

    /// Branches of whose votes it does not know what was chosen.
    pub fn missing(&self, terms: Terms) -> Vec<BranchId> {
        let of = terms.branches().zip(&self.learners);
        of.filter(|(_, learner)| learner.chosen().is_none()).map(|(branch, _)| branch).collect()
    }

    pub fn heard_of(&mut self, round: u64) {
        self.seen = self.seen.max(round);
    }

    /// The round it would lead next.
    pub fn next_round(&self) -> u64 {
        self.seen + 1
    }

    /// Begins to lead a ballot of its own, which it must be sure never to lead again.
    pub fn take_over(&mut self, seat: &Seat) -> Ballot {
        let ballot = Ballot::new(self.next_round(), seat.terms.node(seat.address));
        self.seen = ballot.round;
        self.ballot = ballot;
        let free = Vote::No(Reason::NotHeard);
        let quorum = seat.terms.acceptor_quorum();
        let propose = |_| Proposer::propose(ballot, free.clone(), quorum);
        self.proposers = seat.terms.branches().map(propose).collect();
        ballot
    }

    /// Phase 1a for every branch, to all other acceptors. `after`: the round is durable.
    pub fn ask(&self, seat: &Seat, after: Option<WriteId>, out: &mut Effects) {
        for acceptor in seat.terms.acceptors().filter(|site| *site != seat.address) {
            seat.send(acceptor, Body::AskVotes { ballot: self.ballot }, after, out);
        }
    }

    /// Phase 1b. Returns what is to be accepted, for every branch, once a quorum has promised.
    pub fn promised(
        &mut self,
        from: Address,
        ballot: Ballot,
        accepted: Vec<Option<(Ballot, Vote)>>,
        seat: &Seat,
    ) -> Option<Vec<(BranchId, Vote)>> {
        if ballot != self.ballot || accepted.len() != self.proposers.len() {
            return None;
        }
        let node = seat.terms.node(from);
        let mut complete = false;
        for (proposer, accepted) in self.proposers.iter_mut().zip(accepted) {
            let accepted = accepted.filter(|_| !seat.has_canary(Canary::IgnoreAccepted));
            complete |= proposer.promised(node, Promise { accepted }).is_some();
        }
        let votes = seat.terms.branches().zip(&self.proposers);
        complete.then(|| votes.map(|(branch, p)| (branch, p.value().clone())).collect())
    }

    /// Phase 2b. Decides once it can.
    pub fn accepted(
        &mut self,
        from: Address,
        ballot: Ballot,
        votes: &[(BranchId, Vote)],
        seat: &Seat,
        out: &mut Effects,
    ) -> bool {
        let node = seat.terms.node(from);
        for (branch, vote) in votes {
            if let Some(learner) = self.learners.get_mut(usize::from(branch.0).wrapping_sub(1)) {
                learner.learn(node, ballot, vote);
            }
        }
        let chosen = seat.terms.branches().zip(&self.learners);
        let chosen = chosen.filter_map(|(branch, learner)| Some((branch, learner.chosen()?)));
        let decision = tally(chosen);
        // One No suffices to abort; to commit takes all (AC3).
        let early = seat.has_canary(Canary::CommitWithoutLast)
            && self.missing(seat.terms) == [BranchId(seat.terms.branches)];
        let known = self.missing(seat.terms).is_empty() || early;
        if decision.outcome() == Outcome::Commit && !known {
            return false;
        }
        self.decide(decision, out)
    }

    /// The decision is known. Returns whether that is new.
    pub fn decide(&mut self, decision: Decision, out: &mut Effects) -> bool {
        if let Some(known) = &self.decision {
            if known.outcome() != decision.outcome() {
                out.events.push(Event::Ignored(Ignored::Impossible));
            }
            return false;
        }
        let read_only = |learner: &Learner<Vote>| learner.chosen() == Some(&Vote::ReadOnly);
        let refused = |branch: BranchId| match &decision {
            Decision::Abort { branch: cause, reason } => {
                *cause == Some(branch) && *reason != Reason::NotHeard
            }
            Decision::Commit => false,
        };
        let branches = (1..).map(BranchId).zip(&self.learners);
        let waits = branches.filter(|(branch, l)| !read_only(l) && !refused(*branch));
        self.unproven = waits.map(|(branch, _)| branch).collect();
        out.events.push(Event::Decided(decision.clone()));
        if self.unproven.is_empty() {
            out.events.push(Event::Completed);
        }
        self.decision = Some(decision);
        true
    }

    /// Tells the decision to whoever has not proven that it applied it.
    pub fn tell(&self, seat: &Seat, out: &mut Effects) {
        let Some(decision) = &self.decision else { return };
        for branch in self.unproven.difference(&self.heuristic) {
            let body = Body::Decide(decision.clone());
            seat.send(Address::Participant(*branch), body, None, out);
        }
    }

    /// Whether there is somebody to be told again.
    pub fn must_tell(&self) -> bool {
        self.unproven.len() > self.heuristic.len()
    }

    pub fn acknowledged(&mut self, branch: BranchId, proof: Proof, out: &mut Effects) {
        if proof == Proof::Heuristic {
            if self.heuristic.insert(branch) {
                out.events.push(Event::Heuristic(branch));
            }
        } else if self.unproven.remove(&branch) && self.unproven.is_empty() {
            out.events.push(Event::Completed);
        }
    }

    /// When it is worth another attempt, if nothing happens until then.
    pub fn patience(&self, now: Instant, seat: &Seat) -> Instant {
        let rank = u32::try_from(seat.terms.node(seat.address).0).unwrap_or(u32::MAX);
        now + seat.config.patience.saturating_mul(rank)
    }
}
