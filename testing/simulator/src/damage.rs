//! Damage to durable data, and the atlas that keeps enough of it whole (after TigerBeetle's
//! `ClusterFaultAtlas`).
//!
//! What may be damaged: the logs of fewer voters than a quorum can spare, each once, while the
//! power is off. What is promised then: the replica finds it, does not vote as if it had never
//! been there, and repairs it from its peers. A whole write is lost or misdirected only if a
//! later one of the same log is durable: what says nothing and leaves no trace nobody can find.

use crate::counters::Happening;
use crate::world::World;
use std::collections::BTreeSet;

/// Where damage may be, and is.
#[derive(Debug)]
pub struct Atlas {
    damageable: Vec<u64>,
    damaged: BTreeSet<u64>,
    /// A voter's removal was asked for and is not known to have ended: it may be in force already
    /// wherever it is in the log, so that no voter left can be spared.
    pub removing: bool,
}

impl Atlas {
    /// Damage is allowed on these nodes.
    pub fn new(damageable: Vec<u64>) -> Atlas {
        Atlas { damageable, damaged: BTreeSet::new(), removing: false }
    }

    /// Whether a node's data was damaged.
    pub fn was_damaged(&self, id: u64) -> bool {
        self.damaged.contains(&id)
    }

    /// A node whose data may still be damaged.
    pub fn next(&self) -> Option<u64> {
        if self.removing {
            return None;
        }
        self.damageable.iter().copied().find(|id| !self.damaged.contains(id))
    }

    /// No node is damaged any more from now on.
    pub fn close(&mut self) {
        self.damageable.clear();
    }
}

impl World<'_> {
    /// Damages what a powered-off node has made durable.
    pub fn damage(&mut self, id: u64) {
        let how = self.rng.below(4);
        let mut rng = self.rng.fork(5);
        let disk = self.node(id).disk.clone();
        let done = match how {
            0 => disk.misdirect(&mut rng),
            1 => disk.lose(&mut rng),
            _ => disk.rot(&mut rng),
        };
        if let Some(what) = done {
            self.atlas.damaged.insert(id);
            let kind = if how < 2 { Happening::WriteMisdirected } else { Happening::BitRot };
            self.count(kind);
            self.line(id, format_args!("durable data is damaged: {what}"));
        }
    }
}
