//! The leader's side of phase 2: accepts that follow each other without waiting.

use super::replica::MultiPaxos;
use alloc::vec::Vec;
use quorate_base::{Index, Instant, NodeId};
use quorate_replicated_log::{
    Accept, Accepted, AnswerReads, Body, Cover, Effects, Mode, Progress, SnapshotWanted,
};

impl MultiPaxos {
    /// Sends every follower what it may be sent.
    pub(super) fn send_accepts(&mut self, out: &mut Effects) {
        let mut followers = core::mem::take(&mut self.followers);
        for progress in followers.iter_mut() {
            self.send_accept(progress, out);
        }
        self.followers = followers;
    }

    fn send_accept(&self, progress: &mut Progress, out: &mut Effects) {
        let last = self.slots.last_index();
        let done = |progress: &Progress| progress.next > last && progress.mode == Mode::Replicate;
        while !done(progress) && progress.may_send(&self.config.limits) {
            if progress.next <= self.slots.base().index {
                // The log no longer reaches back so far.
                progress.await_snapshot();
                let (to, session) = (progress.node, progress.session);
                out.snapshots.push(SnapshotWanted { to, session });
                return;
            }
            let (entries, bytes) =
                self.slots.slice(progress.next, last, self.config.limits.append_bytes);
            let end = entries.last_index().unwrap_or(progress.next - 1);
            progress.sent(end, bytes);
            // What it may take from this message as chosen, it need not be told again.
            progress.commit_told = progress.commit_told.max(self.commit.min(end));
            let (session, probe) = (progress.session, self.reads.probe());
            let accept = Accept { session, entries, commit: self.commit, probe };
            self.send(out, progress.node, Body::Accept(accept), None);
        }
    }

    pub(super) fn send_heartbeats(&mut self, out: &mut Effects) {
        let probe = self.reads.probe();
        let mut followers = core::mem::take(&mut self.followers);
        for progress in followers.iter_mut() {
            let commit = self.commit.min(progress.matched);
            let body = Body::Heartbeat { session: progress.session, commit, probe };
            progress.commit_told = commit;
            self.send(out, progress.node, body, None);
        }
        self.followers = followers;
    }

    /// The follower, if the answer is of the present session with it.
    fn in_session(&mut self, from: NodeId, session: u64) -> Option<&mut Progress> {
        self.followers.get_mut(from).filter(|p| p.session == session)
    }

    pub(super) fn accepted_by(
        &mut self,
        now: Instant,
        from: NodeId,
        accepted: &Accepted,
        out: &mut Effects,
    ) {
        let last = self.slots.last_index();
        let Accepted { session, probe, upto, beyond: (first, end) } = *accepted;
        let Some(progress) = self.in_session(from, session) else { return };
        progress.heard = Some(now);
        progress.probe = progress.probe.max(probe);
        if upto > last || end > last {
            return; // It cannot have accepted what was not proposed: the peer lies.
        }
        if progress.mode == Mode::Snapshot && upto < progress.next.saturating_sub(1) {
            return;
        }
        let gap = first <= end && first > upto + 1;
        let behind = upto < progress.matched;
        let mut news = false;
        if behind {
            // Less than it once had: its disk lost it, or the answer is an old one.
            let hole = upto + 1;
            if matches!(progress.mode, Mode::Probe { .. }) {
                // It was asked just now: it is to have again what it lost.
                progress.matched = upto;
                progress.probe_from(hole);
            } else if !gap && progress.mode == Mode::Replicate && progress.next <= hole {
                progress.probe_from(hole);
            }
        } else {
            news = progress.accepted(upto);
            if gap && progress.mode == Mode::Replicate {
                // What came before got lost, or will still come: the slots up to the gap's end
                // are sent again, those beyond it are there.
                progress.probe_from(upto + 1);
            }
        }
        if gap {
            news = true;
            self.note_beyond(from, upto, first, end);
        } else if let Some((_, cover)) = self.covers.iter_mut().find(|(node, _)| *node == from) {
            cover.raise(upto);
        }
        if news {
            self.progress_at = now;
            self.advance_commit(now);
            self.transfer_caught_up(from, out);
        }
        self.reads_confirmed(now, out);
    }

    fn note_beyond(&mut self, from: NodeId, upto: Index, first: Index, end: Index) {
        let at = self.covers.iter().position(|(node, _)| *node == from);
        let at = at.unwrap_or_else(|| {
            self.covers.push((from, Cover::new(upto)));
            self.covers.len() - 1
        });
        let cover = &mut self.covers[at].1;
        cover.raise(upto);
        cover.add(first, end);
    }

    pub(super) fn heartbeat_answered(
        &mut self,
        now: Instant,
        from: NodeId,
        session: u64,
        probe: u64,
        out: &mut Effects,
    ) {
        let Some(progress) = self.in_session(from, session) else { return };
        progress.heard = Some(now);
        progress.probe = progress.probe.max(probe);
        progress.unpause();
        let stuck = progress.matched == progress.matched_at_heartbeat;
        progress.matched_at_heartbeat = progress.matched;
        if progress.mode == Mode::Replicate && progress.is_waiting() && stuck {
            // No progress between two heartbeats: something was lost.
            progress.probe_from(progress.matched + 1);
        }
        self.reads_confirmed(now, out);
    }

    /// The connection to a follower broke: it may have started anew, and have lost something.
    pub(super) fn ask_again(&mut self, node: NodeId) {
        if let Some(progress) = self.followers.get_mut(node)
            && progress.mode == Mode::Replicate
        {
            progress.probe_from(progress.matched + 1);
        }
    }

    pub(super) fn snapshot_sent(&mut self, to: NodeId, index: Option<Index>) {
        let base = self.slots.base().index;
        let Some(progress) = self.followers.get_mut(to) else { return };
        if progress.mode != Mode::Snapshot {
            return;
        }
        let next = index.map_or(progress.matched, |index| index.max(base)) + 1;
        progress.probe_from(next);
        if index.is_none() {
            // Not at once again: the next heartbeat's answer ends the pause.
            progress.sent(next, 0);
        }
    }

    /// Everyone who is to receive the log: the members, those to come, and those that are yet to
    /// hear that they left.
    pub(super) fn note_members(&mut self) {
        let mut nodes: Vec<NodeId> = self.membership().all();
        let last = self.slots.last_index();
        let pending = self.slots.changes(self.commit + 1, last);
        nodes.extend(pending.iter().flat_map(|(_, members)| members.all()));
        if self.is_parting() {
            nodes.extend(self.members.at(self.members.latest_index() - 1).all());
        }
        nodes.sort_unstable();
        nodes.dedup();
        nodes.retain(|&node| node != self.me());
        self.steady_until = Instant::ZERO; // Others are to be heard from.
        self.next_session += 1;
        self.followers.set(&nodes, self.next_session, last + 1);
        let followers = &self.followers;
        self.covers.retain(|(node, _)| followers.get(*node).is_some());
    }
}
