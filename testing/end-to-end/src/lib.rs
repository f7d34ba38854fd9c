//! Real processes on loopback, and the tools that speak to them.
//!
//! Invariant: whatever a test starts ends with it, however it ends. Tests run one at a time: each
//! has the machine to itself, so that what it measures and waits for is its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;
mod history;
mod network;
mod node;
mod ports;
mod tools;

pub use cluster::Cluster;
pub use history::Recorder;
pub use network::{Caller, Network, Party, around};
pub use node::Node;
pub use ports::ports;
pub use tools::{Ran, Tool, etcdctl, etcdctl_command, missing, required, run, tool};

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

static ALONE: Mutex<()> = Mutex::new(());
static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// Waits for its turn. Call first in a test and keep the result; `binary` is the program.
pub fn alone(binary: &str) -> MutexGuard<'static, ()> {
    BINARY.get_or_init(|| PathBuf::from(binary));
    // A test that failed is no reason for the next to fail.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The program under test.
pub fn binary() -> &'static PathBuf {
    BINARY.get().expect("a test begins with alone()")
}

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within `limit`.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    loop {
        if condition() {
            return started.elapsed();
        }
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
