//! Replicas of one log: however it is cut into batches, replayed after crashes or replaced by a
//! snapshot, the state is the same.

use crate::generate::Generator;
use crate::harness::{BALLOT, Replica, b, config};
use bytes::Bytes;
use quorate_base::{NodeId, Rng};
use quorate_keyspace::command::{Alarm, Member, MemberChange, Put, Range};
use quorate_keyspace::{Canary, Command, Keyspace, Reader};
use quorate_mvcc::{KeyRange, MemoryEngine};
use quorate_replicated_log::{Entries, Entry, Membership, Payload};
use quorate_service::{Applied, Service, ServiceError, SnapshotChunk};

/// A log of every kind of entry, and the replica that applied it one by one.
fn written(seed: u64, entries: usize) -> Replica {
    let mut generator = Generator { claims: seed % 2 == 1, ..Generator::new(seed) };
    let mut replica = Replica::new(Canary::NONE);
    replica.run(Command::LeaseGrant { id: 1, ttl_seconds: 9 });
    for n in 0..entries as u64 {
        generator.revision = replica.keyspace.reader().revision();
        let kind = if generator.rng.below(5) == 0 { 25 } else { generator.rng.below(25) };
        match kind {
            0 => {
                replica.push(Payload::Noop);
            }
            1 => {
                let last = replica.log.last().unwrap().payload.clone();
                replica.push(last);
            }
            2 => {
                let member = NodeId(1 + generator.rng.below(3));
                let raise = n.is_multiple_of(2);
                replica.run(Command::Alarm { raise, member, alarm: Alarm::NoSpace });
            }
            3 => {
                let id = NodeId(10 + n);
                let membership = Membership {
                    learners: vec![id],
                    ..Membership::of([NodeId(1), NodeId(2), NodeId(3)])
                };
                let member = Member { id, ..Member::default() };
                replica.change(MemberChange::Add(member), membership);
            }
            4 => {
                replica.run(Command::LeaseCheckpoint {
                    ballot: BALLOT,
                    number: n,
                    remaining: vec![(1, n as i64 % 9)],
                });
            }
            5 => {
                let member = NodeId(1 + generator.rng.below(3));
                replica.run(Command::Alarm { raise: false, member, alarm: Alarm::NoSpace });
            }
            25 => {
                let command = generator.branch_command();
                replica.ask(&command);
            }
            _ => {
                let command = generator.command();
                replica.ask(&command);
            }
        }
    }
    replica
}

fn same(a: &Replica, b: &Replica) {
    assert_eq!(a.keyspace.base(), b.keyspace.base());
    assert_eq!(a.keyspace.branches(), b.keyspace.branches());
    let (a, b) = (a.keyspace.reader(), b.keyspace.reader());
    assert_eq!(a.hash().unwrap(), b.hash().unwrap());
    same_to_readers(&a, &b);
}

fn same_to_readers(a: &Reader<MemoryEngine>, b: &Reader<MemoryEngine>) {
    assert_eq!(a.hash_kv(0).unwrap(), b.hash_kv(0).unwrap());
    assert_eq!((a.members(), a.alarms()), (b.members(), b.alarms()));
    let leases = |r: &Reader<MemoryEngine>| -> Vec<_> {
        r.leases().into_iter().map(|id| r.lease(id)).collect()
    };
    assert_eq!(leases(a), leases(b));
    for key in ["a", "aa", "b", "c", "d"] {
        let range = Range::of(KeyRange::One(crate::harness::b(key)));
        assert_eq!(a.range_unlocked(&range), b.range_unlocked(&range), "the locks of {key}");
    }
}

#[test]
fn batches_do_not_matter() {
    for seed in 0..40 {
        let one_by_one = written(seed, 80);
        let mut rng = Rng::new(seed);
        let mut other = Replica::new(Canary::NONE);
        let mut rest = &one_by_one.log[..];
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(rng.between(1, rest.len() as u64) as usize);
            other.apply(batch.to_vec());
            rest = later;
        }
        same(&one_by_one, &other);
        assert_eq!(one_by_one.events, other.events);
    }
}

#[test]
fn a_log_replayed_after_crashes_gives_the_same_state() {
    for seed in 0..40 {
        let smooth = written(seed, 80);
        let mut rng = Rng::new(seed + 1_000);
        let mut bumpy = Replica::new(Canary::NONE);
        for entry in &smooth.log {
            bumpy.log.push(entry.clone());
            bumpy.apply(vec![entry.clone()]);
            match rng.below(12) {
                0 => bumpy.persist(),
                1 => {
                    bumpy.crash();
                }
                // What was applied already may come again.
                2 => {
                    let from = bumpy.log.len().saturating_sub(5);
                    let again = bumpy.log[from..].to_vec();
                    assert!(bumpy.apply(again).is_empty());
                }
                _ => {}
            }
        }
        same(&smooth, &bumpy);
    }
}

fn chunks(replica: &mut Replica, max_bytes: usize) -> Vec<SnapshotChunk> {
    let mut source = replica.keyspace.snapshot().unwrap();
    assert_eq!(source.base(), replica.keyspace.base());
    let mut chunks = Vec::new();
    loop {
        let chunk = source.next_chunk(max_bytes).unwrap();
        let last = chunk.last;
        chunks.push(chunk);
        if last {
            return chunks;
        }
    }
}

#[test]
fn a_snapshot_replaces_a_state_and_the_log_goes_on_after_it() {
    for seed in 0..10 {
        let mut from = written(seed, 120);
        let mut to = written(seed + 500, 30);
        let reader = to.keyspace.reader();
        let chunks = chunks(&mut from, 100);
        assert!(chunks.len() > 3);
        let mut sink = to.keyspace.receive(from.keyspace.base()).unwrap();
        for chunk in chunks {
            sink.write_chunk(chunk).unwrap();
        }
        to.keyspace.install(sink).unwrap();
        same(&from, &to);
        same_to_readers(&from.keyspace.reader(), &reader);
        // It is durable at once.
        to.engine.crash(0);
        to.keyspace = Keyspace::open(to.engine.clone(), config(Canary::NONE)).unwrap();
        same(&from, &to);
        // A request that the snapshot has seen is still known.
        let index = from.log.len() as u64 + 1;
        let seen = Command::Put(Put { key: b("Z"), ..Put::default() });
        let fresh = from.envelope(&seen);
        for (offset, again) in [false, true].into_iter().enumerate() {
            let payload = Payload::Command(fresh.clone());
            let entry = Entry { index: index + offset as u64, ballot: BALLOT, payload };
            from.apply(vec![entry.clone()]);
            assert_eq!(to.apply(vec![entry]).is_empty(), again);
        }
        same(&from, &to);
    }
}

#[test]
fn a_damaged_snapshot_changes_nothing() {
    let mut from = written(1, 60);
    let mut to = written(2, 30);
    let before = to.hash();
    let good = chunks(&mut from, 100);
    assert!(good.len() > 1);
    for n in 0..good.len() {
        let mut bad = good.clone();
        let mut bytes = bad[n].bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bad[n].bytes = Bytes::from(bytes);
        // A wrong checksum is seen at once, a right one of wrong bytes at the end.
        let mut sink = to.keyspace.receive(from.keyspace.base()).unwrap();
        let refused = bad.into_iter().try_for_each(|chunk| sink.write_chunk(chunk));
        assert!(matches!(refused, Err(ServiceError::Peer(_))), "{refused:?}");
    }
    let mut short = to.keyspace.receive(from.keyspace.base()).unwrap();
    short.write_chunk(good[0].clone()).unwrap();
    assert!(matches!(to.keyspace.install(short), Err(ServiceError::Peer(_))));
    assert_eq!(to.hash(), before);
}

#[test]
fn a_command_that_cannot_be_read_stops_the_replica() {
    let newer = Bytes::from_static(&[1, 1, 1, 9, 1, 2, 0]);
    for bytes in [Bytes::new(), Bytes::from_static(&[7]), newer] {
        let mut replica = Replica::new(Canary::NONE);
        replica.run(Command::Put(Put { key: b("a"), ..Put::default() }));
        let hash = replica.hash();
        let entry = replica.next_entry(Payload::Command(bytes));
        let mut applied = Applied::default();
        let stopped = replica.keyspace.apply(&Entries::new(vec![entry]), &mut applied);
        assert!(matches!(stopped, Err(ServiceError::Command(_))), "{stopped:?}");
        assert_eq!((replica.hash(), applied.replies.len()), (hash, 0));
        let entry = replica.next_entry(Payload::Noop);
        let still = replica.keyspace.apply(&Entries::new(vec![entry]), &mut applied);
        assert_eq!(still, stopped, "for good");
    }
}

#[test]
fn a_full_or_failing_disk_is_named() {
    let mut replica = Replica::new(Canary::NONE);
    replica.run(Command::Put(Put { key: b("a"), ..Put::default() }));
    replica.engine.fail_next_persist();
    assert!(matches!(replica.keyspace.persist()(), Err(ServiceError::Disk(_))));
    let entry = replica.next_entry(Payload::Noop);
    let stopped = replica.keyspace.apply(&Entries::new(vec![entry]), &mut Applied::default());
    assert!(matches!(stopped, Err(ServiceError::Disk(_))), "{stopped:?}");
}
