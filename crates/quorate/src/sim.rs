//! `quorate sim`: the simulator, for people.

use crate::exit::Failure;
use crate::output::{print, say};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use quorate_replicated_log::Protocol;
use quorate_simulator::{Options, Report, Summary, run_many, run_traced};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Bytes of a trace that are printed at a time.
const TRACE_PIECE: usize = 64 << 10;

/// The arguments of `quorate sim`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Run these seeds: A..B, B left out
    #[arg(long, value_parser = seeds, required_unless_present = "seed", value_name = "A..B")]
    seeds: Option<Range<u64>>,
    /// Run this seed
    #[arg(long, conflicts_with = "seeds")]
    #[arg(value_parser = clap::value_parser!(u64).range(..u64::MAX))]
    seed: Option<u64>,
    /// Print what happens, line by line
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Nodes of the cluster [default: drawn from the seed]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=9))]
    nodes: Option<u64>,
    /// How the log is replicated: `raft` or `paxos`
    #[arg(long, default_value_t = Protocol::Raft)]
    protocol: Protocol,
    /// Simulated minutes of faults per seed [default: 20 simulated seconds]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: Option<u64>,
    /// Seeds that run at the same time [default: as many as cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let parsed = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    match parsed {
        Some(range) if range.is_empty() => Err("no seed is in it".to_owned()),
        Some(range) => Ok(range),
        None => Err("expected A..B, such as 0..1000".to_owned()),
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut options =
        Options { nodes: arguments.nodes, protocol: arguments.protocol, ..Options::default() };
    if let Some(minutes) = arguments.minutes {
        options.duration = Duration::from_secs(minutes * 60);
    }
    if let Some(seed) = arguments.seed.filter(|_| arguments.trace) {
        return traced(seed, &options);
    }
    let range = match (arguments.seed, &arguments.seeds) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(range)) => range.clone(),
        (None, None) => return Err(Failure::Usage("--seeds or --seed is needed".to_owned())),
    };
    let threads = arguments
        .threads
        .map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let bar = ProgressBar::new(range.end - range.start);
    let style = "{bar:40} {pos}/{len} seeds, {msg} failed, {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).map_err(|e| Failure::Failed(e.to_string()))?);
    bar.set_message("0");
    let started = Instant::now();
    let mut failed = 0u64;
    let summary = run_many(range, &options, threads, |report| {
        bar.inc(1);
        if let Some(line) = verdict(report) {
            failed += 1;
            bar.set_message(failed.to_string());
            // Above the bar, to standard output: these lines are the result.
            bar.suspend(|| say!("{line}"));
        }
        true
    });
    bar.finish_and_clear();
    summarize(&summary, started.elapsed())
}

fn verdict(report: &Report) -> Option<String> {
    report.violation.as_ref().map(|violation| format!("seed {}: {violation}", report.seed))
}

fn summarize(summary: &Summary, took: Duration) -> Result<(), Failure> {
    let speed = summary.virtual_time.as_secs_f64() / took.as_secs_f64().max(1e-9);
    say!(
        "{} seeds, {} failed; {:.0} simulated seconds in {:.1} s ({speed:.0} times real time)",
        summary.runs,
        summary.failures.len(),
        summary.virtual_time.as_secs_f64(),
        took.as_secs_f64(),
    );
    match summary.failures.first() {
        None => Ok(()),
        Some(first) => Err(Failure::Failed(format!(
            "{} of {} seeds failed; replay one with `quorate sim --seed {} --trace`",
            summary.failures.len(),
            summary.runs,
            first.seed
        ))),
    }
}

fn traced(seed: u64, options: &Options) -> Result<(), Failure> {
    let mut text = String::new();
    let report = run_traced(seed, options, &mut |line| {
        text.push_str(line);
        text.push('\n');
        if text.len() >= TRACE_PIECE {
            print(std::mem::take(&mut text).as_bytes());
        }
    });
    print(text.as_bytes());
    say!("trace hash {:016x}", report.trace_hash);
    match verdict(&report) {
        None => Ok(()),
        Some(line) => Err(Failure::Failed(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_seeds() {
        assert_eq!(seeds("3..7"), Ok(3..7));
        for bad in ["7", "7..3", "3..3", "a..b", ".."] {
            assert!(seeds(bad).is_err(), "{bad}");
        }
    }
}
