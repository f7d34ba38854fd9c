//! `bank`: money moves between keyspaces and databases while everything that can die dies.
//!
//! Called with `start` it is a node, so that there is one program to build and never an older one
//! to meet.

use clap::Parser;
use quorate_bank::Trial;
use std::process::ExitCode;
use std::time::Duration;

/// Move money between keyspaces and databases while nodes and databases are killed and paused;
/// none may be lost, no reader may see half a transfer, and nothing may stay in doubt
#[derive(Parser, Debug)]
#[command(name = "bank", after_help = "`bank start …` runs a node, as `quorate start` does.")]
struct Arguments {
    /// Accounts, at all places together
    #[arg(
        long,
        default_value_t = 100_000,
        value_parser = clap::value_parser!(u64).range(1..=10_000_000)
    )]
    accounts: u64,
    /// Keyspaces, under Raft and Paxos by turns
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=16))]
    keyspaces: u64,
    /// Accounts in PostgreSQL and MariaDB, too
    #[arg(long)]
    databases: bool,
    /// For how long, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What decides who moves what, and who dies when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clients that move money
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    clients: u64,
    /// Clients that read accounts of all keyspaces at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(..=1_000))]
    readers: u64,
    /// Clients that append to lists in several keyspaces, and read them
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(..=1_000))]
    scribes: u64,
    /// Nobody dies
    #[arg(long)]
    calm: bool,
    /// Move money without transactions: the run must fail
    #[arg(long, conflicts_with = "databases")]
    broken: bool,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("start") {
        return quorate::main();
    }
    let it = Arguments::parse();
    let own = std::env::current_exe().map(|path| path.display().to_string());
    let _turn = quorate_end_to_end::alone(&own.unwrap_or_default());
    let trial = Trial {
        accounts: it.accounts,
        keyspaces: it.keyspaces,
        databases: it.databases,
        time: Duration::from_secs(it.seconds),
        seed: it.seed,
        clients: it.clients,
        readers: it.readers,
        scribes: it.scribes,
        faults: !it.calm,
        broken: it.broken,
    };
    match trial.run() {
        Ok(report) => {
            println!("{report}\nseed {}", it.seed);
            if report.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
