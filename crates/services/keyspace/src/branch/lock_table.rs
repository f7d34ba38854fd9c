//! Who has, or wants, which keys and leases.

use super::{Age, LockSet};
use bytes::Bytes;
use quorate_mvcc::{KeyRange, LeaseId};
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

/// Locks by what they lock. The same owner may be entered once only.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct LockTable {
    /// Of one key each: who, and whether alone.
    points: BTreeMap<Bytes, Owners>,
    /// Of several keys each. There are few, so they are looked at one by one.
    spans: BTreeMap<Age, Vec<(KeyRange, bool)>>,
    leases: BTreeMap<LeaseId, Owners>,
}

type Owners = BTreeMap<Age, bool>;
type Visit<'v> = &'v mut dyn FnMut(&Age) -> ControlFlow<()>;

impl LockTable {
    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.spans.is_empty() && self.leases.is_empty()
    }

    pub fn insert(&mut self, age: &Age, set: &LockSet) {
        let mut spans = Vec::new();
        for (range, exclusive) in &set.keys {
            match range {
                KeyRange::One(key) => {
                    let owners = match self.points.get_mut(key) {
                        Some(owners) => owners,
                        // A copy: the key shares the memory of a whole entry.
                        None => self.points.entry(Bytes::copy_from_slice(key)).or_default(),
                    };
                    *owners.entry(age.clone()).or_default() |= exclusive;
                }
                _ => spans.push((range.clone(), *exclusive)),
            }
        }
        if !spans.is_empty() {
            self.spans.insert(age.clone(), spans);
        }
        for (lease, exclusive) in &set.leases {
            *self.leases.entry(*lease).or_default().entry(age.clone()).or_default() |= exclusive;
        }
    }

    pub fn remove(&mut self, age: &Age, set: &LockSet) {
        for (range, _) in &set.keys {
            if let KeyRange::One(key) = range
                && let Some(owners) = self.points.get_mut(key)
            {
                owners.remove(age);
                if owners.is_empty() {
                    self.points.remove(key);
                }
            }
        }
        self.spans.remove(age);
        for (lease, _) in &set.leases {
            if let Some(owners) = self.leases.get_mut(lease) {
                owners.remove(age);
                if owners.is_empty() {
                    self.leases.remove(lease);
                }
            }
        }
    }

    /// Shows `visit` every owner of a lock that conflicts with `set`, some more than once.
    pub fn conflicts(&self, set: &LockSet, visit: Visit) -> ControlFlow<()> {
        for (range, exclusive) in &set.keys {
            self.key_conflicts(range, *exclusive, visit)?;
        }
        for (lease, exclusive) in &set.leases {
            if let Some(owners) = self.leases.get(lease) {
                among(owners, *exclusive, visit)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn key_conflicts(&self, range: &KeyRange, exclusive: bool, visit: Visit) -> ControlFlow<()> {
        if let KeyRange::One(key) = range {
            if let Some(owners) = self.points.get(key) {
                among(owners, exclusive, visit)?;
            }
        } else {
            let (from, to) = range.bounds();
            if to.as_ref().is_some_and(|to| *to <= from) {
                return ControlFlow::Continue(());
            }
            let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
            for owners in self.points.range::<Bytes, _>(bounds).map(|(_, owners)| owners) {
                among(owners, exclusive, visit)?;
            }
        }
        for (age, spans) in &self.spans {
            let meets =
                |(span, alone): &(KeyRange, bool)| (exclusive || *alone) && overlap(range, span);
            if spans.iter().any(meets) {
                visit(age)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Whether anybody's lock conflicts with `set`.
    pub fn meets(&self, set: &LockSet) -> bool {
        !self.is_empty() && self.conflicts(set, &mut |_| ControlFlow::Break(())).is_break()
    }

    /// Whether a lock of someone older than `age` conflicts with `set`.
    pub fn meets_older(&self, set: &LockSet, age: &Age) -> bool {
        let mut older = |owner: &Age| match owner < age {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        self.conflicts(set, &mut older).is_break()
    }

    /// The youngest whose lock conflicts with `set`.
    pub fn youngest(&self, set: &LockSet) -> Option<Age> {
        let mut youngest: Option<Age> = None;
        let _ = self.conflicts(set, &mut |age| {
            if youngest.as_ref().is_none_or(|known| known < age) {
                youngest = Some(age.clone());
            }
            ControlFlow::Continue(())
        });
        youngest
    }
}

fn among(owners: &Owners, exclusive: bool, visit: Visit) -> ControlFlow<()> {
    for (age, alone) in owners {
        if exclusive || *alone {
            visit(age)?;
        }
    }
    ControlFlow::Continue(())
}

fn overlap(a: &KeyRange, b: &KeyRange) -> bool {
    let ((a_from, a_to), (b_from, b_to)) = (a.bounds(), b.bounds());
    let before = |to: &Option<Bytes>, from: &Bytes| to.as_ref().is_some_and(|to| to <= from);
    !before(&a_to, &b_from)
        && !before(&b_to, &a_from)
        && !before(&a_to, &a_from)
        && !before(&b_to, &b_from)
}

#[cfg(test)]
mod tests {
    use super::super::age::Tie;
    use super::*;
    use quorate_base::Rng;

    fn b(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn age(n: u64) -> Age {
        Age { priority: n, tie: Tie::Entry(n) }
    }

    fn some_range(rng: &mut Rng) -> KeyRange {
        let key = |rng: &mut Rng| b(rng.pick(&["a", "aa", "b", "c", "d"]).unwrap());
        match rng.below(4) {
            0 | 1 => KeyRange::One(key(rng)),
            2 => KeyRange::Between(key(rng), key(rng)),
            _ => KeyRange::From(key(rng)),
        }
    }

    fn some_set(rng: &mut Rng) -> LockSet {
        let mut set = LockSet::default();
        for _ in 0..rng.below(4) {
            let range = some_range(rng);
            if set.keys.iter().all(|(known, _)| *known != range) {
                set.keys.push((range, rng.below(2) == 0));
            }
        }
        if rng.below(3) == 0 {
            set.leases.push((rng.below(2) as i64 + 1, rng.below(2) == 0));
        }
        set
    }

    /// Every key that could matter, and some between.
    fn conflict(a: &LockSet, b: &LockSet) -> bool {
        let keys = ["a", "aa", "ab", "b", "bz", "c", "cc", "d", "e"];
        let on = |set: &LockSet, key: &str| {
            let found = set.keys.iter().filter(|(range, _)| range.contains(key.as_bytes()));
            found.map(|(_, exclusive)| *exclusive).max()
        };
        let meet =
            |a: Option<bool>, b: Option<bool>| matches!((a, b), (Some(a), Some(b)) if a || b);
        let lease = |set: &LockSet, id: i64| {
            set.leases.iter().filter(|(lease, _)| *lease == id).map(|(_, e)| *e).max()
        };
        keys.iter().any(|key| meet(on(a, key), on(b, key)))
            || [1, 2].iter().any(|id| meet(lease(a, *id), lease(b, *id)))
    }

    #[test]
    fn conflicts_are_what_the_definition_says() {
        let mut rng = Rng::new(11);
        for _ in 0..300 {
            let mut table = LockTable::default();
            let mut sets: BTreeMap<Age, LockSet> = BTreeMap::new();
            for n in 0..20 {
                if rng.below(3) == 0
                    && let Some((age, set)) = sets.pop_first()
                {
                    table.remove(&age, &set);
                }
                let set = some_set(&mut rng);
                table.insert(&age(n), &set);
                sets.insert(age(n), set);
                let asked = some_set(&mut rng);
                let wanted: Vec<&Age> = sets
                    .iter()
                    .filter(|(_, set)| conflict(set, &asked))
                    .map(|(age, _)| age)
                    .collect();
                let mut found = std::collections::BTreeSet::new();
                let _ = table.conflicts(&asked, &mut |age| {
                    found.insert(age.clone());
                    ControlFlow::Continue(())
                });
                assert!(found.iter().eq(wanted.iter().copied()), "{asked:?} {sets:?}");
                assert_eq!(table.meets(&asked), !wanted.is_empty());
                assert_eq!(table.youngest(&asked).as_ref(), wanted.last().copied());
                let middle = age(n / 2);
                let older = wanted.iter().any(|age| **age < middle);
                assert_eq!(table.meets_older(&asked, &middle), older);
            }
            for (age, set) in sets {
                table.remove(&age, &set);
            }
            assert!(table.is_empty());
        }
    }
}
