//! Groups that go on under another protocol while clients write.

use crate::begin;
use bytes::Bytes;
use quorate_client::{Client, Error};
use quorate_end_to_end::{Cluster, Ran, binary, eventually, run};
use quorate_wire::etcdserverpb::{PutRequest, RangeRequest};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(30);
/// Clients that write all the while.
const WRITERS: usize = 4;
/// Changes of the protocol.
const SWITCHES: usize = 10;
/// The one at which a node is killed.
const DEADLY: usize = 5;

fn quorate(endpoints: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new(binary());
    command.env("QUORATE_ENDPOINTS", endpoints).env("QUORATE_OUTPUT", "");
    run(command.args(arguments).args(["--timeout", "10s"]), "")
}

/// A write that was acknowledged.
struct Acknowledged {
    key: String,
    revision: i64,
    at: Instant,
}

/// Clients that write, each key once.
struct Writers {
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    /// Keys of writes of which nobody knows whether they were done.
    unknown: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(cluster: &Cluster) -> Writers {
        let mut writers = Writers {
            acknowledged: Arc::default(),
            unknown: Arc::default(),
            stop: Arc::default(),
            tasks: Vec::new(),
        };
        for number in 0..WRITERS {
            let client = cluster.client_of(0..cluster.nodes.len(), PATIENCE);
            let (acknowledged, unknown) = (writers.acknowledged.clone(), writers.unknown.clone());
            let stop = writers.stop.clone();
            writers.tasks.push(cluster.runtime.spawn(async move {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("w/{number}/{n}");
                    match write(&client, &key).await {
                        Ok(revision) => {
                            let at = Instant::now();
                            acknowledged.lock().unwrap().push(Acknowledged { key, revision, at });
                        }
                        Err(Error::Unknown { .. }) => {
                            unknown.lock().unwrap().insert(key);
                        }
                        Err(error) => panic!("{key}: {error}"),
                    }
                }
            }));
        }
        writers
    }

    /// The longest time without an acknowledgement since `started`.
    fn longest_pause(&self, started: Instant) -> Duration {
        let acknowledged = self.acknowledged.lock().unwrap();
        let mut times: Vec<Instant> = acknowledged.iter().map(|it| it.at).collect();
        times.sort_unstable();
        let from = times.partition_point(|at| *at < started).saturating_sub(1);
        times[from..].windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    fn finish(self, cluster: &Cluster) -> (Vec<Acknowledged>, BTreeSet<String>) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            cluster.runtime.block_on(task).unwrap();
        }
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().unwrap());
        let unknown = std::mem::take(&mut *self.unknown.lock().unwrap());
        (acknowledged, unknown)
    }
}

async fn write(client: &Client, key: &str) -> Result<i64, Error> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let put = PutRequest { value: key.clone(), key, ..Default::default() };
    Ok(client.put(put).await?.header.unwrap_or_default().revision)
}

/// Every acknowledged write is there exactly once, at the revision that was told; of the others
/// each is there at most once; and nothing else is.
fn check(cluster: &Cluster, writers: Writers) -> usize {
    let (acknowledged, unknown) = writers.finish(cluster);
    let range = RangeRequest { key: "w/".into(), range_end: "w0".into(), ..Default::default() };
    let found = cluster.runtime.block_on(cluster.client().range(range)).unwrap();
    let mut revisions = BTreeSet::new();
    let mut present = std::collections::BTreeMap::new();
    for kv in found.kvs {
        assert_eq!((kv.version, &kv.key), (1, &kv.value), "written once");
        assert!(revisions.insert(kv.mod_revision), "a revision is one write's");
        present.insert(String::from_utf8(kv.key.to_vec()).unwrap(), kv.mod_revision);
    }
    for write in &acknowledged {
        assert_eq!(present.remove(&write.key), Some(write.revision), "{} is lost", write.key);
    }
    assert!(present.keys().all(|key| unknown.contains(key)), "nobody wrote {present:?}");
    acknowledged.len()
}

/// The row of a group, as the command line shows it.
fn group(cluster: &Cluster, number: u64) -> serde_json::Value {
    let listed = quorate(&cluster.endpoints(), &["group", "list", "-o", "json"]).json();
    let all = listed.as_array().unwrap();
    all.iter().find(|group| group["group"] == number).cloned().unwrap_or_default()
}

/// The protocol a group is under.
fn protocol(cluster: &Cluster, number: u64) -> String {
    group(cluster, number)["protocol"].as_str().unwrap().to_owned()
}

fn other_than(protocol: &str) -> &'static str {
    if protocol == "raft" { "paxos" } else { "raft" }
}

#[test]
fn a_group_changes_its_protocol_under_load() {
    let _turn = begin();
    // So long that twice as long is no matter of how busy the machine is.
    let timing = ["--heartbeat-interval", "200", "--election-timeout", "1000"];
    let mut cluster = Cluster::start_with(3, &timing);
    let writers = Writers::start(&cluster);
    std::thread::sleep(Duration::from_millis(300));
    // Whichever it began under, to the other and back.
    let began = protocol(&cluster, 1);
    let other = other_than(&began);
    let (mut pauses, mut deadly) = (Vec::new(), Duration::ZERO);
    for round in 0..SWITCHES {
        let to = [other, began.as_str()][round % 2];
        // Any node may be asked.
        let asked = cluster.nodes[round % 3].client.clone();
        let started = Instant::now();
        if round == DEADLY {
            let victim = cluster.settled();
            let started = Instant::now();
            let endpoints = cluster.endpoints();
            let to_there = to.to_owned();
            let switching = std::thread::spawn(move || {
                quorate(&endpoints, &["group", "switch", "--group", "1", "--to", &to_there])
            });
            std::thread::sleep(Duration::from_millis(40));
            cluster.nodes[victim].kill();
            // Whoever was asked may have been the one that died: asking again settles it.
            let first = switching.join().unwrap();
            let epoch = round.to_string();
            let again = ["group", "switch", "--group", "1", "--to", to, "--epoch", &epoch];
            eventually("the switch is done", PATIENCE, || {
                quorate(&cluster.endpoints(), &again).code == Some(0)
            });
            println!("a leader killed at a switch; the command said {:?}", first.code);
            cluster.writable();
            std::thread::sleep(Duration::from_millis(200));
            deadly = writers.longest_pause(started);
            cluster.nodes[victim].start_again();
            cluster.settled();
            continue;
        }
        let said = quorate(&asked, &["group", "switch", "--group", "1", "--to", to]).ok();
        let epoch = round + 1;
        let wanted = format!("OK, group 1 (keyspace default) is under {to}, in epoch {epoch}\n");
        assert_eq!(said, wanted);
        std::thread::sleep(Duration::from_millis(200));
        pauses.push(writers.longest_pause(started));
    }
    let last = group(&cluster, 1);
    assert_eq!((&last["protocol"], &last["epoch"]), (&began.into(), &SWITCHES.into()));
    let written = check(&cluster, writers);
    pauses.sort_unstable();
    println!(
        "{written} writes acknowledged; the longest pause at each of {} switches: median {:?}, \
         worst {:?}; with the leader killed: {deadly:?}",
        pauses.len(),
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1]
    );
    assert!(written > 100, "only {written} writes were acknowledged");
    // Twice the election timeout is promised; an election beside it may take as long again.
    assert!(pauses[pauses.len() - 1] < Duration::from_secs(2), "{pauses:?}");
    assert!(deadly < Duration::from_secs(4), "{deadly:?}");
}

#[test]
fn switches_are_asked_for_by_name_repeated_and_refused() {
    let _turn = begin();
    let mut cluster = Cluster::start(3);
    let all = cluster.endpoints();
    let q = |arguments: &[&str]| quorate(&all, arguments);
    eventually("there is a directory", PATIENCE, || {
        q(&["keyspace", "create", "orders", "--protocol", "paxos"]).code == Some(0)
    });
    q(&["put", "k", "before", "--keyspace", "orders"]).ok();
    let orders = ["group", "switch", "--keyspace", "orders", "--to", "raft"];
    let switched = q(&orders).ok();
    assert_eq!(switched, "OK, group 16 (keyspace orders) is under raft, in epoch 1\n");
    // Again by mistake, and again by intent.
    let again = q(&orders);
    assert!(again.code == Some(1) && again.err.contains("under raft already"), "{again:?}");
    assert_eq!(q(&[&orders[..], &["--epoch", "0"]].concat()).ok(), switched);
    let late = q(&["group", "switch", "--group", "16", "--to", "paxos", "--epoch", "0"]);
    assert!(late.code == Some(1) && late.err.contains("in epoch 1"), "{late:?}");
    assert!(q(&["get", "k", "--keyspace", "orders"]).ok().contains("before"));
    let described = q(&["keyspace", "describe", "orders", "-o", "json"]).json();
    assert_eq!(described["protocol"], "raft");
    // The others were left alone.
    assert_eq!(group(&cluster, 1)["epoch"], 0);
    let row = group(&cluster, 16);
    assert_eq!(
        (&row["keyspace"], &row["voters"].as_array().unwrap().len()),
        (&"orders".into(), &3)
    );
    assert!(row["leader"].as_u64().unwrap() != 0 && row["commit_index"].as_u64().unwrap() > 1);
    assert!(q(&["group", "list"]).ok().contains("orders"));
    // What cannot be.
    let unknown = q(&["group", "switch", "--group", "99", "--to", "raft"]);
    assert!(unknown.code == Some(1) && unknown.err.contains("no group 99"), "{unknown:?}");
    let unnamed = q(&["group", "switch", "--to", "raft"]);
    assert!(unnamed.code == Some(2) && unnamed.err.contains("which group"), "{unnamed:?}");
    let neither = q(&["group", "switch", "--group", "1", "--to", "zab"]);
    assert!(neither.code == Some(1) && neither.err.contains("no protocol"), "{neither:?}");
    let other = other_than(&protocol(&cluster, 1));
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    let alone = q(&["group", "switch", "--group", "1", "--to", other]);
    assert!(alone.code == Some(3) && alone.err.contains("no leader"), "{alone:?}");
    assert!(alone.err.contains("2 of its 3"), "{alone:?}");
}
