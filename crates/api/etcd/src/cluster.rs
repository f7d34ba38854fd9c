//! The Cluster service: who belongs to it.

use crate::backend::Backend;
use crate::call::Call;
use crate::errors::Refusal;
use crate::node::{Node, wrong_outcome};
use quorate_base::NodeId;
use quorate_keyspace::command::{Member, MemberChange};
use quorate_keyspace::reply::Outcome;
use quorate_wire::etcdserverpb as pb;
use quorate_wire::etcdserverpb::cluster_server::Cluster;
use std::hash::{BuildHasher, RandomState};
use tonic::{Request, Response, Status};

/// Serves the member list.
pub(crate) struct ClusterService<B>(pub Node<B>);

impl<B: Backend> ClusterService<B> {
    async fn change(
        &self,
        change: MemberChange,
        call: &Call,
    ) -> Result<(pb::ResponseHeader, Vec<pb::Member>), Status> {
        self.0.admit(call, false)?;
        let reply = self.0.backend.change_members(change, call.timeout).await?;
        match reply.result.map_err(Refusal::from)? {
            Outcome::Members(members) => {
                Ok((self.0.header(reply.revision), members.into_iter().map(wire_member).collect()))
            }
            _ => Err(wrong_outcome()),
        }
    }
}

fn wire_member(member: Member) -> pb::Member {
    pb::Member {
        id: member.id.0,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.learner,
    }
}

/// Addresses that a member can have, and the bytes of each: as many as members tell each other of.
const MAX_URLS: usize = 64;
const MAX_URL_BYTES: usize = 4_096;

/// Addresses a member can have: `scheme://host:port`, at least one, sorted.
fn checked_urls(mut urls: Vec<String>) -> Result<Vec<String>, Refusal> {
    let fits = |url: &String| url.len() <= MAX_URL_BYTES && is_member_url(url);
    if urls.is_empty() || urls.len() > MAX_URLS || !urls.iter().all(fits) {
        return Err(Refusal::MemberBadUrls);
    }
    urls.sort();
    Ok(urls)
}

fn is_member_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    match scheme {
        "unix" | "unixs" => !rest.is_empty(),
        "http" | "https" => rest.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !rest.contains('/') && port.parse::<u16>().is_ok()
        }),
        _ => false,
    }
}

/// An id that nobody has: random, since only the addresses are known and they may come back.
fn new_id() -> NodeId {
    NodeId(RandomState::new().hash_one("member").max(1))
}

#[tonic::async_trait]
impl<B: Backend> Cluster for ClusterService<B> {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let call = self.0.call(&request)?;
        let request = request.into_inner();
        let member = Member {
            id: new_id(),
            peer_urls: checked_urls(request.peer_ur_ls)?,
            learner: request.is_learner,
            ..Member::default()
        };
        let (header, members) = self.change(MemberChange::Add(member.clone()), &call).await?;
        let (header, member) = (Some(header), Some(wire_member(member)));
        Ok(Response::new(pb::MemberAddResponse { header, member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let call = self.0.call(&request)?;
        let change = MemberChange::Remove(NodeId(request.into_inner().id));
        let (header, members) = self.change(change, &call).await?;
        Ok(Response::new(pb::MemberRemoveResponse { header: Some(header), members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let call = self.0.call(&request)?;
        let request = request.into_inner();
        let peer_urls = checked_urls(request.peer_ur_ls)?;
        let change = MemberChange::UpdatePeers { id: NodeId(request.id), peer_urls };
        let (header, members) = self.change(change, &call).await?;
        Ok(Response::new(pb::MemberUpdateResponse { header: Some(header), members }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let call = self.0.call(&request)?;
        self.0.admit(&call, false)?;
        if request.into_inner().linearizable {
            self.0.backend.read_barrier(call.timeout).await?;
        }
        let members = self.0.backend.reader().members().into_iter().map(wire_member).collect();
        let header = Some(self.0.header_now());
        Ok(Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let call = self.0.call(&request)?;
        let change = MemberChange::Promote(NodeId(request.into_inner().id));
        let (header, members) = self.change(change, &call).await?;
        Ok(Response::new(pb::MemberPromoteResponse { header: Some(header), members }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_scheme_a_host_and_a_port() {
        for good in ["http://10.0.0.1:2380", "https://[::1]:1", "unix://socket:1"] {
            assert!(is_member_url(good), "{good}");
        }
        for bad in
            ["", "10.0.0.1:2380", "http://10.0.0.1", "http://h:70000", "http://h:1/x", "ftp://h:1"]
        {
            assert!(!is_member_url(bad), "{bad}");
        }
        assert_eq!(checked_urls(vec![]), Err(Refusal::MemberBadUrls));
    }

    /// Others could not read them.
    #[test]
    fn addresses_are_few_and_short() {
        let url = |bytes: usize| format!("http://{}:1", "h".repeat(bytes - "http://:1".len()));
        for (n, bytes, fits) in [(64, 4_096, true), (65, 4_096, false), (1, 4_097, false)] {
            assert_eq!(checked_urls(vec![url(bytes); n]).is_ok(), fits, "{n} of {bytes}");
        }
    }
}
