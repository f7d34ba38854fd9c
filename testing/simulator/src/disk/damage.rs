//! Damage to what is durable, while the power is off: what a disk may do to sectors that it said it
//! had written.
//!
//! Invariant: the newest block of a log is spared by whatever would undo it without a trace. That
//! such a write ever returned nobody with one copy can know.

use super::{File, SECTOR_BYTES, SimDisk, State, Synced, put};
use crate::counters::Counters;
use quorate_base::{Instant, Rng};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where a misdirected write lands is a multiple of this.
const PAGE_BYTES: usize = 4096;

/// Before this a log's file holds its header, which exists twice and is not damaged as a whole.
const BLOCKS_FROM: usize = 2 * PAGE_BYTES;

/// What is on a disk without power.
#[derive(Clone, Debug)]
pub struct Content {
    files: BTreeMap<u64, File>,
    names: BTreeMap<String, u64>,
}

impl SimDisk {
    /// What would be left if power failed now, and nothing but what is durable were kept: on a disk
    /// of its own that never fails.
    pub fn image(&self) -> SimDisk {
        let state = self.state();
        let mut files = state.files.clone();
        for file in files.values_mut() {
            file.unsynced.clear();
            file.cached.clone_from(&file.durable);
        }
        let latency = (Duration::ZERO, Duration::ZERO);
        let plan =
            super::DiskPlan { latency, slow_ppm: 0, sync_failure_ppm: 0, write_failure_ppm: 0 };
        SimDisk(Arc::new(Mutex::new(State {
            plan,
            rng: Rng::new(0),
            now: state.now,
            stalled_until: Instant::ZERO,
            full: false,
            files,
            names: state.durable_names.clone(),
            durable_names: state.durable_names.clone(),
            name_changes: Vec::new(),
            next_inode: state.next_inode,
            next_operation: 0,
            completions: state.completions,
            pending: Vec::new(),
            failed: false,
            counters: Counters::default(),
        })))
    }

    /// What it holds, to be put back.
    pub fn content(&self) -> Content {
        let state = self.state();
        Content { files: state.files.clone(), names: state.durable_names.clone() }
    }

    /// Undoes all damage since.
    pub fn put_back(&self, content: Content) {
        let mut state = self.state();
        state.files = content.files;
        state.names.clone_from(&content.names);
        state.durable_names = content.names;
    }

    /// Flips bits in a durable write. Says where.
    pub fn rot(&self, rng: &mut Rng) -> Option<String> {
        let mut state = self.state();
        let (name, write) = state.pick_synced(rng, |_, _| true)?;
        let file = state.file_mut(&name).ok()?;
        let bits = rng.between(1, 3);
        for _ in 0..bits {
            let at = write.offset + rng.below(write.new.len() as u64) as usize;
            Arc::make_mut(&mut file.durable)[at] ^= 1 << rng.below(8);
        }
        file.cached.clone_from(&file.durable);
        Some(format!("{bits} bits of {} bytes at {} of {name}", write.new.len(), write.offset))
    }

    /// Undoes a durable write, as if it had never been made. A later one is durable.
    pub fn lose(&self, rng: &mut Rng) -> Option<String> {
        let mut state = self.state();
        let (name, write) = state.pick_synced(rng, |write, newest| write.number < newest)?;
        let file = state.file_mut(&name).ok()?;
        put(&mut file.durable, write.offset as u64, &write.old);
        file.cached.clone_from(&file.durable);
        Some(format!("{} bytes at {} of {name} are lost", write.new.len(), write.offset))
    }

    /// Undoes a durable write and puts its bytes on another page of the file: also where the log
    /// has not come to yet, if it may land `ahead`.
    pub fn misdirect(&self, rng: &mut Rng, ahead: bool) -> Option<String> {
        let mut state = self.state();
        let newest = state.newest()?;
        let holds = |file: &File| file.synced.iter().any(|write| write.number == newest);
        let end = state.names.iter().find(|(_, inode)| state.files.get(inode).is_some_and(holds));
        let end = end.map(|(name, _)| name.clone())?;
        let (name, write) = state.pick_synced(rng, |write, newest| write.number < newest)?;
        if !ahead && (name > end || !name.ends_with(".log")) {
            return None;
        }
        let file = state.file_mut(&name).ok()?;
        let newest = file.synced.iter().find(|write| write.number == newest);
        let spared = newest.map_or(0..0, |newest| newest.offset..newest.offset + newest.new.len());
        let n = write.new.len();
        let room = match newest {
            Some(newest) if !ahead => newest.offset,
            _ => file.durable.len(),
        };
        let (first, last) = (BLOCKS_FROM / PAGE_BYTES, room.checked_sub(n)? / PAGE_BYTES);
        if first > last {
            return None;
        }
        let to = rng.between(first as u64, last as u64) as usize * PAGE_BYTES;
        put(&mut file.durable, write.offset as u64, &write.old);
        let lost = to == write.offset || (to < spared.end && spared.start < to + n);
        if !lost {
            put(&mut file.durable, to as u64, &write.new);
        }
        file.cached.clone_from(&file.durable);
        let where_to = if lost { "are lost".to_owned() } else { format!("went to {to}") };
        Some(format!("{n} bytes at {} of {name} {where_to}", write.offset))
    }

    /// One sector of a durable write is as it was before. A later write is durable.
    pub fn go_stale(&self, rng: &mut Rng) -> Option<String> {
        let mut state = self.state();
        let (name, write) = state.pick_synced(rng, |write, newest| write.number < newest)?;
        let file = state.file_mut(&name).ok()?;
        let sectors = write.new.len().div_ceil(SECTOR_BYTES) as u64;
        let from = rng.below(sectors) as usize * SECTOR_BYTES;
        let to = (from + SECTOR_BYTES).min(write.old.len());
        put(&mut file.durable, (write.offset + from) as u64, write.old.get(from..to)?);
        file.cached.clone_from(&file.durable);
        Some(format!("the sector at {} of {name} is stale", write.offset + from))
    }

    /// A file ends within a durable write.
    pub fn truncate(&self, rng: &mut Rng) -> Option<String> {
        let mut state = self.state();
        let (name, write) = state.pick_synced(rng, |_, _| true)?;
        let file = state.file_mut(&name).ok()?;
        let to = write.offset + rng.below(write.new.len() as u64) as usize;
        Arc::make_mut(&mut file.durable).truncate(to);
        file.cached.clone_from(&file.durable);
        Some(format!("{name} ends at {to}"))
    }
}

impl State {
    /// The number of the newest durable block.
    fn newest(&self) -> Option<u64> {
        let all = self.files.values().flat_map(|file| &file.synced);
        all.filter(|write| write.offset >= BLOCKS_FROM).map(|write| write.number).max()
    }

    /// A durable write that nothing has overwritten since, among those that `fits`, which is told
    /// the number of the newest of all.
    fn pick_synced(
        &self,
        rng: &mut Rng,
        fits: impl Fn(&Synced, u64) -> bool,
    ) -> Option<(String, Synced)> {
        let newest = self.newest()?;
        let mut found = Vec::new();
        for (name, inode) in &self.names {
            let Some(file) = self.files.get(inode) else { continue };
            for (i, write) in file.synced.iter().enumerate() {
                let end = write.offset + write.new.len();
                let whole = file.durable.get(write.offset..end) == Some(&write.new[..]);
                // The last block of a run is written again, as it is, at the next start.
                let overlaps = |later: &Synced| {
                    later.offset < end && write.offset < later.offset + later.new.len()
                };
                let again = file.synced.range(i + 1..).any(overlaps);
                if whole && !again && write.offset >= BLOCKS_FROM && fits(write, newest) {
                    found.push((name, write));
                }
            }
        }
        rng.pick(&found).map(|(name, write)| ((*name).clone(), (*write).clone()))
    }
}
