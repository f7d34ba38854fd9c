//! Members that hand a transaction on: every member can be asked, wherever the keyspaces are.

use crate::transactions::{branch, put, state, two_keyspaces};
use crate::{begin, quorate};
use quorate_client::{Client, Config};
use quorate_end_to_end::{Cluster, Node, eventually};
use quorate_wire::quorate::{
    Branch, RunTransactionRequest, RunTransactionResponse, TransactionState,
};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

fn at(node: &Node) -> Client {
    let mut config = Config::of([node.client.as_str()]).unwrap();
    config.timeout = Duration::from_secs(10);
    Client::new(config)
}

fn make(cluster: &Cluster, name: &str, replicas: &str) {
    eventually("the keyspace is made", PATIENCE, || {
        let made = ["keyspace", "create", name, "--replicas", replicas];
        let made = quorate(cluster, &made, "");
        made.code == Some(0) || made.err.contains("already")
    });
}

/// Where the replicas of a keyspace are.
fn replicas(cluster: &Cluster, name: &str) -> serde_json::Value {
    let told = quorate(cluster, &["keyspace", "describe", name, "-o", "json"], "").json();
    assert!(told["replicas"].is_array(), "{told}");
    told["replicas"].clone()
}

fn run(
    cluster: &Cluster,
    client: &Client,
    id: &str,
    [from, to]: [&str; 2],
) -> Result<RunTransactionResponse, String> {
    let half = |keyspace: &str| -> Branch {
        branch(keyspace, Vec::new(), vec![put(format!("by/{id}"), id.to_owned())])
    };
    let request = RunTransactionRequest {
        id: id.to_owned(),
        patience_ms: 5_000,
        branches: vec![half(from), half(to)],
        ..Default::default()
    };
    let ran = cluster.runtime.block_on(client.transaction_run(request));
    ran.map_err(|error| error.to_string())
}

#[test]
fn every_member_can_be_asked() {
    let _turn = begin();
    let cluster = Cluster::start(4);
    eventually("the directory of keyspaces is there", PATIENCE, || {
        quorate(&cluster, &["keyspace", "describe", "system"], "").code == Some(0)
    });
    make(&cluster, "orders", "3");
    make(&cluster, "stock", "3");
    // Of four members at least one has no replica of one of them.
    for (n, node) in cluster.nodes.iter().enumerate() {
        let client = at(node);
        let id = format!("by-{n}");
        let mut why = String::new();
        eventually("it is run", PATIENCE, || {
            match run(&cluster, &client, &id, ["orders", "stock"]) {
                Ok(ran) => {
                    let done = [TransactionState::Committing, TransactionState::Committed];
                    assert!(done.contains(&state(&ran)), "{ran:?}");
                    true
                }
                Err(error) => {
                    why = error;
                    false
                }
            }
        });
        // Whoever is asked again under the same id tells the same.
        let other = at(&cluster.nodes[(n + 1) % 4]);
        let again = run(&cluster, &other, &id, ["orders", "stock"]).unwrap();
        assert_eq!(again.transaction.unwrap().id, id, "{why}");
    }
    for keyspace in ["orders", "stock"] {
        let counted = ["get", "by/", "--prefix", "--keyspace", keyspace, "-o", "json"];
        let found = quorate(&cluster, &counted, "").json();
        let all = found["kvs"].as_array().unwrap();
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|kv| kv["version"] == 1), "{found}");
    }

    // Where no member has them all, that is what is said.
    let names: Vec<String> = (0..4).map(|n| format!("small-{n}")).collect();
    names.iter().for_each(|name| make(&cluster, name, "1"));
    let places: Vec<_> = names.iter().map(|name| replicas(&cluster, name)).collect();
    let apart = places.iter().position(|place| *place != places[0]).expect("they are spread");
    let nobody = run(&cluster, &at(&cluster.nodes[0]), "apart", [&names[0], &names[apart]]);
    let why = nobody.unwrap_err();
    assert!(why.contains("no member has a replica of each"), "{why}");
}

#[test]
fn who_drives_such_transactions_is_told() {
    let _turn = begin();
    let cluster = two_keyspaces();
    let mut n = 0;
    // Leadership may move meanwhile.
    eventually("all tell of the same member", PATIENCE, || {
        n += 1;
        let told = |(at_node, node): (usize, &Node)| {
            let ran = run(&cluster, &at(node), &format!("{n}-{at_node}"), ["orders", "stock"]);
            ran.ok().map(|ran| ran.driven_at)
        };
        let told: Option<Vec<String>> = cluster.nodes.iter().enumerate().map(told).collect();
        let Some(told) = told else { return false };
        let Some(here) = told.iter().position(String::is_empty) else { return false };
        let url = format!("http://{}", cluster.nodes[here].client);
        told.iter().enumerate().all(|(at_node, told)| (at_node == here) == told.is_empty())
            && told.iter().all(|told| told.is_empty() || *told == url)
    });
    // The client finds the way by itself, and goes on without that member.
    let mut cluster = cluster;
    let client = crate::transactions::client(&cluster, None);
    for id in ["first", "second"] {
        run(&cluster, &client, id, ["orders", "stock"]).unwrap();
    }
    let told = run(&cluster, &at(&cluster.nodes[0]), "where", ["orders", "stock"]).unwrap();
    let leads = cluster.nodes.iter().position(|node| told.driven_at.ends_with(&node.client));
    cluster.nodes[leads.unwrap_or(0)].kill();
    let ran = run(&cluster, &client, "third", ["orders", "stock"]).unwrap();
    assert!(matches!(state(&ran), TransactionState::Committing | TransactionState::Committed));
}
