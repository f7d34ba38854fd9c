//! One replica that hears hand-made messages: where schedules and transcripts seldom or never tell
//! right from wrong. It has no peers, and no disk but the writes that it asked for.

use super::cluster::Factory;
use super::disk::Disk;
use crate::{
    Base, Body, Config, Effects, Epoch, Input, Limits, Membership, Message, Recovered,
    ReplicatedLog, Role, Status, Write,
};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;
use quorate_base::{Ballot, Index, Instant, NodeId};

/// Node 1, and its time.
pub struct Alone {
    factory: Factory,
    log: Box<dyn ReplicatedLog>,
    now: Instant,
    writing: Vec<Write>,
}

impl Alone {
    /// Node 1 of so many voters, on what was recovered; the log begins with them.
    pub fn of(factory: Factory, voters: u64, recovered: Recovered) -> Alone {
        Alone::among(factory, Membership::of((1..=voters).map(NodeId)), recovered)
    }

    /// The same among these members.
    pub fn among(factory: Factory, membership: Membership, recovered: Recovered) -> Alone {
        let base = Base { membership, ..Base::default() };
        let applied = match recovered.applied == Base::default() {
            true => base.clone(),
            false => recovered.applied.clone(),
        };
        let recovered = Recovered { base, applied, ..recovered };
        let log = factory(config(1), Instant::ZERO, recovered);
        Alone { factory, log, now: Instant::ZERO, writing: Vec::new() }
    }

    /// It stops, loses what is not written, and starts with what is.
    pub fn restart(&mut self, membership: Membership, written: &[Write]) {
        let base = Base { membership, ..Base::default() };
        let mut disk = Disk::new(base.clone());
        written.iter().for_each(|write| disk.apply(write));
        self.log = (self.factory)(config(2), self.now, disk.recover(&base));
        self.writing.clear();
    }

    /// Something happens.
    pub fn step(&mut self, input: Input) -> Effects {
        let mut out = Effects::default();
        self.log.step(self.now, input, &mut out);
        self.writing.extend(out.writes.iter().cloned());
        out
    }

    /// A peer says something.
    pub fn hear(&mut self, from: u64, ballot: Ballot, body: Body) -> Effects {
        let message = Message { epoch: Epoch(0), ballot, body };
        self.step(Input::Message { from: NodeId(from), message })
    }

    /// Time passes, and it notices.
    pub fn wait(&mut self, time: Duration) -> Effects {
        self.now = self.now + time;
        self.step(Input::Tick)
    }

    /// All writes end, and what follows from that.
    pub fn write(&mut self) -> Effects {
        match core::mem::take(&mut self.writing).last() {
            Some(write) => self.step(Input::Written { id: write.id }),
            None => Effects::default(),
        }
    }

    /// Its role.
    pub fn role(&self) -> Role {
        self.log.role()
    }

    /// What it knows to be committed.
    pub fn commit(&self) -> Index {
        self.log.commit()
    }

    /// Everything it knows of itself.
    pub fn status(&self) -> Status {
        self.log.status()
    }
}

/// Node 1's, in some run of it.
fn config(seed: u64) -> Config {
    Config {
        node: NodeId(1),
        epoch: Epoch(0),
        opens: false,
        heartbeat: Duration::from_millis(20),
        election_timeout: Duration::from_millis(100),
        patience: Duration::from_millis(100),
        lease_clock_drift_ppm: None,
        seed,
        limits: Limits::default(),
    }
}
