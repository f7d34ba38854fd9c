//! The Lease service.

use crate::harness::{Server, put, refused};
use quorate_wire::etcdserverpb as pb;
use std::time::Duration;
use tokio_stream::iter;
use tonic::Code;

async fn grant(server: &Server, ttl: i64, id: i64) -> pb::LeaseGrantResponse {
    server.lease().lease_grant(pb::LeaseGrantRequest { ttl, id }).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_lease_keeps_its_keys_until_it_is_revoked() {
    let server = Server::start().await;
    let granted = grant(&server, 100, 0).await;
    assert!(granted.id > 0 && granted.ttl == 100);
    assert_eq!(granted.header.unwrap().revision, 1, "a lease makes no revision");
    for key in ["a", "b"] {
        let request = pb::PutRequest { lease: granted.id, ..put(key, "v") };
        server.kv().put(request).await.unwrap();
    }
    let ask = pb::LeaseTimeToLiveRequest { id: granted.id, keys: true };
    let time = server.lease().lease_time_to_live(ask).await.unwrap().into_inner();
    assert_eq!((time.granted_ttl, time.keys.len()), (100, 2));
    assert!(time.ttl > 90 && time.ttl <= 100);
    let leases = server.lease().lease_leases(pb::LeaseLeasesRequest {}).await.unwrap();
    assert_eq!(leases.into_inner().leases, [pb::LeaseStatus { id: granted.id }]);
    let revoke = pb::LeaseRevokeRequest { id: granted.id };
    let revoked = server.lease().lease_revoke(revoke).await.unwrap().into_inner();
    assert_eq!(revoked.header.unwrap().revision, 4, "both keys at one revision");
    assert_eq!(server.get("a").await, None);
    let text = "etcdserver: requested lease not found";
    refused(server.lease().lease_revoke(revoke).await, Code::NotFound, text);
}

#[tokio::test]
async fn what_etcd_refuses_and_what_it_answers_about_unknown_leases() {
    let server = Server::start().await;
    grant(&server, 100, 7).await;
    let again = server.lease().lease_grant(pb::LeaseGrantRequest { ttl: 1, id: 7 }).await;
    refused(again, Code::FailedPrecondition, "etcdserver: lease already exists");
    let long = pb::LeaseGrantRequest { ttl: 9_000_000_001, id: 8 };
    let long = server.lease().lease_grant(long).await;
    refused(long, Code::OutOfRange, "etcdserver: too large lease TTL");
    let ask = pb::LeaseTimeToLiveRequest { id: 99, keys: false };
    let unknown = server.lease().lease_time_to_live(ask).await.unwrap().into_inner();
    assert_eq!((unknown.id, unknown.ttl), (99, -1));
    let asks = iter([pb::LeaseKeepAliveRequest { id: 99 }, pb::LeaseKeepAliveRequest { id: 7 }]);
    let mut answers = server.lease().lease_keep_alive(asks).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert_eq!((first.id, first.ttl), (99, 0));
    let second = answers.message().await.unwrap().unwrap();
    assert_eq!((second.id, second.ttl), (7, 100));
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_lease_that_is_not_kept_alive_runs_out() {
    let server = Server::start().await;
    let granted = grant(&server, 0, 0).await;
    assert_eq!(granted.ttl, 1, "lifted to one and a half elections of 50 ms, in whole seconds");
    let request = pb::PutRequest { lease: granted.id, ..put("k", "v") };
    server.kv().put(request).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(server.get("k").await.is_some());
    let begun = std::time::Instant::now();
    while server.get("k").await.is_some() {
        assert!(begun.elapsed() < Duration::from_secs(5), "the lease never ran out");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
