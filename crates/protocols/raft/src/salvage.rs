//! What a damaged replica gives to others, and takes from them, while nobody leads.
//!
//! Two of three replicas may each lack what it takes to be elected, and the third be behind, or be
//! the only one that can stand: one has the entries and lost its state, one has the state and does
//! not know how its log went on. So whoever is asked gives what it can read; and a replica that is
//! damaged itself asks everybody.
//!
//! Giving: any stretch of a log that can be read, from a position that is known, ends in a position
//! of that log; and the log up to there is as good as any for the argument in `pull`. So the end
//! that is named is that of what can be given, not where the log ended: that may not even be known.
//!
//! Taking, with X the log as it was and F where it ended, or at most ended (`vote_floor`):
//!
//! - A stretch that begins where both agree and reaches an entry, by index and ballot, that X had
//!   is X's own up to there (log matching). It fills the hole, whoever gave it.
//! - A stretch that ends at F or ahead of it replaces X, as in `pull`: what was committed with X's
//!   help is in it. Before it reaches so far it is kept aside: if its sender fell silent, this
//!   replica would otherwise have given up what it knows of its own log for less.

use crate::pull::is_ahead;
use crate::raft::Raft;
use alloc::vec::Vec;
use quorate_base::{Index, Instant, NodeId, Position};
use quorate_replicated_log::{Effects, Entries, Entry};

impl Raft {
    /// What can be read here of a log that goes on after `last`: from where it may agree with that
    /// of whoever asks, as much as one message holds, and where what can be read ends.
    pub(crate) fn left_after(&self, last: Position) -> Option<(Position, Entries, Position)> {
        let known = |at| self.log.ballot_at(at).or_else(|| self.lost.ballot_of(at));
        let read = |at| self.log.get(at).or_else(|| self.lost.islands.get(&at));
        let mut at = last.index.min(self.promised_end?.index);
        let previous = loop {
            match known(at) {
                Some(ballot) if ballot.round <= last.ballot.round => {
                    break Position::new(at, ballot);
                }
                _ => at = at.checked_sub(1).filter(|at| *at >= self.log.base().position.index)?,
            }
        };
        let (mut run, mut room) = (Vec::new(), self.config.limits.append_bytes);
        while let Some(entry) = read(previous.index + 1 + run.len() as Index)
            && (entry.weight() <= room || run.is_empty())
        {
            room = room.saturating_sub(entry.weight());
            run.push(entry.clone());
        }
        let mut end = run.last().map_or(previous, Entry::position);
        if end.index < self.log.last_index() {
            end = self.log.last();
        }
        while let Some(entry) = self.lost.islands.get(&(end.index + 1)) {
            end = entry.position();
        }
        is_ahead(end, last).then(|| (previous, Entries::new(run), end))
    }

    /// Asks whoever votes for what follows this log, or what it has given so far.
    pub(crate) fn ask_all_for_more(&self, out: &mut Effects) {
        let last = self.log.last();
        for to in self.other_voters() {
            let given = self.lost.staged.get(&to).and_then(|run| run.last());
            let given = given.map(Entry::position).filter(|given| given.index > last.index);
            self.send_pull(to, given.unwrap_or(last), out);
        }
    }

    /// Entries of another's log.
    pub(crate) fn salvage(
        &mut self,
        now: Instant,
        from: NodeId,
        (previous, entries, end): (Position, &Entries, Position),
        out: &mut Effects,
    ) {
        let mut run = self.lost.staged.remove(&from).unwrap_or_default();
        // Also what was given before: more may be known to be committed since.
        if self.contradict(previous, run.iter().chain(entries.iter())) {
            return;
        }
        // A repeated answer goes on from within what is there.
        let met = run.iter().rposition(|entry| entry.position() == previous);
        let given = run.last().map(Entry::position);
        if let Some(at) = met {
            // What followed there may have been overruled at the other since.
            let both = run[at + 1..].iter().zip(entries.iter());
            if both.into_iter().any(|(before, now)| before.position() != now.position()) {
                run.truncate(at + 1);
            }
        } else {
            run.clear();
            if !self.log.holds(previous) && previous.index > self.commit {
                // The logs differ there: a round further back they may agree.
                let at = previous.index - 1;
                let hint = self.log.last_agreeable(at, previous.ballot.round);
                self.send_pull(from, hint.unwrap_or(self.log.base().position), out);
                return;
            }
        }
        let next = run.last().map_or(0, |entry| entry.index + 1);
        run.extend(entries.iter().filter(|entry| entry.index >= next).cloned());
        let grew = run.last().map(Entry::position) != given;
        let own = self.fill_with(&run);
        let known = |e: &&Entry| e.index <= self.commit || self.log.holds(e.position());
        let agreeing = run.iter().take_while(known).count();
        run.drain(..agreeing);
        let mut news = own;
        let reached = run.last().map(Entry::position);
        if own && self.try_repair(now, out) {
            run.clear(); // Undamaged: the next attempt is like any other's.
        } else if reached.is_some_and(|it| it.at_least_as_up_to_date_as(&self.vote_floor())) {
            let rises = |first: &Entry| {
                let before = self.log.ballot_at(first.index - 1);
                before.is_some_and(|before| before.round <= first.ballot.round)
            };
            if !run.first().is_some_and(rises) {
                return; // The peer lies.
            }
            self.put_in_place(now, Entries::new(core::mem::take(&mut run)), out);
            self.try_repair(now, out);
            news = true;
        }
        if news {
            let round = self.log.last().ballot.round.max(self.promised.round);
            self.follow(now, round, NodeId::NONE, out);
        }
        let reached = run.last().map_or(self.log.last(), Entry::position);
        if !run.is_empty() {
            self.lost.staged.insert(from, run);
        }
        if is_ahead(end, reached) && grew {
            self.send_pull(from, reached, out);
        } else if news {
            self.election_timeout(now, out);
        }
    }

    /// Takes what of a stretch was this log's own; says whether anything was.
    fn fill_with(&mut self, run: &[Entry]) -> bool {
        let next = self.log.last_index() + 1;
        let own = |entry: &Entry| self.lost.ballot_of(entry.index) == Some(entry.ballot);
        let Some(last) = run.iter().rfind(|entry| entry.index >= next && own(entry)) else {
            return false;
        };
        let last = last.index;
        let lost = run.iter().filter(|entry| (next..=last).contains(&entry.index));
        let lost: Vec<Entry> = lost.cloned().collect();
        let follows = lost.first().is_some_and(|entry| entry.index == next)
            && self.log.last().ballot.round <= lost[0].ballot.round;
        if !follows {
            return false;
        }
        self.log.append(Entries::new(lost));
        self.repair_from = self.repair_from.min(next); // Not on disk yet: see `recovery`.
        self.lost.overtaken(last, true);
        self.absorb();
        self.lost.recount(self.log.last_index(), self.promised_end);
        true
    }
}
