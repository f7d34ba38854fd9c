//! A disk that can stall, fill up, fail and lose power, sector by sector.

use bytes::{Bytes, BytesMut};
use quorate_base::Rng;
use quorate_disk::{Completion, Disk, DiskError, Operation, OperationId};
use std::collections::{BTreeMap, VecDeque};
use std::io::{Error, ErrorKind};

const SECTOR: usize = 512;

#[derive(Clone, Default, Debug)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
}

/// Something done to a name.
#[derive(Clone, Debug)]
enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Create(name, number) => drop(names.insert(name.clone(), *number)),
            NameChange::Rename(from, to) => {
                if let Some(number) = names.remove(from) {
                    names.insert(to.clone(), number);
                }
            }
            NameChange::Remove(name) => drop(names.remove(name)),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct FaultDisk {
    files: BTreeMap<u64, File>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// What was done to names since the last sync of the directory.
    name_changes: Vec<NameChange>,
    next_file: u64,
    submitted: u64,
    waiting: VecDeque<(OperationId, Operation)>,
    completed: VecDeque<(OperationId, Option<ErrorKind>)>,
    /// Operations run only when `step` says so.
    pub held: bool,
    /// Power fails before this operation: it and all later ones do nothing and never complete.
    pub cut_at: u64,
    /// This operation fails.
    pub fail_at: u64,
    /// Bytes that all files together may have.
    pub capacity: u64,
    pub syncs: u64,
}

impl FaultDisk {
    pub(crate) fn new() -> Self {
        FaultDisk {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            next_file: 0,
            submitted: 0,
            waiting: VecDeque::new(),
            completed: VecDeque::new(),
            held: false,
            cut_at: u64::MAX,
            fail_at: u64::MAX,
            capacity: u64::MAX,
            syncs: 0,
        }
    }

    pub(crate) fn operations(&self) -> u64 {
        self.submitted
    }

    /// Runs one held operation, any of them.
    pub(crate) fn step(&mut self, rng: &mut Rng) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let chosen = rng.below(self.waiting.len() as u64) as usize;
        let Some((id, operation)) = self.waiting.remove(chosen) else { return false };
        let result = self.run(id, &operation).err();
        self.completed.push_back((id, result));
        true
    }

    /// Loses power: of what was not durable each sector is kept or not. Of the changes of names
    /// that were not durable the first are kept, as file systems with a journal do, or any, which
    /// is all that POSIX promises.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        // A held write may have been on its way.
        while let Some((id, operation)) = self.waiting.pop_front() {
            if matches!(operation, Operation::Write { .. }) && id.0 < self.cut_at {
                let _ = self.run(id, &operation);
            }
        }
        let odds = rng.below(5);
        for file in self.files.values_mut() {
            if file.durable.len() != file.now.len() {
                file.durable.resize(file.now.len(), 0);
            }
            for (new, old) in file.now.chunks_mut(SECTOR).zip(file.durable.chunks_mut(SECTOR)) {
                if new != old && rng.below(4) < odds {
                    old.copy_from_slice(new);
                } else {
                    new.copy_from_slice(old);
                }
            }
        }
        let changes = std::mem::take(&mut self.name_changes);
        let first = rng.below(changes.len() as u64 + 1) as usize;
        let ordered = rng.below(2) == 0;
        for (i, change) in changes.into_iter().enumerate() {
            let kept = if ordered { i < first } else { rng.below(2) == 0 };
            if kept {
                change.apply(&mut self.durable_names);
            }
        }
        self.restart();
    }

    /// The process dies and the machine does not: everything that was written stays.
    pub(crate) fn kill(&mut self) {
        self.sync_names();
        for file in self.files.values_mut() {
            file.durable = file.now.clone();
        }
        self.restart();
    }

    /// What is in a file.
    pub(crate) fn content(&mut self, name: &str) -> Vec<u8> {
        self.file(name).map(|file| file.now.clone()).unwrap_or_default()
    }

    /// Changes bits of what is durable.
    pub(crate) fn flip(&mut self, name: &str, offset: usize, mask: u8) {
        let file = self.file(name).expect("it is there");
        file.now[offset] ^= mask;
        file.durable.clone_from(&file.now);
    }

    /// The same, and the machine has written nothing back yet: it is all in its cache.
    pub(crate) fn kill_with_cache(&mut self) {
        self.waiting.clear();
        self.completed.clear();
        (self.cut_at, self.fail_at, self.held) = (u64::MAX, u64::MAX, false);
    }

    fn restart(&mut self) {
        self.name_changes.clear();
        // The content of what was made and removed since is not kept: so is its name.
        self.durable_names.retain(|_, number| self.files.contains_key(number));
        self.names = self.durable_names.clone();
        let kept: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|file, _| kept.contains(file));
        self.waiting.clear();
        self.completed.clear();
        (self.cut_at, self.fail_at, self.held) = (u64::MAX, u64::MAX, false);
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn sync_names(&mut self) {
        self.durable_names = self.names.clone();
        self.name_changes.clear();
    }

    fn used(&self) -> u64 {
        self.files.values().map(|file| file.now.len() as u64).sum()
    }

    fn file(&mut self, name: &str) -> Result<&mut File, ErrorKind> {
        let number = self.names.get(name).ok_or(ErrorKind::NotFound)?;
        self.files.get_mut(number).ok_or(ErrorKind::NotFound)
    }

    fn run(&mut self, id: OperationId, operation: &Operation) -> Result<(), ErrorKind> {
        if id.0 == self.fail_at {
            return Err(ErrorKind::Other);
        }
        match operation {
            Operation::Create { file, bytes } => {
                if self.used() + bytes > self.capacity {
                    return Err(ErrorKind::StorageFull);
                }
                if self.names.contains_key(file) {
                    return Err(ErrorKind::AlreadyExists);
                }
                self.next_file += 1;
                let now = vec![0; *bytes as usize];
                self.files.insert(self.next_file, File { now, durable: Vec::new() });
                self.change(NameChange::Create(file.clone(), self.next_file));
            }
            Operation::Write { file, offset, parts } => {
                let content = parts.concat();
                let at = *offset as usize;
                let file = self.file(file)?;
                assert!(at + content.len() <= file.now.len(), "the log never extends a file");
                file.now[at..at + content.len()].copy_from_slice(&content);
            }
            Operation::Sync { file } => {
                self.syncs += 1;
                let file = self.file(file)?;
                file.durable = file.now.clone();
            }
            Operation::Rename { from, to } => {
                self.names.get(from).ok_or(ErrorKind::NotFound)?;
                self.change(NameChange::Rename(from.clone(), to.clone()));
            }
            Operation::Remove { file } => {
                let number = *self.names.get(file).ok_or(ErrorKind::NotFound)?;
                self.change(NameChange::Remove(file.clone()));
                // The name may come back with a crash; the space counts as free either way.
                if !self.durable_names.values().any(|kept| *kept == number) {
                    self.files.remove(&number);
                }
            }
            Operation::SyncDirectory => self.sync_names(),
        }
        Ok(())
    }
}

fn missing(doing: &str) -> DiskError {
    DiskError { doing: doing.into(), source: Error::from(ErrorKind::NotFound) }
}

impl Disk for FaultDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        Ok(self.names.keys().cloned().collect())
    }

    fn len(&self, file: &str) -> Result<u64, DiskError> {
        let number = self.names.get(file).ok_or_else(|| missing(file))?;
        Ok(self.files[number].now.len() as u64)
    }

    fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        let number = self.names.get(file).ok_or_else(|| missing(file))?;
        let content = &self.files[number].now;
        let start = (offset as usize).min(content.len());
        let end = start.saturating_add(len).min(content.len());
        Ok(BytesMut::from(&content[start..end]).freeze())
    }

    fn submit(&mut self, operation: Operation) -> OperationId {
        self.submitted += 1;
        let id = OperationId(self.submitted);
        if id.0 >= self.cut_at {
            return id;
        }
        if self.held {
            self.waiting.push_back((id, operation));
        } else {
            let result = self.run(id, &operation).err();
            self.completed.push_back((id, result));
        }
        id
    }

    fn poll(&mut self) -> Option<Completion> {
        let (id, error) = self.completed.pop_front()?;
        let result = match error {
            None => Ok(()),
            Some(kind) => {
                Err(DiskError { doing: format!("operation {}", id.0), source: Error::from(kind) })
            }
        };
        Some(Completion { id, result })
    }
}
