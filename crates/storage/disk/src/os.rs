//! The operating system's disk: one directory, operations run at once on the caller's thread.
//!
//! Invariant: an operation has ended, well or badly, when `submit` returns; `poll` only reports
//! it. That suits a thread of its own that does nothing but write the log. The one exception is
//! making a large file, which goes on beside the caller: see [`crate::filling`].

use crate::disk::{Completion, Disk, DiskError, Operation, OperationId};
use crate::filling::{Filling, write_all};
use bytes::{Bytes, BytesMut};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Files of at most this many bytes are made inline.
const INLINE_BYTES: u64 = 4 << 20;

/// A directory on a real disk.
#[derive(Debug)]
pub struct OsDisk {
    path: PathBuf,
    directory: OwnedFd,
    /// Files once used stay open until they are renamed over or removed. Reads open files too.
    files: RefCell<BTreeMap<String, OwnedFd>>,
    next_operation: u64,
    completed: VecDeque<Completion>,
    /// Large files being made, oldest first.
    filling: VecDeque<(OperationId, String, Filling)>,
}

impl OsDisk {
    /// Opens a directory, making it if it is not there.
    pub fn open(path: &Path) -> Result<OsDisk, DiskError> {
        let fail = |source| DiskError { doing: format!("opening {}", path.display()), source };
        std::fs::create_dir_all(path).map_err(fail)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| fail(e.into()))?;
        // Whoever made the directory may not have made its name durable.
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            let parent = rustix::fs::open(parent, flags, Mode::empty());
            parent.and_then(rustix::fs::fsync).map_err(|e| fail(e.into()))?;
        }
        Ok(OsDisk {
            path: path.to_owned(),
            directory,
            files: RefCell::default(),
            next_operation: 0,
            completed: VecDeque::new(),
            filling: VecDeque::new(),
        })
    }

    /// Bytes that can still be written by this process to the directory's file system.
    pub fn free_bytes(&self) -> Result<u64, DiskError> {
        let found = rustix::fs::fstatvfs(&self.directory)
            .map_err(|e| self.failed("asking for free space in", "", e.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, doing: &str, file: &str, source: io::Error) -> DiskError {
        DiskError { doing: format!("{doing} {}", self.path.join(file).display()), source }
    }

    fn open_file(&self, file: &str, extra: OFlags) -> io::Result<OwnedFd> {
        check_name(file)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | extra;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(rustix::fs::openat(&self.directory, file, flags, mode)?)
    }

    fn with_file<T>(
        &self,
        file: &str,
        act: impl FnOnce(&OwnedFd) -> io::Result<T>,
    ) -> io::Result<T> {
        if let Some(open) = self.files.borrow().get(file) {
            return act(open);
        }
        let opened = self.open_file(file, OFlags::empty())?;
        let result = act(&opened);
        self.files.borrow_mut().insert(file.to_owned(), opened);
        result
    }

    /// Starts making a file. Nothing is begun where there is not enough space: filling the disk
    /// to the brim would take from others what they need to go on.
    fn create(&self, file: &str, bytes: u64) -> io::Result<Filling> {
        let there = rustix::fs::fstatvfs(&self.directory)?;
        if there.f_bavail.saturating_mul(there.f_frsize) < bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let created = self.open_file(file, OFlags::CREATE | OFlags::EXCL)?;
        Filling::start(created, bytes, bytes > INLINE_BYTES)
    }

    /// Ends the making of a file.
    fn created(&self, file: &str, result: io::Result<OwnedFd>) -> Result<(), DiskError> {
        match result {
            Ok(created) => {
                self.files.borrow_mut().insert(file.to_owned(), created);
                Ok(())
            }
            Err(error) => {
                // What was not made whole is not made at all, above all on a full disk.
                let _ = rustix::fs::unlinkat(&self.directory, file, AtFlags::empty());
                Err(self.failed("creating", file, error))
            }
        }
    }

    fn begin(&mut self, id: OperationId, file: String, bytes: u64) {
        match self.create(&file, bytes) {
            Ok(filling) => self.filling.push_back((id, file, filling)),
            Err(error) => {
                let result = Err(self.failed("creating", &file, error));
                self.completed.push_back(Completion { id, result });
            }
        }
    }

    /// Takes what was made meanwhile, waiting for the oldest if `wait` says so.
    fn collect(&mut self, wait: bool) {
        while let Some((id, file, filling)) = self.filling.front_mut() {
            let Some(result) = filling.finish(wait && self.completed.is_empty()) else { return };
            let (id, file) = (*id, std::mem::take(file));
            self.filling.pop_front();
            let result = self.created(&file, result);
            self.completed.push_back(Completion { id, result });
        }
    }

    /// Runs an operation to its end. Creations have their own way, [`OsDisk::begin`].
    fn run(&mut self, operation: &Operation) -> Result<(), DiskError> {
        let (doing, file, result) = match operation {
            Operation::Create { .. } => return Ok(()),
            Operation::Write { file, offset, parts } => {
                ("writing", file, self.with_file(file, |fd| write_all(fd, *offset, parts)))
            }
            Operation::Sync { file } => {
                // Not retried when interrupted: the kernel does not interrupt it, and a failed
                // sync must never be repeated.
                ("syncing", file, self.with_file(file, |fd| Ok(rustix::fs::fdatasync(fd)?)))
            }
            Operation::Rename { from, to } => ("renaming", from, self.rename(from, to)),
            Operation::Remove { file } => ("removing", file, self.remove(file)),
            Operation::SyncDirectory => {
                let result = rustix::fs::fsync(&self.directory).map_err(io::Error::from);
                return result.map_err(|e| self.failed("syncing directory", "", e));
            }
        };
        result.map_err(|e| self.failed(doing, file, e))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        rustix::fs::renameat(&self.directory, from, &self.directory, to)?;
        let mut files = self.files.borrow_mut();
        files.remove(to);
        if let Some(open) = files.remove(from) {
            files.insert(to.to_owned(), open);
        }
        Ok(())
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        check_name(file)?;
        rustix::fs::unlinkat(&self.directory, file, AtFlags::empty())?;
        self.files.borrow_mut().remove(file);
        Ok(())
    }
}

impl Disk for OsDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        let fail = |e| self.failed("listing", "", e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if entry.file_type().map_err(fail)?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn len(&self, file: &str) -> Result<u64, DiskError> {
        let stat = self.with_file(file, |fd| Ok(rustix::fs::fstat(fd)?));
        let stat = stat.map_err(|e| self.failed("asking for the length of", file, e))?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        // No more is allocated than the file could fill.
        let there = self.len(file)?.saturating_sub(offset);
        let len = len.min(usize::try_from(there).unwrap_or(usize::MAX));
        let read = self.with_file(file, |fd| {
            let mut buffer = BytesMut::zeroed(len);
            let mut filled = 0;
            while filled < len {
                let n = rustix::io::retry_on_intr(|| {
                    rustix::io::pread(fd, &mut buffer[filled..], offset + filled as u64)
                })?;
                if n == 0 {
                    break;
                }
                filled += n;
            }
            buffer.truncate(filled);
            Ok(buffer.freeze())
        });
        read.map_err(|e| self.failed("reading", file, e))
    }

    fn submit(&mut self, operation: Operation) -> OperationId {
        self.next_operation += 1;
        let id = OperationId(self.next_operation);
        if let Operation::Create { file, bytes } = operation {
            self.begin(id, file, bytes);
            self.collect(false);
        } else {
            let result = self.run(&operation);
            self.completed.push_back(Completion { id, result });
        }
        id
    }

    fn poll(&mut self) -> Option<Completion> {
        self.collect(false);
        self.completed.pop_front()
    }

    fn wait(&mut self) {
        self.collect(true);
    }
}

/// A file is named within the directory and nowhere else.
fn check_name(file: &str) -> io::Result<()> {
    let plain =
        !file.is_empty() && file != "." && file != ".." && !file.contains(['/', '\\', '\0']);
    if plain {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{file:?} is not a plain file name")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn disk() -> (tempfile::TempDir, OsDisk) {
        let directory = tempfile::tempdir().unwrap();
        let disk = OsDisk::open(&directory.path().join("log")).unwrap();
        (directory, disk)
    }

    fn done(disk: &mut OsDisk, operation: Operation) -> Result<(), DiskError> {
        let id = disk.submit(operation);
        let completion = disk.poll().unwrap();
        assert_eq!(completion.id, id);
        assert!(disk.poll().is_none());
        completion.result
    }

    #[test]
    fn files_are_made_written_synced_renamed_and_removed() {
        let (_directory, mut disk) = disk();
        done(&mut disk, Operation::Create { file: "a".into(), bytes: 3 << 20 }).unwrap();
        let blocks = disk.path().join("a").metadata().unwrap().blocks();
        assert!(blocks * 512 >= 3 << 20, "the zeros really occupy the disk");
        let parts: Vec<Bytes> =
            (0..3000u32).map(|i| Bytes::from(i.to_le_bytes().to_vec())).collect();
        done(&mut disk, Operation::Write { file: "a".into(), offset: 5, parts: parts.clone() })
            .unwrap();
        done(&mut disk, Operation::Sync { file: "a".into() }).unwrap();
        done(&mut disk, Operation::SyncDirectory).unwrap();
        done(&mut disk, Operation::Rename { from: "a".into(), to: "b".into() }).unwrap();
        assert_eq!(disk.read("b", 5, 12_000).unwrap(), parts.concat());
        assert_eq!(disk.len("b").unwrap(), 3 << 20);
        assert_eq!(disk.list().unwrap(), ["b"]);
        done(&mut disk, Operation::Remove { file: "b".into() }).unwrap();
        assert!(disk.list().unwrap().is_empty());
        assert!(disk.free_bytes().unwrap() > 0);
    }

    #[test]
    fn a_large_file_is_made_beside_the_caller_and_never_left_half_made() {
        let (directory, mut disk) = disk();
        let bytes = 3 * INLINE_BYTES;
        let id = disk.submit(Operation::Create { file: "large".into(), bytes });
        disk.wait();
        let completion = disk.poll().unwrap();
        assert_eq!((completion.id, completion.result.is_ok()), (id, true));
        assert_eq!(disk.len("large").unwrap(), bytes);
        disk.submit(Operation::Create { file: "given up".into(), bytes: 512 << 20 });
        drop(disk);
        let left = directory.path().join("log").join("given up").metadata().unwrap().len();
        assert!(left < 512 << 20, "nobody writes to it any more: {left}");
        let mut disk = OsDisk::open(&directory.path().join("log")).unwrap();
        let more = disk.free_bytes().unwrap() + 1;
        let full = done(&mut disk, Operation::Create { file: "b".into(), bytes: more });
        assert!(full.unwrap_err().is_full());
        assert_eq!(disk.list().unwrap(), ["given up", "large"]);
    }

    #[test]
    fn a_read_ends_with_the_file_and_allocates_no_more() {
        let (_directory, mut disk) = disk();
        done(&mut disk, Operation::Create { file: "a".into(), bytes: 10 }).unwrap();
        assert_eq!(disk.read("a", 8, usize::MAX).unwrap().len(), 2);
        assert_eq!(disk.read("a", u64::MAX, 1).unwrap().len(), 0);
    }

    #[test]
    fn a_name_never_leaves_the_directory() {
        let (directory, mut disk) = disk();
        for name in ["../up", "a/b", "..", ".", "", "a\\b", "a\0b"] {
            let refused = done(&mut disk, Operation::Create { file: name.into(), bytes: 1 });
            assert_eq!(refused.unwrap_err().source.kind(), io::ErrorKind::InvalidInput, "{name:?}");
            assert!(disk.read(name, 0, 1).is_err());
        }
        assert!(!directory.path().join("up").exists());
    }

    #[test]
    fn creating_what_exists_is_refused_and_leaves_it_alone() {
        let (_directory, mut disk) = disk();
        done(&mut disk, Operation::Create { file: "a".into(), bytes: 1 }).unwrap();
        assert!(done(&mut disk, Operation::Create { file: "a".into(), bytes: 9 }).is_err());
        assert_eq!(disk.len("a").unwrap(), 1);
    }
}
