//! `power-loss`: many power failures of a real cluster under load, and a line that sums them up.
//!
//! Called with `start` it is a node, so that there is one program to build and never an older one
//! to meet.

use clap::{Parser, ValueEnum};
use quorate_power_loss::{Ordering, Server, Settings, Trial, Victims};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Cut the power of a cluster's machines again and again; nothing acknowledged may be lost
#[derive(Parser, Debug)]
#[command(
    name = "power-loss",
    after_help = "`power-loss start …` runs a node, as `quorate start` does."
)]
struct Arguments {
    /// How many power failures
    #[arg(long, default_value_t = 100)]
    losses: u64,
    /// What decides whose power fails, when, and what survives
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// `raft` or `paxos`
    #[arg(long, default_value = "raft")]
    protocol: String,
    /// Run this etcd instead, for comparison
    #[arg(long, value_name = "PATH")]
    etcd: Option<PathBuf>,
    /// Whose power fails
    #[arg(long, value_enum, default_value = "mixed")]
    victims: Who,
    /// What the file system promises of names that were not synced
    #[arg(long, value_enum, default_value = "none")]
    ordering: Names,
    /// The longest that a sync takes, in microseconds
    #[arg(long, default_value_t = 2_000)]
    sync_delay_us: u64,
    /// Bytes of each machine's disk
    #[arg(long, default_value_t = 256 << 20)]
    capacity_bytes: u64,
    /// If something is wrong, copy the disks and the nodes' logs there
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
    /// Disks that sync nothing: the run must fail
    #[arg(long)]
    lying: bool,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Who {
    /// One machine's, the leader's, all at once, and one after a failed sync
    Mixed,
    /// As mixed, without failed syncs
    Power,
    /// One machine's
    One,
    /// The leader's
    Leader,
    /// That of all at once
    All,
    /// One machine's, after a failed sync
    FailedSync,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Names {
    /// Nothing: each is kept or lost for itself
    None,
    /// Their order, as a journal keeps it
    Journal,
}

impl Arguments {
    fn trial(&self) -> Trial {
        let server = match &self.etcd {
            Some(path) => Server::Etcd(path.clone()),
            None => Server::Quorate(self.protocol.clone()),
        };
        let victims = match self.victims {
            Who::Mixed => Victims::ALL.to_vec(),
            Who::Power => vec![Victims::One, Victims::Leader, Victims::All],
            Who::One => vec![Victims::One],
            Who::Leader => vec![Victims::Leader],
            Who::All => vec![Victims::All],
            Who::FailedSync => vec![Victims::FailedSync],
        };
        let settings = Settings {
            seed: self.seed,
            capacity_bytes: self.capacity_bytes,
            ordering: match self.ordering {
                Names::None => Ordering::None,
                Names::Journal => Ordering::Journal,
            },
            keep_ppm: self.lying.then_some(0),
            sync_delay_us: self.sync_delay_us,
        };
        let (failures, lying, keep) = (self.losses, self.lying, self.keep.clone());
        Trial { server, settings, failures, victims, lying, keep }
    }
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("start") {
        return quorate::main();
    }
    let arguments = Arguments::parse();
    let own = std::env::current_exe().map(|path| path.display().to_string());
    let _turn = quorate_end_to_end::alone(&own.unwrap_or_default());
    let began = Instant::now();
    let shown = |done: u64| done.is_multiple_of(25) || done == arguments.losses;
    let report = arguments.trial().run(|done, report| {
        if shown(done) {
            let (seconds, writes) = (began.elapsed().as_secs(), report.acknowledged);
            eprintln!("{done} power failures, {writes} writes acknowledged, {seconds} s");
        }
    });
    match report {
        Ok(report) => {
            println!("{report}\nseed {}, {} s", arguments.seed, began.elapsed().as_secs());
            if report.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("no file system can be mounted over FUSE: {error}");
            ExitCode::from(2)
        }
    }
}
