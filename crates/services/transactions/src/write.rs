//! What it means to the store that a record is written: on which conditions, and what changes.
//!
//! | key | what |
//! | --- | --- |
//! | [`Key::Open`] | the record of a transaction that is not over |
//! | [`Key::Finished`] | of one that is |
//! | [`Key::Carried`] | which bundle carries a transaction that has no record |
//!
//! Invariants: an id stands for one transaction. It has a record or is carried by one bundle,
//! never both: either is begun on the condition that there is neither, and who is carried is let go
//! by the same write that says that the bundle is aborted. From then on it may be begun anew.

use crate::coordinator::StoreRequest;
use crate::record::Stage;

/// Where something is kept.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Key {
    /// The record of an id, while it is not over,
    Open(String),
    /// and once it is.
    Finished(String),
    /// The id of the bundle that carries an id.
    Carried(String),
}

/// What is changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The record is kept here.
    Keep(Key),
    /// Nothing is kept here any more.
    Remove(Key),
    /// This id is carried by the record's.
    Carry(String),
    /// This id is no more carried, if it is carried by the record's.
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
        let carried = self.record.carried.iter().map(|carried| carried.id.clone());
        let (mut conditions, mut changes) = (Vec::new(), Vec::new());
        match self.at {
            Some(revision) => conditions.push((open.clone(), revision)),
            None => {
                for id in std::iter::once(id.to_owned()).chain(carried.clone()) {
                    conditions.push((Key::Open(id.clone()), 0));
                    conditions.push((Key::Finished(id.clone()), 0));
                    conditions.push((Key::Carried(id), 0));
                }
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
        match self.record.stage.verdict() {
            Some(verdict) if !verdict.commits() => changes.extend(carried.map(Change::LetGo)),
            _ if self.at.is_none() => changes.extend(carried.map(Change::Carry)),
            _ => {}
        }
        Write { conditions, changes }
    }
}
