//! A running node: its threads, and how they end.

use crate::error::{End, StartError};
use crate::handle::{NodeHandle, Shared};
use crate::inbox::Item;
use quorate_base::NodeId;
use quorate_disk::DirectoryLock;
use quorate_replicated_log::{Role, Status};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

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
        NodeHandle(self.shared.clone())
    }

    /// Ends it in good order: hands leadership over if it leads, answers whoever waits, makes its
    /// state durable. Returns how it ended, which may have been earlier and otherwise.
    pub async fn shutdown(mut self) -> End {
        let handle = self.handle();
        if let Ok(status) = handle.status().await
            && status.role == Role::Leader
            && let Some(heir) = heir(&status)
            && let Err(error) = handle.transfer(heir, self.election_timeout).await
        {
            tracing::warn!(?error, to = %heir, "could not hand leadership over");
        }
        self.stop();
        let threads = std::mem::take(&mut self.threads);
        // Joining blocks, which a task must not.
        let joined = self.runtime.spawn_blocking(move || join(threads)).await;
        if joined.is_err() {
            tracing::error!("a thread of the node panicked");
        }
        handle.ended().await
    }

    /// Ends it at once: as `shutdown`, but whoever leads next finds out by itself. Blocks until
    /// every thread has ended.
    pub fn halt(mut self) {
        self.stop();
        join(std::mem::take(&mut self.threads));
    }

    fn stop(&mut self) {
        self.shared.inbox.items.push(Item::Stop);
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }

    /// Starts a named thread.
    pub(crate) fn thread(
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, StartError> {
        std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(StartError::Thread)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        let name = thread.thread().name().unwrap_or_default().to_owned();
        if thread.join().is_err() {
            tracing::error!(thread = %name, "a thread of the node panicked");
        }
    }
}

/// Who should lead next: the voter that is heard from and has the most of the log.
fn heir(status: &Status) -> Option<NodeId> {
    let able = |node: NodeId| status.membership.voters.contains(&node);
    let peers = status.peers.iter().filter(|peer| peer.active && able(peer.node));
    peers.max_by_key(|peer| peer.matched).map(|peer| peer.node)
}
