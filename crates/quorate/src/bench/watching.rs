//! Watchers, and what they are told within the window.

use super::load::{Part, Window};
use super::workload::PREFIX;
use crate::exit::Failure;
use quorate_wire::etcdserverpb::watch_client::WatchClient;
use quorate_wire::etcdserverpb::watch_request::RequestUnion;
use quorate_wire::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// A watch that the server has confirmed.
pub struct Watching {
    responses: Streaming<WatchResponse>,
    /// The watch ends when this is dropped.
    _requests: mpsc::Sender<WatchRequest>,
}

/// Watches everything that the clients write.
pub async fn open(channel: &Channel) -> Result<Watching, Failure> {
    let failed = |why: &str| Failure::Failed(format!("a watch was not made: {why}"));
    let (requests, outgoing) = mpsc::channel(1);
    let create = WatchCreateRequest {
        key: PREFIX.as_bytes().to_vec().into(),
        // The byte after '/' ends the prefix.
        range_end: b"/bench0".to_vec().into(),
        ..Default::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    requests.try_send(request).map_err(|e| failed(&e.to_string()))?;
    let mut stub = WatchClient::new(channel.clone()).max_decoding_message_size(64 << 20);
    let response = stub.watch(ReceiverStream::new(outgoing)).await;
    let mut responses = response.map_err(|s| failed(s.message()))?.into_inner();
    match responses.message().await {
        Ok(Some(created)) if created.created => Ok(Watching { responses, _requests: requests }),
        Ok(_) => Err(failed("the server did not confirm it")),
        Err(status) => Err(failed(status.message())),
    }
}

/// Counts events and how old they were when they came.
pub async fn count(mut watching: Watching, window: Window, epoch: Instant) -> Part {
    let mut part = Part::new();
    loop {
        match timeout_at(window.end, watching.responses.message()).await {
            Err(_) | Ok(Ok(None)) => return part,
            Ok(Err(status)) => {
                part.failed(&status);
                return part;
            }
            Ok(Ok(Some(response))) => {
                let now = Instant::now();
                if now < window.begin {
                    continue;
                }
                let age = now - epoch;
                for kv in response.events.iter().filter_map(|event| event.kv.as_ref()) {
                    if let Some(stamp) = kv.value.first_chunk::<8>() {
                        let written = Duration::from_nanos(u64::from_le_bytes(*stamp));
                        part.record(age.saturating_sub(written));
                    }
                }
            }
        }
    }
}
