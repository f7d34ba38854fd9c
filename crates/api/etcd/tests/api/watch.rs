//! The Watch service.

use crate::harness::{Server, delete, put, refused};
use quorate_etcd::Options;
use quorate_wire::etcdserverpb as pb;
use quorate_wire::etcdserverpb::watch_request::RequestUnion;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming};

const SOON: Duration = Duration::from_secs(10);

struct Stream {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Stream {
    async fn open(server: &Server) -> Stream {
        let (requests, stream) = mpsc::channel(16);
        let responses = server.watch().watch(ReceiverStream::new(stream)).await.unwrap();
        Stream { requests, responses: responses.into_inner() }
    }

    async fn ask(&self, union: RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(union) };
        self.requests.send(request).await.unwrap();
    }

    async fn next(&mut self) -> pb::WatchResponse {
        timeout(SOON, self.responses.message()).await.unwrap().unwrap().unwrap()
    }

    /// Creates a watcher and returns its first answer.
    async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.ask(RequestUnion::CreateRequest(request)).await;
        let created = self.next().await;
        assert!(created.created);
        created
    }

    /// The next events, as (kind, key, value, revision), until there are `count`.
    async fn events(&mut self, count: usize) -> Vec<(i32, String, String, i64)> {
        let mut events = Vec::new();
        while events.len() < count {
            for event in self.next().await.events {
                let kv = event.kv.unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                events.push((event.r#type, text(&kv.key), text(&kv.value), kv.mod_revision));
            }
        }
        assert_eq!(events.len(), count);
        events
    }
}

fn of(key: &'static str, end: &'static str, start_revision: i64) -> pb::WatchCreateRequest {
    let (key, range_end) = (key.into(), end.into());
    pb::WatchCreateRequest { key, range_end, start_revision, ..Default::default() }
}

fn event(kind: i32, key: &str, value: &str, revision: i64) -> (i32, String, String, i64) {
    (kind, key.to_owned(), value.to_owned(), revision)
}

#[tokio::test]
async fn a_watcher_is_told_what_happens_from_now_on() {
    let server = Server::start().await;
    server.put("a", "0").await;
    let mut stream = Stream::open(&server).await;
    let created = stream.create(of("a", "c", 0)).await;
    assert_eq!((created.watch_id, created.header.unwrap().revision), (0, 2));
    server.put("a", "1").await;
    server.put("c", "not in the range").await;
    server.kv().delete_range(delete("a", "")).await.unwrap();
    assert_eq!(stream.events(2).await, [event(0, "a", "1", 3), event(1, "a", "", 5)]);
    let second = stream.create(of("c", "", 0)).await;
    assert_eq!(second.watch_id, 1);
    stream.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 })).await;
    let canceled = stream.next().await;
    assert!(canceled.canceled && canceled.watch_id == 0 && canceled.cancel_reason.is_empty());
    server.put("a", "unwatched").await;
    server.put("c", "2").await;
    assert_eq!(stream.events(1).await, [event(0, "c", "2", 7)]);
}

#[tokio::test]
async fn a_watcher_resumes_from_any_revision_that_is_left() {
    let server = Server::start().await;
    for n in 0..50 {
        server.put("k", &n.to_string()).await;
    }
    let mut stream = Stream::open(&server).await;
    stream.create(of("k", "", 40)).await;
    let all = stream.events(12).await;
    assert_eq!((all[0].3, all[11].3), (40, 51));
    server.put("k", "later").await;
    assert_eq!(stream.events(1).await, [event(0, "k", "later", 52)]);

    let mut ahead = Stream::open(&server).await;
    ahead.create(of("k", "", 54)).await;
    server.put("k", "not yet").await;
    server.put("k", "now").await;
    assert_eq!(ahead.events(1).await, [event(0, "k", "now", 54)]);

    server.kv().compact(pb::CompactionRequest { revision: 50, physical: false }).await.unwrap();
    let mut old = Stream::open(&server).await;
    old.create(of("k", "", 49)).await;
    let ended = old.next().await;
    assert!(ended.canceled);
    assert_eq!((ended.compact_revision, ended.watch_id), (50, 0));
    old.create(of("k", "", 50)).await;
    assert_eq!(old.events(5).await[0].3, 50, "the compacted revision itself is left");
}

#[tokio::test]
async fn filters_and_previous_values() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server).await;
    let no_put = pb::WatchCreateRequest { filters: vec![0], prev_kv: true, ..of("k", "", 0) };
    let no_delete = pb::WatchCreateRequest { filters: vec![1], prev_kv: true, ..of("k", "", 0) };
    stream.create(no_put).await;
    stream.create(no_delete).await;
    server.put("k", "1").await;
    server.put("k", "2").await;
    server.kv().delete_range(delete("k", "")).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        let response = stream.next().await;
        for event in response.events {
            let before = event.prev_kv.map(|kv| String::from_utf8(kv.value.to_vec()).unwrap());
            told.push((response.watch_id, event.r#type, before));
        }
    }
    told.sort();
    let before = |value: &str| Some(value.to_owned());
    assert_eq!(told, [(0, 1, before("2")), (1, 0, None), (1, 0, before("1"))]);
}

#[tokio::test]
async fn what_makes_no_sense_creates_and_cancels_at_once() {
    let server = Server::start().await;
    let mut stream = Stream::open(&server).await;
    let negative = stream.create(of("k", "", -1)).await;
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert!(negative.canceled && negative.watch_id == -1 && negative.cancel_reason == text);
    let empty = stream.create(of("b", "a", 0)).await;
    assert!(empty.canceled && empty.cancel_reason == "mvcc: watcher range is empty");
    let seven = pb::WatchCreateRequest { watch_id: 7, ..of("k", "", 0) };
    assert!(!stream.create(seven.clone()).await.canceled);
    let again = stream.create(seven).await;
    let text = "mvcc: duplicate watch ID provided on the WatchStream";
    assert!(again.canceled && again.watch_id == -1 && again.cancel_reason == text);
    server.put("k", "the first is alive").await;
    assert_eq!(stream.events(1).await.len(), 1);
}

#[tokio::test]
async fn progress_is_told_when_asked_for_and_now_and_then() {
    let interval = Duration::from_millis(200);
    let server =
        Server::with(Options { progress_notify_interval: interval, ..Options::default() }).await;
    let mut stream = Stream::open(&server).await;
    stream.create(of("k", "", 0)).await;
    server.put("other", "1").await;
    server.put("k", "2").await;
    assert_eq!(stream.events(1).await.len(), 1);
    server.put("other", "3").await;
    stream.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let progress = stream.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 4));
    assert!(progress.events.is_empty() && !progress.created && !progress.canceled);

    let notify = pb::WatchCreateRequest { progress_notify: true, ..of("k", "", 0) };
    stream.create(notify).await;
    let progress = stream.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (1, 4));

    // A watcher from the future holds manual progress back, as in etcd.
    let mut future = Stream::open(&server).await;
    future.create(of("k", "", 100)).await;
    future.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    assert!(timeout(Duration::from_millis(100), future.responses.message()).await.is_err());
}

#[tokio::test]
async fn large_revisions_are_cut_only_for_who_allows_it() {
    let server = Server::with(Options { max_request_bytes: 1 << 20, ..Options::default() }).await;
    // One revision of about 1.8 MB, beyond the 1.5 MB that a message may have here.
    let value = "v".repeat(18_000);
    for n in 0..100 {
        server.put(&format!("k{n:03}"), &value).await;
    }
    let mut whole = Stream::open(&server).await;
    let mut parts = Stream::open(&server).await;
    let prev_kv = true;
    whole.create(pb::WatchCreateRequest { prev_kv, ..of("k", "l", 0) }).await;
    parts.create(pb::WatchCreateRequest { prev_kv, fragment: true, ..of("k", "l", 0) }).await;
    server.kv().delete_range(delete("k", "l")).await.unwrap();
    let one = whole.next().await;
    assert_eq!((one.events.len(), one.fragment), (100, false));
    let (mut events, mut more, mut count) = (Vec::new(), true, 0);
    while more {
        let part = parts.next().await;
        (more, count) = (part.fragment, count + 1);
        events.extend(part.events);
    }
    assert!(count > 1);
    assert_eq!(events, one.events);
}

#[tokio::test]
async fn a_slow_watcher_costs_little_memory_and_no_time_of_others() {
    let server = Server::start().await;
    let mut slow = Stream::open(&server).await;
    slow.create(of("k", "", 0)).await;
    let mut fast = Stream::open(&server).await;
    fast.create(of("k", "", 0)).await;
    // 48 MB of events: far beyond what streams, windows and hub may hold for the slow one.
    let value = "v".repeat(64 * 1024);
    let writes = async {
        for _ in 0..750 {
            server.put("k", &value).await;
        }
    };
    let reads = async {
        let mut last = 1;
        while last < 751 {
            for event in fast.next().await.events {
                let revision = event.kv.unwrap().mod_revision;
                assert_eq!(revision, last + 1);
                last = revision;
            }
        }
    };
    timeout(Duration::from_secs(60), async { tokio::join!(writes, reads) }).await.unwrap();
    let metrics = crate::http::get(&server, "/metrics").await.1;
    let behind = "etcd_debugging_mvcc_slow_watcher_total 1";
    assert!(metrics.contains(behind), "its watcher fell behind instead of queueing");
    let mut last = 1;
    while last < 751 {
        for event in slow.next().await.events {
            let revision = event.kv.unwrap().mod_revision;
            assert_eq!(revision, last + 1, "nothing left out, nothing twice");
            last = revision;
        }
    }
}

#[tokio::test]
async fn streams_that_require_a_leader_end_when_it_is_lost() {
    let server = Server::start().await;
    let (requests, stream) = mpsc::channel(16);
    let mut request = Request::new(ReceiverStream::new(stream));
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    let responses = server.watch().watch(request).await.unwrap().into_inner();
    let mut minding = Stream { requests, responses };
    minding.create(of("k", "", 0)).await;
    let mut patient = Stream::open(&server).await;
    patient.create(of("k", "", 0)).await;
    server.backend.set_leader(quorate_base::NodeId::NONE);
    let ended = timeout(SOON, minding.responses.message()).await.unwrap();
    refused(ended, Code::Unavailable, "etcdserver: no leader");
    let (_requests, stream) = mpsc::channel::<pb::WatchRequest>(1);
    let mut request = Request::new(ReceiverStream::new(stream));
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    refused(server.watch().watch(request).await, Code::Unavailable, "etcdserver: no leader");
    server.backend.set_leader(crate::local::MEMBER);
    server.kv().put(put("k", "v")).await.unwrap();
    assert_eq!(patient.events(1).await.len(), 1, "the other stream went on");
}
