//! A lagging replica catches up before it asks for votes.
//!
//! Raft elects only whose log is as up to date as a quorum's. Where the one replica that reaches a
//! quorum lags, nobody can be elected though a quorum is connected (the constrained election of
//! *Omni-Paxos*, Ng, Haridi and Carbone, 2023). So a candidate that is refused asks whoever refused
//! for what it lacks, takes that in as if a leader had sent it, and asks for votes again.
//!
//! Why it may overwrite its own log: let X be its log and Y a log that is strictly more up to date
//! (a later last round, or the same and longer). Everything that was committed with X's help Y
//! holds too. If the last rounds are the same, both are prefixes of that round's leader's log, and
//! X is one of Y. If Y's is later, say t: X helps to commit in round c only once it holds an entry
//! of round c, so that c is before t. Such an entry was acknowledged by a quorum before that
//! quorum's voters elected the leader of round t, or it could not have been acknowledged any more
//! in its round; so that leader's log had it before its own first entry (leader completeness), and
//! Y, which holds one of that leader's entries, is a prefix of its log that reaches further. What
//! X holds and Y does not is thus committed by nobody who counts X, and no acknowledgement of it
//! that is still under way can make it so: the leader it was given to is of a round before t, and
//! a quorum has moved on. What is taken in is a prefix of Y that begins where both agree, which
//! keeps all of that true after every part. With the entries this replica takes over their round:
//! it will acknowledge nothing to an earlier leader.
//!
//! What was committed without X's help it may hold and lose: an entry of an earlier round than the
//! leader's who committed it, of whose own round X has nothing. A leader sends it again. Until then
//! that leader's word that X holds it counts no more (see `heartbeat` in `follower`). But what X
//! knows to be committed it keeps: a Y that contradicts it gives nothing.
//!
//! A damaged replica pulls and gives as well, by rules of its own: see `salvage`.

use crate::canary::Canary;
use crate::raft::Raft;
use quorate_base::{Instant, NodeId, Position};
use quorate_replicated_log::{Body, Effects, Entries, Entry, Role, SnapshotWanted};

pub(crate) fn is_ahead(of: Position, than: Position) -> bool {
    of.at_least_as_up_to_date_as(&than) && !than.at_least_as_up_to_date_as(&of)
}

impl Raft {
    /// A voter refused: perhaps because this log is behind its own. A damaged replica has asked
    /// everybody already.
    pub(crate) fn ask_for_more(&mut self, from: NodeId, out: &mut Effects) {
        if !self.is_damaged() {
            self.send_pull(from, self.log.last(), out);
        }
    }

    pub(crate) fn send_pull(&self, to: NodeId, last: Position, out: &mut Effects) {
        self.send(out, to, Body::Pull { id: self.pull, last }, None);
    }

    /// A candidate asks for what it lacks after `last`. Silence means: nothing.
    pub(crate) fn asked_for_more(
        &mut self,
        from: NodeId,
        id: u64,
        last: Position,
        out: &mut Effects,
    ) {
        if self.role == Role::Leader {
            return; // It sends its log anyway.
        }
        if self.is_damaged()
            && let Some((previous, entries, end)) = self.left_after(last)
        {
            self.send(out, from, Body::Pulled { id, previous, entries, last: end }, None);
            return;
        }
        let end = self.log.last();
        if !is_ahead(end, last) && !self.is(Canary::PullBehind) {
            return;
        }
        let Some(previous) = self.log.last_agreeable(last.index, last.ballot.round) else {
            // The log no longer reaches back so far.
            out.snapshots.push(SnapshotWanted { to: from, session: 0 });
            return;
        };
        let limit = self.config.limits.append_bytes;
        let (entries, _) = self.log.slice(previous.index + 1, end.index, limit);
        self.send(out, from, Body::Pulled { id, previous, entries, last: end }, None);
    }

    /// Entries of another log.
    pub(crate) fn pulled(
        &mut self,
        now: Instant,
        (from, round): (NodeId, u64),
        id: u64,
        (previous, entries, end): (Position, Entries, Position),
        out: &mut Effects,
    ) {
        let waits = self.role != Role::Leader && self.leader.is_none() && id == self.pull;
        // Nobody has entries of a later round than it has promised.
        if !waits || end.ballot.round > round || !follows(previous, &entries, end) {
            return; // Late, or the peer is broken, or lies.
        }
        if self.is_damaged() {
            self.salvage(now, from, (previous, &entries, end), out);
            return;
        }
        if !is_ahead(end, self.log.last()) && !self.is(Canary::PullBehind) {
            return;
        }
        if !self.log.holds(previous) && previous.index > self.commit {
            // The logs differ there: a round further back they may agree.
            let at = previous.index - 1;
            let hint = self.log.last_agreeable(at, previous.ballot.round);
            let last = hint.unwrap_or(self.log.base().position);
            self.send(out, from, Body::Pull { id, last }, None);
            return;
        }
        if self.contradict(previous, entries.iter()) {
            return;
        }
        let agreeing = entries
            .iter()
            .take_while(|e| e.index <= self.commit || self.log.holds(e.position()))
            .count();
        let new = entries.slice(agreeing..entries.len());
        let Some(first) = new.first() else { return };
        let before = self.log.ballot_at(first.index - 1).map_or(u64::MAX, |b| b.round);
        if first.index <= self.commit || before > first.ballot.round {
            return; // The peer lies.
        }
        self.put_in_place(now, new, out);
        let round = self.log.last().ballot.round.max(self.promised.round);
        self.follow(now, round, NodeId::NONE, out);
        if is_ahead(end, self.log.last()) {
            self.send_pull(from, self.log.last(), out);
        } else {
            self.election_timeout(now, out);
        }
    }
}

impl Raft {
    /// Whether what follows `previous` in another's log contradicts what is known to be committed
    /// here, without this log's help: then that log, though its last round is later, is left over
    /// from a leader whom nobody followed, and has nothing to give.
    pub(crate) fn contradict<'e>(
        &self,
        previous: Position,
        mut entries: impl Iterator<Item = &'e Entry>,
    ) -> bool {
        let differs = |at: Position| {
            let own = self.log.ballot_at(at.index).filter(|_| at.index <= self.commit);
            own.is_some_and(|own| own != at.ballot)
        };
        (differs(previous) || entries.any(|entry| differs(entry.position())))
            && !self.is(Canary::PullOverCommitted)
    }
}

/// Consecutive after `previous`, of rounds that never fall, and not past `end`.
fn follows(previous: Position, entries: &Entries, end: Position) -> bool {
    let mut before = previous;
    for entry in entries.iter() {
        let next = before.index.checked_add(1) == Some(entry.index)
            && entry.ballot.round >= before.ballot.round;
        if !next {
            return false;
        }
        before = entry.position();
    }
    end.at_least_as_up_to_date_as(&before) && before.index <= end.index
}
