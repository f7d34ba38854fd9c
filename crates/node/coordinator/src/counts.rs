//! What `/metrics` tells of transactions.
//!
//! Invariant: a counter costs whoever counts one relaxed addition; how many there are of a kind is
//! found out only when somebody asks, from the records that this node's replica has.

use crate::alarms::Alarms;
use crate::service::Transactions;
use quorate_transactions::{Record, Stage};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What this node has counted since it started.
#[derive(Default)]
pub(crate) struct Counters {
    committed: AtomicU64,
    rolled_back: AtomicU64,
    carried: AtomicU64,
    taken_over: AtomicU64,
    branches_taken_over: AtomicU64,
}

/// What is known of transactions at this node, as of now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Clients' transactions that are not decided, as this node's replica of the records has it.
    pub open: u64,
    /// Those that are decided, and not proven to have ended at every participant.
    pub in_doubt: u64,
    /// For how long the oldest of both has been under way, by the clocks of this node and of its
    /// first coordinator; zero, if there is none.
    pub oldest_ms: u64,
    /// Alarms that nobody has acknowledged, up to 10,000.
    pub alarms: u64,
    /// Clients' transactions whose decision this node met while it drove them: to commit,
    pub committed: u64,
    /// or to roll back.
    pub rolled_back: u64,
    /// Those of the committed that were carried in bundles.
    pub carried: u64,
    /// Transactions that this node took over, bundles as one,
    pub taken_over: u64,
    /// and their branches.
    pub branches_taken_over: u64,
    /// What this node's scans of participants outside have done.
    pub recovery: quorate_resource_managers::Counts,
}

/// How many clients' transactions a record is of.
fn clients(record: &Record) -> u64 {
    (record.carried.len() as u64).max(1)
}

impl Counters {
    /// One that this node drives is decided. A bundle that is not to commit decides nothing: whom
    /// it carried goes alone. It has no content of its own.
    pub fn decided(&self, record: &Record) {
        let Some(verdict) = record.stage.verdict() else { return };
        match verdict.commits() {
            true => {
                self.committed.fetch_add(clients(record), Relaxed);
                self.carried.fetch_add(record.carried.len() as u64, Relaxed);
            }
            false if record.content != 0 => drop(self.rolled_back.fetch_add(1, Relaxed)),
            false => {}
        }
    }

    /// One was taken over.
    pub fn taken_over(&self, record: &Record) {
        self.taken_over.fetch_add(1, Relaxed);
        self.branches_taken_over.fetch_add(record.branches.len() as u64, Relaxed);
    }

    fn read(&self) -> Counts {
        Counts {
            committed: self.committed.load(Relaxed),
            rolled_back: self.rolled_back.load(Relaxed),
            carried: self.carried.load(Relaxed),
            taken_over: self.taken_over.load(Relaxed),
            branches_taken_over: self.branches_taken_over.load(Relaxed),
            ..Counts::default()
        }
    }
}

impl Counts {
    /// Counts one that is not over.
    fn look(&mut self, record: &Record, wall_ms: u64) {
        match record.stage {
            Stage::Open => self.open += clients(record),
            Stage::Decided(_) => self.in_doubt += clients(record),
            Stage::Finished(_) => return,
        }
        self.oldest_ms = self.oldest_ms.max(wall_ms.saturating_sub(record.began_ms));
    }
}

impl Transactions {
    /// What is known of transactions at this node.
    pub fn counts(&self) -> Counts {
        let inner = &self.0;
        let recovery = inner.recovery.counts();
        let mut counts = Counts { recovery, ..inner.counters.read() };
        let Some(store) = inner.store() else { return counts };
        let wall_ms = inner.moment().wall_ms;
        let mut alarms = Alarms::default();
        let open = inner.open.lock().all();
        for (id, value) in open {
            // What cannot be read is told by whoever looks for lost ones.
            let Ok(record) = Record::decode(value) else { continue };
            counts.look(&record, wall_ms);
            // Those that there is no room for are not counted.
            let _ = alarms.of_record(&id, &record);
        }
        if let Err(error) = alarms.kept_beside(&store) {
            tracing::warn!(%error, "cannot count the alarms");
        }
        counts.alarms = alarms.all.len() as u64;
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_base::GroupId;
    use quorate_transactions::{BranchRecord, Carried, Owner, Verdict};

    fn record(stage: Stage, began_ms: u64, carried: usize) -> Record {
        let mut record = Record::void(Owner::default(), began_ms, "");
        record.stage = stage;
        record.content = u128::from(carried == 0);
        let branch = |name| BranchRecord::keyspace(name, name, GroupId(7));
        record.branches = ["orders", "stock"].map(branch).to_vec();
        record.carried =
            (0..carried).map(|n| Carried { id: format!("t{n}"), content: 1 }).collect();
        record
    }

    fn rolled_back() -> Verdict {
        Verdict::Abort { branch: None, reason: "somebody else was first".to_owned() }
    }

    #[test]
    fn clients_transactions_are_counted_and_not_those_that_carry_them() {
        let counters = Counters::default();
        counters.decided(&record(Stage::Decided(Verdict::Commit), 0, 0));
        counters.decided(&record(Stage::Decided(Verdict::Commit), 0, 20));
        counters.decided(&record(Stage::Finished(rolled_back()), 0, 0));
        // It is taken apart: each of them is decided by itself.
        counters.decided(&record(Stage::Decided(rolled_back()), 0, 20));
        // It could not be, and carries nobody any more.
        counters.decided(&Record { content: 0, ..record(Stage::Decided(rolled_back()), 0, 0) });
        counters.taken_over(&record(Stage::Open, 0, 20));
        let counts = counters.read();
        assert_eq!((counts.committed, counts.rolled_back, counts.carried), (21, 1, 20));
        assert_eq!((counts.taken_over, counts.branches_taken_over), (1, 2));
    }

    #[test]
    fn what_is_not_over_is_counted_and_the_oldest_is_told() {
        let mut counts = Counts::default();
        counts.look(&record(Stage::Open, 9_000, 0), 10_000);
        counts.look(&record(Stage::Open, 9_900, 3), 10_000);
        counts.look(&record(Stage::Decided(rolled_back()), 4_000, 0), 10_000);
        // Another node's clock is ahead.
        counts.look(&record(Stage::Decided(Verdict::Commit), 11_000, 0), 10_000);
        counts.look(&record(Stage::Finished(Verdict::Commit), 0, 0), 10_000);
        assert_eq!((counts.open, counts.in_doubt, counts.oldest_ms), (4, 2, 6_000));
    }
}
