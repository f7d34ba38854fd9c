//! The file system as processes see it, the state engine and clusters of real nodes on it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod file_system;
mod state;

use std::sync::MutexGuard;

/// Waits for this test's turn: each cluster has the machine to itself.
fn begin() -> MutexGuard<'static, ()> {
    quorate_end_to_end::alone(env!("CARGO_BIN_EXE_power-loss"))
}

/// Says that a test is passed over, and fails where it must not be.
fn cannot_mount(test: &str, error: &std::io::Error) {
    quorate_end_to_end::missing(test, &format!("no file system can be mounted over FUSE: {error}"));
}
