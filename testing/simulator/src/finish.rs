//! The end of every run: everything heals, progress is demanded, and the checkers judge.

use crate::clients::Wish;
use crate::counters::Happening;
use crate::translate;
use crate::world::{Happens, World};
use bytes::Bytes;
use quorate_base::{Instant, NodeId};
use quorate_checkers::{End, Limit, Op, Request, Violation, check_registers, check_revisions};
use quorate_keyspace::command::Range;
use quorate_mvcc::KeyRange;
use quorate_service::Service;
use std::time::Duration;

/// Progress must come within this, once everything has healed.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest lease is four seconds, and a new leader starts it afresh.
const LONGEST_LEASE: Duration = Duration::from_secs(5);
/// Search steps for each group of keys.
const SEARCH: Limit = Limit(10_000);

impl World<'_> {
    /// Heals everything, waits for progress, checks.
    pub fn finish(&mut self) {
        self.heal();
        self.quiet = false;
        // Clients go on for a moment on the healed cluster, then everybody is left in peace.
        self.run_until(self.now + Duration::from_secs(2));
        self.quiet = true;
        let deadline = self.now + PATIENCE;
        self.demand_progress(deadline);
        self.await_agreement(deadline + LONGEST_LEASE * 2);
        self.transactions_end(self.now + PATIENCE);
        self.neighbours_agree(self.now + PATIENCE);
        if self.violation.is_none() {
            self.judge();
        }
        if self.violation.is_none() {
            self.go_beyond_repair();
        }
    }

    fn heal(&mut self) {
        self.line(0, format_args!("everything heals"));
        self.healing = true;
        self.atlas.close();
        self.network.heal();
        for id in 1..=self.plan.ids {
            let node = self.node(id);
            node.disk.heal();
            node.frozen_until = Instant::ZERO;
        }
        for id in 1..=self.plan.ids {
            if self.node(id).engine_failing {
                self.crash(id);
            }
            let node = self.node(id);
            if node.member && node.running.is_none() {
                self.queue.push(self.now, id as u32, Happens::Boot(id));
            }
        }
    }

    /// The members that can be demanded anything of.
    fn sound_members(&self) -> Vec<u64> {
        let members = self.members();
        let sound = |node: &&NodeId| !self.nodes[node.0 as usize - 1].ruined;
        members.all().iter().filter(sound).map(|node| node.0).collect()
    }

    /// A write through every member must succeed.
    fn demand_progress(&mut self, deadline: Instant) {
        let seat = self.seats.len() - 1;
        for id in self.sound_members() {
            // A change of members that was under way may still end.
            while self.members().contains(NodeId(id)) {
                self.let_settle(seat, deadline);
                let before = self.record.history.len();
                let value = Bytes::from(format!("end.{id}.{before}"));
                let key = Bytes::from_static(b"end");
                let request = Request::Op(Op::Put { key, value, lease: 0 });
                self.ask(seat, Wish::Ask(request), id);
                self.let_settle(seat, deadline);
                if self.violation.is_some() {
                    return;
                }
                if matches!(self.record.history[before].end, End::Answered { .. }) {
                    break;
                }
                if self.now >= deadline {
                    let text = format!("no write through node {id} succeeds: {}", self.status());
                    return self.check(Err(Violation::new("progress after healing", text)));
                }
            }
        }
    }

    fn let_settle(&mut self, seat: usize, deadline: Instant) {
        while self.seats[seat].open.is_some() && self.violation.is_none() && self.now < deadline {
            self.run_until(self.now + Duration::from_millis(20));
        }
    }

    /// All members must apply the same, and leases must end.
    fn await_agreement(&mut self, deadline: Instant) {
        loop {
            self.run_until(self.now + Duration::from_millis(100));
            if self.violation.is_some() {
                return;
            }
            let last = self.record.logs.last();
            let members = self.sound_members();
            let behind = members.iter().find(|id| self.applied(**id) != Some(last));
            let leased = members.first().is_some_and(|id| self.has_leases(*id));
            let waiting = self.seats.iter().any(|seat| seat.open.is_some());
            if behind.is_none() && !leased && !waiting && self.watcher_that_waits().is_none() {
                return;
            }
            if self.now >= deadline {
                let promise = match behind {
                    Some(_) => "replicas catch up after healing",
                    None if leased => "leases end at last",
                    None if waiting => "requests end at last",
                    None => "watchers are told at last",
                };
                let waits = self.watcher_that_waits().unwrap_or_default();
                let text = format!("entry {last} is applied somewhere: {} {waits}", self.status());
                return self.check(Err(Violation::new(promise, text)));
            }
        }
    }

    fn applied(&self, id: u64) -> Option<u64> {
        let running = self.nodes[id as usize - 1].running.as_ref()?;
        Some(running.host.service().base().position.index)
    }

    fn has_leases(&self, id: u64) -> bool {
        let running = self.nodes[id as usize - 1].running.as_ref();
        running.is_some_and(|running| !running.host.service().reader().leases().is_empty())
    }

    /// How things stand, for people.
    fn status(&self) -> String {
        let mut text = format!("members {:?};", self.record.membership.1);
        for node in &self.nodes {
            let status = node
                .running
                .as_ref()
                .and_then(|running| running.driver.as_ref()?.status(crate::world::GROUP));
            match status {
                Some(s) => {
                    text += &format!(
                        " n{}: {:?} {:?} last {:?} commit {} applied {};",
                        node.id, s.role, s.ballot, s.last, s.commit, s.applied
                    )
                }
                None if node.member => text += &format!(" n{}: down;", node.id),
                None => {}
            }
        }
        text
    }

    /// The checkers' verdict.
    fn judge(&mut self) {
        let verdict = self.verdict();
        self.check(verdict);
        let watchers = self.watchers_miss_nothing();
        self.check(watchers);
        let switches = self.switches_are_short();
        self.check(switches);
    }

    fn verdict(&mut self) -> Result<(), Violation> {
        let (store, expiries) = check_revisions(&self.record.truth, &self.record.history)?;
        for expiry in &expiries {
            self.count(Happening::LeaseExpired);
            self.record.leases.check(expiry, 3 * self.plan.drift_ppm)?;
        }
        let undecided = check_registers(&self.record.history, b"r", SEARCH)?;
        for _ in 0..undecided {
            self.count(Happening::SearchGivenUp);
        }
        for id in self.sound_members() {
            let Some(running) = &self.nodes[id as usize - 1].running else { continue };
            let service = running.host.service();
            let index = service.base().position.index;
            let reader = service.reader();
            let range = Range::of(KeyRange::From(Bytes::new()));
            let read = |error| Violation::new("recovery", format!("node {id}: {error}"));
            let found = reader.range(&range).map_err(read)?;
            let kvs: Vec<_> = found.kvs.iter().map(translate::kv).collect();
            if let Some(how) = store.differs_from(kvs.iter()) {
                let text = format!("node {id} {how}");
                return Err(Violation::new("acknowledged writes are there", text));
            }
            if reader.revision() != store.revision {
                let text = format!("node {id} is at revision {}", reader.revision());
                return Err(Violation::new("replicas agree", text));
            }
            let hash = reader.hash().map_err(read)?;
            self.record.hashes.record(id, index, hash.hash)?;
        }
        Ok(())
    }
}
