//! One process per data directory.

use crate::disk::DiskError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// Name of the lock's file within the directory.
pub const LOCK_FILE: &str = "LOCK";

/// Exclusive use of a directory, from [`DirectoryLock::acquire`] until it is dropped or the
/// process ends, however it ends: the kernel holds the lock, not the file's existence.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Locks `directory`, making it if it is not there. Where another process has it, the error
    /// says which.
    pub fn acquire(directory: &Path) -> Result<DirectoryLock, DiskError> {
        let doing = || format!("locking {}", directory.display());
        let fail = |source: io::Error| DiskError { doing: doing(), source };
        std::fs::create_dir_all(directory).map_err(fail)?;
        let path = directory.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail)?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(fail(error.into()));
            }
            let mut holder = String::new();
            // Best effort: the lock is what counts, the number only helps a person.
            let _ = (&file).take(32).read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                pid => format!("process {pid}"),
            };
            return Err(fail(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("in use by {holder}"),
            )));
        }
        file.set_len(0).map_err(fail)?;
        file.rewind().map_err(fail)?;
        writeln!(file, "{}", std::process::id()).map_err(fail)?;
        Ok(DirectoryLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_holds_it() {
        let directory = tempfile::tempdir().unwrap();
        let held = DirectoryLock::acquire(directory.path()).unwrap();
        let refused = DirectoryLock::acquire(directory.path()).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("in use by process {}", std::process::id())),
            "{refused}"
        );
        drop(held);
        DirectoryLock::acquire(directory.path()).unwrap();
    }
}
