//! One node as a child process.

use super::plan::Seat;
use crate::exit::Failure;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};

/// How long a node may take to stop in good order.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node that runs, or ran.
#[derive(Debug)]
pub struct Running {
    pub pid: u32,
    child: Child,
    /// The node runs until this is closed. Kept apart from the child, for waiting closes its own.
    _stdin: Option<ChildStdin>,
}

/// Starts a node; `members` is its `--initial-cluster`.
pub fn start(seat: &Seat, members: &str) -> Result<Running, Failure> {
    let machine = |what: &str, e: std::io::Error| Failure::Machine(format!("{what}: {e}"));
    let binary = std::env::current_exe().map_err(|e| machine("this program's own file", e))?;
    let log = File::options().create(true).append(true).open(&seat.log_file);
    let log = log.map_err(|e| machine(&seat.log_file.display().to_string(), e))?;
    let client = format!("http://{}", seat.client);
    let peer = format!("http://{}", seat.peer);
    let mut command = Command::new(binary);
    command
        .args(["start", "--stop-with-stdin", "--name", &seat.name])
        .arg("--data-dir")
        .arg(&seat.data_dir)
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--protocol", seat.protocol.name(), "--coordinator", seat.coordinator.name()])
        .args(["--initial-cluster", members, "--initial-cluster-state", "new"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        // A Ctrl-C in the terminal is for the supervisor, which then stops the nodes in order.
        .process_group(0);
    let mut child = command.spawn().map_err(|e| machine("cannot start a process", e))?;
    let stdin = child.stdin.take();
    Ok(Running { pid: child.id().unwrap_or_default(), child, _stdin: stdin })
}

impl Running {
    /// Waits for its end; tells how it ended.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => format!("its end is unknown: {error}"),
        }
    }

    /// Asks it to stop.
    pub fn ask_to_stop(&self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended meanwhile, which is what is wanted.
            let _ = kill_process(pid, Signal::TERM);
            // One that was stopped by a signal hears others only when it goes on.
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    /// Waits until it has stopped; kills it if it takes too long. False: it was killed.
    pub async fn stopped(&mut self) -> bool {
        if tokio::time::timeout(PATIENCE, self.child.wait()).await.is_ok() {
            return true;
        }
        // It may have ended meanwhile, which is what is wanted.
        let _ = self.child.kill().await;
        false
    }
}
