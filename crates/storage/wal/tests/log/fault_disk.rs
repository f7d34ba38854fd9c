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

#[derive(Clone, Debug)]
pub(crate) struct FaultDisk {
    files: BTreeMap<u64, File>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
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

    /// Loses power: of what was not durable each sector is kept or not, and of the names that
    /// were not durable a first part of the changes at most (here: all or none).
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
        if rng.below(2) == 0 {
            self.durable_names = self.names.clone();
        }
        self.restart();
    }

    /// The process dies and the machine does not: everything that was written stays.
    pub(crate) fn kill(&mut self) {
        self.durable_names = self.names.clone();
        for file in self.files.values_mut() {
            file.durable = file.now.clone();
        }
        self.restart();
    }

    fn restart(&mut self) {
        self.names = self.durable_names.clone();
        let kept: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|file, _| kept.contains(file));
        self.waiting.clear();
        self.completed.clear();
        (self.cut_at, self.fail_at, self.held) = (u64::MAX, u64::MAX, false);
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
                self.names.insert(file.clone(), self.next_file);
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
                let number = self.names.remove(from).ok_or(ErrorKind::NotFound)?;
                self.names.insert(to.clone(), number);
            }
            Operation::Remove { file } => {
                let number = self.names.remove(file).ok_or(ErrorKind::NotFound)?;
                // The name may come back with a crash; the space counts as free either way.
                if !self.durable_names.values().any(|kept| *kept == number) {
                    self.files.remove(&number);
                }
            }
            Operation::SyncDirectory => self.durable_names = self.names.clone(),
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
