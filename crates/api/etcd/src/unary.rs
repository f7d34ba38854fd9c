//! The hot path: unary KV and Lease calls, from one HTTP/2 stream's frames to an answer, without
//! the routing, boxing and layers that general services go through.
//!
//! Facts: gRPC over HTTP/2 (a message is a flag byte, a length of four bytes, and its bytes; the
//! outcome is in the trailers).

use crate::backend::Backend;
use crate::call::Call;
use crate::errors::Refusal;
use crate::kv::KvService;
use crate::lease::LeaseService;
use crate::node::Node;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::{Code, Status};

const PREFIX_BYTES: usize = 5;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: HeaderValue = HeaderValue::from_static("0");

/// Serves the calls that have to be cheap.
pub(crate) struct Unary<B> {
    node: Node<B>,
    kv: KvService<B>,
    lease: LeaseService<B>,
}

impl<B> Clone for Unary<B> {
    fn clone(&self) -> Self {
        let (node, kv, lease) = (self.node.clone(), self.kv.clone(), self.lease.clone());
        Unary { node, kv, lease }
    }
}

impl<B: Backend> Unary<B> {
    pub fn new(node: Node<B>, kv: KvService<B>, lease: LeaseService<B>) -> Unary<B> {
        Unary { node, kv, lease }
    }

    /// Whether this path is served here.
    pub fn serves(path: &str) -> bool {
        matches!(
            path,
            "/etcdserverpb.KV/Put"
                | "/etcdserverpb.KV/Range"
                | "/etcdserverpb.KV/Txn"
                | "/etcdserverpb.KV/DeleteRange"
                | "/etcdserverpb.KV/Compact"
                | "/etcdserverpb.Lease/LeaseGrant"
                | "/etcdserverpb.Lease/LeaseRevoke"
                | "/etcdserverpb.Lease/LeaseTimeToLive"
        )
    }

    /// Answers a call of a path that [`Unary::serves`].
    pub async fn call(&self, request: Request<Incoming>) -> Response<Answer> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let (kv, lease) = (&self.kv, &self.lease);
        match path {
            "/etcdserverpb.KV/Put" => {
                self.answer(path, &head.headers, body, |m, c| kv.put(m, c)).await
            }
            "/etcdserverpb.KV/Range" => {
                self.answer(path, &head.headers, body, |m, c| kv.range(m, c)).await
            }
            "/etcdserverpb.KV/Txn" => {
                self.answer(path, &head.headers, body, |m, c| kv.txn(m, c)).await
            }
            "/etcdserverpb.KV/DeleteRange" => {
                self.answer(path, &head.headers, body, |m, c| kv.delete(m, c)).await
            }
            "/etcdserverpb.KV/Compact" => {
                self.answer(path, &head.headers, body, |m, c| kv.compact(m, c)).await
            }
            "/etcdserverpb.Lease/LeaseGrant" => {
                self.answer(path, &head.headers, body, |m, c| lease.grant(m, c)).await
            }
            "/etcdserverpb.Lease/LeaseRevoke" => {
                self.answer(path, &head.headers, body, |m, c| lease.revoke(m, c)).await
            }
            "/etcdserverpb.Lease/LeaseTimeToLive" => {
                self.answer(path, &head.headers, body, |m, c| lease.time_to_live(m, c)).await
            }
            _ => refused(&Status::unimplemented("")),
        }
    }

    async fn answer<I, O, F>(
        &self,
        path: &str,
        headers: &HeaderMap,
        body: Incoming,
        serve: impl FnOnce(I, Call) -> F,
    ) -> Response<Answer>
    where
        I: Message + Default,
        O: Message,
        F: Future<Output = Result<O, Status>>,
    {
        let mut received = 0;
        let outcome = async {
            let message = read_message(body, self.node.options.max_message_bytes()).await?;
            received = message.len();
            let call = Call::new(headers, received, self.node.options.request_timeout())?;
            let message = I::decode(message).map_err(|error| {
                // As grpc-go says it.
                Status::internal(format!("grpc: error unmarshalling request: {error}"))
            })?;
            serve(message, call).await
        }
        .await;
        let (response, code, sent) = match outcome {
            Ok(message) => {
                let data = frame(&message);
                let sent = data.len();
                (accepted(data), Code::Ok, sent)
            }
            Err(status) => (refused(&status), status.code(), 0),
        };
        self.node.metrics.handled(path, code, received, sent);
        response
    }
}

/// The one message of a unary request. Its length is checked before anything is kept for it.
async fn read_message(mut body: Incoming, limit: usize) -> Result<Bytes, Status> {
    let mut whole = Bytes::new();
    let mut gathered = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Status::from(Refusal::Canceled))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.is_empty() && gathered.is_empty() {
            whole = data;
        } else {
            if gathered.is_empty() {
                gathered.extend_from_slice(&std::mem::take(&mut whole));
            }
            gathered.extend_from_slice(&data);
        }
        let so_far = if gathered.is_empty() { &whole[..] } else { &gathered[..] };
        check_prefix(so_far, limit)?;
    }
    let mut message = if gathered.is_empty() { whole } else { gathered.freeze() };
    if message.len() < PREFIX_BYTES {
        return Err(Status::internal("the request has no message"));
    }
    let prefix = message.split_to(PREFIX_BYTES);
    if length(&prefix) != message.len() {
        return Err(Status::internal("the request's message is cut short, or is not the only one"));
    }
    Ok(message)
}

fn length(prefix: &[u8]) -> usize {
    prefix[1..PREFIX_BYTES].iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
}

fn check_prefix(so_far: &[u8], limit: usize) -> Result<(), Status> {
    if so_far.len() < PREFIX_BYTES {
        return Ok(());
    }
    if so_far[0] != 0 {
        return Err(Status::unimplemented("compressed messages are not supported"));
    }
    let length = length(so_far);
    if length > limit {
        // As grpc-go says it; clients look for it.
        return Err(Status::resource_exhausted(format!(
            "grpc: received message larger than max ({length} vs. {limit})"
        )));
    }
    if so_far.len() > PREFIX_BYTES + length {
        return Err(Status::internal("a unary request has one message"));
    }
    Ok(())
}

fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut data = BytesMut::with_capacity(PREFIX_BYTES + length);
    data.put_u8(0);
    // A response is made of parts that were bounded when they were requests; what does not fit
    // four bytes cannot be built in memory here.
    data.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut data);
    data.freeze()
}

fn accepted(data: Bytes) -> Response<Answer> {
    let mut response = Response::new(Answer { data: Some(data), outcome: true });
    response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC);
    response
}

/// A refusal has no body: its outcome is among the headers.
pub(crate) fn refused(status: &Status) -> Response<Answer> {
    let mut response = Response::new(Answer { data: None, outcome: false });
    response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC);
    // The text is ours or percent-encoded: it always fits a header.
    let _ = status.add_header(response.headers_mut());
    response
}

/// The body of an answer: one message, then the good outcome.
pub(crate) struct Answer {
    data: Option<Bytes>,
    outcome: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if std::mem::take(&mut self.outcome) {
            let mut trailers = HeaderMap::with_capacity(1);
            trailers.insert(GRPC_STATUS, OK);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && !self.outcome
    }
}
