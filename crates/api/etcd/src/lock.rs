//! The Lock service.

use crate::backend::Backend;
use crate::errors::Refusal;
use crate::node::{Node, wrong_outcome};
use crate::queue::Departure;
use bytes::Bytes;
use quorate_keyspace::command::{Command, Delete, Range};
use quorate_keyspace::reply::Outcome;
use quorate_mvcc::KeyRange;
use quorate_wire::v3lockpb as pb;
use quorate_wire::v3lockpb::lock_server::Lock;
use tonic::{Request, Response, Status};

/// Serves locks.
pub(crate) struct LockService<B>(pub Node<B>);

#[tonic::async_trait]
impl<B: Backend> Lock for LockService<B> {
    async fn lock(
        &self,
        request: Request<pb::LockRequest>,
    ) -> Result<Response<pb::LockResponse>, Status> {
        let node = &self.0;
        let call = node.call(&request)?;
        node.admit(&call, false)?;
        let request = request.into_inner();
        let lease = node.session(request.lease, &call).await?;
        let place = node.get_in_line(&request.name, lease, Bytes::new(), &call).await?;
        let departure = Departure::new(node, &place);
        node.wait_for_turn(&request.name, place.created).await?;
        // The lease may have ended while waiting, and the place with it.
        let own = Range::of(KeyRange::One(place.key.clone()));
        let (header, found) = node.read(&own)?;
        departure.cancel();
        match found.kvs.first() {
            Some(kv) if kv.create_revision == place.created => {
                let header = Some(header);
                Ok(Response::new(pb::LockResponse { header, key: place.key }))
            }
            _ => Err(Refusal::LockSessionExpired.into()),
        }
    }

    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        let call = self.0.call(&request)?;
        self.0.admit(&call, false)?;
        let key = request.into_inner().key;
        if key.is_empty() {
            return Err(Refusal::EmptyKey.into());
        }
        let delete = Delete { range: KeyRange::One(key), prev_kv: false };
        match self.0.propose(Command::Delete(delete), &call).await? {
            (header, Outcome::Delete(_)) => {
                Ok(Response::new(pb::UnlockResponse { header: Some(header) }))
            }
            _ => Err(wrong_outcome()),
        }
    }
}
