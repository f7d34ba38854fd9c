//! The driver: routes events to groups, gathers their writes into one batch, keeps their time.

use crate::config::DriverConfig;
use crate::event::{Event, Notice, Outputs, RequestError};
use crate::group::{CommandCheck, Context, Group};
use core::marker::PhantomData;
use quorate_base::{GroupId, Instant, NodeId};
use quorate_replicated_log::{Base, Effects, ReplicatedLog, Role, Status, Write, WriteId};
use quorate_wal::{Batch, BatchId};
use std::collections::{BTreeMap, VecDeque};

/// All groups of one node.
///
/// The caller's side of the contract: `now` never goes back; after any number of
/// [`Driver::step`]s it calls [`Driver::poll`], carries the outputs out (per neighbour in order),
/// and polls again at [`Driver::next_timeout`] at the latest. `R` is the services' reply.
pub struct Driver<R> {
    config: DriverConfig,
    groups: BTreeMap<GroupId, Group>,
    /// Writes gathered since the last poll.
    writes: Vec<(GroupId, Write)>,
    next_batch: BatchId,
    /// Batches handed to the log, and the last write of each of their groups.
    in_flight: VecDeque<(BatchId, Vec<(GroupId, WriteId)>)>,
    effects: Effects,
    stopped: bool,
    reply: PhantomData<fn() -> R>,
}

impl<R> Driver<R> {
    /// A driver without groups.
    pub fn new(config: DriverConfig) -> Self {
        Driver {
            config,
            groups: BTreeMap::new(),
            writes: Vec::new(),
            next_batch: BatchId(1),
            in_flight: VecDeque::new(),
            effects: Effects::default(),
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
        let previous = self.groups.insert(id, group);
        assert!(previous.is_none(), "group {id} is added once");
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
        let mut groups = core::mem::take(&mut self.groups);
        for group in groups.values_mut() {
            group.poll(&mut Context {
                now,
                config: &self.config,
                outputs,
                writes: &mut self.writes,
                effects: &mut self.effects,
            });
        }
        self.groups = groups;
        if outputs.notices.iter().any(|notice| matches!(notice, Notice::Fatal { .. })) {
            self.stop(now, outputs);
        } else if !self.writes.is_empty() {
            outputs.batch = Some(self.batch());
        }
    }

    fn batch(&mut self) -> Batch {
        let writes = core::mem::take(&mut self.writes);
        let mut last: BTreeMap<GroupId, WriteId> = BTreeMap::new();
        for (group, write) in &writes {
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
        self.groups.values().filter_map(Group::next_timeout).min()
    }

    /// Ends the driver: everyone who waits is told, and nothing leaves any more.
    pub fn stop(&mut self, now: Instant, outputs: &mut Outputs<R>) {
        self.stopped = true;
        self.writes.clear();
        outputs.batch = None;
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in ids {
            self.with(id, now, outputs, |group, cx| group.stop(cx));
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
        if let Some(group) = self.groups.get_mut(&id) {
            let mut cx = Context {
                now,
                config: &self.config,
                outputs,
                writes: &mut self.writes,
                effects: &mut self.effects,
            };
            work(group, &mut cx);
        }
    }

    /// Everything a replica knows of itself.
    pub fn status(&self, group: GroupId) -> Option<Status> {
        self.groups.get(&group).map(Group::status)
    }

    /// A replica's role and the leader it knows of: cheap.
    pub fn role(&self, group: GroupId) -> Option<(Role, NodeId)> {
        self.groups.get(&group).map(|group| (group.role(), group.leader()))
    }

    /// The last applied position of a replica, and its members there: cheap.
    pub fn applied(&self, group: GroupId) -> Option<&Base> {
        self.groups.get(&group).map(Group::applied)
    }

    /// The groups on this node.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied()
    }
}
