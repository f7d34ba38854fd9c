//! What a log should hold after each batch, in the plainest form.

use crate::support::*;
use quorate_base::{Ballot, GroupId, Index, NodeId, Rng};
use quorate_replicated_log::{Base, Entry, HardState, Payload, Write};
use quorate_wal::{Batch, BatchId, RecoveredGroup};
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Group {
    pub base: Base,
    pub hard_state: HardState,
    pub entries: BTreeMap<Index, Entry>,
}

impl Group {
    pub(crate) fn end(&self) -> Index {
        self.entries.last_key_value().map_or(self.base.position.index, |(index, _)| *index)
    }

    fn apply(&mut self, write: &Write) {
        if write.is_forget() {
            *self = Group::default();
            return;
        }
        if let Some(base) = &write.reset {
            self.entries.clear();
            self.base.clone_from(base);
        }
        if let Some(base) = &write.compact {
            self.entries = self.entries.split_off(&(base.position.index + 1));
            self.base.clone_from(base);
        }
        if let Some(from) = write.truncate_from {
            self.entries.split_off(&from);
        }
        let slots = write.slots.iter().flat_map(|run| run.iter());
        self.entries.extend(slots.map(|entry| (entry.index, entry.clone())));
        self.entries.extend(write.entries.iter().map(|entry| (entry.index, entry.clone())));
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
    }
}

pub(crate) type State = BTreeMap<GroupId, Group>;

/// A batch with more payload may not fit one block of these tests, beside what a block repeats, and
/// is split between its groups then.
const WHOLE_BYTES: usize = 8 << 10;

/// The states after each batch, and how many batches were acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub states: Vec<State>,
    pub acknowledged: usize,
    /// What a crash may leave of the batches that are split: the number of the state before, and
    /// the state after some of its groups.
    parts: Vec<(usize, State)>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Model { states: vec![State::new()], acknowledged: 0, parts: Vec::new() }
    }

    pub(crate) fn latest(&self) -> &State {
        &self.states[self.states.len() - 1]
    }

    pub(crate) fn submit(&mut self, batch: &Batch) {
        let before = self.states.len() - 1;
        let splits = batch.writes.iter().map(|(_, write)| payload_bytes(write)).sum::<usize>();
        let splits = splits > WHOLE_BYTES;
        let mut state = self.latest().clone();
        for (group, write) in &batch.writes {
            state.entry(*group).or_default().apply(write);
            // A group of which nothing was ever said is not in the log.
            state.retain(|_, group| *group != Group::default());
            if splits {
                self.parts.push((before, state.clone()));
            }
        }
        self.states.push(state);
    }

    /// Checks that a recovered log is the state after some batch, none acknowledged missing, and
    /// goes on from there.
    pub(crate) fn recover(&mut self, found: &BTreeMap<GroupId, RecoveredGroup>) {
        let mut found: State = found.iter().map(|(id, group)| (*id, plain(group))).collect();
        // Nor is one in this model whose every entry was truncated again; the log still knows it.
        found.retain(|_, group| *group != Group::default());
        let whole = &self.states[self.acknowledged..];
        let is_part =
            |(before, state): &(usize, State)| *before >= self.acknowledged && *state == found;
        let matches = whole.contains(&found) || self.parts.iter().any(is_part);
        let acknowledged = brief(&self.states[self.acknowledged]);
        let all = self.states.len() - 1;
        assert!(
            matches,
            "found {}\nacknowledged {acknowledged} ({} of {all})\nsubmitted {}",
            brief(&found),
            self.acknowledged,
            brief(self.latest()),
        );
        *self = Model { states: vec![found], ..Model::new() };
    }
}

fn payload_bytes(write: &Write) -> usize {
    let runs = write.slots.iter().chain([&write.entries]);
    let bytes = |entry: &Entry| match &entry.payload {
        Payload::Command(bytes) => bytes.len(),
        _ => 0,
    };
    runs.flat_map(|run| run.iter()).map(bytes).sum()
}

fn brief(state: &State) -> String {
    let group = |(id, group): (&GroupId, &Group)| {
        let entries: Vec<_> =
            group.entries.values().map(|entry| (entry.index, entry.ballot)).collect();
        format!("\n  {id}: {:?} {:?} {entries:?}", group.base.position, group.hard_state)
    };
    state.iter().map(group).collect()
}

fn plain(group: &RecoveredGroup) -> Group {
    assert!(group.damaged.is_empty(), "nothing was damaged: {:?}", group.damaged);
    let all = group.entries.iter().flat_map(|run| run.iter());
    Group {
        base: group.base.clone(),
        hard_state: group.hard_state,
        entries: all.map(|entry| (entry.index, entry.clone())).collect(),
    }
}

/// A random batch that makes sense after `state`.
pub(crate) fn random_batch(id: u64, state: &State, rng: &mut Rng) -> Batch {
    let mut writes = Vec::new();
    for group in 1..=3 {
        if rng.below(3) == 0 {
            continue;
        }
        let known = state.get(&GroupId(group)).cloned().unwrap_or_default();
        if group > 1 && rng.below(24) == 0 {
            writes.push((GroupId(group), Write::forget()));
            continue;
        }
        // The third group's entries go in their slots, in any order.
        let write = if group == 3 { random_slots(&known, rng) } else { random_write(&known, rng) };
        writes.push((GroupId(group), write));
    }
    Batch { id: BatchId(id), writes }
}

fn random_slots(known: &Group, rng: &mut Rng) -> Write {
    let (mut first, end) = (known.base.position.index + 1, known.end());
    let round = known.hard_state.promised.round + rng.below(2);
    let mut write = nothing();
    if end >= first && rng.below(3) == 0 {
        let to = rng.between(first, end);
        write.compact = Some(Box::new(base(to, round)));
        first = to + 1;
    }
    for _ in 0..rng.below(4) {
        let at = rng.between(first, end.max(first) + 3);
        let bytes = if rng.below(8) == 0 { 800 } else { rng.below(300) as usize };
        write.slots.push(entries(at, rng.between(1, 4), round, bytes).entries);
    }
    if rng.below(2) == 0 {
        let promised = Ballot::new(round, NodeId(1));
        write.hard_state = Some(HardState { promised, commit: known.base.position.index });
    }
    write
}

fn random_write(known: &Group, rng: &mut Rng) -> Write {
    let first = known.base.position.index + 1;
    let (mut end, round) = (known.end(), known.hard_state.promised.round + rng.below(2));
    let mut write = nothing();
    if rng.below(12) == 0 {
        end += rng.between(1, 20);
        write.reset = Some(Box::new(base(end, round)));
    } else {
        if end >= first && rng.below(3) == 0 {
            // Compaction follows the log closely, so that segments come free.
            let to = rng.between(first, end);
            write.compact = Some(Box::new(base(to, known.entries[&to].ballot.round)));
        }
        let kept = write.compact.as_ref().map_or(first, |base| base.position.index + 1);
        if end >= kept && rng.below(6) == 0 {
            let from = rng.between(kept, end);
            (write.truncate_from, end) = (Some(from), from - 1);
        }
    }
    if rng.below(4) > 0 {
        let bytes = if rng.below(8) == 0 { 800 } else { rng.below(300) as usize };
        write.entries = entries(end + 1, rng.below(6), round, bytes).entries;
    }
    if rng.below(2) == 0 {
        write.hard_state = Some(hard_state(round, known.hard_state.commit.max(first - 1)));
    }
    write
}
