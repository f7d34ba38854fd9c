//! From one epoch of the log to the next.
//!
//! Once the seal that ends an epoch is applied here, and the service has persisted that, the log
//! is told to begin anew after it, and the engine is replaced by one of the next protocol. A leader
//! goes last: until the others are ready it helps them to learn of the seal. Whoever hears that
//! others have gone on, and is not about to by itself, asks one of them for the service's state.
//!
//! Invariants: the log begins anew only after the service's durable state, never below it, and the
//! promise is carried along; nothing of the last epoch is written after that. What the new engine
//! says of lasting effect waits for a write of its own, which comes after that one in the log: a
//! crash in between finds a state that is past the log's epoch, and goes on from there (see
//! [`crate::resume`]).

use super::snapshots::CATCH_UP;
use super::{Context, Group};
use crate::canary::Canary;
use crate::event::{Answer, Notice, RequestError, Token};
use crate::peer::{ForwardRefusal, PeerMessage};
use core::time::Duration;
use quorate_base::{Ballot, Instant, NodeId};
use quorate_replicated_log::{
    Base, Entries, Epoch, HardState, Input, ProposalId, Protocol, Recovered, Role, SnapshotWanted,
    Write, WriteId,
};
use std::collections::BTreeMap;

/// Names the proposal of a seal; no other has this number.
pub(super) const SEAL: ProposalId = ProposalId(0);

/// Requests for a switch that may wait.
const MAX_SWITCHES: usize = 64;

/// A request of this node's client.
struct Switch {
    token: Token,
    deadline: Instant,
    to: Protocol,
    judged: Epoch,
    /// When the leader is asked, again perhaps.
    retry_at: Instant,
}

/// Others are in a later epoch.
struct Behind {
    /// Who said so last.
    whom: NodeId,
    /// When it is asked for the state, unless this replica gets on by itself before.
    ask_at: Instant,
}

/// Which epoch this replica's log is in, and what it knows of the others'.
pub(super) struct Epochs {
    number: Epoch,
    protocol: Protocol,
    /// When the end of the epoch was applied here.
    ended_at: Option<Instant>,
    /// It led when the last epoch ended, and nobody is known to lead this one yet.
    led: bool,
    /// The latest epoch that each peer said it was in.
    opened: BTreeMap<NodeId, Epoch>,
    /// When each peer that is behind was told so.
    told: BTreeMap<NodeId, Instant>,
    behind: Option<Behind>,
    switches: Vec<Switch>,
    /// Who wants the seal that the log is being offered at this moment.
    asker: NodeId,
}

impl Epochs {
    /// Of a log that begins after `base`.
    pub fn new(base: &Base) -> Self {
        Epochs {
            number: base.epoch,
            protocol: base.protocol,
            ended_at: None,
            led: false,
            opened: BTreeMap::new(),
            told: BTreeMap::new(),
            behind: None,
            switches: Vec::new(),
            asker: NodeId::NONE,
        }
    }

    /// The epoch of this replica's log.
    pub fn number(&self) -> Epoch {
        self.number
    }

    pub fn is_empty(&self) -> bool {
        self.behind.is_none() && self.switches.is_empty()
    }

    /// Whether the end of the epoch was applied here: the state must be persisted soon.
    pub fn is_ending(&self) -> bool {
        self.ended_at.is_some()
    }

    pub fn drain_tokens(&mut self) -> Vec<Token> {
        self.switches.drain(..).map(|switch| switch.token).collect()
    }

    /// Somebody leads this epoch.
    pub fn has_leader(&mut self) {
        self.led = false;
    }
}

/// How long a leader waits for the others to be ready.
fn patience<R>(cx: &Context<'_, R>) -> Duration {
    cx.config.retry_interval / 4
}

impl Group {
    /// The service's state went past the log's epoch.
    pub(super) fn epoch_ended<R>(&mut self, cx: &mut Context<'_, R>) {
        if self.epochs.ended_at.is_none() {
            self.epochs.ended_at = Some(cx.now);
            self.epochs.behind = None;
            self.upkeep(cx);
        }
        self.go_on(cx);
    }

    /// Opens the next epoch, if nothing is to be waited for.
    pub(super) fn go_on<R>(&mut self, cx: &mut Context<'_, R>) {
        let Some(ended_at) = self.epochs.ended_at else { return };
        if !self.is_persisted(self.applied.position.index) {
            return;
        }
        let waits = self.log.role() == Role::Leader && cx.now < ended_at + patience(cx);
        if waits && !self.others_went_on() {
            let at = ended_at + patience(cx);
            self.next_sweep = Some(self.next_sweep.map_or(at, |sweep| sweep.min(at)));
            return;
        }
        self.open_epoch(cx);
    }

    /// Whether everyone that this leader hears of has opened the next epoch.
    fn others_went_on(&self) -> bool {
        let status = self.log.status();
        let mut active = status.peers.iter().filter(|peer| peer.active);
        active.all(|peer| self.epochs.opened.get(&peer.node) > Some(&self.epochs.number))
    }

    /// The log begins anew after the service's state, under the protocol that follows.
    pub(super) fn open_epoch<R>(&mut self, cx: &mut Context<'_, R>) {
        let Some(engines) = cx.engines else {
            let reason = format!("group {} begins an epoch, but has no engine for it", self.id);
            cx.outputs.notices.push(Notice::Fatal { reason });
            return;
        };
        let base = self.applied.clone();
        let was = self.log.status();
        let led = was.role == Role::Leader;
        let forgets = cx.config.is(Canary::ForgetPromise);
        let promised = if forgets { Ballot::ZERO } else { was.ballot.max(base.position.ballot) };
        let write = beginning(&base, promised, self.last_write);
        let recovered = Recovered {
            base: base.clone(),
            applied: base.clone(),
            hard_state: write.hard_state.unwrap_or_default(),
            written: write.id,
            ..Recovered::default()
        };
        self.last_write = write.id;
        cx.writes.push((self.id, write));
        self.log = engines(cx.now, self.id, recovered);
        self.committed = base.position.index;
        self.upkeep_after_install(base.position.index);
        let epochs = &mut self.epochs;
        (epochs.number, epochs.protocol, epochs.ended_at) = (base.epoch, base.protocol, None);
        (epochs.led, epochs.behind) = (led, None);
        epochs.told.clear();
        let (role, leader) = (self.log.role(), self.log.leader());
        self.role_changed(cx, role, self.log.status().ballot, leader);
        cx.outputs.notices.push(Notice::EpochOpened { group: self.id, base: base.clone() });
        let (group, epoch) = (self.id, base.epoch);
        for to in base.membership.all().into_iter().filter(|to| *to != cx.config.node) {
            cx.send(to, PeerMessage::Opened { group, epoch });
        }
        self.settle_switches(cx);
        self.campaign_when_ready(cx);
    }

    /// Whoever led before stands as soon as a quorum can vote.
    fn campaign_when_ready<R>(&mut self, cx: &mut Context<'_, R>) {
        if !self.epochs.led || !self.log.leader().is_none() {
            return;
        }
        let voters = &self.applied.membership.voters;
        let ready = |node: &&NodeId| {
            let opened = self.epochs.opened.get(node);
            **node == cx.config.node || opened >= Some(&self.epochs.number)
        };
        if voters.iter().filter(ready).count() * 2 > voters.len() {
            self.input(cx, Input::Campaign);
        }
    }

    /// A peer says which epoch it is in.
    pub(super) fn peer_opened<R>(&mut self, cx: &mut Context<'_, R>, from: NodeId, epoch: Epoch) {
        let known = self.epochs.opened.entry(from).or_default();
        *known = epoch.max(*known);
        if epoch > self.epochs.number {
            self.fall_behind(cx, from);
            self.go_on(cx);
        } else {
            self.campaign_when_ready(cx);
        }
    }

    /// A peer speaks in an earlier epoch: it is told where this replica is, now and then.
    pub(super) fn tell_epoch<R>(&mut self, cx: &mut Context<'_, R>, to: NodeId) {
        let told = self.epochs.told.get(&to);
        if told.is_none_or(|at| *at + cx.config.retry_interval / 16 <= cx.now) {
            self.epochs.told.insert(to, cx.now);
            let (group, epoch) = (self.id, self.epochs.number);
            cx.send(to, PeerMessage::Opened { group, epoch });
        }
    }

    /// A peer is in a later epoch. What is here must not be dropped for that: it may be one of
    /// the copies by which others still have to learn how this epoch ends.
    pub(super) fn fall_behind<R>(&mut self, cx: &mut Context<'_, R>, whom: NodeId) {
        if self.epochs.is_ending() {
            return;
        }
        if cx.config.is(Canary::DropTail) {
            self.drop_tail(cx);
            return;
        }
        // One that has nothing yet has nothing to wait for.
        let grace = if self.applied.position.index == 0 { 0 } else { 1 };
        let ask_at = cx.now + cx.config.retry_interval / 2 * grace;
        self.epochs.behind.get_or_insert(Behind { whom, ask_at }).whom = whom;
        self.schedule_sweep(cx);
    }

    /// The deliberate bug: to follow the others without knowing what they agreed on.
    fn drop_tail<R>(&mut self, cx: &mut Context<'_, R>) {
        self.applied.epoch = self.epochs.number.next();
        let other = |protocol: &Protocol| *protocol != self.epochs.protocol;
        self.applied.protocol = Protocol::ALL.into_iter().find(other).unwrap_or_default();
        self.open_epoch(cx);
    }

    /// A peer that is behind wants the state.
    pub(super) fn catch_up<R>(&mut self, cx: &mut Context<'_, R>, from: NodeId, epoch: Epoch) {
        if epoch < self.epochs.number && !self.snapshots.is_sending(from) {
            self.snapshot_wanted(cx, SnapshotWanted { to: from, session: CATCH_UP });
        }
    }

    pub(super) fn request_switch<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        token: Token,
        deadline: Instant,
        (to, judged): (Protocol, Epoch),
    ) {
        let error = if judged != self.epochs.number {
            Some(RequestError::Outdated)
        } else if to == self.epochs.protocol {
            Some(RequestError::BadChange)
        } else if self.epochs.switches.len() >= MAX_SWITCHES {
            Some(RequestError::TooManyRequests)
        } else {
            None
        };
        match error {
            Some(error) => cx.reply(token, error),
            None => {
                let retry_at = cx.now;
                self.epochs.switches.push(Switch { token, deadline, to, judged, retry_at });
            }
        }
    }

    /// Asks whoever leads for the switches that are due.
    pub(super) fn flush_switches<R>(&mut self, cx: &mut Context<'_, R>) {
        let leader = self.log.leader();
        if self.epochs.switches.is_empty() || leader.is_none() {
            return;
        }
        let mut due = None;
        for switch in &mut self.epochs.switches {
            if switch.retry_at <= cx.now {
                switch.retry_at = cx.now + cx.config.retry_interval;
                due = Some((switch.to, switch.judged));
            }
        }
        let Some((next, judged)) = due else { return };
        if leader == cx.config.node {
            self.asked_to_switch(cx, leader, next, judged);
        } else {
            cx.send(leader, PeerMessage::Switch { group: self.id, next, judged });
        }
    }

    /// Somebody wants the epoch to end.
    pub(super) fn asked_to_switch<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        from: NodeId,
        next: Protocol,
        judged: Epoch,
    ) {
        self.epochs.asker = from;
        self.input(cx, Input::Seal { id: SEAL, next, judged });
    }

    /// The log does not end the epoch.
    pub(super) fn seal_refused<R>(&mut self, cx: &mut Context<'_, R>, reason: ForwardRefusal) {
        let (group, judged) = (self.id, self.epochs.number);
        let asker = self.epochs.asker;
        if asker == cx.config.node {
            self.switch_refused(cx, judged, reason);
        } else {
            cx.send(asker, PeerMessage::SwitchRefused { group, judged, reason });
        }
    }

    /// The leader does not end the epoch.
    pub(super) fn switch_refused<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        judged: Epoch,
        reason: ForwardRefusal,
    ) {
        let error = match reason {
            // Asked again. Where another seal is under way, its outcome answers this request too.
            ForwardRefusal::NotLeader(_) | ForwardRefusal::Transferring => return,
            ForwardRefusal::Full => RequestError::TooManyRequests,
            ForwardRefusal::ChangeInProgress => RequestError::ChangeInProgress,
            ForwardRefusal::BadChange => RequestError::BadChange,
            ForwardRefusal::Outdated | ForwardRefusal::NotReady => RequestError::Outdated,
        };
        for switch in self.epochs.switches.extract_if(.., |switch| switch.judged == judged) {
            cx.outputs.replies.push((switch.token, Err(error.clone())));
        }
    }

    /// An epoch was opened: whoever wanted it is answered.
    fn settle_switches<R>(&mut self, cx: &mut Context<'_, R>) {
        let (number, protocol) = (self.epochs.number, self.epochs.protocol);
        for switch in self.epochs.switches.extract_if(.., |switch| switch.judged < number) {
            let wanted = switch.judged.next() == number && switch.to == protocol;
            let reply = if wanted {
                Ok(Answer::Switched { epoch: number, protocol })
            } else {
                Err(RequestError::Outdated)
            };
            cx.outputs.replies.push((switch.token, reply));
        }
    }

    pub(super) fn sweep_epochs<R>(&mut self, cx: &mut Context<'_, R>) {
        let now = cx.now;
        for switch in self.epochs.switches.extract_if(.., |switch| switch.deadline <= now) {
            cx.outputs.replies.push((switch.token, Err(RequestError::DeadlineExceeded)));
        }
        let receiving = self.snapshots.is_receiving();
        if let Some(behind) = &mut self.epochs.behind
            && behind.ask_at <= now
            && !receiving
        {
            behind.ask_at = now + cx.config.retry_interval;
            let (to, group, epoch) = (behind.whom, self.id, self.epochs.number);
            cx.send(to, PeerMessage::CatchUp { group, epoch });
        }
    }
}

/// The write by which a log begins anew after `base`, in a new epoch. The promise is at least the
/// base's ballot: rounds never fall along the log, whatever the epoch, for services go by them.
pub(crate) fn beginning(base: &Base, promised: Ballot, last: WriteId) -> Write {
    Write {
        id: WriteId(last.0 + 1),
        reset: Some(Box::new(base.clone())),
        compact: None,
        truncate_from: None,
        entries: Entries::default(),
        slots: Vec::new(),
        hard_state: Some(HardState { promised, commit: base.position.index }),
    }
}
