//! Nodes whose disks have lost something: a state, the log's last file, all of it.

use crate::{PATIENCE, World, eventually};
use quorate_host::{End, NewKeyspace, Node, StartError};
use quorate_keyspace::command::Put;
use quorate_keyspace::{Command, codec};
use quorate_replicated_log::Protocol;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

impl World {
    fn data(&self, i: usize) -> PathBuf {
        self.seats[i].config.data_dir.clone()
    }

    /// Three nodes that keep little of their logs, and have written more than that.
    fn with_short_logs(protocol: Protocol) -> World {
        let world = World::new(3, |config| {
            config.protocol = Some(protocol);
            config.limits.catch_up_entries = 20;
            config.limits.compact_step_entries = 10;
        });
        for n in 0..100 {
            world.put(n % 3, &format!("k{n}"), &[7; 1_000]);
        }
        for i in 0..3 {
            eventually("the log was compacted", || {
                let status = world.runtime.block_on(world.handle(i).status()).unwrap();
                status.base.index > 50
            });
        }
        world
    }

    fn refused(&self, i: usize) -> String {
        let config = self.seats[i].config.clone();
        let refused = Node::start(config, self.runtime.handle().clone()).err();
        let refused = refused.expect("it does not start");
        assert!(matches!(refused, StartError::Log(_)), "{refused}");
        refused.to_string()
    }
}

/// The replica keeps its promises, which are in the log, and has the state from a peer; what was
/// damaged is kept.
fn a_damaged_state_is_had_from_a_peer(protocol: Protocol) {
    let mut world = World::with_short_logs(protocol);
    let damaged = (world.leader() + 1) % 3;
    for round in 0..2 {
        world.halt(damaged);
        let state = world.data(damaged).join("state");
        std::fs::write(state.join("CURRENT"), "not what was written").unwrap();
        world.start(damaged);
        assert_eq!(world.get(damaged, "k99").as_deref(), Some(&[7; 1_000][..]));
        let aside = world.data(damaged).join("state.damaged");
        let kept = std::fs::read_to_string(aside.join("CURRENT")).unwrap();
        assert_eq!(kept, "not what was written");
        world.put(damaged, &format!("after{round}"), b"1");
    }
    // The others may go now: it stands in for them.
    let other = (damaged + 1) % 3;
    world.halt(other);
    world.put(damaged, "last", b"2");
    assert_eq!(world.get(damaged, "k0").as_deref(), Some(&[7; 1_000][..]));
}

#[test]
fn a_damaged_state_is_had_from_a_peer_on_raft() {
    a_damaged_state_is_had_from_a_peer(Protocol::Raft);
}

#[test]
fn a_damaged_state_is_had_from_a_peer_on_paxos() {
    a_damaged_state_is_had_from_a_peer(Protocol::Paxos);
}

/// The files in all folders of this name.
fn files_in(folder: &Path, named: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true if path.file_name().is_some_and(|name| name == named) => {
                let files = std::fs::read_dir(&path).unwrap().flatten().map(|file| file.path());
                found.extend(files.filter(|file| file.is_file()));
            }
            true => found.extend(files_in(&path, named)),
            false => {}
        }
    }
    found
}

/// Bits rot while the node runs. It finds that out when it reads them, and does not go on; started
/// again it does not read them a second time.
#[test]
fn a_state_that_is_found_damaged_while_it_runs_is_had_from_a_peer() {
    let mut world = World::new(3, |config| {
        config.limits.catch_up_entries = 20;
        config.limits.compact_step_entries = 10;
    });
    let damaged = (world.leader() + 1) % 3;
    let (other, state) = ((damaged + 1) % 3, world.data(damaged).join("state"));
    // The newest one may not be written to its end.
    let tables = || {
        let about =
            |file: PathBuf| file.metadata().map(|it| (it.modified().unwrap(), it.len(), file));
        let mut all: Vec<_> = files_in(&state, "tables")
            .into_iter()
            .flat_map(about)
            .filter(|it| it.1 > 1 << 20)
            .collect();
        all.sort();
        all.pop();
        all
    };
    let mut n = 0;
    while tables().is_empty() {
        world.put(other, &format!("k{n}"), &[7; 100_000]);
        n += 1;
        assert!(n < 2_000, "so much is not kept in memory");
    }
    for (_, length, table) in tables() {
        let file = std::fs::OpenOptions::new().write(true).open(table).unwrap();
        file.write_all_at(&vec![0xa5; usize::try_from(length).unwrap()], 0).unwrap();
    }
    let key = bytes::Bytes::from_static(b"k0");
    let put = Put { key, value: "new".into(), prev_kv: true, ..Put::default() };
    let body = codec::encode(&Command::Put(put)).unwrap();
    world.runtime.block_on(world.handle(other).propose(body, PATIENCE)).unwrap();
    let handle = world.handle(damaged);
    let end = async { tokio::time::timeout(PATIENCE, handle.ended()).await };
    let end = world.runtime.block_on(end).unwrap();
    drop(handle); // It has the state open.
    assert!(matches!(end, End::Failed(_)), "{end:?}");

    world.halt(damaged);
    world.start(damaged);
    assert_eq!(world.get(damaged, "k0").as_deref(), Some(&b"new"[..]));
    assert_eq!(world.get(damaged, "k1").as_deref(), Some(&[7; 100_000][..]));
    assert!(world.data(damaged).join("state.damaged").is_dir());
}

/// Two of three at the same time: nobody has the state but the third, and nobody else leads.
#[test]
fn a_majority_with_damaged_states_waits_for_the_third() {
    let mut world = World::with_short_logs(Protocol::Raft);
    (0..3).for_each(|i| world.halt(i));
    for i in [0, 1] {
        let state = world.data(i).join("state");
        std::fs::write(state.join("CURRENT"), "not what was written").unwrap();
        world.start(i);
    }
    let timeout = std::time::Duration::from_secs(1);
    assert!(world.try_put(0, "early", b"1", timeout).is_err());
    world.start(2);
    for i in 0..3 {
        assert_eq!(world.get(i, "k99").as_deref(), Some(&[7; 1_000][..]));
    }
}

#[test]
fn a_damaged_state_that_nobody_else_has_is_not_set_aside() {
    let mut world = World::new(1, |_| {});
    world.put(0, "a", b"1");
    world.halt(0);
    let current = world.data(0).join("state/CURRENT");
    let before = std::fs::read(&current).unwrap();
    std::fs::write(&current, "not what was written").unwrap();
    let config = world.seats[0].config.clone();
    let refused = Node::start(config, world.runtime.handle().clone()).err().unwrap().to_string();
    assert!(refused.contains("no other replica"), "{refused}");
    std::fs::write(&current, before).unwrap();
    world.start(0);
    assert_eq!(world.get(0, "a").as_deref(), Some(&b"1"[..]));
}

/// All keyspaces but the default one are in one database.
#[test]
fn a_damaged_shelf_is_had_from_peers() {
    let mut world = World::new(3, |_| {});
    let new = |name: &str, protocol| NewKeyspace { name: name.to_owned(), replicas: 3, protocol };
    for (name, protocol) in [("orders", Protocol::Raft), ("stock", Protocol::Paxos)] {
        eventually("there is a directory", || world.handle(0).directory().is_some());
        let made = world.handle(0);
        world.runtime.block_on(made.create_keyspace(&new(name, protocol), PATIENCE)).unwrap();
        for n in 0..50 {
            world.put_in(0, name, &format!("k{n}"), "v");
        }
    }
    world.halt(1);
    let shelf = world.data(1).join("keyspaces");
    std::fs::write(shelf.join("CURRENT"), "not what was written").unwrap();
    world.start(1);
    for name in ["orders", "stock"] {
        assert_eq!(world.get_in(1, name, "k49").as_deref(), Some("v"));
    }
    assert!(world.data(1).join("keyspaces.damaged/CURRENT").exists());
}

#[test]
fn a_log_whose_last_file_is_gone_or_cut_is_refused() {
    let mut world = World::new(3, |_| {});
    let damaged = (world.leader() + 1) % 3;
    world.put(damaged, "a", b"1");
    world.halt(damaged);
    let last = world.data(damaged).join("log/0000000000000001.log");
    let content = std::fs::read(&last).unwrap();
    assert!(world.data(damaged).join("log/0000000000000002.log").exists(), "the next is prepared");

    std::fs::remove_file(&last).unwrap();
    let refused = world.refused(damaged);
    assert!(refused.contains("remove this member") && refused.contains("missing"), "{refused}");
    for bytes in [0, 4_096, 12_288, content.len() / 2] {
        std::fs::write(&last, &content[..bytes]).unwrap();
        let refused = world.refused(damaged);
        assert!(refused.contains("remove this member"), "{bytes} bytes: {refused}");
    }
    std::fs::write(&last, content).unwrap();
    world.start(damaged);
    assert_eq!(world.get(damaged, "a").as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_node_that_lost_its_data_directory_may_not_vote() {
    let mut world = World::new(3, |_| {});
    world.put(0, "a", b"1");
    let wiped = (world.leader() + 1) % 3;
    world.halt(wiped);
    std::fs::remove_dir_all(world.data(wiped)).unwrap();
    world.start(wiped);
    let node = world.seats[wiped].node.take().unwrap();
    let end = world.runtime.block_on(node.handle().ended());
    assert!(matches!(&end, End::Failed(why) if why.contains("add it as a new member")), "{end}");
    node.halt();
    let other = world.leader();
    world.put(other, "a", b"2");
    // What its peers knew of it survives them.
    let left = world.running();
    left.iter().for_each(|i| world.halt(*i));
    left.iter().for_each(|i| world.start(*i));
    std::fs::remove_dir_all(world.data(wiped)).unwrap();
    world.start(wiped);
    let node = world.seats[wiped].node.take().unwrap();
    let end = world.runtime.block_on(node.handle().ended());
    assert!(matches!(end, End::Failed(_)), "{end}");
    node.halt();
    assert_eq!(world.get(other, "a").as_deref(), Some(&b"2"[..]));
}
