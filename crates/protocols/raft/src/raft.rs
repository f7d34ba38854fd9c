//! The replica: its state, and the way of an input through it.

use crate::canary::Canary;
use crate::mending::{Lost, Mending};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;
use quorate_base::{Ballot, Index, Instant, NodeId, Position, Rng};
use quorate_replicated_log::{
    AnswerReads, Base, Body, Config, Effects, Event, Followers, HardState, Input, Journal, Log,
    Membership, Message, PeerStatus, Protocol, QuorumSpec, Reads, Recovered, ReplicatedLog, Role,
    Send, Status, StepDown, WriteId,
};

/// After this many election timeouts without an end of a write, or without a commit, a leader
/// gives up; it then rests as long, so that another takes over.
const STALL_TIMEOUTS: u32 = 5;

/// One replica of one group under Raft.
#[derive(Clone, Debug)]
pub struct Raft {
    pub(crate) config: Config,
    pub(crate) spec: QuorumSpec,
    pub(crate) rng: Rng,
    pub(crate) canary: Option<Canary>,

    // What is, or is becoming, durable.
    /// The highest round seen, and who has this replica's vote in it.
    pub(crate) promised: Ballot,
    /// The write that made the promise durable.
    pub(crate) promise_write: WriteId,
    pub(crate) log: Log,
    pub(crate) journal: Journal,

    pub(crate) commit: Index,
    /// Committed entries were handed out up to here.
    pub(crate) handed_out: Index,
    pub(crate) applied: Index,

    pub(crate) reads: Reads,
    pub(crate) role: Role,
    pub(crate) leader: NodeId,
    /// What the driver was last told of role, ballot and leader.
    pub(crate) announced: (Role, u64, NodeId),

    // As a follower or candidate.
    pub(crate) election_at: Instant,
    /// No vote for another before this: a leader was heard from (or may have been, by an earlier
    /// run of this replica).
    pub(crate) sticky_until: Instant,
    /// No candidacy before this: this replica's leadership stalled.
    pub(crate) resting_until: Instant,
    pub(crate) votes: Vec<(NodeId, bool)>,
    pub(crate) standing_by_transfer: bool,
    /// Numbers the attempts to be elected, so that what is pulled for one serves no other.
    pub(crate) pull: u64,
    /// Entries up to here may have been promised though the log no longer has them (damage).
    pub(crate) promised_end: Option<Position>,
    /// What is known of those.
    pub(crate) lost: Lost,
    pub(crate) mending: Option<Mending>,
    /// While that is so: the disk is left as it is from here on, until all of it is repaired.
    pub(crate) repair_from: Index,

    // As a leader.
    pub(crate) followers: Followers,
    pub(crate) next_session: u64,
    pub(crate) heartbeat_at: Instant,
    pub(crate) led_since: Instant,
    /// Until then, whatever happens meanwhile, there is no reason to step down.
    pub(crate) steady_until: Instant,
    /// Index of the first entry of this leadership.
    pub(crate) first_own: Index,
    pub(crate) ready: bool,
    pub(crate) transfer: Option<(NodeId, Instant)>,
    /// Another was told to stand, in this leadership: it may do so however late it hears of it.
    pub(crate) offered: bool,
    /// When something was last committed, or nothing waited to be.
    pub(crate) progress_at: Instant,
    /// Last index and bytes of the runs that are not committed yet.
    pub(crate) uncommitted: VecDeque<(Index, usize)>,
    pub(crate) uncommitted_bytes: usize,
}

impl Raft {
    /// A replica that starts, or starts again, with what was found on its disk.
    pub fn new(config: Config, now: Instant, recovered: Recovered) -> Raft {
        Self::build(config, now, recovered, None)
    }

    /// The same with a deliberate bug.
    #[cfg(feature = "canary")]
    pub fn with_canary(
        config: Config,
        now: Instant,
        recovered: Recovered,
        canary: Option<Canary>,
    ) -> Raft {
        Self::build(config, now, recovered, canary)
    }

    /// The same with another quorum rule.
    pub fn with_quorums(mut self, spec: QuorumSpec) -> Raft {
        self.spec = spec;
        self
    }

    fn build(config: Config, now: Instant, recovered: Recovered, canary: Option<Canary>) -> Raft {
        let mut rng = Rng::new(config.seed);
        let is = |bug| cfg!(feature = "canary") && canary == Some(bug);
        let reads_from = if is(Canary::ReuseReadIds) { 0 } else { rng.next_u64() };
        let forgot = is(Canary::ForgetVote);
        let mut found = crate::recovery::recover(recovered, now);
        if is(Canary::DenyDamaged) {
            (found.promised_end, found.lost) = (None, Default::default());
        }
        let promised = if forgot {
            Ballot::new(found.log.last().ballot.round, NodeId::NONE)
        } else {
            found.promised
        };
        // With leases on, an earlier run may have promised a leader not to vote for another.
        let sticky = if config.lease_clock_drift_ppm.is_some() && !config.opens {
            now + config.patience
        } else {
            Instant::ZERO
        };
        let mut raft = Raft {
            spec: QuorumSpec::majority(),
            rng,
            canary,
            promised,
            promise_write: WriteId(0),
            log: found.log,
            journal: found.journal,
            commit: found.commit,
            handed_out: found.applied,
            applied: found.applied,
            reads: Reads::new(reads_from),
            role: Role::Follower,
            leader: NodeId::NONE,
            announced: (Role::Follower, promised.round, NodeId::NONE),
            election_at: now,
            sticky_until: sticky,
            resting_until: Instant::ZERO,
            votes: Vec::new(),
            standing_by_transfer: false,
            pull: config.seed,
            promised_end: found.promised_end,
            lost: found.lost,
            mending: None,
            repair_from: found.repair_from,
            followers: Followers::default(),
            next_session: 0,
            heartbeat_at: now,
            led_since: now,
            steady_until: Instant::ZERO,
            first_own: 0,
            ready: false,
            transfer: None,
            offered: false,
            progress_at: now,
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
            config,
        };
        raft.role = raft.resting_role();
        raft.announced.0 = raft.role;
        raft.reset_election(now);
        raft.hasten_first_election(now);
        raft
    }

    pub(crate) fn is(&self, bug: Canary) -> bool {
        cfg!(feature = "canary") && self.canary == Some(bug)
    }

    pub(crate) fn me(&self) -> NodeId {
        self.config.node
    }

    pub(crate) fn membership(&self) -> &Membership {
        self.log.membership()
    }

    /// Members for decisions: a canary forgets the outgoing voters.
    pub(crate) fn deciding(&self) -> alloc::borrow::Cow<'_, Membership> {
        let members = self.log.membership();
        if members.is_joint() && self.is(Canary::SingleQuorumInJoint) {
            alloc::borrow::Cow::Owned(members.leave_joint())
        } else {
            alloc::borrow::Cow::Borrowed(members)
        }
    }

    pub(crate) fn is_voter(&self) -> bool {
        self.membership().is_voter(self.me())
    }

    /// Whether it stands for election when nobody leads. One that is being removed does so until
    /// its removal is committed: it may hold the only log that can be elected (Ongaro's thesis,
    /// section 4.2.2).
    pub(crate) fn is_electable(&self) -> bool {
        let changed_at = self.log.membership_index();
        let is_pending = changed_at > self.commit && changed_at >= self.log.first_index();
        self.is_voter()
            || (is_pending && self.log.membership_at(changed_at - 1).is_voter(self.me()))
    }

    pub(crate) fn is_only_voter(&self) -> bool {
        let members = self.membership();
        members.voters == [self.me()] && !members.is_joint()
    }

    /// What this replica is when it neither leads nor stands.
    pub(crate) fn resting_role(&self) -> Role {
        let learner = self.membership().learners.contains(&self.me()) && !self.is_voter();
        if learner { Role::Learner } else { Role::Follower }
    }

    pub(crate) fn stall_timeout(&self) -> Duration {
        self.config.election_timeout * STALL_TIMEOUTS
    }

    pub(crate) fn reset_election(&mut self, now: Instant) {
        self.wait_for_election(now, self.config.election_timeout);
    }

    /// A leader was heard from.
    pub(crate) fn await_leader(&mut self, now: Instant) {
        self.wait_for_election(now, self.config.patience);
    }

    fn wait_for_election(&mut self, now: Instant, timeout: Duration) {
        let at = now + self.rng.duration(timeout, timeout + timeout / 2);
        // A leader's lease rests on this replica's patience, whatever came in between.
        let leases = self.config.lease_clock_drift_ppm.is_some();
        self.election_at = if leases { at.max(self.sticky_until) } else { at };
    }

    /// Remembers the promise and the commit index; returns what must be durable first.
    pub(crate) fn remember(&mut self) -> WriteId {
        // What a damaged replica took from others is not on its disk yet, where something else may
        // be in its place: see `recovery`.
        let on_disk = if self.is_damaged() { self.repair_from - 1 } else { Index::MAX };
        let state = HardState { promised: self.promised, commit: self.commit.min(on_disk) };
        self.journal.remember(state)
    }

    /// Takes note of a promise.
    pub(crate) fn promise(&mut self, ballot: Ballot) {
        self.promised = ballot;
        self.promise_write = self.remember();
    }

    pub(crate) fn send(&self, out: &mut Effects, to: NodeId, body: Body, after: Option<WriteId>) {
        // A leader and a candidate speak under their own ballot, and so does who votes for itself.
        let ballot = match self.role {
            Role::Leader => Ballot::new(self.promised.round, self.me()),
            _ => self.promised,
        };
        self.send_as(out, to, ballot, body, after);
    }

    pub(crate) fn send_as(
        &self,
        out: &mut Effects,
        to: NodeId,
        ballot: Ballot,
        body: Body,
        after: Option<WriteId>,
    ) {
        let message = Message { epoch: self.config.epoch, ballot, body };
        out.sends.push(Send { to, message, after });
    }

    /// Falls back to following: `round` and `leader` as now known.
    pub(crate) fn follow(&mut self, now: Instant, round: u64, leader: NodeId, out: &mut Effects) {
        debug_assert!(round >= self.promised.round);
        if round > self.promised.round {
            self.promise(Ballot::new(round, NodeId::NONE));
        }
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
        self.votes.clear();
        self.standing_by_transfer = false;
        self.mending = None;
    }

    /// A leader gives up by itself.
    pub(crate) fn step_down(&mut self, now: Instant, reason: StepDown, out: &mut Effects) {
        if matches!(reason, StepDown::DiskStalled | StepDown::NoProgress) {
            self.resting_until = now + self.stall_timeout();
        }
        out.events.push(Event::SteppedDown { reason });
        self.follow(now, self.promised.round, NodeId::NONE, out);
        self.reset_election(now);
    }

    /// After every input: what gathered goes out, and what changed is told.
    fn finish(&mut self, now: Instant, out: &mut Effects) {
        if self.role == Role::Leader {
            self.finish_leading(now, out);
        }
        self.flush_follower_reads(now, out);
        self.hand_out(out);
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
        if self.role == Role::Leader && !self.ready && self.applied >= self.first_own {
            self.ready = true;
            out.events.push(Event::ReadyToLead);
        }
    }

    fn hand_out(&mut self, out: &mut Effects) {
        if self.commit > self.handed_out {
            for run in self.log.runs(self.handed_out + 1, self.commit) {
                out.committed.push(run);
            }
            self.handed_out = self.commit;
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Effects) {
        if self.role == Role::Leader {
            self.tick_leading(now, out);
        } else {
            if now >= self.election_at {
                self.in_vain(out);
                self.election_timeout(now, out);
            }
            self.tick_mending(now, out);
            self.expire_follower_reads(now, out);
        }
    }
}

impl ReplicatedLog for Raft {
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
            Input::Campaign => self.campaign(now),
            Input::Transfer { to } => self.start_transfer(now, to, out),
            Input::PeerLost { node } => self.peer_lost(now, node),
            Input::SnapshotInstalled { base, from, session } => {
                self.snapshot_installed(now, base, from, session, out);
            }
            Input::SnapshotSent { to, index } => self.snapshot_sent(to, index),
            Input::Damaged { range } => self.damaged(now, &range, out),
        }
        // Whatever the input was, time has passed.
        self.tick(now, out);
        self.finish(now, out);
    }

    fn protocol(&self) -> Protocol {
        Protocol::Raft
    }

    fn next_timeout(&self) -> Option<Instant> {
        if self.role == Role::Leader {
            return Some(self.heartbeat_at);
        }
        // One that is damaged has to say so in time, if nobody leads.
        let counts = self.is_electable() || self.is_damaged();
        let election = Some(self.election_at).filter(|_| counts);
        let mending = self.mending.as_ref().filter(|_| self.role == Role::Candidate);
        let mending = mending.map(|mending| mending.again_at);
        let reads = self.reads.attempt_ends(self.config.election_timeout);
        [reads, election, mending].into_iter().flatten().min()
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
        let ballot = self.log.ballot_at(self.applied).unwrap_or(self.log.base().position.ballot);
        Base {
            position: Position::new(self.applied, ballot),
            membership: self.log.membership_at(self.applied).clone(),
            ..*self.log.base()
        }
    }

    fn status(&self) -> Status {
        let leading = self.role == Role::Leader;
        let peers = self.followers.iter().filter(|_| leading).map(|p| PeerStatus {
            node: p.node,
            matched: p.matched,
            next: p.next,
            active: p.active_since(self.heartbeat_at - self.config.patience),
            snapshot: p.mode == quorate_replicated_log::Mode::Snapshot,
        });
        Status {
            epoch: self.config.epoch,
            protocol: Protocol::Raft,
            role: self.role,
            ballot: self.promised,
            leader: self.leader,
            base: self.log.base().position,
            last: self.log.last(),
            durable: self.journal.durable(),
            commit: self.commit,
            applied: self.applied,
            membership: self.membership().clone(),
            peers: peers.collect(),
        }
    }
}
