//! Who a data directory belongs to.

use quorate_base::{ClusterId, NodeId};
use quorate_disk::{Disk, MemoryDisk, OsDisk};
use quorate_wal::{IDENTITY_FILE, Identity, WalError};

const OURS: Identity = Identity { cluster: ClusterId(0xfeed), node: NodeId(3) };

#[test]
fn it_is_written_once_and_checked_ever_after() {
    let directory = tempfile::tempdir().unwrap();
    let mut disk = OsDisk::open(directory.path()).unwrap();
    assert_eq!(Identity::read(&disk).unwrap(), None);
    OURS.establish(&mut disk).unwrap();
    OURS.establish(&mut disk).unwrap();
    assert_eq!(Identity::read(&disk).unwrap(), Some(OURS));
    assert_eq!(disk.list().unwrap(), [IDENTITY_FILE]);
    let other = Identity { cluster: ClusterId(0xbeef), ..OURS };
    let error = other.establish(&mut disk).unwrap_err();
    assert!(matches!(error, WalError::Foreign { .. }));
    assert!(error.to_string().contains("node 3 of cluster feed"), "{error}");
}

#[test]
fn one_damaged_copy_is_made_up_for_and_two_are_an_error() {
    let encoded = OURS.encode();
    for offset in 0..encoded.len() {
        let mut file = encoded.clone();
        file[offset] ^= 0x40;
        assert_eq!(Identity::decode(&file.clone().into()).unwrap(), OURS, "{offset}");
        if offset < 32 {
            file[4096 + offset] ^= 0x40;
            let error = Identity::decode(&file.into()).unwrap_err();
            assert!(matches!(error, WalError::Damaged { .. }), "{offset}: {error}");
        }
    }
    for len in 0..encoded.len() {
        let cut = Identity::decode(&encoded[..len].to_vec().into());
        assert_eq!(cut.is_ok(), len >= 32, "{len}");
    }
}

#[test]
fn a_crash_while_it_is_written_leaves_none_or_all() {
    for steps in 0..=OURS.write().len() {
        let mut disk = MemoryDisk::new();
        for operation in OURS.write().into_iter().take(steps) {
            disk.submit(operation);
        }
        disk.crash();
        let found = Identity::read(&disk).unwrap();
        assert!(found.is_none() || found == Some(OURS), "{steps}: {found:?}");
        OURS.establish(&mut disk).unwrap();
        assert_eq!(Identity::read(&disk).unwrap(), Some(OURS));
    }
}
