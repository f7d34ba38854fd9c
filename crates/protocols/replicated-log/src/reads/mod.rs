//! Linearizable reads without the log: read index (Ongaro's thesis, section 6.4), batched.
//!
//! A read may be answered at an index that was committed when a quorum confirmed, *after the read
//! arrived*, that the leader still leads. Reads that arrive while a confirmation is under way wait
//! for the next one, so any number of reads costs one round of messages.
//!
//! Invariant: a read is confirmed only by a probe that was started after it arrived; probe numbers
//! and attempt ids are never used twice.

mod answering;

pub use answering::{AnswerReads, Reads, Standing};

use crate::input::ReadId;
use alloc::vec::Vec;
use quorate_base::{Index, Instant, NodeId};

/// Whose read it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reader {
    /// This replica's own.
    Local(ReadId),
    /// A follower's, by its id of the attempt.
    Remote(NodeId, u64),
}

/// The leader's side.
#[derive(Clone, Hash, Debug, Default)]
pub struct LeaderReads {
    /// Number of the latest probe. Zero is never one.
    probe: u64,
    /// The index that the latest probe will confirm, while it is under way.
    index: Index,
    /// Confirmed by the latest probe.
    probing: Vec<Reader>,
    /// To be confirmed by the next one.
    waiting: Vec<Reader>,
}

impl LeaderReads {
    /// The latest probe's number, to be sent with whatever is sent.
    pub fn probe(&self) -> u64 {
        self.probe
    }

    /// How many reads wait.
    pub fn len(&self) -> usize {
        self.probing.len() + self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A read arrived.
    pub fn add(&mut self, reader: Reader) {
        self.waiting.push(reader);
    }

    /// Whether reads wait that no probe under way will confirm.
    pub fn wants_probe(&self) -> bool {
        self.probing.is_empty() && !self.waiting.is_empty()
    }

    /// Starts a probe that will confirm `index`, the commit index now, for all that wait: also for
    /// those whose own probe seems lost.
    pub fn start_probe(&mut self, index: Index) -> u64 {
        self.probe += 1;
        self.index = index;
        self.probing.append(&mut self.waiting);
        self.probe
    }

    /// A quorum answered `probe`. Hands out the reads that this confirms, with their index.
    pub fn confirmed(&mut self, probe: u64, mut ready: impl FnMut(Reader, Index)) {
        if probe >= self.probe {
            for reader in self.probing.drain(..) {
                ready(reader, self.index);
            }
        }
    }

    /// Confirms everything at once at `index`: nobody else's word is needed.
    pub fn confirm_all(&mut self, index: Index, mut ready: impl FnMut(Reader, Index)) {
        for reader in self.probing.drain(..).chain(self.waiting.drain(..)) {
            ready(reader, index);
        }
    }

    /// Leadership is lost: hands out every read as failed. Probe numbers go on.
    pub fn fail(&mut self, mut failed: impl FnMut(Reader)) {
        self.probing.drain(..).chain(self.waiting.drain(..)).for_each(&mut failed);
    }
}

/// The follower's side: reads for which the leader is asked.
#[derive(Clone, Debug)]
pub struct FollowerReads {
    /// The latest attempt's id.
    attempt: u64,
    /// When the attempt under way was made.
    asked: Option<Instant>,
    /// Answered by the attempt under way.
    asking: Vec<(ReadId, Instant)>,
    /// To be asked for next.
    waiting: Vec<(ReadId, Instant)>,
}

impl FollowerReads {
    /// Attempts are numbered from `first` on, which must differ from run to run: an answer to
    /// an earlier run's attempt must not fit one of this run's.
    pub fn new(first: u64) -> Self {
        FollowerReads { attempt: first, asked: None, asking: Vec::new(), waiting: Vec::new() }
    }

    /// How many reads wait.
    pub fn len(&self) -> usize {
        self.asking.len() + self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A read arrived.
    pub fn add(&mut self, id: ReadId, now: Instant) {
        self.waiting.push((id, now));
    }

    /// Id of the latest attempt.
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// When the attempt under way was made, if one is.
    pub fn asked(&self) -> Option<Instant> {
        self.asked
    }

    /// Whether reads wait and no attempt is under way.
    pub fn wants_attempt(&self) -> bool {
        self.asked.is_none() && !self.waiting.is_empty()
    }

    /// Starts an attempt for all that wait, under a fresh id.
    pub fn start_attempt(&mut self, now: Instant) -> u64 {
        self.attempt = self.attempt.wrapping_add(1);
        self.asked = Some(now);
        self.asking.append(&mut self.waiting);
        self.attempt
    }

    /// The leader answered `attempt`; hands out its reads if it is the one under way.
    pub fn answered(&mut self, attempt: u64, ready: impl FnMut(ReadId)) {
        if self.asked.is_some() && attempt == self.attempt {
            self.asked = None;
            self.asking.drain(..).map(|(id, _)| id).for_each(ready);
        }
    }

    /// Hands out as failed the reads that arrived before `before`.
    pub fn expire(&mut self, before: Instant, mut failed: impl FnMut(ReadId)) {
        let mut keep = |(id, at): &(ReadId, Instant)| {
            if *at < before {
                failed(*id);
            }
            *at >= before
        };
        self.asking.retain(&mut keep);
        self.waiting.retain(&mut keep);
        if self.asking.is_empty() {
            self.asked = None;
        }
    }

    /// The leader is lost: hands out every read as failed.
    pub fn fail(&mut self, mut failed: impl FnMut(ReadId)) {
        self.asked = None;
        self.asking.drain(..).chain(self.waiting.drain(..)).for_each(|(id, _)| failed(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(id: u64) -> Reader {
        Reader::Local(ReadId(id))
    }

    #[test]
    fn a_read_is_not_confirmed_by_an_earlier_probe() {
        let mut reads = LeaderReads::default();
        let mut ready = Vec::new();
        reads.add(local(1));
        assert!(reads.wants_probe());
        assert_eq!(reads.start_probe(10), 1);
        reads.add(local(2));
        assert!(!reads.wants_probe(), "one probe at a time");
        reads.confirmed(1, |r, i| ready.push((r, i)));
        assert_eq!(ready, [(local(1), 10)]);
        assert!(reads.wants_probe());
        assert_eq!(reads.start_probe(12), 2);
        reads.confirmed(1, |_, _| panic!("an old answer"));
        reads.confirmed(2, |r, i| ready.push((r, i)));
        assert_eq!(ready[1], (local(2), 12));
        assert!(reads.is_empty());
    }

    #[test]
    fn a_lost_probe_is_replaced_by_one_for_all() {
        let mut reads = LeaderReads::default();
        reads.add(local(1));
        reads.start_probe(1);
        reads.add(Reader::Remote(NodeId(2), 7));
        assert_eq!(reads.start_probe(3), 2);
        let mut ready = Vec::new();
        reads.confirmed(2, |r, i| ready.push((r, i)));
        assert_eq!(ready, [(local(1), 3), (Reader::Remote(NodeId(2), 7), 3)]);
    }

    #[test]
    fn attempts_have_fresh_ids_and_late_answers_do_nothing() {
        let mut reads = FollowerReads::new(100);
        let at = |n| Instant(n);
        reads.add(ReadId(1), at(1));
        let first = reads.start_attempt(at(1));
        reads.add(ReadId(2), at(2));
        assert!(!reads.wants_attempt());
        let second = reads.start_attempt(at(3));
        assert_ne!(first, second);
        reads.answered(first, |_| panic!("late"));
        let mut ready = Vec::new();
        reads.answered(second, |id| ready.push(id.0));
        assert_eq!(ready, [1, 2]);
        reads.answered(second, |_| panic!("twice"));
    }

    #[test]
    fn reads_expire_by_age() {
        let mut reads = FollowerReads::new(0);
        reads.add(ReadId(1), Instant(1));
        reads.start_attempt(Instant(1));
        reads.add(ReadId(2), Instant(5));
        let mut failed = Vec::new();
        reads.expire(Instant(3), |id| failed.push(id.0));
        assert_eq!(failed, [1]);
        assert!(reads.wants_attempt());
    }
}
