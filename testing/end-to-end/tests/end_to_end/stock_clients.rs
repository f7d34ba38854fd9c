//! Client libraries that are not ours. Each runs a program of checks and says `all checks passed`.

use crate::begin;
use quorate_end_to_end::{Cluster, Tool, run, tool};
use std::process::Command;

#[test]
fn the_python_client() {
    let _turn = begin();
    let Tool::At(python) =
        tool("the_python_client", "QUORATE_E2E_PYTHON", "python3", &["-c", "import etcd3"])
    else {
        return;
    };
    let cluster = Cluster::start(3);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/checks.py");
    let out = run(Command::new(python).arg(script).arg(&cluster.nodes[1].client), "").ok();
    assert!(out.contains("all checks passed"), "{out}");
}

#[test]
fn the_rust_client() {
    let _turn = begin();
    let Tool::At(client) =
        tool("the_rust_client", "QUORATE_E2E_RUST_CLIENT", "end-to-end-rust-client", &["--probe"])
    else {
        return;
    };
    let cluster = Cluster::start(3);
    let out = run(Command::new(client).arg(cluster.endpoints()), "").ok();
    assert!(out.contains("all checks passed"), "{out}");
}
