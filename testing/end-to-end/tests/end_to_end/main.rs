//! Clusters of real processes under stock clients and real faults.
//!
//! Every test starts with [`begin`], which makes them run one at a time. Those that need a program
//! that is not there say so on standard error, and fail where `QUORATE_E2E_REQUIRE=1`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alarms;
mod bundles;
mod cancel;
mod command_line;
mod coordinator;
mod database_bundles;
mod databases;
mod etcdctl;
mod faults;
mod groups;
mod hot_key;
mod http;
mod keyspaces;
mod limits;
mod machine;
mod membership;
mod own_branches;
mod own_http;
mod relay;
mod stock_clients;
mod streams;
mod transactions;
mod unfit;
mod up;

use quorate_end_to_end::{Cluster, Ran, binary, run};
use std::process::Command;
use std::sync::MutexGuard;

/// Waits for this test's turn.
fn begin() -> MutexGuard<'static, ()> {
    quorate_end_to_end::alone(env!("CARGO_BIN_EXE_quorate-under-test"))
}

/// Runs a command of ours against all nodes, with patience.
fn quorate(cluster: &Cluster, arguments: &[&str], input: &str) -> Ran {
    let mut command = Command::new(binary());
    command.env("QUORATE_ENDPOINTS", cluster.endpoints());
    run(command.args(arguments).args(["--timeout", "30s"]), input)
}
