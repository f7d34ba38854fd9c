//! The replica: its state, and the way of an input through it.

use super::acceptor::Asked;
use super::campaign::Campaign;
use super::leads::Leads;
use super::slots::{Members, Slots};
use crate::canary::Canary;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;
use quorate_base::{Ballot, Index, Instant, NodeId, Position, Rng};
use quorate_replicated_log::{
    AnswerReads, Base, Body, Config, Cover, Effects, Event, Followers, HardState, Input, Journal,
    Membership, Message, Mode, PeerStatus, Protocol, QuorumSpec, Reads, Recovered, ReplicatedLog,
    Role, Send, Status, StepDown, WriteId,
};

/// After this many election timeouts without an end of a write, or without a commit, a leader
/// gives up; it then rests as long, so that another takes over.
const STALL_TIMEOUTS: u32 = 5;

/// One replica of one group under Multi-Paxos.
#[derive(Clone, Debug)]
pub struct MultiPaxos {
    pub(super) config: Config,
    pub(super) spec: QuorumSpec,
    pub(super) rng: Rng,
    pub(super) canary: Option<Canary>,

    // The acceptor: what is, or is becoming, durable.
    pub(super) promised: Ballot,
    /// The write that made the promise durable.
    pub(super) promise_write: WriteId,
    pub(super) slots: Slots,
    pub(super) journal: Journal,
    /// Slots past `commit` in which something may have been accepted that cannot be read.
    pub(super) damaged: Vec<RangeInclusive<Index>>,

    // The learner.
    /// Every slot up to here is chosen, and held.
    pub(super) commit: Index,
    /// Every slot up to here is chosen, though some may be damaged: what was remembered at the
    /// start.
    pub(super) remembered: Index,
    /// Where the epoch ends, once that is chosen.
    pub(super) sealed: Option<Index>,
    pub(super) members: Members,
    pub(super) leads: Leads,
    /// Committed entries were handed out up to here.
    pub(super) handed_out: Index,
    /// The service has applied what is chosen up to here: after a start perhaps more than this log
    /// knows to be chosen.
    pub(super) applied: Index,
    /// Where the service's state was at the start.
    pub(super) state: Base,

    pub(super) reads: Reads,
    pub(super) role: Role,
    pub(super) leader: NodeId,
    /// What the driver was last told of role, ballot and leader.
    pub(super) announced: (Role, u64, NodeId),
    /// The highest round heard of.
    pub(super) seen: u64,

    // As a follower.
    /// The leader's ballot that `cover` is about.
    pub(super) following: Ballot,
    /// Slots that are chosen, or accepted under `following`.
    pub(super) cover: Cover,
    /// How much is chosen by that leader's word, held or not.
    pub(super) told: Index,
    pub(super) election_at: Instant,
    pub(super) asked: Asked,
    /// No promise to another before this: a leader was heard from (or may have been, by an
    /// earlier run of this replica).
    pub(super) sticky_until: Instant,
    /// No candidacy before this: this replica's leadership stalled.
    pub(super) resting_until: Instant,
    pub(super) votes: Vec<(NodeId, bool)>,

    // As a proposer in phase 1.
    pub(super) campaign: Option<Campaign>,
    /// Campaigns in a row that ended for want of acceptors that can read their slots.
    pub(super) vain: u32,

    // As the leader: a proposer in phase 2.
    pub(super) followers: Followers,
    /// What followers accepted beyond a gap.
    pub(super) covers: Vec<(NodeId, Cover)>,
    pub(super) next_session: u64,
    pub(super) heartbeat_at: Instant,
    pub(super) led_since: Instant,
    /// Until then, whatever happens meanwhile, there is no reason to step down.
    pub(super) steady_until: Instant,
    /// What was found in phase 1 ends here.
    pub(super) repaired_to: Index,
    /// It has proposed, or proposed again, that the epoch end.
    pub(super) proposed_seal: bool,
    /// Somebody is about to leave.
    pub(super) parts: bool,
    pub(super) ready: bool,
    pub(super) transfer: Option<(NodeId, Instant)>,
    /// Another was told to stand, in this leadership: it may do so however late it hears of it.
    pub(super) offered: bool,
    /// When something was last chosen, or nothing waited to be.
    pub(super) progress_at: Instant,
    /// Last index and bytes of the runs that are not committed yet.
    pub(super) uncommitted: VecDeque<(Index, usize)>,
    pub(super) uncommitted_bytes: usize,
}

impl MultiPaxos {
    /// A replica that starts, or starts again, with what was found on its disk.
    pub fn new(config: Config, now: Instant, recovered: Recovered) -> MultiPaxos {
        Self::build(config, now, recovered, None)
    }

    /// The same with a deliberate bug.
    #[cfg(feature = "canary")]
    pub fn with_canary(
        config: Config,
        now: Instant,
        recovered: Recovered,
        canary: Option<Canary>,
    ) -> MultiPaxos {
        Self::build(config, now, recovered, canary)
    }

    /// The same with another quorum rule.
    pub fn with_quorums(mut self, spec: QuorumSpec) -> MultiPaxos {
        self.spec = spec;
        self
    }

    fn build(
        config: Config,
        now: Instant,
        recovered: Recovered,
        canary: Option<Canary>,
    ) -> MultiPaxos {
        let mut rng = Rng::new(config.seed);
        let reads_from = rng.next_u64();
        let is = |bug| cfg!(feature = "canary") && canary == Some(bug);
        let found = super::recovery::recover(recovered, now, is(Canary::BelieveOwnSlots));
        let promised = if is(Canary::ForgetPromise) { Ballot::ZERO } else { found.promised };
        // With leases on, an earlier run may have promised a leader not to promise another.
        let sticks = config.lease_clock_drift_ppm.is_some() && !config.opens;
        let sticky = if sticks { now + config.patience } else { Instant::ZERO };
        let mut replica = MultiPaxos {
            spec: QuorumSpec::majority(),
            rng,
            canary,
            promised,
            promise_write: WriteId(0),
            cover: Cover::new(found.commit),
            slots: found.slots,
            journal: found.journal,
            damaged: found.damaged,
            commit: found.commit,
            remembered: found.remembered,
            sealed: None,
            members: found.members,
            leads: found.leads,
            handed_out: found.at,
            applied: found.at,
            state: found.state,
            reads: Reads::new(reads_from),
            role: Role::Follower,
            leader: NodeId::NONE,
            announced: (Role::Follower, promised.round, NodeId::NONE),
            seen: promised.round,
            following: Ballot::ZERO,
            told: 0,
            election_at: now,
            asked: Asked::default(),
            sticky_until: sticky,
            resting_until: Instant::ZERO,
            votes: Vec::new(),
            campaign: None,
            vain: 0,
            followers: Followers::default(),
            covers: Vec::new(),
            next_session: 0,
            heartbeat_at: now,
            led_since: now,
            steady_until: Instant::ZERO,
            repaired_to: 0,
            proposed_seal: false,
            parts: false,
            ready: false,
            transfer: None,
            offered: false,
            progress_at: now,
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
            config,
        };
        replica.note_seal();
        replica.role = replica.resting_role();
        replica.announced.0 = replica.role;
        replica.reset_election(now);
        replica.hasten_first_election(now);
        replica
    }

    pub(super) fn is(&self, bug: Canary) -> bool {
        cfg!(feature = "canary") && self.canary == Some(bug)
    }

    pub(super) fn me(&self) -> NodeId {
        self.config.node
    }

    /// The members in force for the next slot to be chosen.
    pub(super) fn membership(&self) -> &Membership {
        self.members.latest()
    }

    pub(super) fn is_only_voter(&self) -> bool {
        self.membership().voters == [self.me()]
    }

    /// What this replica is when it neither leads nor stands.
    pub(super) fn resting_role(&self) -> Role {
        let learner = self.membership().learners.contains(&self.me());
        if learner { Role::Learner } else { Role::Follower }
    }

    pub(super) fn stall_timeout(&self) -> Duration {
        self.config.election_timeout * STALL_TIMEOUTS
    }

    pub(super) fn reset_election(&mut self, now: Instant) {
        self.wait_for_election(now, self.config.election_timeout);
    }

    /// A leader was heard from.
    pub(super) fn await_leader(&mut self, now: Instant) {
        self.wait_for_election(now, self.config.patience);
    }

    fn wait_for_election(&mut self, now: Instant, timeout: Duration) {
        let at = now + self.rng.duration(timeout, timeout + timeout / 2);
        // A leader's lease rests on this replica's patience, whatever came in between.
        let leases = self.config.lease_clock_drift_ppm.is_some();
        self.election_at = if leases { at.max(self.sticky_until) } else { at };
    }

    /// Remembers the promise and the commit index; returns what must be durable first.
    pub(super) fn remember(&mut self) -> WriteId {
        let state = HardState { promised: self.promised, commit: self.known_chosen() };
        self.journal.remember(state)
    }

    /// Every slot up to here is chosen. What of it can be read in this replica's slots is what was
    /// chosen there.
    pub(super) fn known_chosen(&self) -> Index {
        self.commit.max(self.remembered)
    }

    /// Takes note of a promise.
    pub(super) fn promise(&mut self, ballot: Ballot) {
        self.promised = ballot;
        self.asked = Asked::default();
        self.seen = self.seen.max(ballot.round);
        self.promise_write = self.remember();
    }

    /// Says something under the promised ballot, which is a leader's and a candidate's own.
    pub(super) fn send(&self, out: &mut Effects, to: NodeId, body: Body, after: Option<WriteId>) {
        self.send_as(out, to, self.promised, body, after);
    }

    pub(super) fn send_as(
        &self,
        out: &mut Effects,
        to: NodeId,
        ballot: Ballot,
        body: Body,
        after: Option<WriteId>,
    ) {
        let after = after.filter(|_| !self.is(Canary::ReplyBeforeWritten));
        let message = Message { epoch: self.config.epoch, ballot, body };
        out.sends.push(Send { to, message, after });
    }

    /// Falls back to following `leader`, if one is known.
    pub(super) fn follow(&mut self, now: Instant, leader: NodeId, out: &mut Effects) {
        if self.role == Role::Leader {
            self.leave_leadership(out);
        }
        if self.leader != leader {
            self.fail_follower_reads(out);
        }
        let role = self.resting_role();
        if self.role != role || self.leader != leader {
            self.reset_election(now);
        }
        self.role = role;
        self.leader = leader;
        self.campaign = None;
        self.votes.clear();
    }

    /// A leader gives up by itself.
    pub(super) fn step_down(&mut self, now: Instant, reason: StepDown, out: &mut Effects) {
        if matches!(reason, StepDown::DiskStalled | StepDown::NoProgress) {
            self.resting_until = now + self.stall_timeout();
        }
        out.events.push(Event::SteppedDown { reason });
        self.follow(now, NodeId::NONE, out);
        self.reset_election(now);
    }

    /// Every slot up to `index` is chosen, and held.
    pub(super) fn learn_chosen(&mut self, index: Index) {
        if index <= self.commit {
            return;
        }
        let index = self.committed(index);
        if index <= self.commit {
            return;
        }
        for (at, members) in self.slots.changes(self.commit + 1, index) {
            self.members.chosen(at, members);
            self.steady_until = Instant::ZERO; // Others are to be heard from.
        }
        self.leads.chosen(self.slots.named(self.commit + 1, index));
        let changed = self.members.latest_index() > self.commit;
        self.commit = index;
        if changed {
            self.remember(); // At once, not with whatever is written next.
        }
        self.note_seal();
        self.cover.raise(index);
        self.damaged.retain(|range| *range.end() > index);
        if !matches!(self.role, Role::Leader | Role::Candidate | Role::PreCandidate) {
            self.role = self.resting_role();
        }
    }

    /// After every input: what gathered goes out, and what changed is told.
    fn finish(&mut self, now: Instant, out: &mut Effects) {
        if self.role == Role::Leader {
            self.finish_leading(now, out);
        }
        self.flush_follower_reads(now, out);
        let to = match self.is_parting() {
            true => self.members.latest_index() - 1,
            false => self.commit,
        };
        if to > self.handed_out {
            for run in self.slots.runs(self.handed_out + 1, to) {
                out.committed.push(run);
            }
            self.handed_out = to;
        }
        if self.journal.has_staged() {
            self.remember();
            self.journal.close(now, out);
        }
        let state = (self.role, self.promised.round, self.leader);
        if state != self.announced {
            self.announced = state;
            let (role, ballot, leader) = (self.role, self.promised, self.leader);
            out.events.push(Event::RoleChanged { role, ballot, leader });
        }
        let knows_all = self.applied >= self.repaired_to;
        if self.role == Role::Leader && !self.ready && knows_all {
            self.ready = true;
            out.events.push(Event::ReadyToLead);
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Effects) {
        if self.role == Role::Leader {
            self.tick_leading(now, out);
            return;
        }
        if now >= self.election_at {
            self.election_timeout(now, out);
        }
        self.tick_campaign(now, out);
        self.expire_follower_reads(now, out);
    }

    fn is_electable(&self) -> bool {
        // Whoever is being added or removed by a change that is not known to be chosen may stand.
        let pending = self.slots.changes(self.commit + 1, self.slots.last_index());
        self.membership().is_voter(self.me()) || pending.iter().any(|(_, m)| m.is_voter(self.me()))
    }

    pub(super) fn may_stand(&self, now: Instant) -> bool {
        self.is_electable() && now >= self.resting_until
    }

    pub(super) fn written(&mut self, now: Instant, id: WriteId, out: &mut Effects) {
        self.journal.written(id);
        self.own_promise_written(now, out);
        if self.role == Role::Leader {
            self.advance_commit(now);
        }
    }

    fn compact(&mut self, now: Instant, index: Index, out: &mut Effects) {
        // The end of the epoch stays, to be known again after a restart.
        let end = self.sealed.map_or(self.applied, |seal| self.applied.min(seal - 1));
        let index = index.min(end).min(self.commit);
        if index <= self.slots.base().index {
            return;
        }
        let base = self.base_at(index);
        self.slots.compact(base.position);
        self.members.compact(index);
        self.leads.compact(index);
        self.journal.compact(now, base, out);
    }
}

impl MultiPaxos {
    fn base_at(&self, index: Index) -> Base {
        let position = Position::new(index, self.leads.at(index));
        let membership = self.members.at(index).clone();
        Base { position, membership, epoch: self.config.epoch, protocol: Protocol::Paxos }
    }
}

impl ReplicatedLog for MultiPaxos {
    fn step(&mut self, now: Instant, input: Input, out: &mut Effects) {
        match input {
            Input::Tick => {}
            Input::Message { from, message } => self.message(now, from, message, out),
            Input::Propose { id, commands } => self.propose(now, id, commands, out),
            Input::Read { id } => self.read(now, id, out),
            Input::Written { id } => self.written(now, id, out),
            Input::Applied { index } => self.applied = self.applied.max(index.min(self.commit)),
            Input::Compact { index } => self.compact(now, index, out),
            Input::Change { id, change, judged, context } => {
                self.change(now, (id, judged), &change, context, out);
            }
            Input::Seal { id, next, judged } => self.seal(now, id, (next, judged), out),
            Input::Campaign => self.campaign_now(now),
            Input::Transfer { to } => self.start_transfer(now, to, out),
            Input::PeerLost { node } => self.peer_lost(now, node),
            Input::SnapshotInstalled { base, from, session } => {
                self.snapshot_installed(now, base, from, session, out);
            }
            Input::SnapshotSent { to, index } => self.snapshot_sent(to, index),
            Input::Damaged { range } => self.lost_on_disk(&range),
        }
        // Whatever the input was, time has passed.
        self.tick(now, out);
        self.finish(now, out);
    }

    fn protocol(&self) -> Protocol {
        Protocol::Paxos
    }

    fn next_timeout(&self) -> Option<Instant> {
        if self.role == Role::Leader {
            return Some(self.heartbeat_at);
        }
        // One that is damaged has to say so in time, if nobody leads.
        let counts = self.is_electable() || !self.damaged.is_empty();
        let election = Some(self.election_at).filter(|_| counts);
        let asked_again = self.campaign.as_ref().map(|campaign| campaign.ask_again_at);
        let reads = self.reads.attempt_ends(self.config.election_timeout);
        [reads, election, asked_again].into_iter().flatten().min()
    }

    fn role(&self) -> Role {
        self.role
    }

    fn leader(&self) -> NodeId {
        self.leader
    }

    fn commit(&self) -> Index {
        self.commit
    }

    fn applied_base(&self) -> Base {
        match self.commit < self.applied {
            true => self.state.clone(),
            false => self.base_at(self.applied),
        }
    }

    fn status(&self) -> Status {
        let leading = self.role == Role::Leader;
        let peers = self.followers.iter().filter(|_| leading).map(|p| PeerStatus {
            node: p.node,
            matched: p.matched,
            next: p.next,
            active: p.active_since(self.heartbeat_at - self.config.patience),
            snapshot: p.mode == Mode::Snapshot,
        });
        let last = self.slots.last_index();
        let ballot = self.slots.ballot_at(last).unwrap_or(self.slots.base().ballot);
        Status {
            epoch: self.config.epoch,
            protocol: Protocol::Paxos,
            role: self.role,
            ballot: self.promised,
            leader: self.leader,
            base: self.slots.base(),
            last: Position::new(last, ballot),
            durable: self.journal.durable(),
            commit: self.commit,
            applied: self.applied,
            membership: self.membership().clone(),
            peers: peers.collect(),
        }
    }
}
