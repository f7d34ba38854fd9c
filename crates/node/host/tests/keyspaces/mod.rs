//! Many keyspaces on whole nodes: made, used apart from each other, spread, moved, dropped.

use crate::{PATIENCE, World, eventually, settings};
use bytes::Bytes;
use quorate_base::{GroupId, NodeId};
use quorate_host::{AdminError, Description, KeyspaceHandle, KeyspaceRefusal, NewKeyspace};
use quorate_keyspace::command::{Member, MemberChange, Put, Range};
use quorate_keyspace::{BranchCommand, BranchId, Command, codec};
use quorate_mvcc::KeyRange;
use quorate_replicated_log::{Change, Protocol, Role};

fn new(name: &str, replicas: usize, protocol: Protocol) -> NewKeyspace {
    NewKeyspace { name: name.to_owned(), replicas, protocol }
}

impl World {
    fn create(&self, i: usize, new: &NewKeyspace) -> Result<Description, AdminError> {
        // The directory may be on its way.
        eventually("there is a directory", || self.handle(i).directory().is_some());
        self.runtime.block_on(self.handle(i).create_keyspace(new, PATIENCE))
    }

    fn drop_keyspace(&self, i: usize, name: &str, group: GroupId) -> Result<(), AdminError> {
        self.runtime.block_on(self.handle(i).drop_keyspace(name, group, PATIENCE))
    }

    fn keyspace(&self, i: usize, name: &str) -> KeyspaceHandle {
        let mut found = None;
        eventually("the keyspace is open", || {
            found = self.handle(i).keyspace(name).ok();
            found.is_some()
        });
        found.unwrap()
    }

    pub fn put_in(&self, i: usize, name: &str, key: &str, value: &str) -> u64 {
        let put = Put {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            ..Put::default()
        };
        let body = codec::encode(&Command::Put(put)).unwrap();
        self.runtime.block_on(self.keyspace(i, name).propose(body, PATIENCE)).unwrap().revision
    }

    pub fn get_in(&self, i: usize, name: &str, key: &str) -> Option<String> {
        let keyspace = self.keyspace(i, name);
        self.runtime.block_on(keyspace.read(PATIENCE)).unwrap();
        let range = Range::of(KeyRange::One(Bytes::copy_from_slice(key.as_bytes())));
        let found = keyspace.reader().range(&range).unwrap().kvs.pop();
        found.map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
    }

    /// Asks ten times as whoever drives a transaction does: for what does not matter.
    fn ask_branches(&self, i: usize, name: &str) {
        let id = BranchId { transaction: Bytes::from_static(b"t"), number: 1 };
        let command = Command::Branch(BranchCommand::Forget { id, epoch: 1 });
        let body = codec::encode(&command).unwrap();
        let keyspace = self.keyspace(i, name);
        self.runtime.block_on(async {
            let mut all = tokio::task::JoinSet::new();
            for _ in 0..10 {
                let (keyspace, body) = (keyspace.clone(), body.clone());
                all.spawn(async move { keyspace.propose(body, PATIENCE).await });
            }
            while let Some(asked) = all.join_next().await {
                asked.unwrap().unwrap();
            }
        });
    }

    /// How many groups each node leads, the default keyspace's and the directory's included.
    fn leads(&self) -> Vec<usize> {
        let leads = |i: &usize| {
            let all = self.handle(*i).hosted();
            all.iter().filter(|it| it.consensus().role == Role::Leader).count()
        };
        self.running().iter().map(leads).collect()
    }
}

#[test]
fn keyspaces_are_apart_survive_restarts_and_are_dropped_for_ever() {
    let mut world = World::new(3, |_| {});
    let orders = world.create(0, &new("orders", 3, Protocol::Raft)).unwrap();
    let stock = world.create(1, &new("stock", 3, Protocol::Paxos)).unwrap();
    assert_eq!((orders.group, stock.group), (GroupId(16), GroupId(17)));
    assert!(orders.serving && orders.replicas.len() == 3);
    assert_eq!(stock.protocol, Protocol::Paxos);
    assert_eq!(world.create(2, &new("orders", 1, Protocol::Raft)), Err(AdminError::Exists));

    // Their keys and revisions are their own.
    assert_eq!(world.put_in(0, "orders", "k", "an order"), 2);
    assert_eq!(world.put_in(1, "stock", "k", "an item"), 2);
    assert_eq!(world.put_in(2, "stock", "k", "another"), 3);
    assert_eq!(world.put(2, "k", b"default's").revision, 2);
    for i in 0..3 {
        assert_eq!(world.get_in(i, "orders", "k").as_deref(), Some("an order"));
        assert_eq!(world.get_in(i, "stock", "k").as_deref(), Some("another"));
        assert_eq!(world.get(i, "k").as_deref(), Some(&b"default's"[..]));
    }
    let refused = world.handle(0).keyspace("nothing").err();
    assert_eq!(refused, Some(KeyspaceRefusal::Unknown));

    // All stop and start again.
    (0..3).for_each(|i| world.halt(i));
    (0..3).for_each(|i| world.start(i));
    assert_eq!(world.get_in(1, "stock", "k").as_deref(), Some("another"));
    assert_eq!(world.put_in(1, "orders", "k", "a later order"), 3);

    // The guard, and the end.
    let guarded = world.drop_keyspace(0, "orders", stock.group);
    assert!(matches!(guarded, Err(AdminError::Guard(_))), "{guarded:?}");
    assert_eq!(world.drop_keyspace(0, "nothing", stock.group), Err(AdminError::Unknown));
    for own in ["default", "system"] {
        let kept = world.drop_keyspace(0, own, GroupId(1));
        assert!(matches!(kept, Err(AdminError::Impossible(_))), "{kept:?}");
    }
    let held = world.keyspace(0, "orders");
    world.drop_keyspace(2, "orders", orders.group).unwrap();
    for i in 0..3 {
        let gone = || world.handle(i).keyspace("orders").err() == Some(KeyspaceRefusal::Unknown);
        eventually("the keyspace is gone", gone);
    }
    // A request that began before finds out a moment after the name is gone.
    eventually("what was held is closed", || held.is_closed());
    let late = world.runtime.block_on(held.read(PATIENCE));
    assert!(late.is_err(), "{late:?}");
    let again = world.create(0, &new("orders", 3, Protocol::Raft)).unwrap();
    assert_eq!(again.group, GroupId(18), "a number is given once");
    assert_eq!(world.get_in(2, "orders", "k"), None);
    assert_eq!(world.put_in(2, "orders", "k", "new"), 2);

    // A node that was away when a keyspace was dropped drops it when it is back.
    world.halt(2);
    world.drop_keyspace(0, "stock", stock.group).unwrap();
    world.start(2);
    let gone = || world.handle(2).keyspace("stock").err() == Some(KeyspaceRefusal::Unknown);
    eventually("the keyspace is gone there, too", gone);
    let all = world.runtime.block_on(world.handle(2).list_keyspaces(PATIENCE)).unwrap();
    let names: Vec<&str> = all.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["default", "orders", "system"]);
}

#[test]
fn what_cannot_be_made_is_refused() {
    let world = World::new(1, |_| {});
    let refused =
        |name: &str, replicas| world.create(0, &new(name, replicas, Protocol::Raft)).err();
    assert!(matches!(refused("No Name", 1), Some(AdminError::Invalid(_))));
    assert!(matches!(refused("even", 2), Some(AdminError::Invalid(_))));
    assert!(matches!(refused("even", 0), Some(AdminError::Invalid(_))));
    assert!(matches!(refused("many", 3), Some(AdminError::Impossible(_))));
    assert_eq!(refused("system", 1), Some(AdminError::Exists));
    assert_eq!(refused("alone", 1), None);
    assert_eq!(world.put_in(0, "alone", "k", "v"), 2);
}

#[test]
fn leaders_are_spread_and_survive_the_loss_of_one_that_leads_many() {
    let mut world = World::new(3, |_| {});
    let names: Vec<String> = (0..9).map(|n| format!("k{n}")).collect();
    for name in &names {
        world.create(0, &new(name, 3, Protocol::Raft)).unwrap();
        world.put_in(0, name, "before", name);
    }
    let spread = |world: &World| world.leads().iter().all(|n| (2..=5).contains(n));
    eventually("the leaders are spread", || spread(&world));
    let leader = world.leader();
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    world.halt(leader);
    for name in &names {
        world.put_in(others[0], name, "after", name);
        assert_eq!(world.get_in(others[1], name, "before").as_ref(), Some(name));
    }
    world.start(leader);
    eventually("the leaders are spread again", || spread(&world));
    for name in &names {
        assert_eq!(world.get_in(leader, name, "after").as_ref(), Some(name));
    }
}

#[test]
fn what_one_node_asks_for_transactions_is_led_by_it() {
    let world = World::new(3, |_| {});
    let names: Vec<String> = (0..4).map(|n| format!("k{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let protocol = if n % 2 == 0 { Protocol::Raft } else { Protocol::Paxos };
        world.create(0, &new(name, 3, protocol)).unwrap();
    }
    let leads = |i: usize, name: &str| world.keyspace(i, name).consensus().role == Role::Leader;
    let mut turn = 0;
    eventually("the first three are led where they are asked", || {
        for name in &names[..3] {
            world.ask_branches(1, name);
            // Keys are written from anywhere: by others too, but not as much.
            turn += 1;
            if turn % 7 == 0 {
                world.put_in(2, name, "k", "v");
            }
        }
        names[..3].iter().all(|name| leads(1, name))
    });
    // They stay, though that node leads more than its share.
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    assert!(names[..3].iter().all(|name| leads(1, name)));
}

#[test]
fn replicas_follow_the_members_of_the_cluster() {
    let mut world = World::new(3, |_| {});
    world.create(0, &new("orders", 3, Protocol::Raft)).unwrap();
    world.put_in(0, "orders", "k", "v");
    // A fourth node joins; a founder leaves for ever.
    let leader = world.leader();
    let (me, address) = crate::member("n3");
    let cluster = world.seats[0].config.cluster;
    let mut config = settings(cluster, me.clone(), address);
    config.join = true;
    config.members = world.seats.iter().map(|seat| seat.config.me.clone()).collect();
    let learner = Member { learner: true, ..me.clone() };
    world.change(leader, Change::AddLearner(me.id), MemberChange::Add(learner));
    let fourth = world.seat(config);
    world.start(fourth);
    world.change(leader, Change::Promote(me.id), MemberChange::Promote(me.id));
    let members = |i: usize, name: &str| -> Vec<NodeId> {
        let mut all = world.keyspace(i, name).membership().voters;
        all.sort_unstable();
        all
    };
    eventually("the directory is on the fourth node", || members(0, "system").contains(&me.id));
    assert!(!members(0, "orders").contains(&me.id), "it has its three replicas");
    let gone = (0..3).find(|i| *i != leader).unwrap();
    let gone_id = world.seats[gone].config.me.id;
    world.change(leader, Change::Remove(gone_id), MemberChange::Remove(gone_id));
    eventually("a replica took the place of the lost one", || {
        let now = members(leader, "orders");
        now.contains(&me.id) && !now.contains(&gone_id) && now.len() == 3
    });
    world.halt(gone);
    assert_eq!(world.get_in(fourth, "orders", "k").as_deref(), Some("v"));
    assert_eq!(world.put_in(fourth, "orders", "k", "w"), 3);
    // Its leader may have been the one that left.
    eventually("the directory is where the cluster is", || {
        let listed = world.runtime.block_on(world.handle(fourth).list_keyspaces(PATIENCE));
        let all = listed.unwrap_or_default();
        all.iter().any(|it| it.name == "system" && it.replicas.len() == 3)
    });
}
