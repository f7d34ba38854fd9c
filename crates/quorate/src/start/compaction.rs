//! Forgetting history by itself: every node keeps count, the leader proposes.
//!
//! Periodic: revisions are noted ten times per period, and what was current a period ago is the
//! new beginning of history. By revision: all but so many of the latest revisions go.

use std::collections::VecDeque;
use std::time::Duration;

/// How much history is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retention {
    /// All.
    Everything,
    /// What is younger.
    Period(Duration),
    /// So many revisions.
    Revisions(u64),
}

impl Retention {
    /// Reads `--auto-compaction-mode` and `--auto-compaction-retention`.
    pub fn parse(mode: &str, retention: &str) -> Result<Retention, String> {
        let number = retention.parse::<u32>();
        let wrong =
            |what: &str| Err(format!("--auto-compaction-retention: `{retention}` is no {what}"));
        match (mode, number) {
            ("periodic" | "revision", Ok(0)) => Ok(Retention::Everything),
            ("revision", Ok(revisions)) => Ok(Retention::Revisions(u64::from(revisions))),
            ("revision", Err(_)) => wrong("number of revisions"),
            // As with etcd, a bare number is hours.
            ("periodic", Ok(h)) => Ok(Retention::Period(Duration::from_secs(u64::from(h) * 3600))),
            ("periodic", Err(_)) => match humantime::parse_duration(retention) {
                Ok(period) if period.is_zero() => Ok(Retention::Everything),
                Ok(period) => Ok(Retention::Period(period)),
                Err(_) => wrong("duration, such as 30m or 2h"),
            },
            _ => Err(format!("--auto-compaction-mode: `{mode}` is neither periodic nor revision")),
        }
    }

    /// How often to look.
    pub fn interval(self) -> Option<Duration> {
        match self {
            Retention::Everything => None,
            Retention::Period(period) => Some((period / 10).max(Duration::from_millis(100))),
            Retention::Revisions(_) => Some(Duration::from_secs(60)),
        }
    }
}

/// Decides when and up to where to compact.
#[derive(Debug)]
pub struct Compactor {
    retention: Retention,
    /// Current revisions at the last looks, the oldest first (periodic only).
    noted: VecDeque<u64>,
    last: u64,
}

/// Looks per period.
const LOOKS: usize = 10;

impl Compactor {
    /// Begins to keep count.
    pub fn new(retention: Retention) -> Compactor {
        Compactor { retention, noted: VecDeque::new(), last: 0 }
    }

    /// Looks at the current revision: up to where history should go now, if anywhere.
    pub fn look(&mut self, revision: u64) -> Option<u64> {
        let target = match self.retention {
            Retention::Everything => return None,
            Retention::Revisions(kept) => revision.saturating_sub(kept),
            Retention::Period(_) => {
                self.noted.push_back(revision);
                if self.noted.len() <= LOOKS {
                    return None;
                }
                self.noted.pop_front()?
            }
        };
        if target <= self.last || target < 1 {
            return None;
        }
        self.last = target;
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_read_as_etcd_reads_it() {
        let read = Retention::parse;
        assert_eq!(read("periodic", "0"), Ok(Retention::Everything));
        assert_eq!(read("periodic", "2"), Ok(Retention::Period(Duration::from_secs(7200))));
        assert_eq!(read("periodic", "5m"), Ok(Retention::Period(Duration::from_secs(300))));
        assert_eq!(read("revision", "1000"), Ok(Retention::Revisions(1000)));
        assert!(read("revision", "5m").is_err());
        assert!(read("periodic", "soon").is_err());
        assert!(read("sometimes", "1").is_err());
    }

    #[test]
    fn periodic_compaction_lags_a_period_behind() {
        let mut compactor = Compactor::new(Retention::Period(Duration::from_secs(10)));
        let looks: Vec<_> = (1..=13).map(|revision| compactor.look(revision)).collect();
        assert!(looks[..10].iter().all(Option::is_none));
        assert_eq!(looks[10..], [Some(1), Some(2), Some(3)]);
        let mut idle = Compactor::new(Retention::Period(Duration::from_secs(10)));
        let looks = (0..30).filter_map(|_| idle.look(5)).count();
        assert_eq!(looks, 1, "nothing new, nothing to compact");
    }

    #[test]
    fn compaction_by_revision_keeps_so_many() {
        let mut compactor = Compactor::new(Retention::Revisions(100));
        assert_eq!(compactor.look(100), None);
        assert_eq!(compactor.look(350), Some(250));
        assert_eq!(compactor.look(350), None);
    }
}
