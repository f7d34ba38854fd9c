//! What came of a run.

use crate::faults::Fault;
use quorate_checkers::appends::Transaction;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The figures of a run, and all that was wrong.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// Accounts, and at how many places.
    pub accounts: (u64, usize),
    /// Transfers that were asked for.
    pub transfers: usize,
    /// Of these, committed.
    pub committed: usize,
    /// Of these, rolled back.
    pub rolled_back: usize,
    /// Of these, without an answer until the end.
    pub unanswered: usize,
    /// Readers that found a circle whole.
    pub audits: u64,
    /// Committed transactions of those who append to lists.
    pub lists: usize,
    /// All that they did, and were told of it.
    pub appends: Vec<Transaction>,
    /// How often what happened.
    pub faults: BTreeMap<Fault, u64>,
    /// After each kill of a member: until nothing of its transactions was in doubt. In order.
    pub doubts: Vec<Duration>,
    /// The same, of every transaction by itself.
    pub each: Vec<Duration>,
    /// After the last fault: until nothing at all was in doubt.
    pub settled: Duration,
    /// For how long clients moved money.
    pub time: Duration,
    /// What must not be. Nothing, if all is well.
    pub wrong: Vec<String>,
}

/// The value below which so many of a hundred lie.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (accounts, places) = self.accounts;
        let seconds = self.time.as_secs_f64();
        writeln!(f, "{accounts} accounts at {places} places, {seconds:.0} s")?;
        writeln!(
            f,
            "{} transfers: {} committed, {} rolled back, {} without an answer; {} audits; \
             {} transactions on lists",
            self.transfers,
            self.committed,
            self.rolled_back,
            self.unanswered,
            self.audits,
            self.lists
        )?;
        let faults: Vec<String> =
            self.faults.iter().map(|(fault, n)| format!("{fault} {n}")).collect();
        writeln!(f, "faults: {}", faults.join(", "))?;
        for (what, sorted) in [("kills", &self.doubts), ("transactions", &self.each)] {
            writeln!(
                f,
                "after a coordinator's death in doubt, over {} {what}: p50 {:.2?}, p99 {:.2?}",
                sorted.len(),
                percentile(sorted, 50),
                percentile(sorted, 99)
            )?;
        }
        writeln!(f, "after the last fault nothing was in doubt within {:.2?}", self.settled)?;
        match self.wrong.len() {
            0 => write!(f, "nothing was wrong"),
            _ => write!(f, "WRONG:\n{}", self.wrong.join("\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let ms: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        let all = [percentile(&ms, 50), percentile(&ms, 99), percentile(&ms[..1], 99)];
        assert_eq!(all, [50, 99, 1].map(Duration::from_millis));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
