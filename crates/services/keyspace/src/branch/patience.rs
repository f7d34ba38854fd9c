//! The leader's clock of those who wait for locks.
//!
//! A branch may stay in doubt for long. Commands that wait for it must not pile up behind it, nor
//! be done long after whoever asked has gone: the leader sends them away. When is not replicated;
//! that they go is a command like any other.

use super::Branches;
use crate::command::Command;
use quorate_base::time::Duration;
use quorate_base::{Index, Instant};
use std::collections::BTreeSet;

/// Whoever began to wait since the last tick is seen at the next, at most this much later.
const FRESH_DELAY: Duration = Duration::from_millis(200);
/// Entries in one command.
const MAX_ENTRIES: usize = 1_000;

/// Settings of the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockConfig {
    /// Nobody waits for a lock longer than this, or little more.
    pub wait: Duration,
    /// Sending someone away that has not happened after this is proposed again.
    pub retry: Duration,
}

impl Default for LockConfig {
    fn default() -> Self {
        LockConfig { wait: Duration::from_secs(10), retry: Duration::from_secs(3) }
    }
}

/// The clock. Idle until it leads.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    config: LockConfig,
    leading: bool,
    now: Instant,
    /// When to send whom away.
    due: BTreeSet<(Instant, Index)>,
    /// Who waits since an entry before this one has a time.
    seen_before: Index,
}

impl Patience {
    pub fn new(config: LockConfig) -> Patience {
        let (now, due) = (Instant::ZERO, BTreeSet::new());
        Patience { config, leading: false, now, due, seen_before: 0 }
    }

    /// This replica leads: everyone's time starts afresh.
    pub fn promote(&mut self, now: Instant, branches: &Branches) {
        self.demote();
        (self.leading, self.now) = (true, now);
        self.look(branches);
    }

    /// This replica no longer leads.
    pub fn demote(&mut self) {
        self.leading = false;
        self.due.clear();
        self.seen_before = 0;
    }

    fn look(&mut self, branches: &Branches) {
        for entry in branches.waiting_from(self.seen_before) {
            self.due.insert((self.now + self.config.wait, entry));
            self.seen_before = entry + 1;
        }
    }

    /// Adds the commands that `now` calls for.
    pub fn tick(&mut self, now: Instant, branches: &Branches, commands: &mut Vec<Command>) {
        self.now = self.now.max(now);
        if !self.leading {
            return;
        }
        self.look(branches);
        let mut entries = Vec::new();
        while let Some((at, entry)) = self.due.first().copied()
            && at <= self.now
        {
            self.due.pop_first();
            if branches.age_of(entry).is_some() {
                self.due.insert((self.now + self.config.retry, entry));
                entries.push(entry);
            }
        }
        let command = |part: &[Index]| Command::Unqueue { entries: part.to_vec() };
        commands.extend(entries.chunks(MAX_ENTRIES).map(command));
    }

    /// When the next tick is due.
    pub fn next_timeout(&self, branches: &Branches) -> Option<Instant> {
        if !self.leading {
            return None;
        }
        let fresh = branches.waiting_from(self.seen_before).next().map(|_| self.now + FRESH_DELAY);
        let due = self.due.first().map(|(at, _)| *at);
        [fresh, due].into_iter().flatten().min()
    }
}
