//! A watch that outlives its connection: it goes on at another member, after the last revision it
//! saw.

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::link::Link;
use crate::retry::{Safety, Verdict, judge};
use quorate_wire::etcdserverpb::watch_client::WatchClient;
use quorate_wire::etcdserverpb::watch_request::RequestUnion;
use quorate_wire::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// One watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watcher {
    client: Client,
    /// What was asked for; its start revision moves on with what was seen.
    create: WatchCreateRequest,
    stream: Option<Stream>,
}

#[derive(Debug)]
struct Stream {
    endpoint: Endpoint,
    responses: Streaming<WatchResponse>,
    /// The server ends the watch when this is dropped.
    _requests: mpsc::Sender<WatchRequest>,
}

impl Client {
    /// Starts to watch. The server has confirmed it when this returns: nothing that happens
    /// afterwards is missed.
    ///
    /// # Errors
    /// Each kind but [`Error::Endpoint`].
    pub async fn watch(&self, create: WatchCreateRequest) -> Result<Watcher, Error> {
        let mut watcher = Watcher { client: self.clone(), create, stream: None };
        watcher.open().await?;
        Ok(watcher)
    }
}

impl Watcher {
    /// The next answer that carries events, progress or the watch's end.
    ///
    /// # Errors
    /// [`Error::Refused`] when the server ended the watch, as after a compaction;
    /// [`Error::Unavailable`] when no member could go on with it.
    pub async fn next(&mut self) -> Result<WatchResponse, Error> {
        loop {
            let Some(stream) = &mut self.stream else {
                self.open().await?;
                continue;
            };
            let status = match stream.responses.message().await {
                Ok(Some(response)) => match self.take(response)? {
                    Some(response) => return Ok(response),
                    None => continue,
                },
                Ok(None) => Status::unavailable("the server ended the stream"),
                Err(status) => status,
            };
            match judge(&status, Safety::Repeatable) {
                Verdict::Again => self.lost(),
                Verdict::Final | Verdict::Unknown => return Err(Error::Refused(Box::new(status))),
            }
        }
    }

    /// Notes how far the watch has come.
    fn take(&mut self, response: WatchResponse) -> Result<Option<WatchResponse>, Error> {
        if response.canceled {
            let reason = match (response.compact_revision, response.cancel_reason.as_str()) {
                (0, "") => "the server canceled the watch".to_owned(),
                (0, reason) => reason.to_owned(),
                (compacted, _) => format!("revisions before {compacted} are compacted"),
            };
            self.stream = None;
            return Err(Error::Refused(Box::new(Status::cancelled(reason))));
        }
        let header = response.header.as_ref().map_or(0, |header| header.revision);
        let seen = response.events.last().and_then(|e| e.kv.as_ref()).map(|kv| kv.mod_revision);
        self.create.start_revision = match seen {
            // A fragment is followed by more of the same revision.
            Some(revision) if response.fragment => revision,
            Some(revision) => revision + 1,
            // A watch from "now" goes on from this now, should its connection break at once.
            None if response.created && self.create.start_revision == 0 => header + 1,
            None if response.created => self.create.start_revision,
            // Progress: everything up to here was sent.
            None => self.create.start_revision.max(header + 1),
        };
        Ok(if response.created { None } else { Some(response) })
    }

    fn lost(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.client.failed(&stream.endpoint);
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + self.client.config().timeout;
        let mut last = "no time to ask anybody".to_owned();
        for round in 0u32.. {
            let opened = match self.client.channel(None, deadline).await {
                Ok((endpoint, channel)) => {
                    let patience =
                        deadline.min(Instant::now() + self.client.config().attempt_timeout);
                    let late = || Status::deadline_exceeded("no answer in time");
                    let asked =
                        timeout_at(patience, self.ask(WatchClient::new(self.client.link(channel))))
                            .await;
                    match asked.unwrap_or_else(|_| Err(late())) {
                        Ok((responses, requests, confirmed)) => {
                            self.client.answered(&endpoint);
                            self.stream = Some(Stream { endpoint, responses, _requests: requests });
                            return self.take(confirmed).map(drop);
                        }
                        Err(status) if judge(&status, Safety::Repeatable) == Verdict::Final => {
                            return Err(Error::Refused(Box::new(status)));
                        }
                        Err(status) => {
                            self.client.failed(&endpoint);
                            format!("{endpoint}: {}", status.message())
                        }
                    }
                }
                Err(why) => why,
            };
            last = opened;
            if !self.client.pause(round, deadline).await {
                break;
            }
        }
        Err(Error::Unavailable { last })
    }

    async fn ask(
        &self,
        mut stub: WatchClient<Link>,
    ) -> Result<(Streaming<WatchResponse>, mpsc::Sender<WatchRequest>, WatchResponse), Status> {
        let (requests, outgoing) = mpsc::channel(4);
        let create = RequestUnion::CreateRequest(self.create.clone());
        let request = WatchRequest { request_union: Some(create) };
        requests.try_send(request).map_err(|e| Status::internal(e.to_string()))?;
        let mut responses = stub.watch(ReceiverStream::new(outgoing)).await?.into_inner();
        match responses.message().await? {
            Some(confirmed) => Ok((responses, requests, confirmed)),
            None => Err(Status::unavailable("the server ended the stream")),
        }
    }
}
