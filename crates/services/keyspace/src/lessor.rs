//! The leader's lease clock.
//!
//! Which leases exist is replicated; when they run out is known to the leader alone. A new leader
//! starts every lease afresh, or from its last checkpoint, so a lease may live longer than was
//! promised and never shorter.
//!
//! Invariant: a time promised to a client ends before the deadline kept here, and before the one
//! any later leader would keep. What the clock proposes is void under another leader's ballot.

use crate::canary::{Bug, Canary};
use crate::command::Command;
use quorate_base::time::Duration;
use quorate_base::{Ballot, Instant};
use quorate_mvcc::LeaseId;
use std::collections::{BTreeMap, BTreeSet};

/// The longest time to live, in seconds. etcd's limit.
pub const MAX_TTL_SECONDS: i64 = 9_000_000_000;

/// Leases in one checkpoint command.
const CHECKPOINT_LEASES: usize = 1_000;
/// A new lease's time starts at the next tick, at most this much after it was granted.
const FRESH_DELAY: Duration = Duration::from_millis(200);

/// Settings of the lease clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LessorConfig {
    /// At most so many leases are ended per second.
    pub revoke_per_second: u32,
    /// An ending that has not happened after this is proposed again.
    pub retry: Duration,
    /// How often the remaining time of a lease that is not kept alive is replicated; `None`: never.
    pub checkpoint_interval: Option<Duration>,
}

impl Default for LessorConfig {
    fn default() -> Self {
        LessorConfig {
            revoke_per_second: 1_000,
            retry: Duration::from_secs(3),
            checkpoint_interval: None,
        }
    }
}

/// The shortest time to live worth granting, in whole seconds: etcd's rule of one and a half
/// election timeouts in heartbeats. Whoever proposes a lease lifts its time to live to this.
pub fn minimum_ttl_seconds(election_timeout: Duration, heartbeat: Duration) -> i64 {
    let heartbeat = heartbeat.as_millis().max(1);
    let ticks = 3 * (election_timeout.as_millis() / heartbeat) / 2;
    i64::try_from((ticks * heartbeat).div_ceil(1_000)).unwrap_or(MAX_TTL_SECONDS).max(1)
}

/// The clock. Idle until [`Lessor::promote`].
#[derive(Clone, Debug)]
pub struct Lessor {
    config: LessorConfig,
    canary: Canary,
    leading: bool,
    /// The latest time it was told.
    now: Instant,
    clocks: BTreeMap<LeaseId, Clock>,
    /// When each lease is to be ended, or its ending proposed again.
    due: BTreeSet<(Instant, LeaseId)>,
    /// When each lease's remaining time is to be replicated.
    checkpoints: BTreeSet<(Instant, LeaseId)>,
    /// Granted since the last tick: nobody has told the time since.
    fresh: Vec<(LeaseId, i64)>,
    /// Kept alive although a checkpoint says that they have less time.
    restored: BTreeSet<LeaseId>,
    /// Number of the last checkpoint of this leadership.
    number: u64,
    /// Ending one more lease is due no earlier (the generic cell rate algorithm).
    allowed_at: Instant,
}

#[derive(Clone, Debug)]
struct Clock {
    ttl_seconds: i64,
    deadline: Instant,
    /// Its place in `due`: the deadline, or when to propose its ending again.
    due: Instant,
    checkpoint_at: Option<Instant>,
    /// What a later leader may believe that it had left; zero: its full time.
    checkpointed_seconds: i64,
    /// Number of the last checkpoint that said so.
    checkpoint_number: u64,
}

impl Lessor {
    /// An idle clock.
    pub fn new(config: LessorConfig, canary: Canary) -> Self {
        Lessor {
            config,
            canary,
            leading: false,
            now: Instant::ZERO,
            clocks: BTreeMap::new(),
            due: BTreeSet::new(),
            checkpoints: BTreeSet::new(),
            fresh: Vec::new(),
            restored: BTreeSet::new(),
            number: 0,
            allowed_at: Instant::ZERO,
        }
    }

    /// This replica leads from `now`: starts every lease's time. `leases` are (id, full time,
    /// checkpointed remaining time or zero), in seconds.
    pub fn promote(&mut self, now: Instant, leases: impl Iterator<Item = (LeaseId, i64, i64)>) {
        self.demote();
        (self.leading, self.now, self.allowed_at) = (true, now, now);
        for (id, ttl, remaining) in leases {
            self.start(now, id, ttl, remaining);
        }
    }

    /// This replica no longer leads.
    pub fn demote(&mut self) {
        self.leading = false;
        self.clocks.clear();
        self.due.clear();
        self.checkpoints.clear();
        self.fresh.clear();
        self.restored.clear();
        self.number = 0;
    }

    /// A lease was granted.
    pub fn granted(&mut self, id: LeaseId, ttl_seconds: i64) {
        if self.leading {
            self.fresh.push((id, ttl_seconds));
        }
    }

    /// A lease was ended.
    pub fn revoked(&mut self, id: LeaseId) {
        if !self.leading {
            return;
        }
        self.fresh.retain(|(fresh, _)| *fresh != id);
        self.restored.remove(&id);
        if let Some(clock) = self.clocks.remove(&id) {
            self.due.remove(&(clock.due, id));
            if let Some(at) = clock.checkpoint_at {
                self.checkpoints.remove(&(at, id));
            }
        }
    }

    /// A checkpoint of this leadership was applied; `number` tells which.
    pub fn checkpointed(&mut self, number: u64, remaining: &[(LeaseId, i64)]) {
        for (id, seconds) in remaining {
            if let Some(clock) = self.clocks.get_mut(id)
                && *seconds == 0
                && number == clock.checkpoint_number
            {
                clock.checkpointed_seconds = 0;
                self.restored.remove(id);
            }
        }
    }

    /// Starts a lease's time afresh. Returns how many seconds may be promised from now, or
    /// nothing if there is no such lease or it has run out.
    pub fn keep_alive(&mut self, now: Instant, id: LeaseId) -> Option<i64> {
        self.advance(now);
        let clock = self.clocks.get_mut(&id)?;
        if clock.deadline <= now {
            return None;
        }
        let promised = match clock.checkpointed_seconds {
            0 => clock.ttl_seconds,
            // A leader that followed now would go by the checkpoint: promise no more until its
            // withdrawal is applied.
            seconds => {
                self.restored.insert(id);
                seconds
            }
        };
        let deadline = now + seconds(clock.ttl_seconds);
        self.due.remove(&(clock.due, id));
        (clock.deadline, clock.due) = (deadline, deadline);
        self.due.insert((deadline, id));
        self.schedule_checkpoint(now, id);
        Some(promised)
    }

    /// A lease's full time and how many whole seconds it has left, unless it has run out.
    pub fn time_to_live(&mut self, now: Instant, id: LeaseId) -> Option<(i64, i64)> {
        self.advance(now);
        let clock = self.clocks.get(&id).filter(|clock| clock.deadline > now)?;
        let left = i64::try_from(clock.deadline.since(now).as_secs()).unwrap_or(i64::MAX);
        Some((clock.ttl_seconds, left))
    }

    /// Adds the commands that `now` calls for, to be proposed by the leader of `ballot`.
    pub fn tick(&mut self, now: Instant, ballot: Ballot, commands: &mut Vec<Command>) {
        self.advance(now);
        if self.leading {
            self.expire(now, ballot, commands);
            self.checkpoint(now, ballot, commands);
        }
    }

    /// When the next tick is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        if !self.leading {
            return None;
        }
        let fresh = (!self.fresh.is_empty()).then(|| self.now + FRESH_DELAY);
        let restored = (!self.restored.is_empty()).then(|| self.now + FRESH_DELAY);
        let due = self.due.first().map(|(at, _)| (*at).max(self.allowed_at));
        let checkpoint = self.checkpoints.first().map(|(at, _)| *at);
        [fresh, restored, due, checkpoint].into_iter().flatten().min()
    }

    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        for (id, ttl) in std::mem::take(&mut self.fresh) {
            self.start(self.now, id, ttl, 0);
        }
    }

    fn start(&mut self, now: Instant, id: LeaseId, ttl_seconds: i64, remaining: i64) {
        let mut left =
            seconds(if remaining > 0 { remaining.min(ttl_seconds) } else { ttl_seconds });
        if self.canary.sings(Bug::LeaseExpiresEarly) {
            left /= 2;
        }
        let deadline = now + left;
        self.clocks.insert(
            id,
            Clock {
                ttl_seconds,
                deadline,
                due: deadline,
                checkpoint_at: None,
                checkpointed_seconds: remaining.max(0),
                checkpoint_number: 0,
            },
        );
        self.due.insert((deadline, id));
        self.schedule_checkpoint(now, id);
    }

    fn expire(&mut self, now: Instant, ballot: Ballot, commands: &mut Vec<Command>) {
        let cost = Duration::from_secs(1) / self.config.revoke_per_second.max(1);
        // Up to half a second's worth may go at once.
        let earliest = now - Duration::from_millis(500);
        self.allowed_at = self.allowed_at.max(earliest);
        while let Some((at, id)) = self.due.first().copied()
            && at <= now
            && self.allowed_at <= now
        {
            self.allowed_at = self.allowed_at + cost;
            self.due.pop_first();
            if let Some(clock) = self.clocks.get_mut(&id) {
                clock.due = now + self.config.retry;
                self.due.insert((clock.due, id));
                commands.push(Command::LeaseExpire { id, ballot });
            }
        }
    }

    fn checkpoint(&mut self, now: Instant, ballot: Ballot, commands: &mut Vec<Command>) {
        let restored = std::mem::take(&mut self.restored);
        let mut remaining: Vec<(LeaseId, i64)> = restored.iter().map(|id| (*id, 0)).collect();
        while let Some((at, id)) = self.checkpoints.first().copied()
            && at <= now
        {
            self.checkpoints.pop_first();
            let Some(clock) = self.clocks.get_mut(&id) else { continue };
            clock.checkpoint_at = None;
            if clock.deadline > now && !restored.contains(&id) {
                // Rounded up: a later leader must not end it early.
                let left = clock.deadline.since(now).as_nanos().div_ceil(1_000_000_000);
                clock.checkpointed_seconds = i64::try_from(left).unwrap_or(MAX_TTL_SECONDS);
                remaining.push((id, clock.checkpointed_seconds));
            }
            self.schedule_checkpoint(now, id);
        }
        for part in remaining.chunks(CHECKPOINT_LEASES) {
            self.number += 1;
            for (id, _) in part {
                if let Some(clock) = self.clocks.get_mut(id) {
                    clock.checkpoint_number = self.number;
                }
            }
            let (number, remaining) = (self.number, part.to_vec());
            commands.push(Command::LeaseCheckpoint { ballot, number, remaining });
        }
    }

    fn schedule_checkpoint(&mut self, now: Instant, id: LeaseId) {
        let Some(interval) = self.config.checkpoint_interval else { return };
        let Some(clock) = self.clocks.get_mut(&id) else { return };
        if let Some(at) = clock.checkpoint_at.take() {
            self.checkpoints.remove(&(at, id));
        }
        if clock.deadline.since(now) > interval {
            clock.checkpoint_at = Some(now + interval);
            self.checkpoints.insert((now + interval, id));
        }
    }
}

fn seconds(n: i64) -> Duration {
    Duration::from_secs(u64::try_from(n).unwrap_or(0))
}
