//! What sites say to each other. One enum for all protocols: a site ignores what is not its own.

use crate::ids::{Address, BranchId, Key, Terms};
use crate::vote::{Decision, Outcome, Vote};
use alloc::vec::Vec;
use quorate_base::Ballot;

/// One message of one attempt of one transaction. With `from` and `to` it names the branch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Message {
    /// The attempt.
    pub key: Key,
    /// Who takes part in it.
    pub terms: Terms,
    /// The sender.
    pub from: Address,
    /// The receiver.
    pub to: Address,
    /// The rest.
    pub body: Body,
}

/// What a message says. The host adds the branch's work to `Prepare` and `PrepareAlone`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Body {
    /// Prepare, and vote. Three-phase commit calls it can-commit.
    Prepare,
    /// You are the only participant: commit or roll back at once, and say which.
    PrepareAlone,
    /// The answer to prepare.
    Vote(Vote),
    /// How the transaction ends.
    Decide(Decision),
    /// The decision is applied, durably: the proof after which the receiver may forget.
    Acknowledge(Proof),
    /// How did it end?
    Inquire,
    /// Three-phase: accept this outcome under this ballot: pre-commit, or pre-abort.
    PreDecide {
        /// The leader's ballot: the *attempt* of Keidar and Dolev.
        ballot: Ballot,
        /// What is to be accepted.
        outcome: Outcome,
    },
    /// Three-phase: it is accepted.
    PreDecided {
        /// The ballot.
        ballot: Ballot,
    },
    /// Three-phase: elect me under this ballot, and tell your state.
    Elect {
        /// The ballot.
        ballot: Ballot,
    },
    /// Three-phase: you are elected as far as I am concerned.
    Elected {
        /// The ballot.
        ballot: Ballot,
        /// What the sender accepted last: the *last attempt*.
        accepted: Option<(Ballot, Outcome)>,
    },
    /// Paxos Commit, phase 1a for every branch.
    AskVotes {
        /// The ballot.
        ballot: Ballot,
    },
    /// Paxos Commit, phase 1b for every branch.
    Votes {
        /// The ballot.
        ballot: Ballot,
        /// What the sender accepted last, for each branch in order.
        accepted: Vec<Option<(Ballot, Vote)>>,
    },
    /// Paxos Commit, phase 2a for these branches; under the ballot zero from the participant
    /// itself, about its own vote.
    AcceptVotes {
        /// The ballot.
        ballot: Ballot,
        /// The votes.
        votes: Vec<(BranchId, Vote)>,
    },
    /// Paxos Commit, phase 2b for these branches.
    AcceptedVotes {
        /// The ballot.
        ballot: Ballot,
        /// The votes.
        votes: Vec<(BranchId, Vote)>,
    },
    /// A higher ballot is promised: the asked one leads nobody any more.
    Outrun {
        /// The promised ballot.
        promised: Ballot,
    },
}

/// What a participant found when it applied a decision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Proof {
    /// The decision is applied.
    Applied,
    /// Somebody had finished the branch by hand, otherwise: for people to mend, never forgotten.
    Heuristic,
}
