//! The driver: routes events to groups, gathers their writes into one batch, keeps their time.
//!
//! Invariant: a poll looks at the groups that something happened to and at those whose time has
//! come, and at no other: a group that is idle costs its heartbeats and nothing else.

use crate::config::DriverConfig;
use crate::event::{Event, Notice, Outputs, RequestError};
use crate::group::{CommandCheck, Context, Engines, Group};
use core::marker::PhantomData;
use quorate_base::{GroupId, Instant, NodeId};
use quorate_replicated_log::{
    Base, Effects, Epoch, Protocol, ReplicatedLog, Role, Status, Write, WriteId,
};
use quorate_wal::{Batch, BatchId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A group, and when and whether it is to be polled.
struct Slot {
    group: Group,
    /// Its entry among the timers.
    timer: Option<Instant>,
    /// Whether it waits for the next poll already.
    stirred: bool,
}

/// All groups of one node.
///
/// The caller's side of the contract: `now` never goes back; after any number of
/// [`Driver::step`]s it calls [`Driver::poll`], carries the outputs out (per neighbour in order),
/// and polls again at [`Driver::next_timeout`] at the latest. `R` is the services' reply.
pub struct Driver<R> {
    config: DriverConfig,
    groups: BTreeMap<GroupId, Slot>,
    /// The groups that something happened to since the last poll.
    stirred: Vec<GroupId>,
    /// The groups that the last poll looked at, in order.
    polled: Vec<GroupId>,
    /// When groups are to be polled though nothing happens to them.
    timers: BTreeSet<(Instant, GroupId)>,
    /// Writes gathered since the last poll.
    writes: Vec<(GroupId, Write)>,
    next_batch: BatchId,
    /// Batches handed to the log, and the last write of each of their groups.
    in_flight: VecDeque<(BatchId, Vec<(GroupId, WriteId)>)>,
    effects: Effects,
    engines: Option<Engines>,
    stopped: bool,
    reply: PhantomData<fn() -> R>,
}

impl<R> Driver<R> {
    /// A driver without groups.
    pub fn new(config: DriverConfig) -> Self {
        Driver {
            config,
            groups: BTreeMap::new(),
            stirred: Vec::new(),
            polled: Vec::new(),
            timers: BTreeSet::new(),
            writes: Vec::new(),
            next_batch: BatchId(1),
            in_flight: VecDeque::new(),
            effects: Effects::default(),
            engines: None,
            stopped: false,
            reply: PhantomData,
        }
    }

    /// Adds a replica, recovered from disk. Its service must be at `log.applied_base()`;
    /// `check` is [`Service::check`](quorate_service::Service::check) of that service.
    pub fn add_group(
        &mut self,
        now: Instant,
        id: GroupId,
        log: Box<dyn ReplicatedLog>,
        check: CommandCheck,
    ) {
        let group = Group::new(id, log, check, &self.config, now);
        let previous = self.groups.insert(id, Slot { group, timer: None, stirred: true });
        assert!(previous.is_none(), "group {id} is added once");
        self.stirred.push(id);
    }

    /// Adds a replica of which the log is told `first`, where it begins, before anything else of
    /// this replica is written.
    pub fn found_group(
        &mut self,
        now: Instant,
        id: GroupId,
        log: Box<dyn ReplicatedLog>,
        check: CommandCheck,
        first: Write,
    ) {
        self.writes.push((id, Write { id: WriteId(0), ..first }));
        self.add_group(now, id, log, check);
    }

    /// Takes a replica away: whoever waits for it is told, and the log forgets all that it holds
    /// of the group with the next batch, even if there is no replica. Whether there was one.
    pub fn remove_group(&mut self, now: Instant, id: GroupId, outputs: &mut Outputs<R>) -> bool {
        let known = self.groups.contains_key(&id);
        self.with(id, now, outputs, |group, cx| group.stop(cx, RequestError::UnknownGroup));
        if let Some(slot) = self.groups.remove(&id)
            && let Some(at) = slot.timer
        {
            self.timers.remove(&(at, id));
        }
        outputs.sends.retain(|(_, message)| message.group() != id);
        outputs.work.retain(|(group, _)| *group != id);
        self.writes.retain(|(group, _)| *group != id);
        // Their numbers mean nothing to a replica that may be added later.
        for (_, writes) in &mut self.in_flight {
            writes.retain(|(group, _)| *group != id);
        }
        if !self.stopped {
            self.writes.push((id, Write::forget()));
        }
        known
    }

    /// Sets what makes the engines of epochs that begin while the node runs.
    pub fn set_engines(&mut self, engines: Engines) {
        self.engines = Some(engines);
    }

    /// Takes one event in.
    pub fn step<P>(&mut self, now: Instant, event: Event<R, P>, outputs: &mut Outputs<R>) {
        if self.stopped {
            if let Event::Request { token, .. } = event {
                outputs.replies.push((token, Err(RequestError::Stopped)));
            }
            return;
        }
        match event {
            Event::Peer { from, message } => {
                let id = message.group();
                self.with(id, now, outputs, |group, cx| group.peer(cx, from, message));
            }
            Event::PeerLost { node } => {
                let ids: Vec<GroupId> = self.groups.keys().copied().collect();
                for id in ids {
                    self.with(id, now, outputs, |group, cx| group.peer_lost(cx, node));
                }
            }
            Event::Request { token, group: id, deadline, request } => {
                if !self.groups.contains_key(&id) {
                    outputs.replies.push((token, Err(RequestError::UnknownGroup)));
                    return;
                }
                self.with(id, now, outputs, |group, cx| {
                    group.request(cx, token, deadline, request);
                });
            }
            Event::LogDone { batch, result } => self.log_done(now, batch, result, outputs),
            Event::LogHeld { by } => {
                for (id, index) in by {
                    self.with(id, now, outputs, |group, cx| group.let_go(cx, index));
                }
            }
            Event::ServiceDone { group: id, done } => {
                self.with(id, now, outputs, |group, cx| group.done(cx, done));
            }
        }
    }

    fn log_done(
        &mut self,
        now: Instant,
        batch: BatchId,
        result: Result<(), String>,
        outputs: &mut Outputs<R>,
    ) {
        if let Err(reason) = result {
            // Never retried (a failed sync may have lost any of it): the node stops, and recovers
            // from what is really on disk when it starts again.
            let reason = format!("the log failed: {reason}");
            outputs.notices.push(Notice::Fatal { reason });
            self.stop(now, outputs);
            return;
        }
        let Some((expected, writes)) = self.in_flight.pop_front() else { return };
        assert_eq!(expected, batch, "the log completes batches in order");
        for (id, write) in writes {
            self.with(id, now, outputs, |group, cx| group.written(cx, write));
        }
    }

    /// Does what is due, offers what has gathered, and emits the batch for the log.
    pub fn poll(&mut self, now: Instant, outputs: &mut Outputs<R>) {
        if self.stopped {
            return;
        }
        self.take_due(now);
        for at in 0..self.polled.len() {
            self.poll_group(now, self.polled[at], outputs);
        }
        if outputs.notices.iter().any(|notice| matches!(notice, Notice::Fatal { .. })) {
            self.stop(now, outputs);
        } else if !self.writes.is_empty() {
            outputs.batch = Some(self.batch());
        }
    }

    /// Makes the list of the groups that are to be polled now.
    fn take_due(&mut self, now: Instant) {
        self.polled.clear();
        self.polled.append(&mut self.stirred);
        while let Some(&(at, id)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(slot) = self.groups.get_mut(&id) {
                slot.timer = None;
                if !slot.stirred {
                    self.polled.push(id);
                }
            }
        }
        self.polled.sort_unstable();
    }

    fn poll_group(&mut self, now: Instant, id: GroupId, outputs: &mut Outputs<R>) {
        let Some(slot) = self.groups.get_mut(&id) else { return };
        slot.stirred = false;
        slot.group.poll(&mut Context {
            now,
            config: &self.config,
            outputs,
            writes: &mut self.writes,
            effects: &mut self.effects,
            engines: self.engines.as_ref(),
        });
        let grid = self.config.grid_of(id);
        let leads = slot.group.role() == Role::Leader;
        let timer = slot.group.next_timeout().map(|at| if leads { on_grid(at, grid) } else { at });
        if timer != slot.timer {
            if let Some(at) = core::mem::replace(&mut slot.timer, timer) {
                self.timers.remove(&(at, id));
            }
            if let Some(at) = timer {
                self.timers.insert((at, id));
            }
        }
    }

    fn batch(&mut self) -> Batch {
        let writes = core::mem::take(&mut self.writes);
        let mut last: BTreeMap<GroupId, WriteId> = BTreeMap::new();
        for (group, write) in &writes {
            if write.id == WriteId(0) {
                continue; // The driver's own: nobody waits for it.
            }
            let previous = last.insert(*group, write.id);
            assert!(previous < Some(write.id), "a group's writes are numbered upwards");
        }
        let id = self.next_batch;
        self.next_batch = BatchId(id.0 + 1);
        self.in_flight.push_back((id, last.into_iter().collect()));
        Batch { id, writes }
    }

    /// When [`Driver::poll`] is due though nothing happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.stirred.is_empty() {
            true => self.timers.first().map(|(at, _)| *at),
            false => Some(Instant::ZERO),
        }
    }

    /// Ends the driver: everyone who waits is told, and nothing leaves any more.
    pub fn stop(&mut self, now: Instant, outputs: &mut Outputs<R>) {
        self.stopped = true;
        self.writes.clear();
        outputs.batch = None;
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in ids {
            self.with(id, now, outputs, |group, cx| group.stop(cx, RequestError::Stopped));
        }
        outputs.sends.clear();
    }

    /// Whether it has stopped, by request or after a failure.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn with(
        &mut self,
        id: GroupId,
        now: Instant,
        outputs: &mut Outputs<R>,
        work: impl FnOnce(&mut Group, &mut Context<'_, R>),
    ) {
        // An unknown group's messages are dropped: the group was removed, or is yet to come.
        if let Some(slot) = self.groups.get_mut(&id) {
            if !slot.stirred {
                slot.stirred = true;
                self.stirred.push(id);
            }
            let mut cx = Context {
                now,
                config: &self.config,
                outputs,
                writes: &mut self.writes,
                effects: &mut self.effects,
                engines: self.engines.as_ref(),
            };
            work(&mut slot.group, &mut cx);
        }
    }

    /// Everything a replica knows of itself.
    pub fn status(&self, group: GroupId) -> Option<Status> {
        self.groups.get(&group).map(|slot| slot.group.status())
    }

    /// The epoch and the protocol of a replica's log: cheap.
    pub fn epoch(&self, group: GroupId) -> Option<(Epoch, Protocol)> {
        self.groups.get(&group).map(|slot| slot.group.epoch())
    }

    /// A replica's role and the leader it knows of: cheap.
    pub fn role(&self, group: GroupId) -> Option<(Role, NodeId)> {
        self.groups.get(&group).map(|slot| (slot.group.role(), slot.group.leader()))
    }

    /// The last applied position of a replica, and its members there: cheap.
    pub fn applied(&self, group: GroupId) -> Option<&Base> {
        self.groups.get(&group).map(|slot| slot.group.applied())
    }

    /// The groups that the last poll looked at: nothing can have changed about any other.
    pub fn polled(&self) -> &[GroupId] {
        &self.polled
    }

    /// The groups on this node.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied()
    }
}

/// The first multiple of `grid` that is not before `at`.
fn on_grid(at: Instant, grid: core::time::Duration) -> Instant {
    let step = u64::try_from(grid.as_nanos()).unwrap_or(u64::MAX).max(1);
    Instant(at.0.div_ceil(step).saturating_mul(step))
}
