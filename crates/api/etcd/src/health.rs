//! How the node is: the checks behind `/health`, `/livez`, `/readyz` and the gRPC health service.

use crate::backend::Backend;
use crate::maintenance::alarm_type;
use crate::node::Node;
use quorate_keyspace::command::{Alarm, Range};
use quorate_mvcc::KeyRange;
use quorate_wire::health as pb;
use quorate_wire::health::health_check_response::ServingStatus;
use quorate_wire::health::health_server::Health;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// How often a health watcher's answer is looked at again.
const RECHECK: Duration = Duration::from_secs(1);

/// One question about the node's health.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Check {
    /// No alarm says that members disagree.
    DataCorruption,
    /// The node's own state can be read.
    SerializableRead,
    /// A quorum confirms a read.
    LinearizableRead,
    /// The node has a vote.
    NonLearner,
}

impl Check {
    pub const LIVE: [Check; 1] = [Check::SerializableRead];
    pub const READY: [Check; 4] = [
        Check::DataCorruption,
        Check::SerializableRead,
        Check::LinearizableRead,
        Check::NonLearner,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    /// Nothing is wrong, or what is.
    pub async fn run<B: Backend>(self, node: &Node<B>) -> Result<(), String> {
        match self {
            Check::DataCorruption => {
                let raised = node.backend.reader().alarms();
                if raised.iter().any(|(_, alarm)| *alarm == Alarm::Corrupt) {
                    return Err("alarm activated: CORRUPT".to_owned());
                }
                Ok(())
            }
            Check::SerializableRead => read(node),
            Check::LinearizableRead => {
                let timeout = node.options.request_timeout();
                let barrier = node.backend.read_barrier(timeout).await;
                barrier.map_err(|error| Status::from(error).message().to_owned())?;
                read(node)
            }
            Check::NonLearner if node.backend.consensus().is_learner => {
                Err("not supported for learner".to_owned())
            }
            Check::NonLearner => Ok(()),
        }
    }
}

fn read<B: Backend>(node: &Node<B>) -> Result<(), String> {
    let mut any = Range::of(KeyRange::From(bytes::Bytes::from_static(&[0])));
    (any.limit, any.keys_only) = (1, true);
    node.read(&any).map(drop).map_err(|status| status.message().to_owned())
}

/// The whole node's health as `/health` tells it: nothing, or the reason.
pub(crate) async fn overall<B: Backend>(
    node: &Node<B>,
    serializable: bool,
    excluded: &[String],
) -> Result<(), String> {
    for (_, alarm) in node.backend.reader().alarms() {
        let name = alarm_type(alarm).as_str_name();
        if !excluded.iter().any(|excluded| excluded == name) {
            return Err(format!("ALARM {name}"));
        }
    }
    if !serializable && node.backend.consensus().leader.is_none() {
        return Err("RAFT NO LEADER".to_owned());
    }
    let check = if serializable { Check::SerializableRead } else { Check::LinearizableRead };
    check.run(node).await.map_err(|error| format!("RANGE ERROR:{error}"))
}

/// The gRPC health checking protocol.
pub(crate) struct HealthService<B>(pub Node<B>);

impl<B: Backend> HealthService<B> {
    fn status(&self) -> ServingStatus {
        if self.0.backend.consensus().leader.is_none() {
            ServingStatus::NotServing
        } else {
            ServingStatus::Serving
        }
    }
}

#[tonic::async_trait]
impl<B: Backend> Health for HealthService<B> {
    async fn check(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        if !request.into_inner().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(pb::HealthCheckResponse { status: self.status() as i32 }))
    }

    type WatchStream = ReceiverStream<Result<pb::HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.into_inner().service.is_empty();
        let service = HealthService(self.0.clone());
        let (sink, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut told = None;
            loop {
                let now = if known { service.status() } else { ServingStatus::ServiceUnknown };
                if told.replace(now) != Some(now) {
                    let answer = pb::HealthCheckResponse { status: now as i32 };
                    if sink.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = sink.closed() => return,
                    () = tokio::time::sleep(RECHECK) => {}
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
