//! Branches that nobody will end any more, as `node/coordinator` ends them.

use super::RECORDS;
use super::errand::Errand;
use crate::counters::Happening;
use crate::neighbours::groups;
use crate::world::World;
use quorate_base::{GroupId, Instant};
use quorate_keyspace::branch::BranchInfo;
use quorate_transactions::branches::{Orphan, holds, orphan, transaction_of};
use quorate_transactions::records;
use quorate_transactions::{Owner, Record, StoreRequest};
use std::collections::BTreeMap;
use std::time::Duration;

/// The pause between two scans.
const PAUSE: Duration = Duration::from_millis(700);
/// A branch is looked at when it was seen in so many scans in a row.
const SCANS: u32 = 2;

impl World<'_> {
    /// Looks for such branches in the groups that the node leads, if it is time to.
    pub(super) fn scan(&mut self, node: u64, now: Instant) {
        let Some(running) = self.running(node) else { return };
        if running.transactor.scan_at > now {
            return;
        }
        running.transactor.scan_at = now + PAUSE;
        let mut seen = BTreeMap::new();
        let mut orphans = Vec::new();
        for group in groups(self.plan.neighbours).filter(|group| *group != RECORDS) {
            if !self.leads(node, group) {
                continue;
            }
            let Some(running) = self.running(node) else { return };
            let Some(neighbour) = running.neighbours.get(&group) else { continue };
            for branch in neighbour.host.service().branches() {
                let Some((id, asker)) = transaction_of(&branch.id) else { continue };
                let transactor = &running.transactor;
                let live = transactor.live(&id);
                if live.is_some_and(|(_, drive)| drive.coordinator.record().asker == asker) {
                    continue;
                }
                let key = (group, branch.id.clone(), branch.epoch);
                let times = transactor.seen.get(&key).map_or(1, |times| times + 1);
                if times >= SCANS {
                    orphans.push((id, Errand::Orphan { group, branch, asker }));
                }
                seen.insert(key, times);
            }
        }
        if let Some(running) = self.running(node) {
            running.transactor.seen = seen;
        }
        for (id, errand) in orphans {
            self.errand(node, None, id, errand);
        }
    }

    /// The node's replica of the records has everything that was acknowledged before.
    pub(super) fn judge_orphan(
        &mut self,
        node: u64,
        id: &str,
        group: GroupId,
        branch: BranchInfo,
        asker: Owner,
    ) {
        let (owner, wall_ms) = (self.owner(node), self.now.0 / 1_000_000);
        let Some(running) = self.running(node) else { return };
        let Some(neighbour) = running.neighbours.get(&RECORDS) else { return };
        let reader = neighbour.host.service().reader();
        let as_of = reader.revision();
        let Ok(known) = records::look_for(&reader, id) else { return };
        match orphan(asker, known.as_ref(), holds(&branch)) {
            Orphan::Leave => {}
            Orphan::Bury => {
                let record = Record::void(owner, wall_ms, "nobody began it");
                let request = StoreRequest { number: 1, at: None, record, free_as_of: as_of };
                let errand = Errand::Bury { group, branch, request };
                self.errand(node, None, id.to_owned(), errand);
            }
            Orphan::RollBack => self.roll_back_orphan(node, id, group, branch),
            Orphan::Forget => {
                let errand = Errand::Forget { group, branch: branch.id, epoch: branch.epoch };
                self.errand(node, None, id.to_owned(), errand);
            }
        }
    }

    pub(super) fn roll_back_orphan(
        &mut self,
        node: u64,
        id: &str,
        group: GroupId,
        branch: BranchInfo,
    ) {
        self.count(Happening::OrphanRolledBack);
        self.line(node, format_args!("rolls back {}, which nobody sees to", branch.id));
        let errand = Errand::RollBack { group, branch: branch.id, epoch: branch.epoch };
        self.errand(node, None, id.to_owned(), errand);
    }
}
