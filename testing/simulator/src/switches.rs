//! How long a change of protocols keeps clients from writing.
//!
//! The pause is the time between the last put of the old epoch that a client was told of, and the
//! first of the new one. An epoch's puts are told by their revisions: whoever opens an epoch first
//! has applied everything up to the seal and nothing after it.
//!
//! What is promised holds where no fault is near ([`crate::plan::Plan::is_calm`]); in other runs
//! nothing is judged.

use crate::world::World;
use quorate_base::Instant;
use quorate_checkers::Violation;
use quorate_mvcc::Revision;
use quorate_replicated_log::{Base, Epoch, Protocol};
use quorate_service::Service;
use std::time::Duration;

/// Election timeouts, as they are set, that a change of protocols may take.
const MOST: u32 = 2;

/// A change of protocols, as clients saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Switch {
    /// The protocol that it led to.
    pub to: Protocol,
    /// From the last acknowledged put before it to the first one after it.
    pub pause: Duration,
    /// The election timeout, as it is set.
    pub election: Duration,
}

/// An epoch that somebody opened.
#[derive(Clone, Copy, Debug)]
struct Opened {
    epoch: Epoch,
    protocol: Protocol,
    /// The revision at the seal.
    after: Revision,
}

/// What is noted of changes of protocols.
#[derive(Default)]
pub struct Switches {
    /// Epochs in the order in which they were first opened.
    opened: Vec<Opened>,
    /// The revisions of acknowledged puts, and when their clients were told.
    puts: Vec<(Revision, Instant)>,
}

impl World<'_> {
    /// A node opens an epoch.
    pub fn note_epoch(&mut self, id: u64, base: &Base) {
        let known = &self.record.switches.opened;
        if !self.plan.is_calm() || known.last().is_some_and(|last| last.epoch >= base.epoch) {
            return;
        }
        let Some(running) = &self.nodes[id as usize - 1].running else { return };
        let service = running.host.service();
        if service.base().position == base.position {
            let (epoch, protocol) = (base.epoch, base.protocol);
            let after = service.reader().revision();
            self.record.switches.opened.push(Opened { epoch, protocol, after });
        } else {
            let text = format!("node {id} opens {base:?} first, and is at {:?}", service.base());
            self.check(Err(Violation::new("an epoch begins where the last one ends", text)));
        }
    }

    /// A client is told that its put was done.
    pub fn note_put(&mut self, revision: Revision) {
        if self.plan.is_calm() {
            self.record.switches.puts.push((revision, self.now));
        }
    }

    /// Every change of protocols, in a run without faults.
    pub fn switches(&self) -> Vec<Switch> {
        let Switches { opened, puts } = &self.record.switches;
        let pause = |it: &Opened| {
            let before = puts.iter().filter(|(revision, _)| *revision <= it.after);
            let after = puts.iter().filter(|(revision, _)| *revision > it.after);
            let last = before.map(|(_, at)| *at).max().unwrap_or(Instant::ZERO);
            // Where nobody was told of one, it lasts still.
            let first = after.map(|(_, at)| *at).min().unwrap_or(self.now);
            first.since(last)
        };
        let election = self.plan.election;
        let switch = |it: &Opened| Switch { to: it.protocol, pause: pause(it), election };
        opened.iter().map(switch).collect()
    }

    /// Whether each was short enough.
    pub fn switches_are_short(&self) -> Result<(), Violation> {
        let switches = self.switches();
        let long = switches.iter().find(|switch| switch.pause > switch.election * MOST);
        long.map_or(Ok(()), |switch| {
            let text = format!("{switch:?}, one of {}", switches.len());
            Err(Violation::new("a change of protocols is short", text))
        })
    }
}
