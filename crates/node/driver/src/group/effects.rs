//! Carrying out what the log engine wants done.

use super::epochs::SEAL;
use super::{Context, Group};
use crate::canary::Canary;
use crate::event::{Notice, Work};
use crate::peer::PeerMessage;
use quorate_base::{Ballot, NodeId};
use quorate_replicated_log::{Event, Role};

impl Group {
    /// Drains the effects of the last step. Events may lead to further steps, so they come last,
    /// once the batch is empty again.
    pub(super) fn carry_out<R>(&mut self, cx: &mut Context<'_, R>) {
        for write in cx.effects.writes.drain(..) {
            self.last_write = write.id;
            cx.writes.push((self.id, write));
        }
        for send in cx.effects.sends.drain(..) {
            if send.after > Some(self.durable) && !cx.config.is(Canary::IgnoreGates) {
                // Kept in order of write: an engine's later message may wait for an earlier write.
                let at = self.held.partition_point(|held| held.after <= send.after);
                self.held.insert(at, send);
            } else {
                let message = PeerMessage::Log { group: self.id, message: send.message };
                cx.outputs.sends.push((send.to, message));
            }
        }
        for entries in cx.effects.committed.drain(..) {
            if let Some(last) = entries.last_index() {
                debug_assert_eq!(entries.first_index(), Some(self.committed + 1));
                self.committed = last;
                self.upkeep.committed(&entries);
                cx.outputs.work.push((self.id, Work::Apply(entries)));
            }
        }
        let mut events = core::mem::take(&mut cx.effects.events);
        let mut reads = core::mem::take(&mut cx.effects.reads);
        let mut snapshots = core::mem::take(&mut cx.effects.snapshots);
        for ready in reads.drain(..) {
            self.read_ready(cx, ready);
        }
        for wanted in snapshots.drain(..) {
            self.snapshot_wanted(cx, wanted);
        }
        for event in events.drain(..) {
            self.log_event(cx, event);
        }
        // Hand the vectors back for their memory, unless a nested step left something in new ones.
        if cx.effects.is_empty() {
            cx.effects.events = events;
            cx.effects.reads = reads;
            cx.effects.snapshots = snapshots;
        }
    }

    fn log_event<R>(&mut self, cx: &mut Context<'_, R>, event: Event) {
        match event {
            Event::Proposed { id, .. } => self.proposal_taken(id),
            Event::Refused { id, reason } if id == SEAL => self.seal_refused(cx, reason.into()),
            Event::Refused { id, reason } => self.proposal_refused(cx, id, reason.into()),
            Event::ReadFailed { id } => self.read_failed(cx, id),
            Event::RoleChanged { role, ballot, leader } => {
                self.role_changed(cx, role, ballot, leader);
            }
            Event::ReadyToLead => {
                if !self.leading {
                    self.leading = true;
                    self.service_timeout = None;
                    self.ticking = false;
                    cx.outputs.work.push((self.id, Work::Lead));
                }
            }
            Event::Unreadable { first, last } => {
                cx.outputs.notices.push(Notice::Blocked { group: self.id, first, last });
            }
            Event::SteppedDown { reason } => {
                cx.outputs.notices.push(Notice::SteppedDown { group: self.id, reason });
            }
        }
    }

    pub(super) fn role_changed<R>(
        &mut self,
        cx: &mut Context<'_, R>,
        role: Role,
        ballot: Ballot,
        leader: NodeId,
    ) {
        if role != Role::Leader {
            if self.leading {
                self.leading = false;
                self.ticking = false;
                self.service_timeout = None;
                cx.outputs.work.push((self.id, Work::Follow));
            }
            self.close_snapshots(cx);
            self.refuse_peer_questions(cx);
        }
        // Whatever was handed to the last leader may be lost; sending it again is harmless.
        self.leader = leader;
        if !leader.is_none() {
            self.epochs.has_leader();
        }
        self.proposals.requeue();
        self.reads.retry_all();
        self.queries.resend();
        self.settle_transfers(cx);
        let epoch = self.epochs.number();
        let notice = Notice::RoleChanged { group: self.id, role, ballot, leader, epoch };
        cx.outputs.notices.push(notice);
    }
}
