//! Drives the keyspace's watch hub: what is applied goes in, tasks are woken, history is read.

use crate::backend::{Backend, Listener};
use crate::node::Node;
use parking_lot::{Mutex, MutexGuard};
use quorate_keyspace::reply::KeyspaceError;
use quorate_keyspace::watch::{Message, StreamId, Watch, WatchError, WatchId};
use quorate_keyspace::{Canary, EventBatch, ReadError, WatchHub};
use quorate_mvcc::{Event, Revision};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// History is read in pieces of about this size.
const HISTORY_BYTES: usize = 1 << 20;
/// Before a store that failed is asked again. Its node is about to stop.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Hub {
    state: Mutex<State>,
    arrived: Mutex<Arrived>,
    /// Something arrived.
    published: Notify,
    /// Some watcher needs history.
    behind: Notify,
    streams: AtomicUsize,
}

struct State {
    hub: WatchHub,
    tasks: HashMap<StreamId, Arc<Notify>>,
    last_stream: u64,
}

/// What was applied and not taken yet, within a limit. Beyond it only the revision is kept: what
/// is lost here is in history.
struct Arrived {
    batches: VecDeque<EventBatch>,
    bytes: usize,
    limit_bytes: usize,
    /// The state jumped, or batches were dropped: ask the state where it is.
    lost: bool,
}

fn weight(batch: &EventBatch) -> usize {
    let one = |event: &Event| match event {
        Event::Put(kv) => kv.key.len() + kv.value.len() + 96,
        Event::Delete { key, .. } => key.len() + 96,
    };
    batch.events.iter().map(one).sum()
}

impl Listener for Hub {
    fn publish(&self, batches: &[EventBatch]) {
        let mut arrived = self.arrived.lock();
        if self.streams.load(Ordering::SeqCst) == 0 {
            // Nobody is interested; the next stream to open asks the state where it is.
            arrived.lose();
            return;
        }
        for batch in batches {
            arrived.bytes += weight(batch);
            arrived.batches.push_back(batch.clone());
        }
        if arrived.bytes > arrived.limit_bytes {
            arrived.lose();
        }
        drop(arrived);
        self.published.notify_one();
    }

    fn jump(&self) {
        self.arrived.lock().lose();
        self.published.notify_one();
    }
}

impl Arrived {
    fn lose(&mut self) {
        self.batches.clear();
        (self.bytes, self.lost) = (0, true);
    }
}

impl Hub {
    /// A hub for a state at `revision`, keeping at most so much that it has not looked at.
    pub fn new(revision: Revision, limit_bytes: usize) -> Arc<Hub> {
        let hub = WatchHub::new(revision, Canary::default());
        let batches = VecDeque::new();
        Arc::new(Hub {
            state: Mutex::new(State { hub, tasks: HashMap::new(), last_stream: 0 }),
            arrived: Mutex::new(Arrived { batches, bytes: 0, limit_bytes, lost: false }),
            published: Notify::new(),
            behind: Notify::new(),
            streams: AtomicUsize::new(0),
        })
    }

    /// Locks the hub with everything in it that has arrived.
    fn current(&self, revision: impl Fn() -> Revision) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        let (batches, lost) = {
            let mut arrived = self.arrived.lock();
            arrived.bytes = 0;
            (std::mem::take(&mut arrived.batches), std::mem::take(&mut arrived.lost))
        };
        if lost {
            // Whatever is in the batches that came later is told from history, too.
            state.hub.observe(revision());
        }
        for batch in &batches {
            state.hub.publish(batch);
        }
        state
    }

    /// Wakes whoever has something to do now.
    fn release(&self, mut state: MutexGuard<'_, State>) {
        for stream in state.hub.take_woken() {
            if let Some(task) = state.tasks.get(&stream) {
                task.notify_one();
            }
        }
        if state.hub.wants_history().is_some() {
            self.behind.notify_one();
        }
    }

    /// How many watchers there are, and how many of them are behind.
    pub fn counts(&self) -> (usize, usize) {
        self.state.lock().hub.counts()
    }

    /// Opens a stream that queues at most about `budget_bytes`.
    pub fn open<B: Backend>(node: &Node<B>, budget_bytes: usize) -> HubStream<B> {
        let hub = &node.hub;
        hub.streams.fetch_add(1, Ordering::SeqCst);
        let wake = Arc::new(Notify::new());
        let mut state = hub.current(|| node.backend.reader().revision());
        state.last_stream += 1;
        let id = StreamId(state.last_stream);
        state.hub.open(id, budget_bytes);
        state.tasks.insert(id, wake.clone());
        hub.release(state);
        HubStream { node: node.clone(), id, wake }
    }
}

/// A stream of watchers. Closed when dropped.
pub(crate) struct HubStream<B: Backend> {
    node: Node<B>,
    id: StreamId,
    /// Something is queued.
    pub wake: Arc<Notify>,
}

impl<B: Backend> Drop for HubStream<B> {
    fn drop(&mut self) {
        let mut state = self.node.hub.state.lock();
        state.hub.close(self.id);
        state.tasks.remove(&self.id);
        self.node.hub.release(state);
        self.node.hub.streams.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<B: Backend> HubStream<B> {
    fn change<T>(&self, change: impl FnOnce(&mut WatchHub, StreamId) -> T) -> T {
        let hub = &self.node.hub;
        let mut state = hub.current(|| self.node.backend.reader().revision());
        let outcome = change(&mut state.hub, self.id);
        hub.release(state);
        outcome
    }

    /// Makes a watcher. One from now on is told what happens after the state's latest revision,
    /// even if the hub has yet to hear of that. Tells the id and where it starts.
    pub fn create(
        &self,
        id: Option<WatchId>,
        mut watch: Watch,
    ) -> Result<(WatchId, Revision), WatchError> {
        self.change(|hub, stream| {
            if watch.start_revision == 0 {
                watch.start_revision =
                    hub.revision().max(self.node.backend.reader().revision()) + 1;
            }
            let start = watch.start_revision;
            hub.create(stream, id, watch).map(|id| (id, start))
        })
    }

    /// Ends a watcher.
    pub fn cancel(&self, id: WatchId) {
        self.change(|hub, stream| hub.cancel(stream, id));
    }

    /// Asks for progress of the whole stream.
    pub fn request_progress(&self) {
        self.change(|hub, stream| hub.request_progress(stream));
    }

    /// Asks for progress of those watchers that want it now and then.
    pub fn notify_progress(&self) {
        self.change(|hub, stream| hub.notify_progress(stream));
    }

    /// Takes what is queued, at most `limit` messages.
    pub fn take(&self, limit: usize, messages: &mut Vec<Message>) {
        let hub = &self.node.hub;
        let mut state = hub.state.lock();
        messages.extend(std::iter::from_fn(|| state.hub.take(self.id)).take(limit));
        hub.release(state);
    }
}

/// Feeds the hub what is applied, for as long as the server runs.
pub(crate) async fn dispatch<B: Backend>(node: Node<B>) {
    loop {
        node.hub.published.notified().await;
        node.hub.release(node.hub.current(|| node.backend.reader().revision()));
    }
}

/// Reads history for watchers that are behind, for as long as the server runs.
pub(crate) async fn serve_history<B: Backend>(node: Node<B>) {
    loop {
        node.hub.behind.notified().await;
        loop {
            let Some(from) = node.hub.state.lock().hub.wants_history() else { break };
            match node.backend.reader().history(from, HISTORY_BYTES) {
                Ok(history) => {
                    node.metrics.history_read();
                    let mut state = node.hub.state.lock();
                    state.hub.feed(&history);
                    node.hub.release(state);
                }
                Err(ReadError::Refused(KeyspaceError::Compacted)) => {
                    let compacted = node.backend.reader().compacted_revision();
                    let mut state = node.hub.state.lock();
                    state.hub.compacted(compacted);
                    node.hub.release(state);
                }
                Err(error) => {
                    if error != ReadError::Closed {
                        tracing::error!(%error, "cannot read history for watchers");
                    }
                    tokio::time::sleep(FAILURE_PAUSE).await;
                }
            }
            tokio::task::yield_now().await;
        }
    }
}
