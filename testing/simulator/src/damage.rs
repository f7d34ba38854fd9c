//! Damage to durable data, and the atlas that keeps enough of it whole (after TigerBeetle's
//! `ClusterFaultAtlas`).
//!
//! What may be damaged, while the power is off: in some runs the logs of fewer voters than a quorum
//! can spare, each once, and be it beyond reading; in others (*helix*) the log or the state of any
//! voter, again and again, also of all at once, as long as of every entry a quorum of voters can
//! speak (see `sight.rs`). Damage that would go too far is undone before anybody sees it.
//!
//! What is promised then: the replica finds the damage, denies nothing that it may have promised,
//! and has it from its peers. A write is lost, misdirected or stale only if a later one of the same
//! log is durable: what says nothing and leaves no trace nobody can find.

use crate::boot::wal_options;
use crate::counters::Happening;
use crate::disk::{Content, SimDisk};
use crate::world::World;
use quorate_base::{GroupId, Index, NodeId, Rng};
use quorate_checkers::Violation;
use quorate_driver::PeerMessage;
use quorate_replicated_log::HardState;
use quorate_wal::{RecoveredGroup, Wal};
use std::collections::{BTreeMap, BTreeSet};

/// Where damage may be, and is.
#[derive(Debug)]
pub struct Atlas {
    /// Those that may be damaged beyond reading; none in a helix.
    damageable: Vec<u64>,
    /// Whether anything may still be damaged.
    open: bool,
    /// Any voter may be damaged, as far as the others make up for it.
    helix: bool,
    damaged: BTreeSet<u64>,
    /// A voter's removal was asked for and is not known to have ended: it may be in force already
    /// wherever it is in the log, so that no voter left can be spared.
    pub removing: bool,
}

impl Atlas {
    /// Damage is allowed on these nodes; or on any, within limits.
    pub fn new(damageable: Vec<u64>, helix: bool) -> Atlas {
        Atlas {
            damageable: if helix { Vec::new() } else { damageable },
            open: true,
            helix,
            damaged: BTreeSet::new(),
            removing: false,
        }
    }

    /// Whether a node's data may have been damaged beyond reading.
    pub fn may_be_ruined(&self, id: u64) -> bool {
        self.was_damaged(id) && self.damageable.contains(&id)
    }

    /// Whether a node's data was damaged.
    pub fn was_damaged(&self, id: u64) -> bool {
        self.damaged.contains(&id)
    }

    /// A node whose data may still be damaged beyond reading.
    fn next(&self) -> Option<u64> {
        self.damageable.iter().copied().find(|id| self.open && !self.damaged.contains(id))
    }

    /// No node is damaged any more from now on.
    pub fn close(&mut self) {
        self.open = false;
    }

    /// Whether any voter may be damaged.
    pub fn is_helix(&self) -> bool {
        self.helix
    }
}

/// What is done to a disk.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Misdirect,
    Lose,
    Stale,
    Truncate,
    Rot,
    /// The state's, not the log's.
    State,
}

impl Harm {
    fn draw(rng: &mut Rng) -> Harm {
        match rng.below(10) {
            0 | 1 => Harm::Misdirect,
            2 => Harm::Lose,
            3 => Harm::Stale,
            4 => Harm::Truncate,
            5 | 6 => Harm::State,
            _ => Harm::Rot,
        }
    }

    fn to(self, disk: &SimDisk, helix: bool, rng: &mut Rng) -> Option<String> {
        match self {
            Harm::Misdirect => disk.misdirect(rng, !helix),
            Harm::Lose => disk.lose(rng),
            Harm::Stale => disk.go_stale(rng),
            Harm::Truncate => disk.truncate(rng),
            Harm::Rot => disk.rot(rng),
            Harm::State => None,
        }
    }

    fn happening(self) -> Happening {
        match self {
            Harm::Misdirect => Happening::WriteMisdirected,
            Harm::Lose => Happening::WriteVanished,
            Harm::Stale => Happening::SectorStale,
            Harm::Truncate => Happening::SegmentTruncated,
            Harm::Rot => Happening::BitRot,
            Harm::State => Happening::StateDamaged,
        }
    }
}

/// What a log holds of each group.
pub type Logs = BTreeMap<GroupId, RecoveredGroup>;

impl World<'_> {
    /// Some data is damaged, of nodes that lose their power for it.
    pub fn do_damage(&mut self) {
        let members = self.members();
        // With two voters left each copy may be the only spare one.
        if members.voters.len() < 3 || members.is_joint() || self.atlas.removing {
            return;
        }
        if !self.atlas.is_helix() {
            // Voters may have left since it was drawn how many can be damaged.
            let damaged = |node: &&NodeId| self.atlas.was_damaged(node.0);
            let spare = (members.voters.len() - 1) / 2;
            if members.voters.iter().filter(damaged).count() < spare
                && let Some(id) = self.atlas.next()
            {
                self.strike_and_damage(id);
            }
            return;
        }
        let voters: Vec<u64> = members.voters.iter().map(|node| node.0).collect();
        if self.rng.below(2) == 0 {
            // All at the same moment, each somewhere else.
            for &id in &voters {
                self.crash(id);
            }
            let struck = voters.into_iter().filter(|id| self.strike_and_damage(*id)).count();
            if struck >= 3 {
                self.count(Happening::AllDamaged);
            }
        } else if let Some(id) = self.rng.pick(&voters).copied() {
            self.strike_and_damage(id);
        }
    }

    /// Whether its data is damaged now.
    fn strike_and_damage(&mut self, id: u64) -> bool {
        let node = self.node(id);
        if !node.member || node.removed || node.ruined {
            return false;
        }
        match self.node(id).running.is_some() {
            true => self.crash(id),
            false => self.lose_cache(id),
        }
        self.node(id).running.is_none() && self.damage(id)
    }

    /// Damages what a powered-off node has made durable.
    fn damage(&mut self, id: u64) -> bool {
        let harm = Harm::draw(&mut self.rng);
        let mut rng = self.rng.fork(5);
        let (disk, helix) = (self.node(id).disk.clone(), self.atlas.is_helix());
        let before = disk.content();
        let known = self.logs_of(id);
        let done = match harm {
            Harm::State if self.node(id).applied_before > 1 => Some("the state".to_owned()),
            Harm::State => None,
            harm => harm.to(&disk, helix, &mut rng),
        };
        let Some(what) = done else { return false };
        self.node(id).state_damaged |= matches!(harm, Harm::State);
        // A helix is of many small wounds: none of them is to be a node's last.
        if helix && (self.logs_of(id).is_none() || !self.all_can_be_told()) {
            self.undo(id, harm, before);
            return false;
        }
        if matches!(harm, Harm::State) {
            self.node(id).engine.damage();
        }
        self.atlas.damaged.insert(id);
        self.count(harm.happening());
        self.line(id, format_args!("durable data is damaged: {what}"));
        self.is_found(id, known);
        true
    }

    fn undo(&mut self, id: u64, harm: Harm, before: Content) {
        let node = self.node(id);
        match harm {
            Harm::State => node.state_damaged = false,
            _ => node.disk.put_back(before),
        }
        self.count(Happening::DamageSpared);
    }

    /// What the log of a node without power holds, if it can be opened.
    pub fn logs_of(&self, id: u64) -> Option<Logs> {
        let disk = self.nodes[id as usize - 1].disk.image();
        Wal::open(disk, wal_options(self)).ok().map(|(_, recovery)| recovery.groups)
    }

    /// Damage may hide what was there; it may not pass for less than that.
    fn is_found(&mut self, id: u64, before: Option<Logs>) {
        let (Some(before), Some(after)) = (before, self.logs_of(id)) else { return };
        for (group, known) in before {
            let found = after.get(&group);
            let reach =
                |log: &RecoveredGroup| -> (Index, HardState) { (log.end(), log.hard_state) };
            let now = found.map(reach);
            let kept = now.is_some_and(|(end, state)| {
                end >= known.end() && state.promised >= known.hard_state.promised
            });
            if !kept {
                let (was, group) = (reach(&known), group.0);
                let text = format!("node {id}, group {group}: {was:?} before, then {now:?}");
                self.check(Err(Violation::new("damage is found", text)));
            }
        }
    }

    /// A part of a snapshot may be read wrong, before or after its checksum was made.
    pub fn damage_snapshot(&mut self, message: &mut PeerMessage) {
        let PeerMessage::Snapshot { chunk, .. } = message else { return };
        let ppm = if self.healing { 0 } else { self.plan.snapshot_damage_ppm };
        if ppm == 0 || chunk.bytes.is_empty() || !self.rng.chance_ppm(ppm) {
            return;
        }
        let mut bytes = chunk.bytes.to_vec();
        let at = self.rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << self.rng.below(8);
        if self.rng.below(2) == 0 {
            chunk.checksum = crc32c::crc32c(&bytes);
        }
        chunk.bytes = bytes.into();
        self.count(Happening::SnapshotDamaged);
    }
}
