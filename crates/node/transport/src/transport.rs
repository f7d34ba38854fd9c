//! The transport itself: peers come and go, messages go out.

use crate::accept::{self, Inbound};
use crate::config::Config;
use crate::dial::{self, Dialer};
use crate::error::TransportError;
use crate::frame::kind;
use crate::handshake::{Hello, Purpose, VERSIONS};
use crate::outbox::Outbox;
use crate::receiver::Receiver;
use crate::stats::{Counters, PeerStats};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use quorate_base::{ClusterId, NodeId};
use quorate_driver::PeerMessage;
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What the tasks of a transport share.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) receiver: Arc<dyn Receiver>,
    pub(crate) inbound: Inbound,
    runtime: Handle,
    peers: RwLock<Peers>,
}

#[derive(Default)]
struct Peers {
    known: BTreeMap<NodeId, Peer>,
    removed: BTreeSet<NodeId>,
    stopped: bool,
}

struct Peer {
    ordinary: Arc<Outbox>,
    bulk: Arc<Outbox>,
    counters: Arc<Counters>,
    /// Known only from its own hand-shake.
    learned: bool,
    /// Dropping it ends the peer's tasks.
    addresses: watch::Sender<Vec<String>>,
}

/// One node's connections to its peers. Dropping it closes them.
pub struct Transport {
    shared: Arc<Shared>,
    listeners: Mutex<Vec<AbortHandle>>,
    closing: Mutex<Vec<AbortHandle>>,
    /// Messages of one peer at a time, while they are handed to its queue.
    sorting: Mutex<Vec<PeerMessage>>,
}

impl Transport {
    /// Starts to listen and to answer on `listeners`, with tasks on `runtime`.
    ///
    /// # Errors
    /// [`TransportError::Listen`], if the runtime cannot take a listener over.
    pub fn start(
        config: Config,
        listeners: Vec<TcpListener>,
        receiver: Arc<dyn Receiver>,
        runtime: Handle,
    ) -> Result<Transport, TransportError> {
        let shared = Arc::new(Shared {
            config: Arc::new(config),
            receiver,
            inbound: Inbound::default(),
            runtime: runtime.clone(),
            peers: RwLock::default(),
        });
        let _guard = runtime.enter();
        let mut tasks = Vec::new();
        for listener in listeners {
            let address = listener.local_addr().map_or_else(|e| e.to_string(), |a| a.to_string());
            let fail = |source| TransportError::Listen { address: address.clone(), source };
            listener.set_nonblocking(true).map_err(fail)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(fail)?;
            tasks.push(runtime.spawn(accept::run(listener, shared.clone())).abort_handle());
        }
        Ok(Transport {
            shared,
            listeners: Mutex::new(tasks),
            closing: Mutex::default(),
            sorting: Mutex::default(),
        })
    }

    /// Makes `node` a peer that is reached at one of `addresses` (`host:port`), or tells where it
    /// is now. The node itself is never its own peer.
    pub fn set_peer(&self, node: NodeId, addresses: Vec<String>) {
        self.shared.set_peer(node, addresses, false);
    }

    /// Ends what there is with `node`, which left the cluster: it is refused from now on.
    pub fn remove_peer(&self, node: NodeId) {
        let mut peers = self.shared.peers.write();
        peers.known.remove(&node);
        peers.removed.insert(node);
        drop(peers);
        self.shared.inbound.end(node);
    }

    /// Sends messages, in order per peer; drains `messages`. Never blocks: what cannot be queued
    /// or has no known receiver is dropped.
    pub fn send(&self, messages: &mut Vec<(NodeId, PeerMessage)>) {
        let peers = self.shared.peers.read();
        // Most batches are for one or two peers: one stable pass per receiver keeps the order.
        let mut batch = self.sorting.lock();
        while let Some(&(to, _)) = messages.first() {
            let mut bulk = Vec::new();
            batch.extend(messages.extract_if(.., |(node, _)| *node == to).map(|(_, m)| m));
            let Some(peer) = peers.known.get(&to) else {
                batch.clear();
                continue;
            };
            if batch.iter().any(PeerMessage::is_bulk) {
                bulk.extend(batch.extract_if(.., |m| m.is_bulk()));
                peer.bulk.push(bulk.into_iter());
            }
            if !batch.is_empty() {
                peer.ordinary.push(batch.drain(..));
            }
        }
    }

    /// How each peer fares, in order of node.
    pub fn stats(&self) -> Vec<(NodeId, PeerStats)> {
        let peers = self.shared.peers.read();
        peers.known.iter().map(|(node, peer)| (*node, peer.counters.read())).collect()
    }

    /// Closes every connection and stops listening.
    pub fn shutdown(&self) {
        for task in self.listeners.lock().drain(..) {
            task.abort();
            self.closing.lock().push(task);
        }
        let mut peers = self.shared.peers.write();
        peers.stopped = true;
        peers.known.clear();
    }
}

impl Transport {
    /// Whether the listeners' ports are free again after [`Transport::shutdown`].
    pub fn is_closed(&self) -> bool {
        self.listeners.lock().is_empty() && self.closing.lock().iter().all(AbortHandle::is_finished)
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Shared {
    pub(crate) fn is_removed(&self, node: NodeId) -> bool {
        self.peers.read().removed.contains(&node)
    }

    /// A peer told where it is; believed as long as nobody said otherwise.
    pub(crate) fn learn(self: &Shared, node: NodeId, advertise: &str) {
        let wanted = {
            let peers = self.peers.read();
            match peers.known.get(&node) {
                Some(peer) => peer.learned,
                None => {
                    let learned = peers.known.values().filter(|p| p.learned).count();
                    learned < self.config.limits.learned_peers
                }
            }
        };
        if wanted && !advertise.is_empty() {
            self.set_peer(node, vec![advertise.to_owned()], true);
        }
    }

    fn set_peer(&self, node: NodeId, addresses: Vec<String>, learned: bool) {
        if node == self.config.node || node.is_none() {
            return;
        }
        let mut peers = self.peers.write();
        if peers.stopped || (learned && peers.removed.contains(&node)) {
            return;
        }
        peers.removed.remove(&node);
        if let Some(peer) = peers.known.get_mut(&node) {
            peer.learned = learned;
            peer.addresses.send_if_modified(|current| {
                let changed = *current != addresses;
                *current = addresses;
                changed
            });
            return;
        }
        let peer = self.new_peer(node, addresses, learned);
        peers.known.insert(node, peer);
    }

    fn new_peer(&self, node: NodeId, addresses: Vec<String>, learned: bool) -> Peer {
        let (sender, receiver) = watch::channel(addresses);
        let counters = Arc::new(Counters::default());
        let dial = |purpose: Purpose| {
            let direct = purpose == Purpose::Ordinary;
            let outbox = Arc::new(Outbox::new(self.config.limits, direct, counters.clone()));
            let dialer = Dialer {
                config: self.config.clone(),
                receiver: self.receiver.clone(),
                peer: node,
                purpose,
                outbox: outbox.clone(),
                counters: counters.clone(),
                addresses: receiver.clone(),
            };
            self.runtime.spawn(dialer.run());
            outbox
        };
        let (ordinary, bulk) = (dial(Purpose::Ordinary), dial(Purpose::Bulk));
        Peer { ordinary, bulk, counters, learned, addresses: sender }
    }
}

/// Asks whoever listens at `address` (`host:port`) who belongs to its cluster: what its
/// [`Receiver::directory`] returns. For a node that is to join and knows only addresses.
///
/// # Errors
/// [`TransportError`]
pub async fn inquire(address: &str) -> Result<Bytes, TransportError> {
    let hello = Hello {
        versions: VERSIONS,
        purpose: Purpose::Inquiry,
        cluster: ClusterId(0),
        from: NodeId::NONE,
        to: NodeId::NONE,
        advertise: String::new(),
        birth: 0,
    };
    let config = Config::of(ClusterId(0), NodeId::NONE);
    let (_, answer) = dial::call(address, &hello, &config).await?;
    match answer.kind {
        kind::DIRECTORY => Ok(answer.payload),
        other => Err(TransportError::Unexpected { kind: other }),
    }
}
