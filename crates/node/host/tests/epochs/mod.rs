//! Groups that go on under another protocol while they serve, on whole nodes.

use crate::{PATIENCE, World, eventually};
use bytes::Bytes;
use quorate_base::GroupId;
use quorate_host::{KeyspaceRefusal, NewKeyspace, SwitchError};
use quorate_keyspace::command::Put;
use quorate_keyspace::{Command, codec};
use quorate_replicated_log::{Epoch, Protocol};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

impl World {
    fn switch(&self, i: usize, to: Protocol, epoch: Option<Epoch>) -> Result<(), SwitchError> {
        self.runtime.block_on(self.handle(i).switch_to(to, epoch, PATIENCE))
    }

    fn epoch(&self, i: usize) -> (Epoch, Protocol) {
        let now = self.handle(i).consensus();
        (now.epoch, now.protocol)
    }
}

/// Nothing is lost or done twice: every write is answered, and makes one revision.
#[test]
fn a_cluster_changes_its_protocol_while_it_serves() {
    let mut world = World::new(3, |_| {});
    let first = world.put(0, "first", b"1").revision;
    let stop = Arc::new(AtomicBool::new(false));
    let (handles, stopped) = ([world.handle(0), world.handle(1)], stop.clone());
    let writer = world.runtime.spawn(async move {
        let (mut revisions, mut longest) = (Vec::new(), Duration::ZERO);
        while !stopped.load(Relaxed) {
            let n = revisions.len();
            let value = Bytes::from(n.to_string());
            let put = Put { key: Bytes::from_static(b"k"), value, ..Put::default() };
            let body = codec::encode(&Command::Put(put)).unwrap();
            let started = Instant::now();
            revisions.push(handles[n % 2].propose(body, PATIENCE).await.unwrap().revision);
            longest = longest.max(started.elapsed());
        }
        (revisions, longest)
    });
    for (round, to) in [Protocol::Paxos, Protocol::Raft].repeat(3).into_iter().enumerate() {
        std::thread::sleep(Duration::from_millis(100));
        let asked = round % 2;
        world.switch(asked, to, None).unwrap();
        let epoch = Epoch(round as u32 + 1);
        eventually("the epoch is shown", || world.epoch(asked) == (epoch, to));
        // Asked again at the other, which may not have got so far.
        world.switch(1 - asked, to, Some(Epoch(round as u32))).unwrap();
        // One of them dies, misses an epoch or two, and comes back into whichever it finds.
        match round {
            2 => world.halt(2),
            3 => world.start(2),
            _ => {}
        }
    }
    // Whatever is asked of it before may be part of the state that it is sent: then it never learns
    // what came of it.
    eventually("the one that was away is back", || world.epoch(2) == (Epoch(6), Protocol::Raft));
    world.put(2, "through", b"the one that was away");
    stop.store(true, Relaxed);
    let (revisions, longest) = world.runtime.block_on(writer).unwrap();
    println!("{} writes, the longest took {longest:?}", revisions.len());
    let distinct: BTreeSet<u64> = revisions.iter().copied().collect();
    assert_eq!(distinct.len(), revisions.len());
    assert!(revisions.iter().all(|revision| *revision > first));
    let last = revisions.len() - 1;
    assert_eq!(world.get(0, "k").as_deref(), Some(last.to_string().as_bytes()));
    let revision = world.handle(0).reader().revision();
    assert_eq!(revision, first + revisions.len() as u64 + 1, "one revision for each write");
    assert!(longest < Duration::from_secs(3), "a pause of {longest:?}");
    // All at once, and into the epoch that they were in.
    (0..3).for_each(|i| world.halt(i));
    (0..3).for_each(|i| world.start(i));
    world.put(1, "after", b"a restart");
    assert_eq!(world.epoch(1), (Epoch(6), Protocol::Raft));
}

#[test]
fn a_switch_that_cannot_be_is_refused() {
    let mut world = World::new(3, |_| {});
    world.put(0, "k", b"v");
    let already = SwitchError::Already(Protocol::Raft, Epoch(0));
    assert_eq!(world.switch(1, Protocol::Raft, None), Err(already.clone()));
    assert_eq!(world.switch(1, Protocol::Raft, Some(Epoch(0))), Err(already));
    let outdated = SwitchError::Outdated(Epoch(0), Protocol::Raft);
    assert_eq!(world.switch(2, Protocol::Paxos, Some(Epoch(7))), Err(outdated));
    let found = |number: Option<u64>, name| {
        let found = world.handle(0).find_group(number.map(GroupId), name);
        found.map(|it| it.id().0)
    };
    eventually("the directory is read", || found(Some(2), None) == Ok(2));
    assert_eq!((found(Some(1), None), found(None, Some("system"))), (Ok(1), Ok(2)));
    assert!(matches!(found(Some(99), None), Err(SwitchError::Unknown(_))));
    assert!(matches!(found(None, Some("nothing")), Err(SwitchError::Unknown(_))));
    assert!(matches!(found(Some(1), Some("system")), Err(SwitchError::Unknown(_))));
    // One that has no replica here says who has.
    let alone = NewKeyspace { name: "alone".into(), replicas: 1, protocol: Protocol::Paxos };
    let made = world.runtime.block_on(world.handle(0).create_keyspace(&alone, PATIENCE)).unwrap();
    let owner = (0..3).find(|i| world.seats[*i].config.me.id == made.replicas[0]).unwrap();
    let other = (owner + 1) % 3;
    let elsewhere = || {
        let found = world.handle(other).find_group(Some(made.group), None).err();
        found == Some(SwitchError::NotHere(KeyspaceRefusal::Elsewhere(made.replicas.clone())))
    };
    eventually("the others know where it is", elsewhere);
    let listed = world.runtime.block_on(world.handle(other).list_groups());
    assert_eq!(listed.iter().map(|it| it.group.0).collect::<Vec<_>>(), [1, 2, 16]);
    assert!(listed[0].status.is_some() && listed[2].status.is_none());
    let asked = world.handle(owner).find_group(Some(made.group), Some("alone")).unwrap();
    world.runtime.block_on(asked.switch_to(Protocol::Raft, None, PATIENCE)).unwrap();
    let asked = world.handle(owner);
    let described = world.runtime.block_on(asked.describe_keyspace("alone", PATIENCE)).unwrap();
    assert_eq!(described.protocol, Protocol::Raft);
    // Without a quorum nothing is done, and the answer comes in time.
    world.halt(0);
    world.halt(1);
    let asked = world.handle(2);
    let short = asked.switch_to(Protocol::Paxos, None, Duration::from_millis(700));
    let refused = world.runtime.block_on(short);
    assert!(
        matches!(&refused, Err(SwitchError::NoLeader(m)) if m.voters.len() == 3),
        "{refused:?}"
    );
}
