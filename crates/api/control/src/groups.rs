//! Listing groups, and letting them go on under another protocol.

use crate::deadline;
use crate::protocol::named;
use quorate_base::{GroupId, NodeId};
use quorate_host::{GroupDescription, NodeHandle, SwitchError};
use quorate_replicated_log::Epoch;
use quorate_wire::quorate as pb;
use quorate_wire::quorate::groups_server::{Groups, GroupsServer};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// How long a switch may take, where its client does not say.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that a client may say.
const LONGEST: Duration = Duration::from_secs(600);

/// The service for this node.
pub(crate) fn service(node: NodeHandle) -> GroupsServer<Service> {
    GroupsServer::new(Service(node))
}

pub(crate) struct Service(NodeHandle);

fn status(error: SwitchError) -> Status {
    let text = format!("quorate: {error}");
    match error {
        SwitchError::Unknown(_) => Status::not_found(text),
        SwitchError::NotHere(_) | SwitchError::NoLeader(_) => Status::unavailable(text),
        SwitchError::Already(..) | SwitchError::Outdated(..) | SwitchError::PeerTooOld(_) => {
            Status::failed_precondition(text)
        }
        SwitchError::ChangeInProgress => Status::aborted(text),
        SwitchError::Late(_) => Status::deadline_exceeded(text),
        SwitchError::Failed(_) => Status::unavailable(text),
    }
}

fn ids(nodes: &[NodeId]) -> Vec<u64> {
    nodes.iter().map(|node| node.0).collect()
}

fn wire(known: GroupDescription) -> pb::Group {
    let GroupDescription { group, keyspace, members, status } = known;
    let (voters, learners) = (ids(&members.voters), ids(&members.learners));
    let elsewhere = pb::Group { id: group.0, keyspace, voters, learners, ..Default::default() };
    match status {
        None => elsewhere,
        Some(status) => pb::Group {
            here: true,
            protocol: status.protocol.to_string(),
            epoch: status.epoch.0,
            leader: status.leader.0,
            term: status.ballot.round,
            commit_index: status.commit,
            applied_index: status.applied,
            ..elsewhere
        },
    }
}

#[tonic::async_trait]
impl Groups for Service {
    async fn list(
        &self,
        _: Request<pb::ListGroupsRequest>,
    ) -> Result<Response<pb::ListGroupsResponse>, Status> {
        let groups = self.0.list_groups().await.into_iter().map(wire).collect();
        Ok(Response::new(pb::ListGroupsResponse { groups }))
    }

    async fn switch(
        &self,
        request: Request<pb::SwitchGroupRequest>,
    ) -> Result<Response<pb::SwitchGroupResponse>, Status> {
        let longest = deadline::within(&request, LONGEST);
        let request = request.into_inner();
        let to = named(&request.protocol)?;
        let number = (request.group != 0).then_some(GroupId(request.group));
        let name = Some(request.keyspace.as_str()).filter(|name| !name.is_empty());
        if number.is_none() && name.is_none() {
            let text = "quorate: which group? Give its number, or the name of its keyspace";
            return Err(Status::invalid_argument(text));
        }
        let timeout = match request.timeout_ms {
            0 => TIMEOUT,
            ms => Duration::from_millis(ms.into()),
        };
        let timeout = timeout.min(longest);
        let keyspace = self.0.find_group(number, name).map_err(status)?;
        let epoch = request.epoch.map(Epoch);
        keyspace.switch_to(to, epoch, timeout).await.map_err(status)?;
        let group = Some(wire(keyspace.describe_group().await));
        Ok(Response::new(pb::SwitchGroupResponse { group }))
    }
}
