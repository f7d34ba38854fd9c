//! What the tests share: writes in few words, and a log driven to completion.

use bytes::Bytes;
use quorate_base::{Ballot, GroupId, Index, NodeId, Position};
use quorate_disk::{Disk, MemoryDisk};
use quorate_replicated_log::{
    Base, Entries, Entry, HardState, Membership, Payload, Write, WriteId,
};
use quorate_wal::{Batch, BatchId, RecoveredGroup, Recovery, Wal, WalError, WalOptions};

pub(crate) fn ballot(round: u64) -> Ballot {
    Ballot::new(round, NodeId(1 + round % 3))
}

pub(crate) fn entry(index: Index, round: u64, content: &[u8]) -> Entry {
    let payload = Payload::Command(Bytes::copy_from_slice(content));
    Entry { index, ballot: ballot(round), payload }
}

pub(crate) fn nothing() -> Write {
    Write {
        id: WriteId(1),
        reset: None,
        compact: None,
        truncate_from: None,
        entries: Entries::default(),
        slots: Vec::new(),
        hard_state: None,
    }
}

pub(crate) fn entries(from: Index, count: u64, round: u64, bytes: usize) -> Write {
    let content = |index: u64| vec![(index * 7 + round) as u8; bytes];
    let run = (from..from + count).map(|index| entry(index, round, &content(index)));
    Write { entries: Entries::new(run.collect()), ..nothing() }
}

pub(crate) fn hard_state(round: u64, commit: Index) -> HardState {
    HardState { promised: ballot(round), commit }
}

pub(crate) fn base(index: Index, round: u64) -> Base {
    let membership = Membership::of([NodeId(1), NodeId(2), NodeId(3)]);
    Base { position: Position::new(index, ballot(round)), membership, ..Base::default() }
}

pub(crate) fn batch(id: u64, writes: Vec<(u64, Write)>) -> Batch {
    let writes = writes.into_iter().map(|(group, write)| (GroupId(group), write)).collect();
    Batch { id: BatchId(id), writes }
}

pub(crate) fn open(disk: MemoryDisk) -> (Wal<MemoryDisk>, Recovery) {
    try_open(disk).unwrap()
}

pub(crate) fn try_open(disk: MemoryDisk) -> Result<(Wal<MemoryDisk>, Recovery), WalError> {
    let (wal, recovery) = Wal::open(disk, WalOptions::small())?;
    assert!(wal.is_ready());
    Ok((wal, recovery))
}

/// Submits a batch and waits for it.
pub(crate) fn put<D: Disk>(wal: &mut Wal<D>, id: u64, writes: Vec<(u64, Write)>) {
    wal.submit(batch(id, writes)).unwrap();
    let (done, result) = wal.poll().expect("an inline disk completes at once");
    assert_eq!(done, BatchId(id));
    result.unwrap();
}

/// The indexes and rounds of a group's readable entries.
pub(crate) fn positions(group: &RecoveredGroup) -> Vec<(Index, u64)> {
    let all = group.entries.iter().flat_map(|run| run.iter());
    all.map(|entry| (entry.index, entry.ballot.round)).collect()
}
