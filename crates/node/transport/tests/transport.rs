//! Real sockets on loopback: delivery, loss, refusal, hostile bytes, slow peers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_base::{ClusterId, GroupId, NodeId, Position};
use quorate_driver::PeerMessage;
use quorate_replicated_log::Base;
use quorate_service::SnapshotChunk;
use quorate_transport::{Config, EPOCHS_SINCE, Limits, Receiver, Refusal, Transport, inquire};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<(NodeId, PeerMessage)>>,
    lost: Mutex<Vec<NodeId>>,
    refused: Mutex<Vec<(NodeId, Refusal)>>,
    congested: AtomicBool,
}

impl Receiver for Ear {
    fn deliver(&self, from: NodeId, messages: &mut Vec<PeerMessage>) {
        self.heard.lock().extend(messages.drain(..).map(|m| (from, m)));
    }
    fn lost(&self, node: NodeId) {
        self.lost.lock().push(node);
    }
    fn refused(&self, by: NodeId, refusal: Refusal) {
        self.refused.lock().push((by, refusal));
    }
    fn congested(&self) -> bool {
        self.congested.load(SeqCst)
    }
    fn directory(&self) -> Bytes {
        Bytes::from_static(b"who is who")
    }
}

struct Side {
    transport: Transport,
    ear: Arc<Ear>,
    address: SocketAddr,
}

impl Side {
    fn start(runtime: &Runtime, config: Config) -> Side {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Side::start_on(runtime, config, listener)
    }

    fn start_on(runtime: &Runtime, mut config: Config, listener: TcpListener) -> Side {
        let address = listener.local_addr().unwrap();
        config.advertise = address.to_string();
        let ear = Arc::new(Ear::default());
        let handle = runtime.handle().clone();
        let transport = Transport::start(config, vec![listener], ear.clone(), handle).unwrap();
        Side { transport, ear, address }
    }

    fn say(&self, to: u64, ids: std::ops::Range<u64>, bytes: usize) {
        let question = Bytes::from(vec![1; bytes]);
        let mut messages: Vec<_> = ids
            .map(|id| {
                let question = question.clone();
                (NodeId(to), PeerMessage::Query { group: GroupId(1), id, question })
            })
            .collect();
        self.transport.send(&mut messages);
        assert!(messages.is_empty());
    }

    fn heard_ids(&self) -> Vec<u64> {
        let heard = self.ear.heard.lock();
        let ids = heard.iter().filter_map(|(_, m)| match m {
            PeerMessage::Query { id, .. } => Some(*id),
            _ => None,
        });
        ids.collect()
    }

    fn connected(&self, to: u64) -> bool {
        self.transport.stats().iter().any(|(node, s)| node.0 == to && s.connected)
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn config(node: u64) -> Config {
    Config::of(ClusterId(0xc), NodeId(node))
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !check() {
        assert!(Instant::now() < end, "in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pair(runtime: &Runtime) -> (Side, Side) {
    let (one, two) = (Side::start(runtime, config(1)), Side::start(runtime, config(2)));
    one.transport.set_peer(NodeId(2), vec![two.address.to_string()]);
    two.transport.set_peer(NodeId(1), vec![one.address.to_string()]);
    eventually("both are connected", || one.connected(2) && two.connected(1));
    assert!(one.transport.stats().iter().all(|(_, peer)| peer.version >= EPOCHS_SINCE));
    (one, two)
}

#[test]
fn messages_arrive_in_order_in_both_directions_and_bulk_beside_them() {
    let runtime = runtime();
    let (one, two) = pair(&runtime);
    for start in (0..1_000).step_by(10) {
        one.say(2, start..start + 10, 100);
        two.say(1, start..start + 10, 3);
    }
    let bytes = Bytes::from(vec![9; 1 << 20]);
    let base = Base { position: Position::ZERO, ..Base::default() };
    let chunk = SnapshotChunk { bytes, checksum: 1, last: true };
    let snapshot = PeerMessage::Snapshot { group: GroupId(1), session: 1, base, part: 0, chunk };
    one.transport.send(&mut vec![(NodeId(2), snapshot.clone())]);
    eventually("all arrived", || {
        two.ear.heard.lock().len() == 1_001 && one.ear.heard.lock().len() == 1_000
    });
    assert_eq!(two.heard_ids(), (0..1_000).collect::<Vec<_>>());
    assert_eq!(one.heard_ids(), (0..1_000).collect::<Vec<_>>());
    assert!(two.ear.heard.lock().contains(&(NodeId(1), snapshot)));
    let (_, stats) = one.transport.stats()[0];
    assert_eq!((stats.sent_messages, stats.dropped_full), (1_001, 0));
    assert!(one.ear.lost.lock().is_empty() && two.ear.lost.lock().is_empty());
}

#[test]
fn a_lost_peer_is_told_at_once_and_found_again_at_another_address() {
    let runtime = runtime();
    let (one, two) = pair(&runtime);
    two.transport.shutdown();
    eventually("the loss was told", || one.ear.lost.lock().contains(&NodeId(2)));
    one.say(2, 0..5, 10);
    let again = Side::start(&runtime, config(2));
    one.transport.set_peer(NodeId(2), vec![again.address.to_string()]);
    eventually("what waited arrived", || again.heard_ids() == [0, 1, 2, 3, 4]);
}

#[test]
fn a_caller_is_learned_from_its_hand_shake() {
    let runtime = runtime();
    let (one, two) = (Side::start(&runtime, config(1)), Side::start(&runtime, config(2)));
    one.transport.set_peer(NodeId(2), vec![two.address.to_string()]);
    eventually("the way back was learned", || two.connected(1));
    two.say(1, 7..8, 1);
    eventually("the answer arrived", || one.heard_ids() == [7]);
}

#[test]
fn strangers_are_refused_with_the_reason_on_both_sides() {
    let runtime = runtime();
    let one = Side::start(&runtime, config(1));
    let stranger = Side::start(&runtime, Config::of(ClusterId(0xbad), NodeId(2)));
    stranger.transport.set_peer(NodeId(1), vec![one.address.to_string()]);
    let refused = |side: &Side, what| {
        eventually("the refusal was heard", || {
            side.ear.refused.lock().contains(&(NodeId(1), what))
        });
    };
    refused(&stranger, Refusal::WrongCluster);

    let lost = Side::start(&runtime, config(3));
    let other = Side::start(&runtime, config(4));
    lost.transport.set_peer(NodeId(1), vec![other.address.to_string()]);
    refused(&lost, Refusal::WrongNode);

    one.transport.remove_peer(NodeId(5));
    let removed = Side::start(&runtime, config(5));
    removed.transport.set_peer(NodeId(1), vec![one.address.to_string()]);
    refused(&removed, Refusal::Removed);
    assert!(one.ear.heard.lock().is_empty());
}

#[test]
fn a_peer_removed_while_connected_is_cut_off() {
    let runtime = runtime();
    let (one, two) = pair(&runtime);
    one.transport.remove_peer(NodeId(2));
    eventually("told", || two.ear.refused.lock().contains(&(NodeId(1), Refusal::Removed)));
    two.say(1, 0..1, 1);
    one.say(2, 0..1, 1);
    std::thread::sleep(Duration::from_millis(50));
    assert!(one.heard_ids().is_empty() && two.heard_ids().is_empty());
}

#[test]
fn hostile_bytes_close_the_connection_and_disturb_nobody() {
    let runtime = runtime();
    let (one, two) = pair(&runtime);
    let hello = |from: u64, to: u64| {
        let mut payload = vec![1, 1, 0];
        for number in [0xc_u64, from, to] {
            payload.extend_from_slice(&number.to_le_bytes());
        }
        payload.push(0);
        let mut bytes = b"QRTP".to_vec();
        bytes.extend_from_slice(&frame(1, &payload));
        bytes
    };
    let mut corrupt = frame(4, b"x");
    corrupt[8] ^= 1;
    let good = hello(9, 1);
    let cases: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        [&b"QRTP"[..], &[0xff; 12]].concat(),
        [&b"QRTP"[..], &frame(4, b"")].concat(),
        [&b"QRTP"[..], &frame(1, b"?")].concat(),
        hello(1, 1),
        hello(9, 8),
        [&good[..], &[0xff; 12]].concat(),
        [&good[..], &corrupt].concat(),
        [&good[..], &frame(4, &[77, 1])].concat(),
        [&good[..], &frame(99, b"")].concat(),
    ];
    for (n, bytes) in cases.into_iter().enumerate() {
        let mut socket = TcpStream::connect(one.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        socket.write_all(&bytes).unwrap();
        // Closed, with a refusal or a welcome first or not.
        let mut answer = Vec::new();
        match socket.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{n}"),
        }
    }
    two.say(1, 0..1, 1);
    eventually("the good peer is still heard", || one.heard_ids() == [0]);
    assert!(one.ear.heard.lock().iter().all(|(from, _)| *from == NodeId(2)));
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&[kind, 0, 0, 0]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), payload);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn a_slow_peer_is_shed_and_never_blocks() {
    let runtime = runtime();
    let limits = Limits { queue_bytes: 1 << 20, ..Limits::default() };
    let one = Side::start(&runtime, Config { limits, ..config(1) });
    let two = Side::start(&runtime, config(2));
    one.transport.set_peer(NodeId(2), vec![two.address.to_string()]);
    eventually("connected", || one.connected(2));
    two.ear.congested.store(true, SeqCst);
    let started = Instant::now();
    for id in 0..400 {
        one.say(2, id..id + 1, 64 << 10);
    }
    assert!(started.elapsed() < Duration::from_secs(2), "sending did not wait");
    let dropped = one.transport.stats()[0].1.dropped_full;
    assert!(dropped > 100, "{dropped}");
    two.ear.congested.store(false, SeqCst);
    eventually("the rest arrived", || two.heard_ids().len() as u64 == 400 - dropped);
    one.say(2, 1_000..1_001, 1);
    eventually("and later ones", || two.heard_ids().last() == Some(&1_000));
    assert!(one.connected(2) && one.ear.lost.lock().is_empty());
}

#[test]
fn whoever_asks_is_told_who_belongs_to_the_cluster() {
    let runtime = runtime();
    let one = Side::start(&runtime, config(1));
    let answer = runtime.block_on(inquire(&one.address.to_string()));
    assert_eq!(answer.unwrap(), Bytes::from_static(b"who is who"));
}
