//! What a host's apply thread does, as events: the service works, its news go to the watchers and
//! to the record, its state is made durable beside.

use crate::counters::Happening;
use crate::translate;
use crate::world::{GROUP, Happens, World};
use quorate_checkers::Violation;
use quorate_driver::{Done, Event, ReceiveState, Work};
use quorate_keyspace::{EventBatch, Reply};
use quorate_replicated_log::Payload;
use quorate_service::Service;
use std::time::Duration;

impl World<'_> {
    pub fn serve_soon(&mut self, id: u64) {
        let at = self.soon(self.plan.apply_delay);
        let node = self.node(id);
        let alive = node.alive();
        if let Some(running) = &mut node.running
            && !running.serving
            && !running.work.is_empty()
        {
            running.serving = true;
            self.queue.push(at, id as u32, Happens::Service(alive));
        }
    }

    /// The service does some of the work that waits.
    pub fn serve(&mut self, id: u64) {
        let most = if self.rng.below(4) == 0 { 1 } else { 16 };
        if let Some(running) = &mut self.node(id).running {
            running.serving = false;
        }
        for _ in 0..most {
            let life = self.node(id).life;
            self.work(id);
            if self.node(id).life != life {
                return;
            }
        }
        self.serve_soon(id);
    }

    fn work(&mut self, id: u64) {
        let now = self.now;
        let node = self.node(id);
        let (local, alive) = (node.clock.read(now), node.alive());
        let Some(running) = &mut node.running else { return };
        let Some(work) = running.work.pop_front() else { return };
        let entries = match &work {
            Work::Apply(entries) => Some(entries.clone()),
            _ => None,
        };
        let before = running.host.service().base();
        let snapshot = matches!(work, Work::SnapshotOpen { .. });
        let mut finished = std::mem::take(&mut running.finished);
        let persist = running.host.run(local, work, &mut finished);
        if let Some(job) = persist {
            running.persist = Some(job);
            let at = self.soon(Duration::from_millis(30));
            self.queue.push(at, id as u32, Happens::Persist(alive));
        }
        if snapshot {
            self.count(Happening::SnapshotSent);
        }
        if let Some(entries) = entries {
            // What a snapshot covered meanwhile is passed over, as the service does.
            let known = before.position.index;
            let known = entries.iter().take_while(|entry| entry.index <= known).count();
            let new = entries.slice(known..entries.len());
            self.record_applied(id, &before, &new);
            let change = entries.iter().any(|e| matches!(e.payload, Payload::Members { .. }));
            if change {
                self.trace.note(now, id, 34, entries.last_index().unwrap_or(0));
            }
        }
        for done in finished.drain(..) {
            self.done(id, done);
        }
        if let Some(running) = &mut self.node(id).running {
            running.finished = finished;
        }
    }

    fn done(&mut self, id: u64, mut done: Done<Reply, EventBatch>) {
        match &mut done {
            Done::Applied { applied, .. } => {
                for publication in std::mem::take(&mut applied.publications) {
                    self.published(id, &publication);
                }
            }
            Done::Received { state: ReceiveState::Installed, base, .. } => {
                let base = base.clone();
                self.count(Happening::SnapshotInstalled);
                let running = self.node(id).running.as_ref();
                let epoch = running.and_then(|r| r.driver.as_ref()?.epoch(GROUP));
                if epoch.is_some_and(|(epoch, _)| epoch < base.epoch) && base.epoch.0 > 0 {
                    self.count(Happening::CaughtUpAcrossEpochs);
                }
                self.line(id, format_args!("installed a snapshot at {:?}", base.position));
                if let Some(running) = &mut self.node(id).running {
                    running.hub.observe(running.host.service().reader().revision());
                }
            }
            _ => {}
        }
        self.step(id, Event::ServiceDone { group: GROUP, done });
    }

    fn published(&mut self, id: u64, batch: &EventBatch) {
        if let Some(running) = &mut self.node(id).running {
            running.hub.publish(batch);
        }
        let now = self.now;
        let mut events = batch.events.iter().peekable();
        while let Some(first) = events.next() {
            let revision = first.revision();
            let mut changes = vec![translate::change(first)];
            while let Some(next) = events.next_if(|event| event.revision() == revision) {
                changes.push(translate::change(next));
            }
            self.trace.note(now, id, 35, revision);
            let result = self.record.truth.record(id, revision, &changes, now);
            self.check(result);
        }
        if self.violation.is_none() && self.record.truth.last() < batch.revision {
            let text = format!("node {id} went to revision {} without events", batch.revision);
            self.check(Err(Violation::new("revision monotonicity", text)));
        }
    }

    /// The engine has been made durable.
    pub fn persisted(&mut self, id: u64) {
        let Some(running) = &mut self.node(id).running else { return };
        let Some(job) = running.persist.take() else { return };
        let done = match job() {
            Ok(index) => Done::Persisted { index },
            Err(error) => {
                self.count(Happening::PersistFailed);
                Done::Failed { reason: error.to_string() }
            }
        };
        self.step(id, Event::ServiceDone { group: GROUP, done });
    }
}
