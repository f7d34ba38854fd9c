//! Where nothing fails a change of protocols is short, on either number of replicas and in either
//! direction, whatever the network, the disks and the clocks are like.

use quorate_driver::Canary as Driver;
use quorate_replicated_log::Protocol;
use quorate_simulator::{Canary, Options, Switch, run_many};
use std::time::Duration;

/// Of each protocol to begin with, and number of replicas.
const SEEDS: u64 = 16;

fn calm(nodes: Option<u64>, protocol: Protocol, canary: Canary) -> Options {
    Options { nodes, duration: Duration::from_secs(10), canary, protocol, calm: true }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// In election timeouts, as they are set.
fn pauses(switches: &[Switch], to: Protocol) -> Vec<f64> {
    let of = switches.iter().filter(|switch| switch.to == to);
    let pauses = of.map(|it| it.pause.as_secs_f64() / it.election.as_secs_f64());
    let mut pauses: Vec<f64> = pauses.collect();
    pauses.sort_by(f64::total_cmp);
    pauses
}

/// Every change of protocols in all seeds, none of which may violate anything.
fn switches(nodes: u64) -> Vec<Switch> {
    let mut switches = Vec::new();
    for protocol in Protocol::ALL {
        let options = calm(Some(nodes), protocol, Canary::None);
        let summary = run_many(0..SEEDS, &options, threads(), |report| {
            switches.extend(report.switches.iter().copied());
            true
        });
        let failed = summary.failures.iter().map(|report| (report.seed, &report.violation));
        let failed: Vec<_> = failed.collect();
        assert_eq!(failed, [], "{nodes} replicas, {protocol} at first");
    }
    switches
}

#[test]
fn a_change_of_protocols_takes_two_election_timeouts_at_most() {
    for nodes in [3, 5] {
        let switches = switches(nodes);
        for to in Protocol::ALL {
            let pauses = pauses(&switches, to);
            let count = pauses.len();
            assert!(count as u64 > 3 * SEEDS, "only {count} changes to {to}");
            let [median, late] = [50, 99].map(|percent| pauses[count * percent / 100]);
            let worst = pauses[count - 1];
            println!("{nodes} replicas, {count} changes to {to}, in election timeouts:");
            println!("median {median:.2}, 99th percentile {late:.2}, worst {worst:.2}");
        }
    }
}

#[test]
fn a_change_that_takes_longer_is_found() {
    for protocol in Protocol::ALL {
        let options = calm(None, protocol, Canary::Driver(Driver::PersistLater));
        let summary = run_many(0..20, &options, threads(), |report| report.violation.is_none());
        let failure = summary.failures.first().expect("a bug that nobody notices");
        let promise = failure.violation.as_ref().unwrap().promise;
        assert_eq!(promise, "a change of protocols is short", "{failure:?}");
    }
}
