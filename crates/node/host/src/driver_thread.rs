//! The thread that drives: takes all that happened, steps, hands out what follows.
//!
//! Invariant: it never waits for anything but its inbox. What it hands out goes into other
//! threads' mailboxes, or straight to a socket that takes it at once.

use crate::apply_thread::ApplyWork;
use crate::board::Board;
use crate::ending::Ending;
use crate::error::End;
use crate::handle::KEYSPACE;
use crate::hosted::Opening;
use crate::inbox::{Inbox, Item};
use crate::mailbox::Mailbox;
use crate::waiting::Waiting;
use quorate_base::{GroupId, Instant, NodeId};
use quorate_disk::{Clock, OsClock};
use quorate_driver::{Driver, Event, Notice, Outputs, Work};
use quorate_replicated_log::{Base, Role, StepDown};
use quorate_service::Service;
use quorate_transport::Transport;
use quorate_wal::{Batch, BatchId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// For the log thread.
pub(crate) enum LogWork {
    /// Make this durable.
    Batch(Batch),
    /// End.
    Stop,
}

/// The mailbox of an apply thread.
type Apply<S> = Arc<Mailbox<ApplyWork<S>>>;

/// A group, as this thread sees it.
pub(crate) struct Post<S: Service> {
    pub board: Arc<Board>,
    /// Where its service's work goes.
    pub apply: Apply<S>,
    /// What the board shows.
    pub shown: (Role, NodeId),
    pub term: u64,
}

/// Everything the driver thread holds.
pub(crate) struct DriverThread<S: Service> {
    pub clock: OsClock,
    pub driver: Driver<S::Reply>,
    pub inbox: Arc<Inbox<S>>,
    pub transport: Arc<Transport>,
    pub log: Arc<Mailbox<LogWork>>,
    /// Every apply thread's mailbox.
    pub applies: Vec<Apply<S>>,
    pub posts: BTreeMap<GroupId, Post<S>>,
    /// Closed groups that the log forgets with that batch; then their state can go as well.
    pub closing: VecDeque<(BatchId, GroupId, Apply<S>)>,
    pub ending: Arc<Ending>,
    pub node: NodeId,
    /// Whether this node was ever among the members of the cluster, those of the default
    /// keyspace: then no longer being one is an end.
    pub was_member: bool,
    /// Set while the log waits for room on the disk: its writes stall, and that is no fault.
    pub disk_full: Arc<AtomicBool>,
}

impl<S: Service> DriverThread<S> {
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
        self.ending.finish(End::Stopped);
        for item in self.inbox.items.close() {
            self.take(now, item, &mut waiting, &mut outputs);
        }
        self.hand_out(&mut waiting, &mut outputs);
        self.log.push(LogWork::Stop);
        for apply in &self.applies {
            apply.push(ApplyWork::Stop);
        }
    }

    /// Takes one thing in; whether it is the order to stop.
    fn take(
        &mut self,
        now: Instant,
        item: Item<S>,
        waiting: &mut Waiting<S::Reply>,
        outputs: &mut Outputs<S::Reply>,
    ) -> bool {
        match item {
            Item::Peer(from, messages, bytes) => {
                self.inbox.taken(messages.len(), bytes);
                for message in messages {
                    self.driver.step(
                        now,
                        Event::<S::Reply, S::Publication>::Peer { from, message },
                        outputs,
                    );
                }
            }
            Item::Event(event) => {
                if let Event::LogDone { batch, result: Ok(()) } = &event {
                    self.forgotten(*batch);
                }
                self.driver.step(now, event, outputs);
            }
            Item::Request { group, deadline, request, reply } => {
                let token = waiting.enter(reply);
                let event =
                    Event::<S::Reply, S::Publication>::Request { token, group, deadline, request };
                self.driver.step(now, event, outputs);
            }
            Item::Status(group, reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(self.driver.status(group));
            }
            Item::Open(opening) => self.open(now, *opening, outputs),
            Item::Close(group) => {
                self.driver.remove_group(now, group, outputs);
            }
            Item::Stop => return true,
        }
        false
    }

    /// Hands out what a poll brought forth, what takes longest first.
    fn hand_out(&mut self, waiting: &mut Waiting<S::Reply>, outputs: &mut Outputs<S::Reply>) {
        if let Some(batch) = outputs.batch.take() {
            self.note_closed(&batch);
            self.log.push(LogWork::Batch(batch));
        }
        if !outputs.sends.is_empty() {
            self.transport.send(&mut outputs.sends);
        }
        if !outputs.work.is_empty() {
            self.hand_work_out(&mut outputs.work);
        }
        for (token, result) in outputs.replies.drain(..) {
            waiting.answer(token, result);
        }
        waiting.end_round();
        for notice in outputs.notices.drain(..) {
            self.notice(notice);
        }
        for group in self.driver.polled() {
            let Some(post) = self.posts.get_mut(group) else { continue };
            if let Some(base) = self.driver.applied(*group) {
                post.board.set_applied(base.position.index);
            }
            // A learner is promoted, and a follower becomes one, without a notice.
            if let Some(now) = self.driver.role(*group)
                && now != post.shown
            {
                post.shown = now;
                post.board.set_role(now.0, now.1, post.term);
            }
        }
    }

    /// Hands the services their work: what is for one thread goes together.
    fn hand_work_out(&self, work: &mut Vec<(GroupId, Work)>) {
        let mut batch = Vec::new();
        let mut to: Option<&Apply<S>> = None;
        for (group, work) in work.drain(..) {
            let Some(post) = self.posts.get(&group) else { continue };
            if let Work::Apply(entries) = &work
                && let Some(last) = entries.last_index()
            {
                post.board.set_commit(last);
            }
            if let Some(before) = to.filter(|to| !Arc::ptr_eq(to, &post.apply)) {
                before.push_all(batch.drain(..));
            }
            to = Some(&post.apply);
            batch.push(ApplyWork::Work(group, work));
        }
        if let Some(to) = to {
            to.push_all(batch);
        }
    }

    fn open(&mut self, now: Instant, opening: Opening<S>, outputs: &mut Outputs<S::Reply>) {
        let Opening { group, log, check, first, seat, post } = opening;
        // Nothing of an earlier replica may reach this one.
        outputs.work.retain(|(known, _)| *known != group);
        post.apply.push(ApplyWork::Open(Box::new(seat)));
        self.posts.insert(group, post);
        match first {
            Some(first) => self.driver.found_group(now, group, log, check, first),
            None => self.driver.add_group(now, group, log, check),
        }
    }

    /// Remembers which groups the log forgets with this batch.
    fn note_closed(&mut self, batch: &Batch) {
        for (group, write) in &batch.writes {
            if write.is_forget()
                && let Some(post) = self.posts.remove(group)
            {
                self.closing.push_back((batch.id, *group, post.apply));
            }
        }
    }

    /// Batches up to this one are durable: the state of what was closed with them can go.
    fn forgotten(&mut self, batch: BatchId) {
        while let Some((with, group, apply)) = self.closing.pop_front() {
            if with > batch {
                self.closing.push_front((with, group, apply));
                return;
            }
            apply.push(ApplyWork::Close(group));
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::RoleChanged { group, role, ballot, leader, .. } => {
                if let Some(post) = self.posts.get_mut(&group) {
                    post.term = ballot.round;
                    post.shown = (role, leader);
                    post.board.set_role(role, leader, post.term);
                }
                let term = ballot.round;
                tracing::info!(%group, ?role, term, %leader, "role or leader changed");
            }
            Notice::Blocked { group, first, last } => {
                tracing::error!(
                    %group,
                    first,
                    last,
                    "the group stands still: these entries of its log may have been acknowledged, \
                     and not enough of its replicas can read them: start the members that are \
                     down; if none of them holds the entries any more, restore from a backup"
                );
            }
            Notice::SteppedDown { group, reason } => {
                let full = self.disk_full.load(Relaxed);
                tracing::warn!(%group, ?reason, disk_full = full, "gave leadership up");
                if reason == StepDown::Removed && group == KEYSPACE {
                    self.ending.finish(End::Removed);
                }
            }
            Notice::MembersChanged { group, base } => self.members_changed(group, &base),
            Notice::EpochOpened { group, base } => {
                let (index, protocol) = (base.position.index, base.protocol);
                if let Some(post) = self.posts.get(&group) {
                    post.board.set_epoch(base.epoch, protocol);
                }
                tracing::info!(%group, epoch = base.epoch.0, %protocol, index, "opened an epoch");
            }
            Notice::Unreadable { group, from, reason } => {
                tracing::warn!(%group, %from, reason, "refused a peer's unreadable command");
            }
            Notice::Retried { request, .. } => {
                tracing::debug!(sequence = request.sequence, "proposed again");
            }
            Notice::Fatal { reason } => {
                tracing::error!(%reason, "the node cannot go on and stops");
                self.ending.finish(End::Failed(reason));
            }
        }
    }

    fn members_changed(&mut self, group: GroupId, base: &Base) {
        let membership = &base.membership;
        tracing::info!(%group, ?membership, index = base.position.index, "the members changed");
        if let Some(post) = self.posts.get(&group) {
            post.board.membership.lock().clone_from(membership);
        }
        if group != KEYSPACE {
            return;
        }
        if membership.contains(self.node) {
            self.was_member = true;
        } else if self.was_member && !membership.is_joint() {
            self.ending.finish(End::Removed);
        }
    }
}
