//! The gRPC side of the Watch service.

use crate::backend::Backend;
use crate::node::Node;
use crate::watch::stream::WatchStream;
use quorate_wire::etcdserverpb::watch_server::Watch;
use quorate_wire::etcdserverpb::{WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Responses a stream may have waiting for its client; each is of a turn's size, about.
const RESPONSES_AHEAD: usize = 16;

/// Serves watch streams.
pub(crate) struct WatchService<B>(pub Node<B>);

#[tonic::async_trait]
impl<B: Backend> Watch for WatchService<B> {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let call = self.0.call(&request)?;
        self.0.admit(&call, false)?;
        let (sink, stream) = mpsc::channel(RESPONSES_AHEAD);
        let watch = WatchStream::new(self.0.clone(), sink);
        tokio::spawn(watch.run(request.into_inner(), call.require_leader));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
