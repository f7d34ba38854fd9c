//! For tests: a participant outside that is a few sets in memory. It never commits, for only a real
//! one has the proof.
#![allow(clippy::unwrap_used)]

use parking_lot::Mutex;
use quorate_resource_managers::{
    Answer, BranchName, Deadline, Doubt, Error, InDoubt, Outcome, ResourceManager, State, Vote,
    Work,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// How many it forgets at a time.
const FORGOTTEN: usize = 2;

pub(crate) struct Fake {
    name: String,
    /// Whether it does not answer.
    pub away: AtomicBool,
    /// The names of branches that are prepared,
    pub prepared: Mutex<BTreeSet<String>>,
    /// and of those that have a row in its fence.
    pub rows: Mutex<BTreeSet<String>>,
}

impl Fake {
    pub fn new(name: &str) -> Arc<Fake> {
        let (prepared, rows) = (Mutex::default(), Mutex::default());
        Arc::new(Fake { name: name.to_owned(), away: AtomicBool::new(false), prepared, rows })
    }

    fn here<T>(&self, answer: T) -> Result<T, Error> {
        match self.away.load(Relaxed) {
            false => Ok(answer),
            true => Err(Error::TooLate { manager: self.name.as_str().into(), doing: "testing" }),
        }
    }
}

impl ResourceManager for Fake {
    fn name(&self) -> &str {
        &self.name
    }

    fn hand_in(&self) -> Duration {
        Duration::ZERO
    }

    fn shares(&self) -> bool {
        true
    }

    fn check(&self, _: Deadline) -> Answer<'_, Result<(), Error>> {
        Box::pin(async { self.here(()) })
    }

    fn set_up(&self, _: Deadline) -> Answer<'_, Result<(), Error>> {
        Box::pin(async { self.here(()) })
    }

    fn prepare<'a>(&'a self, it: &'a BranchName, _: &'a Work, _: Deadline) -> Answer<'a, Vote> {
        Box::pin(async {
            match self.here(()) {
                Ok(()) => {
                    self.prepared.lock().insert(it.to_string());
                    Vote::Yes
                }
                Err(error) => Vote::Unknown(Doubt(error)),
            }
        })
    }

    fn adopt<'a>(&'a self, _: &'a BranchName, _: Deadline) -> Answer<'a, Vote> {
        Box::pin(async { Vote::Yes })
    }

    fn commit<'a>(&'a self, _: &'a BranchName, _: Deadline) -> Answer<'a, Outcome> {
        let why = Error::Caller("it never commits".to_owned());
        Box::pin(async { Outcome::Unknown(Doubt(why)) })
    }

    fn rollback<'a>(&'a self, it: &'a BranchName, _: Deadline) -> Answer<'a, Outcome> {
        Box::pin(async {
            match self.here(()) {
                Ok(()) => {
                    self.prepared.lock().remove(&it.to_string());
                    self.rows.lock().insert(it.to_string());
                    Outcome::NotThere
                }
                Err(error) => Outcome::Unknown(Doubt(error)),
            }
        })
    }

    fn inspect<'a>(&'a self, it: &'a BranchName, _: Deadline) -> Answer<'a, Result<State, Error>> {
        let prepared = self.prepared.lock().contains(&it.to_string());
        Box::pin(async move { self.here(if prepared { State::Prepared } else { State::Absent }) })
    }

    fn scan(&self, _: Deadline) -> Answer<'_, Result<Vec<InDoubt>, Error>> {
        let read = |name: &String| BranchName::from_postgres_gid(name).unwrap();
        let found = |name| InDoubt { branch: read(name), age: None };
        let all = self.prepared.lock().iter().map(found).collect();
        Box::pin(async move { self.here(all) })
    }

    fn forget<'a>(
        &'a self,
        branches: &'a [BranchName],
        _: Deadline,
    ) -> Answer<'a, Result<usize, Error>> {
        Box::pin(async {
            self.here(())?;
            // Never more than a few at a time.
            let some = &branches[..branches.len().min(FORGOTTEN)];
            self.rows.lock().retain(|row| some.iter().all(|it| it.to_string() != *row));
            Ok(some.len())
        })
    }
}
