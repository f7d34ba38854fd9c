//! What every replica does about linearizable reads, whatever its protocol: read index (Ongaro's
//! thesis, section 6.4) and leases (section 6.4.1).

use super::{FollowerReads, LeaderReads, Reader};
use crate::config::Config;
use crate::effects::{Effects, Event, ReadReady};
use crate::input::ReadId;
use crate::message::Body;
use crate::status::Role;
use alloc::collections::VecDeque;
use core::hash::{Hash, Hasher};
use core::mem::take;
use core::time::Duration;
use quorate_base::{Index, Instant, NodeId};

/// The reads of one replica.
#[derive(Clone, Debug)]
pub struct Reads {
    leader: LeaderReads,
    follower: FollowerReads,
    /// When the latest probes were started, for leases.
    probes: VecDeque<(u64, Instant)>,
    lease_until: Instant,
}

impl Reads {
    /// Of a replica that starts; see [`FollowerReads::new`].
    pub fn new(first_attempt: u64) -> Reads {
        Reads {
            leader: LeaderReads::default(),
            follower: FollowerReads::new(first_attempt),
            probes: VecDeque::new(),
            lease_until: Instant::ZERO,
        }
    }

    /// Feeds `state` with all but the times.
    pub fn fingerprint<H: Hasher>(&self, state: &mut H) {
        let Reads { leader, follower, probes, lease_until: _ } = self;
        leader.hash(state);
        (follower.attempt(), follower.asked().is_some(), follower.len()).hash(state);
        probes.iter().for_each(|(probe, _)| probe.hash(state));
    }

    /// Follower: when the attempt under way is given up, `patience` after it was made.
    pub fn attempt_ends(&self, patience: Duration) -> Option<Instant> {
        self.follower.asked().map(|at| at + patience)
    }

    /// The latest probe's number, to be sent with whatever is sent.
    pub fn probe(&self) -> u64 {
        self.leader.probe()
    }

    /// Leader: whether any read waits.
    pub fn is_awaited(&self) -> bool {
        !self.leader.is_empty()
    }

    /// No lease holds any more.
    pub fn end_lease(&mut self) {
        self.lease_until = Instant::ZERO;
    }

    /// Leadership begins or ends: nothing that was confirmed before counts.
    pub fn forget_lease(&mut self) {
        self.end_lease();
        self.probes.clear();
    }

    /// Leadership begins: what is sent from now on bears a probe that no earlier answer fits.
    pub fn start_first_probe(&mut self, commit: Index) {
        self.leader.start_probe(commit);
    }
}

/// Where a replica stands, as far as reads are concerned.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Its role.
    pub role: Role,
    /// Whom it follows.
    pub leader: NodeId,
    /// Everything up to here is committed.
    pub commit: Index,
    /// Leader: it knows all that its predecessors may have told a client.
    pub knows_all: bool,
    /// The next epoch may already have begun, so that this one's leader knows nothing.
    pub is_over: bool,
    /// Leader: another was told to stand, so that a quorum may elect it however late: no lease.
    pub hands_over: bool,
}

/// A replica that answers reads. It says where it stands; the rest is the same for all.
pub trait AnswerReads {
    /// The reads that wait.
    fn reads(&mut self) -> &mut Reads;
    /// The configuration.
    fn settings(&self) -> &Config;
    /// Where it stands.
    fn standing(&self) -> Standing;
    /// Leader: whether nobody else is asked.
    fn decides_alone(&self) -> bool;
    /// Leader: the latest probe that a quorum has answered, `own` being this replica's.
    fn confirmed(&self, own: u64) -> u64;
    /// Sends `body`; it waits for no write.
    fn tell(&self, out: &mut Effects, to: NodeId, body: Body);
    /// Leader: sends the latest probe to all.
    fn send_probe(&mut self, out: &mut Effects);

    /// A read of this replica's own users.
    fn read(&mut self, now: Instant, id: ReadId, out: &mut Effects) {
        let limit = self.settings().limits.pending_reads;
        let Standing { role, leader, is_over, .. } = self.standing();
        let reads = self.reads();
        if role == Role::Leader && reads.leader.len() < limit && !is_over {
            reads.leader.add(Reader::Local(id));
        } else if !leader.is_none() && role != Role::Leader && reads.follower.len() < limit {
            reads.follower.add(id, now);
        } else {
            out.events.push(Event::ReadFailed { id });
        }
    }

    /// A follower asks.
    fn asked_for_index(&mut self, from: NodeId, id: u64, out: &mut Effects) {
        let limit = self.settings().limits.pending_reads;
        let Standing { role, is_over, .. } = self.standing();
        let leader = &mut self.reads().leader;
        if role == Role::Leader && leader.len() < limit && !is_over {
            leader.add(Reader::Remote(from, id));
        } else {
            self.tell(out, from, Body::ReadIndexReply { id, index: None });
        }
    }

    /// Follower: `from` answered. An answer may come from whoever led when it was asked: the
    /// attempt's id tells.
    fn index_answered(&mut self, from: NodeId, id: u64, index: Option<Index>, out: &mut Effects) {
        let index = index.filter(|_| from == self.standing().leader);
        self.reads().follower.answered(id, |id| answer(id, index, out));
    }

    /// Leader: answers or probes for the reads that wait. Not before it knows all that its
    /// predecessors may have told a client.
    fn answer_reads(&mut self, now: Instant, out: &mut Effects) {
        let Standing { commit, knows_all, is_over, .. } = self.standing();
        if is_over {
            self.fail_leader_reads(out);
        }
        if !self.reads().is_awaited() || !knows_all {
            return;
        }
        if self.decides_alone() || now < self.reads().lease_until {
            let mut leader = take(&mut self.reads().leader);
            leader.confirm_all(commit, |reader, index| self.told(reader, Some(index), out));
            self.reads().leader = leader;
        } else if self.reads().leader.wants_probe() {
            self.start_probe(now);
            self.send_probe(out);
        }
    }

    /// Leader: a new probe, for all reads that wait.
    fn start_probe(&mut self, now: Instant) {
        let Standing { commit, knows_all, .. } = self.standing();
        if !knows_all {
            return;
        }
        let has_leases = self.settings().lease_clock_drift_ppm.is_some();
        let reads = self.reads();
        let probe = reads.leader.start_probe(commit);
        if has_leases {
            reads.probes.push_back((probe, now));
        }
    }

    /// Leader: a follower answered; perhaps a quorum has confirmed the latest probe now.
    fn reads_confirmed(&mut self, now: Instant, out: &mut Effects) {
        let is_leader = self.standing().role == Role::Leader;
        let reads = self.reads();
        if !is_leader || (reads.leader.is_empty() && reads.probes.is_empty()) {
            return;
        }
        let own = reads.probe();
        let confirmed = self.confirmed(own);
        self.extend_lease(now, confirmed);
        let mut leader = take(&mut self.reads().leader);
        leader.confirmed(confirmed, |reader, index| self.told(reader, Some(index), out));
        self.reads().leader = leader;
    }

    /// Leader: a quorum will not elect another until its patience ends after it answered. This
    /// clock may be slow and theirs fast by the declared bound: the lease is that much shorter.
    fn extend_lease(&mut self, now: Instant, confirmed: u64) {
        let config = self.settings();
        let Some(drift_ppm) = config.lease_clock_drift_ppm else { return };
        let timeout = config.patience;
        let drift = timeout.as_nanos() as u64 / 1_000_000 * u64::from(drift_ppm);
        let lease = timeout.saturating_sub(Duration::from_nanos(drift));
        let hands_over = self.standing().hands_over;
        let reads = self.reads();
        while let Some(&(probe, started)) = reads.probes.front()
            && probe <= confirmed
        {
            reads.probes.pop_front();
            if !hands_over {
                reads.lease_until = reads.lease_until.max(started + lease);
            }
        }
        debug_assert!(reads.lease_until <= now + timeout);
    }

    /// Tells a reader its index, or that it has none.
    fn told(&self, reader: Reader, index: Option<Index>, out: &mut Effects) {
        match reader {
            Reader::Local(id) => answer(id, index, out),
            Reader::Remote(to, id) => self.tell(out, to, Body::ReadIndexReply { id, index }),
        }
    }

    /// Leader no longer: nobody is answered.
    fn fail_leader_reads(&mut self, out: &mut Effects) {
        let mut leader = take(&mut self.reads().leader);
        leader.fail(|reader| self.told(reader, None, out));
        self.reads().leader = leader;
    }

    /// Follower: the leader is lost.
    fn fail_follower_reads(&mut self, out: &mut Effects) {
        self.reads().follower.fail(|id| answer(id, None, out));
    }

    /// Follower: asks the leader for the reads that wait.
    fn flush_follower_reads(&mut self, now: Instant, out: &mut Effects) {
        let Standing { role, leader, .. } = self.standing();
        if role == Role::Leader || leader.is_none() {
            return;
        }
        let follower = &mut self.reads().follower;
        if follower.wants_attempt() {
            let id = follower.start_attempt(now);
            self.tell(out, leader, Body::ReadIndex { id });
        }
    }

    /// Follower: an attempt without an answer is lost, and its reads with it: whoever wants them
    /// asks again.
    fn expire_follower_reads(&mut self, now: Instant, out: &mut Effects) {
        let patience = self.settings().election_timeout;
        let leader = self.standing().leader;
        let reads = self.reads();
        let is_over = |reads: &Reads| reads.attempt_ends(patience).is_some_and(|at| now >= at);
        if !is_over(reads) {
            return;
        }
        let before = now - patience + Duration::from_nanos(1);
        reads.follower.expire(before, |id| answer(id, None, out));
        if is_over(reads) {
            let id = reads.follower.start_attempt(now);
            if !leader.is_none() {
                self.tell(out, leader, Body::ReadIndex { id });
            }
        }
    }
}

fn answer(id: ReadId, index: Option<Index>, out: &mut Effects) {
    match index {
        Some(index) => out.reads.push(ReadReady { id, index }),
        None => out.events.push(Event::ReadFailed { id }),
    }
}
