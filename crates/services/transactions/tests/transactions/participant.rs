//! A participant as the rules of branches say it is: a keyspace in small, that also tells when a
//! rule is broken.

use quorate_transactions::{End, Found, Vote};
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    Prepared,
    Committed,
    RolledBack,
}

/// What is remembered of one transaction's branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Branch {
    pub epoch: u32,
    pub state: State,
}

/// What a schedule may make of a vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    Yes,
    ReadOnly,
    No,
    Conflict(u64),
}

#[derive(Default, Debug)]
pub struct Participant {
    pub branches: BTreeMap<String, Branch>,
    /// How often each transaction was applied here, for ever.
    pub applied: BTreeMap<String, u32>,
    /// The epochs in which a yes was given, for ever.
    pub yes: Vec<(String, u32)>,
    revision: u64,
}

impl Participant {
    pub fn prepare(&mut self, id: &str, epoch: u32, alone: bool, mood: Mood) -> Option<Vote> {
        let no = |reason: &str| Vote::No { reason: reason.to_owned(), again: None };
        if let Some(known) = self.branches.get_mut(id) {
            if known.epoch > epoch {
                return Some(no("an old epoch"));
            }
            match known.state {
                State::Committed if alone => return Some(Vote::Done(self.revision)),
                State::Committed => return Some(no("committed before")),
                State::Prepared if known.epoch == epoch => return Some(Vote::Yes),
                State::Prepared => return None,
                State::RolledBack if known.epoch == epoch => return Some(no("rolled back before")),
                State::RolledBack => {}
            }
        }
        let mut set = |state| self.branches.insert(id.to_owned(), Branch { epoch, state });
        match mood {
            Mood::Yes if alone => {
                set(State::Committed);
                *self.applied.entry(id.to_owned()).or_default() += 1;
                self.revision += 1;
                Some(Vote::Done(self.revision))
            }
            Mood::Yes => {
                set(State::Prepared);
                self.yes.push((id.to_owned(), epoch));
                Some(Vote::Yes)
            }
            Mood::ReadOnly => {
                self.yes.push((id.to_owned(), epoch));
                Some(Vote::ReadOnly)
            }
            Mood::No => {
                set(State::RolledBack);
                Some(no("not enough of it"))
            }
            Mood::Conflict(priority) => {
                set(State::RolledBack);
                Some(Vote::No { reason: "a conflict".to_owned(), again: Some(priority) })
            }
        }
    }

    pub fn settle(&mut self, id: &str, epoch: u32, commit: bool) -> End {
        let Some(known) = self.branches.get_mut(id) else {
            if commit {
                // Forgotten, and so applied: only a late copy says so.
                return End::Superseded;
            }
            let tombstone = Branch { epoch, state: State::RolledBack };
            self.branches.insert(id.to_owned(), tombstone);
            return End::RolledBack;
        };
        if known.epoch > epoch {
            return End::Superseded;
        }
        match (&known.state, commit) {
            (State::Prepared, true) => {
                *self.applied.entry(id.to_owned()).or_default() += 1;
                self.revision += 1;
                *known = Branch { epoch, state: State::Committed };
                End::Committed(self.revision)
            }
            (State::Committed, _) => End::Committed(self.revision),
            (State::RolledBack, true) => End::RolledBack,
            (_, false) => {
                *known = Branch { epoch, state: State::RolledBack };
                End::RolledBack
            }
        }
    }

    /// The same at a database, which knows nothing of who takes over: its branches are named by the
    /// attempt, and whoever knows the name ends them.
    pub fn settle_outside(&mut self, id: &str, asked: u32, commit: bool) -> End {
        match self.branches.get(id) {
            Some(later) if later.epoch > asked => End::RolledBack,
            _ => self.settle(id, asked, commit),
        }
    }

    /// Closes the vote, and tells it.
    pub fn resolve(&mut self, id: &str, epoch: u32) -> Found {
        match self.branches.get_mut(id) {
            Some(known) if known.state == State::Committed => Found::Committed(self.revision),
            Some(known) if known.epoch > epoch => Found::Superseded,
            Some(known) if known.state == State::Prepared => {
                known.epoch = epoch;
                Found::Yes
            }
            _ => match self.settle(id, epoch, false) {
                End::RolledBack => Found::No(None),
                other => panic!("{id} was not prepared, and ends as {other:?}"),
            },
        }
    }

    pub fn forget(&mut self, id: &str) {
        // A copy of a prepare may have come late, where the first only read: a scan finds it.
        if self.branches.get(id).is_some_and(|known| known.state != State::Prepared) {
            self.branches.remove(id);
        }
    }
}
