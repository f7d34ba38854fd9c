//! A disk in memory: always succeeds, completes at once, and can lose power.
//!
//! For other crates' unit tests. Invariant: after [`MemoryDisk::crash`] exactly that is left which
//! a sync had made durable: contents by [`Operation::Sync`], names by [`Operation::SyncDirectory`].

use crate::disk::{Completion, Disk, DiskError, Operation, OperationId};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::io;

/// A file's number within the disk: it keeps it through renames.
type Inode = u64;

#[derive(Clone, Default, Debug)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
}

/// A directory of files in memory.
#[derive(Clone, Default, Debug)]
pub struct MemoryDisk {
    files: BTreeMap<Inode, File>,
    names: BTreeMap<String, Inode>,
    durable_names: BTreeMap<String, Inode>,
    next_inode: Inode,
    next_operation: u64,
    completed: VecDeque<(OperationId, Result<(), String>)>,
}

impl MemoryDisk {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses power: what was not made durable is gone, and completions not yet polled with it.
    pub fn crash(&mut self) {
        self.names = self.durable_names.clone();
        self.files.retain(|inode, _| self.durable_names.values().any(|kept| kept == inode));
        for file in self.files.values_mut() {
            file.now = file.durable.clone();
        }
        self.completed.clear();
    }

    /// Changes a byte of a file behind its user's back, on the medium too. Says whether there is
    /// such a byte.
    pub fn corrupt(&mut self, file: &str, offset: usize, mask: u8) -> bool {
        let inode = self.names.get(file).copied();
        let Some(file) = inode.and_then(|inode| self.files.get_mut(&inode)) else { return false };
        let mut found = false;
        for copy in [&mut file.now, &mut file.durable] {
            if let Some(byte) = copy.get_mut(offset) {
                *byte ^= mask;
                found = true;
            }
        }
        found
    }

    /// Makes, replaces or patches a file directly and durably: for tests that lay out a disk.
    pub fn put(&mut self, file: &str, content: Vec<u8>) {
        let inode = self.fresh_inode();
        self.files.insert(inode, File { now: content.clone(), durable: content });
        self.names.insert(file.to_owned(), inode);
        self.durable_names.insert(file.to_owned(), inode);
    }

    /// A file's present content.
    pub fn content(&self, file: &str) -> Option<&[u8]> {
        let inode = self.names.get(file)?;
        self.files.get(inode).map(|file| &file.now[..])
    }

    fn fresh_inode(&mut self) -> Inode {
        self.next_inode += 1;
        self.next_inode
    }

    fn file(&self, name: &str) -> Result<&File, String> {
        self.names.get(name).and_then(|i| self.files.get(i)).ok_or_else(|| missing(name))
    }

    fn run(&mut self, operation: Operation) -> Result<(), String> {
        match operation {
            Operation::Create { file, bytes } => {
                if self.names.contains_key(&file) {
                    return Err(format!("creating {file}: it exists"));
                }
                let inode = self.fresh_inode();
                let now = vec![0; bytes as usize];
                self.files.insert(inode, File { now, durable: Vec::new() });
                self.names.insert(file, inode);
            }
            Operation::Write { file, offset, parts } => {
                let inode = self.names.get(&file).copied().ok_or_else(|| missing(&file))?;
                let content = &mut self.files.get_mut(&inode).ok_or_else(|| missing(&file))?.now;
                let mut at = offset as usize;
                for part in parts {
                    let end = at + part.len();
                    if content.len() < end {
                        content.resize(end, 0);
                    }
                    content[at..end].copy_from_slice(&part);
                    at = end;
                }
            }
            Operation::Sync { file } => {
                let inode = self.names.get(&file).copied().ok_or_else(|| missing(&file))?;
                let file = self.files.get_mut(&inode).ok_or_else(|| missing(&file))?;
                file.durable.clone_from(&file.now);
            }
            Operation::Rename { from, to } => {
                let inode = self.names.remove(&from).ok_or_else(|| missing(&from))?;
                self.names.insert(to, inode);
            }
            Operation::Remove { file } => {
                self.names.remove(&file).ok_or_else(|| missing(&file))?;
            }
            Operation::SyncDirectory => self.durable_names = self.names.clone(),
        }
        Ok(())
    }
}

fn missing(file: &str) -> String {
    format!("{file}: no such file")
}

fn refused(doing: String) -> DiskError {
    DiskError { doing, source: io::Error::from(io::ErrorKind::NotFound) }
}

impl Disk for MemoryDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        Ok(self.names.keys().cloned().collect())
    }

    fn len(&self, file: &str) -> Result<u64, DiskError> {
        self.file(file).map(|f| f.now.len() as u64).map_err(refused)
    }

    fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        let content = &self.file(file).map_err(refused)?.now;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let end = start.saturating_add(len).min(content.len());
        Ok(BytesMut::from(&content[start..end]).freeze())
    }

    fn submit(&mut self, operation: Operation) -> OperationId {
        self.next_operation += 1;
        let id = OperationId(self.next_operation);
        let result = self.run(operation);
        self.completed.push_back((id, result));
        id
    }

    fn poll(&mut self) -> Option<Completion> {
        let (id, result) = self.completed.pop_front()?;
        Some(Completion { id, result: result.map_err(refused) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &mut MemoryDisk, file: &str, offset: u64, what: &'static [u8]) {
        let parts = vec![Bytes::from_static(what)];
        disk.submit(Operation::Write { file: file.into(), offset, parts });
        assert!(disk.poll().unwrap().result.is_ok());
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_nothing_else() {
        let mut disk = MemoryDisk::new();
        disk.submit(Operation::Create { file: "a".into(), bytes: 8 });
        disk.submit(Operation::SyncDirectory);
        write(&mut disk, "a", 0, b"kept");
        disk.submit(Operation::Sync { file: "a".into() });
        write(&mut disk, "a", 4, b"lost");
        disk.submit(Operation::Create { file: "b".into(), bytes: 1 });
        disk.crash();
        assert_eq!(disk.list().unwrap(), ["a"]);
        assert_eq!(&disk.read("a", 0, 100).unwrap()[..], b"kept\0\0\0\0");
        assert!(disk.poll().is_none());
    }

    #[test]
    fn a_rename_lasts_once_the_directory_is_synced() {
        let mut disk = MemoryDisk::new();
        disk.put("a", b"old".to_vec());
        disk.submit(Operation::Rename { from: "a".into(), to: "b".into() });
        let mut before = disk.clone();
        before.crash();
        assert_eq!(before.list().unwrap(), ["a"]);
        disk.submit(Operation::SyncDirectory);
        disk.crash();
        assert_eq!(disk.list().unwrap(), ["b"]);
        assert_eq!(disk.content("b"), Some(&b"old"[..]));
    }

    #[test]
    fn an_operation_on_a_missing_file_fails_and_names_it() {
        let mut disk = MemoryDisk::new();
        let id = disk.submit(Operation::Remove { file: "ghost".into() });
        let completion = disk.poll().unwrap();
        assert_eq!(completion.id, id);
        assert!(completion.result.unwrap_err().to_string().contains("ghost"));
    }
}
