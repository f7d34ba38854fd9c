//! The leader's side of replication: Raft section 5.3, pipelined.

use crate::canary::Canary;
use crate::raft::Raft;
use quorate_base::{Index, Instant, NodeId, Position};
use quorate_replicated_log::{
    AnswerReads, Append, AppendOutcome, AppendReply, Body, Effects, Mode, Progress, SnapshotWanted,
};

impl Raft {
    /// Sends every follower what it may be sent.
    pub(crate) fn send_appends(&mut self, out: &mut Effects) {
        let mut followers = core::mem::take(&mut self.followers);
        for progress in followers.iter_mut() {
            self.send_append(progress, out);
        }
        self.followers = followers;
    }

    fn send_append(&self, progress: &mut Progress, out: &mut Effects) {
        let last = self.log.last_index();
        let done = |progress: &Progress| progress.next > last && progress.mode == Mode::Replicate;
        while !done(progress) && progress.may_send(&self.config.limits) {
            let before = progress.next - 1;
            let Some(ballot) = self.log.ballot_at(before) else {
                // The log no longer reaches back so far.
                progress.await_snapshot();
                let (to, session) = (progress.node, progress.session);
                out.snapshots.push(SnapshotWanted { to, session });
                return;
            };
            let (entries, bytes) =
                self.log.slice(progress.next, last, self.config.limits.append_bytes);
            let end = entries.last_index().unwrap_or(before);
            progress.sent(end, bytes);
            // What it may take from this message as committed, it need not be told again.
            progress.commit_told = progress.commit_told.max(self.commit.min(end));
            let append = Append {
                session: progress.session,
                previous: Position::new(before, ballot),
                entries,
                commit: self.commit,
                probe: self.reads.probe(),
            };
            self.send(out, progress.node, Body::Append(append), None);
        }
    }

    pub(crate) fn send_heartbeats(&mut self, out: &mut Effects) {
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
        let any = self.is(Canary::SkipSession);
        self.followers.get_mut(from).filter(|p| any || p.session == session)
    }

    pub(crate) fn append_answered(
        &mut self,
        now: Instant,
        from: NodeId,
        reply: &AppendReply,
        out: &mut Effects,
    ) {
        let last = self.log.last_index();
        let Some(progress) = self.in_session(from, reply.session) else { return };
        progress.heard = Some(now);
        progress.probe = progress.probe.max(reply.probe);
        match reply.outcome {
            AppendOutcome::Accepted { matched } => {
                if matched > last {
                    return; // It cannot agree with what is not there: the peer lies.
                }
                if progress.mode == Mode::Snapshot && matched < progress.next.saturating_sub(1) {
                    return;
                }
                if progress.accepted(matched) {
                    self.progress_at = now;
                    self.advance_commit(now, out);
                    self.transfer_caught_up(from, out);
                }
            }
            AppendOutcome::Rejected { previous, hint } => self.rejected(from, previous, hint),
        }
        self.reads_confirmed(now, out);
    }

    /// The logs differ at `previous`: probes where they may still agree, a whole round back at a
    /// time (Raft section 5.3, the accelerated backing up).
    fn rejected(&mut self, from: NodeId, previous: Index, hint: Position) {
        let base = self.log.base().position.index;
        // A hint at or past `previous`: it agrees so far, but its disk is being repaired, and so
        // it acknowledges nothing yet.
        let is_repairing = hint.index >= previous;
        let agreeable = self
            .log
            .last_agreeable(hint.index, hint.ballot.round)
            .map_or(base, |position| position.index);
        let Some(progress) = self.followers.get_mut(from) else { return };
        let stale = match progress.mode {
            Mode::Probe { .. } => previous.checked_add(1) != Some(progress.next),
            Mode::Replicate => previous <= progress.matched || previous >= progress.next,
            Mode::Snapshot => true,
        };
        if stale {
            return;
        }
        // Behind what it once acknowledged: its disk lost it, or the answer is an old one. Both
        // ways it is asked again from there; what is committed stays committed.
        progress.matched = progress.matched.min(hint.index);
        // Before the base there is nothing to probe with: that asks for a snapshot.
        let next = if hint.index < base { hint.index + 1 } else { agreeable + 1 };
        let unmoved = is_repairing && next == progress.next;
        progress.probe_from(next);
        if unmoved {
            // Not at once again: the next heartbeat's answer ends the pause.
            progress.mode = Mode::Probe { paused: true };
        }
    }

    pub(crate) fn heartbeat_answered(
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
    pub(crate) fn ask_again(&mut self, node: NodeId) {
        if let Some(progress) = self.followers.get_mut(node)
            && progress.mode == Mode::Replicate
        {
            progress.probe_from(progress.matched + 1);
        }
    }

    pub(crate) fn snapshot_sent(&mut self, to: NodeId, index: Option<Index>) {
        let base = self.log.base().position.index;
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
}
