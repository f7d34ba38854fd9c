//! The Cluster, Maintenance, Auth and health services.

use crate::harness::{Server, put, refused};
use crate::local::{MEMBER, OTHER};
use quorate_base::NodeId;
use quorate_wire::authpb::Permission;
use quorate_wire::etcdserverpb as pb;
use quorate_wire::etcdserverpb::auth_client::AuthClient;
use quorate_wire::health::HealthCheckRequest;
use quorate_wire::health::health_client::HealthClient;
use tonic::Code;

#[tokio::test]
async fn members_come_are_promoted_move_and_go() {
    let server = Server::start().await;
    let mut cluster = server.cluster();
    let urls = vec!["http://127.0.0.1:9999".to_owned()];
    let add = pb::MemberAddRequest { peer_ur_ls: urls.clone(), is_learner: true };
    let added = cluster.member_add(add.clone()).await.unwrap().into_inner();
    let member = added.member.unwrap();
    assert!(member.is_learner && member.name.is_empty() && member.peer_ur_ls == urls);
    assert_eq!(added.members.len(), 3);
    let code = Code::FailedPrecondition;
    refused(cluster.member_add(add).await, code, "etcdserver: Peer URLs already exists");
    let second = pb::MemberAddRequest {
        peer_ur_ls: vec!["http://127.0.0.1:9998".to_owned()],
        is_learner: true,
    };
    let text = "etcdserver: too many learner members in cluster";
    refused(cluster.member_add(second).await, code, text);
    let promote = pb::MemberPromoteRequest { id: member.id };
    let promoted = cluster.member_promote(promote).await.unwrap().into_inner();
    assert!(promoted.members.iter().all(|member| !member.is_learner));
    let text = "etcdserver: can only promote a learner member";
    refused(cluster.member_promote(promote).await, code, text);
    let peer_ur_ls = vec!["https://10.0.0.7:2380".to_owned()];
    let update = pb::MemberUpdateRequest { id: member.id, peer_ur_ls: peer_ur_ls.clone() };
    cluster.member_update(update).await.unwrap();
    let list = pb::MemberListRequest { linearizable: true };
    let list = cluster.member_list(list).await.unwrap().into_inner();
    assert!(list.members.iter().any(|m| m.id == member.id && m.peer_ur_ls == peer_ur_ls));
    let remove = pb::MemberRemoveRequest { id: member.id };
    assert_eq!(cluster.member_remove(remove).await.unwrap().into_inner().members.len(), 2);
    let text = "etcdserver: member not found";
    refused(cluster.member_remove(remove).await, Code::NotFound, text);
    let none = pb::MemberAddRequest { peer_ur_ls: vec!["nonsense".to_owned()], is_learner: false };
    let text = "etcdserver: given member URLs are invalid";
    refused(cluster.member_add(none).await, Code::InvalidArgument, text);
}

#[tokio::test]
async fn status_tells_version_leader_and_what_is_wrong() {
    let server = Server::start().await;
    server.put("k", "v").await;
    let mut maintenance = server.maintenance();
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.version.as_str(), status.leader), ("3.7.0", MEMBER.0));
    assert_eq!((status.raft_term, status.raft_index, status.raft_applied_index), (3, 1, 1));
    assert!(status.db_size_in_use > 0 && status.errors.is_empty());
    let raise = pb::AlarmRequest { action: 1, member_id: MEMBER.0, alarm: 1 };
    let raised = maintenance.alarm(raise).await.unwrap().into_inner();
    assert_eq!(raised.alarms, [pb::AlarmMember { member_id: MEMBER.0, alarm: 1 }]);
    let text = "etcdserver: mvcc: database space exceeded";
    refused(server.kv().put(put("k", "w")).await, Code::ResourceExhausted, text);
    let grant = pb::LeaseGrantRequest { ttl: 10, id: 0 };
    refused(server.lease().lease_grant(grant).await, Code::ResourceExhausted, text);
    server.backend.set_leader(NodeId::NONE);
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors, ["etcdserver: no leader", "memberID:17 alarm:NOSPACE "]);
    server.backend.set_leader(MEMBER);
    let listed = maintenance.alarm(pb::AlarmRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.alarms, raised.alarms);
    let clear = pb::AlarmRequest { action: 2, ..raise };
    assert_eq!(maintenance.alarm(clear).await.unwrap().into_inner().alarms, raised.alarms);
    server.put("k", "w").await;
}

#[tokio::test]
async fn a_write_beyond_the_quota_is_refused_and_raises_the_alarm() {
    let server = Server::start().await;
    server.put("k", "v").await;
    server.backend.set_quota(10_000);
    let text = "etcdserver: mvcc: database space exceeded";
    let large = put("large", &"v".repeat(20_000));
    refused(server.kv().put(large).await, Code::ResourceExhausted, text);
    let listed = server.maintenance().alarm(pb::AlarmRequest::default()).await.unwrap();
    assert_eq!(listed.into_inner().alarms, [pb::AlarmMember { member_id: MEMBER.0, alarm: 1 }]);
    refused(server.kv().put(put("small", "v")).await, Code::ResourceExhausted, text);
    let delete = crate::harness::delete("k", "");
    assert_eq!(server.kv().delete_range(delete).await.unwrap().into_inner().deleted, 1);
}

#[tokio::test]
async fn hashes_tell_states_apart() {
    let server = Server::start().await;
    server.put("k", "1").await;
    let mut maintenance = server.maintenance();
    let before = maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    assert_eq!(before.hash_revision, 2);
    server.put("k", "2").await;
    let old = maintenance.hash_kv(pb::HashKvRequest { revision: 2 }).await.unwrap().into_inner();
    assert_eq!((old.hash, old.hash_revision), (before.hash, 2));
    assert_eq!(old.header.unwrap().revision, 3);
    let now = maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    assert_ne!(now.hash, before.hash);
    let future = maintenance.hash_kv(pb::HashKvRequest { revision: 9 }).await;
    let text = "etcdserver: mvcc: required revision is a future revision";
    refused(future, Code::OutOfRange, text);
    let one = maintenance.hash(pb::HashRequest {}).await.unwrap().into_inner();
    server.put("k", "3").await;
    assert_ne!(maintenance.hash(pb::HashRequest {}).await.unwrap().into_inner().hash, one.hash);
    maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
}

#[tokio::test]
async fn leadership_moves_only_from_the_leader_and_only_to_a_voter() {
    let server = Server::start().await;
    let mut maintenance = server.maintenance();
    let nobody = maintenance.move_leader(pb::MoveLeaderRequest { target_id: 99 }).await;
    refused(nobody, Code::FailedPrecondition, "etcdserver: bad leader transferee");
    let other = pb::MoveLeaderRequest { target_id: OTHER.0 };
    maintenance.move_leader(other).await.unwrap();
    let again = maintenance.move_leader(other).await;
    refused(again, Code::FailedPrecondition, "etcdserver: not leader");
    let downgrade = maintenance.downgrade(pb::DowngradeRequest::default()).await;
    assert_eq!(downgrade.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_snapshot_is_whole_and_says_so() {
    let server = Server::start().await;
    for n in 0..100 {
        server.put(&format!("k{n}"), &"v".repeat(5_000)).await;
    }
    let mut parts =
        server.maintenance().snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
    let (mut file, mut revision, mut blobs, mut remaining) = (Vec::new(), None, 0, 1);
    while let Some(part) = parts.message().await.unwrap() {
        revision = revision.or(part.header.map(|header| header.revision));
        file.extend_from_slice(&part.blob);
        (blobs, remaining) = (blobs + 1, part.remaining_bytes);
    }
    assert!(blobs > 3);
    assert_eq!((revision, remaining), (Some(101), 0));
    assert!(file.starts_with(b"quorate snapshot 1\n"));
    assert!(file.len() > 500_000 && file.len() % 512 == 32, "a digest after whole blocks");
}

#[tokio::test]
async fn authentication_is_disabled_and_says_so() {
    let server = Server::start().await;
    let mut auth = AuthClient::new(server.channel.clone());
    let status = auth.auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.enabled, status.auth_revision), (false, 1));
    let sign_in = auth.authenticate(pb::AuthenticateRequest::default()).await;
    let text = "etcdserver: authentication is not enabled";
    refused(sign_in, Code::FailedPrecondition, text);
    let enable = auth.auth_enable(pb::AuthEnableRequest {}).await;
    assert_eq!(enable.unwrap_err().code(), Code::Unimplemented);
    let perm = Some(Permission::default());
    let grant = pb::AuthRoleGrantPermissionRequest { perm, ..Default::default() };
    let grant = auth.role_grant_permission(grant).await;
    assert_eq!(grant.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn grpc_health_follows_the_leader() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel.clone());
    let whole = HealthCheckRequest::default();
    assert_eq!(health.check(whole.clone()).await.unwrap().into_inner().status, 1);
    let mut news = health.watch(whole.clone()).await.unwrap().into_inner();
    assert_eq!(news.message().await.unwrap().unwrap().status, 1);
    server.backend.set_leader(NodeId::NONE);
    assert_eq!(news.message().await.unwrap().unwrap().status, 2);
    assert_eq!(health.check(whole).await.unwrap().into_inner().status, 2);
    let other = HealthCheckRequest { service: "other".to_owned() };
    refused(health.check(other).await, Code::NotFound, "unknown service");
}
