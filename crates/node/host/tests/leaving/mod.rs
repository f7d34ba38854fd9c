//! Members that leave the cluster are let go from all keyspaces first.

use crate::{PATIENCE, World, eventually};
use quorate_base::NodeId;
use quorate_host::{AdminError, End, NewKeyspace};
use quorate_keyspace::command::{MemberChange, Put, Range};
use quorate_keyspace::{Command, codec};
use quorate_mvcc::KeyRange;
use quorate_replicated_log::{Change, Protocol};
use std::time::Duration;

impl World {
    fn make(&self, name: &str, replicas: usize, protocol: Protocol) -> Vec<NodeId> {
        eventually("there is a directory", || self.handle(0).directory().is_some());
        let new = NewKeyspace { name: name.to_owned(), replicas, protocol };
        let made = self.runtime.block_on(self.handle(0).create_keyspace(&new, PATIENCE)).unwrap();
        made.replicas
    }

    fn id(&self, i: usize) -> NodeId {
        self.seats[i].config.me.id
    }

    fn let_go(&self, asked: usize, i: usize, timeout: Duration) -> Result<(), AdminError> {
        self.runtime.block_on(self.handle(asked).let_go(self.id(i), timeout))
    }

    /// Removes a member; `asked` lets it go, `changer` removes it.
    fn leave(&mut self, i: usize, asked: usize, changer: usize) {
        self.let_go(asked, i, PATIENCE).unwrap();
        let id = self.id(i);
        self.change(changer, Change::Remove(id), MemberChange::Remove(id));
        let node = self.seats[i].node.take().unwrap();
        let end = async { tokio::time::timeout(PATIENCE, node.handle().ended()).await };
        assert_eq!(self.runtime.block_on(end), Ok(End::Removed));
        node.halt();
    }
}

/// One right after the other, down to one: all that there is stays, even what had one replica.
#[test]
fn a_cluster_shrinks_to_one_member_and_keeps_everything() {
    shrinks(Protocol::Raft);
}

#[test]
fn a_cluster_under_paxos_shrinks_to_one_member_and_keeps_everything() {
    shrinks(Protocol::Paxos);
}

fn shrinks(protocol: Protocol) {
    let mut world = World::new(3, |config| config.protocol = Some(protocol));
    world.make("orders", 3, Protocol::Raft);
    world.make("stock", 3, Protocol::Paxos);
    let at = world.make("alone", 1, Protocol::Raft);
    let first = (0..3).find(|i| at == [world.id(*i)]).unwrap();
    let (second, last) = ((first + 1) % 3, (first + 2) % 3);
    world.put_in(last, "orders", "k", "an order");
    world.put_in(last, "stock", "k", "an item");
    world.put_in(first, "alone", "k", "the only one");

    world.leave(first, last, second);
    // The one that leaves may be asked itself.
    world.leave(second, second, last);

    assert_eq!(world.get_in(last, "orders", "k").as_deref(), Some("an order"));
    assert_eq!(world.get_in(last, "stock", "k").as_deref(), Some("an item"));
    assert_eq!(world.get_in(last, "alone", "k").as_deref(), Some("the only one"));
    for name in ["orders", "stock", "alone"] {
        world.put_in(last, name, "k", "again");
    }
    let listed = world.runtime.block_on(world.handle(last).list_keyspaces(PATIENCE)).unwrap();
    let here = [world.id(last)];
    assert!(listed.len() == 5 && listed.iter().all(|it| it.replicas == here), "{listed:?}");
    assert_eq!(
        world.let_go(last, last, PATIENCE),
        Ok(()),
        "the last one stays: the log sees to it"
    );
    let marks = || {
        let range = Range::of(KeyRange::from_etcd("leaving/".into(), "leaving0".into()));
        world.handle(last).directory().unwrap().reader().range(&range).unwrap().kvs.len()
    };
    eventually("nobody is leaving any more", || marks() == 0);
}

#[test]
fn a_lost_member_that_has_the_only_replica_is_named_with_it() {
    let mut world = World::new(3, |_| {});
    world.make("orders", 3, Protocol::Raft);
    let at = world.make("alone", 1, Protocol::Raft);
    let lost = (0..3).find(|i| at == [world.id(*i)]).unwrap();
    let asked = (lost + 1) % 3;
    world.put_in(asked, "orders", "k", "an order");
    world.halt(lost);
    let mut told = String::new();
    eventually("all others have gone", || {
        match world.let_go(asked, lost, Duration::from_secs(1)) {
            Err(AdminError::Impossible(why)) => told = why,
            // The directory's leader may have been the one that is lost.
            other => assert!(other.is_err(), "{other:?}"),
        }
        told.contains("keyspaces alone, which")
    });
    let listed = world.runtime.block_on(world.handle(asked).list_keyspaces(PATIENCE)).unwrap();
    let alone = listed.iter().find(|it| it.name == "alone").unwrap();
    let handle = world.handle(asked);
    let dropped = handle.drop_keyspace("alone", alone.group, PATIENCE);
    assert_eq!(world.runtime.block_on(dropped), Ok(()));
    assert_eq!(world.let_go(asked, lost, PATIENCE), Ok(()));
    let id = world.id(lost);
    world.change(asked, Change::Remove(id), MemberChange::Remove(id));
    assert_eq!(world.get_in(asked, "orders", "k").as_deref(), Some("an order"));
}

/// Records of transactions that one member alone decides on are another's to decide on afterwards.
#[test]
fn the_only_vote_goes_to_another_member() {
    let mut world = World::new(3, |config| config.one_vote_for_transactions = true);
    eventually("there is a directory", || world.handle(0).directory().is_some());
    let records = |world: &World, i: usize| {
        world.runtime.block_on(world.handle(i).transactions(PATIENCE)).unwrap()
    };
    let voters = |world: &World, i: usize| records(world, i).membership().voters;
    eventually("all have a replica", || records(&world, 0).membership().all().len() == 3);
    let decides = (0..3).find(|i| voters(&world, 0) == [world.id(*i)]).unwrap();
    let (left, other) = ((decides + 1) % 3, (decides + 2) % 3);
    let put = codec::encode(&Command::Put(Put { key: "k".into(), ..Put::default() })).unwrap();
    let write = |world: &World, i: usize| {
        world.runtime.block_on(records(world, i).propose(put.clone(), PATIENCE)).unwrap().revision
    };
    assert_eq!(write(&world, left), 2);
    world.leave(decides, left, other);
    assert_eq!(write(&world, left), 3);
    assert_eq!(voters(&world, left).len(), 1);
}
