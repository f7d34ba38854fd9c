//! The ballots that leaders' first values name, which rise along the log: services go by them.
//!
//! A leader that repairs the log may find first values of two others that contradict each other:
//! the higher ballot in the lower slot. Of such two it fills the slot of the one that was accepted
//! under the lower ballot with nothing.
//!
//! Why nothing chosen is lost. Whoever proposed the other one, under the higher ballot `c`, had
//! finished phase 1. Had the first been chosen under a lower ballot, `c`'s leader would have found
//! it. It would then have proposed both, which by this very rule nobody does; or, if the other is
//! its own first value, it would have put it behind all that it found, where it contradicts
//! nothing: every ballot found is below its own. So the first was not chosen. Of what is accepted
//! under one ballot no two contradict each other, for one leader proposed both; and what is chosen
//! already counts as accepted under the highest ballot of all.
//!
//! Why it is the first values that count and not the ballots under which neighbours were accepted:
//! those may be values proposed again, which say nothing of what their proposer found elsewhere
//! that it has not proposed again yet. A rule built on them loses chosen values.

use alloc::vec::Vec;
use quorate_base::{Ballot, Index};

/// The ballots named in what is chosen, by index.
#[derive(Clone, Debug)]
pub(crate) struct Leads {
    base: Ballot,
    after: Vec<(Index, Ballot)>,
}

impl Leads {
    /// `ballot` is the last that was named.
    pub fn new(ballot: Ballot) -> Self {
        Leads { base: ballot, after: Vec::new() }
    }

    /// The last one named up to `index`, which is not compacted away.
    pub fn at(&self, index: Index) -> Ballot {
        let after = self.after.partition_point(|(i, _)| *i <= index);
        let found = after.checked_sub(1).and_then(|at| self.after.get(at));
        found.map_or(self.base, |(_, ballot)| *ballot)
    }

    /// Whether any is named behind `index`.
    pub fn goes_on_after(&self, index: Index) -> bool {
        self.after.last().is_some_and(|(i, _)| *i > index)
    }

    /// These were chosen, behind all that is known.
    pub fn chosen(&mut self, named: Vec<(Index, Ballot)>) {
        self.after.extend(named);
    }

    /// Forgets what was named before `index`.
    pub fn compact(&mut self, index: Index) {
        let after = self.after.partition_point(|(i, _)| *i <= index);
        if let Some((_, ballot)) = self.after.drain(..after).next_back() {
            self.base = ballot;
        }
    }
}

/// A first value, or another that names its leader, found in a slot of which nothing is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundLead {
    pub index: Index,
    /// The ballot it was last accepted under.
    pub accepted: Ballot,
    /// The ballot it names.
    pub named: Ballot,
}

impl FoundLead {
    fn contradicts(&self, other: &FoundLead) -> bool {
        match self.index < other.index {
            true => self.named > other.named,
            false => self.named < other.named,
        }
    }
}

/// Which of those found yield to another, where `led` was named last in what is chosen.
pub(crate) fn yielding(led: Ballot, mut found: Vec<FoundLead>) -> Vec<Index> {
    found.sort_by_key(|lead| core::cmp::Reverse(lead.accepted));
    let (mut kept, mut yielding): (Vec<FoundLead>, _) = (Vec::new(), Vec::new());
    for lead in found {
        let overruled = |by: &FoundLead| by.accepted > lead.accepted && by.contradicts(&lead);
        if lead.named < led || kept.iter().any(overruled) {
            yielding.push(lead.index);
        } else {
            kept.push(lead);
        }
    }
    yielding
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use quorate_base::NodeId;

    fn ballot(round: u64) -> Ballot {
        Ballot::new(round, NodeId(1))
    }

    fn found(leads: &[(Index, u64, u64)]) -> Vec<FoundLead> {
        let lead = |&(index, accepted, named)| FoundLead {
            index,
            accepted: ballot(accepted),
            named: ballot(named),
        };
        leads.iter().map(lead).collect()
    }

    #[test]
    fn what_rises_stays() {
        assert!(yielding(ballot(3), found(&[(5, 9, 4), (6, 9, 5), (9, 7, 7)])).is_empty());
    }

    /// Ballot 11 found nothing from slot 17 on; what ballot 9 left in slot 19 is dead.
    #[test]
    fn an_older_one_behind_a_newer_one_yields() {
        assert_eq!(yielding(ballot(8), found(&[(17, 11, 11), (19, 9, 9)])), vec![19]);
        assert_eq!(yielding(ballot(8), found(&[(17, 12, 11), (19, 10, 9)])), vec![19]);
    }

    /// Ballot 12 did not find the one of 11, and proposed that of 9 again.
    #[test]
    fn a_newer_one_yields_to_an_older_one_that_was_proposed_again_later() {
        assert_eq!(yielding(ballot(8), found(&[(17, 11, 11), (19, 12, 9)])), vec![17]);
    }

    #[test]
    fn all_yield_to_what_is_chosen() {
        assert_eq!(yielding(ballot(11), found(&[(19, 12, 9), (20, 12, 12)])), vec![19]);
    }

    #[test]
    fn the_last_one_up_to_an_index() {
        let mut leads = Leads::new(ballot(1));
        leads.chosen(vec![(4, ballot(2)), (8, ballot(5))]);
        assert_eq!([3, 4, 7, 8, 90].map(|i| leads.at(i).round), [1, 2, 2, 5, 5]);
        leads.compact(6);
        assert_eq!([6, 8].map(|i| leads.at(i).round), [2, 5]);
        leads.compact(8);
        assert_eq!((leads.at(8).round, leads.after.len()), (5, 0));
    }
}
