//! The thread that drives: takes all that happened, steps, hands out what follows.
//!
//! Invariant: it never waits for anything but its inbox. What it hands out goes into other
//! threads' mailboxes, or straight to a socket that takes it at once.

use crate::board::Board;
use crate::error::End;
use crate::inbox::{Inbox, Item};
use crate::mailbox::Mailbox;
use crate::waiting::Waiting;
use quorate_base::{GroupId, Instant, NodeId};
use quorate_disk::{Clock, OsClock};
use quorate_driver::{Driver, Event, Notice, Outputs, Work};
use quorate_replicated_log::{Base, Role, StepDown};
use quorate_transport::Transport;
use quorate_wal::Batch;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// For the log thread.
pub(crate) enum LogWork {
    /// Make this durable.
    Batch(Batch),
    /// End.
    Stop,
}

/// For the apply thread.
pub(crate) enum ApplyWork<J> {
    /// For the service.
    Work(Work),
    /// Something to be done with the service at hand.
    Job(J),
    /// End.
    Stop,
}

/// Everything the driver thread holds.
pub(crate) struct DriverThread<R, P, J> {
    pub clock: OsClock,
    pub driver: Driver<R>,
    pub inbox: Arc<Inbox<R, P>>,
    pub transport: Arc<Transport>,
    pub log: Arc<Mailbox<LogWork>>,
    pub apply: Arc<Mailbox<ApplyWork<J>>>,
    pub board: Arc<Board>,
    pub group: GroupId,
    pub node: NodeId,
    /// What the board shows.
    pub shown: (Role, NodeId),
    pub term: u64,
    /// Whether this node was ever among the group's members: then no longer being one is an end.
    pub was_member: bool,
    /// Set while the log waits for room on the disk: its writes stall, and that is no fault.
    pub disk_full: Arc<AtomicBool>,
}

impl<R: Send + 'static, P: Send + 'static, J: Send + 'static> DriverThread<R, P, J> {
    /// Runs until it is stopped, or cannot go on.
    pub fn run(mut self) {
        let mut items = Vec::new();
        let mut waiting = Waiting::new();
        let mut outputs = Outputs::default();
        let mut stop = false;
        while !stop && !self.driver.is_stopped() {
            let now = self.clock.now();
            let timeout = self.driver.next_timeout().map(|at| at.since(now));
            self.inbox.items.take(&mut items, timeout);
            let now = self.clock.now();
            for item in items.drain(..) {
                stop |= self.take(now, item, &mut waiting, &mut outputs);
            }
            self.driver.poll(now, &mut outputs);
            self.hand_out(&mut waiting, &mut outputs);
        }
        let now = self.clock.now();
        self.driver.stop(now, &mut outputs);
        self.hand_out(&mut waiting, &mut outputs);
        // Whoever came meanwhile is told as well; whoever comes later is turned away.
        self.board.finish(End::Stopped);
        for item in self.inbox.items.close() {
            self.take(now, item, &mut waiting, &mut outputs);
        }
        self.hand_out(&mut waiting, &mut outputs);
        self.log.push(LogWork::Stop);
        self.apply.push(ApplyWork::Stop);
    }

    /// Takes one thing in; whether it is the order to stop.
    fn take(
        &mut self,
        now: Instant,
        item: Item<R, P>,
        waiting: &mut Waiting<R>,
        outputs: &mut Outputs<R>,
    ) -> bool {
        match item {
            Item::Peer(from, messages, bytes) => {
                self.inbox.taken(messages.len(), bytes);
                for message in messages {
                    self.driver.step(now, Event::<R, P>::Peer { from, message }, outputs);
                }
            }
            Item::Event(event) => self.driver.step(now, event, outputs),
            Item::Request { group, deadline, request, reply } => {
                let token = waiting.enter(reply);
                let event = Event::<R, P>::Request { token, group, deadline, request };
                self.driver.step(now, event, outputs);
            }
            Item::Status(group, reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(self.driver.status(group));
            }
            Item::Stop => return true,
        }
        false
    }

    /// Hands out what a poll brought forth, what takes longest first.
    fn hand_out(&mut self, waiting: &mut Waiting<R>, outputs: &mut Outputs<R>) {
        if let Some(batch) = outputs.batch.take() {
            self.log.push(LogWork::Batch(batch));
        }
        if !outputs.sends.is_empty() {
            self.transport.send(&mut outputs.sends);
        }
        if !outputs.work.is_empty() {
            for (_, work) in &outputs.work {
                if let Work::Apply(entries) = work
                    && let Some(last) = entries.last_index()
                {
                    self.board.set_commit(last);
                }
            }
            self.apply.push_all(outputs.work.drain(..).map(|(_, work)| ApplyWork::Work(work)));
        }
        for (token, result) in outputs.replies.drain(..) {
            waiting.answer(token, result);
        }
        waiting.end_round();
        if let Some(base) = self.driver.applied(self.group) {
            self.board.set_applied(base.position.index);
        }
        for notice in outputs.notices.drain(..) {
            self.notice(notice);
        }
        // A learner is promoted, and a follower becomes one, without a notice.
        if let Some(now) = self.driver.role(self.group)
            && now != self.shown
        {
            self.shown = now;
            self.board.set_role(now.0, now.1, self.term);
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::RoleChanged { role, ballot, leader, .. } => {
                self.term = ballot.round;
                self.shown = (role, leader);
                self.board.set_role(role, leader, self.term);
                tracing::info!(?role, term = ballot.round, %leader, "role or leader changed");
            }
            Notice::SteppedDown { reason, .. } => {
                let full = self.disk_full.load(Relaxed);
                tracing::warn!(?reason, disk_full = full, "gave leadership up");
                if reason == StepDown::Removed {
                    self.board.finish(End::Removed);
                }
            }
            Notice::MembersChanged { base, .. } => self.members_changed(&base),
            Notice::Unreadable { from, reason, .. } => {
                tracing::warn!(%from, reason, "refused a peer's command that cannot be read");
            }
            Notice::Retried { request, .. } => {
                tracing::debug!(sequence = request.sequence, "proposed again");
            }
            Notice::Fatal { reason } => {
                tracing::error!(%reason, "the node cannot go on and stops");
                self.board.finish(End::Failed(reason));
            }
        }
    }

    fn members_changed(&mut self, base: &Base) {
        let membership = &base.membership;
        tracing::info!(?membership, index = base.position.index, "the members changed");
        self.board.membership.lock().clone_from(membership);
        if membership.contains(self.node) {
            self.was_member = true;
        } else if self.was_member && !membership.is_joint() {
            self.board.finish(End::Removed);
        }
    }
}
