//! The commands that ask a cluster: how they connect, and one file for each.

use crate::exit::Failure;
use crate::output::Output;
use clap::Args;
use quorate_client::{Client, Config};
use std::time::Duration;

pub mod del;
pub mod get;
pub mod group;
pub mod keyspace;
pub mod members;
pub mod put;
mod range;
pub mod status;
pub mod txn;
pub mod watch;

/// Where to ask, how long to wait, how to print.
#[derive(Args, Clone, Debug)]
pub struct Connection {
    /// Where the cluster is reached: `host:port`, separated by commas
    #[arg(
        long,
        global = true,
        env = "QUORATE_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:2379",
        value_name = "ENDPOINTS"
    )]
    pub endpoints: Vec<String>,
    /// The keyspace to use
    #[arg(long, global = true, env = "QUORATE_KEYSPACE", value_name = "NAME")]
    pub keyspace: Option<String>,
    /// Give up after this
    #[arg(long, global = true, default_value = "5s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// How to print
    #[arg(long, short, global = true, value_enum, default_value_t)]
    pub output: Output,
}

impl Connection {
    /// A client's settings.
    pub fn config(&self) -> Result<Config, Failure> {
        let mut config = Config::of(self.endpoints.iter().map(String::as_str))?;
        config.timeout = self.timeout;
        config.keyspace.clone_from(&self.keyspace);
        config.connect_timeout = config.connect_timeout.min(self.timeout);
        Ok(config)
    }

    /// A client.
    pub fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(self.config()?))
    }

    /// Runs a command to its end.
    pub fn run<A, F>(
        self,
        command: impl FnOnce(Connection, A) -> F,
        arguments: A,
    ) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(command(self, arguments))
    }
}
