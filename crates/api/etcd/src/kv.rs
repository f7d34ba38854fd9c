//! The KV service: reads and writes. The unary methods are reached without tonic's routing, from
//! [`crate::unary`]; the trait below serves `RangeStream`.

use crate::backend::Backend;
use crate::call::Call;
use crate::errors::unread;
use crate::node::{Node, wrong_outcome};
use crate::{convert, validate};
use quorate_keyspace::RangeStream;
use quorate_keyspace::command::Command;
use quorate_keyspace::reply::Outcome;
use quorate_wire::etcdserverpb as pb;
use quorate_wire::etcdserverpb::kv_server::Kv;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Serves reads and writes.
pub(crate) struct KvService<B>(pub Node<B>);

impl<B> Clone for KvService<B> {
    fn clone(&self) -> Self {
        KvService(self.0.clone())
    }
}

impl<B: Backend> KvService<B> {
    pub async fn range(
        &self,
        request: pb::RangeRequest,
        call: Call,
    ) -> Result<pb::RangeResponse, Status> {
        let node = &self.0;
        node.admit(&call, request.serializable)?;
        validate::range(&request)?;
        node.metrics.range();
        let (header, outcome) = match request.serializable {
            true => node.read(&convert::range(request))?,
            false => node.read_latest(convert::range(request), &call).await?,
        };
        Ok(convert::range_response(header, outcome))
    }

    pub async fn put(
        &self,
        request: pb::PutRequest,
        call: Call,
    ) -> Result<pb::PutResponse, Status> {
        self.0.admit(&call, false)?;
        validate::put(&request)?;
        self.0.metrics.put();
        self.0.make_sure_it_fits(&call).await?;
        match self.0.propose(Command::Put(convert::put(request)), &call).await? {
            (header, Outcome::Put(outcome)) => Ok(convert::put_response(header, outcome)),
            _ => Err(wrong_outcome()),
        }
    }

    pub async fn delete(
        &self,
        request: pb::DeleteRangeRequest,
        call: Call,
    ) -> Result<pb::DeleteRangeResponse, Status> {
        self.0.admit(&call, false)?;
        validate::delete(&request)?;
        self.0.metrics.delete();
        match self.0.propose(Command::Delete(convert::delete(request)), &call).await? {
            (header, Outcome::Delete(outcome)) => Ok(convert::delete_response(header, outcome)),
            _ => Err(wrong_outcome()),
        }
    }

    pub async fn txn(
        &self,
        request: pb::TxnRequest,
        call: Call,
    ) -> Result<pb::TxnResponse, Status> {
        let node = &self.0;
        node.admit(&call, false)?;
        validate::txn(&request, node.options.max_txn_ops)?;
        node.metrics.txn();
        if convert::puts(&request) {
            node.make_sure_it_fits(&call).await?;
        }
        match node.propose(Command::Txn(convert::txn(request)?), &call).await? {
            (header, Outcome::Txn(outcome)) => Ok(convert::txn_response(header, outcome)),
            _ => Err(wrong_outcome()),
        }
    }

    pub async fn compact(
        &self,
        request: pb::CompactionRequest,
        call: Call,
    ) -> Result<pb::CompactionResponse, Status> {
        self.0.admit(&call, false)?;
        let revision = convert::revision(request.revision);
        match self.0.propose(Command::Compact { revision }, &call).await? {
            (header, Outcome::Compacted) => Ok(pb::CompactionResponse { header: Some(header) }),
            _ => Err(wrong_outcome()),
        }
    }
}

/// Bytes of keys and values a part of a streamed range is made of, about.
const PART_BYTES: usize = 512 * 1024;
/// Parts made ahead of what the client has taken.
const PARTS_AHEAD: usize = 2;

impl<B: Backend> KvService<B> {
    /// Sends a range part by part. The last part has header, count and more.
    async fn send_parts(
        self,
        mut parts: RangeStream<B::Engine>,
        sink: mpsc::Sender<Result<pb::RangeStreamResponse, Status>>,
    ) {
        loop {
            let piece = match parts.next_piece(PART_BYTES) {
                Ok(Some(piece)) => piece,
                Ok(None) => return,
                Err(error) => {
                    // Nobody is left to tell if that fails.
                    let _ = sink.send(Err(unread(error))).await;
                    return;
                }
            };
            let kvs = piece.kvs.into_iter().map(convert::key_value).collect();
            let mut response = pb::RangeResponse { kvs, ..Default::default() };
            if let Some((more, count, revision)) = piece.end {
                response.header = Some(self.0.header(revision));
                response.more = more;
                response.count = i64::try_from(count).unwrap_or(i64::MAX);
            }
            let message = pb::RangeStreamResponse { range_response: Some(response) };
            if sink.send(Ok(message)).await.is_err() {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl<B: Backend> Kv for KvService<B> {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let call = self.0.call(&request)?;
        KvService::range(self, request.into_inner(), call).await.map(Response::new)
    }

    type RangeStreamStream = ReceiverStream<Result<pb::RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let call = self.0.call(&request)?;
        let request = request.into_inner();
        self.0.admit(&call, false)?;
        validate::range_stream(&request)?;
        self.0.metrics.range();
        let (sink, stream) = mpsc::channel(PARTS_AHEAD);
        let parts = match request.serializable {
            true => self.0.backend.reader().stream(&convert::range(request)).map_err(unread)?,
            false => self.0.stream_latest(convert::range(request), &call).await?,
        };
        tokio::spawn(self.clone().send_parts(parts, sink));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let call = self.0.call(&request)?;
        KvService::put(self, request.into_inner(), call).await.map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let call = self.0.call(&request)?;
        self.delete(request.into_inner(), call).await.map(Response::new)
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let call = self.0.call(&request)?;
        KvService::txn(self, request.into_inner(), call).await.map(Response::new)
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let call = self.0.call(&request)?;
        KvService::compact(self, request.into_inner(), call).await.map(Response::new)
    }
}
