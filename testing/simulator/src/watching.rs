//! Watchers: each follows a set of keys through the nodes' watch hubs, goes on elsewhere when its
//! node is gone, and must miss nothing.

use crate::clients::every_register;
use crate::counters::Happening;
use crate::translate;
use crate::world::{Alive, Happens, World};
use bytes::Bytes;
use quorate_base::{NodeId, Rng};
use quorate_checkers::{Change, Span, Truth, Violation, WatchLog};
use quorate_keyspace::watch::{Message, StreamId, Watch};
use quorate_keyspace::{KeyspaceError, ReadError};
use quorate_mvcc::Event;
use std::time::Duration;

/// Bytes that a node queues for one watcher: few, so that slow ones fall behind.
const BUDGET_BYTES: usize = 400;

/// Bytes of history that a node reads at a time.
const HISTORY_BYTES: usize = 300;

/// One watcher.
pub struct Watcher {
    log: WatchLog,
    node: u64,
    /// The life of the node it is connected to.
    connected: Option<Alive>,
}

impl Watcher {
    /// A watcher that begins with `node`.
    pub fn new(number: u64, node: u64, rng: &mut Rng) -> Watcher {
        let span = match (number, rng.below(3)) {
            (0, _) => Span { from: Bytes::new(), to: Some(Bytes::from_static(b"\xff")) },
            (_, 0) => Span::one(Bytes::from_static(b"r1")),
            _ => every_register(),
        };
        Watcher { log: WatchLog::new(span, 2), node, connected: None }
    }
}

impl World<'_> {
    /// A watcher looks whether there is news.
    pub fn watch(&mut self, watcher: usize) {
        let at = self.soon(Duration::from_millis(150));
        self.queue.push(at, 2_000 + watcher as u32, Happens::Watch(watcher));
        let mut nodes = self.reachable();
        let mut wander = self.rng.below(40) == 0;
        if self.healing {
            // Who never became a member, or is none any more, will have no news.
            let members = self.members();
            nodes.retain(|id| members.contains(NodeId(*id)));
            wander |= !members.contains(NodeId(self.watchers[watcher].node));
        }
        let chosen = self.rng.pick(&nodes).copied().unwrap_or(1);
        let place = &mut self.watchers[watcher];
        let node = &self.nodes[place.node as usize - 1];
        if node.is_up() && !wander {
            if node.frozen_until <= self.now {
                self.converse(watcher);
            }
        } else {
            self.disconnect(watcher);
            self.watchers[watcher].node = chosen;
        }
    }

    fn disconnect(&mut self, watcher: usize) {
        let Some(alive) = self.watchers[watcher].connected.take() else { return };
        let node = self.node(alive.node);
        if node.life == alive.life
            && let Some(running) = &mut node.running
        {
            running.hub.close(StreamId(watcher as u64));
        }
    }

    /// Connects if need be, lets the node read some history, and takes what it has to say.
    fn converse(&mut self, watcher: usize) {
        let place = &mut self.watchers[watcher];
        let node = &mut self.nodes[place.node as usize - 1];
        let alive = node.alive();
        let Some(running) = &mut node.running else { return };
        let stream = StreamId(watcher as u64);
        if place.connected != Some(alive) {
            if place.connected.replace(alive).is_some() || place.log.next() > 2 {
                self.counters.add(Happening::WatchResumed);
            }
            running.hub.open(stream, BUDGET_BYTES);
            let watch = Watch {
                range: translate::key_range(place.log.span()),
                start_revision: place.log.next(),
                no_put: false,
                no_delete: false,
                prev_kv: false,
                progress_notify: false,
                fragment: false,
            };
            // A stream that was just opened takes any watcher.
            let _ = running.hub.create(stream, None, watch);
        }
        let mut result = Ok(());
        let reader = running.host.service().reader();
        if let Some(from) = running.hub.wants_history() {
            match reader.history(from, HISTORY_BYTES) {
                Ok(history) => running.hub.feed(&history),
                Err(ReadError::Refused(KeyspaceError::Compacted)) => {
                    running.hub.compacted(reader.compacted_revision());
                }
                Err(error) => {
                    let text = format!("node {} cannot read its history: {error}", alive.node);
                    result = Err(Violation::new("recovery", text));
                }
            }
        }
        while let Some(message) = running.hub.take(stream) {
            match message {
                Message::Created { .. } => {}
                Message::Events { events, revision, .. } => {
                    self.counters.add(Happening::WatchTold);
                    let told = tell(&mut place.log, &self.record.truth, &events, revision);
                    result = result.and(told);
                }
                Message::Progress { revision, .. } => {
                    result = result.and(place.log.progress(&self.record.truth, revision));
                }
                Message::Canceled { compacted, .. } => {
                    place.connected = None;
                    if let Some(compacted) = compacted {
                        self.counters.add(Happening::WatchCompacted);
                        result = result.and(place.log.compacted(compacted));
                    }
                }
            }
        }
        self.check(result.map_err(|violation| Violation {
            evidence: format!("watcher {watcher} at node {}: {}", alive.node, violation.evidence),
            ..violation
        }));
    }

    /// Everything has settled: by now every watcher must have been told everything.
    pub fn watchers_miss_nothing(&mut self) -> Result<(), Violation> {
        let last = self.record.truth.last();
        for watcher in &self.watchers {
            watcher.log.nothing_missed(&self.record.truth, last)?;
        }
        Ok(())
    }

    /// A watcher that still waits for something that happened: where, and for what.
    pub fn watcher_that_waits(&self) -> Option<String> {
        let last = self.record.truth.last();
        self.watchers.iter().find_map(|watcher| {
            let missed = watcher.log.nothing_missed(&self.record.truth, last).err()?;
            Some(format!("a watcher at node {}: {}", watcher.node, missed.evidence))
        })
    }
}

fn tell(log: &mut WatchLog, truth: &Truth, events: &[Event], up_to: u64) -> Result<(), Violation> {
    let mut at = 0;
    while let Some(first) = events.get(at) {
        let revision = first.revision();
        let end = events[at..].iter().position(|event| event.revision() != revision);
        let end = end.map_or(events.len(), |n| at + n);
        let changes: Vec<Change> = events[at..end].iter().map(translate::change).collect();
        log.told(truth, revision, &changes)?;
        at = end;
    }
    log.progress(truth, up_to)
}
