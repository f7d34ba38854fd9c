//! Linearizable reads: read index (Ongaro's thesis, section 6.4) and leases (section 6.4.1).

use crate::canary::Canary;
use crate::raft::Raft;
use core::time::Duration;
use quorate_base::{Index, Instant, NodeId};
use quorate_replicated_log::{Body, Effects, Event, ReadId, ReadReady, Reader, Role};

impl Raft {
    pub(crate) fn read(&mut self, now: Instant, id: ReadId, out: &mut Effects) {
        let limit = self.config.limits.pending_reads;
        if self.role == Role::Leader && self.reads.len() < limit && !self.reads_end() {
            self.reads.add(Reader::Local(id));
        } else if !self.leader.is_none()
            && self.role != Role::Leader
            && self.follower_reads.len() < limit
        {
            self.follower_reads.add(id, now);
        } else {
            out.events.push(Event::ReadFailed { id });
        }
    }

    pub(crate) fn asked_for_index(&mut self, from: NodeId, id: u64, out: &mut Effects) {
        let room = self.reads.len() < self.config.limits.pending_reads;
        if self.role == Role::Leader && room && !self.reads_end() {
            self.reads.add(Reader::Remote(from, id));
        } else {
            self.send(out, from, Body::ReadIndexReply { id, index: None }, None);
        }
    }

    pub(crate) fn index_answered(
        &mut self,
        from: NodeId,
        id: u64,
        index: Option<Index>,
        out: &mut Effects,
    ) {
        // An answer may come from whoever led when it was asked: the attempt's id tells.
        let by_leader = from == self.leader;
        self.follower_reads.answered(id, |id| match index.filter(|_| by_leader) {
            Some(index) => out.reads.push(ReadReady { id, index }),
            None => out.events.push(Event::ReadFailed { id }),
        });
    }

    /// Whether the next epoch may already have begun, so that this one's leader knows nothing.
    fn reads_end(&self) -> bool {
        self.is_sealed() && !self.is(Canary::ReadAfterSeal)
    }

    /// Leader: answers or probes for the reads that wait. Not before an entry of its own round is
    /// committed: only then does it know all that its predecessors committed.
    pub(crate) fn answer_reads(&mut self, now: Instant, out: &mut Effects) {
        if self.reads_end() {
            self.fail_leader_reads(out);
        }
        if self.reads.is_empty() || self.commit < self.first_own {
            return;
        }
        let alone = self.is_only_voter() || self.is(Canary::ReadWithoutQuorum);
        if alone || now < self.lease_until {
            let mut reads = core::mem::take(&mut self.reads);
            reads.confirm_all(self.commit, |reader, index| self.tell(reader, Some(index), out));
            self.reads = reads;
        } else if self.reads.wants_probe() {
            self.start_probe(now);
            self.send_heartbeats(out);
        }
    }

    /// A new probe, for all reads that wait.
    pub(crate) fn start_probe(&mut self, now: Instant) {
        if self.commit < self.first_own {
            return;
        }
        let probe = self.reads.start_probe(self.commit);
        if self.config.lease_clock_drift_ppm.is_some() {
            self.probes.push_back((probe, now));
        }
    }

    /// A follower answered: perhaps a quorum has confirmed the latest probe now.
    pub(crate) fn reads_confirmed(&mut self, now: Instant, out: &mut Effects) {
        if self.role != Role::Leader || (self.reads.is_empty() && self.probes.is_empty()) {
            return;
        }
        let own = self.reads.probe();
        let confirmed = self.spec.reached(&self.deciding(), 0, |node| {
            if node == self.me() { own } else { self.followers.get(node).map_or(0, |p| p.probe) }
        });
        self.extend_lease(now, confirmed);
        let mut reads = core::mem::take(&mut self.reads);
        reads.confirmed(confirmed, |reader, index| self.tell(reader, Some(index), out));
        self.reads = reads;
    }

    /// A quorum will not vote for another until an election timeout after it answered: as this
    /// clock may be slow and theirs fast by the declared bound, the lease is that much shorter.
    fn extend_lease(&mut self, now: Instant, confirmed: u64) {
        let Some(drift_ppm) = self.config.lease_clock_drift_ppm else { return };
        while let Some(&(probe, started)) = self.probes.front()
            && probe <= confirmed
        {
            self.probes.pop_front();
            let timeout = self.config.election_timeout;
            let drift = timeout.as_nanos() as u64 / 1_000_000 * u64::from(drift_ppm);
            let lease = timeout.saturating_sub(Duration::from_nanos(drift));
            if self.transfer.is_none() && !self.offered {
                self.lease_until = self.lease_until.max(started + lease);
            }
        }
        debug_assert!(self.lease_until <= now + self.config.election_timeout);
    }

    fn tell(&self, reader: Reader, index: Option<Index>, out: &mut Effects) {
        match (reader, index) {
            (Reader::Local(id), Some(index)) => out.reads.push(ReadReady { id, index }),
            (Reader::Local(id), None) => out.events.push(Event::ReadFailed { id }),
            (Reader::Remote(to, id), index) => {
                self.send(out, to, Body::ReadIndexReply { id, index }, None);
            }
        }
    }

    pub(crate) fn fail_leader_reads(&mut self, out: &mut Effects) {
        let mut reads = core::mem::take(&mut self.reads);
        reads.fail(|reader| self.tell(reader, None, out));
        self.reads = reads;
    }

    pub(crate) fn fail_follower_reads(&mut self, out: &mut Effects) {
        self.follower_reads.fail(|id| out.events.push(Event::ReadFailed { id }));
    }

    /// Follower: asks the leader for the reads that wait.
    pub(crate) fn flush_follower_reads(&mut self, now: Instant, out: &mut Effects) {
        if self.role == Role::Leader || self.leader.is_none() {
            return;
        }
        if self.follower_reads.wants_attempt() {
            let id = self.follower_reads.start_attempt(now);
            self.send(out, self.leader, Body::ReadIndex { id }, None);
        }
    }

    fn read_patience(&self) -> Duration {
        self.config.election_timeout
    }

    pub(crate) fn follower_reads_timeout(&self) -> Option<Instant> {
        self.follower_reads.asked().map(|at| at + self.read_patience())
    }

    /// An attempt without an answer is lost, and its reads with it: whoever wants them asks again.
    pub(crate) fn expire_follower_reads(&mut self, now: Instant, out: &mut Effects) {
        if self.follower_reads_timeout().is_some_and(|at| now >= at) {
            let before = now - self.read_patience() + Duration::from_nanos(1);
            self.follower_reads.expire(before, |id| out.events.push(Event::ReadFailed { id }));
            if self.follower_reads_timeout().is_some_and(|at| now >= at) {
                let id = self.follower_reads.start_attempt(now);
                if !self.leader.is_none() {
                    self.send(out, self.leader, Body::ReadIndex { id }, None);
                }
            }
        }
    }
}
