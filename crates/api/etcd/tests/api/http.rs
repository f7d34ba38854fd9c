//! Plain HTTP on the client port.

use crate::harness::Server;
use quorate_base::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Asks over HTTP/1.1 and returns status, body and head.
async fn ask(server: &Server, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned(), head.to_owned())
}

pub async fn get(server: &Server, path: &str) -> (u16, String) {
    let (status, body, _) = ask(server, "GET", path).await;
    (status, body)
}

#[tokio::test]
async fn version_health_and_metrics() {
    let server = Server::start().await;
    let (status, version) = get(&server, "/version").await;
    assert_eq!(status, 200);
    assert_eq!(version, r#"{"etcdserver":"3.7.0","etcdcluster":"3.7.0","storage":"3.7.0"}"#);
    assert_eq!(get(&server, "/health").await, (200, r#"{"health":"true","reason":""}"#.into()));
    assert_eq!(get(&server, "/livez").await, (200, "ok\n".into()));
    let verbose = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
                   [+]non_learner ok\nok\n";
    assert_eq!(get(&server, "/readyz?verbose").await, (200, verbose.into()));
    assert_eq!(get(&server, "/readyz/non_learner").await, (200, "ok\n".into()));
    assert_eq!(get(&server, "/readyz/unknown").await.0, 404);
    assert_eq!(get(&server, "/v3/kv/range").await.0, 404);
    assert_eq!(ask(&server, "POST", "/health").await.0, 405);

    server.put("k", "v").await;
    let (status, metrics) = get(&server, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_mvcc_put_total 1",
        "etcd_debugging_mvcc_keys_total 1",
        "etcd_debugging_mvcc_current_revision 2",
        "etcd_server_id{server_id=\"11\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
}

#[tokio::test]
async fn without_a_leader_the_node_lives_but_is_not_healthy() {
    let server = Server::start().await;
    server.backend.set_leader(NodeId::NONE);
    let no_leader = r#"{"health":"false","reason":"RAFT NO LEADER"}"#;
    assert_eq!(get(&server, "/health").await, (503, no_leader.into()));
    assert_eq!(get(&server, "/health?serializable=true").await.0, 200);
    assert_eq!(get(&server, "/livez").await.0, 200);
    let (status, text) = get(&server, "/readyz?exclude=linearizable_read").await;
    assert_eq!((status, text.as_str()), (200, "ok\n"));
}

#[tokio::test]
async fn an_alarm_makes_the_node_unhealthy_unless_excluded() {
    use quorate_wire::etcdserverpb::{AlarmRequest, AlarmType};
    let server = Server::start().await;
    let raise = AlarmRequest { action: 1, member_id: 0x11, alarm: AlarmType::Nospace as i32 };
    server.maintenance().alarm(raise).await.unwrap();
    let reason = r#"{"health":"false","reason":"ALARM NOSPACE"}"#;
    assert_eq!(get(&server, "/health").await, (503, reason.into()));
    assert_eq!(get(&server, "/health?exclude=NOSPACE").await.0, 200);
    assert_eq!(get(&server, "/readyz").await.0, 200, "it still reads and deletes");
}

#[tokio::test]
async fn stopping_ends_open_streams_and_frees_the_port() {
    let server = Server::start().await;
    let address = server.address;
    let (_requests, stream) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let _open = server.watch().watch(stream).await.unwrap();
    let begun = std::time::Instant::now();
    server.stop().await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    tokio::net::TcpListener::bind(address).await.unwrap();
}
