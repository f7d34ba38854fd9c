//! What recovery has done, for whoever watches it.

use super::Scanned;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub(super) struct Counters {
    scans: AtomicU64,
    failed_scans: AtomicU64,
    committed: AtomicU64,
    rolled_back: AtomicU64,
    unknown: AtomicU64,
    undecided: AtomicU64,
}

/// Totals since the start, and two levels.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Scans that were answered.
    pub scans: u64,
    /// Scans that were not.
    pub failed_scans: u64,
    /// Branches that scans found and committed.
    pub committed: u64,
    /// Branches that scans found and rolled back.
    pub rolled_back: u64,
    /// Attempts whose outcome stayed unknown.
    pub unknown: u64,
    /// Found without a decision, at the last scan that was answered.
    pub undecided: u64,
    /// Alarms that nobody has acknowledged.
    pub alarms: u64,
}

impl Counters {
    pub(super) fn failed_scan(&self) {
        self.failed_scans.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn scanned(&self, scanned: &Scanned) {
        let add = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Ordering::Relaxed);
        add(&self.scans, 1);
        add(&self.committed, scanned.committed);
        add(&self.rolled_back, scanned.rolled_back);
        add(&self.unknown, scanned.unknown);
        self.undecided.store(scanned.undecided as u64, Ordering::Relaxed);
    }

    pub(super) fn read(&self, alarms: usize) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            scans: get(&self.scans),
            failed_scans: get(&self.failed_scans),
            committed: get(&self.committed),
            rolled_back: get(&self.rolled_back),
            unknown: get(&self.unknown),
            undecided: get(&self.undecided),
            alarms: alarms as u64,
        }
    }
}
