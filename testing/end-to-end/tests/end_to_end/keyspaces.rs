//! Many keyspaces: made by the command line, used by clients of etcd's API, apart from each other.

use crate::begin;
use quorate_client::{Client, Config};
use quorate_end_to_end::{Cluster, Ran, binary, eventually, ports, run};
use quorate_wire::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

fn quorate(cluster: &Cluster, arguments: &[&str]) -> Ran {
    let mut command = Command::new(binary());
    command.env("QUORATE_ENDPOINTS", cluster.endpoints()).env("QUORATE_OUTPUT", "");
    run(command.args(arguments).args(["--timeout", "20s"]), "")
}

/// The directory is there shortly after the first leader.
fn ready(cluster: &Cluster) {
    eventually("the directory of keyspaces is there", PATIENCE, || {
        quorate(cluster, &["keyspace", "describe", "system"]).code == Some(0)
    });
}

#[test]
fn keyspaces_from_the_command_line() {
    let _turn = begin();
    let cluster = Cluster::start(3);
    ready(&cluster);
    let q = |arguments: &[&str]| quorate(&cluster, arguments);
    q(&["keyspace", "create", "orders", "--replicas", "3", "--protocol", "raft"]).ok();
    q(&["keyspace", "create", "stock", "--protocol", "paxos"]).ok();
    // Each has revisions of its own.
    assert_eq!(q(&["put", "k", "1", "--keyspace", "orders"]).ok(), "OK, revision 2\n");
    assert_eq!(q(&["put", "k", "2", "--keyspace", "stock"]).ok(), "OK, revision 2\n");
    assert_eq!(q(&["put", "k", "3", "--keyspace", "stock"]).ok(), "OK, revision 3\n");
    assert_eq!(q(&["put", "k", "4"]).ok(), "OK, revision 2\n");
    let value = |name: &str| {
        let json = q(&["get", "k", "--keyspace", name, "--output", "json"]).json();
        json["kvs"][0]["value"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(
        (value("orders"), value("stock"), value("default")),
        ("MQ==".into(), "Mw==".into(), "NA==".into())
    );
    let listed = q(&["keyspace", "list", "-o", "json"]).json();
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|k| k["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "orders", "stock", "system"]);
    // What is about the cluster is so wherever the client is.
    let everywhere = q(&["keyspace", "list", "-o", "json", "--keyspace", "nothing"]).json();
    assert_eq!(everywhere.as_array().unwrap().len(), 4);
    q(&["members", "--keyspace", "nothing"]).ok();
    // What cannot be is refused, and says why.
    let unknown = q(&["put", "k", "v", "--keyspace", "nothing"]);
    assert!(unknown.code == Some(1) && unknown.err.contains("no keyspace"), "{unknown:?}");
    let own = q(&["put", "k", "v", "--keyspace", "system"]);
    assert!(own.code == Some(1) && own.err.contains("cluster's own"), "{own:?}");
    let many = q(&["keyspace", "create", "many", "--replicas", "5"]);
    assert!(many.code == Some(1) && many.err.contains("3"), "{many:?}");
    let again = q(&["keyspace", "create", "orders"]);
    assert!(again.code == Some(1) && again.err.contains("already"), "{again:?}");
    // Dropping wants to be sure.
    let unsure = q(&["keyspace", "drop", "orders"]);
    assert!(unsure.code == Some(2) && unsure.err.contains("--yes"), "{unsure:?}");
    let other = q(&["keyspace", "drop", "orders", "--id", "99"]);
    assert!(other.code == Some(1) && other.err.contains("99"), "{other:?}");
    q(&["keyspace", "drop", "orders", "--yes"]).ok();
    eventually("the keyspace is gone everywhere", PATIENCE, || {
        (0..3).all(|i| {
            let endpoint = cluster.nodes[i].client.clone();
            let asked = q(&["get", "k", "--keyspace", "orders", "--endpoints", &endpoint]);
            asked.code == Some(1) && asked.err.contains("no keyspace")
        })
    });
}

fn client_in(cluster: &Cluster, keyspace: &str) -> Client {
    let endpoints = cluster.nodes.iter().map(|node| node.client.as_str());
    let mut config = Config::of(endpoints).unwrap();
    config.keyspace = Some(keyspace.to_owned());
    config.timeout = PATIENCE;
    Client::new(config)
}

fn put(cluster: &Cluster, client: &Client, value: &str) -> i64 {
    let value = value.as_bytes().to_vec().into();
    let request = PutRequest { key: "k".into(), value, ..Default::default() };
    eventually_put(cluster, client, request)
}

/// A put whose outcome is unknown is made again: here it may be.
fn eventually_put(cluster: &Cluster, client: &Client, request: PutRequest) -> i64 {
    let mut revision = None;
    eventually("the put is acknowledged", PATIENCE, || {
        let done = cluster.runtime.block_on(client.put(request.clone()));
        revision = done.ok().and_then(|done| done.header).map(|header| header.revision);
        revision.is_some()
    });
    revision.unwrap()
}

fn get(cluster: &Cluster, client: &Client) -> String {
    let request = RangeRequest { key: "k".into(), ..Default::default() };
    let found = cluster.runtime.block_on(client.range(request)).unwrap();
    found.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap()).unwrap_or_default()
}

#[test]
fn keyspaces_survive_the_death_of_a_node_that_leads_several() {
    let _turn = begin();
    let mut cluster = Cluster::start_with(3, &["--protocol", "paxos"]);
    ready(&cluster);
    let names: Vec<String> = (0..8).map(|n| format!("k{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let protocol = if n % 2 == 0 { "raft" } else { "paxos" };
        quorate(&cluster, &["keyspace", "create", name, "--protocol", protocol]).ok();
    }
    let clients: Vec<Client> = names.iter().map(|name| client_in(&cluster, name)).collect();
    for (name, client) in names.iter().zip(&clients) {
        put(&cluster, client, name);
    }
    let leads = |cluster: &Cluster| {
        let listed = quorate(cluster, &["keyspace", "list", "-o", "json"]).json();
        let leaders: Vec<u64> =
            listed.as_array().unwrap().iter().map(|k| k["leader"].as_u64().unwrap()).collect();
        leaders
    };
    // Ten groups over three nodes.
    eventually("the leaders are spread", PATIENCE, || {
        let leaders = leads(&cluster);
        leaders.iter().all(|leader| leaders.iter().filter(|l| *l == leader).count() <= 5)
    });
    let watch = WatchCreateRequest { key: "k".into(), ..Default::default() };
    let mut watcher = cluster.runtime.block_on(clients[0].watch(watch)).unwrap();
    let victim = cluster.leader().unwrap();
    cluster.nodes[victim].kill();
    for (name, client) in names.iter().zip(&clients) {
        put(&cluster, client, &format!("{name}, after"));
    }
    let seen = cluster.runtime.block_on(watcher.next()).unwrap();
    assert_eq!(&seen.events[0].kv.as_ref().unwrap().value[..], b"k0, after");
    cluster.nodes[victim].start_again();
    cluster.settled();
    for node in 0..3 {
        cluster.nodes[node].kill();
    }
    for node in 0..3 {
        cluster.nodes[node].start_again();
    }
    cluster.settled();
    for (name, client) in names.iter().zip(&clients) {
        assert_eq!(get(&cluster, client), format!("{name}, after"));
    }
}

#[test]
fn a_port_of_its_own_leads_to_one_keyspace() {
    let _turn = begin();
    let port = ports(1);
    let url = format!("orders=http://127.0.0.1:{port}");
    let cluster = Cluster::start_with(1, &["--listen-keyspace-urls", &url]);
    ready(&cluster);
    let there = format!("127.0.0.1:{port}");
    let early = quorate(&cluster, &["put", "k", "v", "--endpoints", &there]);
    assert!(early.code == Some(1) && early.err.contains("no keyspace"), "{early:?}");
    quorate(&cluster, &["keyspace", "create", "orders"]).ok();
    quorate(&cluster, &["put", "k", "v", "--endpoints", &there]).ok();
    let named = quorate(&cluster, &["get", "k", "--keyspace", "orders", "--count-only"]).ok();
    assert!(named.starts_with('1'), "{named}");
    assert!(quorate(&cluster, &["get", "k", "--count-only"]).ok().starts_with('0'));
    // Whoever names another keyspace is served from that.
    let other = ["get", "k", "--count-only", "--endpoints", &there, "--keyspace", "default"];
    assert!(quorate(&cluster, &other).ok().starts_with('0'));
}
