//! Snapshots on their way: read out part by part for followers, taken in from a leader.
//!
//! One part is under way at a time; a lost one is sent again, a broken stream goes on where it
//! was. The parts travel as bulk messages, so that they delay nothing else.

use super::{Context, Group};
use crate::event::{ReceiveState, Work};
use crate::peer::{PeerMessage, SnapshotOutcome};
use quorate_base::{Index, Instant, NodeId};
use quorate_replicated_log::{Base, Input, SnapshotWanted};
use quorate_service::SnapshotChunk;
use std::collections::BTreeMap;

/// A snapshot being sent to one follower.
struct Sending {
    session: u64,
    /// Where it ends, once the service has opened it.
    index: Option<Index>,
    part: u64,
    /// Whether the service was asked for the part and has not produced it yet.
    asked: bool,
    /// When the part is sent again, and how often that was done in a row.
    retry_at: Instant,
    retries: u32,
}

/// A snapshot being received.
struct Receiving {
    from: NodeId,
    session: u64,
    base: Base,
    /// The part wanted next, and whether the service works on one.
    next: u64,
    busy: bool,
    idle_at: Instant,
    /// How often part 0 came since another part was taken.
    restarts: u32,
}

/// Both directions.
#[derive(Default)]
pub(super) struct Snapshots {
    sending: BTreeMap<NodeId, Sending>,
    receiving: Option<Receiving>,
}

/// The session of a snapshot for one that is in an earlier epoch; an engine's are numbered from 1.
pub(super) const CATCH_UP: u64 = 0;

/// A part that stays unanswered so often in a row ends the attempt; the log will want another.
const MAX_RETRIES: u32 = 20;

/// Part 0 coming again and again means that the sender has begun anew, and can no longer produce
/// the part that is wanted here: then this side begins anew as well.
const MAX_RESTARTS: u32 = 3;

impl Snapshots {
    pub fn is_sending(&self, to: NodeId) -> bool {
        self.sending.contains_key(&to)
    }

    pub fn is_receiving(&self) -> bool {
        self.receiving.is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.sending.is_empty() && self.receiving.is_none()
    }
}

impl Group {
    pub(super) fn snapshot_wanted<R>(&mut self, cx: &mut Context<'_, R>, wanted: SnapshotWanted) {
        let SnapshotWanted { to, session } = wanted;
        if self.snapshots.sending.get(&to).is_some_and(|it| it.session == session) {
            return; // Who asks again and again would otherwise never have all of it.
        }
        let sending = Sending {
            session,
            index: None,
            part: 0,
            asked: true,
            retry_at: cx.now + cx.config.retry_interval,
            retries: 0,
        };
        self.snapshots.sending.insert(to, sending);
        cx.outputs.work.push((self.id, Work::SnapshotOpen { to, session }));
        self.schedule_sweep(cx);
    }

    pub(super) fn snapshot_part_ready<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        to: NodeId,
        session: u64,
        base: Base,
        part: u64,
        chunk: Option<SnapshotChunk>,
    ) {
        let Some(sending) = self.snapshots.sending.get_mut(&to) else { return };
        if sending.session != session || sending.part != part {
            return;
        }
        let Some(chunk) = chunk else {
            self.end_sending(cx, to, None);
            return;
        };
        sending.index = Some(base.position.index);
        sending.asked = false;
        sending.retry_at = cx.now + cx.config.retry_interval;
        let group = self.id;
        cx.send(to, PeerMessage::Snapshot { group, session, base, part, chunk });
    }

    pub(super) fn snapshot_reply<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        from: NodeId,
        session: u64,
        index: Index,
        outcome: SnapshotOutcome,
    ) {
        let Some(sending) = self.snapshots.sending.get_mut(&from) else { return };
        if sending.session != session || sending.index != Some(index) {
            return;
        }
        match outcome {
            SnapshotOutcome::Next(part) => {
                // A late answer to a repeated part asks for one that is under way already.
                if !sending.asked && part != sending.part {
                    sending.part = part;
                    sending.asked = true;
                    sending.retries = 0;
                    sending.retry_at = cx.now + cx.config.retry_interval;
                    let work = Work::SnapshotPart { to: from, session, part };
                    cx.outputs.work.push((self.id, work));
                }
            }
            SnapshotOutcome::Done => self.end_sending(cx, from, Some(index)),
            SnapshotOutcome::Failed => self.end_sending(cx, from, None),
        }
    }

    fn end_sending<R>(&mut self, cx: &mut Context<'_, R>, to: NodeId, index: Option<Index>) {
        if self.snapshots.sending.remove(&to).is_some() {
            cx.outputs.work.push((self.id, Work::SnapshotClose { to }));
            self.input(cx, Input::SnapshotSent { to, index });
        }
    }

    /// No longer the leader: what was being sent as one is another's task now. What goes to those
    /// that are in an earlier epoch goes on: without them there may never be a leader.
    pub(super) fn close_snapshots<R>(&mut self, cx: &mut Context<'_, R>) {
        let id = self.id;
        self.snapshots.sending.retain(|to, sending| {
            let stays = sending.session == CATCH_UP;
            if !stays {
                cx.outputs.work.push((id, Work::SnapshotClose { to: *to }));
            }
            stays
        });
    }

    pub(super) fn snapshot_part_arrived<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        from: NodeId,
        session: u64,
        base: Base,
        part: u64,
        chunk: SnapshotChunk,
    ) {
        let index = base.position.index;
        if index <= self.applied.position.index || index <= self.log.commit() {
            if index > self.log.commit() {
                // The log does not know yet how far the state is: it is as if it had come whole.
                let base = self.applied.clone();
                self.input(cx, Input::SnapshotInstalled { base, from, session });
            }
            self.answer_part(cx, from, session, index, SnapshotOutcome::Done);
            return;
        }
        let idle_at = cx.now + cx.config.retry_interval * MAX_RETRIES;
        let current = self.snapshots.receiving.as_ref();
        let same = current.is_some_and(|r| (r.from, r.session, &r.base) == (from, session, &base));
        if !same {
            if part != 0 {
                self.answer_part(cx, from, session, index, SnapshotOutcome::Next(0));
                return;
            }
            let goes_on = |r: &Receiving| r.from != from && r.idle_at > cx.now;
            if current.is_some_and(|r| r.busy || (from != self.leader && goes_on(r))) {
                // The service still works on a part of the other's; or several that do not lead
                // give their states, which must not begin anew by turns. The sender repeats.
                return;
            }
            let base = base.clone();
            self.snapshots.receiving =
                Some(Receiving { from, session, base, next: 0, busy: false, idle_at, restarts: 0 });
        }
        let Some(receiving) = &mut self.snapshots.receiving else { return };
        receiving.idle_at = idle_at;
        if receiving.busy {
            return;
        }
        if part == 0 && receiving.next > 0 {
            receiving.restarts += 1;
            if receiving.restarts > MAX_RESTARTS {
                (receiving.next, receiving.restarts) = (0, 0);
            }
        }
        if part != receiving.next {
            let next = receiving.next;
            self.answer_part(cx, from, session, index, SnapshotOutcome::Next(next));
            return;
        }
        receiving.busy = true;
        let work = Work::Receive { from, session, base, part, chunk };
        cx.outputs.work.push((self.id, work));
        self.schedule_sweep(cx);
    }

    pub(super) fn snapshot_received<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        from: NodeId,
        session: u64,
        base: Base,
        state: ReceiveState,
    ) {
        let index = base.position.index;
        let outcome = match state {
            ReceiveState::Wants(part) => {
                if let Some(receiving) = &mut self.snapshots.receiving {
                    if part > receiving.next {
                        receiving.restarts = 0;
                    }
                    receiving.next = part;
                    receiving.busy = false;
                }
                SnapshotOutcome::Next(part)
            }
            ReceiveState::Installed => {
                self.snapshots.receiving = None;
                self.installed(cx, from, session, base);
                SnapshotOutcome::Done
            }
            ReceiveState::Failed => {
                self.snapshots.receiving = None;
                SnapshotOutcome::Failed
            }
        };
        self.answer_part(cx, from, session, index, outcome);
    }

    fn installed<R>(&mut self, cx: &mut Context<'_, R>, from: NodeId, session: u64, base: Base) {
        let index = base.position.index;
        self.committed = self.committed.max(index);
        self.upkeep_after_install(index);
        if base.epoch == self.epochs.number() {
            self.input(cx, Input::SnapshotInstalled { base: base.clone(), from, session });
            self.applied_up_to(cx, base);
        } else {
            // Of a later epoch: whatever this log holds, the state covers it. It is told nothing of
            // that, for it would go on to hand out what it holds.
            if index > self.applied.position.index {
                self.note_applied(cx, base);
                self.open_epoch(cx);
                self.release_reads(cx);
            }
        }
    }

    fn answer_part<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        to: NodeId,
        session: u64,
        index: Index,
        outcome: SnapshotOutcome,
    ) {
        let group = self.id;
        cx.send(to, PeerMessage::SnapshotReply { group, session, index, outcome });
    }

    pub(super) fn sweep_snapshots<R>(&mut self, cx: &mut Context<'_, R>) {
        let mut given_up = Vec::new();
        for (to, sending) in &mut self.snapshots.sending {
            if sending.asked || sending.retry_at > cx.now {
                continue;
            }
            sending.retries += 1;
            if sending.retries > MAX_RETRIES {
                given_up.push(*to);
                continue;
            }
            sending.asked = true;
            let (session, part) = (sending.session, sending.part);
            cx.outputs.work.push((self.id, Work::SnapshotPart { to: *to, session, part }));
        }
        for to in given_up {
            self.end_sending(cx, to, None);
        }
        let stale = |r: &Receiving| !r.busy && r.idle_at <= cx.now;
        if self.snapshots.receiving.as_ref().is_some_and(stale) {
            self.snapshots.receiving = None;
        }
    }
}
