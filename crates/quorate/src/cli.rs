//! The command line: every subcommand and where it goes.

use crate::client::{Connection, del, get, group, keyspace, members, put, status, txn, watch};
use crate::exit::{CODES, Failure};
use crate::output::print;
use crate::{bench, lab, sim, start, up};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// A cluster that keeps its keys while machines, disks and networks fail.
#[derive(Parser, Debug)]
#[command(name = "quorate", version, after_help = CODES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Start a cluster on this machine, each node a process of its own, and stay with it
    Up(up::Arguments),
    /// Run one node; its flags have etcd's names
    Start(Box<start::Arguments>),
    /// Write a key
    Put(Asked<put::Arguments>),
    /// Read keys
    Get(Asked<get::Arguments>),
    /// Delete keys
    Del(Asked<del::Arguments>),
    /// Print changes of keys as they happen
    Watch(Asked<watch::Arguments>),
    /// Show how each endpoint is
    Status(Asked<status::Arguments>),
    /// List the members of the cluster
    Members(Asked<members::Arguments>),
    /// Make, list, describe and drop keyspaces
    Keyspace(Asked<keyspace::Arguments>),
    /// Run, list and show transactions across keyspaces, databases and HTTP services
    Txn(Asked<txn::Arguments>),
    /// List the groups, and change the protocol they run under
    Group(Asked<group::Arguments>),
    /// Run the simulator: a whole cluster in virtual time, under faults
    Sim(sim::Arguments),
    /// Show in experiments what holds, and what does not
    Lab(lab::Arguments),
    /// Measure any server that speaks etcd's v3 API, in a closed loop
    Bench(Box<bench::Arguments>),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page, in roff
    Man,
}

/// A command that asks a cluster.
#[derive(Args, Debug)]
struct Asked<T: Args> {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    arguments: T,
}

impl Cli {
    /// Runs the subcommand.
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Up(arguments) => up::run(arguments),
            Command::Start(arguments) => start::run(*arguments),
            Command::Put(asked) => asked.connection.run(put::run, asked.arguments),
            Command::Get(asked) => asked.connection.run(get::run, asked.arguments),
            Command::Del(asked) => asked.connection.run(del::run, asked.arguments),
            Command::Watch(asked) => asked.connection.run(watch::run, asked.arguments),
            Command::Status(asked) => asked.connection.run(status::run, asked.arguments),
            Command::Members(asked) => asked.connection.run(members::run, asked.arguments),
            Command::Keyspace(asked) => asked.connection.run(keyspace::run, asked.arguments),
            Command::Txn(asked) => asked.connection.run(txn::run, asked.arguments),
            Command::Group(asked) => asked.connection.run(group::run, asked.arguments),
            Command::Sim(arguments) => sim::run(&arguments),
            Command::Lab(arguments) => lab::run(&arguments),
            Command::Bench(arguments) => bench::run(*arguments),
            Command::Completions { shell } => {
                let mut text = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "quorate", &mut text);
                print(&text);
                Ok(())
            }
            Command::Man => {
                let mut text = Vec::new();
                clap_mangen::Man::new(Cli::command()).render(&mut text)?;
                print(&text);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let beyond = u64::MAX.to_string();
        for arguments in [
            ["lab", "partitions", "--nodes", "4"],
            ["sim", "--threads", "0", "--seeds=0..1"],
            ["sim", "--minutes", "0", "--seed=1"],
            ["sim", "--minutes", &beyond, "--seed=1"],
            ["sim", "--threads=1", "--seed", &beyond],
        ] {
            let parsed = Cli::try_parse_from(["quorate"].into_iter().chain(arguments));
            let kind = parsed.err().map(|error| error.kind());
            assert_eq!(kind, Some(clap::error::ErrorKind::ValueValidation), "{arguments:?}");
        }
    }
}
