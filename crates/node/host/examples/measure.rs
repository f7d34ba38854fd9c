//! How many puts a cluster of whole nodes in this process does, and what they cost.
//!
//! `cargo run --release -p quorate-host --example measure -- [nodes] [clients] [seconds]`
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use quorate_base::NodeId;
use quorate_host::{Node, NodeConfig, NodeHandle, cluster_id, member_id};
use quorate_keyspace::command::{Member, Put};
use quorate_keyspace::{Command, codec};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

fn main() {
    let argument = |n: usize, default: usize| {
        std::env::args().nth(n).map_or(default, |text| text.parse().expect("a number"))
    };
    let (nodes, clients, seconds) = (argument(1, 3), argument(2, 100), argument(3, 5));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let root = std::env::temp_dir().join(format!("quorate-measure-{}", std::process::id()));
    let configs = configs(nodes, &root);
    let started: Vec<Node> = configs
        .into_iter()
        .map(|config| Node::start(config, runtime.handle().clone()).unwrap())
        .collect();
    let handles: Vec<NodeHandle> = started.iter().map(Node::handle).collect();
    runtime.block_on(handles[0].propose(command(0, 0), Duration::from_secs(10))).unwrap();

    let before = usage();
    let (count, worst) = runtime.block_on(load(&handles, clients, seconds as u64));
    let after = usage();
    let per_put = |n: f64| n / count as f64;
    println!(
        "{nodes} nodes, {clients} clients: {} puts/s, {:.1} µs CPU, {:.2} context switches \
         ({:.2} of them forced) per put, worst {} ms",
        count / seconds as u64,
        per_put((after.0 - before.0) * 1e6),
        per_put((after.1 - before.1 + after.2 - before.2) as f64),
        per_put((after.2 - before.2) as f64),
        worst.as_millis(),
    );
    drop(handles);
    started.into_iter().for_each(Node::halt);
    std::fs::remove_dir_all(root).unwrap();
}

fn configs(nodes: usize, root: &std::path::Path) -> Vec<NodeConfig> {
    let members: Vec<_> = (0..nodes)
        .map(|n| {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let peer_urls = vec![format!("http://{address}")];
            let id = member_id(&peer_urls, "measure");
            (Member { id, name: format!("n{n}"), peer_urls, ..Member::default() }, address)
        })
        .collect();
    let ids: Vec<NodeId> = members.iter().map(|(member, _)| member.id).collect();
    let founders: Vec<Member> = members.iter().map(|(member, _)| member.clone()).collect();
    let config = |(me, address): (Member, std::net::SocketAddr)| {
        let mut config = NodeConfig::new(root.join(&me.name), cluster_id(&ids, "measure"), me);
        config.members.clone_from(&founders);
        config.listen_peers = vec![address];
        config
    };
    members.into_iter().map(config).collect()
}

fn command(client: usize, n: u64) -> Bytes {
    let key = Bytes::from(format!("key-{client}-{}", n % 1_000));
    let value = Bytes::from(vec![b'x'; 256]);
    codec::encode(&Command::Put(Put { key, value, ..Put::default() })).unwrap()
}

async fn load(handles: &[NodeHandle], clients: usize, seconds: u64) -> (u64, Duration) {
    let count = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (handle, count) = (handles[client % handles.len()].clone(), count.clone());
            tokio::spawn(async move {
                let mut worst = Duration::ZERO;
                for n in 0.. {
                    let started = Instant::now();
                    if started >= end {
                        break;
                    }
                    let put = handle.propose(command(client, n), Duration::from_secs(10));
                    put.await.expect("the put is done");
                    worst = worst.max(started.elapsed());
                    count.fetch_add(1, Relaxed);
                }
                worst
            })
        })
        .collect();
    let mut worst = Duration::ZERO;
    for task in tasks {
        worst = worst.max(task.await.unwrap());
    }
    (count.load(Relaxed), worst)
}

/// Seconds of CPU of this process so far, and its voluntary and forced context switches.
fn usage() -> (f64, u64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let (mut voluntary, mut forced) = (0, 0);
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let Ok(status) = std::fs::read_to_string(task.unwrap().path().join("status")) else {
            continue;
        };
        for line in status.lines() {
            let number = || line.rsplit('\t').next().unwrap().parse::<u64>().unwrap();
            match line.split(':').next() {
                Some("voluntary_ctxt_switches") => voluntary += number(),
                Some("nonvoluntary_ctxt_switches") => forced += number(),
                _ => {}
            }
        }
    }
    (ticks / 100.0, voluntary, forced)
}
