//! Processes killed and stopped, while clients work and record what they see.

use crate::begin;
use quorate_end_to_end::{Cluster, Recorder, eventually};
use rustix::process::Signal;
use std::time::{Duration, Instant};

#[test]
fn the_leader_is_killed_twenty_times() {
    let _turn = begin();
    let mut cluster = Cluster::start(3);
    let recorder = Recorder::start(&cluster.runtime, &cluster.endpoints(), 4);
    let mut gaps = Vec::new();
    for round in 0..20 {
        let leader = cluster.settled();
        let revision = cluster.put("round", &round.to_string()).unwrap();
        cluster.nodes[leader].kill();
        let killed = Instant::now();
        cluster.writable();
        gaps.push(killed.elapsed());
        let survivor = (leader + 1) % 3;
        let seen = cluster.range_from(survivor, "round", "").unwrap();
        assert_eq!(seen.kvs[0].value, round.to_string());
        assert_eq!(seen.kvs[0].mod_revision, revision, "an acknowledged write is lost");
        cluster.nodes[leader].start_again();
    }
    cluster.settled();
    let answered = recorder.finish(&cluster.runtime);
    assert!(answered > 100, "only {answered} requests were answered");
    gaps.sort();
    println!("leader killed to next write: p50 {:?}, longest {:?}", gaps[10], gaps[19]);
    assert!(gaps[10] < Duration::from_secs(3), "fail-over takes {gaps:?}");
}

#[test]
fn the_leader_is_stopped_for_ten_seconds_and_goes_on() {
    let _turn = begin();
    let mut cluster = Cluster::start(3);
    let recorder = Recorder::start(&cluster.runtime, &cluster.endpoints(), 4);
    let leader = cluster.settled();
    cluster.nodes[leader].signal(Signal::STOP);
    let stopped = Instant::now();
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    let client = cluster.client_of(others.clone(), Duration::from_secs(2));
    eventually("the others elect a leader", Duration::from_secs(10), || {
        let put = quorate_wire_put("stopped", "yes");
        cluster.runtime.block_on(client.put(put)).is_ok()
    });
    std::thread::sleep(Duration::from_secs(10).saturating_sub(stopped.elapsed()));
    cluster.nodes[leader].signal(Signal::CONT);
    // It must not answer from what it knew before it was stopped.
    eventually("the old leader serves again", Duration::from_secs(20), || {
        match cluster.get_from(leader, "stopped") {
            Ok(value) => {
                assert_eq!(value.as_deref(), Some("yes"), "a stale read");
                true
            }
            Err(_) => false,
        }
    });
    cluster.settled();
    recorder.finish(&cluster.runtime);
}

fn quorate_wire_put(key: &str, value: &str) -> quorate_wire::etcdserverpb::PutRequest {
    quorate_wire::etcdserverpb::PutRequest {
        key: key.as_bytes().to_vec().into(),
        value: value.as_bytes().to_vec().into(),
        ..Default::default()
    }
}

#[test]
fn all_are_killed_at_once_and_started_again() {
    let _turn = begin();
    let mut cluster = Cluster::start(3);
    let recorder = Recorder::start(&cluster.runtime, &cluster.endpoints(), 4);
    for round in 0..3 {
        let revision = cluster.put("all", &round.to_string()).unwrap();
        for node in &mut cluster.nodes {
            node.kill();
        }
        for node in &mut cluster.nodes {
            node.start_again();
        }
        cluster.settled();
        let seen = cluster.range_from(round % 3, "all", "").unwrap();
        assert_eq!(seen.kvs[0].mod_revision, revision, "an acknowledged write is lost");
    }
    recorder.finish(&cluster.runtime);
}

#[test]
fn without_a_quorum_requests_fail_in_time_and_afterwards_go_on() {
    let _turn = begin();
    let mut cluster = Cluster::start(3);
    cluster.put("before", "yes").unwrap();
    let leader = cluster.settled();
    for i in (0..3).filter(|i| *i != leader) {
        cluster.nodes[i].kill();
    }
    let client = cluster.client_of([leader], Duration::from_secs(10));
    let started = Instant::now();
    let put = cluster.runtime.block_on(client.put(quorate_wire_put("during", "no")));
    let error = put.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("navailable"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10), "it took {:?}", started.elapsed());
    let started = Instant::now();
    let read = cluster.get_from(leader, "before").unwrap_err();
    assert!(read.is_unavailable(), "{read}");
    assert!(started.elapsed() < Duration::from_secs(6));
    for i in (0..3).filter(|i| *i != leader) {
        cluster.nodes[i].start_again();
    }
    cluster.settled();
    cluster.writable();
    assert_eq!(cluster.get_from(leader, "before").unwrap().as_deref(), Some("yes"));
}
