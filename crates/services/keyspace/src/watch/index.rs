//! Which groups of watchers a key concerns.
//!
//! Watchers of the same keys and kinds of event form a *group*, so that a thousand watchers of
//! one prefix cost one match. Single keys are looked up; ranges are in an interval tree: an array
//! sorted by start, read as a balanced tree whose nodes know the greatest end below them. It is
//! built again when the set of ranges has changed, which is rare beside matching.

use bytes::Bytes;
use quorate_mvcc::{Event, KeyRange};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Names a group; used again once the group is gone.
pub(super) type GroupId = usize;

/// What the watchers of a group want to see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Interest {
    pub range: KeyRange,
    pub no_put: bool,
    pub no_delete: bool,
}

impl Interest {
    /// Whether it wants this kind of event, whatever the key.
    pub fn wants_kind(&self, event: &Event) -> bool {
        match event {
            Event::Put(_) => !self.no_put,
            Event::Delete { .. } => !self.no_delete,
        }
    }

    pub fn wants(&self, event: &Event) -> bool {
        self.wants_kind(event) && self.range.contains(event.key())
    }

    fn key(&self) -> (Bytes, Option<Option<Bytes>>, u8) {
        let kinds = u8::from(self.no_put) | u8::from(self.no_delete) << 1;
        match &self.range {
            KeyRange::One(key) => (key.clone(), None, kinds),
            KeyRange::Between(from, to) => (from.clone(), Some(Some(to.clone())), kinds),
            KeyRange::From(from) => (from.clone(), Some(None), kinds),
        }
    }
}

/// All groups.
#[derive(Default, Debug)]
pub(super) struct Index {
    groups: Vec<Option<Interest>>,
    free: Vec<GroupId>,
    /// By start, end and kinds.
    known: BTreeMap<(Bytes, Option<Option<Bytes>>, u8), GroupId>,
    exact: BTreeMap<Bytes, Vec<GroupId>>,
    tree: Vec<Node>,
    tree_is_stale: bool,
}

#[derive(Debug)]
struct Node {
    from: Bytes,
    to: Option<Bytes>,
    /// The greatest end in the subtree whose root this is.
    greatest: Option<Bytes>,
    group: GroupId,
}

impl Index {
    /// The group of an interest, made if there is none.
    pub fn group(&mut self, interest: Interest) -> GroupId {
        let key = interest.key();
        if let Some(group) = self.known.get(&key) {
            return *group;
        }
        let group = self.free.pop().unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() - 1
        });
        match &interest.range {
            KeyRange::One(key) => self.exact.entry(key.clone()).or_default().push(group),
            _ => self.tree_is_stale = true,
        }
        self.groups[group] = Some(interest);
        self.known.insert(key, group);
        group
    }

    /// The interest of a group.
    pub fn interest(&self, group: GroupId) -> Option<&Interest> {
        self.groups.get(group)?.as_ref()
    }

    /// Forgets a group that has no watcher left.
    pub fn forget(&mut self, group: GroupId) {
        let Some(interest) = self.groups.get_mut(group).and_then(Option::take) else { return };
        self.known.remove(&interest.key());
        self.free.push(group);
        match &interest.range {
            KeyRange::One(key) => {
                if let Some(groups) = self.exact.get_mut(key) {
                    groups.retain(|g| *g != group);
                    if groups.is_empty() {
                        self.exact.remove(key);
                    }
                }
            }
            _ => self.tree_is_stale = true,
        }
    }

    /// Calls `found` with every group that wants the event.
    pub fn matching(&mut self, event: &Event, mut found: impl FnMut(GroupId)) {
        if self.tree_is_stale {
            self.rebuild();
        }
        let mut wanted = |group: GroupId| {
            if self.groups[group].as_ref().is_some_and(|i| i.wants_kind(event)) {
                found(group);
            }
        };
        for group in self.exact.get(event.key()).into_iter().flatten() {
            wanted(*group);
        }
        stab(&self.tree, event.key(), &mut wanted);
    }

    fn rebuild(&mut self) {
        self.tree.clear();
        for ((from, end, _), group) in &self.known {
            if let Some(to) = end {
                let (from, to) = (from.clone(), to.clone());
                self.tree.push(Node { greatest: None, from, to, group: *group });
            }
        }
        // The map's order is by start: what the tree needs.
        summarize(&mut self.tree);
        self.tree_is_stale = false;
    }
}

fn later(a: &Option<Bytes>, b: &Option<Bytes>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.cmp(b),
    }
}

/// Notes the greatest end of each subtree; the root of a slice is its middle.
fn summarize(nodes: &mut [Node]) -> Option<&Option<Bytes>> {
    let middle = nodes.len() / 2;
    let (left, rest) = nodes.split_at_mut(middle);
    let (root, right) = rest.split_first_mut()?;
    let mut greatest = root.to.clone();
    for below in [summarize(left), summarize(right)].into_iter().flatten() {
        if later(below, &greatest).is_gt() {
            greatest = below.clone();
        }
    }
    root.greatest = greatest;
    Some(&root.greatest)
}

fn stab(nodes: &[Node], key: &[u8], found: &mut impl FnMut(GroupId)) {
    let middle = nodes.len() / 2;
    let Some(root) = nodes.get(middle) else { return };
    let ends_after = |end: &Option<Bytes>| end.as_ref().is_none_or(|end| key < &end[..]);
    if !ends_after(&root.greatest) {
        return;
    }
    stab(&nodes[..middle], key, found);
    if key >= &root.from[..] {
        if ends_after(&root.to) {
            found(root.group);
        }
        stab(&nodes[middle + 1..], key, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_base::Rng;
    use quorate_mvcc::KeyValue;

    #[test]
    fn the_index_finds_what_a_scan_finds() {
        let mut rng = Rng::new(11);
        let key = |rng: &mut Rng| Bytes::from(vec![b'a' + rng.below(12) as u8; 1]);
        let (mut index, mut groups) = (Index::default(), BTreeMap::new());
        for _ in 0..3_000 {
            let range = match rng.below(3) {
                0 => KeyRange::One(key(&mut rng)),
                1 => KeyRange::Between(key(&mut rng), key(&mut rng)),
                _ => KeyRange::From(key(&mut rng)),
            };
            let interest = Interest { range, no_put: rng.below(4) == 0, no_delete: false };
            if rng.below(3) == 0
                && let Some(gone) = groups.keys().next().copied()
            {
                groups.remove(&gone);
                index.forget(gone);
            }
            groups.insert(index.group(interest.clone()), interest);
            let key = key(&mut rng);
            let event = match rng.below(2) {
                0 => Event::Put(KeyValue { key, ..KeyValue::default() }),
                _ => Event::Delete { key, revision: 1 },
            };
            let mut found = Vec::new();
            index.matching(&event, |group| found.push(group));
            found.sort_unstable();
            let wanted: Vec<GroupId> =
                groups.iter().filter(|(_, i)| i.wants(&event)).map(|(g, _)| *g).collect();
            assert_eq!(found, wanted);
        }
    }
}
