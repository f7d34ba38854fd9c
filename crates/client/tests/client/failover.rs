//! What the client does when members are gone, hang or refuse, against members made of scripts.

use crate::{client, nobody};
use quorate_client::{Client, Config, Error, Safety};
use quorate_wire::etcdserverpb::kv_server::{Kv, KvServer};
use quorate_wire::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// What a scripted member does with every call.
#[derive(Clone, Copy)]
enum Script {
    Answer,
    Refuse(fn() -> Status),
    Hang,
}

struct Member {
    script: Script,
    calls: Arc<AtomicU32>,
}

impl Member {
    async fn play<R: Default>(&self) -> Result<Response<R>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.script {
            Script::Answer => Ok(Response::new(R::default())),
            Script::Refuse(status) => Err(status()),
            Script::Hang => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl Kv for Member {
    type RangeStreamStream = tokio_stream::Empty<Result<RangeStreamResponse, Status>>;

    async fn range(&self, _: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        self.play().await
    }
    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("not in this script"))
    }
    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.play().await
    }
    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        self.play().await
    }
    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.play().await
    }
    async fn compact(
        &self,
        _: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        self.play().await
    }
}

/// Starts a member; its address, and how often it was called.
async fn member(script: Script) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let calls = Arc::new(AtomicU32::new(0));
    let member = Member { script, calls: calls.clone() };
    let server = tonic::transport::Server::builder().add_service(KvServer::new(member));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, calls)
}

fn put() -> PutRequest {
    PutRequest { key: "k".into(), value: "v".into(), ..Default::default() }
}

#[tokio::test]
async fn a_dead_member_is_passed_over_even_for_a_change() {
    let (alive, calls) = member(Script::Answer).await;
    let client = client(&[&nobody().await, &alive]);
    for _ in 0..4 {
        client.put(put()).await.unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_change_that_may_have_happened_is_not_repeated() {
    let timed_out = || Status::unavailable("etcdserver: request timed out");
    let (first, a) = member(Script::Refuse(timed_out)).await;
    let (second, b) = member(Script::Refuse(timed_out)).await;
    let client = client(&[&first, &second]);
    let error = client.put(put()).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    assert!(error.to_string().contains("request timed out"), "{error}");
    assert_eq!(a.load(Ordering::SeqCst) + b.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_change_that_was_refused_before_the_log_is_repeated() {
    let (lost, refused) =
        member(Script::Refuse(|| Status::unavailable("etcdserver: no leader"))).await;
    let (alive, calls) = member(Script::Answer).await;
    let client = client(&[&lost, &alive]);
    for _ in 0..3 {
        client.put(put()).await.unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    assert!(refused.load(Ordering::SeqCst) >= 1);
}

#[tokio::test]
async fn a_read_leaves_a_member_that_hangs() {
    let (hangs, _) = member(Script::Hang).await;
    let (alive, _) = member(Script::Answer).await;
    let client = client(&[&hangs, &alive]);
    for _ in 0..3 {
        client.range(RangeRequest::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_refusal_is_final_and_told_as_it_is() {
    let refuse = || Status::invalid_argument("etcdserver: key is not provided");
    let (strict, calls) = member(Script::Refuse(refuse)).await;
    let error = client(&[&strict]).range(RangeRequest::default()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused(s) if s.message() == "etcdserver: key is not provided")
    );
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn with_nobody_there_the_call_ends_in_time() {
    let started = std::time::Instant::now();
    let error = client(&[&nobody().await]).put(put()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(4));
}

/// Calls that everybody may be asked for, and that are done once.
async fn put_once(client: &Client) -> Result<PutResponse, Error> {
    client
        .call(Safety::Idempotent, |link| async move {
            quorate_wire::etcdserverpb::kv_client::KvClient::new(link).put(put()).await
        })
        .await
}

#[tokio::test]
async fn what_may_have_begun_somewhere_is_unknown_when_nobody_answers_in_time() {
    let in_doubt = || Status::deadline_exceeded("quorate: the transaction \"t\" is in doubt");
    let (first, a) = member(Script::Refuse(in_doubt)).await;
    let mut short = Config::of([first.as_str()]).unwrap();
    short.timeout = Duration::from_millis(500);
    let error = put_once(&Client::new(short.clone())).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    assert!(error.to_string().contains("is in doubt"), "{error}");
    assert!(a.load(Ordering::SeqCst) > 1, "others are asked meanwhile");
    // Another that has not heard of it refuses what it needs: that says nothing of the first.
    let unheard = || Status::not_found("quorate: there is no keyspace \"stocks\"");
    let (late, b) = member(Script::Refuse(unheard)).await;
    short.endpoints.push(late.parse().unwrap());
    let mut unknown = 0;
    for _ in 0..20 {
        let (asked, refused) = (a.load(Ordering::SeqCst), b.load(Ordering::SeqCst));
        let error = put_once(&Client::new(short.clone())).await.unwrap_err();
        assert_eq!(b.load(Ordering::SeqCst), refused + 1, "its word ends the call");
        let first_asked = a.load(Ordering::SeqCst) > asked;
        assert_eq!(matches!(error, Error::Unknown { .. }), first_asked, "{error}");
        unknown += u32::from(first_asked);
    }
    assert!(unknown > 0, "the first was asked before it");
    // A member that could not run it says so, and nobody else was asked.
    let away = || Status::unavailable("quorate: the records of transactions cannot be reached");
    let (second, _) = member(Script::Refuse(away)).await;
    short.endpoints = vec![second.parse().unwrap()];
    let error = put_once(&Client::new(short.clone())).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    // That another member is away is no news beside it.
    short.endpoints.push(nobody().await.parse().unwrap());
    let error = put_once(&Client::new(short)).await.unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");
}
