//! The Lease service.

use crate::backend::Backend;
use crate::call::Call;
use crate::node::{Node, wrong_outcome};
use quorate_keyspace::command::Command;
use quorate_keyspace::reply::Outcome;
use quorate_keyspace::{LeaseAnswer, Question};
use quorate_wire::etcdserverpb as pb;
use quorate_wire::etcdserverpb::lease_server::Lease;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Answers to keep-alives waiting for their client.
const ANSWERS_AHEAD: usize = 16;

/// Serves leases.
pub(crate) struct LeaseService<B>(pub Node<B>);

impl<B> Clone for LeaseService<B> {
    fn clone(&self) -> Self {
        LeaseService(self.0.clone())
    }
}

impl<B: Backend> LeaseService<B> {
    pub async fn grant(
        &self,
        request: pb::LeaseGrantRequest,
        call: Call,
    ) -> Result<pb::LeaseGrantResponse, Status> {
        self.0.admit(&call, false)?;
        self.0.make_sure_it_fits(&call).await?;
        let id = if request.id == 0 { self.0.lease_ids.next() } else { request.id };
        let ttl_seconds = request.ttl.max(self.0.options.min_lease_ttl_seconds());
        match self.0.propose(Command::LeaseGrant { id, ttl_seconds }, &call).await? {
            (header, Outcome::LeaseGranted { id, ttl_seconds }) => {
                self.0.metrics.lease_granted();
                Ok(pb::LeaseGrantResponse {
                    header: Some(header),
                    id,
                    ttl: ttl_seconds,
                    error: String::new(),
                })
            }
            _ => Err(wrong_outcome()),
        }
    }

    pub async fn revoke(
        &self,
        request: pb::LeaseRevokeRequest,
        call: Call,
    ) -> Result<pb::LeaseRevokeResponse, Status> {
        self.0.admit(&call, false)?;
        match self.0.propose(Command::LeaseRevoke { id: request.id }, &call).await? {
            (header, Outcome::LeaseRevoked) => {
                self.0.metrics.lease_revoked();
                Ok(pb::LeaseRevokeResponse { header: Some(header) })
            }
            _ => Err(wrong_outcome()),
        }
    }

    pub async fn time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
        call: Call,
    ) -> Result<pb::LeaseTimeToLiveResponse, Status> {
        self.0.admit(&call, false)?;
        let question = Question::TimeToLive { id: request.id, keys: request.keys };
        let answer = self.0.backend.query(question, call.timeout).await?;
        let header = Some(self.0.header_now());
        let id = request.id;
        Ok(match answer {
            LeaseAnswer::Lives { granted_seconds, remaining_seconds, keys } => {
                pb::LeaseTimeToLiveResponse {
                    header,
                    id,
                    ttl: remaining_seconds,
                    granted_ttl: granted_seconds,
                    keys,
                }
            }
            // Not an error, as in etcd.
            _ => pb::LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() },
        })
    }

    async fn keep_alive(
        self,
        mut requests: Streaming<pb::LeaseKeepAliveRequest>,
        sink: mpsc::Sender<Result<pb::LeaseKeepAliveResponse, Status>>,
        call: Call,
    ) {
        let lost = self.0.leadership.lost(call.require_leader);
        tokio::pin!(lost);
        loop {
            let request = tokio::select! {
                reason = &mut lost => {
                    // Nobody is left to tell if that fails.
                    let _ = sink.send(Err(reason)).await;
                    return;
                }
                () = sink.closed() => return,
                request = requests.message() => request,
            };
            let Ok(Some(pb::LeaseKeepAliveRequest { id })) = request else { return };
            // Made first: a lease revoked at revision 3 must not seem alive at revision 4.
            let header = Some(self.0.header_now());
            let question = Question::KeepAlive { id };
            let answer = self.0.backend.query(question, call.timeout).await;
            let answer = answer.map_err(Status::from).map(|answer| {
                self.0.metrics.lease_renewed();
                // No such lease: not an error, as in etcd.
                let ttl = match answer {
                    LeaseAnswer::KeptAlive { ttl_seconds } => ttl_seconds,
                    _ => 0,
                };
                pb::LeaseKeepAliveResponse { header, id, ttl }
            });
            let failed = answer.is_err();
            if sink.send(answer).await.is_err() || failed {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl<B: Backend> Lease for LeaseService<B> {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let call = self.0.call(&request)?;
        self.grant(request.into_inner(), call).await.map(Response::new)
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let call = self.0.call(&request)?;
        self.revoke(request.into_inner(), call).await.map(Response::new)
    }

    type LeaseKeepAliveStream = ReceiverStream<Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let mut call = self.0.call(&request)?;
        self.0.admit(&call, false)?;
        // The stream's deadline is not that of one answer.
        call.timeout = self.0.options.request_timeout();
        let (sink, stream) = mpsc::channel(ANSWERS_AHEAD);
        tokio::spawn(self.clone().keep_alive(request.into_inner(), sink, call));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let call = self.0.call(&request)?;
        self.time_to_live(request.into_inner(), call).await.map(Response::new)
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let call = self.0.call(&request)?;
        self.0.admit(&call, false)?;
        let leases = self.0.backend.reader().leases();
        Ok(Response::new(pb::LeaseLeasesResponse {
            header: Some(self.0.header_now()),
            leases: leases.into_iter().map(|id| pb::LeaseStatus { id }).collect(),
        }))
    }
}
