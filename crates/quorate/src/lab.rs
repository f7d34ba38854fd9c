//! `quorate lab`: experiments that show what holds.

mod commit;

use crate::exit::Failure;
use crate::output::{Output, print_json, say, table};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use quorate_base::Instant;
use quorate_paxos::MultiPaxos;
use quorate_raft::Raft;
use quorate_replicated_log::conformance::Factory;
use quorate_replicated_log::conformance::partitions::{
    LONGEST, Outcome, PATIENCE, Partition, SETTING, every, named,
};
use quorate_replicated_log::{Config, Protocol, Recovered, ReplicatedLog};
use serde_json::json;
use std::time::Duration;

/// The arguments of `quorate lab`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    experiment: Experiment,
}

#[derive(Subcommand, Debug)]
enum Experiment {
    /// Cut every set of links, and see whether writes go on
    Partitions(Partitions),
    /// Kill and cut off those who commit a transaction: who holds, who blocks, who splits
    Commit(commit::Arguments),
}

/// The arguments of `quorate lab partitions`.
#[derive(Args, Debug)]
struct Partitions {
    /// Nodes: 3, 5, or both if not given
    #[arg(long, value_parser = nodes)]
    nodes: Option<u64>,
    /// `raft` or `paxos`, or both if not given
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Runs of each partition, each with other draws
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    seeds: u64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Of other numbers there are no cases.
fn nodes(text: &str) -> Result<u64, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("expected 3 or 5".to_owned()),
    }
}

fn raft(config: Config, now: Instant, recovered: Recovered) -> Box<dyn ReplicatedLog> {
    Box::new(Raft::new(config, now, recovered))
}

fn paxos(config: Config, now: Instant, recovered: Recovered) -> Box<dyn ReplicatedLog> {
    Box::new(MultiPaxos::new(config, now, recovered))
}

fn factory(protocol: Protocol) -> Factory {
    match protocol {
        Protocol::Raft => raft,
        Protocol::Paxos => paxos,
    }
}

/// How many election timeouts a time is: of the longest that a replica may draw, and of the
/// setting.
fn in_timeouts(time: Duration) -> (f64, f64) {
    let of = |timeout: Duration| time.as_secs_f64() / timeout.as_secs_f64();
    (of(LONGEST), of(SETTING))
}

/// What came of a class of cases.
#[derive(Default)]
struct Row {
    cases: u64,
    promised: u64,
    kept: u64,
    worst: Duration,
    stalled: Vec<String>,
}

impl Row {
    /// Adds a case: the worst of so many runs.
    fn add(&mut self, case: &Partition, engine: Factory, seeds: u64, patience: Duration) {
        let outcomes = (1..=seeds).map(|seed| case.run_within(patience, engine, seed));
        let outcomes: Vec<_> = outcomes.collect();
        self.cases += 1;
        self.promised += u64::from(case.is_promised());
        if outcomes.iter().all(Outcome::is_kept) {
            self.kept += 1;
            let promised = outcomes.iter().filter(|outcome| outcome.promised);
            let waits = promised.filter_map(|outcome| outcome.served_after);
            self.worst = self.worst.max(waits.max().unwrap_or_default());
        } else {
            self.stalled.push(case.name());
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.experiment {
        Experiment::Partitions(partitions) => run_partitions(partitions, PATIENCE),
        Experiment::Commit(commit) => commit::run(commit),
    }
}

/// Fails where writes do not go on within `patience`.
fn run_partitions(arguments: &Partitions, patience: Duration) -> Result<(), Failure> {
    let mut classes = vec![("those with a name".to_owned(), Vec::new())];
    let wanted = |nodes| arguments.nodes.is_none_or(|n| n == nodes);
    classes[0].1 = named().into_iter().map(|(_, case)| case).collect();
    classes[0].1.retain(|case| wanted(case.nodes));
    for nodes in [3, 5].into_iter().filter(|&nodes| wanted(nodes)) {
        classes.push((format!("all of {nodes} nodes"), every(nodes)));
    }
    let protocols = Protocol::ALL.into_iter();
    let protocols: Vec<_> =
        protocols.filter(|p| arguments.protocol.is_none_or(|wanted| wanted == *p)).collect();
    let total: usize = classes.iter().map(|(_, cases)| cases.len()).sum();
    let bar = ProgressBar::new((total * protocols.len()) as u64);
    let style = "{bar:40} {pos}/{len} partitions, {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).map_err(|e| Failure::Failed(e.to_string()))?);
    let mut rows = Vec::new();
    for &protocol in &protocols {
        for (class, cases) in &classes {
            let mut row = Row::default();
            for case in cases {
                row.add(case, factory(protocol), arguments.seeds, patience);
                bar.inc(1);
            }
            rows.push((protocol, class, row));
        }
    }
    bar.finish_and_clear();
    print(arguments.output, &rows)?;
    let stalled: usize = rows.iter().map(|(_, _, row)| row.stalled.len()).sum();
    match stalled {
        0 => Ok(()),
        _ => Err(Failure::Failed(format!("writes did not go on in {stalled} cases"))),
    }
}

fn print(output: Output, rows: &[(Protocol, &String, Row)]) -> Result<(), Failure> {
    if output == Output::Json {
        let rows = rows.iter().map(|(protocol, class, row)| {
            let (longest, set) = in_timeouts(row.worst);
            json!({
                "protocol": protocol.name(),
                "cases": class,
                "number": row.cases,
                "a_quorum_is_connected": row.promised,
                "kept": row.kept,
                "worst_in_longest_election_timeouts": longest,
                "worst_in_election_timeouts_as_set": set,
                "stalled": row.stalled,
            })
        });
        return print_json(&rows.collect());
    }
    let mut shown = table(&["protocol", "partitions", "number", "connected", "kept", "worst wait"]);
    for (protocol, class, row) in rows {
        let (longest, set) = in_timeouts(row.worst);
        shown.add_row([
            protocol.name(),
            class,
            &row.cases.to_string(),
            &row.promised.to_string(),
            &row.kept.to_string(),
            &format!("{longest:.1} ({set:.1} as set)"),
        ]);
    }
    say!("{shown}");
    say!(
        "waits are in election timeouts, of the longest that a node may draw (and of the setting)"
    );
    for (protocol, _, row) in rows {
        for case in row.stalled.iter().take(10) {
            say!("{protocol} stalled: {case}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions_of_three(patience: Duration) -> Result<(), Failure> {
        let (nodes, output) = (Some(3), Output::default());
        run_partitions(&Partitions { nodes, protocol: None, seeds: 2, output }, patience)
    }

    #[test]
    fn writes_go_on_in_time() {
        partitions_of_three(PATIENCE).unwrap();
    }

    #[test]
    fn a_stall_is_a_failure() {
        let failure = partitions_of_three(Duration::ZERO).unwrap_err();
        // All of both protocols: 48 cases, and the four of three nodes that have a name.
        assert_eq!(failure.to_string(), "writes did not go on in 104 cases");
        assert_eq!(failure.code(), std::process::ExitCode::from(1));
    }
}
