//! A running node: its threads, and how they end.

use crate::apply_thread::ApplyWork;
use crate::driver_thread::LogWork;
use crate::error::{End, StartError};
use crate::handle::{KeyspaceHandle, NodeHandle, Shared};
use crate::inbox::Item;
use crate::keyspaces::OpenerWork;
use quorate_base::NodeId;
use quorate_disk::DirectoryLock;
use quorate_replicated_log::{Role, Status};
use quorate_transport::Transport;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// Names of threads.
pub(crate) const DRIVER: &str = "quorate-driver";
pub(crate) const LOG: &str = "quorate-log";
pub(crate) const APPLY: &str = "quorate-apply";
pub(crate) const PERSIST: &str = "quorate-persist";
pub(crate) const OPEN: &str = "quorate-keyspaces";

/// A node with real threads, sockets and files. Dropping it ends it without ceremony.
pub struct Node {
    pub(crate) shared: Arc<Shared>,
    pub(crate) threads: Vec<JoinHandle<()>>,
    pub(crate) tasks: Vec<AbortHandle>,
    pub(crate) runtime: Handle,
    pub(crate) election_timeout: Duration,
    pub(crate) _lock: DirectoryLock,
}

impl Node {
    /// For asking it.
    pub fn handle(&self) -> NodeHandle {
        NodeHandle::new(self.shared.clone())
    }

    /// Ends it in good order: hands leadership over if it leads, answers whoever waits, makes its
    /// state durable. Returns how it ended, which may have been earlier and otherwise.
    pub async fn shutdown(mut self) -> End {
        let handle = self.handle();
        let mut leaving = tokio::task::JoinSet::new();
        for keyspace in handle.hosted() {
            if keyspace.consensus().role == Role::Leader {
                leaving.spawn(hand_over(keyspace, self.election_timeout));
            }
        }
        while leaving.join_next().await.is_some() {}
        self.stop();
        let threads = std::mem::take(&mut self.threads);
        // Joining blocks, which a task must not.
        let transport = self.shared.transport.clone();
        let joined = self.runtime.spawn_blocking(move || join(threads, &transport)).await;
        if joined.is_err() {
            tracing::error!("waiting for the node's threads failed");
        }
        handle.ended().await
    }

    /// Ends it at once: as `shutdown`, but whoever leads next finds out by itself. Blocks until
    /// every thread has ended.
    pub fn halt(self) {
        drop(self);
    }

    fn stop(&mut self) {
        self.shared.opener.push(OpenerWork::Stop);
        self.shared.inbox.items.push(Item::Stop);
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}

impl Drop for Node {
    /// The directory stays locked until no thread can touch it any more.
    fn drop(&mut self) {
        self.stop();
        join(std::mem::take(&mut self.threads), &self.shared.transport);
    }
}

/// Starts a named thread. If it panics, the node ends.
pub(crate) fn thread(
    name: &'static str,
    shared: &Arc<Shared>,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let watch = Watch { name, shared: shared.clone() };
    let body = move || {
        let _watch = watch;
        run();
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(StartError::Thread)
}

/// Ends the node when its thread panics: one thread's broken invariant must not leave the rest
/// waiting for it.
struct Watch {
    name: &'static str,
    shared: Arc<Shared>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = format!("a bug of ours: the thread {} panicked", self.name);
            self.shared.ending.finish(End::Failed(why));
            self.shared.inbox.items.push(Item::Stop);
            if self.name == DRIVER {
                // Whoever waits is told by its sender's being dropped.
                drop(self.shared.inbox.items.close());
                self.shared.log.push(LogWork::Stop);
                self.shared.applies.iter().for_each(|apply| apply.push(ApplyWork::Stop));
            }
        }
    }
}

fn join(threads: Vec<JoinHandle<()>>, transport: &Transport) {
    for thread in threads {
        let name = thread.thread().name().unwrap_or_default().to_owned();
        if thread.join().is_err() {
            tracing::error!(thread = %name, "a thread of the node panicked");
        }
    }
    transport.shutdown();
    // The port is to be free again; the tasks that hold it end when the runtime gets to them.
    let closed = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        transport.is_closed()
    });
    if !closed {
        tracing::warn!("the peer listeners are not closed yet");
    }
}

/// Hands the leadership of a keyspace over, if there is somebody to take it.
async fn hand_over(keyspace: KeyspaceHandle, timeout: Duration) {
    if let Ok(status) = keyspace.status().await
        && status.role == Role::Leader
        && let Some(heir) = heir(&status)
        && let Err(error) = keyspace.transfer(heir, timeout).await
    {
        let name = keyspace.name();
        tracing::warn!(?error, keyspace = name, to = %heir, "could not hand leadership over");
    }
}

/// Who should lead next: the voter that is heard from and has the most of the log.
fn heir(status: &Status) -> Option<NodeId> {
    let able = |node: NodeId| status.membership.voters.contains(&node);
    let peers = status.peers.iter().filter(|peer| peer.active && able(peer.node));
    peers.max_by_key(|peer| peer.matched).map(|peer| peer.node)
}
