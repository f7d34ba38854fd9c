//! The log: takes batches, joins what is waiting into one write and one sync, reports in order.
//!
//! A state machine over [`Disk::submit`] and [`Disk::poll`]; it never waits. Invariants: one
//! block is under way at a time, the next begins when its sync has returned (so that a block's
//! existence proves its predecessors complete); a batch is reported durable after the sync of the
//! block with its last record; after any failed write or sync nothing is accepted any more
//! (Rebello et al., ATC 2020: after a failed fsync the page cache lies).

use crate::batch::{Batch, BatchId};
use crate::block::{BlockBuilder, BlockHeader, FLAG_OPENING, pages_for};
use crate::canary::Canary;
use crate::error::WalError;
use crate::layout::{FIRST_BLOCK, PAGE_BYTES, segment_name};
use crate::options::{Recovery, WalOptions, WalStats};
use crate::pieces::{self, Piece};
use crate::recap::{BlockTouches, FORGOTTEN, Recap, Touch};
use crate::records::{push_base, push_hard_state, push_write};
use crate::replay::GroupPlace;
use crate::row::Kind;
use crate::script::{Progress, Script};
use crate::segments::Segments;
use bytes::{Bytes, BytesMut};
use quorate_base::{GroupId, Index};
use quorate_disk::{Completion, Disk, Operation};
use quorate_replicated_log::Write;
use std::collections::{BTreeMap, VecDeque};

/// A block on its way to the disk.
#[derive(Debug)]
struct Flight {
    script: Script,
    batches: Vec<BatchId>,
    bytes: u64,
}

/// The last good block of an earlier run, to be written again.
#[derive(Clone, Debug)]
pub(crate) struct LastBlock {
    pub segment: u64,
    pub start: u64,
    pub bytes: Bytes,
}

/// What recovery hands to the log to go on from.
#[derive(Default, Debug)]
pub(crate) struct Resume {
    pub segment: u64,
    pub offset: u64,
    pub last_block: Option<LastBlock>,
    pub number: u64,
    pub run: u64,
    pub recap: Recap,
    pub groups: BTreeMap<GroupId, GroupPlace>,
}

/// One log per disk, shared by every group.
#[derive(Debug)]
pub struct Wal<D> {
    disk: D,
    options: WalOptions,
    groups: BTreeMap<GroupId, GroupPlace>,
    segments: Segments,
    /// The segment being written, zero before the first.
    active: u64,
    offset: u64,
    /// Number of the newest block.
    number: u64,
    run: u64,
    recap: Recap,
    /// Set until the first block of this run is durable: the last block of the run before.
    opening: Option<Option<LastBlock>>,
    queue: VecDeque<Piece>,
    queued_bytes: u64,
    flight: Option<Flight>,
    done: VecDeque<(BatchId, Result<(), WalError>)>,
    poison: Option<String>,
    buffer: BytesMut,
    builder: BlockBuilder,
    stats: WalStats,
    /// The oldest and the newest segment when it was told last who holds the log back, and whether
    /// the disk was full.
    told_held: (u64, u64, bool),
}

impl<D: Disk> Wal<D> {
    /// Reads the log on `disk`, or begins one on an empty disk.
    ///
    /// What was recovered may still be lost with the power until [`Wal::is_ready`]: nothing may
    /// be said on its strength before. A disk that completes inline is ready on return; with any
    /// other, [`Wal::poll`] until it is. Batches may be submitted at once.
    ///
    /// # Errors
    /// The disk's, a newer format, another node's log, or damage that cannot be attributed.
    pub fn open(disk: D, options: WalOptions) -> Result<(Wal<D>, Recovery), WalError> {
        options.check()?;
        let (resume, segments, recovery) = crate::open::recover(&disk, &options)?;
        let mut wal = Wal {
            disk,
            options,
            groups: resume.groups,
            segments,
            active: resume.segment,
            offset: resume.offset,
            number: resume.number,
            run: resume.run,
            recap: resume.recap,
            opening: Some(resume.last_block),
            queue: VecDeque::new(),
            queued_bytes: 0,
            flight: None,
            done: VecDeque::new(),
            poison: None,
            buffer: BytesMut::new(),
            builder: BlockBuilder::default(),
            stats: WalStats::default(),
            told_held: (0, 0, false),
        };
        wal.pump(true);
        match &wal.poison {
            Some(cause) => Err(WalError::Poisoned { cause: cause.clone() }),
            None => Ok((wal, recovery)),
        }
    }

    /// Takes a batch. It is reported by [`Wal::poll`] once it is durable; batches are reported in
    /// the order in which they were submitted.
    ///
    /// # Errors
    /// `Poisoned` for ever after a failure; `TooLarge` and `Full` for this batch, of which then
    /// nothing was taken.
    pub fn submit(&mut self, batch: Batch) -> Result<(), WalError> {
        if let Some(cause) = &self.poison {
            return Err(WalError::Poisoned { cause: cause.clone() });
        }
        pieces::check(&batch, &self.options)?;
        let bytes: u64 = batch.writes.iter().map(|(_, write)| pieces::block_bytes(write)).sum();
        if self.lacks_room(bytes, pieces::may_wait(&batch)) {
            self.pump(true);
            if self.lacks_room(bytes, pieces::may_wait(&batch)) {
                return Err(WalError::Full { batch });
            }
        }
        let before = self.queue.len();
        pieces::split(batch, &self.options, &mut self.queue);
        self.queued_bytes += self.queue.iter().skip(before).map(Piece::bytes).sum::<u64>();
        self.pump(false);
        Ok(())
    }

    /// The next batch that is durable or failed, if there is one. Also takes what the disk has
    /// completed, so it must be called while [`Wal::is_idle`] says no.
    pub fn poll(&mut self) -> Option<(BatchId, Result<(), WalError>)> {
        if self.done.is_empty() {
            // What was taken before the disk turned out to be full waits for room; so does the
            // first block of a run.
            let waits = !self.queue.is_empty() || self.opening.is_some();
            let stuck = self.segments.full && self.flight.is_none() && waits;
            self.pump(stuck);
        }
        self.done.pop_front()
    }

    /// The groups that keep a long log, or one on a full disk, from giving its oldest segment up,
    /// each with the index that its base has to reach: one that is hardly used would hold all later
    /// segments for ever. Told once for each segment that is begun.
    pub fn held_back(&mut self) -> Vec<(GroupId, Index)> {
        let Some((&oldest, live)) = self.segments.live.first_key_value() else { return Vec::new() };
        let full = self.segments.full;
        let long = if full { 1 } else { self.options.long_segments };
        let now = (oldest, self.active, full);
        if oldest == self.active || self.segments.live.len() <= long || self.told_held == now {
            return Vec::new();
        }
        self.told_held = now;
        let needs = |(group, end): (&GroupId, &Index)| {
            let place = self.groups.get(group)?;
            let end = place.end.min(*end);
            (place.base.position.index < end).then_some((*group, end))
        };
        live.ends.iter().filter_map(needs).collect()
    }

    /// Whether what was recovered is known to be durable.
    pub fn is_ready(&self) -> bool {
        self.opening.is_none()
    }

    /// Whether nothing is under way or waiting.
    pub fn is_idle(&self) -> bool {
        self.flight.is_none()
            && self.queue.is_empty()
            && self.done.is_empty()
            && self.opening.is_none()
            && !self.segments.is_busy()
    }

    /// Whether a write or sync failed: the log accepts nothing any more.
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_some()
    }

    /// What the log has done and how it stands.
    pub fn stats(&self) -> WalStats {
        WalStats {
            segments: self.segments.live.len() as u64,
            spares: self.segments.spare_count() as u64,
            room_bytes: self.room(),
            full: self.segments.full,
            ..self.stats
        }
    }

    /// The disk underneath.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The disk underneath, for faults to be set and for whatever else lives in its directory.
    pub fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Gives the disk back; what is under way is abandoned.
    pub fn into_disk(self) -> D {
        self.disk
    }

    fn room(&self) -> u64 {
        let active = self.active_bytes().saturating_sub(self.offset);
        let next = self.options.segment_bytes - FIRST_BLOCK;
        active + if self.segments.is_prepared() { next } else { 0 }
    }

    fn active_bytes(&self) -> u64 {
        self.segments.live.get(&self.active).map_or(0, |live| live.bytes)
    }

    /// Only a full disk makes the log refuse: while a segment is being made, batches wait.
    fn lacks_room(&self, bytes: u64, may_wait: bool) -> bool {
        if !self.segments.full {
            return false;
        }
        let reserve = if may_wait { self.options.reserve_bytes } else { 0 };
        // Besides its own bytes a batch may need a page more and the recap.
        let overhead = 2 * PAGE_BYTES + self.recap.bytes() as u64;
        self.room() < self.queued_bytes + bytes + reserve + overhead
    }

    fn pump(&mut self, retry: bool) {
        let mut retry = retry;
        while self.poison.is_none() {
            if let Some(completion) = self.disk.poll() {
                self.on_completion(completion);
                continue;
            }
            let started = self.start_flight();
            let worked = self.segments.work(&self.options, retry, &mut self.disk);
            retry = false;
            if started || worked {
                continue;
            }
            if !self.waits_for_segment() {
                return;
            }
            self.disk.wait();
            match self.disk.poll() {
                Some(completion) => self.on_completion(completion),
                None => return,
            }
        }
    }

    /// Whether something is to be written and only the next segment is missing.
    fn waits_for_segment(&self) -> bool {
        let wanted = !self.queue.is_empty() || self.opening.is_some();
        wanted && self.flight.is_none() && self.segments.is_busy()
    }

    fn on_completion(&mut self, completion: Completion) {
        let completion = match self.segments.on(completion, &mut self.disk) {
            Ok(None) => return,
            Ok(Some(completion)) => completion,
            Err(error) => return self.fail(&error.to_string()),
        };
        let Some(flight) = &mut self.flight else { return };
        let canary = self.options.canary();
        match flight.script.on(completion, &mut self.disk) {
            Progress::NotMine(_) => {}
            Progress::Going => {
                if canary == Canary::AcknowledgeBeforeSync {
                    let batches = std::mem::take(&mut flight.batches);
                    self.done.extend(batches.into_iter().map(|id| (id, Ok(()))));
                }
            }
            Progress::Done => self.land(),
            // The deliberate bug: the sync finds nothing left to write, and says that all is well.
            Progress::Failed(_) if canary == Canary::RetrySync && flight.script.is_last() => {
                self.land();
            }
            Progress::Failed(error) => self.fail(&error.to_string()),
        }
    }

    fn land(&mut self) {
        let Some(flight) = self.flight.take() else { return };
        self.opening = None;
        self.stats.syncs += 1;
        self.stats.bytes += flight.bytes;
        self.stats.batches += flight.batches.len() as u64;
        self.done.extend(flight.batches.into_iter().map(|id| (id, Ok(()))));
        while self.oldest_is_covered() && self.stale_groups().is_empty() {
            self.segments.retire_oldest();
        }
    }

    fn fail(&mut self, cause: &str) {
        self.poison = Some(cause.to_owned());
        let poisoned = || Err(WalError::Poisoned { cause: cause.to_owned() });
        let flying = self.flight.take().map(|flight| flight.batches).unwrap_or_default();
        self.done.extend(flying.into_iter().map(|id| (id, poisoned())));
        for piece in self.queue.drain(..) {
            if piece.ends_batch {
                self.done.push_back((piece.batch, poisoned()));
            }
        }
        self.queued_bytes = 0;
    }

    /// Whether every entry in the oldest segment is behind its group's base.
    fn oldest_is_covered(&self) -> bool {
        let Some((oldest, live)) = self.segments.live.first_key_value() else { return false };
        *oldest != self.active
            && live.ends.iter().all(|(group, end)| {
                // A group that is forgotten needs nothing any more, nor one what was truncated.
                self.groups
                    .get(group)
                    .is_none_or(|place| (*end).min(place.end) <= place.base.position.index)
            })
    }

    /// The groups whose newest base or hard state is in the oldest segment.
    fn stale_groups(&self) -> Vec<GroupId> {
        let Some((&oldest, _)) = self.segments.live.first_key_value() else { return Vec::new() };
        let forget = self.options.canary() == Canary::ForgetHardState;
        let stale = |place: &GroupPlace| {
            place.base_segment == oldest || (place.hard_state_segment == oldest && !forget)
        };
        self.groups.iter().filter(|(_, place)| stale(place)).map(|(group, _)| *group).collect()
    }

    /// Puts what waits into one block, if there is something and the disk is free; says whether
    /// a block was started.
    fn start_flight(&mut self) -> bool {
        if self.flight.is_some() {
            return false;
        }
        let carried = if self.oldest_is_covered() { self.stale_groups() } else { Vec::new() };
        if self.queue.is_empty() && carried.is_empty() && self.opening.is_none() {
            return false;
        }
        let (rows, bytes) = self.fixed_cost(&carried);
        let take = match &self.opening {
            // The first block of a run promises nothing, so that it may be torn.
            Some(_) => 0,
            None => pieces::how_many(&self.queue, &self.options, rows, bytes),
        };
        let (rows, bytes) = self
            .queue
            .iter()
            .take(take)
            .fold((rows, bytes), |(r, b), piece| (r + piece.rows(), b + piece.payload_bytes()));
        if !self.place(u64::from(pages_for(rows, bytes)) * PAGE_BYTES) {
            return false;
        }
        self.launch(take, &carried);
        true
    }

    /// Rows and payload bytes of what goes into the next block beside pieces.
    fn fixed_cost(&self, carried: &[GroupId]) -> (usize, usize) {
        let places = carried.iter().filter_map(|group| self.groups.get(group));
        let bases = places.map(|place| 2 * crate::records::base_bytes(&place.base));
        (1 + 3 * carried.len(), self.recap.bytes() + bases.sum::<usize>())
    }

    /// Makes sure that so many bytes fit at the end of the log, going on to the prepared segment
    /// if need be.
    fn place(&mut self, bytes: u64) -> bool {
        if self.offset + bytes <= self.active_bytes() {
            return true;
        }
        let Some(next) = self.segments.advance(&self.options) else { return false };
        self.active = next;
        self.offset = FIRST_BLOCK;
        true
    }

    fn launch(&mut self, take: usize, carried: &[GroupId]) {
        let mut touched = BTreeMap::new();
        self.recap.push_into(&mut self.builder);
        for group in carried {
            self.carry(*group);
            touched.insert(*group, Index::MAX);
        }
        let mut batches = Vec::new();
        for _ in 0..take {
            let Some(piece) = self.queue.pop_front() else { break };
            self.queued_bytes -= piece.bytes();
            if let Some((group, write)) = &piece.write {
                push_write(&mut self.builder, *group, write, piece.in_doubt_to);
                let first = self.apply(*group, write);
                let touch = touched.entry(*group).or_insert(Index::MAX);
                *touch = first.min(*touch);
            }
            if piece.ends_batch {
                batches.push(piece.batch);
            }
        }
        // A run's first number leaves a gap: a torn block of the run before may have used the
        // number that follows.
        let opening = self.opening.is_some();
        let previous = self.number;
        self.number += if opening { 2 } else { 1 };
        let header = BlockHeader {
            segment: self.active,
            start: self.offset,
            number: self.number,
            previous,
            run: self.run,
            pages: 0,
            rows: 0,
            flags: if opening { FLAG_OPENING } else { 0 },
        };
        let header = self.builder.finish(header, &mut self.buffer);
        let touches = touched.into_iter().filter_map(|(group, first)| self.touch(group, first));
        let block = BlockTouches { number: self.number, previous, touches: touches.collect() };
        self.recap.push(block);
        if let Some(live) = self.segments.live.get_mut(&self.active) {
            live.last = self.number;
        }
        let mut todo = self.opening_operations();
        let file = segment_name(self.active);
        let parts = vec![self.buffer.split().freeze()];
        todo.push(Operation::Write { file: file.clone(), offset: self.offset, parts });
        todo.push(Operation::Sync { file });
        self.offset += header.bytes();
        let script = Script::start(todo, &mut self.disk);
        self.flight = Some(Flight { script, batches, bytes: header.bytes() });
    }

    fn touch(&self, group: GroupId, first: Index) -> Option<Touch> {
        let nothing = GroupPlace::default();
        let known = self.groups.get(&group);
        let place = known.or_else(|| (first == FORGOTTEN).then_some(&nothing))?;
        let (end, hard_state, epoch) = (place.end, place.hard_state, place.base.epoch);
        Some(Touch { group, first, end, hard_state, epoch })
    }

    /// Before the first block of a run: the headers and the last block are written again and
    /// synced, for after a failed sync the page cache may show what the disk does not have.
    fn opening_operations(&mut self) -> Vec<Operation> {
        let Some(last_block) = &mut self.opening else { return Vec::new() };
        let mut todo = Vec::new();
        let last_block = last_block.take();
        for sequence in self.segments.live.keys().rev().take(2).rev() {
            todo.push(self.segments.header_write(*sequence, &self.options));
            if let Some(LastBlock { segment, start, bytes }) = &last_block
                && segment == sequence
            {
                let (file, parts) = (segment_name(*sequence), vec![bytes.clone()]);
                todo.push(Operation::Write { file, offset: *start, parts });
            }
            // Also where the first block follows: it is written only once that is durable.
            todo.push(Operation::Sync { file: segment_name(*sequence) });
        }
        todo.push(Operation::SyncDirectory);
        todo
    }

    /// Repeats a group's base and hard state, whose segment is about to be given up.
    fn carry(&mut self, group: GroupId) {
        let active = self.active;
        let forget = self.options.canary() == Canary::ForgetHardState;
        let Some(place) = self.groups.get_mut(&group) else { return };
        if place.base_segment > 0 {
            push_base(&mut self.builder, Kind::Compact, group, &place.base);
            place.base_segment = active;
        }
        if !forget {
            push_hard_state(&mut self.builder, group, &place.hard_state);
            place.hard_state_segment = active;
        }
    }

    /// Follows what a write does to its group; returns the first index that it touches.
    fn apply(&mut self, group: GroupId, write: &Write) -> Index {
        if write.is_forget() {
            self.groups.remove(&group);
            return FORGOTTEN;
        }
        let place = self.groups.entry(group).or_default();
        let mut first = Index::MAX;
        if let Some(base) = &write.reset {
            (place.end, first) = (base.position.index, base.position.index.saturating_add(1));
        }
        for base in write.reset.iter().chain(&write.compact) {
            place.base.clone_from(base);
            place.base_segment = self.active;
            place.end = place.end.max(base.position.index);
        }
        if let Some(from) = write.truncate_from {
            place.end = place.end.min(from.saturating_sub(1));
            first = first.min(from);
        }
        if let (Some(from), Some(end)) = (write.entries.first_index(), write.entries.last_index()) {
            place.end = end;
            first = first.min(from);
            if let Some(live) = self.segments.live.get_mut(&self.active) {
                let known = live.ends.entry(group).or_default();
                *known = end.max(*known);
            }
        }
        for run in &write.slots {
            let (Some(from), Some(end)) = (run.first_index(), run.last_index()) else { continue };
            place.end = place.end.max(end);
            first = first.min(from);
            if let Some(live) = self.segments.live.get_mut(&self.active) {
                let known = live.ends.entry(group).or_default();
                *known = end.max(*known);
            }
        }
        if let Some(hard_state) = write.hard_state {
            place.hard_state = hard_state;
            place.hard_state_segment = self.active;
        }
        first
    }
}
