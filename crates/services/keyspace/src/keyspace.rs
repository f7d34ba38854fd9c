//! The keyspace as a service: entries in, state, replies and events out.
//!
//! Invariant: one call of [`Service::apply`] is one atomic batch of the store: keys, leases,
//! sessions, members and the base change together or not at all, so that replaying the log after
//! a crash continues exactly where the store ends.

use crate::asked::Asks;
use crate::batch::{Answers, Batch};
use crate::branch::{BranchInfo, Branches, LockConfig, Patience};
use crate::canary::{Bug, Canary};
use crate::codec;
use crate::command::Member;
use crate::lessor::{Lessor, LessorConfig};
use crate::question::{LeaseAnswer, Question};
use crate::reader::Reader;
use crate::reply::Reply;
use crate::snapshot;
use crate::state::{Shared, State, failed};
use bytes::Bytes;
use quorate_base::Instant;
use quorate_base::codec::DecodeError;
use quorate_mvcc::{Engine, Event, LeaseId, Revision, Store};
use quorate_replicated_log::{Base, Entries};
use quorate_service::{Applied, Persist, Service, ServiceError, SnapshotSink, SnapshotSource};
use std::sync::Arc;

/// Settings of a keyspace. All but `lessor` and `locks` must be the same on every replica.
#[derive(Clone, Default, Debug)]
pub struct Config {
    /// Where an unused store begins: the log's base and the members that the cluster is made of.
    pub base: Base,
    /// See `base`.
    pub members: Vec<Member>,
    /// The leader's lease clock.
    pub lessor: LessorConfig,
    /// The leader's clock of those who wait for locks.
    pub locks: LockConfig,
    /// A deliberate bug, for tests.
    pub canary: Canary,
    /// A deliberate bug of the store below, for tests.
    pub store_canary: quorate_mvcc::Canary,
}

/// What a batch of entries changed, for watchers: every event of the revisions after `before` up
/// to `revision`, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventBatch {
    /// The store's revision before.
    pub before: Revision,
    /// The store's revision after.
    pub revision: Revision,
    /// What happened between. At least one event for every revision, but for those that took
    /// nothing but names.
    pub events: Arc<[Event]>,
}

/// Changes walked over after each batch, and before each persist, while there is something that
/// compaction left to be removed.
const SCRUB_PER_BATCH: usize = 256;
const SCRUB_PER_PERSIST: usize = 8_192;

/// etcd's data model, replicated.
pub struct Keyspace<E: Engine> {
    store: Store<E>,
    state: State,
    lessor: Lessor,
    patience: Patience,
    config: Config,
    /// Whether compaction has left something to be removed.
    scrubbing: bool,
    /// Why it cannot go on: what is in memory may be ahead of the store then.
    stopped: Option<ServiceError>,
}

impl<E: Engine> Keyspace<E> {
    /// The keyspace that an engine holds; an empty engine becomes a new keyspace as `config` says.
    pub fn open(engine: E, config: Config) -> Result<Self, ServiceError> {
        let mut store = Store::open_with(engine, config.store_canary).map_err(failed)?;
        let shared = Arc::new(Shared::default());
        let state = shared.clone().replace(|| {
            match State::load(&store, shared.clone(), config.base.protocol)? {
                Some(mut state) => {
                    if config.canary.sings(Bug::LocksLostAtRestart) {
                        state.branches = Branches::default();
                    }
                    Ok(state)
                }
                None => {
                    let (base, members) = (config.base.clone(), config.members.clone());
                    State::create(&mut store, shared, base, members)
                }
            }
        })?;
        if store.applied() != state.base.position.index {
            return Err(ServiceError::Disk(format!(
                "the store ends at entry {}, the keyspace in it at {}",
                store.applied(),
                state.base.position.index
            )));
        }
        let lessor = Lessor::new(config.lessor, config.canary);
        let patience = Patience::new(config.locks);
        Ok(Keyspace { store, state, lessor, patience, config, scrubbing: true, stopped: None })
    }

    /// For reading from other threads.
    pub fn reader(&self) -> Reader<E> {
        Reader::new(self.store.reader(), self.state.shared.clone())
    }

    /// The branches of distributed transactions that are known here, in order of id: those that
    /// wait or are in doubt, and the outcomes that may not be forgotten yet.
    pub fn branches(&self) -> Vec<BranchInfo> {
        self.state.branches.list()
    }
}

impl<E: Engine> Service for Keyspace<E> {
    type Reply = Reply;
    type Publication = EventBatch;

    fn check(body: &Bytes) -> Result<(), DecodeError> {
        codec::decode(body.clone()).map(drop)
    }

    fn base(&self) -> Base {
        self.state.base.clone()
    }

    fn apply(
        &mut self,
        entries: &Entries,
        applied: &mut Applied<Reply, EventBatch>,
    ) -> Result<(), ServiceError> {
        self.check_stopped()?;
        let replies = applied.replies.len();
        let done = self.apply_batch(entries, applied);
        if let Err(why) = &done {
            applied.replies.truncate(replies);
            self.stopped = Some(why.clone());
        }
        done
    }

    fn persist(&mut self) -> Persist {
        if let Err(why) = self.scrub(SCRUB_PER_PERSIST) {
            return Box::new(move || Err(why));
        }
        let job = self.store.persister();
        Box::new(move || job().map_err(failed))
    }

    fn lead(&mut self, now: Instant) {
        let leases: Vec<(LeaseId, i64, i64)> = self.state.shared.leases(|leases| {
            let facts = |(id, l): (LeaseId, &crate::leases::Lease)| {
                (id, l.ttl_seconds, l.remaining_seconds)
            };
            leases.iter().map(facts).collect()
        });
        self.lessor.promote(now, leases.into_iter());
        self.patience.promote(now, &self.state.branches);
    }

    fn follow(&mut self) {
        self.lessor.demote();
        self.patience.demote();
    }

    fn tick(&mut self, now: Instant, commands: &mut Vec<Bytes>) {
        let mut due = Vec::new();
        self.lessor.tick(now, self.state.base.position.ballot, &mut due);
        self.patience.tick(now, &self.state.branches, &mut due);
        // The clock's own commands are flat: they all have an encoding.
        commands.extend(due.iter().filter_map(|command| codec::encode(command).ok()));
    }

    fn next_timeout(&self) -> Option<Instant> {
        let waiting = self.patience.next_timeout(&self.state.branches);
        [self.lessor.next_timeout(), waiting].into_iter().flatten().min()
    }

    fn query(&mut self, now: Instant, question: Bytes) -> Result<Bytes, ServiceError> {
        let question = Question::decode(question)
            .map_err(|e| ServiceError::Caller(format!("a question about a lease: {e}")))?;
        let answer = match question {
            Question::KeepAlive { id } => match self.lessor.keep_alive(now, id) {
                Some(ttl_seconds) => LeaseAnswer::KeptAlive { ttl_seconds },
                None => LeaseAnswer::NotFound,
            },
            Question::TimeToLive { id, keys } => match self.lessor.time_to_live(now, id) {
                Some((granted_seconds, remaining_seconds)) => LeaseAnswer::Lives {
                    granted_seconds,
                    remaining_seconds,
                    keys: if keys { self.attached(id) } else { Vec::new() },
                },
                None => LeaseAnswer::NotFound,
            },
        };
        Ok(answer.encode())
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, ServiceError> {
        self.check_stopped()?;
        snapshot::open(&self.store, self.base())
    }

    fn receive(&mut self, base: Base) -> Result<Box<dyn SnapshotSink>, ServiceError> {
        snapshot::receive(&self.store, base, self.config.canary)
    }

    fn install(&mut self, received: Box<dyn SnapshotSink>) -> Result<(), ServiceError> {
        let base = received.base();
        let (shared, unnamed) = (self.state.shared.clone(), self.config.base.protocol);
        let state = shared.replace(|| {
            snapshot::install(&mut self.store, received)?;
            let state = State::load(&self.store, shared.clone(), unnamed)?;
            state.ok_or_else(|| ServiceError::Peer("the snapshot is of no keyspace".into()))
        })?;
        if state.base != base {
            return Err(ServiceError::Peer("the snapshot ends elsewhere than was said".into()));
        }
        self.state = state;
        self.scrubbing = true;
        self.lessor.demote();
        self.patience.demote();
        Ok(())
    }
}

impl<E: Engine> Keyspace<E> {
    fn apply_batch(
        &mut self,
        entries: &Entries,
        applied: &mut Answers,
    ) -> Result<(), ServiceError> {
        let Some(last) = entries.last_index() else { return Ok(()) };
        let first = self.state.base.position.index + 1;
        if last < first {
            return Ok(());
        }
        let (before, compacted) = (self.store.revision(), self.store.compacted_revision());
        let mut txn = self.store.begin();
        let mut batch = Batch {
            txn: &mut txn,
            state: &mut self.state,
            lessor: &mut self.lessor,
            canary: self.config.canary,
            sessions: Vec::new(),
            asks: Asks::default(),
        };
        let new = entries.iter().filter(|entry| entry.index >= first);
        for (entry, expected) in new.zip(first..) {
            assert_eq!(entry.index, expected, "entries are applied without a gap");
            batch.entry(entry, applied)?;
        }
        let (sessions, asks) = (batch.sessions, batch.asks);
        for node in sessions {
            self.state.write_session(&mut txn, node);
        }
        self.state.write_base(&mut txn);
        let events = txn.take_events();
        let revision = txn.revision();
        let mut changes = self.state.branches.take_changes();
        if self.config.canary.sings(Bug::ReadIgnoresLocks) {
            changes.clear();
        }
        if changes.is_empty() {
            txn.commit(last).map_err(failed)?;
        } else {
            // A reader sees the locks and the keys of the same batch, or of the one before.
            self.state.shared.change_locks(changes, || txn.commit(last).map_err(failed))?;
        }
        self.state.shared.tell_branches(&self.state.branches);
        self.state.shared.count_asked(&asks);
        if revision > before {
            applied.publications.push(EventBatch { before, revision, events: events.into() });
        }
        self.scrubbing |= self.store.compacted_revision() > compacted;
        self.scrub(SCRUB_PER_BATCH)
    }

    /// Removes a bounded piece of what compaction freed: never enough to be noticed.
    fn scrub(&mut self, max_changes: usize) -> Result<(), ServiceError> {
        if self.scrubbing {
            self.scrubbing = self.store.scrub(max_changes).map_err(failed)?;
        }
        Ok(())
    }

    fn check_stopped(&self) -> Result<(), ServiceError> {
        match &self.stopped {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }

    fn attached(&self, id: LeaseId) -> Vec<Bytes> {
        self.state.shared.leases(|leases| match leases.get(id) {
            Some(lease) => lease.keys.iter().cloned().collect(),
            None => Vec::new(),
        })
    }
}
