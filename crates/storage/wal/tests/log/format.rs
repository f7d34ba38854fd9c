//! The format is a contract: today's software writes the very bytes of the fixture, and reads
//! every fixture ever made. A new format gets a new fixture; the old ones stay.

use crate::damage::crc32c;
use crate::support::*;
use quorate_base::{ClusterId, GroupId, NodeId};
use quorate_disk::MemoryDisk;
use quorate_replicated_log::{Base, Entry, Epoch, Payload, Protocol, Write};
use quorate_wal::{Identity, Recovery, Wal, WalOptions};

const FILE: &str = "0000000000000001.log";
const V1: &[u8] = include_bytes!("../fixtures/v1.log");
const V2: &[u8] = include_bytes!("../fixtures/v2.log");

fn options() -> WalOptions {
    let owner = Identity { cluster: ClusterId(0x0102_0304), node: NodeId(3) };
    WalOptions { owner, unnamed_protocol: Protocol::Paxos, ..WalOptions::small() }
}

/// Of the second epoch.
fn opened(index: u64, round: u64) -> Base {
    Base { epoch: Epoch(1), protocol: Protocol::Paxos, ..base(index, round) }
}

/// Every kind of record, a block of more than one page, and two runs.
fn write_v2() -> Vec<u8> {
    let (mut wal, _) = Wal::open(MemoryDisk::new(), options()).unwrap();
    let begin = Write {
        reset: Some(Box::new(base(0, 0))),
        hard_state: Some(hard_state(1, 0)),
        ..nothing()
    };
    put(&mut wal, 1, vec![(1, begin.clone()), (2, begin)]);
    let one = |index, payload| Entry { index, ballot: ballot(1), payload };
    let mut membership = base(0, 0).membership;
    membership.outgoing = vec![NodeId(1), NodeId(4)];
    membership.learners = vec![NodeId(5)];
    let context = b"http://10.0.0.5:2380".to_vec().into();
    let members = one(2, Payload::members(membership, context));
    let lead = one(3, Payload::Lead(ballot(1)));
    let seal = one(4, Payload::Seal { next: Protocol::Paxos, ballot: ballot(1) });
    let run = vec![one(1, Payload::Noop), members, lead, seal];
    let first = Write { entries: run.clone().into(), ..nothing() };
    put(&mut wal, 2, vec![(1, first), (2, entries(1, 3, 1, 2_000))]);
    let (mut wal, _) = Wal::open(wal.into_disk(), options()).unwrap();
    let overruled = Write { truncate_from: Some(2), ..entries(2, 1, 2, 16) };
    put(&mut wal, 1, vec![(2, Write { hard_state: Some(hard_state(2, 1)), ..overruled })]);
    let reset = Write { reset: Some(Box::new(opened(4, 1))), ..nothing() };
    put(&mut wal, 2, vec![(1, Write { hard_state: Some(hard_state(1, 4)), ..reset })]);
    let slots = (6..).zip(run).map(|(index, entry)| Entry { index, ..entry });
    let slots = Write { slots: vec![slots.collect::<Vec<_>>().into()], ..nothing() };
    put(&mut wal, 3, vec![(1, slots)]);
    put(&mut wal, 4, vec![(1, Write { compact: Some(Box::new(opened(6, 1))), ..nothing() })]);
    let end = 2 * 4096 + 4096 + wal.stats().bytes as usize + 2 * 4096 + 4096;
    let content = wal.disk().content(FILE).unwrap();
    assert!(content[end..].iter().all(|byte| *byte == 0));
    content[..end].to_vec()
}

fn read(log: &[u8]) -> Recovery {
    let mut disk = MemoryDisk::new();
    let mut content = log.to_vec();
    content.resize(options().segment_bytes as usize, 0);
    disk.put(FILE, content);
    Wal::open(disk, options()).unwrap().1
}

#[test]
fn version_2_is_written_byte_for_byte() {
    let written = write_v2();
    if std::env::var_os("QUORATE_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v2.log");
        std::fs::write(path, &written).unwrap();
    }
    let same = written.iter().zip(V2).take_while(|(a, b)| a == b).count();
    assert_eq!((same, written.len()), (V2.len(), V2.len()), "differs from byte {same:#x} on");
}

#[test]
fn version_2_is_read() {
    let found = read(V2);
    assert_eq!((found.report.run, found.report.torn_bytes), (3, 0));
    let one = &found.groups[&GroupId(1)];
    assert_eq!((&one.base, one.hard_state), (&opened(6, 1), hard_state(1, 4)));
    let payloads: Vec<&Payload> = one.entries[0].iter().map(|entry| &entry.payload).collect();
    let seal = Payload::Seal { next: Protocol::Paxos, ballot: ballot(1) };
    assert_eq!(
        (payloads.len(), payloads[1..].to_vec()),
        (3, vec![&Payload::Lead(ballot(1)), &seal])
    );
    assert_eq!(found.groups[&GroupId(2)].base, base(0, 0));
}

#[test]
fn version_1_is_read() {
    let found = read(V1);
    assert_eq!((found.report.run, found.report.blocks, found.report.torn_bytes), (3, 6, 0));
    let one = &found.groups[&GroupId(1)];
    assert_eq!(
        (positions(one), &one.base),
        (
            vec![(2, 1), (3, 1)],
            &Base::first(base(1, 1).position, base(1, 1).membership, Protocol::Paxos)
        )
    );
    assert_eq!(one.hard_state, hard_state(1, 0));
    assert_eq!(one.entries[0][1], entry(3, 1, b"put a 1"));
    let Payload::Members { membership, context } = &one.entries[0][0].payload else {
        panic!("members");
    };
    assert_eq!((membership.outgoing.len(), membership.learners.len()), (2, 1));
    assert_eq!(&context[..], b"http://10.0.0.5:2380");
    let two = &found.groups[&GroupId(2)];
    assert_eq!((positions(two), two.hard_state), (vec![(1, 1), (2, 2)], hard_state(2, 1)));
}

/// The documented layout, read with nothing of the software under test.
#[test]
fn version_1_is_as_documented() {
    let u32_at = |at: usize| u32::from_le_bytes(V1[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(V1[at..at + 8].try_into().unwrap());
    for copy in [0, 4096] {
        assert_eq!((&V1[copy..copy + 8], u32_at(copy + 8)), (&b"QRTELOG\n"[..], 1));
        let sum = crc32c(&V1[copy + 16..copy + 56], crc32c(&V1[copy + 8..copy + 12], 0));
        assert_eq!(u32_at(copy + 12), sum);
        let fields: Vec<u64> = (0..5).map(|i| u64_at(copy + 16 + 8 * i)).collect();
        assert_eq!(fields, [1, 256 << 10, 2, 0x0102_0304, 3]);
    }
    let block = 8192;
    // The sector's stamp: block number and a check over it and the place.
    assert_eq!(u32_at(block), 2);
    let check = crc32c(&(block as u64).to_le_bytes(), crc32c(&V1[block..block + 4], 0));
    assert_eq!(u32_at(block + 4), check);
    let header = block + 8;
    assert_eq!(&V1[header..header + 4], b"QBLK");
    assert_eq!(u32_at(header + 4), crc32c(&V1[header + 8..header + 64], 0));
    let longs: Vec<u64> = (0..5).map(|i| u64_at(header + 8 + 8 * i)).collect();
    assert_eq!(longs, [1, 8192, 2, 0, 1], "segment, start, number, previous, run");
    assert_eq!([48, 52, 56].map(|at| u32_at(header + at)), [1, 1, 1], "pages, rows, opening");
    assert_eq!(V1[block + 4096 - 64..block + 4096], V1[header..header + 64], "trailer");
    let row = header + 64;
    let seed = crc32c(&0u32.to_le_bytes(), u32_at(header + 4));
    assert_eq!(u32_at(row), crc32c(&V1[row + 4..row + 48], seed));
    assert_eq!(u32_at(row + 4), 8 << 28 | 1, "a recap of one byte: no blocks");
}
