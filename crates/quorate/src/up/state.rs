//! What other commands may know of a cluster that `up` runs: `up.json` in its data directory.

use super::plan::Seat;
use crate::exit::Failure;
use serde::{Deserialize, Serialize};
use std::path::Path;

const FILE: &str = "up.json";

/// A running cluster.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    pub supervisor: u32,
    pub nodes: Vec<NodeState>,
}

/// A node of it; without a pid it is dead.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeState {
    pub name: String,
    pub pid: Option<u32>,
    pub client: String,
    pub peer: String,
}

impl State {
    /// Replaces the file.
    pub fn write<'a>(
        data: &Path,
        nodes: impl Iterator<Item = (&'a Seat, Option<u32>)>,
    ) -> Result<(), Failure> {
        let nodes = nodes
            .map(|(seat, pid)| NodeState {
                name: seat.name.clone(),
                pid,
                client: seat.client.clone(),
                peer: seat.peer.clone(),
            })
            .collect();
        let state = State { supervisor: std::process::id(), nodes };
        let draft = data.join("up.json.new");
        std::fs::write(&draft, serde_json::to_vec_pretty(&state)?)?;
        std::fs::rename(&draft, data.join(FILE))?;
        Ok(())
    }

    /// Reads the file; nothing if no cluster runs there.
    pub fn read(data: &Path) -> Option<State> {
        serde_json::from_slice(&std::fs::read(data.join(FILE)).ok()?).ok()
    }

    /// Removes the file.
    pub fn remove(data: &Path) {
        // Whoever reads a stale file finds that its pids are gone.
        let _ = std::fs::remove_file(data.join(FILE));
    }
}
