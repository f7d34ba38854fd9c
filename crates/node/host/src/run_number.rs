//! Which run of the node this is: a number that grows at every start and is durable before
//! anything is served, because it keeps the requests of different runs apart.
//!
//! The file `RUN` has 24 bytes: `QRTERUN1`, the number, CRC32C of both, zeros. It is replaced by
//! renaming, so that a crash leaves the old or the new one. Invariant: a file that is there and
//! cannot be read is an error, never a first run: requests of an earlier run would pass for new.

use crate::error::StartError;
use quorate_disk::{Disk, DiskError, Operation};
use std::io;

const FILE: &str = "RUN";
const DRAFT: &str = "RUN.new";
const MAGIC: &[u8; 8] = b"QRTERUN1";
const BYTES: usize = 24;

fn encode(run: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&run.to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.resize(BYTES, 0);
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (crc, _) = rest.split_first_chunk::<4>()?;
    let whole = magic == MAGIC && crc32c::crc32c(&bytes[..16]) == u32::from_le_bytes(*crc);
    whole.then(|| u64::from_le_bytes(*number))
}

/// Starts the next run: its number, durable on a disk that completes at once.
///
/// # Errors
/// [`StartError::Disk`]; [`StartError::Damaged`], if the last number cannot be read.
pub(crate) fn next(disk: &mut impl Disk) -> Result<u64, StartError> {
    let files = disk.list()?;
    let last = if files.iter().any(|file| file == FILE) {
        let bytes = disk.read(FILE, 0, BYTES)?;
        decode(&bytes).ok_or_else(|| StartError::Damaged { what: format!("the file {FILE}") })?
    } else {
        0
    };
    let run = last + 1;
    if files.iter().any(|file| file == DRAFT) {
        complete(disk, Operation::Remove { file: DRAFT.into() })?;
    }
    let parts = vec![encode(run).into()];
    complete(disk, Operation::Create { file: DRAFT.into(), bytes: BYTES as u64 })?;
    complete(disk, Operation::Write { file: DRAFT.into(), offset: 0, parts })?;
    complete(disk, Operation::Sync { file: DRAFT.into() })?;
    complete(disk, Operation::Rename { from: DRAFT.into(), to: FILE.into() })?;
    complete(disk, Operation::SyncDirectory)?;
    Ok(run)
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

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_disk::OsDisk;

    #[test]
    fn runs_are_numbered_upwards_and_a_damaged_number_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = OsDisk::open(directory.path()).unwrap();
        assert_eq!(next(&mut disk).unwrap(), 1);
        assert_eq!(next(&mut disk).unwrap(), 2);
        // A crash before the rename leaves a draft behind.
        std::fs::write(directory.path().join(DRAFT), b"half").unwrap();
        let mut disk = OsDisk::open(directory.path()).unwrap();
        assert_eq!(next(&mut disk).unwrap(), 3);
        std::fs::write(directory.path().join(FILE), &encode(3)[..20]).unwrap();
        assert_eq!(next(&mut disk).unwrap(), 4);
        let mut bytes = encode(4);
        bytes[9] ^= 1;
        std::fs::write(directory.path().join(FILE), bytes).unwrap();
        let mut disk = OsDisk::open(directory.path()).unwrap();
        assert!(matches!(next(&mut disk), Err(StartError::Damaged { .. })));
    }

    #[test]
    fn golden_bytes() {
        let bytes = encode(258);
        assert_eq!(&bytes[..16], b"QRTERUN1\x02\x01\0\0\0\0\0\0");
        assert_eq!(decode(&bytes), Some(258));
        assert_eq!(decode(&bytes[..10]), None);
    }
}
