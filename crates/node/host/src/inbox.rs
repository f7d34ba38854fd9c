//! What the driver thread is sent, and the transport's door to it.

use crate::board::Board;
use crate::error::End;
use crate::mailbox::Mailbox;
use crate::waiting::Reply;
use bytes::Bytes;
use parking_lot::Mutex;
use quorate_base::{GroupId, Instant, NodeId};
use quorate_driver::{Event, PeerMessage, Request};
use quorate_replicated_log::Status;
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
pub(crate) enum Item<R, P> {
    /// Messages of a peer, and what they weigh.
    Peer(NodeId, Vec<PeerMessage>, usize),
    /// Something else that happened.
    Event(Event<R, P>),
    /// A client's request.
    Request { group: GroupId, deadline: Instant, request: Request, reply: Reply<R> },
    /// Tell everything about a group.
    Status(GroupId, oneshot::Sender<Option<Status>>),
    /// Stop.
    Stop,
}

/// The driver's inbox.
pub(crate) struct Inbox<R, P> {
    pub items: Mailbox<Item<R, P>>,
    peer_bytes: AtomicUsize,
    peer_messages: AtomicUsize,
}

impl<R, P> Inbox<R, P> {
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
pub(crate) struct Door<R, P> {
    pub inbox: Arc<Inbox<R, P>>,
    pub board: Arc<Board>,
    /// What inquiries are answered: kept up to date by whoever applies changes of members.
    pub directory: Arc<Mutex<Bytes>>,
}

impl<R: Send + 'static, P: Send + 'static> Receiver for Door<R, P> {
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
            self.board.finish(End::Removed);
        }
    }

    fn congested(&self) -> bool {
        self.inbox.peer_bytes.load(Relaxed) > PEER_BYTES
            || self.inbox.peer_messages.load(Relaxed) > PEER_MESSAGES
    }

    fn directory(&self) -> Bytes {
        self.directory.lock().clone()
    }
}
