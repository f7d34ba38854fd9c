//! What the driver thread is sent, and the transport's door to it.

use crate::births::Births;
use crate::ending::Ending;
use crate::error::End;
use crate::hosted::Opening;
use crate::mailbox::Mailbox;
use crate::waiting::Reply;
use bytes::Bytes;
use parking_lot::Mutex;
use quorate_base::{GroupId, Instant, NodeId};
use quorate_driver::{Event, PeerMessage, Request};
use quorate_replicated_log::Status;
use quorate_service::Service;
use quorate_transport::{Receiver, Refusal, codec};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::oneshot;

/// Bytes of peers' messages that may wait for the driver before reading pauses.
const PEER_BYTES: usize = 64 << 20;
/// Number of such messages.
const PEER_MESSAGES: usize = 65_536;
/// Requests and events that may wait for the driver before further requests are refused.
pub(crate) const INBOX_ITEMS: usize = 131_072;

/// One thing for the driver thread.
pub(crate) enum Item<S: Service> {
    /// Messages of a peer, and what they weigh.
    Peer(NodeId, Vec<PeerMessage>, usize),
    /// Something else that happened.
    Event(Event<S::Reply, S::Publication>),
    /// A client's request.
    Request { group: GroupId, deadline: Instant, request: Request, reply: Reply<S::Reply> },
    /// Tell everything about a group.
    Status(GroupId, oneshot::Sender<Option<Status>>),
    /// A group has a replica here from now on.
    Open(Box<Opening<S>>),
    /// It has none any more, and the log forgets it.
    Close(GroupId),
    /// Stop.
    Stop,
}

/// The driver's inbox.
pub(crate) struct Inbox<S: Service> {
    pub items: Mailbox<Item<S>>,
    peer_bytes: AtomicUsize,
    peer_messages: AtomicUsize,
}

impl<S: Service> Inbox<S> {
    pub fn new() -> Self {
        Inbox {
            items: Mailbox::new(),
            peer_bytes: AtomicUsize::new(0),
            peer_messages: AtomicUsize::new(0),
        }
    }

    /// Messages of a peer were taken out.
    pub fn taken(&self, messages: usize, bytes: usize) {
        self.peer_messages.fetch_sub(messages, Relaxed);
        self.peer_bytes.fetch_sub(bytes, Relaxed);
    }
}

/// Hands what the transport receives to the driver.
pub(crate) struct Door<S: Service> {
    pub inbox: Arc<Inbox<S>>,
    pub ending: Arc<Ending>,
    /// What inquiries are answered: kept up to date by whoever applies changes of members.
    pub directory: Arc<Mutex<Bytes>>,
    /// Whom this node knows.
    pub births: Mutex<Births>,
}

impl<S: Service> Receiver for Door<S> {
    fn deliver(&self, from: NodeId, messages: &mut Vec<PeerMessage>) {
        let messages = std::mem::take(messages);
        let bytes = messages.iter().map(codec::weight).sum();
        self.inbox.peer_messages.fetch_add(messages.len(), Relaxed);
        self.inbox.peer_bytes.fetch_add(bytes, Relaxed);
        self.inbox.items.push(Item::Peer(from, messages, bytes));
    }

    fn lost(&self, node: NodeId) {
        self.inbox.items.push(Item::Event(Event::PeerLost { node }));
    }

    fn refused(&self, by: NodeId, refusal: Refusal) {
        if refusal == Refusal::Removed {
            tracing::error!(peer = %by, "a peer says that this node was removed from the cluster");
            self.ending.finish(End::Removed);
        }
        if refusal == Refusal::Forgot {
            let why = format!(
                "node {by} knows this node by another data directory: what it promised there is \
                 lost, and it may not vote as if it remembered. Remove this member from the \
                 cluster, empty its data directory, and add it as a new member"
            );
            tracing::error!(peer = %by, "{why}");
            self.ending.finish(End::Failed(why));
        }
    }

    fn recognizes(&self, node: NodeId, birth: u64) -> Option<bool> {
        let recognized = self.births.lock().recognize(node, birth);
        recognized.inspect_err(|error| tracing::error!(%error, "a peer is not let in")).ok()
    }

    fn congested(&self) -> bool {
        self.inbox.peer_bytes.load(Relaxed) > PEER_BYTES
            || self.inbox.peer_messages.load(Relaxed) > PEER_MESSAGES
    }

    fn directory(&self) -> Bytes {
        self.directory.lock().clone()
    }
}
