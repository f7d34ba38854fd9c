//! Transactions across the further groups, and clients who append to lists by them.
//!
//! A node drives transactions as `node/coordinator` does, with events in place of tasks: the
//! coordinator, what keyspaces' answers mean to it, the keys of the records, when to suspect an
//! owner and what to do about orphans are the real ones of `services/transactions`. The first
//! further group has the records, the others have lists. Left out are bundles, several branches or
//! records in one command, forgetting old records, and participants that are no groups.
//!
//! Checked: one outcome of a transaction, whoever tells it; no branch is ended against it; in the
//! end nothing is open and nothing locked; what clients were told is strictly serializable.
//! Invariant: a run without such clients draws the same random numbers as if there were none.

mod asking;
mod drive;
mod errand;
mod orphans;
mod scribes;
mod verdict;

use crate::world::GROUP;
use asking::Asked;
use drive::Drive;
use quorate_base::{GroupId, Instant, Rng};
use quorate_checkers::appends::Transaction;
use quorate_keyspace::BranchId;
use quorate_transactions::{Suspicion, SuspicionSettings};
use scribes::Scribe;
use std::collections::BTreeMap;
use std::time::Duration;
use verdict::Told;

/// The group that has the records of transactions.
const RECORDS: GroupId = GroupId(GROUP.0 + 1);

/// A node's part in its present life.
pub struct Transactor {
    /// What it drives, by a number of its own.
    drives: BTreeMap<u64, Drive>,
    /// What it asked of groups and will ask again until there is an answer, by number.
    asked: BTreeMap<u64, Asked>,
    suspicion: Suspicion,
    /// Branches that nobody here drives, by how many scans in a row have seen them.
    seen: BTreeMap<(GroupId, BranchId, u64), u32>,
    scan_at: Instant,
}

impl Default for Transactor {
    fn default() -> Transactor {
        let settings = SuspicionSettings {
            late: Duration::from_millis(500),
            silent: Duration::from_secs(4),
            unable_factor: 1,
            ..SuspicionSettings::default()
        };
        Transactor {
            drives: BTreeMap::new(),
            asked: BTreeMap::new(),
            suspicion: Suspicion::new(settings),
            seen: BTreeMap::new(),
            scan_at: Instant::ZERO,
        }
    }
}

/// The clients, and what they and the nodes said.
pub struct Transactions {
    rng: Rng,
    scribes: Vec<Scribe>,
    /// Requests and drives so far.
    count: u64,
    /// Transactions, which are also the values of lists.
    begun: u64,
    /// How each transaction ended, by the first who said so.
    outcomes: BTreeMap<String, bool>,
    /// What clients may hear.
    told: BTreeMap<String, Told>,
    history: Vec<Transaction>,
}

impl Transactions {
    /// So many clients, in a run of this seed.
    pub fn new(seed: u64, scribes: usize) -> Transactions {
        Transactions {
            rng: Rng::new(seed ^ 0x7472_616e_7361_6374),
            scribes: (0..scribes).map(|_| Scribe::default()).collect(),
            count: 0,
            begun: 0,
            outcomes: BTreeMap::new(),
            told: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    /// What clients did to lists, and were told of it.
    pub fn take_history(&mut self) -> Vec<Transaction> {
        std::mem::take(&mut self.history)
    }

    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }
}
