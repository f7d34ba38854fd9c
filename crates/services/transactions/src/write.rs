//! What it means to the store that a record is written: on which conditions, and what changes.
//!
//! | key | what |
//! | --- | --- |
//! | [`Key::Open`] | the record of a transaction that is not over |
//! | [`Key::Finished`] | of one that is |
//!
//! and of each id, whether it is taken, and whose record tells of it: its own, or that of the
//! bundle that carries it.
//!
//! Invariants: an id stands for one transaction. It has a record or is carried by one bundle,
//! never both, and as long as either is so it is taken: either is begun on the one condition that
//! it is free. Whoever saw that it is, as of a revision of the records, asks that it was not taken
//! since, which is less to look for. Who is carried is let go by the same write that says that the
//! bundle is aborted. From then on it may be begun anew.

use crate::coordinator::StoreRequest;
use crate::record::Stage;

/// Where something is kept.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Key {
    /// The record of an id, while it is not over,
    Open(String),
    /// and once it is.
    Finished(String),
}

/// What has to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// This is still as of this revision.
    AsOf(Key, u64),
    /// This id was not taken after this revision, as of which it was seen to be free; zero: it is
    /// free.
    Free(String, u64),
}

/// What is changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The record is kept here.
    Keep(Key),
    /// Nothing is kept here any more.
    Remove(Key),
    /// The record tells of this id, which is its own or carried.
    Take(String),
    /// It does not any more, if it did.
    LetGo(String),
}

/// One write: all of its changes, if all conditions hold; else nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// What has to hold.
    pub conditions: Vec<Condition>,
    /// What is changed then.
    pub changes: Vec<Change>,
}

impl StoreRequest {
    /// The write of the record of `id`.
    pub fn write(&self, id: &str) -> Write {
        let (open, finished) = (Key::Open(id.to_owned()), Key::Finished(id.to_owned()));
        let carried = || self.record.carried.iter().map(|carried| carried.id.clone());
        let aborts = self.record.stage.verdict().is_some_and(|verdict| !verdict.commits());
        let (mut conditions, mut changes) = (Vec::new(), Vec::new());
        match self.at {
            Some(revision) => conditions.push(Condition::AsOf(open.clone(), revision)),
            None => {
                let own = || std::iter::once(id.to_owned());
                let free = |id| Condition::Free(id, self.free_as_of);
                conditions.extend(own().chain(carried()).map(free));
                // One that is aborted from the beginning carries nobody.
                let taken = carried().filter(|_| !aborts);
                changes.extend(own().chain(taken).map(Change::Take));
            }
        }
        match &self.record.stage {
            Stage::Finished(_) => {
                if self.at.is_some() {
                    changes.push(Change::Remove(open));
                }
                changes.push(Change::Keep(finished));
            }
            Stage::Open | Stage::Decided(_) => changes.push(Change::Keep(open)),
        }
        if aborts && self.at.is_some() {
            changes.extend(carried().map(Change::LetGo));
        }
        Write { conditions, changes }
    }
}
