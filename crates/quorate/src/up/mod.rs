//! `quorate up`: a cluster on this machine, each node a child process of the same binary.
//!
//! Invariant: nodes never outlive their supervisor. They watch their standard input, which is a
//! pipe that the kernel closes however this process ends.

mod child;
mod plan;
mod report;
pub mod state;
mod supervise;

use crate::exit::Failure;
use crate::start::Coordinator;
use clap::Args;
use quorate_replicated_log::Protocol;
use std::path::PathBuf;

/// The arguments of `quorate up`.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// How many nodes [default: 3, or as many as the data has]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: Option<u16>,
    /// Where the nodes' data and logs are
    #[arg(long, default_value = "quorate-data", value_name = "DIR")]
    pub data: PathBuf,
    /// The first node's client port; its peer port is the next one, and so on [default: 2379]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub port: Option<u16>,
    /// `raft` or `paxos` [default: raft, or what the data was made for]
    #[arg(long, env = "QUORATE_PROTOCOL")]
    pub protocol: Option<Protocol>,
    /// Who decides on the records of transactions [default: replicated, or as the data was made].
    /// Unreplicated, transactions block while one member is away
    #[arg(long, env = "QUORATE_COORDINATOR")]
    pub coordinator: Option<Coordinator>,
    /// Start a node again when it dies
    #[arg(long)]
    pub restart: bool,
}

/// Starts the cluster and stays with it until it is told to stop.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise::run(arguments))
}
