//! Which slots of a log are covered: everything up to an index, and perhaps ranges beyond a gap.
//!
//! Invariant: the ranges are sorted, do not touch each other, and begin after `upto + 1`.

use alloc::vec::Vec;
use quorate_base::Index;

/// A set of indexes that is nearly always a prefix.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Cover {
    upto: Index,
    /// First and last of each range beyond.
    beyond: Vec<(Index, Index)>,
}

impl Cover {
    /// Everything up to `upto`.
    pub fn new(upto: Index) -> Self {
        Cover { upto, beyond: Vec::new() }
    }

    /// Everything up to here is covered, the next index is not.
    pub fn upto(&self) -> Index {
        self.upto
    }

    /// The ranges beyond the first gap.
    pub fn beyond(&self) -> &[(Index, Index)] {
        &self.beyond
    }

    /// The last of the indexes that are covered from `index` on without a gap; `index - 1` if not
    /// even that one is.
    pub fn end_from(&self, index: Index) -> Index {
        if index <= self.upto {
            return self.upto;
        }
        let holds = |(first, last): &&(Index, Index)| *first <= index && index <= *last;
        self.beyond.iter().find(holds).map_or(index.saturating_sub(1), |(_, last)| *last)
    }

    /// Adds everything up to `upto`.
    pub fn raise(&mut self, upto: Index) {
        if upto > self.upto {
            self.upto = upto;
            self.absorb();
        }
    }

    /// Adds `first..=last`; nothing if that is empty.
    pub fn add(&mut self, first: Index, last: Index) {
        if first > last {
            return;
        }
        if first <= self.upto.saturating_add(1) {
            self.raise(last);
            return;
        }
        let (mut first, mut last) = (first, last);
        self.beyond.retain(|&(from, to)| {
            let apart = to.saturating_add(1) < first || last.saturating_add(1) < from;
            if !apart {
                first = first.min(from);
                last = last.max(to);
            }
            apart
        });
        let at = self.beyond.partition_point(|(from, _)| *from < first);
        self.beyond.insert(at, (first, last));
    }

    /// Takes in the ranges that are no longer beyond a gap.
    fn absorb(&mut self) {
        let mut gone = 0;
        for &(first, last) in &self.beyond {
            if first > self.upto.saturating_add(1) {
                break;
            }
            self.upto = self.upto.max(last);
            gone += 1;
        }
        self.beyond.drain(..gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use quorate_base::Rng;

    #[test]
    fn it_does_what_a_set_does() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let start = rng.below(5);
            let (mut cover, mut set) = (Cover::new(start), (1..=start).collect::<BTreeSet<_>>());
            for _ in 0..30 {
                if rng.below(4) == 0 {
                    let upto = rng.below(40);
                    cover.raise(upto);
                    set.extend(1..=upto);
                } else {
                    let first = rng.between(1, 40);
                    let last = first + rng.below(5);
                    cover.add(first, last);
                    set.extend(first..=last);
                }
                let end = |from: Index| (from..).find(|i| !set.contains(i)).map_or(0, |i| i - 1);
                assert_eq!(cover.upto(), end(1));
                for from in 1..60 {
                    assert_eq!(cover.end_from(from), end(from).max(from - 1), "{cover:?} {from}");
                }
                let apart = |w: &[(Index, Index)]| w[0].1 + 1 < w[1].0;
                assert!(cover.beyond().windows(2).all(apart));
            }
        }
    }
}
