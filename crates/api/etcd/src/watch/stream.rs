//! One watch stream: what the client asks of it, and what it is told.

use crate::backend::Backend;
use crate::convert;
use crate::errors::Refusal;
use crate::node::Node;
use crate::watch::hub::{Hub, HubStream};
use crate::watch::responses;
use bytes::Bytes;
use quorate_keyspace::watch::{Message, Watch, WatchError};
use quorate_mvcc::{KeyRange, Revision};
use quorate_wire::etcdserverpb::watch_create_request::FilterType;
use quorate_wire::etcdserverpb::watch_request::RequestUnion;
use quorate_wire::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use std::collections::HashMap;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// The id of answers that concern no watcher, or all.
const NO_WATCHER: i64 = -1;
/// What a stream may have queued in the hub, in bytes. Its watchers then fall behind.
const BUDGET_BYTES: usize = 1 << 20;
/// A response is cut between revisions when it is larger, in bytes.
const RESPONSE_BYTES: usize = 256 * 1024;
/// Messages taken from the hub at a time.
const MESSAGES: usize = 32;

/// The client went away.
struct Closed;

/// A watch stream being served.
pub(crate) struct WatchStream<B: Backend> {
    node: Node<B>,
    hub: HubStream<B>,
    sink: mpsc::Sender<Result<WatchResponse, Status>>,
    /// Where each watcher starts.
    starts: HashMap<i64, Revision>,
}

impl<B: Backend> Drop for WatchStream<B> {
    fn drop(&mut self) {
        self.node.metrics.watch_stream_closed();
    }
}

impl<B: Backend> WatchStream<B> {
    pub fn new(node: Node<B>, sink: mpsc::Sender<Result<WatchResponse, Status>>) -> Self {
        node.metrics.watch_stream_opened();
        let hub = Hub::open(&node, BUDGET_BYTES);
        WatchStream { node, hub, sink, starts: HashMap::new() }
    }

    /// Serves the stream until the client goes, or leadership does and the client minds.
    pub async fn run(mut self, mut requests: Streaming<WatchRequest>, require_leader: bool) {
        let node = self.node.clone();
        let lost = node.leadership.lost(require_leader);
        tokio::pin!(lost);
        let interval = node.options.progress_notify_interval;
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        let (wake, sink) = (self.hub.wake.clone(), self.sink.clone());
        let mut open = true;
        loop {
            let outcome = tokio::select! {
                reason = &mut lost => {
                    // Nobody is left to tell if that fails.
                    let _ = sink.send(Err(reason)).await;
                    return;
                }
                () = sink.closed() => return,
                request = requests.message(), if open => match request {
                    Ok(Some(request)) => self.handle(request).await,
                    // The client will ask no more, but listens on.
                    Ok(None) => {
                        open = false;
                        Ok(())
                    }
                    Err(_) => return,
                },
                () = wake.notified() => self.tell().await,
                _ = ticks.tick() => {
                    self.hub.notify_progress();
                    Ok(())
                }
            };
            if outcome.is_err() {
                return;
            }
        }
    }

    async fn send(&self, response: WatchResponse) -> Result<(), Closed> {
        self.sink.send(Ok(response)).await.map_err(|_| Closed)
    }

    fn blank(&self, watch_id: i64, revision: Revision) -> WatchResponse {
        responses::response(self.node.header(revision), watch_id, Vec::new())
    }

    async fn handle(&mut self, request: WatchRequest) -> Result<(), Closed> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => {
                if let Err(reason) = self.create(&request) {
                    let blank = self.blank(NO_WATCHER, self.node.backend.reader().revision());
                    let cancel_reason = reason.to_owned();
                    let refused =
                        WatchResponse { created: true, canceled: true, cancel_reason, ..blank };
                    return self.send(refused).await;
                }
            }
            Some(RequestUnion::CancelRequest(request)) => self.hub.cancel(request.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.hub.request_progress(),
            None => {}
        }
        Ok(())
    }

    /// Makes a watcher; or says why not, in etcd's words.
    fn create(&mut self, request: &WatchCreateRequest) -> Result<(), &'static str> {
        if request.start_revision < 0 {
            return Err(Refusal::Compacted.text());
        }
        let key = match request.key.is_empty() {
            true => Bytes::from_static(&[0]),
            false => request.key.clone(),
        };
        let range = KeyRange::from_etcd(key, request.range_end.clone());
        if let KeyRange::Between(from, to) = &range
            && from >= to
        {
            return Err("mvcc: watcher range is empty");
        }
        let without = |kind: FilterType| request.filters.contains(&(kind as i32));
        let watch = Watch {
            range,
            start_revision: convert::revision(request.start_revision),
            no_put: without(FilterType::Noput),
            no_delete: without(FilterType::Nodelete),
            prev_kv: request.prev_kv,
            progress_notify: request.progress_notify,
            fragment: request.fragment,
        };
        let id = (request.watch_id != 0).then_some(request.watch_id);
        let created = self.hub.create(id, watch).map_err(|error| match error {
            WatchError::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
            WatchError::UnknownStream => Refusal::Stopped.text(),
        });
        let (id, start) = created?;
        self.starts.insert(id, start);
        Ok(())
    }

    /// Sends what the hub has queued, and lets the select look around in between.
    async fn tell(&mut self) -> Result<(), Closed> {
        let mut messages = Vec::new();
        self.hub.take(MESSAGES, &mut messages);
        if messages.len() == MESSAGES {
            self.hub.wake.notify_one();
        }
        for message in messages {
            self.tell_one(message).await?;
        }
        Ok(())
    }

    async fn tell_one(&mut self, message: Message) -> Result<(), Closed> {
        match message {
            Message::Created { id, revision } => {
                // A client that resumes goes on after this revision: for a watcher from now on it
                // is the one before its start.
                let start = self.starts.get(&id).copied().unwrap_or_default();
                let blank = self.blank(id, revision.max(start.saturating_sub(1).min(self.state())));
                self.send(WatchResponse { created: true, ..blank }).await
            }
            Message::Canceled { id, compacted } => {
                self.starts.remove(&id);
                let compact_revision = compacted.map_or(0, convert::wire);
                let blank = self.blank(id, self.state());
                self.send(WatchResponse { canceled: true, compact_revision, ..blank }).await
            }
            Message::Progress { id, revision } => {
                // As in etcd: a watcher from the future has no progress to tell.
                let early = |start: &Revision| *start > revision + 1;
                let premature = match id {
                    Some(id) => self.starts.get(&id).is_some_and(early),
                    None => self.starts.values().any(early),
                };
                if premature {
                    return Ok(());
                }
                self.send(self.blank(id.unwrap_or(NO_WATCHER), revision)).await
            }
            Message::Events { id, events, prev_kv, fragment, .. } => {
                self.node.metrics.events(events.len());
                for (run, last) in responses::runs(&events, RESPONSE_BYTES) {
                    let events =
                        run.iter().map(|event| responses::event(&self.node, event, prev_kv));
                    let header = self.node.header(last);
                    let response = responses::response(header, id, events.collect());
                    self.send_whole(response, fragment).await?;
                }
                Ok(())
            }
        }
    }

    fn state(&self) -> Revision {
        self.node.backend.reader().revision()
    }

    async fn send_whole(&self, response: WatchResponse, fragment: bool) -> Result<(), Closed> {
        if !fragment {
            return self.send(response).await;
        }
        for part in responses::fragments(response, self.node.options.max_message_bytes()) {
            self.send(part).await?;
        }
        Ok(())
    }
}
