//! What the rest of the process asks of a running node.

use crate::apply_thread::{Job, PersistWork};
use crate::board::{Board, Consensus};
use crate::driver_thread::{ApplyWork, LogWork};
use crate::error::End;
use crate::inbox::{INBOX_ITEMS, Inbox, Item};
use crate::lanes::Lane;
use crate::mailbox::Mailbox;
use crate::subscribers::{Subscriber, Subscribers};
use crate::waiting;
use bytes::Bytes;
use quorate_base::{ClusterId, GroupId, Index, NodeId};
use quorate_disk::{Clock, OsClock};
use quorate_driver::{Answer, Request, RequestError};
use quorate_keyspace::{EventBatch, Keyspace, Reader, Reply, SpaceGuard};
use quorate_mvcc::FjallEngine;
use quorate_replicated_log::{Change, Membership, Status};
use quorate_service::{Service, ServiceError, SnapshotSource};
use quorate_transport::{PeerStats, Transport};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The group of a node's keyspace.
pub const KEYSPACE: GroupId = GroupId(1);

/// The production keyspace.
pub type HostedKeyspace = Keyspace<FjallEngine>;

/// What a node's threads and its handles share.
pub(crate) struct Shared {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub clock: OsClock,
    pub inbox: Arc<Inbox<Reply, EventBatch>>,
    pub log: Arc<Mailbox<LogWork>>,
    pub apply: Arc<Mailbox<ApplyWork<Job<HostedKeyspace>>>>,
    pub persister: Arc<Mailbox<PersistWork>>,
    pub board: Arc<Board>,
    pub subscribers: Arc<Subscribers<EventBatch>>,
    pub transport: Arc<Transport>,
    pub reader: Reader<FjallEngine>,
    pub space: SpaceGuard,
}

/// A running node, as its users hold it. Cloning is cheap.
///
/// Every request ends: with its answer, or with an error soon after its timeout at the latest.
#[derive(Clone)]
pub struct NodeHandle(pub(crate) Arc<Shared>);

thread_local! {
    /// The way back to the runtime that this thread works for.
    static LANE: RefCell<Option<Lane<Reply>>> = const { RefCell::new(None) };
}

fn lane() -> Lane<Reply> {
    LANE.with_borrow_mut(|known| match known {
        Some(lane) if !lane.is_closed() => lane.clone(),
        _ => known.insert(Lane::open()).clone(),
    })
}

impl NodeHandle {
    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.0.cluster
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Replicates a keyspace command (as `quorate_keyspace::codec::encode` makes it) and answers
    /// once this node has applied it.
    ///
    /// # Errors
    /// [`RequestError`]; it says whether the command may have been applied.
    pub async fn propose(&self, body: Bytes, timeout: Duration) -> Result<Reply, RequestError> {
        match self.request(Request::Propose(body), timeout).await? {
            Answer::Applied(reply) => Ok(reply),
            other => unreachable_answer(&other),
        }
    }

    /// Returns once this node's state includes all that was acknowledged anywhere before the
    /// call: then what the [`Reader`] says is linearizable.
    ///
    /// # Errors
    /// [`RequestError`]
    pub async fn read(&self, timeout: Duration) -> Result<Index, RequestError> {
        match self.request(Request::Read, timeout).await? {
            Answer::Readable(index) => Ok(index),
            other => unreachable_answer(&other),
        }
    }

    /// Asks the leader's keyspace (`quorate_keyspace::Question`).
    ///
    /// # Errors
    /// [`RequestError`]
    pub async fn query(&self, question: Bytes, timeout: Duration) -> Result<Bytes, RequestError> {
        match self.request(Request::Query(question), timeout).await? {
            Answer::Told(answer) => Ok(answer),
            other => unreachable_answer(&other),
        }
    }

    /// Changes the members, if they have not changed since this node had applied `judged`; the
    /// context is a keyspace command, applied with the change.
    ///
    /// # Errors
    /// [`RequestError`]
    pub async fn change(
        &self,
        change: Change,
        judged: Index,
        context: Bytes,
        timeout: Duration,
    ) -> Result<Reply, RequestError> {
        match self.request(Request::Change { change, judged, context }, timeout).await? {
            Answer::Applied(reply) => Ok(reply),
            other => unreachable_answer(&other),
        }
    }

    /// Hands leadership to another voter.
    ///
    /// # Errors
    /// [`RequestError`]
    pub async fn transfer(&self, to: NodeId, timeout: Duration) -> Result<(), RequestError> {
        match self.request(Request::Transfer(to), timeout).await? {
            Answer::Transferred => Ok(()),
            other => unreachable_answer(&other),
        }
    }

    async fn request(
        &self,
        request: Request,
        timeout: Duration,
    ) -> Result<Answer<Reply>, RequestError> {
        if self.has_ended() {
            return Err(RequestError::Stopped);
        }
        let deadline = self.0.clock.now() + timeout;
        let (to, answer) = oneshot::channel();
        let reply = waiting::Reply { to, lane: lane() };
        let item = Item::Request { group: KEYSPACE, deadline, request, reply };
        if self.0.inbox.items.try_push(item, INBOX_ITEMS).is_err() {
            return Err(RequestError::TooManyRequests);
        }
        // The sender is dropped unanswered only when the driver thread ends.
        answer.await.unwrap_or(Err(RequestError::Stopped))
    }

    /// How consensus stands: cheap, for every request.
    pub fn consensus(&self) -> Consensus {
        self.0.board.read()
    }

    /// Everything the replica knows of itself and, if it leads, of its followers.
    ///
    /// # Errors
    /// [`RequestError::Stopped`]
    pub async fn status(&self) -> Result<Status, RequestError> {
        let (reply, answer) = oneshot::channel();
        if self.has_ended() {
            return Err(RequestError::Stopped);
        }
        self.0.inbox.items.push(Item::Status(KEYSPACE, reply));
        answer.await.ok().flatten().ok_or(RequestError::Stopped)
    }

    /// The members as of the applied entries: who votes and who does not.
    pub fn membership(&self) -> Membership {
        self.0.board.membership.lock().clone()
    }

    /// Waits for the known leader to be another than `known`, and tells who it is.
    pub async fn leader_changed(&self, known: NodeId) -> NodeId {
        let mut watch = self.0.board.leader_changed.subscribe();
        // The sender lives as long as this handle.
        watch.wait_for(|leader| *leader != known).await.map_or(NodeId::NONE, |leader| *leader)
    }

    /// For reading this node's state, on the caller's thread.
    pub fn reader(&self) -> &Reader<FjallEngine> {
        &self.0.reader
    }

    /// What this node's keyspace may hold.
    pub fn space(&self) -> &SpaceGuard {
        &self.0.space
    }

    /// Tells `subscriber` of every applied change from now on, until its last `Arc` is dropped.
    pub fn subscribe(&self, subscriber: &Arc<dyn Subscriber<EventBatch>>) {
        self.0.subscribers.add(subscriber);
    }

    /// Starts to read out the whole state.
    ///
    /// # Errors
    /// The service's error, or that the node has stopped, in words.
    pub async fn snapshot(&self) -> Result<Box<dyn SnapshotSource>, String> {
        let told = |error: ServiceError| error.to_string();
        self.with_keyspace(|keyspace| keyspace.snapshot()).await?.map_err(told)
    }

    /// Runs something with the keyspace between two applies: it must be short.
    ///
    /// # Errors
    /// That the node has stopped.
    pub async fn with_keyspace<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut HostedKeyspace) -> T + Send + 'static,
    ) -> Result<T, String> {
        let (sender, receiver) = oneshot::channel();
        let job: Job<HostedKeyspace> = Box::new(move |keyspace| {
            // Whoever asked may have gone.
            let _ = sender.send(run(keyspace));
        });
        if self.has_ended() {
            return Err(STOPPED.to_owned());
        }
        self.0.apply.push(ApplyWork::Job(job));
        receiver.await.map_err(|_| STOPPED.to_owned())
    }

    /// How the connections to the peers fare.
    pub fn peers(&self) -> Vec<(NodeId, PeerStats)> {
        self.0.transport.stats()
    }

    /// Whether the node has ended.
    pub fn has_ended(&self) -> bool {
        self.0.board.has_ended()
    }

    /// Waits for the node to end, and tells how: by request, because it left the cluster, or
    /// because it cannot go on.
    pub async fn ended(&self) -> End {
        let mut watch = self.0.board.end.subscribe();
        // The sender lives as long as this handle.
        let end = watch.wait_for(Option::is_some).await;
        end.ok().and_then(|end| end.clone()).unwrap_or(End::Stopped)
    }
}

const STOPPED: &str = "the node has stopped";

/// The driver answered a request with the answer to another kind: a bug of ours.
fn unreachable_answer<T>(answer: &Answer<Reply>) -> T {
    unreachable!("the driver answered {answer:?}")
}
