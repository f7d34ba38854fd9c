//! What a node does whose disk was filled by somebody else, at once and to the brim.
//!
//! The alarm of `NOSPACE` comes before a disk is full, if it fills slowly. When it does not, the
//! state engine cannot write and the node cannot go on. Nothing is lost: what was promised is in
//! the log, which is made in advance. So the process waits until there is room, and starts anew.

use crate::exit::Failure;
use quorate_disk::OsDisk;
use std::os::unix::process::CommandExt;
use std::time::Duration;

/// How often the disk is asked.
const PAUSE: Duration = Duration::from_millis(500);

/// The room that a node needs to go on.
pub struct Room {
    disk: OsDisk,
    enough_bytes: u64,
}

impl Room {
    /// As much as clears the alarm: twice the reserve.
    pub fn new(disk: OsDisk, reserve_bytes: u64) -> Room {
        Room { disk, enough_bytes: reserve_bytes.saturating_mul(2) }
    }

    /// Whether there is too little. A disk that does not say has enough.
    pub fn is_short(&self) -> bool {
        self.disk.free_bytes().is_ok_and(|free| free < self.enough_bytes)
    }

    /// Returns when there is enough.
    pub async fn is_back(&self) {
        let path = self.disk.path().display();
        tracing::error!(
            enough_bytes = self.enough_bytes,
            "the disk of {path} is full: the node starts anew when there is room"
        );
        while self.is_short() {
            tokio::time::sleep(PAUSE).await;
        }
        tracing::info!("there is room on the disk of {path} again");
    }
}

/// Starts this process anew with the same arguments, under the same pid: nothing of the node that
/// could not go on is left. Returns only if that fails.
pub fn start_anew() -> Failure {
    // The file may have been replaced or removed; what runs here is still to be had.
    let program = "/proc/self/exe";
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let error = command.args(arguments).exec();
    Failure::Failed(format!("cannot start {program} anew: {error}"))
}
