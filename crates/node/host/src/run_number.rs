//! Which run of the node this is: a number that grows at every start and is durable before
//! anything is served, because it keeps the requests of different runs apart.
//!
//! Invariant: a file that is there and cannot be read is an error, never a first run: requests of
//! an earlier run would pass for new.

use crate::error::StartError;
use crate::number_file::NumberFile;
use quorate_disk::Disk;

const FILE: NumberFile = NumberFile { name: "RUN", draft: "RUN.new", magic: b"QRTERUN1" };

/// Starts the next run: its number, durable on a disk that completes at once.
///
/// # Errors
/// [`StartError::Disk`]; [`StartError::Damaged`], if the last number cannot be read.
pub(crate) fn next(disk: &mut impl Disk) -> Result<u64, StartError> {
    let run = FILE.read(disk)?.unwrap_or(0) + 1;
    FILE.write(disk, run)?;
    Ok(run)
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
        std::fs::write(directory.path().join(FILE.draft), b"half").unwrap();
        let mut disk = OsDisk::open(directory.path()).unwrap();
        assert_eq!(next(&mut disk).unwrap(), 3);
        std::fs::write(directory.path().join(FILE.name), &FILE.encode(3)[..20]).unwrap();
        assert_eq!(next(&mut disk).unwrap(), 4);
        let mut bytes = FILE.encode(4);
        bytes[9] ^= 1;
        std::fs::write(directory.path().join(FILE.name), bytes).unwrap();
        let mut disk = OsDisk::open(directory.path()).unwrap();
        assert!(matches!(next(&mut disk), Err(StartError::Damaged { .. })));
    }

    #[test]
    fn golden_bytes() {
        let bytes = FILE.encode(258);
        assert_eq!(&bytes[..16], b"QRTERUN1\x02\x01\0\0\0\0\0\0");
        assert_eq!(FILE.decode(&bytes), Some(258));
        assert_eq!(FILE.decode(&bytes[..10]), None);
    }
}
