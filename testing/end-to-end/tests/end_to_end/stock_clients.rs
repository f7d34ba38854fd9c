//! Client libraries that are not ours. Each runs a program of checks and says `all checks passed`.

use crate::{begin, quorate};
use quorate_end_to_end::{Cluster, Tool, etcdctl, etcdctl_command, eventually, ports, run, tool};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn the_python_client() {
    let _turn = begin();
    let Tool::At(python) =
        tool("the_python_client", "QUORATE_E2E_PYTHON", "python3", &["-c", "import etcd3"])
    else {
        return;
    };
    let cluster = Cluster::start(3);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/checks.py");
    let out = run(Command::new(python).arg(script).arg(&cluster.nodes[1].client), "").ok();
    assert!(out.contains("all checks passed"), "{out}");
}

#[test]
fn the_python_client_names_a_keyspace_or_comes_by_its_port() {
    let _turn = begin();
    let test = "the_python_client_names_a_keyspace_or_comes_by_its_port";
    let Tool::At(python) = tool(test, "QUORATE_E2E_PYTHON", "python3", &["-c", "import etcd3"])
    else {
        return;
    };
    let (cluster, own) = with_a_port_of_its_own();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/keyspaces.py");
    let mut command = Command::new(python);
    let all = [script, &cluster.nodes[1].client, &own, "orders"];
    let out = run(command.args(all), "").ok();
    assert!(out.contains("all checks passed"), "{out}");
}

#[test]
fn etcdctl_comes_to_a_keyspace_by_its_port() {
    let _turn = begin();
    let Tool::At(_) = tool("etcdctl", "QUORATE_E2E_ETCDCTL", "etcdctl", &["version"]) else {
        return;
    };
    let (cluster, own) = with_a_port_of_its_own();
    let inside = |arguments: &[&str]| etcdctl(&own, arguments).ok();
    let outside = |arguments: &[&str]| etcdctl(&cluster.nodes[1].client, arguments).ok();
    assert_eq!(inside(&["put", "k", "inside"]), "OK\n");
    assert_eq!(outside(&["get", "k"]), "");
    assert_eq!(outside(&["put", "k", "outside"]), "OK\n");
    assert_eq!(inside(&["get", "k"]), "k\ninside\n");
    // Watches and history are the keyspace's own.
    assert_eq!(inside(&["put", "k", "again"]), "OK\n");
    let watched = etcdctl_command(&own, &["watch", "k", "--rev=1"]);
    let seen = first_lines(watched, 6);
    assert_eq!(seen, ["PUT", "k", "inside", "PUT", "k", "again"]);
    assert!(inside(&["lease", "grant", "60"]).contains("granted with TTL(60s)"));
    assert!(outside(&["lease", "list"]).contains("found 0 leases"));
}

/// Three nodes with the keyspace `orders`, and a port of the second that leads there.
fn with_a_port_of_its_own() -> (Cluster, String) {
    let mut cluster = Cluster::prepare(3, &[]);
    let own = format!("127.0.0.1:{}", ports(1));
    let url = format!("orders=http://{own}");
    let all: Vec<String> = cluster.arguments().into_iter().map(str::to_owned).collect();
    for (i, node) in cluster.nodes.iter_mut().enumerate() {
        let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
        if i == 1 {
            all.extend(["--listen-keyspace-urls", &url]);
        }
        node.start(&all);
    }
    cluster.settled();
    let made = || quorate(&cluster, &["keyspace", "create", "orders"], "");
    eventually("the keyspace is made", PATIENCE, || {
        let made = made();
        made.code == Some(0) || made.err.contains("already")
    });
    eventually("its port serves", PATIENCE, || etcdctl(&own, &["get", "k"]).code == Some(0));
    (cluster, own)
}

/// What a program says first; then it is ended.
fn first_lines(mut command: Command, n: usize) -> Vec<String> {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lines = lines.take(n).collect::<Result<_, _>>().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    lines
}

#[test]
fn the_rust_client() {
    let _turn = begin();
    let Tool::At(client) =
        tool("the_rust_client", "QUORATE_E2E_RUST_CLIENT", "end-to-end-rust-client", &["--probe"])
    else {
        return;
    };
    let cluster = Cluster::start(3);
    let out = run(Command::new(client).arg(cluster.endpoints()), "").ok();
    assert!(out.contains("all checks passed"), "{out}");
}
