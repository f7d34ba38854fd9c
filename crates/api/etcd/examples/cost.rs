//! What a unary call costs the server, in processor time: a server and its clients in one process,
//! told apart by the names of their threads. Linux only (it reads `/proc`).
//!
//! `cargo run --release -p quorate-etcd --example cost [seconds] [connections] [calls each]`
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/api/local.rs"]
#[allow(dead_code)]
mod local;

use local::Local;
use quorate_etcd::{Backend, Options};
use quorate_keyspace::Command;
use quorate_keyspace::command::Put;
use quorate_wire::etcdserverpb as pb;
use quorate_wire::etcdserverpb::kv_client::KvClient;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Channel;

const SERVER: &str = "api-server";

fn runtime(name: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build().unwrap()
}

/// Processor time so far of the threads with this name.
fn cpu(name: &str) -> Duration {
    let mut ticks = 0u64;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
        let (head, tail) = stat.rsplit_once(')').unwrap();
        if head.ends_with(name) {
            let fields: Vec<&str> = tail.split_whitespace().collect();
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    Duration::from_millis(ticks * 10)
}

fn value() -> bytes::Bytes {
    vec![b'v'; 256].into()
}

async fn load(channel: Channel, put: bool, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) {
    let mut kv = KvClient::new(channel);
    let mut n = 0u64;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let key: bytes::Bytes = format!("key{:05}", n % 10_000).into();
        if put {
            let request = pb::PutRequest { key, value: value(), ..Default::default() };
            kv.put(request).await.unwrap();
        } else {
            kv.range(pb::RangeRequest { key, ..Default::default() }).await.unwrap();
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().unwrap());
    let seconds = arguments.next().unwrap_or(5);
    let connections = arguments.next().unwrap_or(10);
    let calls = arguments.next().unwrap_or(10);
    let (server, client) = (runtime(SERVER), runtime("client"));

    let listener = server.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let backend = server.block_on(async { Local::new() });
    let never = std::future::pending();
    server.spawn(quorate_etcd::serve(vec![listener], backend.clone(), Options::default(), never));

    // What of it is the keyspace's: the same commands without the API.
    let alone = Instant::now();
    for n in 0..20_000u64 {
        let key = format!("key{:05}", n % 10_000).into();
        let put = Command::Put(Put { key, value: value(), ..Put::default() });
        client.block_on(backend.propose(put, Duration::from_secs(1))).unwrap();
    }
    println!("keyspace alone: {:.1} µs per put", alone.elapsed().as_secs_f64() * 1e6 / 20_000.0);

    for (name, put) in [("put", true), ("range", false)] {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
            let channel = client.block_on(endpoint.connect()).unwrap();
            for _ in 0..calls {
                tasks.push(client.spawn(load(channel.clone(), put, stop.clone(), done.clone())));
            }
        }
        std::thread::sleep(Duration::from_millis(500));
        let (before, count, start) = (cpu(SERVER), done.load(Ordering::Relaxed), Instant::now());
        std::thread::sleep(Duration::from_secs(seconds));
        let used = cpu(SERVER).saturating_sub(before);
        let count = done.load(Ordering::Relaxed) - count;
        stop.store(true, Ordering::Relaxed);
        tasks.into_iter().for_each(|task| client.block_on(task).unwrap());
        println!(
            "{name}: {:.0}/s, {:.1} µs of server processor time each",
            count as f64 / start.elapsed().as_secs_f64(),
            used.as_secs_f64() * 1e6 / count as f64
        );
    }
}
