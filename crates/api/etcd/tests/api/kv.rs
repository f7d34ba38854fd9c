//! The KV service.

use crate::harness::{Server, delete, put, range, refused};
use quorate_wire::etcdserverpb as pb;
use quorate_wire::etcdserverpb::compare::{CompareTarget, TargetUnion};
use quorate_wire::etcdserverpb::request_op::Request as Op;
use quorate_wire::etcdserverpb::response_op::Response as Done;
use tonic::{Code, Request};

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

#[tokio::test]
async fn put_range_delete_and_their_headers() {
    let server = Server::start().await;
    let mut kv = server.kv();
    let first = server.put("a", "1").await;
    let header = first.header.unwrap();
    assert_eq!((header.cluster_id, header.member_id), (0xc1, 0x11));
    assert_eq!((header.revision, header.raft_term), (2, 3), "an empty store is at revision 1");
    let again = pb::PutRequest { prev_kv: true, ..put("a", "2") };
    let before = kv.put(again).await.unwrap().into_inner().prev_kv.unwrap();
    assert_eq!((&before.value[..], before.version, before.mod_revision), (&b"1"[..], 1, 2));
    server.put("b", "3").await;
    server.put("c", "4").await;

    let all = kv.range(range("a", "c")).await.unwrap().into_inner();
    assert_eq!((all.count, all.more, all.kvs.len()), (2, false, 2));
    let kept = pb::RangeRequest { limit: 1, ..range("a", "\0") };
    let some = kv.range(kept).await.unwrap().into_inner();
    assert_eq!((some.count, some.more, some.kvs.len()), (3, true, 1));
    let sorted = pb::RangeRequest { sort_order: 2, sort_target: 3, ..range("a", "\0") };
    let sorted = kv.range(sorted).await.unwrap().into_inner();
    let keys: Vec<_> = sorted.kvs.iter().map(|kv| &kv.key[..]).collect();
    assert_eq!(keys, [b"c", b"b", b"a"]);
    let old = pb::RangeRequest { revision: 2, serializable: true, ..range("a", "\0") };
    let old = kv.range(old).await.unwrap().into_inner();
    assert_eq!((old.kvs.len(), &old.kvs[0].value[..]), (1, &b"1"[..]));
    assert_eq!(old.header.unwrap().revision, 5, "the store's, not the one asked for");
    let bounded = pb::RangeRequest { min_mod_revision: 4, ..range("a", "\0") };
    let bounded = kv.range(bounded).await.unwrap().into_inner();
    assert_eq!((bounded.kvs.len(), bounded.count), (2, 3));

    let gone = kv.delete_range(delete("a", "c")).await.unwrap().into_inner();
    assert_eq!((gone.deleted, gone.prev_kvs.len(), gone.header.unwrap().revision), (2, 2, 6));
    assert_eq!(server.get("a").await, None);
}

#[tokio::test]
async fn transactions_compare_and_nest() {
    let server = Server::start().await;
    server.put("a", "1").await;
    let holds = pb::Compare {
        target: CompareTarget::Value as i32,
        key: "a".into(),
        target_union: Some(TargetUnion::Value("1".into())),
        ..Default::default()
    };
    let inner =
        pb::TxnRequest { success: vec![op(Op::RequestPut(put("c", "3")))], ..Default::default() };
    let txn = pb::TxnRequest {
        compare: vec![holds],
        success: vec![
            op(Op::RequestPut(put("b", "2"))),
            op(Op::RequestRange(range("a", "\0"))),
            op(Op::RequestTxn(inner)),
            op(Op::RequestDeleteRange(delete("a", ""))),
        ],
        failure: vec![op(Op::RequestPut(put("d", "4")))],
    };
    let done = server.kv().txn(txn.clone()).await.unwrap().into_inner();
    assert!(done.succeeded);
    assert_eq!(done.header.unwrap().revision, 3, "one revision for all");
    let responses: Vec<_> = done.responses.into_iter().map(|r| r.response.unwrap()).collect();
    assert!(matches!(&responses[0], Done::ResponsePut(_)));
    assert!(matches!(&responses[1], Done::ResponseRange(r) if r.kvs.len() == 2));
    assert!(matches!(&responses[2], Done::ResponseTxn(t) if t.succeeded));
    assert!(matches!(&responses[3], Done::ResponseDeleteRange(d) if d.deleted == 1));
    let failed = server.kv().txn(txn).await.unwrap().into_inner();
    assert!(!failed.succeeded);
    assert_eq!(server.get("d").await.as_deref(), Some("4"));
    let reads = pb::TxnRequest {
        success: vec![op(Op::RequestRange(range("d", "")))],
        ..Default::default()
    };
    let read = server.kv().txn(reads).await.unwrap().into_inner();
    assert_eq!(read.header.unwrap().revision, 4, "reading makes no revision");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_etcds_words() {
    let server = Server::start().await;
    let mut kv = server.kv();
    server.put("k", "v").await;
    use Code::{InvalidArgument, OutOfRange};
    let empty = "etcdserver: key is not provided";
    refused(kv.range(range("", "")).await, InvalidArgument, empty);
    refused(kv.put(put("", "v")).await, InvalidArgument, empty);
    refused(kv.delete_range(delete("", "")).await, InvalidArgument, empty);
    let txn = |success| pb::TxnRequest { success, ..Default::default() };
    refused(kv.txn(txn(vec![op(Op::RequestPut(put("", "v")))])).await, InvalidArgument, empty);
    let sort = pb::RangeRequest { sort_order: 9, ..range("k", "") };
    refused(kv.range(sort).await, InvalidArgument, "etcdserver: invalid sort option");
    let both = pb::PutRequest { ignore_value: true, ..put("k", "v") };
    refused(kv.put(both).await, InvalidArgument, "etcdserver: value is provided");
    let lease = pb::PutRequest { ignore_lease: true, lease: 5, ..put("k", "v") };
    refused(kv.put(lease).await, InvalidArgument, "etcdserver: lease is provided");
    let missing = pb::PutRequest { ignore_value: true, ..put("x", "") };
    refused(kv.put(missing).await, InvalidArgument, "etcdserver: key not found");
    let unknown = pb::PutRequest { lease: 77, ..put("k", "v") };
    refused(kv.put(unknown).await, Code::NotFound, "etcdserver: requested lease not found");
    let twice = txn(vec![op(Op::RequestPut(put("k", "1"))), op(Op::RequestPut(put("k", "2")))]);
    refused(kv.txn(twice).await, InvalidArgument, "etcdserver: duplicate key given in txn request");
    let many = txn((0..129).map(|_| op(Op::RequestRange(range("k", "")))).collect());
    refused(kv.txn(many).await, InvalidArgument, "etcdserver: too many operations in txn request");
    refused(
        kv.txn(txn(vec![pb::RequestOp { request: None }])).await,
        InvalidArgument,
        "etcdserver: key not found",
    );
    let future = pb::RangeRequest { revision: 99, ..range("k", "") };
    let text = "etcdserver: mvcc: required revision is a future revision";
    refused(kv.range(future).await, OutOfRange, text);
    refused(
        kv.compact(pb::CompactionRequest { revision: 99, physical: false }).await,
        OutOfRange,
        text,
    );
    for value in ["1", "2", "3"] {
        server.put("k", value).await;
    }
    kv.compact(pb::CompactionRequest { revision: 4, physical: true }).await.unwrap();
    let text = "etcdserver: mvcc: required revision has been compacted";
    let old = pb::RangeRequest { revision: 3, ..range("k", "") };
    refused(kv.range(old).await, OutOfRange, text);
    refused(
        kv.compact(pb::CompactionRequest { revision: 4, physical: false }).await,
        OutOfRange,
        text,
    );
}

#[tokio::test]
async fn sizes_are_limited_before_anything_is_done() {
    let server = Server::start().await;
    let large = "v".repeat(1536 * 1024 + 1);
    refused(
        server.kv().put(put("k", &large)).await,
        Code::InvalidArgument,
        "etcdserver: request is too large",
    );
    let larger = "v".repeat(2 * 1024 * 1024);
    let status = server.kv().put(put("k", &larger)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("grpc: received message larger than max ("));
    server.put("k", &"v".repeat(1024 * 1024)).await;
    assert_eq!(server.get("k").await.map(|value| value.len()), Some(1024 * 1024));
}

#[tokio::test]
async fn a_range_in_parts_is_the_range() {
    let server = Server::start().await;
    let value = "v".repeat(10_000);
    for n in 0..300 {
        server.put(&format!("k{n:03}"), &value).await;
    }
    let request = pb::RangeRequest { limit: 250, ..range("k", "l") };
    let mut parts = server.kv().range_stream(request.clone()).await.unwrap().into_inner();
    let (mut kvs, mut number, mut last) = (Vec::new(), 0, None);
    while let Some(part) = parts.message().await.unwrap() {
        assert!(last.is_none(), "only the last part has a header");
        let part = part.range_response.unwrap();
        last = part.header.map(|header| (header.revision, part.count, part.more));
        kvs.extend(part.kvs);
        number += 1;
    }
    assert!(number > 3);
    assert_eq!(last, Some((301, 300, true)));
    assert_eq!(kvs, server.kv().range(request).await.unwrap().into_inner().kvs);

    let mut kv = server.kv();
    let sorted = pb::RangeRequest { sort_order: 2, ..range("k", "l") };
    let text = "RangeStream does not support custom sort orders";
    refused(kv.range_stream(sorted).await, Code::Unimplemented, text);
    let filtered = pb::RangeRequest { min_mod_revision: 1, ..range("k", "l") };
    let text = "RangeStream does not support revision filters";
    refused(kv.range_stream(filtered).await, Code::Unimplemented, text);
}

#[tokio::test]
async fn without_a_leader_requests_fail_within_their_deadline() {
    let server = Server::start().await;
    server.put("k", "v").await;
    server.backend.set_leader(quorate_base::NodeId::NONE);
    let mut kv = server.kv();
    let mut request = Request::new(put("k", "w"));
    request.set_timeout(std::time::Duration::from_millis(300));
    refused(kv.put(request).await, Code::Unavailable, "etcdserver: no leader");
    let mut request = Request::new(range("k", ""));
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    refused(kv.range(request).await, Code::Unavailable, "etcdserver: no leader");
    let local = pb::RangeRequest { serializable: true, ..range("k", "") };
    assert_eq!(kv.range(local).await.unwrap().into_inner().count, 1);
}

#[tokio::test]
async fn a_learner_serves_its_own_state_only() {
    let server = Server::start().await;
    server.put("k", "v").await;
    server.backend.set_learner(true);
    let text = "etcdserver: rpc not supported for learner";
    refused(server.kv().put(put("k", "w")).await, Code::FailedPrecondition, text);
    refused(server.kv().range(range("k", "")).await, Code::FailedPrecondition, text);
    let local = pb::RangeRequest { serializable: true, ..range("k", "") };
    assert_eq!(server.kv().range(local).await.unwrap().into_inner().count, 1);
    assert!(
        server.maintenance().status(pb::StatusRequest {}).await.unwrap().into_inner().is_learner
    );
    refused(
        server.lease().lease_leases(pb::LeaseLeasesRequest {}).await,
        Code::FailedPrecondition,
        text,
    );
}
