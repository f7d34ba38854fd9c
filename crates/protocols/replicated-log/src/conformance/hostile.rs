//! Peers that lie, and a driver's inputs in any order, to one replica: nothing panics, what is
//! committed stays, and what leaves the replica keeps the promises that left it before.
//!
//! Each step is drawn from one number, so that whoever makes up the numbers can leave steps out
//! until a failure is small. A leader that lies can make replicas disagree, and nobody claims
//! otherwise; of what follows from a replica's own word, nothing depends on what others say.

mod draw;
mod outsider;
mod witness;

pub use outsider::an_outsider_disturbs_and_breaks_nothing;

use super::cluster::Factory;
use super::disk::Disk;
use crate::{
    Base, Config, Effects, Epoch, Input, Limits, Membership, Message, Protocol, Recovered,
    ReplicatedLog, Send, Write, WriteId,
};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use draw::{Step, Talk};
use quorate_base::{Index, Instant, NodeId, Rng};
use witness::Witness;

/// Node 1 of three, and everything that it may rely on.
struct Replica {
    factory: Factory,
    lease: Option<u32>,
    log: Box<dyn ReplicatedLog>,
    now: Instant,
    run: u64,
    disk: Disk,
    writing: VecDeque<Write>,
    done: WriteId,
    gated: Vec<Send>,
    /// Handed out up to here, from where its service started.
    handed_out: Index,
    witness: Witness,
}

/// Runs one replica through the steps of these numbers, with leases or without. `told` is given
/// each step before it is taken, so that it is there if the replica panics.
///
/// # Errors
/// What the replica did wrong.
pub fn run(
    factory: Factory,
    lease: Option<u32>,
    steps: &[u64],
    told: &mut Vec<String>,
) -> Result<(), String> {
    let mut replica = Replica::new(factory, lease);
    for seed in steps {
        let (protocol, ballot) = (replica.log.protocol(), replica.log.status().ballot);
        let talk = Talk { protocol, ballot };
        let step = draw::step(&mut Rng::new(*seed), talk);
        told.push(format!("{step:?}"));
        replica.take(step)?;
    }
    Ok(())
}

impl Replica {
    fn new(factory: Factory, lease: Option<u32>) -> Replica {
        let membership = Membership::of((1..=3).map(NodeId));
        let base = Base { membership, ..Base::default() };
        let now = Instant(1_000_000_000);
        let recovered =
            Recovered { base: base.clone(), applied: base.clone(), ..Recovered::default() };
        Replica {
            factory,
            lease,
            log: factory(config(1, lease), now, recovered),
            now,
            run: 1,
            disk: Disk::new(base),
            writing: VecDeque::new(),
            done: WriteId(0),
            gated: Vec::new(),
            handed_out: 0,
            witness: Witness::default(),
        }
    }

    fn take(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Hear(from, ballot, body) => {
                self.witness.tell(ballot, &body);
                let message = Message { epoch: Epoch(0), ballot, body };
                self.step(Input::Message { from: NodeId(from), message })
            }
            Step::Wait(ms) => {
                self.now = self.now + Duration::from_millis(ms);
                self.step(Input::Tick)
            }
            Step::Settle => {
                while let Some(write) = self.writing.pop_front() {
                    self.written(&write)?;
                }
                self.step(Input::Applied { index: self.handed_out })
            }
            // Nobody applies what was not handed out. More than there is it may say that it did.
            Step::Ask(Input::Applied { index }) if self.handed_out < self.log.commit() => {
                self.step(Input::Applied { index: index.min(self.handed_out) })
            }
            Step::Ask(input) => self.step(input),
            Step::Restart(damaged) => self.restart(damaged),
        }
    }

    fn step(&mut self, input: Input) -> Result<(), String> {
        let before = self.log.status();
        let mut out = Effects::default();
        self.log.step(self.now, input, &mut out);
        let after = self.log.status();
        ensure(after.commit >= before.commit, "a commit was taken back")?;
        ensure(after.ballot.round >= before.ballot.round, "a promise was taken back")?;
        ensure(after.commit <= after.last.index, "more is committed than there is")?;
        for entry in out.committed.iter().flat_map(|run| run.iter()) {
            ensure(entry.index == self.handed_out + 1, "handed out of order")?;
            self.handed_out = entry.index;
        }
        // Under Paxos a voter's removal is handed out later than it is known to be chosen.
        let all = self.handed_out == after.commit || self.log.protocol() == Protocol::Paxos;
        ensure(all && self.handed_out <= after.commit, "not what is committed was handed out")?;
        self.writing.extend(out.writes);
        for send in out.sends {
            match send.after.is_some_and(|after| after > self.done) {
                true => self.gated.push(send),
                false => self.leaves(&send)?,
            }
        }
        Ok(())
    }

    fn written(&mut self, write: &Write) -> Result<(), String> {
        self.disk.apply(write);
        self.done = write.id;
        let open = |send: &Send| send.after.is_none_or(|after| after <= write.id);
        let (free, gated) = core::mem::take(&mut self.gated).into_iter().partition(open);
        self.gated = gated;
        let free: Vec<Send> = free;
        for send in free {
            self.leaves(&send)?;
        }
        self.step(Input::Written { id: write.id })
    }

    fn leaves(&mut self, send: &Send) -> Result<(), String> {
        self.witness.hear(send, &self.disk, self.log.commit())
    }

    /// What was not written is lost, and of its service's state all but the log's base; perhaps an
    /// entry with it.
    fn restart(&mut self, damaged: Option<usize>) -> Result<(), String> {
        self.writing.clear();
        self.gated.clear();
        self.done = WriteId(0);
        self.run += 1;
        if let Some(index) = damaged.and_then(|at| self.disk.nth(at)) {
            self.disk.damage(index, index % 2 == 0);
        }
        let base = self.disk.base();
        self.handed_out = base.position.index;
        let recovered = self.disk.recover(&base);
        self.log = (self.factory)(config(self.run, self.lease), self.now, recovered);
        let promised = self.log.status().ballot.round;
        ensure(promised >= self.witness.promised(), "a promise was forgotten")?;
        self.step(Input::Tick)
    }
}

fn ensure(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn config(run: u64, lease_clock_drift_ppm: Option<u32>) -> Config {
    Config {
        node: NodeId(1),
        epoch: Epoch(0),
        opens: false,
        heartbeat: Duration::from_millis(20),
        election_timeout: Duration::from_millis(100),
        patience: Duration::from_millis(100),
        lease_clock_drift_ppm,
        seed: run,
        limits: Limits { inflight_messages: 2, append_bytes: 64, ..Limits::default() },
    }
}
