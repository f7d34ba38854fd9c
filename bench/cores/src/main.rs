//! What replicated-log libraries cost in one process: three replicas, logs in memory, messages
//! handed over directly. Every library runs in turn, several times; the medians are printed.
//!
//! A run of ours, of `raft` and of `omnipaxos` is one loop on one thread. A round proposes up to
//! `batch` commands at the leader while fewer than `window` of them wait to be applied there,
//! delivers every message that is under way, and lets each replica take its effects: what it
//! writes is durable at once, and what is committed is applied (its bytes are counted, so that
//! nobody leaves work out). `openraft` brings tasks of its own; they all run on this one thread.
//! What counts is the processor time of the thread, the three replicas and the proposer together.

mod omni;
mod open;
mod ours;
mod raft_rs;

use clap::Parser;
use quorate_replicated_log::Protocol;
use std::time::Duration;

#[derive(Parser)]
struct Arguments {
    /// Which: raft, paxos, raft-rs, openraft, omnipaxos.
    #[arg(long, default_value = "raft,paxos,raft-rs,openraft,omnipaxos", value_delimiter = ',')]
    libraries: Vec<String>,
    /// Bytes of a command.
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// batch:window pairs.
    #[arg(long, default_value = "1:1,256:1024", value_delimiter = ',')]
    shapes: Vec<String>,
    /// Runs of each library and shape.
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// About how long a run takes, in milliseconds.
    #[arg(long, default_value_t = 300)]
    run_ms: u64,
}

/// What is measured.
#[derive(Clone, Copy)]
struct Shape {
    /// Proposed at once.
    batch: u64,
    /// Proposed and not yet applied at the leader.
    window: u64,
    /// Bytes of a command.
    size: usize,
}

/// One run.
struct Measured {
    cpu: Duration,
    /// Bytes that each replica applied.
    applied: [u64; 3],
}

/// Processor time of this thread so far.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn run(library: &str, commands: u64, shape: Shape) -> Measured {
    let measured = match library {
        "raft" => ours::run(Protocol::Raft, ours::raft, commands, shape),
        "paxos" => ours::run(Protocol::Paxos, ours::paxos, commands, shape),
        "raft-rs" => raft_rs::run(commands, shape),
        "openraft" => open::run(commands, shape),
        "omnipaxos" => omni::run(commands, shape),
        other => panic!("no library is called {other}"),
    };
    let bytes = commands * shape.size as u64;
    assert_eq!(measured.applied, [bytes; 3], "{library}: every replica applied every command");
    measured
}

fn shape(text: &str, size: usize) -> Shape {
    let parts = text.split_once(':').and_then(|(b, w)| Some((b.parse().ok()?, w.parse().ok()?)));
    let (batch, window) = parts.expect("a shape is batch:window");
    Shape { batch, window, size }
}

/// Commands per processor second, in thousands: lowest, median, highest.
fn spread(mut speeds: Vec<f64>) -> (f64, f64, f64) {
    speeds.sort_by(f64::total_cmp);
    (speeds[0], speeds[speeds.len() / 2], speeds[speeds.len() - 1])
}

fn main() {
    let arguments = Arguments::parse();
    for text in &arguments.shapes {
        let shape = shape(text, arguments.size);
        // A first run of each, which does not count, tells how many commands fill the time.
        let commands: Vec<u64> = (arguments.libraries.iter())
            .map(|library| {
                let trial = 20_000.min(2_000 * shape.batch);
                let each = run(library, trial, shape).cpu.as_secs_f64() / trial as f64;
                ((arguments.run_ms as f64 / 1000.0 / each) as u64).clamp(1_000, 1_000_000)
            })
            .collect();
        let mut speeds = vec![Vec::new(); arguments.libraries.len()];
        for _ in 0..arguments.runs {
            for ((library, speeds), &n) in
                arguments.libraries.iter().zip(&mut speeds).zip(&commands)
            {
                speeds.push(n as f64 / run(library, n, shape).cpu.as_secs_f64() / 1000.0);
            }
        }
        println!("batch {}, window {}, {} bytes", shape.batch, shape.window, shape.size);
        println!(
            "  {:<10} {:>10}  {:>10} {:>10}   thousand commands per CPU second",
            "", "median", "lowest", "highest"
        );
        for (library, speeds) in arguments.libraries.iter().zip(speeds) {
            let (lowest, median, highest) = spread(speeds);
            println!("  {library:<10} {median:>10.0}  {lowest:>10.0} {highest:>10.0}");
        }
    }
}
