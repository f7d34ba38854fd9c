//! Replay: what the records, taken in order, say about each group.
//!
//! Invariant: an index between the base and the end of a group's log is either an entry or
//! damaged; nothing that was ever known to be there is silently missing.

use crate::block::{Block, BlockHeader};
use crate::error::WalError;
use crate::recap::{BlockTouches, FORGOTTEN, Recap, Touch};
use crate::records::{FORGET_GROUP, read_base, read_entry};
use crate::row::{Kind, Row};
use quorate_base::{Ballot, GroupId, Index, Position};
use quorate_replicated_log::{Base, Entries, Entry, Epoch, HardState, MAX_GAP, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// What the log holds of one group.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RecoveredGroup {
    /// Its log begins after this.
    pub base: Base,
    /// What was promised.
    pub hard_state: HardState,
    /// The entries after the base, in runs of consecutive indexes.
    pub entries: Vec<Entries>,
    /// What was there and cannot be read, in order.
    pub damaged: Vec<RangeInclusive<Index>>,
    /// Of those, the ones whose ballot can still be read, in order.
    pub damaged_ballots: Vec<Position>,
}

impl RecoveredGroup {
    /// The last index of the group's log, readable or not.
    pub fn end(&self) -> Index {
        let entries = self.entries.last().and_then(Entries::last_index).unwrap_or(0);
        let damaged = self.damaged.last().map_or(0, |range| *range.end());
        entries.max(damaged).max(self.base.position.index)
    }
}

/// One group while its records are read.
#[derive(Default, Debug)]
struct GroupLog {
    base: Base,
    hard_state: HardState,
    entries: BTreeMap<Index, Entry>,
    /// Ballots of entries of which nothing else can be read.
    ballots: BTreeMap<Index, Ballot>,
    /// Slots below the end in which nothing was ever accepted.
    missing: BTreeSet<Index>,
    /// Last index that was ever written and not truncated since.
    end: Index,
    /// What was truncated may have been promised, until the entries up to this one are there.
    in_doubt_to: Index,
    /// Segment of the newest base and of the newest hard state.
    base_segment: u64,
    hard_state_segment: u64,
    /// The epoch that the log was in after a block that is lost.
    epoch: Epoch,
}

impl GroupLog {
    fn truncate(&mut self, from: Index) {
        self.entries.split_off(&from);
        self.ballots.split_off(&from);
        self.missing.split_off(&from);
        self.end = self.end.min(from.saturating_sub(1));
    }

    /// A truncation from here on, or the end of the group; returns the first index touched.
    fn forget(&mut self, from: Index, in_doubt_to: Index) -> Result<Index, WalError> {
        if from == FORGET_GROUP {
            *self = GroupLog::default();
            return Ok(FORGOTTEN);
        }
        if in_doubt_to.saturating_sub(from) > GAP_LIMIT {
            let what = format!("a truncation up to entry {in_doubt_to}");
            return Err(WalError::Damaged { what });
        }
        self.truncate(from);
        self.in_doubt_to = in_doubt_to;
        Ok(from)
    }

    /// An entry, or one that cannot be read, in its slot; what lies between the end and the slot
    /// was never written.
    fn fill(&mut self, at: Position, entry: Option<Entry>) -> Result<(), WalError> {
        let index = at.index;
        let gap = index.saturating_sub(self.end).saturating_sub(1);
        if gap > GAP_LIMIT {
            let what = format!("a slot {gap} entries past the end of the log");
            return Err(WalError::Damaged { what });
        }
        self.missing.extend(self.end.saturating_add(1)..index);
        self.missing.remove(&index);
        self.entries.remove(&index);
        self.put(at, entry);
        self.end = self.end.max(index);
        Ok(())
    }

    fn put(&mut self, at: Position, entry: Option<Entry>) {
        self.ballots.remove(&at.index);
        match entry {
            Some(entry) => drop(self.entries.insert(at.index, entry)),
            None => drop(self.ballots.insert(at.index, at.ballot)),
        }
    }

    fn append(&mut self, at: Position, entry: Option<Entry>) {
        let index = at.index;
        if index <= self.end {
            // The truncation that must have come before is itself damaged.
            self.truncate(index);
        }
        self.put(at, entry);
        self.end = index;
        if index >= self.in_doubt_to {
            self.in_doubt_to = 0;
        }
    }

    /// A base, if it can be read; returns the first index that this touches.
    fn begin_after(&mut self, row: &Row, base: Option<Base>, segment: u64) -> Index {
        if let Some(base) = base {
            if row.kind == Kind::Reset {
                self.truncate(0);
                self.in_doubt_to = 0;
            }
            self.rebase(base, segment);
        }
        if row.kind == Kind::Reset { row.index.saturating_add(1) } else { Index::MAX }
    }

    fn rebase(&mut self, base: Base, segment: u64) {
        self.entries = self.entries.split_off(&base.position.index.saturating_add(1));
        self.ballots = self.ballots.split_off(&base.position.index.saturating_add(1));
        self.missing = self.missing.split_off(&base.position.index.saturating_add(1));
        self.end = self.end.max(base.position.index);
        self.base = base;
        self.base_segment = segment;
    }

    /// What is known of the group once a block that touched it turned out unreadable.
    fn lose(&mut self, touch: &Touch, kept: &BTreeSet<(GroupId, Index)>, segment: u64) {
        let before = self.ballot_at(touch.first.saturating_sub(1));
        self.entries
            .retain(|index, _| *index < touch.first || kept.contains(&(touch.group, *index)));
        self.entries.split_off(&touch.end.saturating_add(1));
        self.ballots.split_off(&touch.first);
        // What was missing may have been filled by what is lost.
        self.missing.split_off(&touch.first);
        self.end = touch.end;
        self.epoch = self.epoch.max(touch.epoch);
        self.hard_state = touch.hard_state;
        self.hard_state_segment = segment;
        // Rounds never fall, and none was above what was promised then: so they may be known. That
        // is to be found out here, for what is promised now may be of a later round.
        let count = touch.end.saturating_sub(touch.first);
        if let Some(before) = before
            && before.round == touch.hard_state.promised.round
            && count < RUN_ENTRIES as u64
        {
            let lost = (touch.first..=touch.end).filter(|at| !self.entries.contains_key(at));
            self.ballots.extend(lost.map(|index| (index, before)));
        }
    }

    fn ballot_at(&self, index: Index) -> Option<Ballot> {
        if index == self.base.position.index {
            return Some(self.base.position.ballot);
        }
        let entry = self.entries.get(&index).map(|entry| entry.ballot);
        entry.or_else(|| self.ballots.get(&index).copied())
    }

    /// Whether nothing was said of the group, or it was forgotten.
    fn is_nothing(&self) -> bool {
        self.end == 0 && self.base_segment == 0 && self.hard_state_segment == 0
    }

    fn finish(mut self) -> RecoveredGroup {
        self.end = self.end.max(self.in_doubt_to);
        self.entries = self.entries.split_off(&self.base.position.index.saturating_add(1));
        let mut out = RecoveredGroup {
            hard_state: self.hard_state,
            entries: Vec::new(),
            damaged: Vec::new(),
            damaged_ballots: Vec::new(),
            base: self.base,
        };
        let mut next = out.base.position.index.saturating_add(1);
        let mut run: Vec<Entry> = Vec::new();
        for (index, entry) in self.entries {
            out.damage(next..=index.saturating_sub(1), &self.missing);
            if index > next || run.len() >= RUN_ENTRIES {
                out.flush(&mut run);
            }
            run.push(entry);
            next = index.saturating_add(1);
        }
        out.flush(&mut run);
        out.damage(next..=self.end, &self.missing);
        let within = self.ballots.range(out.base.position.index.saturating_add(1)..);
        let known = within.take_while(|(index, _)| **index <= self.end);
        out.damaged_ballots = known.map(|(index, ballot)| Position::new(*index, *ballot)).collect();
        out
    }
}

/// Longest run of entries that replay makes.
const RUN_ENTRIES: usize = 1 << 16;

/// More slots than this are never left open: nobody writes one that is so far away.
const GAP_LIMIT: u64 = 1 << 24;
const _: () = assert!(MAX_GAP <= GAP_LIMIT, "what is written is read");

impl RecoveredGroup {
    /// What of a gap is damaged: all that is not known to be missing.
    fn damage(&mut self, gap: RangeInclusive<Index>, missing: &BTreeSet<Index>) {
        let mut next = *gap.start();
        if gap.is_empty() {
            return;
        }
        for &hole in missing.range(gap.clone()) {
            if hole > next {
                self.damaged.push(next..=hole - 1);
            }
            next = hole.saturating_add(1);
        }
        if next <= *gap.end() {
            self.damaged.push(next..=*gap.end());
        }
    }

    fn flush(&mut self, run: &mut Vec<Entry>) {
        if !run.is_empty() {
            self.entries.push(Entries::new(std::mem::take(run)));
        }
    }
}

/// Where a group's newest base and hard state are, and the last index of its log: what the log
/// must go on knowing after recovery.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct GroupPlace {
    pub base: Base,
    pub hard_state: HardState,
    pub end: Index,
    pub base_segment: u64,
    pub hard_state_segment: u64,
}

/// Highest index of each group in each segment: what must be given up before the segment is.
pub(crate) type SegmentEnds = BTreeMap<u64, BTreeMap<GroupId, Index>>;

/// The segment tells of the group's log up to this index.
fn reach(ends: &mut SegmentEnds, segment: u64, group: GroupId, index: Index) {
    let end = ends.entry(segment).or_default().entry(group).or_default();
    *end = index.max(*end);
}

/// Takes blocks in order.
#[derive(Default, Debug)]
pub(crate) struct Replay {
    groups: BTreeMap<GroupId, GroupLog>,
    /// All blocks up to this number were taken whole, or what they touched is known.
    whole: u64,
    /// Entries given by blocks after that.
    kept: BTreeSet<(GroupId, Index)>,
    pub segment_ends: SegmentEnds,
    /// Number of the last block of each segment.
    pub segment_lasts: BTreeMap<u64, u64>,
    /// Number of the last block before the log, if it is known; else zero.
    pub after: u64,
    /// Records that could not be read.
    pub damaged_records: u64,
    /// Blocks known from recaps alone.
    pub lost_blocks: u64,
    pub recap: Recap,
    /// The protocol of groups whose bases, in format 1, name none.
    unnamed: Protocol,
}

impl Replay {
    /// Nothing taken yet. `unnamed` is the protocol of groups whose bases name none.
    pub fn new(unnamed: Protocol) -> Replay {
        Replay { unnamed, ..Replay::default() }
    }

    /// Takes a block. Fails when something lost before it can no longer be attributed. Before
    /// the first block of a log whose beginning was recycled, `skipped_pages` tells how many
    /// pages could not be read: at least a block may have been in each.
    pub fn take(&mut self, block: &Block, skipped_pages: u64) -> Result<(), WalError> {
        let segment = block.header.segment;
        self.segment_lasts.insert(segment, block.header.number);
        let previous = block.header.previous;
        if self.whole == 0 && block.header.number > 0 {
            self.whole = previous;
            // What was lost at the end of the segment before is told here, too.
            if skipped_pages > 0 || self.after > 0 {
                self.whole = self.first_whole(block, skipped_pages)?;
            }
        }
        if previous > self.whole {
            self.attribute(block)?;
        }
        let broken_row = block.rows.iter().any(Option::is_none);
        let mut touched: BTreeMap<GroupId, Index> = BTreeMap::new();
        let mut bases: BTreeMap<(GroupId, Index), bool> = BTreeMap::new();
        for row in block.rows.iter().flatten() {
            if row.kind == Kind::Recap {
                continue;
            }
            let payload = block.payload(row);
            self.damaged_records += u64::from(payload.is_none());
            let group = self.groups.entry(row.group).or_default();
            let first = match row.kind {
                Kind::HardState => {
                    group.hard_state = HardState { promised: row.ballot, commit: row.index };
                    group.hard_state_segment = segment;
                    Index::MAX
                }
                Kind::Truncate => {
                    let in_doubt_to = row.ballot.round;
                    // Who tells of the doubt must stay for as long as it counts.
                    reach(&mut self.segment_ends, segment, row.group, in_doubt_to);
                    group.forget(row.index, in_doubt_to)?
                }
                Kind::Reset | Kind::Compact => {
                    let base =
                        payload.and_then(|payload| read_base(row, payload, self.unnamed).ok());
                    *bases.entry((row.group, row.index)).or_default() |= base.is_some();
                    group.begin_after(row, base, segment)
                }
                _ => {
                    let entry = payload.and_then(|payload| read_entry(row, payload).ok());
                    if broken_row && entry.is_some() {
                        self.kept.insert((row.group, row.index));
                    }
                    let at = Position::new(row.index, row.ballot);
                    match row.kind.is_slot() {
                        true => group.fill(at, entry)?,
                        false => group.append(at, entry),
                    }
                    reach(&mut self.segment_ends, segment, row.group, row.index);
                    row.index
                }
            };
            let touch = touched.entry(row.group).or_insert(Index::MAX);
            *touch = first.min(*touch);
        }
        if let Some(((group, index), _)) = bases.iter().find(|(_, known)| !**known) {
            let what = format!("the base of group {group} at index {index}, in both copies");
            return Err(WalError::Damaged { what });
        }
        if !broken_row {
            self.whole = block.header.number;
            self.remember(&block.header, touched);
        } // Else the next block tells what it touched.
        Ok(())
    }

    fn remember(&mut self, header: &BlockHeader, touched: BTreeMap<GroupId, Index>) {
        let BlockHeader { number, previous, .. } = *header;
        let touch = |(group, first): (GroupId, Index)| {
            let nothing = GroupLog::default();
            let known = self.groups.get(&group);
            let log = known.or_else(|| (first == FORGOTTEN).then_some(&nothing))?;
            let (end, hard_state, epoch) = (log.end, log.hard_state, log.base.epoch);
            Some(Touch { group, first, end, hard_state, epoch })
        };
        let touches = touched.into_iter().filter_map(touch).collect();
        self.recap.push(BlockTouches { number, previous, touches });
    }

    /// The deliberate bug of taking whatever block is found for the next one.
    pub fn believe(&mut self, header: &BlockHeader) {
        self.whole = header.previous;
    }

    /// What the block tells about those before it, oldest first.
    fn told(block: &Block) -> Vec<BlockTouches> {
        let recap = block.rows.iter().flatten().find(|row| row.kind == Kind::Recap);
        let recap = recap.and_then(|row| Some((row.index, block.payload(row)?)));
        recap.and_then(|(format, payload)| Recap::decode(payload, format).ok()).unwrap_or_default()
    }

    /// Whether the log before this block, as it was when the block was written, had one of an
    /// earlier `number`; nothing if that was too long ago to tell.
    pub fn knows(block: &Block, number: u64) -> Option<bool> {
        let told = Self::told(block);
        let mut at = block.header.previous;
        while at > number {
            at = told.iter().find(|it| it.number == at).filter(|it| it.previous < at)?.previous;
        }
        Some(at == number)
    }

    fn first_whole(&self, block: &Block, skipped_pages: u64) -> Result<u64, WalError> {
        if self.after > 0 {
            return Ok(self.after); // Exactly what was there before is gone.
        }
        let told = Self::told(block);
        let oldest = usize::try_from(skipped_pages).ok().and_then(|n| told.len().checked_sub(n));
        match oldest.and_then(|i| told.get(i)) {
            Some(lost) => Ok(lost.previous),
            None if told.first().is_some_and(|lost| lost.previous == 0) => Ok(0),
            None => Err(WalError::Damaged {
                what: format!("the first {skipped_pages} pages of blocks in the log"),
            }),
        }
    }

    /// Applies what the block tells about blocks of which something is missing.
    fn attribute(&mut self, block: &Block) -> Result<(), WalError> {
        let told = Self::told(block);
        let mut chain = Vec::new();
        let mut wanted = block.header.previous;
        while wanted > self.whole {
            let Some(lost) = told.iter().find(|lost| lost.number == wanted) else {
                return Err(self.unattributed(block.header.previous));
            };
            if lost.previous >= wanted {
                return Err(self.unattributed(wanted));
            }
            wanted = lost.previous;
            chain.push(lost);
        }
        for lost in chain.into_iter().rev() {
            self.lost_blocks += 1;
            for touch in &lost.touches {
                if touch.first == FORGOTTEN {
                    self.groups.remove(&touch.group);
                    if touch.end == 0 && touch.hard_state == HardState::default() {
                        continue;
                    }
                }
                let group = self.groups.entry(touch.group).or_default();
                group.lose(touch, &self.kept, block.header.segment);
                // Who tells of it must stay for as long as what is lost counts.
                if touch.first <= touch.end {
                    let segment = block.header.segment;
                    reach(&mut self.segment_ends, segment, touch.group, touch.end);
                }
            }
            self.recap.push(lost.clone());
        }
        self.kept.clear();
        self.whole = block.header.previous;
        Ok(())
    }

    fn unattributed(&self, last: u64) -> WalError {
        let first = self.whole.saturating_add(1);
        let what = format!("log blocks from {first} to {last}, and what repeats what they touched");
        WalError::Damaged { what }
    }

    /// Fails when something is lost up to the log's last block that nothing told about.
    pub fn check_attributed(&self, last: u64) -> Result<(), WalError> {
        if last > self.whole { Err(self.unattributed(last)) } else { Ok(()) }
    }

    /// Fails when a log entered an epoch by a record that is lost, and nothing repeated it: its
    /// entries would be taken for those of an earlier epoch.
    pub fn check_epochs(&self) -> Result<(), WalError> {
        let lost = self.groups.iter().find(|(_, log)| log.epoch > log.base.epoch);
        let Some((group, log)) = lost else { return Ok(()) };
        let what =
            format!("the record by which the log of group {group} entered epoch {}", log.epoch);
        Err(WalError::Damaged { what })
    }

    /// Everything that was found, and where it is.
    pub fn finish(self) -> (BTreeMap<GroupId, RecoveredGroup>, BTreeMap<GroupId, GroupPlace>) {
        let mut groups = BTreeMap::new();
        let mut places = BTreeMap::new();
        for (id, log) in self.groups.into_iter().filter(|(_, log)| !log.is_nothing()) {
            let (base_segment, hard_state_segment) = (log.base_segment, log.hard_state_segment);
            let group = log.finish();
            places.insert(
                id,
                GroupPlace {
                    base: group.base.clone(),
                    hard_state: group.hard_state,
                    end: group.end(),
                    base_segment,
                    hard_state_segment,
                },
            );
            groups.insert(id, group);
        }
        (groups, places)
    }
}
