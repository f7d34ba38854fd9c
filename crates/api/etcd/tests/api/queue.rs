//! The Lock and Election services.

use crate::harness::{Server, refused};
use quorate_wire::etcdserverpb as pb;
use quorate_wire::v3electionpb::election_client::ElectionClient;
use quorate_wire::v3electionpb::{CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest};
use quorate_wire::v3lockpb::lock_client::LockClient;
use quorate_wire::v3lockpb::{LockRequest, UnlockRequest};
use std::time::Duration;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Channel;

const SOON: Duration = Duration::from_secs(10);
const A_WHILE: Duration = Duration::from_millis(100);

async fn lease(server: &Server, id: i64) -> i64 {
    server.lease().lease_grant(pb::LeaseGrantRequest { ttl: 60, id }).await.unwrap();
    id
}

fn locks(server: &Server) -> LockClient<Channel> {
    LockClient::new(server.channel.clone())
}

#[tokio::test]
async fn a_lock_is_held_by_one_at_a_time_in_order() {
    let server = Server::start().await;
    let lock = |lease| LockRequest { name: "l".into(), lease };
    let first = locks(&server).lock(lock(lease(&server, 0xaa).await)).await.unwrap().into_inner();
    assert_eq!(&first.key[..], b"l/aa");
    let again = locks(&server).lock(lock(0xaa)).await.unwrap().into_inner();
    assert_eq!(again.key, first.key, "the same lease holds it already");
    let mut waiting = Vec::new();
    for id in [0xbb, 0xcc] {
        let request = lock(lease(&server, id).await);
        let mut client = locks(&server);
        waiting.push(tokio::spawn(async move { client.lock(request).await }));
        tokio::time::sleep(A_WHILE).await;
    }
    assert!(waiting.iter().all(|waiter| !waiter.is_finished()));
    locks(&server).unlock(UnlockRequest { key: first.key }).await.unwrap();
    let second = timeout(SOON, waiting.remove(0)).await.unwrap().unwrap().unwrap().into_inner();
    assert_eq!(&second.key[..], b"l/bb");
    tokio::time::sleep(A_WHILE).await;
    assert!(!waiting[0].is_finished());
    // The end of the lease gives the lock back, too.
    server.lease().lease_revoke(pb::LeaseRevokeRequest { id: 0xbb }).await.unwrap();
    let third = timeout(SOON, waiting.remove(0)).await.unwrap().unwrap().unwrap().into_inner();
    assert_eq!(&third.key[..], b"l/cc");
    let text = "etcdserver: requested lease not found";
    refused(locks(&server).lock(lock(0xdd)).await, Code::NotFound, text);
}

#[tokio::test]
async fn who_gives_up_leaves_the_line_and_who_has_lost_its_lease_is_told() {
    let server = Server::start().await;
    let lock = |lease| LockRequest { name: "l".into(), lease };
    let held = locks(&server).lock(lock(0)).await.unwrap().into_inner();
    let request = lock(lease(&server, 0xbb).await);
    let mut client = locks(&server);
    assert!(timeout(A_WHILE, client.lock(request)).await.is_err());
    let begun = std::time::Instant::now();
    while server.get("l/bb").await.is_some() {
        assert!(begun.elapsed() < SOON, "its place was never given up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let request = lock(lease(&server, 0xcc).await);
    let mut client = locks(&server);
    let waiter = tokio::spawn(async move { client.lock(request).await });
    tokio::time::sleep(A_WHILE).await;
    server.lease().lease_revoke(pb::LeaseRevokeRequest { id: 0xcc }).await.unwrap();
    locks(&server).unlock(UnlockRequest { key: held.key }).await.unwrap();
    let outcome = timeout(SOON, waiter).await.unwrap().unwrap();
    refused(outcome, Code::Unknown, "mutex: session is expired");
}

#[tokio::test]
async fn an_election_has_one_leader_who_proclaims_and_resigns() {
    let server = Server::start().await;
    let mut election = ElectionClient::new(server.channel.clone());
    let name = LeaderRequest { name: "e".into() };
    refused(election.leader(name.clone()).await, Code::Unknown, "election: no leader");
    let mut seen = election.observe(name.clone()).await.unwrap().into_inner();
    let campaign = |lease, value: &'static str| CampaignRequest {
        name: "e".into(),
        lease,
        value: value.into(),
    };
    let first = campaign(lease(&server, 0xaa).await, "one");
    let won = election.campaign(first).await.unwrap().into_inner().leader.unwrap();
    assert_eq!((&won.key[..], won.lease), (&b"e/aa"[..], 0xaa));
    let second = campaign(lease(&server, 0xbb).await, "two");
    let mut rival = election.clone();
    let waiter = tokio::spawn(async move { rival.campaign(second).await });
    let mut told = async || {
        let message = timeout(SOON, seen.message()).await.unwrap().unwrap().unwrap();
        String::from_utf8(message.kv.unwrap().value.to_vec()).unwrap()
    };
    assert_eq!(told().await, "one");
    let news = ProclaimRequest { leader: Some(won.clone()), value: "more".into() };
    election.proclaim(news.clone()).await.unwrap();
    assert_eq!(told().await, "more");
    let leader = election.leader(name).await.unwrap().into_inner().kv.unwrap();
    assert_eq!(&leader.value[..], b"more");
    tokio::time::sleep(A_WHILE).await;
    assert!(!waiter.is_finished());
    election.resign(ResignRequest { leader: Some(won) }).await.unwrap();
    let next = timeout(SOON, waiter).await.unwrap().unwrap().unwrap().into_inner();
    assert_eq!(&next.leader.unwrap().key[..], b"e/bb");
    assert_eq!(told().await, "two");
    refused(election.proclaim(news).await, Code::Unknown, "election: not leader");
    let nobody = ProclaimRequest::default();
    let text = "\"leader\" field must be provided";
    refused(election.proclaim(nobody).await, Code::Unknown, text);
}
