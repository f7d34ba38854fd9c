//! The records of transactions as their keyspace keeps them, in small.

use quorate_atomic_commit::Protocol;
use quorate_transactions::{
    Change, Condition, Key, Owner, Record, Stage, StoreRequest, Stored, Verdict, Write,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The group that has the records: compare-and-swap, as the real one does it.
#[derive(Default)]
pub struct Store {
    pub records: BTreeMap<String, (Record, u64)>,
    /// Whose record tells of an id, since when.
    pub ids: BTreeMap<String, (String, u64)>,
    revision: u64,
}

impl Store {
    pub fn apply(&mut self, id: &str, request: &StoreRequest) -> Stored {
        if let Some((record, revision)) = self.records.get(id)
            && *record == request.record
        {
            // A copy of what was done already.
            return Stored::Done(*revision);
        }
        let Write { conditions, changes } = request.write(id);
        let holds = |condition: &Condition| match condition {
            Condition::AsOf(key, at) => self.revision_of(key) == *at,
            Condition::Free(id, seen) => self.ids.get(id).is_none_or(|(_, at)| at <= seen),
        };
        if !conditions.iter().all(holds) {
            return Stored::Lost;
        }
        if let Some((record, _)) = self.records.get(id)
            && let (Some(was), Some(is)) = (record.stage.verdict(), request.record.stage.verdict())
        {
            assert_eq!(was, is, "AC2: {id} goes back on its decision");
        }
        self.revision += 1;
        for change in changes {
            match change {
                Change::Keep(_) => {
                    let kept = (request.record.clone(), self.revision);
                    self.records.insert(id.to_owned(), kept);
                }
                // What is kept elsewhere takes its place.
                Change::Remove(_) => {}
                Change::Take(other) => {
                    self.ids.insert(other, (id.to_owned(), self.revision));
                }
                Change::LetGo(other) => {
                    if self.ids.get(&other).is_some_and(|(by, _)| by == id) {
                        self.ids.remove(&other);
                    }
                }
            }
        }
        Stored::Done(self.revision)
    }

    /// Since when something is there; zero: it is not.
    fn revision_of(&self, key: &Key) -> u64 {
        let kept = |id: &String, open: bool| match self.records.get(id) {
            Some((record, at)) if open != matches!(record.stage, Stage::Finished(_)) => *at,
            _ => 0,
        };
        match key {
            Key::Open(id) => kept(id, true),
            Key::Finished(id) => kept(id, false),
        }
    }

    /// Makes a record that says that a transaction of which there was none is void. Whether there
    /// was none.
    pub fn bury(&mut self, id: &str) -> bool {
        let reason = "there was no record".to_owned();
        let record = Record {
            content: 0,
            protocol: Protocol::TwoPhase,
            owner: Owner::default(),
            asker: Owner::default(),
            epoch: 1,
            asked: 0,
            began_ms: 0,
            patience_ms: 0,
            changed_ms: 0,
            stage: Stage::Finished(Verdict::Abort { branch: None, reason }),
            branches: Vec::new(),
            carried: Arc::default(),
        };
        let stored = self.apply(id, &StoreRequest { number: 1, at: None, record, free_as_of: 0 });
        matches!(stored, Stored::Done(_))
    }

    /// As of when these are seen to be free, if they are.
    pub fn free_as_of<'a>(&self, mut ids: impl Iterator<Item = &'a String>) -> u64 {
        if ids.any(|id| self.ids.contains_key(id)) { 0 } else { self.revision }
    }

    /// Whether a bundle carries this id, and if so whether that is committed.
    pub fn carrier(&self, id: &str) -> Option<bool> {
        let (bundle, _) = self.ids.get(id).filter(|(by, _)| by != id)?;
        let stage = &self.records[bundle].0.stage;
        Some(stage.verdict().is_some_and(Verdict::commits))
    }
}
