//! Who takes part in a transaction. Sites are numbered within the transaction; where branch 3
//! lives is the host's knowledge.

use core::fmt;
use quorate_base::NodeId;

/// One transaction. The host makes it unique for ever (a client's id, hashed or numbered).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TransactionId(pub u128);

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Numbers the attempts of a transaction, from 1. The next attempt begins only once this one is
/// decided to abort; so whoever hears of a later attempt knows that the earlier one is aborted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Epoch(pub u32);

/// One attempt of one transaction: what every message names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Key {
    /// The transaction.
    pub transaction: TransactionId,
    /// The attempt.
    pub epoch: Epoch,
}

/// One branch of a transaction, and the participant that has it: from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct BranchId(pub u16);

/// One acceptor of Paxos Commit: from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct AcceptorId(pub u16);

/// One site of a transaction, and so the sender or the receiver of a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Address {
    /// The coordinator; in Paxos Commit the first leader.
    Coordinator,
    /// The participant that has this branch.
    Participant(BranchId),
    /// An acceptor of Paxos Commit.
    Acceptor(AcceptorId),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Coordinator => f.write_str("coordinator"),
            Address::Participant(branch) => write!(f, "participant {}", branch.0),
            Address::Acceptor(acceptor) => write!(f, "acceptor {}", acceptor.0),
        }
    }
}

/// Who takes part: fixed when the transaction begins, and carried by every message, so that any
/// site can go on without the one that began it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Terms {
    /// How many branches there are, at least one.
    pub branches: u16,
    /// How many acceptors: 2F + 1 in Paxos Commit, none elsewhere.
    pub acceptors: u16,
}

impl Terms {
    /// Every branch.
    pub fn branches(self) -> impl DoubleEndedIterator<Item = BranchId> + Clone {
        (1..=self.branches).map(BranchId)
    }

    /// Every participant.
    pub fn participants(self) -> impl DoubleEndedIterator<Item = Address> + Clone {
        self.branches().map(Address::Participant)
    }

    /// The coordinator and every participant: who decides in three-phase commit.
    pub fn electorate(self) -> impl Iterator<Item = Address> + Clone {
        core::iter::once(Address::Coordinator).chain(self.participants())
    }

    /// Every acceptor.
    pub fn acceptors(self) -> impl Iterator<Item = Address> + Clone {
        (1..=self.acceptors).map(AcceptorId).map(Address::Acceptor)
    }

    /// A majority of the coordinator and the participants.
    pub fn majority(self) -> usize {
        self.electorate().count() / 2 + 1
    }

    /// F + 1 of the 2F + 1 acceptors.
    pub fn acceptor_quorum(self) -> usize {
        usize::from(self.acceptors) / 2 + 1
    }

    /// Whether the transaction has such a site.
    pub fn has(self, site: Address) -> bool {
        match site {
            Address::Coordinator => true,
            Address::Participant(branch) => (1..=self.branches).contains(&branch.0),
            Address::Acceptor(acceptor) => (1..=self.acceptors).contains(&acceptor.0),
        }
    }

    /// The site's number in ballots.
    pub fn node(self, site: Address) -> NodeId {
        NodeId(match site {
            Address::Coordinator => 1,
            Address::Participant(branch) => 1 + u64::from(branch.0),
            Address::Acceptor(acceptor) => 1 + u64::from(self.branches) + u64::from(acceptor.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majorities_meet_and_numbers_differ() {
        for branches in 1..8 {
            let terms = Terms { branches, acceptors: 5 };
            assert!(2 * terms.majority() > terms.electorate().count());
            let all = terms.electorate().chain(terms.acceptors());
            let mut nodes: alloc::vec::Vec<_> = all.map(|site| terms.node(site)).collect();
            nodes.dedup();
            assert_eq!(nodes.len(), usize::from(branches) + 6);
        }
        assert_eq!(Terms { branches: 2, acceptors: 5 }.acceptor_quorum(), 3);
    }
}
