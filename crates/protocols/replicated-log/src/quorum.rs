//! How many voters a decision needs.
//!
//! Majorities by default; flexible quorums (Howard, Malkhi and Spiegelman, 2016) for groups of one
//! chosen size. Invariants: a replication quorum meets every election quorum, so that a new leader
//! hears of everything that was committed; two election quorums meet, so that a round has one
//! leader. In joint consensus a decision needs a quorum of both sets of voters (Raft section 6).
//!
//! Everything is computed by a plain sort: a cleverer tracker once committed without a quorum
//! (openraft issue 1802).

use crate::membership::Membership;
use quorate_base::NodeId;

/// The quorum rule of a group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct QuorumSpec {
    flexible: Option<Flexible>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Flexible {
    voters: usize,
    sizes: QuorumSizes,
}

/// How many of a set of voters must agree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct QuorumSizes {
    /// To elect a leader.
    pub election: usize,
    /// To commit an entry, to confirm leadership, to keep it.
    pub replication: usize,
}

/// Where a vote stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VoteResult {
    /// Enough granted.
    Won,
    /// Enough refused that it cannot be won any more.
    Lost,
    /// Neither yet.
    Pending,
}

impl QuorumSpec {
    /// Majorities, whatever the number of voters.
    pub const fn majority() -> Self {
        QuorumSpec { flexible: None }
    }

    /// These sizes for groups of exactly `voters`, majorities for any other number (which a group
    /// passes through while it grows or shrinks).
    ///
    /// Panics unless the quorums intersect as they must.
    pub fn flexible(voters: usize, election: usize, replication: usize) -> Self {
        assert!(election <= voters && replication <= voters, "a quorum fits its voters");
        assert!(election + replication > voters, "election and replication quorums intersect");
        assert!(2 * election > voters, "election quorums intersect");
        let sizes = QuorumSizes { election, replication };
        QuorumSpec { flexible: Some(Flexible { voters, sizes }) }
    }

    /// The sizes for a set of `voters`.
    pub fn sizes(&self, voters: usize) -> QuorumSizes {
        match self.flexible {
            Some(flexible) if flexible.voters == voters => flexible.sizes,
            _ => QuorumSizes { election: voters / 2 + 1, replication: voters / 2 + 1 },
        }
    }

    /// The highest value that a replication quorum has reached, when each voter has reached
    /// `value_of` it. With matched indexes: what may be committed. `least` if there are no voters.
    pub fn reached<T: Ord + Copy>(
        &self,
        members: &Membership,
        least: T,
        value_of: impl Fn(NodeId) -> T,
    ) -> T {
        let incoming = self.reached_by(&members.voters, least, &value_of);
        if members.outgoing.is_empty() {
            incoming
        } else {
            incoming.min(self.reached_by(&members.outgoing, least, &value_of))
        }
    }

    fn reached_by<T: Ord + Copy>(
        &self,
        voters: &[NodeId],
        least: T,
        value_of: &impl Fn(NodeId) -> T,
    ) -> T {
        // Groups of any sensible size stay on the stack: this runs at every acknowledgement.
        const SMALL: usize = 9;
        if voters.len() <= SMALL {
            let mut values = [least; SMALL];
            for (value, &voter) in values.iter_mut().zip(voters) {
                *value = value_of(voter);
            }
            self.pick(&mut values[..voters.len()], least)
        } else {
            let mut values: alloc::vec::Vec<T> = voters.iter().map(|&v| value_of(v)).collect();
            self.pick(&mut values, least)
        }
    }

    fn pick<T: Ord + Copy>(&self, values: &mut [T], least: T) -> T {
        values.sort_unstable_by(|a, b| b.cmp(a));
        let size = self.sizes(values.len()).replication;
        size.checked_sub(1).and_then(|at| values.get(at)).copied().unwrap_or(least)
    }

    /// Where an election stands, given who granted, refused, or has not answered yet.
    pub fn vote(
        &self,
        members: &Membership,
        answer_of: impl Fn(NodeId) -> Option<bool>,
    ) -> VoteResult {
        let incoming = self.vote_of(&members.voters, &answer_of);
        if members.outgoing.is_empty() {
            return incoming;
        }
        match (incoming, self.vote_of(&members.outgoing, &answer_of)) {
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
            _ => VoteResult::Pending,
        }
    }

    fn vote_of(
        &self,
        voters: &[NodeId],
        answer_of: &impl Fn(NodeId) -> Option<bool>,
    ) -> VoteResult {
        let count = |wanted| voters.iter().filter(|&&v| answer_of(v) == wanted).count();
        let (granted, pending) = (count(Some(true)), count(None));
        let size = self.sizes(voters.len()).election;
        if voters.is_empty() || granted + pending < size {
            VoteResult::Lost
        } else if granted >= size {
            VoteResult::Won
        } else {
            VoteResult::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn nodes(n: u64) -> Vec<NodeId> {
        (1..=n).map(NodeId).collect()
    }

    fn specs(n: usize) -> Vec<QuorumSpec> {
        let mut specs = alloc::vec![QuorumSpec::majority()];
        for election in n / 2 + 1..=n {
            for replication in n - election + 1..=n {
                specs.push(QuorumSpec::flexible(n, election, replication));
            }
        }
        specs
    }

    /// Every subset of `n` voters, as a bit mask.
    fn subsets(n: usize) -> impl Iterator<Item = u32> {
        0..1 << n
    }

    #[test]
    fn quorums_intersect() {
        for n in 1..=7 {
            for spec in specs(n) {
                let QuorumSizes { election, replication } = spec.sizes(n);
                let size = |set: u32| set.count_ones() as usize;
                for a in subsets(n).filter(|&a| size(a) >= election) {
                    for b in subsets(n).filter(|&b| size(b) >= replication.min(election)) {
                        assert!(a & b != 0, "{n} {spec:?} {a:b} {b:b}");
                    }
                }
            }
        }
    }

    /// The definition: the highest value such that some quorum's members all have at least it.
    fn reached_by_brute_force(spec: &QuorumSpec, values: &[u64]) -> u64 {
        let n = values.len();
        subsets(n)
            .filter(|s| s.count_ones() as usize >= spec.sizes(n).replication)
            .filter_map(|s| (0..n).filter(|i| s & (1 << i) != 0).map(|i| values[i]).min())
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn reached_is_what_brute_force_finds() {
        let mut rng = quorate_base::Rng::new(1);
        for n in 1..=7usize {
            for spec in specs(n) {
                for _ in 0..40 {
                    let values: Vec<u64> = (0..n).map(|_| rng.below(5)).collect();
                    let members = Membership::of(nodes(n as u64));
                    let got = spec.reached(&members, 0, |v| values[v.0 as usize - 1]);
                    assert_eq!(got, reached_by_brute_force(&spec, &values), "{spec:?} {values:?}");
                }
            }
        }
    }

    #[test]
    fn joint_needs_both_sets() {
        let mut rng = quorate_base::Rng::new(2);
        let spec = QuorumSpec::majority();
        for _ in 0..2_000 {
            let mut pick = || nodes(7).into_iter().filter(|_| rng.below(2) == 0).collect();
            let (voters, outgoing): (Vec<_>, Vec<_>) = (pick(), pick());
            let values: Vec<u64> = (0..7).map(|_| rng.below(4)).collect();
            let of = |set: &[NodeId]| -> Vec<u64> {
                set.iter().map(|v| values[v.0 as usize - 1]).collect()
            };
            let mut expected = reached_by_brute_force(&spec, &of(&voters));
            if !outgoing.is_empty() {
                expected = expected.min(reached_by_brute_force(&spec, &of(&outgoing)));
            }
            let members = Membership { voters, outgoing, learners: Vec::new() };
            assert_eq!(spec.reached(&members, 0, |v| values[v.0 as usize - 1]), expected);
        }
    }

    #[test]
    fn a_vote_is_won_or_lost_when_no_answer_can_change_it() {
        for n in 1..=5usize {
            for spec in specs(n) {
                let members = Membership::of(nodes(n as u64));
                // Three states per voter.
                for code in 0..3u32.pow(n as u32) {
                    let answer = |v: NodeId| match code / 3u32.pow(v.0 as u32 - 1) % 3 {
                        0 => None,
                        1 => Some(true),
                        _ => Some(false),
                    };
                    let granted = |optimist: bool| {
                        (1..=n as u64).filter(|&v| answer(NodeId(v)).unwrap_or(optimist)).count()
                            >= spec.sizes(n).election
                    };
                    let expected = match (granted(false), granted(true)) {
                        (true, _) => VoteResult::Won,
                        (_, false) => VoteResult::Lost,
                        _ => VoteResult::Pending,
                    };
                    assert_eq!(spec.vote(&members, answer), expected);
                }
            }
        }
    }

    #[test]
    fn nobody_decides_nothing() {
        let nobody = Membership::default();
        let spec = QuorumSpec::majority();
        assert_eq!(spec.reached(&nobody, 0, |_| 9), 0);
        assert_eq!(spec.vote(&nobody, |_| Some(true)), VoteResult::Lost);
    }

    #[test]
    #[should_panic(expected = "election and replication quorums intersect")]
    fn quorums_that_miss_each_other_are_refused() {
        let _ = QuorumSpec::flexible(5, 3, 2);
    }
}
