//! Whole nodes in one process, over loopback: real threads, sockets and files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod damage;
mod epochs;
mod keyspaces;
mod leaving;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_base::{ClusterId, NodeId};
use quorate_driver::RequestError;
use quorate_host::{Directory, End, Node, NodeConfig, NodeHandle, StartError, Subscriber};
use quorate_host::{cluster_id, member_id};
use quorate_keyspace::command::{Member, MemberChange, Put, Range};
use quorate_keyspace::{Command, EventBatch, Outcome, Reply, codec};
use quorate_mvcc::KeyRange;
use quorate_replicated_log::{Change, Role};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(10);

/// Some nodes, running or not.
struct World {
    runtime: Runtime,
    seats: Vec<Seat>,
}

struct Seat {
    config: NodeConfig,
    node: Option<Node>,
    // Dropped after the node.
    _directory: TempDir,
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn member(name: &str) -> (Member, SocketAddr) {
    let address = free_address();
    let peer_urls = vec![format!("http://{address}")];
    let client_urls = vec![format!("http://{name}:2379")];
    let id = member_id(&peer_urls, "test");
    (Member { id, name: name.to_owned(), peer_urls, client_urls, learner: false }, address)
}

impl World {
    /// A cluster of `n` founders, started.
    fn new(n: usize, adjust: impl Fn(&mut NodeConfig)) -> World {
        let members: Vec<_> = (0..n).map(|i| member(&format!("n{i}"))).collect();
        let ids: Vec<NodeId> = members.iter().map(|(m, _)| m.id).collect();
        let cluster = cluster_id(&ids, "test");
        let founders: Vec<Member> =
            members.iter().map(|(m, _)| Member { client_urls: Vec::new(), ..m.clone() }).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut world = World { runtime, seats: Vec::new() };
        for (me, address) in members {
            let mut config = settings(cluster, me, address);
            config.members = founders.clone();
            adjust(&mut config);
            world.seat(config);
        }
        (0..n).for_each(|i| world.start(i));
        world
    }

    fn seat(&mut self, mut config: NodeConfig) -> usize {
        let directory = tempfile::tempdir().unwrap();
        config.data_dir = directory.path().join("data");
        self.seats.push(Seat { config, node: None, _directory: directory });
        self.seats.len() - 1
    }

    fn start(&mut self, i: usize) {
        let config = self.seats[i].config.clone();
        self.seats[i].node = Some(Node::start(config, self.runtime.handle().clone()).unwrap());
    }

    fn halt(&mut self, i: usize) {
        self.seats[i].node.take().unwrap().halt();
    }

    fn handle(&self, i: usize) -> NodeHandle {
        self.seats[i].node.as_ref().unwrap().handle()
    }

    fn running(&self) -> Vec<usize> {
        (0..self.seats.len()).filter(|i| self.seats[*i].node.is_some()).collect()
    }

    fn leader(&self) -> usize {
        let mut found = None;
        eventually("there is a leader", || {
            found = self
                .running()
                .into_iter()
                .find(|i| self.handle(*i).consensus().role == Role::Leader);
            found.is_some()
        });
        found.unwrap()
    }

    fn put(&self, i: usize, key: &str, value: &[u8]) -> Reply {
        self.try_put(i, key, value, PATIENCE).unwrap()
    }

    fn try_put(
        &self,
        i: usize,
        key: &str,
        value: &[u8],
        timeout: Duration,
    ) -> Result<Reply, RequestError> {
        let put = Put {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value),
            ..Put::default()
        };
        let body = codec::encode(&Command::Put(put)).unwrap();
        self.runtime.block_on(self.handle(i).propose(body, timeout))
    }

    /// A linearizable read.
    fn get(&self, i: usize, key: &str) -> Option<Bytes> {
        self.runtime.block_on(self.handle(i).read(PATIENCE)).unwrap();
        self.stale_get(i, key)
    }

    fn stale_get(&self, i: usize, key: &str) -> Option<Bytes> {
        let range = Range::of(KeyRange::One(Bytes::copy_from_slice(key.as_bytes())));
        self.handle(i).reader().range(&range).unwrap().kvs.pop().map(|kv| kv.value)
    }

    fn change(&self, i: usize, change: Change, member: MemberChange) -> Reply {
        let context = codec::encode(&Command::Member(member)).unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            let handle = self.handle(i);
            let judged = handle.consensus().applied;
            let asked = handle.change(change.clone(), judged, context.clone(), PATIENCE);
            match self.runtime.block_on(asked) {
                Ok(reply) => return reply,
                // A fresh leader first commits an entry of its own, a learner first catches up.
                Err(
                    RequestError::ChangeInProgress
                    | RequestError::Outdated
                    | RequestError::NotReady,
                ) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => panic!("{change:?}: {error:?}"),
            }
        }
    }
}

fn settings(cluster: ClusterId, me: Member, address: SocketAddr) -> NodeConfig {
    let mut config = NodeConfig::new("unset".into(), cluster, me);
    config.listen_peers = vec![address];
    config.heartbeat = Duration::from_millis(30);
    config.election_timeout = Duration::from_millis(250);
    config.segment_bytes = 16 << 20;
    config
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < end, "in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Default)]
struct Ear(Mutex<Vec<EventBatch>>);

impl Subscriber<EventBatch> for Ear {
    fn publish(&self, publications: &[EventBatch]) {
        self.0.lock().extend_from_slice(publications);
    }
    fn jump(&self) {}
}

#[test]
fn one_node_serves_and_keeps_its_data() {
    let mut world = World::new(1, |_| {});
    let ear = Arc::new(Ear::default());
    let subscriber: Arc<dyn Subscriber<EventBatch>> = ear.clone();
    world.handle(0).subscribe(&subscriber);
    let reply = world.put(0, "a", b"1");
    assert_eq!(reply.revision, 2);
    assert!(matches!(reply.result, Ok(Outcome::Put(_))));
    // Subscribers hear of a change before whoever asked for it.
    assert_eq!(ear.0.lock().iter().map(|b| b.revision).collect::<Vec<_>>(), [2]);
    assert_eq!(world.get(0, "a").as_deref(), Some(&b"1"[..]));
    world.halt(0);
    world.start(0);
    assert_eq!(world.get(0, "a").as_deref(), Some(&b"1"[..]));
    assert_eq!(world.put(0, "b", b"2").revision, 3, "a later run's requests are its own");
    let published = || {
        let members = world.handle(0).reader().members();
        members[0].client_urls == world.seats[0].config.me.client_urls
    };
    eventually("the node told its client addresses", published);
    let node = world.seats[0].node.take().unwrap();
    assert_eq!(world.runtime.block_on(node.shutdown()), End::Stopped);
}

#[test]
fn three_nodes_serve_through_each_and_survive_their_leader() {
    let mut world = World::new(3, |_| {});
    for i in 0..3 {
        world.put(i, &format!("k{i}"), &[i as u8]);
    }
    for i in 0..3 {
        for k in 0..3 {
            assert_eq!(world.get(i, &format!("k{k}")).as_deref(), Some(&[k as u8][..]));
        }
    }
    let leader = world.leader();
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    let started = Instant::now();
    world.halt(leader);
    world.put(others[0], "after", b"fail-over");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(3), "fail-over took {took:?}");
    assert_eq!(world.get(others[1], "after").as_deref(), Some(&b"fail-over"[..]));

    world.start(leader);
    assert_eq!(world.get(leader, "after").as_deref(), Some(&b"fail-over"[..]));
    world.put(leader, "again", b"here");

    // Everyone at once; nothing acknowledged is lost.
    (0..3).for_each(|i| world.halt(i));
    (0..3).for_each(|i| world.start(i));
    for i in 0..3 {
        assert_eq!(world.get(i, "again").as_deref(), Some(&b"here"[..]));
    }
}

#[test]
fn leadership_is_handed_over_on_request_and_at_shutdown() {
    let mut world = World::new(3, |_| {});
    world.put(0, "a", b"1");
    let leader = world.leader();
    let to = (leader + 1) % 3;
    let target = world.seats[to].config.me.id;
    let asked = world.handle((leader + 2) % 3);
    eventually("the third knows the leader", || !asked.consensus().leader.is_none());
    world.runtime.block_on(asked.transfer(target, PATIENCE)).unwrap();
    eventually("the other leads", || world.handle(to).consensus().role == Role::Leader);
    let node = world.seats[to].node.take().unwrap();
    assert_eq!(world.runtime.block_on(node.shutdown()), End::Stopped);
    let heir = world.leader();
    assert_ne!(heir, to);
    world.put(heir, "b", b"2");
}

#[test]
fn a_late_member_is_sent_the_state_promoted_and_removed() {
    let mut world = World::new(1, |_| {});
    for n in 0..50 {
        world.put(0, &format!("k{n}"), &[n; 100]);
    }
    let urls = world.seats[0].config.me.peer_urls.clone();
    let directory = world.runtime.block_on(Directory::discover(&urls)).unwrap();
    assert_eq!(directory.cluster, world.seats[0].config.cluster);
    let (me, address) = member("late");
    let mut config = settings(directory.cluster, me.clone(), address);
    config.members = directory.members;
    config.join = true;
    let late = world.seat(config);
    let joining = Member { client_urls: Vec::new(), name: String::new(), ..me.clone() };
    world.change(0, Change::AddLearner(me.id), MemberChange::Add(joining));
    world.start(late);
    assert_eq!(world.get(late, "k49").as_deref(), Some(&[49; 100][..]));
    eventually("it learns", || world.handle(late).consensus().role == Role::Learner);

    world.change(0, Change::Promote(me.id), MemberChange::Promote(me.id));
    world.put(late, "through", b"the new one");
    eventually("both vote", || world.handle(0).membership().voters.len() == 2);
    eventually("its name is known", || {
        world.handle(0).reader().members().iter().any(|m| m.name == "late")
    });

    world.change(0, Change::Remove(me.id), MemberChange::Remove(me.id));
    let handle = world.handle(late);
    let end =
        world.runtime.block_on(async { tokio::time::timeout(PATIENCE, handle.ended()).await });
    assert_eq!(end, Ok(End::Removed));
    assert_eq!(
        world.try_put(late, "x", b"y", PATIENCE),
        Err(RequestError::Stopped),
        "a removed member serves no more"
    );
    world.put(0, "alone", b"again");
}

#[test]
fn a_member_that_lags_beyond_the_log_is_sent_the_state() {
    let mut world = World::new(3, |config| {
        config.limits.catch_up_entries = 20;
        config.limits.compact_step_entries = 10;
    });
    world.put(0, "first", b"1");
    let lagging = (world.leader() + 1) % 3;
    let other = (world.leader() + 2) % 3;
    world.halt(lagging);
    for n in 0..200 {
        world.put(other, &format!("k{n}"), &[7; 1_000]);
    }
    let leader = world.leader();
    eventually("the log was compacted", || {
        let status = world.runtime.block_on(world.handle(leader).status()).unwrap();
        status.base.index > 100
    });
    world.start(lagging);
    assert_eq!(world.get(lagging, "k199").as_deref(), Some(&[7; 1_000][..]));
    let revision = |i: usize| world.handle(i).reader().revision();
    assert_eq!(revision(lagging), revision(leader));
}

/// The groups that every node has and hardly uses have entries in the log's first segment. They
/// must not keep all later ones.
#[test]
fn the_log_stays_short_whoever_hardly_uses_it() {
    let mut world = World::new(3, |config| config.segment_bytes = 16 << 20);
    world.put(0, "first", b"1");
    for n in 0..140 {
        world.put(0, &format!("k{}", n % 7), &[n; 1_000_000]);
    }
    let segments = |i: usize| {
        let log = world.seats[i].config.data_dir.join("log");
        let names = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".log")).count()
    };
    // Four are not much, one is begun, and one is prepared.
    for i in 0..3 {
        eventually("the oldest segments are given up", || {
            world.put(0, "some", b"more");
            segments(i) <= 6
        });
    }
    for i in 0..3 {
        world.halt(i);
        world.start(i);
        assert_eq!(world.get(i, "k5").as_deref(), Some(&[138; 1_000_000][..]));
        assert_eq!(world.get(i, "first").as_deref(), Some(&b"1"[..]));
    }
}

#[test]
fn without_a_quorum_requests_end_in_time() {
    let mut world = World::new(3, |_| {});
    world.put(0, "a", b"1");
    let survivor = world.leader();
    (0..3).filter(|i| *i != survivor).for_each(|i| world.halt(i));
    let started = Instant::now();
    let timeout = Duration::from_millis(500);
    assert!(world.try_put(survivor, "b", b"2", timeout).is_err());
    let read = world.runtime.block_on(world.handle(survivor).read(timeout));
    assert_eq!(read, Err(RequestError::Unavailable));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(world.stale_get(survivor, "a").as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_data_directory_is_one_nodes_own() {
    let mut world = World::new(1, |_| {});
    world.put(0, "a", b"1");
    let config = world.seats[0].config.clone();
    let again = |config: NodeConfig| Node::start(config, world.runtime.handle().clone()).err();
    let mut elsewhere = config.clone();
    elsewhere.listen_peers = vec![free_address()];
    let locked = again(elsewhere.clone()).expect("the directory is locked").to_string();
    assert!(locked.contains("in use"), "{locked}");
    let taken = again(config).expect("the port is taken");
    assert!(matches!(taken, StartError::Transport(_)), "{taken}");
    world.halt(0);
    elsewhere.cluster = ClusterId(7);
    let foreign = Node::start(elsewhere, world.runtime.handle().clone());
    let foreign = foreign.err().expect("the directory is another cluster's").to_string();
    assert!(foreign.contains("belongs to node"), "{foreign}");
}
