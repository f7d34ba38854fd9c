//! Making, listing, describing and dropping keyspaces.

use crate::deadline::{self, within};
use crate::protocol;
use quorate_base::GroupId;
use quorate_coordinator::Transactions;
use quorate_host::{AdminError, Description, NewKeyspace, NodeHandle};
use quorate_replicated_log::Protocol;
use quorate_resource_managers::Deadline;
use quorate_wire::quorate as pb;
use quorate_wire::quorate::keyspaces_server::{Keyspaces, KeyspacesServer};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// How long a request may take, where its client does not say.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Replicas of a keyspace of which nobody said how many.
const REPLICAS: usize = 3;

/// Ids of open transactions that a refusal names.
const NAMED: usize = 3;

/// The service for this node.
pub(crate) fn service(node: NodeHandle, transactions: Transactions) -> KeyspacesServer<Service> {
    KeyspacesServer::new(Service(node, transactions))
}

pub(crate) struct Service(NodeHandle, Transactions);

impl Service {
    /// What is prepared in a keyspace goes with it, and with it what was promised.
    async fn guard(&self, name: &str, id: GroupId, by: Deadline) -> Result<(), Status> {
        let why = match self.1.open_in(id, NAMED, by).await {
            Ok(open) if open.is_empty() => return Ok(()),
            Ok(open) => {
                let open = open.join(", ");
                format!("transactions are open there ({open}): wait for them, or cancel them")
            }
            Err(error) => format!("whether transactions are open there cannot be told: {error}"),
        };
        Err(Status::failed_precondition(format!(
            "quorate: the keyspace {name} is not dropped, {why}; with `force` it is dropped, and \
             what was prepared there is lost"
        )))
    }
}

fn status(error: AdminError) -> Status {
    let text = format!("quorate: {error}");
    match error {
        AdminError::Invalid(_) => Status::invalid_argument(text),
        AdminError::Exists => Status::already_exists(text),
        AdminError::Unknown => Status::not_found(text),
        AdminError::Guard(_) | AdminError::Impossible(_) => Status::failed_precondition(text),
        AdminError::Unavailable => Status::unavailable(text),
        AdminError::NotServing(_) | AdminError::Failed(_) => Status::deadline_exceeded(text),
        AdminError::Internal(_) => Status::internal(text),
    }
}

fn wire(known: Description) -> pb::Keyspace {
    let (revision, keys) = known.state.unwrap_or_default();
    pb::Keyspace {
        name: known.name,
        id: known.group.0,
        protocol: known.protocol.to_string(),
        replicas_wanted: u32::try_from(known.wanted).unwrap_or(u32::MAX),
        replicas: known.replicas.iter().map(|node| node.0).collect(),
        serving: known.serving,
        leader: known.leader.0,
        revision: i64::try_from(revision).unwrap_or(i64::MAX),
        keys,
    }
}

#[tonic::async_trait]
impl Keyspaces for Service {
    async fn create(
        &self,
        request: Request<pb::CreateKeyspaceRequest>,
    ) -> Result<Response<pb::CreateKeyspaceResponse>, Status> {
        let within = within(&request, TIMEOUT);
        let request = request.into_inner();
        let replicas = match usize::try_from(request.replicas).unwrap_or(usize::MAX) {
            0 if self.0.membership().voters.len() < REPLICAS => 1,
            0 => REPLICAS,
            wanted => wanted,
        };
        let protocol = match request.protocol.as_str() {
            "" => Protocol::Raft,
            name => protocol::named(name)?,
        };
        let new = NewKeyspace { name: request.name, replicas, protocol };
        let made = self.0.create_keyspace(&new, within).await.map_err(status)?;
        Ok(Response::new(pb::CreateKeyspaceResponse { keyspace: Some(wire(made)) }))
    }

    async fn list(
        &self,
        request: Request<pb::ListKeyspacesRequest>,
    ) -> Result<Response<pb::ListKeyspacesResponse>, Status> {
        let all = self.0.list_keyspaces(within(&request, TIMEOUT)).await.map_err(status)?;
        let keyspaces = all.into_iter().map(wire).collect();
        Ok(Response::new(pb::ListKeyspacesResponse { keyspaces }))
    }

    async fn describe(
        &self,
        request: Request<pb::DescribeKeyspaceRequest>,
    ) -> Result<Response<pb::DescribeKeyspaceResponse>, Status> {
        let within = within(&request, TIMEOUT);
        let name = request.into_inner().name;
        let known = self.0.describe_keyspace(&name, within).await.map_err(status)?;
        Ok(Response::new(pb::DescribeKeyspaceResponse { keyspace: Some(wire(known)) }))
    }

    async fn drop(
        &self,
        request: Request<pb::DropKeyspaceRequest>,
    ) -> Result<Response<pb::DropKeyspaceResponse>, Status> {
        let by = deadline::of(&request, TIMEOUT);
        let request = request.into_inner();
        let id = GroupId(request.id);
        if !request.force {
            self.guard(&request.name, id, by).await?;
        }
        self.0.drop_keyspace(&request.name, id, by.left()).await.map_err(status)?;
        Ok(Response::new(pb::DropKeyspaceResponse {}))
    }
}
