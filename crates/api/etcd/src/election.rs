//! The Election service.

use crate::backend::Backend;
use crate::call::Call;
use crate::convert;
use crate::errors::Refusal;
use crate::node::Node;
use crate::queue::{self, Departure};
use bytes::Bytes;
use quorate_keyspace::command::{Operation, Put, Txn};
use quorate_mvcc::KeyValue;
use quorate_wire::etcdserverpb::ResponseHeader;
use quorate_wire::v3electionpb as pb;
use quorate_wire::v3electionpb::election_server::Election;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Proclamations waiting for an observer.
const PROCLAMATIONS_AHEAD: usize = 16;

/// Serves elections.
pub(crate) struct ElectionService<B>(pub Node<B>);

impl<B: Backend> ElectionService<B> {
    async fn proclaimed(
        &self,
        leader: &pb::LeaderKey,
        value: Bytes,
        call: &Call,
    ) -> Result<ResponseHeader, Status> {
        let put = Put { key: leader.key.clone(), value, lease: leader.lease, ..Put::default() };
        let txn = Txn {
            compare: vec![queue::created_at(&leader.key, convert::revision(leader.rev))],
            success: vec![Operation::Put(put)],
            failure: Vec::new(),
        };
        let (header, outcome) = self.0.propose_txn(txn, call).await?;
        if !outcome.succeeded {
            return Err(Refusal::ElectionNotLeader.into());
        }
        Ok(header)
    }

    /// Tells the first in line whenever it, or what it says, changes.
    async fn observe_line(
        node: Node<B>,
        name: Bytes,
        require_leader: bool,
        sink: mpsc::Sender<Result<pb::LeaderResponse, Status>>,
    ) {
        let after = node.backend.reader().revision() + 1;
        let changes = match node.follow(queue::line(&name), after) {
            Ok(changes) => changes,
            Err(status) => {
                // Nobody is left to tell if that fails.
                let _ = sink.send(Err(status)).await;
                return;
            }
        };
        let lost = node.leadership.lost(require_leader);
        tokio::pin!(lost);
        let mut told: Option<KeyValue> = None;
        loop {
            let message = match node.read(&queue::head(queue::line(&name))) {
                Ok((header, found)) => {
                    let head = found.kvs.into_iter().next();
                    let news = head.is_some() && head != told;
                    told = head;
                    let kv = told.clone().map(convert::key_value);
                    news.then_some(Ok(pb::LeaderResponse { header: Some(header), kv }))
                }
                Err(status) => Some(Err(status)),
            };
            if let Some(message) = message {
                let failed = message.is_err();
                if sink.send(message).await.is_err() || failed {
                    return;
                }
            }
            tokio::select! {
                () = changes.next() => {}
                () = sink.closed() => return,
                reason = &mut lost => {
                    // Nobody is left to tell if that fails.
                    let _ = sink.send(Err(reason)).await;
                    return;
                }
            }
        }
    }
}

#[tonic::async_trait]
impl<B: Backend> Election for ElectionService<B> {
    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Result<Response<pb::CampaignResponse>, Status> {
        let node = &self.0;
        let call = node.call(&request)?;
        node.admit(&call, false)?;
        let request = request.into_inner();
        let lease = node.session(request.lease, &call).await?;
        let place = node.get_in_line(&request.name, lease, request.value.clone(), &call).await?;
        let departure = Departure::new(node, &place);
        let leader = pb::LeaderKey {
            name: request.name.clone(),
            key: place.key.clone(),
            rev: convert::wire(place.created),
            lease,
        };
        if place.found.as_ref().is_some_and(|kv| kv.value != request.value) {
            self.proclaimed(&leader, request.value, &call).await?;
        }
        node.wait_for_turn(&request.name, place.created).await?;
        departure.cancel();
        let header = Some(place.header);
        Ok(Response::new(pb::CampaignResponse { header, leader: Some(leader) }))
    }

    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Result<Response<pb::ProclaimResponse>, Status> {
        let call = self.0.call(&request)?;
        self.0.admit(&call, false)?;
        let request = request.into_inner();
        let leader = request.leader.ok_or(Refusal::LeaderKeyMissing)?;
        let header = Some(self.proclaimed(&leader, request.value, &call).await?);
        Ok(Response::new(pb::ProclaimResponse { header }))
    }

    async fn leader(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<pb::LeaderResponse>, Status> {
        let node = &self.0;
        let call = node.call(&request)?;
        node.admit(&call, false)?;
        node.backend.read_barrier(call.timeout).await?;
        let line = queue::line(&request.into_inner().name);
        let (header, found) = node.read(&queue::head(line))?;
        let kv = found.kvs.into_iter().next().ok_or(Refusal::ElectionNoLeader)?;
        let header = Some(header);
        Ok(Response::new(pb::LeaderResponse { header, kv: Some(convert::key_value(kv)) }))
    }

    type ObserveStream = ReceiverStream<Result<pb::LeaderResponse, Status>>;

    async fn observe(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let call = self.0.call(&request)?;
        self.0.admit(&call, false)?;
        self.0.backend.read_barrier(call.timeout).await?;
        let (sink, stream) = mpsc::channel(PROCLAMATIONS_AHEAD);
        let name = request.into_inner().name;
        tokio::spawn(Self::observe_line(self.0.clone(), name, call.require_leader, sink));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn resign(
        &self,
        request: Request<pb::ResignRequest>,
    ) -> Result<Response<pb::ResignResponse>, Status> {
        let call = self.0.call(&request)?;
        self.0.admit(&call, false)?;
        let leader = request.into_inner().leader.ok_or(Refusal::LeaderKeyMissing)?;
        let leave = queue::leave(leader.key, convert::revision(leader.rev));
        let (header, _) = self.0.propose_txn(leave, &call).await?;
        Ok(Response::new(pb::ResignResponse { header: Some(header) }))
    }
}
