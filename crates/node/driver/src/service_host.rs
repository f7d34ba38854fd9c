//! Runs one group's service: work in, finished work out. A thread of its own runs it in
//! production, the simulator runs it in virtual time.

use crate::event::{Done, ReceiveState, Work};
use quorate_base::{Instant, NodeId};
use quorate_replicated_log::{Base, Entries};
use quorate_service::{
    Applied, Persist, Service, ServiceError, SnapshotChunk, SnapshotSink, SnapshotSource,
};
use std::collections::BTreeMap;

/// Bytes of one part of a snapshot, about.
const PART_BYTES: usize = 1 << 20;

/// A service and the snapshots it is sending and receiving.
pub struct ServiceHost<S: Service> {
    service: S,
    leading: bool,
    sources: BTreeMap<NodeId, Source>,
    sink: Option<Sink>,
    part_bytes: usize,
    damaged: bool,
    /// It could not apply something: nothing that follows can be applied.
    failed: bool,
}

struct Source {
    session: u64,
    source: Box<dyn SnapshotSource>,
    /// The part produced last, kept because it may have to be sent again.
    part: u64,
    chunk: SnapshotChunk,
}

struct Sink {
    from: NodeId,
    session: u64,
    sink: Box<dyn SnapshotSink>,
    next: u64,
}

type Finished<S> = Vec<Done<<S as Service>::Reply, <S as Service>::Publication>>;

impl<S: Service> ServiceHost<S> {
    /// Hosts a service, recovered from disk.
    pub fn new(service: S) -> Self {
        ServiceHost {
            service,
            leading: false,
            sources: BTreeMap::new(),
            sink: None,
            part_bytes: PART_BYTES,
            damaged: false,
            failed: false,
        }
    }

    /// Sets the size of a part of a snapshot, in bytes.
    pub fn with_part_bytes(mut self, bytes: usize) -> Self {
        self.part_bytes = bytes;
        self
    }

    /// The service.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// Whether the service's durable state turned out damaged: it must not be opened again.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// The service, for its host's own needs.
    pub fn service_mut(&mut self) -> &mut S {
        &mut self.service
    }

    /// Does one piece of work and adds what is finished to `done`. A returned job is to be run
    /// beside further work; its result is the matching `Done::Persisted` or `Done::Failed`.
    pub fn run(&mut self, now: Instant, work: Work, done: &mut Finished<S>) -> Option<Persist> {
        match work {
            Work::Apply(entries) => self.apply(&entries, done),
            Work::Lead => {
                self.leading = true;
                self.service.lead(now);
            }
            Work::Follow => {
                self.leading = false;
                self.service.follow();
            }
            Work::Tick => {
                let mut commands = Vec::new();
                if self.leading {
                    self.service.tick(now, &mut commands);
                }
                done.push(Done::Ticked { commands });
            }
            Work::Query { id, question } => {
                // Work is done in order: if leadership ended before, `Follow` came before.
                let answer = match self.leading {
                    true => self.service.query(now, question).ok(),
                    false => None,
                };
                done.push(Done::Told { id, answer });
            }
            Work::Persist => return Some(self.service.persist()),
            Work::SnapshotOpen { to, session } => self.open(to, session, done),
            Work::SnapshotPart { to, session, part } => self.part(to, session, part, done),
            Work::SnapshotClose { to } => {
                self.sources.remove(&to);
            }
            Work::Receive { from, session, base, part, chunk } => {
                let state = self.receive(from, session, &base, part, chunk);
                done.push(Done::Received { from, session, base, state });
            }
        }
        let at = if self.leading { self.service.next_timeout() } else { None };
        done.push(Done::Timeout { at });
        None
    }

    fn apply(&mut self, entries: &Entries, done: &mut Finished<S>) {
        if self.failed {
            return; // The replica ends; what waited behind what failed is not applied any more.
        }
        let applied_to = self.service.base().position.index;
        let known = entries.iter().take_while(|entry| entry.index <= applied_to).count();
        let entries = entries.slice(known..entries.len());
        let Some(first) = entries.first_index() else { return };
        assert_eq!(first, applied_to + 1, "committed entries come without a gap");
        let mut applied = Applied::default();
        match self.service.apply(&entries, &mut applied) {
            Ok(()) => done.push(Done::Applied { base: self.service.base(), applied }),
            Err(error) => {
                self.damaged |= matches!(error, ServiceError::Damaged(_));
                self.failed = true;
                done.push(Done::Failed { reason: error.to_string() });
            }
        }
    }

    fn open(&mut self, to: NodeId, session: u64, done: &mut Finished<S>) {
        let opened = self.service.snapshot().and_then(|mut source| {
            let chunk = source.next_chunk(self.part_bytes)?;
            Ok(Source { session, source, part: 0, chunk })
        });
        match opened {
            Ok(source) => {
                let (base, chunk) = (source.source.base(), Some(source.chunk.clone()));
                self.sources.insert(to, source);
                done.push(Done::SnapshotPart { to, session, base, part: 0, chunk });
            }
            Err(_) => {
                let base = self.service.base();
                done.push(Done::SnapshotPart { to, session, base, part: 0, chunk: None });
            }
        }
    }

    fn part(&mut self, to: NodeId, session: u64, part: u64, done: &mut Finished<S>) {
        let produced = self.sources.get_mut(&to).filter(|s| s.session == session).and_then(|s| {
            let base = s.source.base();
            if part == s.part {
                return Some((base, s.chunk.clone()));
            }
            if part != s.part + 1 || s.chunk.last {
                return None; // Only the present part and the next can be had.
            }
            s.chunk = s.source.next_chunk(self.part_bytes).ok()?;
            s.part = part;
            Some((base, s.chunk.clone()))
        });
        let (base, chunk) = match produced {
            Some((base, chunk)) => (base, Some(chunk)),
            None => (self.service.base(), None),
        };
        done.push(Done::SnapshotPart { to, session, base, part, chunk });
    }

    fn receive(
        &mut self,
        from: NodeId,
        session: u64,
        base: &Base,
        part: u64,
        chunk: SnapshotChunk,
    ) -> ReceiveState {
        if base.position.index <= self.service.base().position.index {
            self.sink = None;
            return ReceiveState::Failed; // Outdated by now: the log goes on without it.
        }
        let last = chunk.last;
        match self.take_part(from, session, base, part, chunk) {
            Ok(Some(next)) => ReceiveState::Wants(next),
            Ok(None) if last => match self.sink.take() {
                Some(sink) => match self.service.install(sink.sink) {
                    Ok(()) => ReceiveState::Installed,
                    Err(_) => ReceiveState::Failed,
                },
                None => ReceiveState::Failed,
            },
            Ok(None) | Err(_) => {
                self.sink = None;
                ReceiveState::Failed
            }
        }
    }

    /// The part wanted next, or nothing after the last.
    fn take_part(
        &mut self,
        from: NodeId,
        session: u64,
        base: &Base,
        part: u64,
        chunk: SnapshotChunk,
    ) -> Result<Option<u64>, ServiceError> {
        if part == 0 {
            let sink = self.service.receive(base.clone())?;
            self.sink = Some(Sink { from, session, sink, next: 0 });
        }
        let Some(sink) = &mut self.sink else { return Ok(Some(0)) };
        if (sink.from, sink.session) != (from, session) || sink.sink.base() != *base {
            return Ok(Some(0));
        }
        if part != sink.next {
            return Ok(Some(sink.next));
        }
        let last = chunk.last;
        sink.sink.write_chunk(chunk)?;
        sink.next += 1;
        Ok((!last).then_some(sink.next))
    }
}
