//! The log and the identity file, as an adversary may have left them.

use bytes::Bytes;
use quorate_disk::MemoryDisk;
use quorate_wal::{Identity, Recovery, Wal, WalError, WalOptions};

const FILE: &str = "0000000000000001.log";
const GOOD: &[u8] = include_bytes!("../../crates/storage/wal/tests/fixtures/v1.log");

/// The identity file.
pub fn wal_identity(data: &[u8]) {
    if let Ok(identity) = Identity::decode(&Bytes::copy_from_slice(data)) {
        assert_eq!(Identity::decode(&identity.encode().into()).ok(), Some(identity));
    }
}

/// A log whose checksums are right and whose records are anything.
pub fn wal_records(data: &[u8]) {
    recover(quorate_wal::fuzzing::segment_of(data));
}

/// A good log with patches (place in two bytes, length in one, content), or, where the first byte
/// says so, nothing but the input.
pub fn wal_recovery(data: &[u8]) {
    let Some((mode, mut data)) = data.split_first() else { return };
    if *mode == 0xff {
        return recover(data.to_vec());
    }
    let mut content = GOOD.to_vec();
    content.resize(256 << 10, 0);
    while let [high, low, len, rest @ ..] = data {
        let len = usize::from(*len).min(rest.len());
        // Places are in steps that reach all of the fixture.
        let at = (usize::from(*high) << 8 | usize::from(*low)).min(GOOD.len());
        content[at..at + len].copy_from_slice(&rest[..len]);
        data = &rest[len..];
    }
    recover(content);
}

fn recover(content: Vec<u8>) {
    let mut disk = MemoryDisk::new();
    disk.put(FILE, content);
    let (wal, found) = match Wal::open(disk, WalOptions::small()) {
        Ok(opened) => opened,
        Err(WalError::Damaged { .. } | WalError::NewerFormat { .. } | WalError::Foreign { .. }) => {
            return;
        }
        Err(error) => panic!("not the disk's fault: {error}"),
    };
    check(&found);
    // What was found once is found again.
    let again = Wal::open(wal.into_disk(), WalOptions::small());
    assert_eq!(again.map(|(_, again)| again.groups).ok(), Some(found.groups));
}

fn check(found: &Recovery) {
    for group in found.groups.values() {
        let base = group.base.position.index;
        let runs =
            group.entries.iter().flat_map(|run| Some(run.first_index()?..=run.last_index()?));
        let mut known: Vec<_> = runs.chain(group.damaged.iter().cloned()).collect();
        known.sort_by_key(|range| *range.start());
        let mut next = base.checked_add(1);
        for range in known {
            assert_eq!(Some(*range.start()), next, "no gap and no overlap");
            next = range.end().checked_add(1);
        }
        for run in &group.entries {
            assert!(run.windows(2).all(|pair| pair[0].index + 1 == pair[1].index));
        }
    }
}
