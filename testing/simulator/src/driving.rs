//! What the threads of a host do, as events: the driver is stepped and polled, its outputs are
//! carried out, the log is offered its batches.
//!
//! Invariant: outputs are carried out in order for each neighbour; power may fail between any two.

use crate::counters::Happening;
use crate::neighbours::neighbour_of;
use crate::node::Running;
use crate::world::{GROUP, Happens, World};
use quorate_base::{Instant, NodeId};
use quorate_checkers::Violation;
use quorate_driver::{Driver, Event, Notice, Outputs};
use quorate_keyspace::{EventBatch, Reply};
use quorate_replicated_log::{Role, StepDown};
use quorate_wal::{Batch, BatchId, WalError};
use std::time::Duration;

type LogDone = (BatchId, Result<(), WalError>);

impl Running {
    /// Offers the log what waits for it, and takes what it has finished or refused.
    fn exchange(&mut self, now: Instant) -> (Vec<LogDone>, Option<(BatchId, String)>) {
        let (mut finished, mut refused) = (Vec::new(), None);
        loop {
            let mut quiet = true;
            while let Some(done) = self.wal.poll() {
                match (self.founding, &done.1) {
                    (true, Ok(())) => self.founding = false,
                    _ => finished.push(done),
                }
                quiet = false;
            }
            if self.full_until <= now
                && let Some(batch) = self.waiting.pop_front()
            {
                let id = batch.id;
                match self.wal.submit(batch) {
                    Ok(()) => quiet = false,
                    Err(WalError::Full { batch }) => {
                        self.waiting.push_front(batch);
                        self.full_until = now + Duration::from_millis(20);
                    }
                    Err(error) => refused = Some((id, error.to_string())),
                }
            }
            if quiet {
                return (finished, refused);
            }
        }
    }
}

impl World<'_> {
    /// Something happens to a node's driver.
    pub fn step(&mut self, id: u64, event: Event<Reply, EventBatch>) {
        let now = self.now;
        let node = self.node(id);
        let local = node.clock.read(now);
        if let Some(running) = &mut node.running
            && let Some(driver) = &mut running.driver
        {
            driver.step(local, event, &mut running.outputs);
            self.poll_soon(id);
        }
    }

    /// A poll follows every event, a little later, so that what comes together is taken together.
    pub fn poll_soon(&mut self, id: u64) {
        let at = self.soon(Duration::from_micros(20));
        let node = self.node(id);
        let alive = node.alive();
        if let Some(running) = &mut node.running
            && running.poll_at.is_none()
        {
            running.poll_at = Some(at);
            self.queue.push(at, id as u32, Happens::Poll(alive));
        }
    }

    /// One timer is set at a time, never later than wanted: deadlines mostly move away, and a
    /// timer that comes too early is set anew.
    fn set_timer(&mut self, id: u64, at: Instant) {
        let node = self.node(id);
        let alive = node.alive();
        if let Some(running) = &mut node.running
            && running.timer_at.is_none_or(|planned| planned > at)
        {
            running.timer_at = Some(at);
            self.queue.push(at, id as u32, Happens::Poll(alive));
        }
    }

    /// A peer's message arrives.
    pub fn peer_message(&mut self, to: u64, from: u64, message: quorate_driver::PeerMessage) {
        if self.trace.is_read() {
            self.line(to, format_args!("from n{from}: {message:?}"));
        }
        self.step(to, Event::Peer { from: NodeId(from), message });
    }

    /// A connection broke.
    pub fn peer_lost(&mut self, to: u64, peer: u64) {
        self.step(to, Event::PeerLost { node: NodeId(peer) });
    }

    /// Polls a node's driver and carries its outputs out.
    pub fn poll(&mut self, id: u64) {
        let now = self.now;
        let node = self.node(id);
        let local = node.clock.read(now);
        let Some(running) = &mut node.running else { return };
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if !due(running.poll_at) && !due(running.timer_at) {
            return; // An earlier timer was set instead.
        }
        running.poll_at = running.poll_at.filter(|at| *at > now);
        running.timer_at = running.timer_at.filter(|at| *at > now);
        let Some(driver) = &mut running.driver else { return };
        driver.poll(local, &mut running.outputs);
        let timeout = driver.next_timeout().map(|at| node.clock.when(at));
        let mut outputs = std::mem::take(&mut running.outputs);
        let life = node.life;
        // Power may fail before, or half-way through, what follows.
        let crash_ppm = if self.healing { 0 } else { self.plan.crash_at_step_ppm };
        let survives = if self.rng.chance_ppm(crash_ppm) { self.rng.below(4) } else { u64::MAX };
        self.hand_out(id, &mut outputs, survives);
        if survives != u64::MAX {
            return self.crash(id);
        }
        let node = self.node(id);
        if node.life != life {
            return;
        }
        if let Some(running) = &mut node.running
            && running.poll_at.is_none()
        {
            running.outputs = outputs; // For its memory; nothing new has come meanwhile.
        }
        if let Some(at) = timeout {
            self.set_timer(id, at.max(Instant(now.0 + 1)));
        }
    }

    /// Carries out the first `stages` of: batch, sends, work, replies.
    fn hand_out(&mut self, id: u64, outputs: &mut Outputs<Reply>, stages: u64) {
        for notice in outputs.notices.drain(..) {
            self.notice(id, notice);
        }
        if let Some(batch) = outputs.batch.take()
            && stages > 0
        {
            self.record_batch(id, &batch);
            self.submit(id, batch);
        }
        let sends = outputs.sends.drain(..);
        if stages > 1 {
            for (to, message) in sends {
                self.send(id, to, message);
            }
        }
        if stages > 2 && !outputs.work.is_empty() {
            let (mine, others): (Vec<_>, Vec<_>) =
                outputs.work.drain(..).partition(|(group, _)| *group == GROUP);
            if let Some(running) = &mut self.node(id).running {
                running.work.extend(mine.into_iter().map(|(_, work)| work));
            }
            self.serve_soon(id);
            for (group, work) in others {
                self.neighbour_works(id, group, work);
            }
        }
        for (token, answer) in outputs.replies.drain(..) {
            if stages > 3
                && !self.neighbour_replied(token, &answer)
                && !self.transaction_replied(id, token, &answer)
            {
                self.reply(id, token, answer);
            }
        }
        let node = self.node(id);
        let stopped = |r: &Running| r.driver.as_ref().is_some_and(Driver::is_stopped);
        if node.removed || node.running.as_ref().is_some_and(stopped) {
            self.stop(id);
        }
    }

    fn notice(&mut self, id: u64, notice: Notice) {
        if self.trace.is_read() {
            self.line(id, format_args!("{notice:?}"));
        }
        if let Some(group) = neighbour_of(&notice) {
            return self.neighbour_tells(id, group, &notice);
        }
        match notice {
            Notice::RoleChanged { role, ballot, leader, epoch, .. } => {
                let known = self.node(id).running.as_mut();
                let before = known.map(|running| std::mem::replace(&mut running.role, role));
                if role == Role::Leader && before != Some(Role::Leader) {
                    self.count(Happening::LeaderElected);
                    self.strike_new_leader(id);
                }
                self.trace.note(self.now, id, 33, ballot.round << 8 | leader.0);
                if role == Role::Leader {
                    let result = self.record.elections.leads(NodeId(id), epoch.0, ballot);
                    self.check(result);
                }
            }
            Notice::SteppedDown { reason, .. } => match reason {
                StepDown::NoQuorum => self.count(Happening::SteppedDownNoQuorum),
                StepDown::DiskStalled => self.count(Happening::SteppedDownDisk),
                StepDown::NoProgress | StepDown::Removed => {}
            },
            Notice::MembersChanged { base, .. } => {
                let members = &base.membership;
                let node = self.node(id);
                if members.contains(NodeId(id)) {
                    node.was_member = true;
                } else if node.was_member && !members.is_joint() {
                    node.removed = true; // It will stop, as a host would.
                }
                self.record_members(&base);
            }
            Notice::EpochOpened { base, .. } => self.record_epoch(id, &base),
            Notice::Unreadable { from, reason, .. } => {
                let text = format!("node {id} could not read a command of {from}: {reason}");
                self.check(Err(Violation::new("command codec", text)));
            }
            Notice::Blocked { first, last, .. } => {
                self.record.blocked.push((first, last));
                self.count(Happening::GroupBlocked);
            }
            Notice::Retried { .. } => self.count(Happening::RequestRetried),
            Notice::Fatal { reason } => {
                let node = self.node(id);
                let fair = node.disk.take_failed() | node.engine_failing;
                if !fair {
                    let text = format!("node {id} stopped without a fault: {reason}");
                    self.check(Err(Violation::new("fault tolerance", text)));
                }
            }
        }
    }

    pub fn submit(&mut self, id: u64, batch: Batch) {
        let now = self.now;
        let node = self.node(id);
        node.disk.set_now(now);
        let Some(running) = &mut node.running else { return };
        running.waiting.push_back(batch);
        self.disk_event(id);
    }

    /// Offers the log what waits for it, takes what it has finished, and sees when to look again.
    pub fn disk_event(&mut self, id: u64) {
        let now = self.now;
        let healing = self.healing;
        let node = &mut self.nodes[id as usize - 1];
        node.disk.set_now(now);
        let Some(running) = &mut node.running else { return };
        running.disk_at = None;
        let (finished, refused) = running.exchange(now);
        let held = running.wal.held_back();
        // Without room on the disk there is nothing under way that could wake the log.
        let full = !running.waiting.is_empty() || !running.wal.is_idle();
        let full_until = running.full_until.max(now + Duration::from_millis(20));
        let ready = running.wal.is_ready() && !running.founding && running.driver.is_none();
        // A log that has failed waits for its disk no more.
        let next = node.disk.next_completion().filter(|_| !running.wal.is_poisoned());
        let alive = node.alive();
        let progress = finished.len();
        for (batch, result) in finished {
            let result = result.map_err(|error| error.to_string());
            self.step(id, Event::LogDone { batch, result });
        }
        if !held.is_empty() {
            self.count(Happening::LogHeldBack);
            self.step(id, Event::LogHeld { by: held });
        }
        if let Some((batch, reason)) = refused {
            self.step(id, Event::LogDone { batch, result: Err(reason) });
        }
        if self.node(id).running.as_ref().is_some_and(|r| r.driver.is_none() && r.wal.is_poisoned())
        {
            self.node(id).disk.take_failed();
            return self.stop(id);
        }
        if ready {
            self.take_part(id);
        }
        let again = full.then_some(full_until);
        if let Some(at) = [next, again].into_iter().flatten().min() {
            let at = at.max(Instant(now.0 + 1));
            if let Some(running) = &mut self.node(id).running
                && running.disk_at.is_none_or(|planned| planned > at)
            {
                running.disk_at = Some(at);
                self.queue.push(at, id as u32, Happens::Disk(alive));
            }
        }
        if progress > 0 && !healing && self.rng.chance_ppm(self.plan.crash_at_disk_ppm) {
            self.strike_after_write(id);
        }
    }
}
