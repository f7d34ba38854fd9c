//! A directory of files, with submit-and-complete semantics.

use bytes::Bytes;
use std::fmt;
use std::io;

/// Numbers a disk's operations, from 1, in the order they were submitted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OperationId(pub u64);

/// Something that changes files. File names are plain names within the disk's directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Make a file of `bytes` zero bytes that really occupy the disk; fails if it exists.
    Create {
        /// Its name.
        file: String,
        /// Its length in bytes.
        bytes: u64,
    },
    /// Write `parts`, one after the other, from `offset` on.
    Write {
        /// The file.
        file: String,
        /// Where, in bytes.
        offset: u64,
        /// What.
        parts: Vec<Bytes>,
    },
    /// Make the file's completed writes durable.
    Sync {
        /// The file.
        file: String,
    },
    /// Give a file another name, replacing what had it.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// Remove a file.
    Remove {
        /// Its name.
        file: String,
    },
    /// Make completed creations, renames and removals durable.
    SyncDirectory,
}

/// An operation's end.
#[derive(Debug)]
pub struct Completion {
    /// Which operation.
    pub id: OperationId,
    /// How it went.
    pub result: Result<(), DiskError>,
}

/// What a disk refused. After a failed [`Operation::Sync`] nothing unsynced may be believed, and
/// the sync may not be repeated (the kernel may have marked the pages clean).
#[derive(Debug)]
pub struct DiskError {
    /// What was tried, with the file's name.
    pub doing: String,
    /// What the operating system said.
    pub source: io::Error,
}

impl DiskError {
    /// Whether the disk is full: not a fault, and it may pass.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk: {}: {}", self.doing, self.source)
    }
}

impl std::error::Error for DiskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A directory of files.
///
/// Reads are immediate: they happen at start-up and in repair. Changes are submitted, run in any
/// order unless one completed before the next was submitted, and complete in any order.
pub trait Disk: Send {
    /// The names of the files, sorted.
    fn list(&self) -> Result<Vec<String>, DiskError>;

    /// Length of a file in bytes.
    fn len(&self, file: &str) -> Result<u64, DiskError>;

    /// Up to `len` bytes from `offset`; fewer only at the end of the file.
    fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError>;

    /// Starts an operation.
    fn submit(&mut self, operation: Operation) -> OperationId;

    /// The next completed operation, if one has completed and was not yet reported.
    fn poll(&mut self) -> Option<Completion>;

    /// Sleeps until an operation under way has completed, where operations run beside the caller;
    /// does nothing where there is none, or where only other calls can bring a completion about.
    fn wait(&mut self) {}
}
