//! A disk with faults. What is written is *pending* until it completes, *cached* until a sync that
//! was submitted afterwards completes, and *durable* only then.
//!
//! Invariant: a crash keeps every durable sector, and of the rest any mixture that a disk with
//! atomic sectors of 512 bytes may leave. Damage to durable sectors (see `disk/damage.rs`) happens
//! only where the fault atlas allows it.

mod damage;

pub use damage::Content;

use crate::counters::{Counters, Happening};
use bytes::Bytes;
use quorate_base::{Instant, Rng};
use quorate_disk::{Completion, Disk, DiskError, Operation, OperationId};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a disk writes at once or not at all.
pub const SECTOR_BYTES: usize = 512;

/// How a disk behaves.
#[derive(Clone, Default, Debug)]
pub struct DiskPlan {
    /// Shortest and longest time of an operation.
    pub latency: (Duration, Duration),
    /// How often an operation takes much longer.
    pub slow_ppm: u32,
    /// How often a sync fails.
    pub sync_failure_ppm: u32,
    /// How often a write fails.
    pub write_failure_ppm: u32,
}

/// A disk's files. A clone is another handle of the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    plan: DiskPlan,
    rng: Rng,
    now: Instant,
    stalled_until: Instant,
    full: bool,
    files: BTreeMap<u64, File>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Name operations completed and not yet durable, in order, each with its completion number.
    name_changes: Vec<(u64, NameChange)>,
    next_inode: u64,
    next_operation: u64,
    /// Counts completions: what a sync covers was completed before the sync was submitted.
    completions: u64,
    pending: Vec<Pending>,
    /// Whether an operation failed since it was last asked.
    failed: bool,
    counters: Counters,
}

#[derive(Clone, Default, Debug)]
struct File {
    /// Shared until it is written to: images of disks are made often.
    cached: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    /// Writes completed and not durable, in order, each with its completion number.
    unsynced: Vec<(u64, u64, Bytes)>,
    /// The latest writes made durable.
    synced: VecDeque<Synced>,
}

/// A durable write, and what it replaced.
#[derive(Clone, Debug)]
struct Synced {
    number: u64,
    offset: usize,
    new: Bytes,
    old: Vec<u8>,
}

/// Durable writes that are remembered for each file, to be damaged.
const REMEMBERED: usize = 6;

#[derive(Clone, Debug)]
enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug)]
struct Pending {
    id: OperationId,
    at: Instant,
    /// Completions when it was submitted.
    submitted: u64,
    operation: Operation,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(plan: DiskPlan, rng: Rng) -> Self {
        SimDisk(Arc::new(Mutex::new(State {
            plan,
            rng,
            now: Instant::ZERO,
            stalled_until: Instant::ZERO,
            full: false,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            next_inode: 0,
            next_operation: 0,
            completions: 0,
            pending: Vec::new(),
            failed: false,
            counters: Counters::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the disk the (true) time.
    pub fn set_now(&self, now: Instant) {
        let mut state = self.state();
        state.now = state.now.max(now);
    }

    /// When the next operation completes.
    pub fn next_completion(&self) -> Option<Instant> {
        self.state().next_pending().map(|(at, _)| at)
    }

    /// Completes nothing until then.
    pub fn stall_until(&self, until: Instant) {
        let mut state = self.state();
        state.stalled_until = until;
        for pending in &mut state.pending {
            pending.at = pending.at.max(until);
        }
        state.counters.add(Happening::DiskStalled);
    }

    /// Refuses to make new files while set.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Stops failing by itself (the run is healing).
    pub fn heal(&self) {
        let mut state = self.state();
        state.plan.sync_failure_ppm = 0;
        state.plan.write_failure_ppm = 0;
        state.full = false;
        state.stalled_until = Instant::ZERO;
    }

    /// Loses power.
    pub fn crash(&self) {
        self.state().crash();
    }

    /// Its user is gone, the power is not: what was under way completes or does not, what was
    /// cached stays.
    pub fn kill(&self) {
        let mut state = self.state();
        let pending = state.take_pending();
        for p in pending {
            if state.rng.below(2) == 0 {
                let _ = state.complete(p.submitted, p.operation);
            }
        }
        state.failed = false;
    }

    /// Whether an operation failed since this was last asked.
    pub fn take_failed(&self) -> bool {
        std::mem::take(&mut self.state().failed)
    }

    /// Takes what was counted.
    pub fn take_counters(&self) -> Counters {
        std::mem::take(&mut self.state().counters)
    }
}

impl Disk for SimDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn len(&self, file: &str) -> Result<u64, DiskError> {
        let state = self.state();
        state.file(file).map(|f| f.cached.len() as u64).map_err(|e| failed("length of", file, e))
    }

    fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        let state = self.state();
        let content = &state.file(file).map_err(|e| failed("reading", file, e))?.cached;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let to = from.saturating_add(len).min(content.len());
        Ok(Bytes::copy_from_slice(&content[from..to]))
    }

    fn submit(&mut self, operation: Operation) -> OperationId {
        self.state().submit(operation)
    }

    fn poll(&mut self) -> Option<Completion> {
        let mut state = self.state();
        let (at, i) = state.next_pending()?;
        if at > state.now {
            return None;
        }
        let pending = state.pending.swap_remove(i);
        let result = state.complete(pending.submitted, pending.operation);
        Some(Completion { id: pending.id, result })
    }
}

fn failed(doing: &str, file: &str, source: io::Error) -> DiskError {
    DiskError { doing: format!("{doing} {file}"), source }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl State {
    fn file(&self, name: &str) -> io::Result<&File> {
        self.names.get(name).and_then(|inode| self.files.get(inode)).ok_or_else(missing)
    }

    fn file_mut(&mut self, name: &str) -> io::Result<&mut File> {
        let inode = *self.names.get(name).ok_or_else(missing)?;
        self.files.get_mut(&inode).ok_or_else(missing)
    }

    fn next_pending(&self) -> Option<(Instant, usize)> {
        let at = |(i, p): (usize, &Pending)| (p.at, p.id, i);
        self.pending.iter().enumerate().map(at).min().map(|(at, _, i)| (at, i))
    }

    fn take_pending(&mut self) -> Vec<Pending> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_by_key(|p| p.id);
        pending
    }

    fn submit(&mut self, operation: Operation) -> OperationId {
        self.next_operation += 1;
        let id = OperationId(self.next_operation);
        let (least, most) = self.plan.latency;
        let mut latency = self.rng.duration(least, most);
        if self.rng.chance_ppm(self.plan.slow_ppm) {
            latency = latency * 20 + Duration::from_millis(5);
        }
        let at = (self.now + latency).max(self.stalled_until);
        self.pending.push(Pending { id, at, submitted: self.completions, operation });
        id
    }

    fn complete(&mut self, submitted: u64, operation: Operation) -> Result<(), DiskError> {
        self.completions += 1;
        let number = self.completions;
        match operation {
            Operation::Create { file, bytes } => self.create(number, &file, bytes),
            Operation::Write { file, offset, parts } => {
                if self.rng.chance_ppm(self.plan.write_failure_ppm) {
                    self.counters.add(Happening::WriteFailed);
                    self.failed = true;
                    return Err(failed("writing", &file, io::Error::from_raw_os_error(5)));
                }
                let data = match <[Bytes; 1]>::try_from(parts) {
                    Ok([one]) => one,
                    Err(parts) => Bytes::from(parts.concat()),
                };
                let target = self.file_mut(&file).map_err(|e| failed("writing", &file, e))?;
                put(&mut target.cached, offset, &data);
                target.unsynced.push((number, offset, data));
                Ok(())
            }
            Operation::Sync { file } => self.sync(submitted, &file),
            Operation::Rename { from, to } => {
                let inode =
                    self.names.remove(&from).ok_or_else(|| failed("renaming", &from, missing()))?;
                self.names.insert(to.clone(), inode);
                self.name_changes.push((number, NameChange::Rename(from, to)));
                Ok(())
            }
            Operation::Remove { file } => {
                self.names.remove(&file).ok_or_else(|| failed("removing", &file, missing()))?;
                self.name_changes.push((number, NameChange::Remove(file)));
                Ok(())
            }
            Operation::SyncDirectory => {
                let keep = self.name_changes.partition_point(|(at, _)| *at <= submitted);
                for (_, change) in self.name_changes.drain(..keep) {
                    change.apply(&mut self.durable_names);
                }
                Ok(())
            }
        }
    }

    fn create(&mut self, number: u64, file: &str, bytes: u64) -> Result<(), DiskError> {
        if self.full {
            self.counters.add(Happening::DiskFull);
            return Err(failed("creating", file, io::ErrorKind::StorageFull.into()));
        }
        if self.names.contains_key(file) {
            return Err(failed("creating", file, io::ErrorKind::AlreadyExists.into()));
        }
        self.next_inode += 1;
        let inode = self.next_inode;
        let cached = Arc::new(vec![0; bytes as usize]);
        self.files.insert(inode, File { cached, ..File::default() });
        self.names.insert(file.to_owned(), inode);
        self.name_changes.push((number, NameChange::Create(file.to_owned(), inode)));
        Ok(())
    }

    fn sync(&mut self, submitted: u64, file: &str) -> Result<(), DiskError> {
        let fails = self.rng.chance_ppm(self.plan.sync_failure_ppm);
        let mut rng = self.rng.fork(1);
        let target = self.file_mut(file).map_err(|e| failed("syncing", file, e))?;
        let covered = target.unsynced.partition_point(|(at, ..)| *at <= submitted);
        let len = target.cached.len().max(target.durable.len());
        let durable = Arc::make_mut(&mut target.durable);
        durable.resize(len, 0);
        for (number, offset, new) in target.unsynced.drain(..covered) {
            // A failed sync may have written any of it, and marks the rest as if it had.
            if !fails || rng.below(2) == 0 {
                let at = offset as usize;
                let mut old = durable[at..at + new.len()].to_vec();
                // What is written again, as it is, may be lost as if it had never been written.
                let again = |it: &&Synced| it.offset == at && it.new == new;
                if let Some(first) = target.synced.iter().rev().find(again)
                    && old == new
                {
                    old.clone_from(&first.old);
                }
                durable[at..at + new.len()].copy_from_slice(&new);
                target.synced.push_back(Synced { number, offset: at, new, old });
                if target.synced.len() > REMEMBERED {
                    target.synced.pop_front();
                }
            }
        }
        if fails {
            self.failed = true;
            self.counters.add(Happening::SyncFailed);
            return Err(failed("syncing", file, io::Error::from_raw_os_error(5)));
        }
        Ok(())
    }

    fn crash(&mut self) {
        // Whatever was under way may have reached the medium too.
        let pending = self.take_pending();
        for p in pending {
            if matches!(p.operation, Operation::Sync { .. } | Operation::SyncDirectory) {
                continue;
            }
            let _ = self.complete(u64::MAX, p.operation);
        }
        self.failed = false;
        // A journalling file system keeps the first of the changes of names, another any of them.
        let keep = self.rng.between(0, self.name_changes.len() as u64) as usize;
        let ordered = self.rng.below(2) == 0;
        for (i, (_, change)) in self.name_changes.drain(..).enumerate() {
            let kept = if ordered { i < keep } else { self.rng.below(2) == 0 };
            if kept {
                change.apply(&mut self.durable_names);
            }
        }
        self.durable_names.retain(|_, inode| self.files.contains_key(inode));
        self.names = self.durable_names.clone();
        let named: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|inode, _| named.contains(inode));
        let mode = CrashMode::draw(&mut self.rng);
        for file in self.files.values_mut() {
            if file.durable.len() < file.cached.len() {
                // Never synced: its length is as undecided as its content.
                let len = [file.durable.len(), file.cached.len()][self.rng.below(2) as usize];
                Arc::make_mut(&mut file.durable).resize(len, 0);
            }
            let unsynced = std::mem::take(&mut file.unsynced);
            if !unsynced.is_empty() {
                let durable = Arc::make_mut(&mut file.durable);
                mode.settle(&unsynced, durable, &mut self.rng, &mut self.counters);
            }
            file.cached.clone_from(&file.durable);
        }
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Create(name, inode) => {
                names.insert(name, inode);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
            NameChange::Remove(name) => {
                names.remove(&name);
            }
        }
    }
}

/// What a crash leaves of writes that were not durable.
#[derive(Clone, Copy, Debug)]
enum CrashMode {
    KeepAll,
    LoseAll,
    /// Each write wholly or not at all.
    WholeWrites,
    /// Each sector by itself.
    Sectors,
}

impl CrashMode {
    fn draw(rng: &mut Rng) -> CrashMode {
        match rng.below(8) {
            0 => CrashMode::KeepAll,
            1 | 2 => CrashMode::LoseAll,
            3 | 4 => CrashMode::WholeWrites,
            _ => CrashMode::Sectors,
        }
    }

    fn settle(
        self,
        unsynced: &[(u64, u64, Bytes)],
        durable: &mut [u8],
        rng: &mut Rng,
        counters: &mut Counters,
    ) {
        for (_, offset, data) in unsynced {
            let (mut kept, mut lost, mut reordered) = (false, false, false);
            let mut at = 0;
            while at < data.len() {
                let absolute = *offset as usize + at;
                let whole = SECTOR_BYTES - absolute % SECTOR_BYTES;
                let n = match self {
                    CrashMode::Sectors => whole.min(data.len() - at),
                    _ => data.len(),
                };
                let keep = match self {
                    CrashMode::KeepAll => true,
                    CrashMode::LoseAll => false,
                    CrashMode::WholeWrites | CrashMode::Sectors => rng.below(2) == 0,
                };
                if keep && absolute + n <= durable.len() {
                    durable[absolute..absolute + n].copy_from_slice(&data[at..at + n]);
                }
                reordered |= keep && lost;
                kept |= keep;
                lost |= !keep;
                at += n;
            }
            match (kept, lost) {
                (true, true) => counters.add(Happening::WriteTorn),
                (false, true) => counters.add(Happening::WriteLost),
                _ => {}
            }
            if reordered {
                counters.add(Happening::WriteReordered);
            }
        }
    }
}

fn put(content: &mut Arc<Vec<u8>>, offset: u64, data: &[u8]) {
    let content = Arc::make_mut(content);
    let from = offset as usize;
    let to = from + data.len();
    if content.len() < to {
        content.resize(to, 0);
    }
    content[from..to].copy_from_slice(data);
}

#[cfg(test)]
mod tests;
