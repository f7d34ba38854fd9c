//! The judge: AC1, AC2 and AC3, over what sites durably did or told.

use crate::{Address, Outcome, Protocol, Terms, Vote};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

/// What happened so far, and the first breach.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Judge {
    terms: Terms,
    decided: BTreeMap<Address, Outcome>,
    /// Votes that left their participant and allow to commit.
    allowed: BTreeMap<Address, Vote>,
    /// Whoever votes read-only is out of it, and what it does later is nobody's concern: it may
    /// have forgotten that it voted.
    releases: bool,
    breach: Option<String>,
}

impl Judge {
    /// Of a transaction on these terms.
    pub fn new(protocol: Protocol, terms: Terms) -> Self {
        let releases = protocol == Protocol::TwoPhase;
        let (decided, allowed) = (BTreeMap::new(), BTreeMap::new());
        Judge { terms, decided, allowed, releases, breach: None }
    }

    /// The first breach of a promise.
    pub fn breach(&self) -> Option<&str> {
        self.breach.as_deref()
    }

    /// What was decided, if anything was.
    pub fn outcome(&self) -> Option<Outcome> {
        self.decided.values().next().copied()
    }

    /// What a site decided.
    pub fn decision_of(&self, site: Address) -> Option<Outcome> {
        self.decided.get(&site).copied()
    }

    /// Something else is wrong.
    pub fn convict(&mut self, what: String) {
        self.breach.get_or_insert(what);
    }

    /// Whether this participant said that it only read.
    pub fn only_read(&self, site: Address) -> bool {
        self.allowed.get(&site) == Some(&Vote::ReadOnly)
    }

    /// A vote left its participant.
    pub fn voted(&mut self, site: Address, vote: &Vote) {
        if vote.allows_commit() {
            self.allowed.entry(site).or_insert_with(|| vote.clone());
        }
    }

    /// A site decided, so that it will remember or somebody may have heard.
    pub fn decided(&mut self, site: Address, outcome: Outcome) {
        if self.releases && self.only_read(site) {
            return;
        }
        if let Some(before) = self.decided.insert(site, outcome)
            && before != outcome
        {
            self.convict(format!("AC2: {site} went from {before:?} to {outcome:?}"));
        }
        let other = self.decided.iter().find(|(_, known)| **known != outcome);
        if let Some((other, known)) = other {
            self.convict(format!("AC1: {site} decided to {outcome:?}, {other} to {known:?}"));
        }
        if self.terms.branches == 1 && matches!(site, Address::Participant(_)) {
            // Whoever decides alone votes by it.
            self.allowed.insert(site, Vote::Yes);
        }
        let mut participants = self.terms.participants();
        let silent = participants.find(|site| !self.allowed.contains_key(site));
        if let Some(silent) = silent.filter(|_| outcome == Outcome::Commit) {
            self.convict(format!("AC3: {site} committed without the vote of {silent}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BranchId, Reason};

    const ONE: Address = Address::Participant(BranchId(1));
    const TWO: Address = Address::Participant(BranchId(2));

    fn judge() -> Judge {
        Judge::new(Protocol::ThreePhase, Terms { branches: 2, acceptors: 0 })
    }

    #[test]
    fn whoever_disagrees_is_convicted() {
        let mut judge = judge();
        judge.voted(ONE, &Vote::Yes);
        judge.voted(TWO, &Vote::ReadOnly);
        judge.decided(Address::Coordinator, Outcome::Commit);
        judge.decided(ONE, Outcome::Commit);
        assert_eq!(judge.breach(), None);
        judge.decided(TWO, Outcome::Abort);
        assert!(judge.breach().is_some_and(|breach| breach.starts_with("AC1")));
    }

    #[test]
    fn whoever_goes_back_is_convicted() {
        let mut judge = judge();
        judge.decided(ONE, Outcome::Abort);
        judge.decided(ONE, Outcome::Abort);
        assert_eq!((judge.breach(), judge.outcome()), (None, Some(Outcome::Abort)));
        judge.decided(ONE, Outcome::Commit);
        assert!(judge.breach().is_some_and(|breach| breach.starts_with("AC2")));
    }

    #[test]
    fn whoever_commits_without_a_vote_is_convicted() {
        let mut judge = judge();
        judge.voted(ONE, &Vote::Yes);
        judge.voted(TWO, &Vote::No(Reason::TimedOut));
        judge.decided(ONE, Outcome::Commit);
        assert!(judge.breach().is_some_and(|breach| breach.starts_with("AC3")));
    }
}
