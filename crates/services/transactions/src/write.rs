//! What it means to the store that a record is written: on which conditions, and what changes.
//!
//! | key | what |
//! | --- | --- |
//! | [`Key::Open`] | the record of a transaction that is not over |
//! | [`Key::Finished`] | of one that is |
//! | [`Key::Id`] | whose record tells of an id: its own, or that of the bundle that carries it |
//!
//! Invariants: an id stands for one transaction. It has a record or is carried by one bundle,
//! never both, and as long as either is so it has its [`Key::Id`]: either is begun on the one
//! condition that there is none. Who is carried is let go by the same write that says that the
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
    /// The id whose record tells of this one.
    Id(String),
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
    /// As of which revision something must be; zero: it must not be there.
    pub conditions: Vec<(Key, u64)>,
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
            Some(revision) => conditions.push((open.clone(), revision)),
            None => {
                let own = || std::iter::once(id.to_owned());
                conditions.extend(own().chain(carried()).map(|id| (Key::Id(id), 0)));
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
