//! What the clients did and were told, and what was seen to be wrong.

use crate::lists::Lists;
use crate::places::Map;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A transfer that a member was asked for and has not answered.
#[derive(Clone, Debug)]
pub struct Flight {
    /// The member.
    pub node: usize,
    /// Whose accounts it moves money between.
    pub circle: u64,
    /// The places.
    pub places: Vec<usize>,
}

/// A transfer that was asked for.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its id.
    pub id: String,
    /// The places.
    pub places: Vec<usize>,
    /// Whether it commits, where that was told.
    pub commits: Option<bool>,
}

/// How long it took until nothing of the transactions of a killed member was in doubt.
#[derive(Clone, Debug)]
pub struct Doubt {
    /// Of each.
    pub each: Vec<Duration>,
}

/// All of it.
pub struct Ledger {
    /// Where the accounts are.
    pub map: Map,
    /// No client begins anything any more.
    pub stop: AtomicBool,
    /// What is under way.
    pub flights: Mutex<BTreeMap<String, Flight>>,
    /// What was asked for.
    pub told: Mutex<Vec<Told>>,
    /// After every kill of a member.
    pub doubts: Mutex<Vec<Doubt>>,
    /// Readers that saw a whole circle.
    pub audits: AtomicU64,
    /// What those did and were told who append to lists.
    pub lists: Lists,
    wrong: Mutex<Vec<String>>,
}

/// How many wrongs are kept: one is too many.
const MOST_WRONG: usize = 20;

impl Ledger {
    /// Nothing has happened.
    pub fn new(map: Map) -> Ledger {
        Ledger {
            map,
            stop: AtomicBool::new(false),
            flights: Mutex::default(),
            told: Mutex::default(),
            doubts: Mutex::default(),
            audits: AtomicU64::new(0),
            lists: Lists::default(),
            wrong: Mutex::default(),
        }
    }

    /// Whether clients go on.
    pub fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    /// Something must not be.
    pub fn wrong(&self, what: String) {
        let mut wrong = self.wrong.lock();
        if wrong.len() < MOST_WRONG {
            wrong.push(what);
        }
    }

    /// All that must not be.
    pub fn wrongs(&self) -> Vec<String> {
        self.wrong.lock().clone()
    }

    /// What is under way at a member.
    pub fn flights_of(&self, node: usize) -> Vec<(String, Flight)> {
        let flights = self.flights.lock();
        let of = flights.iter().filter(|(_, flight)| flight.node == node);
        of.map(|(id, flight)| (id.clone(), flight.clone())).collect()
    }
}
