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
use quorate_replicated_log::conformance::partitions::{PATIENCE, Partition, every, named};
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
    #[arg(long, value_parser = clap::value_parser!(u64).range(3..=5))]
    nodes: Option<u64>,
    /// `raft` or `paxos`, or both if not given
    #[arg(long)]
    protocol: Option<Protocol>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
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
    fn add(&mut self, case: &Partition, engine: Factory) {
        let outcome = case.run(engine);
        self.cases += 1;
        self.promised += u64::from(outcome.promised);
        if outcome.is_kept() {
            self.kept += 1;
            let after = outcome.served_after.filter(|_| outcome.promised);
            self.worst = self.worst.max(after.unwrap_or_default());
        } else {
            self.stalled.push(case.name());
        }
    }

    /// The longest wait in election timeouts.
    fn worst(&self) -> f64 {
        4.0 * self.worst.as_secs_f64() / PATIENCE.as_secs_f64()
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.experiment {
        Experiment::Partitions(partitions) => run_partitions(partitions),
        Experiment::Commit(commit) => commit::run(commit),
    }
}

fn run_partitions(arguments: &Partitions) -> Result<(), Failure> {
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
                row.add(case, factory(protocol));
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
            json!({
                "protocol": protocol.name(),
                "cases": class,
                "number": row.cases,
                "a_quorum_is_connected": row.promised,
                "kept": row.kept,
                "worst_election_timeouts": row.worst(),
                "stalled": row.stalled,
            })
        });
        return print_json(&rows.collect());
    }
    let mut shown = table(&["protocol", "partitions", "number", "connected", "kept", "worst wait"]);
    for (protocol, class, row) in rows {
        shown.add_row([
            protocol.name(),
            class,
            &row.cases.to_string(),
            &row.promised.to_string(),
            &row.kept.to_string(),
            &format!("{:.1} election timeouts", row.worst()),
        ]);
    }
    say!("{shown}");
    for (protocol, _, row) in rows {
        for case in row.stalled.iter().take(10) {
            say!("{protocol} stalled: {case}");
        }
    }
    Ok(())
}
