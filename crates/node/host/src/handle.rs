//! What the rest of the process asks of a running node and of its keyspaces.

use crate::apply_thread::{ApplyWork, Job, PersistWork};
use crate::board::Consensus;
use crate::driver_thread::LogWork;
use crate::ending::Ending;
use crate::error::End;
use crate::hosted::{Hosted, KeyspaceRefusal, Table};
use crate::inbox::{INBOX_ITEMS, Inbox, Item};
use crate::keyspaces::{OpenerWork, SYSTEM, TRANSACTIONS};
use crate::lanes::Lane;
use crate::mailbox::Mailbox;
use crate::subscribers::Subscriber;
use crate::waiting;
use bytes::Bytes;
use quorate_base::{ClusterId, GroupId, Index, NodeId};
use quorate_disk::{Clock, OsClock};
use quorate_driver::{Answer, Request, RequestError};
use quorate_keyspace::{EventBatch, Keyspace, Reader, Reply, SpaceGuard};
use quorate_mvcc::FjallEngine;
use quorate_replicated_log::{Change, Epoch, Membership, Protocol, Status};
use quorate_service::{Service, ServiceError, SnapshotSource};
use quorate_transport::{PeerStats, Transport};
use std::cell::RefCell;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The group of the default keyspace, whose members are the cluster's.
pub const KEYSPACE: GroupId = GroupId(1);

/// The name of the default keyspace.
pub const DEFAULT: &str = "default";

/// The production keyspace.
pub type HostedKeyspace = Keyspace<FjallEngine>;

/// What a node's threads and its handles share.
pub(crate) struct Shared {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Which life of the node this is.
    pub run: u64,
    /// How the default keyspace and the directory are replicated.
    pub protocol: Protocol,
    /// Whether one member alone decides on the records of transactions, if this node makes their
    /// keyspace.
    pub one_vote: bool,
    pub clock: OsClock,
    pub inbox: Arc<Inbox<HostedKeyspace>>,
    pub log: Arc<Mailbox<LogWork>>,
    /// The first is the default keyspace's own.
    pub applies: Vec<Arc<Mailbox<ApplyWork<HostedKeyspace>>>>,
    pub persister: Arc<Mailbox<PersistWork>>,
    pub opener: Arc<Mailbox<OpenerWork>>,
    pub ending: Arc<Ending>,
    pub transport: Arc<Transport>,
    pub default: Arc<Hosted>,
    pub table: Table,
    pub space: SpaceGuard,
}

/// A running node, as its users hold it; by itself it stands for the node's default keyspace.
/// Cloning is cheap.
#[derive(Clone)]
pub struct NodeHandle {
    keyspace: KeyspaceHandle,
}

/// A keyspace with a replica on this node. Cloning is cheap.
///
/// Every request ends: with its answer, or with an error soon after its timeout at the latest.
#[derive(Clone)]
pub struct KeyspaceHandle {
    pub(crate) node: Arc<Shared>,
    hosted: Arc<Hosted>,
}

impl Deref for NodeHandle {
    type Target = KeyspaceHandle;

    fn deref(&self) -> &KeyspaceHandle {
        &self.keyspace
    }
}

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
    pub(crate) fn new(node: Arc<Shared>) -> NodeHandle {
        let hosted = node.default.clone();
        NodeHandle { keyspace: KeyspaceHandle { node, hosted } }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.keyspace.node
    }

    /// The keyspace of this name.
    ///
    /// # Errors
    /// [`KeyspaceRefusal`]
    pub fn keyspace(&self, name: &str) -> Result<KeyspaceHandle, KeyspaceRefusal> {
        let node = self.shared().clone();
        let hosted = node.table.named(name)?;
        Ok(KeyspaceHandle { node, hosted })
    }

    /// The keyspace of this group.
    pub fn group(&self, group: GroupId) -> Option<KeyspaceHandle> {
        let node = self.shared().clone();
        let hosted = node.table.hosted(group)?;
        Some(KeyspaceHandle { node, hosted })
    }

    /// Every keyspace that has a replica on this node, in order of group.
    pub fn hosted(&self) -> Vec<KeyspaceHandle> {
        let node = self.shared();
        let all = node.table.all().into_iter();
        all.map(|hosted| KeyspaceHandle { node: node.clone(), hosted }).collect()
    }

    /// The directory of keyspaces, once this node has a replica of it.
    pub fn directory(&self) -> Option<KeyspaceHandle> {
        self.group(SYSTEM)
    }

    /// Which life of the node this is: a number that no other has, and that grows.
    pub fn run(&self) -> u64 {
        self.shared().run
    }

    /// How the connections to the peers fare.
    pub fn peers(&self) -> Vec<(NodeId, PeerStats)> {
        self.shared().transport.stats()
    }

    /// Waits for the node to end, and tells how: by request, because it left the cluster, or
    /// because it cannot go on.
    pub async fn ended(&self) -> End {
        let mut watch = self.shared().ending.end.subscribe();
        // The sender lives as long as this handle.
        let end = watch.wait_for(Option::is_some).await;
        end.ok().and_then(|end| end.clone()).unwrap_or(End::Stopped)
    }
}

impl KeyspaceHandle {
    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.node.cluster
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.node.node
    }

    /// The keyspace's group.
    pub fn id(&self) -> GroupId {
        self.hosted.group
    }

    /// The keyspace's name.
    pub fn name(&self) -> &str {
        &self.hosted.name
    }

    /// Whether it is the cluster's own, and not for clients.
    pub fn is_own(&self) -> bool {
        self.hosted.group == SYSTEM || self.hosted.name == TRANSACTIONS
    }

    /// Whether the keyspace has this replica no more: it was dropped, or moved.
    pub fn is_closed(&self) -> bool {
        let now = self.node.table.hosted(self.hosted.group);
        !now.is_some_and(|now| Arc::ptr_eq(&now, &self.hosted))
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

    /// Ends the epoch `judged` of the log, which goes on under another protocol; answers when this
    /// node has opened the next one.
    ///
    /// # Errors
    /// [`RequestError`]: `Outdated` in another epoch, `BadChange` if it has the protocol already.
    pub async fn switch(
        &self,
        to: Protocol,
        judged: Epoch,
        timeout: Duration,
    ) -> Result<Epoch, RequestError> {
        match self.request(Request::Switch { to, judged }, timeout).await? {
            Answer::Switched { epoch, .. } => Ok(epoch),
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
        let deadline = self.node.clock.now() + timeout;
        let (to, answer) = oneshot::channel();
        let reply = waiting::Reply { to, lane: lane() };
        let item = Item::Request { group: self.hosted.group, deadline, request, reply };
        if self.node.inbox.items.try_push(item, INBOX_ITEMS).is_err() {
            return Err(RequestError::TooManyRequests);
        }
        // The sender is dropped unanswered only when the driver thread ends.
        answer.await.unwrap_or(Err(RequestError::Stopped))
    }

    /// How consensus stands: cheap, for every request.
    pub fn consensus(&self) -> Consensus {
        self.hosted.board.read()
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
        self.node.inbox.items.push(Item::Status(self.hosted.group, reply));
        answer.await.ok().flatten().ok_or(RequestError::Stopped)
    }

    /// The members as of the applied entries: who votes and who does not.
    pub fn membership(&self) -> Membership {
        self.hosted.board.membership.lock().clone()
    }

    /// Waits for the known leader to be another than `known`, and tells who it is.
    pub async fn leader_changed(&self, known: NodeId) -> NodeId {
        let mut watch = self.hosted.board.leader_changed.subscribe();
        // The sender lives as long as this handle.
        watch.wait_for(|leader| *leader != known).await.map_or(NodeId::NONE, |leader| *leader)
    }

    /// For reading this node's state, on the caller's thread.
    pub fn reader(&self) -> &Reader<FjallEngine> {
        &self.hosted.reader
    }

    /// What this node's keyspace may hold.
    pub fn space(&self) -> &SpaceGuard {
        &self.node.space
    }

    /// Tells `subscriber` of every applied change from now on, until its last `Arc` is dropped.
    pub fn subscribe(&self, subscriber: &Arc<dyn Subscriber<EventBatch>>) {
        self.hosted.subscribers.add(subscriber);
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
        self.hosted.apply.push(ApplyWork::Job(self.hosted.group, job));
        receiver.await.map_err(|_| STOPPED.to_owned())
    }

    /// Whether the node has ended.
    pub fn has_ended(&self) -> bool {
        self.node.ending.is_over()
    }
}

const STOPPED: &str = "the node has stopped, or has this keyspace no more";

/// The driver answered a request with the answer to another kind: a bug of ours.
fn unreachable_answer<T>(answer: &Answer<Reply>) -> T {
    unreachable!("the driver answered {answer:?}")
}
