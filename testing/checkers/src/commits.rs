//! What the replicas' logs and states must have in common (Raft, figure 3): log matching,
//! state-machine safety, and the same state at the same index.

use crate::violation::Violation;
use quorate_base::{Ballot, Index};
use std::collections::BTreeMap;

/// What was written to, and applied from, the replicas' logs.
#[derive(Clone, Default, Debug)]
pub struct AppliedLogs {
    /// For each entry ever written: its content and what came before it.
    written: BTreeMap<(u32, Index, u64), Written>,
    /// For each index ever applied: its ballot and content.
    applied: BTreeMap<Index, (Ballot, u64)>,
    /// The ballots by which leaders said that they lead, where these were applied.
    leads: BTreeMap<Index, Ballot>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Written {
    content: u64,
    before: Option<u64>,
}

impl AppliedLogs {
    /// A replica wrote an entry with this content (a hash) after an entry of round `before`, if
    /// that is known. Log matching: whoever writes this index under this round of this epoch writes
    /// the same after the same.
    pub fn wrote(
        &mut self,
        (replica, epoch): (u64, u32),
        index: Index,
        ballot: Ballot,
        content: u64,
        before: Option<u64>,
    ) -> Result<(), Violation> {
        let new = Written { content, before };
        let known = self.written.entry((epoch, index, ballot.round)).or_insert(new);
        if known.content != content {
            let text = format!("replica {replica} wrote another entry {index} of ballot {ballot}");
            return Err(Violation::new("log matching", text));
        }
        match (known.before, before) {
            (Some(a), Some(b)) if a != b => {
                let text = format!(
                    "replica {replica} wrote {index}@{ballot} after round {b}, another after {a}"
                );
                Err(Violation::new("log matching", text))
            }
            (None, Some(_)) => {
                known.before = before;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A replica applied an entry. State-machine safety: nobody applies another at this index.
    pub fn applied(
        &mut self,
        replica: u64,
        index: Index,
        ballot: Ballot,
        content: u64,
    ) -> Result<(), Violation> {
        let known = *self.applied.entry(index).or_insert((ballot, content));
        if known != (ballot, content) {
            let text = format!(
                "replica {replica} applied entry {index} of ballot {ballot}, another one of {}",
                known.0
            );
            return Err(Violation::new("state-machine safety", text));
        }
        Ok(())
    }

    /// A replica applied a leader's word that it leads under `ballot`, which it may repeat. Along
    /// the log these rise, from epoch to epoch too: services go by them.
    pub fn led(&mut self, replica: u64, index: Index, ballot: Ballot) -> Result<(), Violation> {
        self.leads.insert(index, ballot);
        let before = self.leads.range(..index).next_back().map(|(_, ballot)| *ballot);
        let after = self.leads.range(index + 1..).next().map(|(_, ballot)| *ballot);
        if before.is_some_and(|before| before > ballot) || after.is_some_and(|a| a < ballot) {
            let text = format!(
                "replica {replica} applied {ballot} leading from entry {index} on, between \
                 {before:?} and {after:?}"
            );
            return Err(Violation::new("ballots rise along the log", text));
        }
        Ok(())
    }

    /// The highest index that anybody applied.
    pub fn last(&self) -> Index {
        self.applied.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// The ballot of an applied entry.
    pub fn ballot(&self, index: Index) -> Option<Ballot> {
        self.applied.get(&index).map(|(ballot, _)| *ballot)
    }
}

/// The replicas' states, as hashes, by applied index.
#[derive(Clone, Default, Debug)]
pub struct StateHashes(BTreeMap<Index, (u64, u64)>);

impl StateHashes {
    /// A replica that applied `index` has a state with this hash.
    pub fn record(&mut self, replica: u64, index: Index, hash: u64) -> Result<(), Violation> {
        let (first, known) = *self.0.entry(index).or_insert((replica, hash));
        if known != hash {
            let text = format!("replicas {first} and {replica} differ at applied index {index}");
            return Err(Violation::new("replicas agree", text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_base::NodeId;

    const B1: Ballot = Ballot::new(1, NodeId(1));
    const B2: Ballot = Ballot::new(2, NodeId(2));

    #[test]
    fn one_entry_for_each_index_and_round() {
        let mut logs = AppliedLogs::default();
        assert!(logs.wrote((1, 0), 5, B1, 70, None).is_ok());
        assert!(logs.wrote((2, 0), 5, B1, 70, Some(1)).is_ok());
        assert!(logs.wrote((3, 0), 5, B2, 71, Some(1)).is_ok());
        assert!(logs.wrote((3, 1), 5, B1, 72, Some(1)).is_ok(), "another epoch");
        assert!(logs.wrote((2, 0), 5, B1, 72, Some(1)).is_err(), "another content");
        assert!(logs.wrote((2, 0), 5, B1, 70, Some(0)).is_err(), "another predecessor");
    }

    #[test]
    fn one_applied_entry_for_each_index() {
        let mut logs = AppliedLogs::default();
        assert!(logs.applied(1, 1, B1, 7).is_ok());
        assert!(logs.applied(2, 1, B1, 7).is_ok());
        assert!(logs.applied(3, 1, B2, 7).is_err());
        assert_eq!(logs.last(), 1);
    }

    #[test]
    fn leaders_ballots_rise() {
        let mut logs = AppliedLogs::default();
        assert!(logs.led(1, 3, B1).is_ok() && logs.led(2, 3, B1).is_ok());
        assert!(logs.led(1, 9, B2).is_ok());
        assert!(logs.led(1, 12, B2).is_ok(), "it may be said again");
        assert!(logs.led(1, 14, B1).is_err());
        assert!(logs.led(1, 2, B2).is_err());
    }

    #[test]
    fn one_state_for_each_index() {
        let mut hashes = StateHashes::default();
        assert!(hashes.record(1, 9, 1).is_ok());
        assert!(hashes.record(2, 9, 1).is_ok());
        assert!(hashes.record(3, 9, 2).is_err());
    }
}
