//! One replica on this node: its log engine, and what waits for it.
//!
//! Invariant: a message gated on a write leaves only after that write is durable; the service sees
//! every committed entry once and in order; a request is answered once.

mod effects;
mod epochs;
mod members;
mod proposals;
mod queries;
mod reads;
mod snapshots;
mod upkeep;

use crate::canary::Canary;
use crate::config::DriverConfig;
use crate::event::{Done, Notice, Outputs, Request, RequestError, Token, Work};
use crate::peer::PeerMessage;
use bytes::Bytes;
use epochs::Epochs;
pub(crate) use epochs::beginning;
use proposals::Proposals;
use queries::Queries;
use quorate_base::codec::DecodeError;
use quorate_base::{GroupId, Index, Instant, NodeId};
use quorate_replicated_log::{
    Base, Effects, Epoch, Input, Message, Protocol, Recovered, ReplicatedLog, Role, Send, Status,
    Write, WriteId,
};
use reads::Reads;
use snapshots::Snapshots;
use std::collections::VecDeque;
use upkeep::Upkeep;

/// What a group needs from the driver while it works.
pub(crate) struct Context<'a, R> {
    pub now: Instant,
    pub config: &'a DriverConfig,
    pub outputs: &'a mut Outputs<R>,
    pub writes: &'a mut Vec<(GroupId, Write)>,
    pub effects: &'a mut Effects,
    pub engines: Option<&'a Engines>,
}

/// Makes the engine of a group whose log begins anew, in a new epoch: of the protocol and the
/// epoch of what was recovered, which nobody took part in before.
pub type Engines =
    Box<dyn Fn(Instant, GroupId, Recovered) -> Box<dyn ReplicatedLog> + core::marker::Send>;

impl<R> Context<'_, R> {
    fn reply(&mut self, token: Token, error: RequestError) {
        self.outputs.replies.push((token, Err(error)));
    }

    fn send(&mut self, to: NodeId, message: PeerMessage) {
        self.outputs.sends.push((to, message));
    }
}

/// Whether a service could read a command's body.
pub type CommandCheck = fn(&Bytes) -> Result<(), DecodeError>;

/// One replica.
pub(crate) struct Group {
    id: GroupId,
    log: Box<dyn ReplicatedLog>,
    check: CommandCheck,
    /// The last durable write, and the messages that wait for a later one.
    durable: WriteId,
    held: VecDeque<Send>,
    /// The last write that was asked for.
    last_write: WriteId,
    epochs: Epochs,
    /// What the service was given and what it has done.
    committed: Index,
    applied: Base,
    /// Whether the service was told to lead.
    leading: bool,
    /// The leader that proposals were last routed by.
    leader: NodeId,
    service_timeout: Option<Instant>,
    ticking: bool,
    proposals: Proposals,
    reads: Reads,
    queries: Queries,
    transfers: Vec<(Token, NodeId, Instant)>,
    snapshots: Snapshots,
    upkeep: Upkeep,
    /// When deadlines and retries are looked at next, if anything waits.
    next_sweep: Option<Instant>,
}

impl Group {
    pub fn new(
        id: GroupId,
        log: Box<dyn ReplicatedLog>,
        check: CommandCheck,
        config: &DriverConfig,
        now: Instant,
    ) -> Self {
        let applied = log.applied_base();
        let run = if config.is(Canary::ReuseRequestIds) { 1 } else { config.run };
        Group {
            id,
            check,
            durable: WriteId(0),
            held: VecDeque::new(),
            last_write: WriteId(0),
            epochs: Epochs::new(&applied),
            committed: applied.position.index,
            upkeep: Upkeep::new(log.status().base.index, now),
            applied,
            leading: false,
            leader: log.leader(),
            service_timeout: None,
            ticking: false,
            proposals: Proposals::new(config.node, run),
            reads: Reads::new(config.run),
            queries: Queries::new(config.run),
            transfers: Vec::new(),
            snapshots: Snapshots::default(),
            next_sweep: None,
            log,
        }
    }

    pub fn status(&self) -> Status {
        self.log.status()
    }

    pub fn role(&self) -> Role {
        self.log.role()
    }

    pub fn leader(&self) -> NodeId {
        self.log.leader()
    }

    pub fn epoch(&self) -> (Epoch, Protocol) {
        (self.epochs.number(), self.log.protocol())
    }

    pub fn applied(&self) -> &Base {
        &self.applied
    }

    pub fn log_message<R>(&mut self, cx: &mut Context<'_, R>, from: NodeId, message: Message) {
        let here = self.epochs.number();
        if message.epoch == here {
            self.input(cx, Input::Message { from, message });
        } else if message.epoch < here {
            self.tell_epoch(cx, from);
        } else {
            self.fall_behind(cx, from);
        }
    }

    pub fn peer_lost<R>(&mut self, cx: &mut Context<'_, R>, node: NodeId) {
        if node == self.leader {
            self.proposals.requeue();
            self.queries.resend();
            self.schedule_sweep(cx);
        }
        self.input(cx, Input::PeerLost { node });
    }

    /// Another node's message that is not the log's own.
    pub fn peer<R>(&mut self, cx: &mut Context<'_, R>, from: NodeId, message: PeerMessage) {
        match message {
            PeerMessage::Log { message, .. } => self.log_message(cx, from, message),
            PeerMessage::Forward { commands, .. } => self.forwarded(cx, from, commands),
            PeerMessage::ForwardChange { change, judged, context, .. } => {
                self.forwarded_change(cx, from, (change, judged), context);
            }
            PeerMessage::ForwardTransfer { to, .. } => {
                if self.log.role() == Role::Leader {
                    self.input(cx, Input::Transfer { to });
                }
            }
            PeerMessage::ForwardRefused { requests, reason, .. } => {
                self.forward_refused(cx, from, &requests, reason);
            }
            PeerMessage::Query { id, question, .. } => self.peer_asks(cx, from, id, question),
            PeerMessage::QueryReply { id, answer, .. } => self.peer_told(cx, from, id, answer),
            PeerMessage::Switch { next, judged, .. } => {
                self.asked_to_switch(cx, from, next, judged);
            }
            PeerMessage::SwitchRefused { judged, reason, .. } => {
                self.switch_refused(cx, judged, reason);
            }
            PeerMessage::Opened { epoch, .. } => self.peer_opened(cx, from, epoch),
            PeerMessage::CatchUp { epoch, .. } => self.catch_up(cx, from, epoch),
            PeerMessage::Snapshot { session, base, part, chunk, .. } => {
                self.snapshot_part_arrived(cx, from, session, base, part, chunk);
            }
            PeerMessage::SnapshotReply { session, index, outcome, .. } => {
                self.snapshot_reply(cx, from, session, index, outcome);
            }
        }
    }

    /// A client's request.
    pub fn request<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        token: Token,
        deadline: Instant,
        request: Request,
    ) {
        match request {
            Request::Propose(body) => self.request_propose(cx, token, deadline, &body),
            Request::Change { change, judged, context } => {
                self.request_change(cx, token, deadline, (change, judged), &context);
            }
            Request::Read => self.request_read(cx, token, deadline),
            Request::Query(question) => self.request_query(cx, token, deadline, question),
            Request::Transfer(to) => self.request_transfer(cx, token, deadline, to),
            Request::Switch { to, judged } => {
                self.request_switch(cx, token, deadline, (to, judged));
            }
        }
        self.schedule_sweep(cx);
    }

    /// Writes up to `id` are durable.
    pub fn written<R>(&mut self, cx: &mut Context<'_, R>, id: WriteId) {
        self.durable = self.durable.max(id);
        while self.held.front().is_some_and(|send| send.after <= Some(self.durable)) {
            if let Some(send) = self.held.pop_front() {
                let message = PeerMessage::Log { group: self.id, message: send.message };
                cx.send(send.to, message);
            }
        }
        self.input(cx, Input::Written { id });
    }

    /// The service finished something.
    pub fn done<R, P>(&mut self, cx: &mut Context<'_, R>, done: Done<R, P>) {
        match done {
            Done::Applied { base, applied } => {
                for (request, reply) in applied.replies {
                    self.proposal_applied(cx, request, reply);
                }
                self.applied_up_to(cx, base);
            }
            Done::Ticked { commands } => {
                self.ticking = false;
                self.propose_internal(cx, commands);
            }
            Done::Told { id, answer } => self.service_told(cx, id, answer),
            Done::Persisted { index } => self.persisted(cx, index),
            Done::SnapshotPart { to, session, base, part, chunk } => {
                self.snapshot_part_ready(cx, to, session, base, part, chunk);
            }
            Done::Received { from, session, base, state } => {
                self.snapshot_received(cx, from, session, base, state);
            }
            Done::Timeout { at } => self.service_timeout = at,
            Done::Failed { reason } => cx.outputs.notices.push(Notice::Fatal { reason }),
        }
    }

    fn applied_up_to<R>(&mut self, cx: &mut Context<'_, R>, base: Base) {
        if base.position.index <= self.applied.position.index {
            return;
        }
        self.note_applied(cx, base);
        let index = self.applied.position.index;
        self.input(cx, Input::Applied { index });
        self.release_reads(cx);
        self.upkeep(cx);
        if self.applied.epoch > self.epochs.number() {
            self.epoch_ended(cx);
        }
    }

    /// The service's state ends here now.
    fn note_applied<R>(&mut self, cx: &mut Context<'_, R>, base: Base) {
        if base.membership != self.applied.membership {
            let notice = Notice::MembersChanged { group: self.id, base: base.clone() };
            cx.outputs.notices.push(notice);
        }
        self.applied = base;
    }

    /// Hands an input to the log and carries out what follows.
    fn input<R>(&mut self, cx: &mut Context<'_, R>, input: Input) {
        self.log.step(cx.now, input, cx.effects);
        self.carry_out(cx);
    }

    /// Once per poll: what is due, then what has gathered.
    pub fn poll<R>(&mut self, cx: &mut Context<'_, R>) {
        if self.log.next_timeout().is_some_and(|at| at <= cx.now) {
            self.input(cx, Input::Tick);
        }
        if self.leading && !self.ticking && self.service_timeout.is_some_and(|at| at <= cx.now) {
            self.ticking = true;
            cx.outputs.work.push((self.id, Work::Tick));
        }
        if self.next_sweep.is_some_and(|at| at <= cx.now) {
            self.sweep(cx);
        }
        self.go_on(cx);
        self.upkeep(cx);
        self.flush_proposals(cx);
        self.flush_reads(cx);
        self.flush_queries(cx);
        self.flush_switches(cx);
    }

    /// When this group next needs a poll though nothing happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        let service = self.service_timeout.filter(|_| self.leading && !self.ticking);
        [self.log.next_timeout(), service, self.next_sweep, self.upkeep.next_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn schedule_sweep<R>(&mut self, cx: &Context<'_, R>) {
        if self.next_sweep.is_none() {
            self.next_sweep = Some(cx.now + cx.config.retry_interval / 4);
        }
    }

    /// Looks at deadlines and retries, as long as anything waits.
    fn sweep<R>(&mut self, cx: &mut Context<'_, R>) {
        self.next_sweep = None;
        self.sweep_proposals(cx);
        self.sweep_reads(cx);
        self.sweep_queries(cx);
        self.sweep_transfers(cx);
        self.sweep_snapshots(cx);
        self.sweep_epochs(cx);
        let idle = self.proposals.is_empty()
            && self.reads.is_empty()
            && self.queries.is_empty()
            && self.transfers.is_empty()
            && self.snapshots.is_empty()
            && self.epochs.is_empty();
        if !idle {
            self.schedule_sweep(cx);
        }
    }

    /// The node stops, or the group leaves it: everyone who waits is told why.
    pub fn stop<R>(&mut self, cx: &mut Context<'_, R>, why: RequestError) {
        let mut tokens = self.proposals.drain_tokens();
        tokens.extend(self.reads.drain_tokens());
        tokens.extend(self.queries.drain_tokens());
        tokens.extend(self.epochs.drain_tokens());
        tokens.extend(self.transfers.drain(..).map(|(token, _, _)| token));
        for token in tokens {
            cx.reply(token, why.clone());
        }
        self.held.clear();
    }

    fn propose_internal<R>(&mut self, cx: &mut Context<'_, R>, commands: Vec<Bytes>) {
        let deadline = cx.now + cx.config.retry_interval * 8;
        for body in commands {
            // Refused when full: the service will call for it again.
            let _ = self.proposals.add(cx.config, None, deadline, None, &body);
        }
        self.schedule_sweep(cx);
    }
}
