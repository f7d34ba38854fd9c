//! Which protocol replicates this node's log: decided when its data directory is made, and kept
//! there in the file `PROTOCOL`, for what one protocol wrote the other cannot go on with.

use crate::error::StartError;
use crate::number_file::NumberFile;
use quorate_disk::{Disk, OsDisk};
use quorate_replicated_log::Protocol;
use std::path::Path;

const FILE: NumberFile = NumberFile { name: "PROTOCOL", draft: "PROTOCOL.new", magic: b"QRTEPRO1" };

fn read(disk: &impl Disk) -> Result<Option<Protocol>, StartError> {
    let Some(number) = FILE.read(disk)? else { return Ok(None) };
    let known = u8::try_from(number).ok().and_then(Protocol::of_code);
    let unknown = || {
        StartError::Config(format!(
            "the data directory was made for protocol {number}, which this version does not know: \
             start it with a newer one"
        ))
    };
    known.map(Some).ok_or_else(unknown)
}

/// The protocol that a data directory was made for, if there is one.
///
/// # Errors
/// [`StartError`]
pub fn stored_protocol(data_dir: &Path) -> Result<Option<Protocol>, StartError> {
    if !data_dir.exists() {
        return Ok(None);
    }
    read(&OsDisk::open(data_dir)?)
}

/// The protocol of a data directory: as it was made, else as wanted, else Raft.
///
/// # Errors
/// [`StartError::Config`], if another one is wanted than it was made for.
pub(crate) fn establish(
    disk: &mut impl Disk,
    wanted: Option<Protocol>,
) -> Result<Protocol, StartError> {
    match (read(disk)?, wanted) {
        (Some(made_for), Some(wanted)) if made_for != wanted => Err(StartError::Config(format!(
            "the data directory was made for {made_for}, not {wanted}: leave --protocol away, or \
             give another --data-dir"
        ))),
        (Some(made_for), _) => Ok(made_for),
        (None, wanted) => {
            let protocol = wanted.unwrap_or_default();
            FILE.write(disk, protocol.code().into())?;
            Ok(protocol)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_protocol() {
        let directory = tempfile::tempdir().unwrap();
        let mut disk = OsDisk::open(directory.path()).unwrap();
        assert_eq!(stored_protocol(directory.path()).unwrap(), None);
        assert_eq!(establish(&mut disk, Some(Protocol::Paxos)).unwrap(), Protocol::Paxos);
        assert_eq!(establish(&mut disk, None).unwrap(), Protocol::Paxos);
        let other = establish(&mut disk, Some(Protocol::Raft));
        assert!(matches!(other, Err(StartError::Config(why)) if why.contains("made for paxos")));
        assert_eq!(stored_protocol(directory.path()).unwrap(), Some(Protocol::Paxos));
        FILE.write(&mut disk, 9).unwrap();
        let newer = establish(&mut disk, None);
        assert!(matches!(newer, Err(StartError::Config(why)) if why.contains("newer")));
    }
}
