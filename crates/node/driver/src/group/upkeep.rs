//! Persisting the service and compacting the log behind it.
//!
//! Invariant: the log keeps every entry that the service has not durably persisted.

use super::{Context, Group};
use crate::canary::Canary;
use crate::config::DriverConfig;
use crate::event::Work;
use quorate_base::{Index, Instant};
use quorate_replicated_log::{Entries, Input};
use std::collections::VecDeque;

/// What upkeep remembers.
pub(super) struct Upkeep {
    /// The log begins after this.
    compacted: Index,
    /// The service has persisted up to here, and was last asked to at this index and time.
    persisted: Index,
    persisting: bool,
    asked_at: Instant,
    asked_index: Index,
    due: Option<Instant>,
    /// Committed runs still in the log, as (last index, bytes), and their total.
    runs: VecDeque<(Index, u64)>,
    run_bytes: u64,
    bytes_since_persist: u64,
    /// The log of all groups is long, and needs this one to begin after here.
    let_go: Index,
}

impl Upkeep {
    /// The log begins after `compacted`. That is also all of the service's state that is known to
    /// be durable: what else it was found with may be in the machine's cache only (its last
    /// process was killed, say), and be gone after the next power failure.
    pub fn new(compacted: Index, now: Instant) -> Self {
        Upkeep {
            compacted,
            persisted: compacted,
            persisting: false,
            asked_at: now,
            asked_index: compacted,
            due: None,
            runs: VecDeque::new(),
            run_bytes: 0,
            bytes_since_persist: 0,
            let_go: compacted,
        }
    }

    pub fn committed(&mut self, entries: &Entries) {
        let bytes: u64 = entries.iter().map(|entry| entry.weight() as u64).sum();
        if let Some(last) = entries.last_index() {
            self.runs.push_back((last, bytes));
            self.run_bytes += bytes;
            self.bytes_since_persist += bytes;
        }
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.due.filter(|_| !self.persisting)
    }

    /// The index up to which the log may go: old enough, or too much, or in the way of other
    /// groups, but always persisted.
    fn compaction_target(&self, applied: Index, config: &DriverConfig) -> Index {
        let limits = &config.limits;
        let mut target = applied.saturating_sub(limits.catch_up_entries);
        let mut bytes = self.run_bytes;
        for (last, run) in &self.runs {
            if bytes <= limits.catch_up_bytes {
                break;
            }
            bytes -= run;
            target = target.max(*last);
        }
        target = target.max(self.let_go);
        let persisted = match config.is(Canary::CompactUnpersisted) {
            true => applied,
            false => self.persisted,
        };
        target.min(persisted).min(applied)
    }

    fn forget(&mut self, index: Index) {
        while let Some((last, bytes)) = self.runs.front() {
            if *last > index {
                break;
            }
            self.run_bytes -= bytes;
            self.runs.pop_front();
        }
    }
}

impl Group {
    pub(super) fn upkeep<R>(&mut self, cx: &mut Context<'_, R>) {
        let applied = self.applied.position.index;
        let limits = &cx.config.limits;
        let keep = &mut self.upkeep;
        if applied > keep.asked_index && keep.due.is_none() {
            keep.due = Some(keep.asked_at.max(cx.now) + cx.config.persist_interval);
        }
        let due = keep.due.is_some_and(|at| at <= cx.now)
            || (self.epochs.is_ending() && !cx.config.is(Canary::PersistLater))
            || (keep.let_go > keep.asked_index && applied >= keep.let_go)
            || keep.bytes_since_persist > limits.persist_bytes;
        if due && !keep.persisting && applied > keep.asked_index {
            keep.persisting = true;
            keep.asked_at = cx.now;
            keep.asked_index = applied;
            keep.bytes_since_persist = 0;
            keep.due = None;
            cx.outputs.work.push((self.id, Work::Persist));
        }
        // After a start a log may not know yet that all that was applied is committed.
        let target = self.upkeep.compaction_target(applied, cx.config).min(self.log.commit());
        let many = target >= self.upkeep.compacted + limits.compact_step_entries;
        let large = self.upkeep.run_bytes > limits.catch_up_bytes + limits.catch_up_bytes / 4;
        // An epoch that has ended is not compacted any more: its log is about to begin anew.
        let asked = self.upkeep.let_go > self.upkeep.compacted;
        if target > self.upkeep.compacted && (many || large || asked) && !self.epochs.is_ending() {
            self.upkeep.compacted = target;
            self.upkeep.forget(target);
            self.input(cx, Input::Compact { index: target });
        }
    }

    pub(super) fn persisted<R>(&mut self, cx: &mut Context<'_, R>, index: Index) {
        self.upkeep.persisting = false;
        self.upkeep.persisted = self.upkeep.persisted.max(index);
        self.upkeep(cx);
        self.go_on(cx);
    }

    /// The log has grown long, and cannot give its oldest segment up before this group's begins
    /// after `index`: whoever lags is sent the state then.
    pub(crate) fn let_go<R>(&mut self, cx: &mut Context<'_, R>, index: Index) {
        self.upkeep.let_go = self.upkeep.let_go.max(index);
        self.upkeep(cx);
    }

    /// Whether everything up to `index` is durable in the service.
    pub(super) fn is_persisted(&self, index: Index) -> bool {
        self.upkeep.persisted >= index
    }

    /// A snapshot replaced the service's state: durable, and the log begins after it.
    pub(super) fn upkeep_after_install(&mut self, index: Index) {
        self.upkeep.persisted = self.upkeep.persisted.max(index);
        self.upkeep.compacted = self.upkeep.compacted.max(index);
        self.upkeep.forget(index);
    }
}
