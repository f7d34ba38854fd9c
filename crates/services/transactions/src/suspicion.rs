//! When to take a transaction over. Nothing depends on it but how soon it ends: whoever is
//! suspected wrongly loses its word by compare-and-swap, and nothing else happens.
//!
//! Suspicion rests on what this node has seen by its own clock: how long a record has not moved,
//! and for how long its owner has not been connected. Clocks of other nodes are not looked at.

use crate::record::{Record, Stage};
use quorate_base::Instant;
use quorate_base::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long to wait for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SuspicionSettings {
    /// An owner that is not connected is taken for lost after this,
    pub lost: Duration,
    /// and an undecided transaction for left alone so long after its deadline,
    pub late: Duration,
    /// and a decided one when its record has not moved for this long. Longer than the pause
    /// between an owner's notes.
    pub silent: Duration,
    /// Everybody but the leader of the records' group waits so many times longer, so that one is
    /// first,
    pub others_factor: u32,
    /// and whoever does not reach all participants, so many times.
    pub unable_factor: u32,
}

impl Default for SuspicionSettings {
    fn default() -> Self {
        SuspicionSettings {
            lost: Duration::from_millis(150),
            late: Duration::from_secs(1),
            silent: Duration::from_secs(30),
            others_factor: 4,
            unable_factor: 40,
        }
    }
}

/// How this node sees the cluster at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sight {
    /// By its own clock.
    pub now: Instant,
    /// Which node asks.
    pub me: NodeId,
    /// Whether it leads the group that has the records.
    pub leads: bool,
    /// Whether it reaches the transaction's participants.
    pub able: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    /// Where it was: see [`place`].
    place: (bool, u64),
    since: Instant,
    /// Since when its owner has been seen not to be connected.
    alone: Option<Instant>,
}

/// What must change that a record is taken to move. An undecided one moves with its attempts and
/// owners alone: that its owner tells what it waits for must not keep others, who may reach more,
/// from ending it.
fn place(record: &Record, revision: u64) -> (bool, u64) {
    match record.stage {
        Stage::Open => (false, record.epoch.into()),
        _ => (true, revision),
    }
}

/// What was seen so far of every open record.
#[derive(Clone, Default, Debug)]
pub struct Suspicion {
    settings: SuspicionSettings,
    seen: BTreeMap<String, Seen>,
}

impl Suspicion {
    /// Nothing seen yet.
    pub fn new(settings: SuspicionSettings) -> Suspicion {
        Suspicion { settings, seen: BTreeMap::new() }
    }

    /// Looks at an open record that is not driven here; whether it is to be taken over now.
    /// `connected` says whether its owner's node is.
    pub fn look(
        &mut self,
        id: &str,
        (record, revision): (&Record, u64),
        connected: bool,
        sight: Sight,
    ) -> bool {
        if record.waits_for_people() {
            return false;
        }
        let Sight { now, me, leads, able } = sight;
        let new = Seen { place: place(record, revision), since: now, alone: None };
        let seen = self.seen.entry(id.to_owned()).or_insert(new);
        if seen.place != new.place {
            *seen = new;
        }
        if record.owner.node == me {
            // An earlier life of this node, or this one, which was deposed by mistake.
            return true;
        }
        seen.alone = if connected { None } else { seen.alone.or(Some(now)) };
        let factor = match (able, leads) {
            (true, true) => 1,
            (true, false) => self.settings.others_factor,
            (false, _) => self.settings.unable_factor,
        };
        let lost = self.settings.lost * factor;
        if seen.alone.is_some_and(|since| now.since(since) >= lost) {
            return true;
        }
        let patience = match record.stage {
            Stage::Open => Duration::from_millis(record.patience_ms) + self.settings.late * factor,
            _ => self.settings.silent * factor,
        };
        now.since(seen.since) >= patience
    }

    /// Forgets all that is not open any more.
    pub fn retain(&mut self, open: impl Fn(&str) -> bool) {
        self.seen.retain(|id, _| open(id));
    }
}
