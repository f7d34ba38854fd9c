//! Isolation, judged by what clients of lists were told: transactions that append to lists and
//! read them show in which order everything happened.
//!
//! After A. Adya, *Weak Consistency* (MIT, 1999), and K. Kingsbury and P. Alvaro, *Elle* (VLDB
//! 2020). A list read by a committed transaction names every append before it, so the order of
//! versions, and from it who depends on whom, follows from the answers alone. A cycle of
//! dependencies is an anomaly; its name says which kinds of dependency it is made of.
//!
//! Every value is appended once. Strict serializability is serializability with the order of real
//! time as one more kind of dependency.

mod anomaly;
mod dependencies;
mod graph;
mod json;

pub use anomaly::{Anomaly, Kind};
pub use json::json;

use crate::violation::Violation;
use quorate_base::Instant;

/// A list.
pub type Key = u64;
/// What is appended to a list, once in a history.
pub type Value = u64;

/// One step of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Append to a list.
    Append(Key, Value),
    /// Read a list; what was found, if that is known.
    Read(Key, Option<Vec<Value>>),
}

/// How a transaction ended for its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It was told, at that time, that it is committed.
    Committed(Instant),
    /// It was told that it is rolled back.
    RolledBack,
    /// It was told nothing.
    Unknown,
}

/// A transaction as its client saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Which client; it does one after the other.
    pub client: u64,
    /// When it began.
    pub called: Instant,
    /// What it did, in order.
    pub steps: Vec<Step>,
    /// How it ended.
    pub ending: Ending,
}

/// All anomalies of a history that strict serializability forbids, the worst first.
pub fn anomalies(history: &[Transaction]) -> Vec<Anomaly> {
    let mut found = Vec::new();
    let dependencies = dependencies::derive(history, &mut found);
    graph::cycles(&dependencies, &mut found);
    found.sort_by_key(|anomaly| anomaly.kind);
    found
}

/// Whether a history is strictly serializable.
///
/// # Errors
/// The worst anomaly, with the transactions that show it.
pub fn check_appends(history: &[Transaction]) -> Result<(), Violation> {
    match anomalies(history).first() {
        None => Ok(()),
        Some(anomaly) => {
            let mut evidence = anomaly.to_string();
            for at in &anomaly.transactions {
                if let Some(transaction) = history.get(*at) {
                    evidence.push_str(&format!("\n  T{at}: {transaction:?}"));
                }
            }
            Err(Violation::new("strict serializability", evidence))
        }
    }
}
