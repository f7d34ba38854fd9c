//! Runs seeds: `seeds FROM TO [NODES] [BUG]`, or replays one with its trace: `seeds SEED trace`.
//! NODES `-` draws them from the seed; BUG is a canary of the protocol or of the log, by name. The
//! variable PROTOCOL says `raft` or `paxos`.
#![allow(clippy::unwrap_used)]

use quorate_replicated_log::Protocol;
use quorate_simulator::{Canary, Options, run_many, run_traced};
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args.get(i).and_then(|arg| arg.parse::<u64>().ok());
    let raft = quorate_raft::Canary::ALL.map(Canary::Raft);
    let paxos_bugs = quorate_paxos::Canary::ALL.map(Canary::Paxos);
    let bugs = raft.into_iter().chain(paxos_bugs).chain(quorate_wal::Canary::ALL.map(Canary::Wal));
    let epochs = [quorate_driver::Canary::ForgetPromise, quorate_driver::Canary::DropTail];
    let bugs = bugs.chain(epochs.map(Canary::Driver));
    let named = |bug: &Canary| args.get(3).is_some_and(|arg| format!("{bug:?}").contains(&arg[..]));
    let canary = bugs.into_iter().find(named).unwrap_or_default();
    let paxos = std::env::var("PROTOCOL").is_ok_and(|name| name == "paxos");
    let protocol = if paxos { Protocol::Paxos } else { Protocol::Raft };
    let options = Options { nodes: number(2), canary, protocol, ..Options::default() };
    if args.get(1).is_some_and(|arg| arg == "trace") {
        let report = run_traced(number(0).unwrap_or(0), &options, &mut |line| println!("{line}"));
        println!("{:?}\nhash {:x}", report.violation, report.trace_hash);
        return;
    }
    let (from, to) = (number(0).unwrap_or(0), number(1).unwrap_or(100));
    let start = Instant::now();
    let summary = run_many(from..to, &options, 1, |report| {
        if let Some(violation) = &report.violation {
            println!("seed {}: {:.600}", report.seed, violation.to_string());
        }
        true
    });
    let spent = start.elapsed().as_secs_f64();
    let speed = summary.virtual_time.as_secs_f64() / spent;
    println!("{:#?}", summary.counters);
    println!(
        "{} runs, {} failed, {:.1} ms each, {speed:.0} x real time",
        summary.runs,
        summary.failures.len(),
        spent * 1e3 / summary.runs as f64
    );
}
