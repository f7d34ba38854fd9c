//! A number in a small file that is replaced as a whole.
//!
//! 24 bytes: eight that name the file, the number, CRC32C of both, zeros. It is replaced by
//! renaming, so that a crash leaves the old or the new one. A file that is there and cannot be
//! read is an error.

use crate::error::StartError;
use quorate_disk::{Disk, DiskError, Operation};
use std::io;

const BYTES: usize = 24;

/// Which file.
pub(crate) struct NumberFile {
    pub name: &'static str,
    pub draft: &'static str,
    pub magic: &'static [u8; 8],
}

impl NumberFile {
    pub fn encode(&self, number: u64) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend_from_slice(&number.to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.resize(BYTES, 0);
        bytes
    }

    pub fn decode(&self, bytes: &[u8]) -> Option<u64> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (crc, _) = rest.split_first_chunk::<4>()?;
        let whole = magic == self.magic && crc32c::crc32c(&bytes[..16]) == u32::from_le_bytes(*crc);
        whole.then(|| u64::from_le_bytes(*number))
    }

    /// The number, or nothing if there is no such file.
    ///
    /// # Errors
    /// [`StartError::Disk`]; [`StartError::Damaged`], if it cannot be read.
    pub fn read(&self, disk: &impl Disk) -> Result<Option<u64>, StartError> {
        if !disk.list()?.iter().any(|file| file == self.name) {
            return Ok(None);
        }
        let bytes = disk.read(self.name, 0, BYTES)?;
        let damaged = || StartError::Damaged { what: format!("the file {}", self.name) };
        self.decode(&bytes).map(Some).ok_or_else(damaged)
    }

    /// Replaces the number, durably, on a disk that completes at once.
    ///
    /// # Errors
    /// [`StartError::Disk`]
    pub fn write(&self, disk: &mut impl Disk, number: u64) -> Result<(), StartError> {
        let (file, draft) = (self.name.to_owned(), self.draft.to_owned());
        if disk.list()?.contains(&draft) {
            complete(disk, Operation::Remove { file: draft.clone() })?;
        }
        let parts = vec![self.encode(number).into()];
        complete(disk, Operation::Create { file: draft.clone(), bytes: BYTES as u64 })?;
        complete(disk, Operation::Write { file: draft.clone(), offset: 0, parts })?;
        complete(disk, Operation::Sync { file: draft.clone() })?;
        complete(disk, Operation::Rename { from: draft, to: file })?;
        complete(disk, Operation::SyncDirectory)
    }
}

/// Runs an operation to its end.
fn complete(disk: &mut impl Disk, operation: Operation) -> Result<(), StartError> {
    let doing = format!("{operation:?}");
    let id = disk.submit(operation);
    match disk.poll() {
        Some(done) if done.id == id => Ok(done.result?),
        _ => {
            let source = io::Error::other("it did not complete at once");
            Err(DiskError { doing, source }.into())
        }
    }
}
