//! A cluster of processes.

use crate::network::{Caller, Network};
use crate::node::Node;
use crate::ports::ports;
use crate::{eventually, tools};
use quorate_client::{Client, Config, Error};
use quorate_wire::etcdserverpb::{
    PutRequest, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nodes, their folder, and a runtime for asking them.
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Where their data and logs are.
    pub folder: TempDir,
    /// For asking.
    pub runtime: Runtime,
    arguments: Vec<String>,
}

impl Cluster {
    /// A cluster of `n` nodes that has elected a leader.
    pub fn start(n: u16) -> Cluster {
        Cluster::start_with(n, &[])
    }

    /// The same, with further arguments to each node.
    pub fn start_with(n: u16, arguments: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepare(n, arguments);
        for node in &mut cluster.nodes {
            let all: Vec<&str> = cluster.arguments.iter().map(String::as_str).collect();
            node.start(&all);
        }
        cluster.settled();
        cluster
    }

    /// The same, each node with arguments of its own, and where its peers reach it through a gate
    /// of `network`. The nodes are its parties from 0 on.
    pub fn start_behind(network: &Network, each: &[Vec<String>]) -> Cluster {
        let mut cluster = Cluster::prepare(u16::try_from(each.len()).unwrap(), &[]);
        let nodes = (0..).zip(&cluster.nodes);
        let names: Vec<(String, usize)> = nodes.map(|(i, node)| (node.peer.clone(), i)).collect();
        for (i, node) in cluster.nodes.iter_mut().enumerate() {
            let (gate, listen) = (port(&node.peer), ports(1));
            node.behind = Some(format!("127.0.0.1:{listen}"));
            let caller = Caller::Says(names.clone());
            network.gate(cluster.runtime.handle(), (gate, listen), i, caller);
            let own = each[i].iter().map(String::as_str);
            let all: Vec<&str> = cluster.arguments.iter().map(String::as_str).chain(own).collect();
            node.start(&all);
        }
        cluster.settled();
        cluster
    }

    /// A cluster of `n` nodes that do not run yet.
    pub fn prepare(n: u16, arguments: &[&str]) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let first = ports(2 * n);
        let nodes: Vec<Node> = (0..n)
            .map(|i| Node::new(folder.path(), &format!("n{}", i + 1), first + 2 * i))
            .collect();
        let mut all = vec!["--initial-cluster".to_owned(), initial(&nodes)];
        all.extend(arguments.iter().map(ToString::to_string));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        Cluster { nodes, folder, runtime, arguments: all }
    }

    /// What each node was started with.
    pub fn arguments(&self) -> Vec<&str> {
        self.arguments.iter().map(String::as_str).collect()
    }

    /// The client addresses of all nodes, separated by commas.
    pub fn endpoints(&self) -> String {
        let all: Vec<&str> = self.nodes.iter().map(|node| node.client.as_str()).collect();
        all.join(",")
    }

    /// A client of all nodes.
    pub fn client(&self) -> Client {
        self.client_of(0..self.nodes.len(), Duration::from_secs(5))
    }

    /// A client of some nodes.
    pub fn client_of(&self, nodes: impl IntoIterator<Item = usize>, timeout: Duration) -> Client {
        let endpoints = nodes.into_iter().map(|i| self.nodes[i].client.as_str());
        let mut config = Config::of(endpoints).unwrap();
        config.timeout = timeout;
        Client::new(config)
    }

    /// What a node says of itself, if it answers.
    pub fn status(&self, node: usize) -> Option<StatusResponse> {
        let client = self.client_of([node], Duration::from_secs(1));
        self.runtime.block_on(client.status(StatusRequest {})).ok()
    }

    /// The node that leads, as it says itself.
    pub fn leader(&mut self) -> Option<usize> {
        (0..self.nodes.len())
            .filter(|i| self.nodes[*i].runs())
            .collect::<Vec<_>>()
            .into_iter()
            .find(|i| {
                self.status(*i).is_some_and(|status| {
                    status.header.is_some_and(|h| h.member_id == status.leader)
                })
            })
    }

    /// Waits until every running node knows the same leader; which it is.
    pub fn settled(&mut self) -> usize {
        let mut leader = None;
        eventually("every node follows one leader", PATIENCE, || {
            leader = self.agreed();
            leader.is_some()
        });
        leader.unwrap()
    }

    /// The leader that every running node knows, if there is one.
    pub fn agreed(&mut self) -> Option<usize> {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|i| self.nodes[*i].runs()).collect();
        let leaders: Vec<u64> =
            running.iter().map(|i| self.status(*i).map_or(0, |s| s.leader)).collect();
        let agreed = leaders.iter().all(|l| *l != 0 && *l == leaders[0]);
        if agreed { self.leader() } else { None }
    }

    /// Writes a key; the revision.
    pub fn put(&self, key: &str, value: &str) -> Result<i64, Error> {
        let request = PutRequest {
            key: key.as_bytes().to_vec().into(),
            value: value.as_bytes().to_vec().into(),
            ..Default::default()
        };
        let response = self.runtime.block_on(self.client().put(request))?;
        Ok(response.header.unwrap().revision)
    }

    /// Reads a key through one node.
    pub fn get_from(&self, node: usize, key: &str) -> Result<Option<String>, Error> {
        let response = self.range_from(node, key, "")?;
        let value = response.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap());
        Ok(value)
    }

    /// Reads keys through one node.
    pub fn range_from(&self, node: usize, key: &str, end: &str) -> Result<RangeResponse, Error> {
        self.range_at(node, key, end, 0)
    }

    /// The same at a revision; 0 is the latest.
    pub fn range_at(
        &self,
        node: usize,
        key: &str,
        end: &str,
        revision: i64,
    ) -> Result<RangeResponse, Error> {
        let request = RangeRequest {
            revision,
            key: key.as_bytes().to_vec().into(),
            range_end: end.as_bytes().to_vec().into(),
            ..Default::default()
        };
        let client = self.client_of([node], Duration::from_secs(5));
        self.runtime.block_on(client.range(request))
    }

    /// Waits until a write succeeds: how long it took.
    pub fn writable(&self) -> Duration {
        eventually("a write succeeds", PATIENCE, || self.put("writable", "yes").is_ok())
    }

    /// Runs etcdctl against all nodes.
    pub fn etcdctl(&self, arguments: &[&str]) -> tools::Ran {
        tools::etcdctl(&self.endpoints(), arguments)
    }
}

/// The port of an address.
fn port(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap()
}

/// `--initial-cluster` of these nodes.
fn initial(nodes: &[Node]) -> String {
    let all: Vec<String> =
        nodes.iter().map(|node| format!("{}=http://{}", node.name, node.peer)).collect();
    all.join(",")
}
