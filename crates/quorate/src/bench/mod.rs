//! `quorate bench`: closed-loop load on any server that speaks etcd's v3 API.
//!
//! Every client has one request under way at a time, so that throughput and latency belong
//! together. Connections are spread over the endpoints, clients over the connections.

mod cpu;
mod load;
mod pauses;
mod report;
mod transfers;
mod watching;
mod workload;

use crate::exit::Failure;
use crate::output::Output;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use transfers::Place;

/// What to do over and over.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub enum Workload {
    /// Write random keys
    Put,
    /// Read random keys, which are written first
    Range,
    /// Compare and swap: each client a key of its own
    Txn,
    /// Write, while others watch all of it; counts what they are told
    Watch,
    /// Write two random keys at once: in two places (`--across`, `--postgres`, `--mariadb`) by a
    /// distributed transaction
    Transfer,
    /// Make leases, which live on for their time
    Lease,
}

/// The arguments of `quorate bench`.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// What to do over and over
    #[arg(value_enum)]
    pub workload: Workload,
    /// Whom to ask: `host:port`, separated by commas
    #[arg(
        long,
        env = "QUORATE_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:2379",
        value_name = "ENDPOINTS"
    )]
    pub endpoints: Vec<String>,
    /// Connections, spread over the endpoints
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Clients, spread over the connections
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: u32,
    /// Measure for so long
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Run unmeasured before, for so long
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub warmup: Duration,
    /// Give up on a request after so long [default: wait for its answer]
    #[arg(long, value_parser = humantime::parse_duration)]
    pub request_timeout: Option<Duration>,
    /// Bytes of each value
    #[arg(
        long,
        default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(8..=1_000_000)
    )]
    pub value_size: u32,
    /// Different keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,
    /// Keyspaces to write to: two, or one to compare with (transfer)
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub across: Vec<String>,
    /// A PostgreSQL database to write to, as the nodes' file of participants calls it: its table
    /// `account (id, balance)` has the rows 0 to KEYS - 1 (transfer)
    #[arg(long, value_name = "NAME")]
    pub postgres: Option<String>,
    /// The same, of MariaDB (transfer)
    #[arg(long, value_name = "NAME")]
    pub mariadb: Option<String>,
    /// Wait until a transaction is carried out everywhere, not only decided (transfer)
    #[arg(long)]
    pub applied: bool,
    /// Never let a transaction be carried together with others (transfer)
    #[arg(long)]
    pub alone: bool,
    /// Run each transaction by a call of its own, not on streams (transfer)
    #[arg(long)]
    pub calls: bool,
    /// How two places agree: `two-phase` or, keyspaces alone, `paxos-commit` (transfer)
    /// [default: the servers']
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PROTOCOL")]
    pub commit: String,
    /// Watchers (watch)
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub watchers: u32,
    /// Read what the asked node has, without asking the others (range)
    #[arg(long)]
    pub serializable: bool,
    /// Processes of the servers, whose CPU time is to be told
    #[arg(long, value_delimiter = ',', value_name = "PIDS")]
    pub server_pids: Vec<u32>,
    /// Data directory of a `quorate up`, where the servers' processes are looked up otherwise
    #[arg(long, default_value = "quorate-data", value_name = "DIR")]
    pub up_data: PathBuf,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// Runs the load and prints what came of it.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let places = Place::all(&arguments);
    if arguments.workload == Workload::Transfer && !Place::make_transfers(&places) {
        let what = "transfer needs two places, of --across, --postgres and --mariadb, or one \
                    keyspace";
        return Err(Failure::Usage(what.to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(load::run(&arguments))?;
    report::print(&arguments, &figures)?;
    match figures.latency.len() {
        0 => Err(Failure::Unavailable("not one request succeeded".to_owned())),
        _ => Ok(()),
    }
}
