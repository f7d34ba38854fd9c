//! Proposals: from a client's request to its own application on this node.
//!
//! A proposal is offered to the leader (this node's own log, or another node by a message) and
//! offered again whenever it may have been lost; its request identity makes that harmless.

use super::{Context, Group};
use crate::canary::Canary;
use crate::config::DriverConfig;
use crate::event::{Answer, Notice, RequestError, Token};
use crate::peer::{ForwardRefusal, PeerMessage};
use bytes::Bytes;
use quorate_base::{GroupId, Index, Instant, NodeId, RequestId};
use quorate_replicated_log::{Change, Input, ProposalId, Role};
use quorate_service::Envelope;
use std::collections::VecDeque;

/// More than an envelope adds to a command.
const ENVELOPE_BYTES: usize = 64;

/// A change of members, and what whoever asks for it had applied when it made sense.
type Judged = (Change, Index);

/// One request of this node that waits for its application.
struct Pending {
    /// Whom to answer; nobody for the service's own commands.
    token: Option<Token>,
    deadline: Instant,
    /// A change of members, and what was applied when it was judged.
    change: Option<Judged>,
    command: Bytes,
    /// How often it was offered.
    offers: u32,
    /// When it is offered again unless something happens before; nothing while it is queued.
    retry_at: Option<Instant>,
}

impl Pending {
    /// Marks it offered by a message, which may be lost: retried later and later, so that a slow
    /// leader is not buried in copies.
    fn offer(&mut self, now: Instant, config: &DriverConfig) {
        self.retry_at = Some(now + config.retry_interval * (1 << self.offers.min(6)));
        self.offers += 1;
    }
}

/// Where an offered command came from.
enum Source {
    Own(u64),
    Peer(NodeId, Bytes),
}

/// The proposals of this node, and those that peers forwarded and that are yet to be offered.
pub(super) struct Proposals {
    node: NodeId,
    run: u64,
    /// Sequence of the first slot. Slots of settled requests in the middle are empty.
    first: u64,
    pending: VecDeque<Option<Pending>>,
    bytes: usize,
    /// Sequences to be offered.
    queue: VecDeque<u64>,
    forwarded: Vec<(NodeId, Bytes)>,
    forwarded_changes: Vec<(NodeId, Judged, Bytes)>,
    next_proposal: u64,
    /// What the log is being offered at this moment.
    offered: Vec<Source>,
}

impl Proposals {
    pub fn new(node: NodeId, run: u64) -> Self {
        Proposals {
            node,
            run,
            first: 1,
            pending: VecDeque::new(),
            bytes: 0,
            queue: VecDeque::new(),
            forwarded: Vec::new(),
            forwarded_changes: Vec::new(),
            next_proposal: 0,
            offered: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes a command in; it is offered with the next flush.
    pub fn add(
        &mut self,
        config: &DriverConfig,
        token: Option<Token>,
        deadline: Instant,
        change: Option<Judged>,
        body: &[u8],
    ) -> Result<(), RequestError> {
        if body.len() > config.limits.command_bytes {
            return Err(RequestError::TooLarge);
        }
        if self.pending.len() >= config.limits.pending_proposals
            || self.bytes + body.len() > config.limits.pending_bytes
        {
            return Err(RequestError::TooManyRequests);
        }
        let sequence = self.first + self.pending.len() as u64;
        let request = RequestId { node: self.node, run: self.run, sequence, settled: self.first };
        let command = Envelope::encode(request, body);
        self.bytes += command.len();
        let pending = Pending { token, deadline, change, command, offers: 0, retry_at: None };
        self.pending.push_back(Some(pending));
        self.queue.push_back(sequence);
        Ok(())
    }

    fn get(&mut self, sequence: u64) -> Option<&mut Pending> {
        let slot = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.pending.get_mut(slot)?.as_mut()
    }

    /// Ends a proposal; the identities before the first that still waits are settled.
    fn settle(&mut self, sequence: u64) -> Option<Pending> {
        let slot = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        let pending = self.pending.get_mut(slot)?.take()?;
        self.bytes -= pending.command.len();
        while matches!(self.pending.front(), Some(None)) {
            self.pending.pop_front();
            self.first += 1;
        }
        Some(pending)
    }

    /// Everything that was offered may be lost: offer it again.
    pub fn requeue(&mut self) {
        self.queue.clear();
        for (slot, pending) in self.pending.iter_mut().enumerate() {
            if let Some(pending) = pending {
                pending.retry_at = None;
                self.queue.push_back(self.first + slot as u64);
            }
        }
    }

    pub fn drain_tokens(&mut self) -> Vec<Token> {
        self.queue.clear();
        self.bytes = 0;
        self.first += self.pending.len() as u64;
        self.pending.drain(..).flatten().filter_map(|pending| pending.token).collect()
    }

    /// Takes up to `max_bytes` of queued commands out for offering (at least one).
    fn take_commands(
        &mut self,
        now: Instant,
        config: &DriverConfig,
        max_bytes: usize,
        retried: &mut Vec<u64>,
    ) -> Vec<(u64, Bytes)> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(&sequence) = self.queue.front() {
            let Some(pending) = self.get(sequence).filter(|pending| pending.change.is_none())
            else {
                if self.get(sequence).is_some() {
                    break; // A change of members: it goes by itself.
                }
                self.queue.pop_front();
                continue;
            };
            if !taken.is_empty() && bytes + pending.command.len() > max_bytes {
                break;
            }
            bytes += pending.command.len();
            pending.offer(now, config);
            if pending.offers > 1 {
                retried.push(sequence);
            }
            taken.push((sequence, pending.command.clone()));
            self.queue.pop_front();
        }
        taken
    }

    /// Takes a queued change of members out, if it is next.
    fn take_change(&mut self, now: Instant, config: &DriverConfig) -> Option<(u64, Judged, Bytes)> {
        let &sequence = self.queue.front()?;
        let pending = self.get(sequence)?;
        let change = pending.change.clone()?;
        pending.offer(now, config);
        let command = pending.command.clone();
        self.queue.pop_front();
        Some((sequence, change, command))
    }

    fn request(&self, sequence: u64) -> RequestId {
        RequestId { node: self.node, run: self.run, sequence, settled: self.first }
    }
}

impl Group {
    pub(super) fn request_propose<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        token: Token,
        deadline: Instant,
        body: &[u8],
    ) {
        let lag = self.committed.saturating_sub(self.applied.position.index);
        let added = if lag > cx.config.limits.apply_lag_entries {
            Err(RequestError::TooManyRequests)
        } else {
            self.proposals.add(cx.config, Some(token), deadline, None, body)
        };
        if let Err(error) = added {
            cx.reply(token, error);
        }
    }

    pub(super) fn request_change<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        token: Token,
        deadline: Instant,
        change: Judged,
        context: &[u8],
    ) {
        let added = self.proposals.add(cx.config, Some(token), deadline, Some(change), context);
        if let Err(error) = added {
            cx.reply(token, error);
        }
    }

    pub(super) fn forwarded<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        from: NodeId,
        commands: Vec<Bytes>,
    ) {
        if self.log.role() != Role::Leader {
            let reason = ForwardRefusal::NotLeader(self.log.leader());
            refuse(cx, self.id, from, commands.iter(), reason);
            return;
        }
        for command in commands {
            if self.is_readable(cx, from, &command) {
                self.proposals.forwarded.push((from, command));
            }
        }
    }

    /// Whether every replica will be able to apply what a peer wants proposed: once committed, a
    /// command that cannot be read would stop them all. The peer is newer, or lies.
    fn is_readable<R>(&self, cx: &mut Context<'_, R>, from: NodeId, command: &Bytes) -> bool {
        let fits = command.len() <= cx.config.limits.command_bytes + ENVELOPE_BYTES;
        let checked = match Envelope::decode(command.clone()) {
            _ if !fits => Err("it is longer than the limit".to_owned()),
            Ok(envelope) => (self.check)(&envelope.body).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let Err(reason) = checked else { return true };
        cx.outputs.notices.push(Notice::Unreadable { group: self.id, from, reason });
        false
    }

    pub(super) fn forwarded_change<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        from: NodeId,
        change: Judged,
        context: Bytes,
    ) {
        if self.log.role() == Role::Leader {
            if self.is_readable(cx, from, &context) {
                self.proposals.forwarded_changes.push((from, change, context));
            }
        } else {
            let reason = ForwardRefusal::NotLeader(self.log.leader());
            refuse(cx, self.id, from, [context].iter(), reason);
        }
    }

    /// Offers what is queued to whoever leads.
    pub(super) fn flush_proposals<R>(&mut self, cx: &mut Context<'_, R>) {
        if self.log.role() == Role::Leader {
            self.offer_to_own_log(cx);
            return;
        }
        self.refuse_forwarded(cx);
        let leader = self.log.leader();
        if leader.is_none() || leader == cx.config.node {
            return;
        }
        loop {
            if let Some((_, (change, judged), context)) =
                self.proposals.take_change(cx.now, cx.config)
            {
                let group = self.id;
                cx.send(leader, PeerMessage::ForwardChange { group, change, judged, context });
                continue;
            }
            let mut retried = Vec::new();
            let limit = cx.config.limits.forward_bytes;
            let taken = self.proposals.take_commands(cx.now, cx.config, limit, &mut retried);
            if taken.is_empty() {
                return;
            }
            self.note_retries(cx, &retried);
            let commands = taken.into_iter().map(|(_, command)| command).collect();
            cx.send(leader, PeerMessage::Forward { group: self.id, commands });
        }
    }

    fn offer_to_own_log<R>(&mut self, cx: &mut Context<'_, R>) {
        let mut commands = Vec::new();
        let mut sources = core::mem::take(&mut self.proposals.offered);
        sources.clear();
        for (from, command) in self.proposals.forwarded.drain(..) {
            commands.push(command.clone());
            sources.push(Source::Peer(from, command));
        }
        let mut retried = Vec::new();
        let own = self.proposals.take_commands(cx.now, cx.config, usize::MAX, &mut retried);
        for (sequence, command) in own {
            commands.push(command);
            sources.push(Source::Own(sequence));
        }
        self.note_retries(cx, &retried);
        self.proposals.offered = sources;
        if !commands.is_empty() {
            let id = self.proposals.next_id();
            self.input(cx, Input::Propose { id, commands });
        }
        while let Some((sequence, (change, judged), context)) =
            self.proposals.take_change(cx.now, cx.config)
        {
            self.proposals.offered.push(Source::Own(sequence));
            let id = self.proposals.next_id();
            self.input(cx, Input::Change { id, change, judged, context });
        }
        for (from, (change, judged), context) in
            core::mem::take(&mut self.proposals.forwarded_changes)
        {
            self.proposals.offered.push(Source::Peer(from, context.clone()));
            let id = self.proposals.next_id();
            self.input(cx, Input::Change { id, change, judged, context });
        }
    }

    fn refuse_forwarded<R>(&mut self, cx: &mut Context<'_, R>) {
        let reason = ForwardRefusal::NotLeader(self.log.leader());
        for (from, command) in core::mem::take(&mut self.proposals.forwarded) {
            refuse(cx, self.id, from, [command].iter(), reason);
        }
        for (from, _, context) in core::mem::take(&mut self.proposals.forwarded_changes) {
            refuse(cx, self.id, from, [context].iter(), reason);
        }
    }

    fn note_retries<R>(&self, cx: &mut Context<'_, R>, retried: &[u64]) {
        for &sequence in retried {
            let request = self.proposals.request(sequence);
            cx.outputs.notices.push(Notice::Retried { group: self.id, request });
        }
    }

    /// This node's own log took what it was offered: it is lost only with the leadership.
    pub(super) fn proposal_taken(&mut self, id: ProposalId) {
        if id.0 != self.proposals.next_proposal {
            return;
        }
        let mut offered = core::mem::take(&mut self.proposals.offered);
        for source in offered.drain(..) {
            if let Source::Own(sequence) = source
                && let Some(pending) = self.proposals.get(sequence)
            {
                pending.retry_at = Some(Instant::FAR);
            }
        }
        self.proposals.offered = offered;
    }

    /// The log did not take what it was offered.
    pub(super) fn proposal_refused<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        id: ProposalId,
        reason: ForwardRefusal,
    ) {
        if id.0 != self.proposals.next_proposal {
            return;
        }
        for source in core::mem::take(&mut self.proposals.offered) {
            match source {
                Source::Own(sequence) => self.refused(cx, sequence, reason),
                Source::Peer(from, command) => {
                    refuse(cx, self.id, from, [command].iter(), reason);
                }
            }
        }
    }

    /// The leader did not take what was forwarded.
    pub(super) fn forward_refused<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        from: NodeId,
        requests: &[RequestId],
        reason: ForwardRefusal,
    ) {
        if from != self.leader {
            return; // An earlier leader's: what it refused was requeued when it was replaced.
        }
        for request in requests {
            if (request.node, request.run) == (cx.config.node, self.proposals.run) {
                self.refused(cx, request.sequence, reason);
            }
        }
    }

    /// Refused before it was ever taken: the client is told why. Refused after an earlier offer
    /// whose fate is unknown: it waits, for that offer may yet be applied.
    fn refused<R>(&mut self, cx: &mut Context<'_, R>, sequence: u64, reason: ForwardRefusal) {
        let Some(pending) = self.proposals.get(sequence) else { return };
        let error = match reason {
            ForwardRefusal::NotLeader(_) | ForwardRefusal::Transferring => None,
            ForwardRefusal::Full => Some(RequestError::TooManyRequests),
            ForwardRefusal::ChangeInProgress => Some(RequestError::ChangeInProgress),
            ForwardRefusal::BadChange => Some(RequestError::BadChange),
            ForwardRefusal::Outdated => Some(RequestError::Outdated),
            ForwardRefusal::NotReady => Some(RequestError::NotReady),
        };
        match error.filter(|_| pending.offers == 1) {
            Some(error) => {
                if let Some(token) = self.proposals.settle(sequence).and_then(|p| p.token) {
                    cx.reply(token, error);
                }
            }
            None => {
                pending.retry_at = Some(cx.now + cx.config.retry_interval / 4);
            }
        }
    }

    /// A proposal of some node was applied here.
    pub(super) fn proposal_applied<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        request: RequestId,
        reply: R,
    ) {
        let any_run = cx.config.is(Canary::AnswerOtherRuns);
        if request.node != cx.config.node || (request.run != self.proposals.run && !any_run) {
            return;
        }
        if let Some(token) = self.proposals.settle(request.sequence).and_then(|p| p.token) {
            cx.outputs.replies.push((token, Ok(Answer::Applied(reply))));
        }
    }

    pub(super) fn sweep_proposals<R>(&mut self, cx: &mut Context<'_, R>) {
        let mut expired = Vec::new();
        let mut again = Vec::new();
        let first = self.proposals.first;
        for (slot, pending) in self.proposals.pending.iter_mut().enumerate() {
            let Some(pending) = pending else { continue };
            let sequence = first + slot as u64;
            if pending.deadline <= cx.now {
                expired.push(sequence);
            } else if pending.retry_at.is_some_and(|at| at <= cx.now) {
                pending.retry_at = None;
                again.push(sequence);
            }
        }
        self.proposals.queue.extend(again);
        for sequence in expired {
            let Some(pending) = self.proposals.settle(sequence) else { continue };
            let Some(token) = pending.token else { continue };
            // Never offered: certainly not applied.
            let error = match pending.offers {
                0 => RequestError::Unavailable,
                _ => RequestError::DeadlineExceeded,
            };
            cx.reply(token, error);
        }
    }
}

impl Proposals {
    fn next_id(&mut self) -> ProposalId {
        self.next_proposal += 1;
        ProposalId(self.next_proposal)
    }
}

/// Tells `to` that its commands were not proposed.
fn refuse<'a, R>(
    cx: &mut Context<'_, R>,
    group: GroupId,
    to: NodeId,
    commands: impl Iterator<Item = &'a Bytes>,
    reason: ForwardRefusal,
) {
    let requests: Vec<RequestId> = commands
        .filter_map(|command| Envelope::decode(command.clone()).ok())
        .map(|envelope| envelope.request)
        .collect();
    cx.send(to, PeerMessage::ForwardRefused { group, requests, reason });
}
