//! The proposer's phase 1, once for all slots: what a quorum promises and has accepted.
//!
//! It ends when, for the members in force and for every membership that was found accepted beyond,
//! a quorum has answered in full, and in each slot that some of them cannot read another quorum
//! can. The found memberships matter because a later one's quorum need not meet the first one's:
//! what was chosen by it is seen only by asking it too (`docs/paxos.md` has the argument).
//!
//! Where somebody knows that a change is chosen, a quorum of its members can stand for one of those
//! before: neighbours differ in one voter, so that it meets each of their quorums.

use super::leads::{FoundLead, yielding};
use super::replica::MultiPaxos;
use crate::canary::Canary;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use quorate_base::{Ballot, Index, Instant, NodeId};
use quorate_replicated_log::{
    AnswerReads, Body, Effects, Entry, Event, Membership, Payload, Promise, Role, VoteResult,
};

/// The slot from which a candidate asks whoever has said all it knows to wait: others have more to
/// say, and are saying it. No value is behind it.
pub(super) const WAIT: Index = Index::MAX;

/// After this many campaigns in vain people are told which slots cannot be read.
const VAIN_CAMPAIGNS: u32 = 3;

/// A phase 1 under way.
#[derive(Clone, Debug)]
pub(crate) struct Campaign {
    /// The first slot it is about.
    pub from: Index,
    transfer: bool,
    answers: Vec<Answer>,
    /// The value of the highest ballot in each slot, and whether it is chosen.
    pub found: BTreeMap<Index, (bool, Entry)>,
    /// Memberships in found entries.
    pub memberships: Vec<(Index, Membership)>,
    pub ask_again_at: Instant,
    /// A part of a long answer came since everybody was asked last.
    goes_on: bool,
    /// The ballot named last in what was chosen when it began.
    led: Ballot,
    /// A deliberate bug.
    takes_lowest: bool,
}

/// What one acceptor has said so far.
#[derive(Clone, Debug)]
struct Answer {
    node: NodeId,
    commit: Index,
    /// What it is to be asked for next; nothing: it has answered in full.
    next: Option<Index>,
    damaged: Vec<RangeInclusive<Index>>,
}

impl Answer {
    fn can_speak_of(&self, slot: Index) -> bool {
        self.next.is_none() && !self.damaged.iter().any(|range| range.contains(&slot))
    }
}

impl MultiPaxos {
    /// Asks for promises of a new ballot.
    pub(super) fn stand(&mut self, now: Instant, transfer: bool, out: &mut Effects) {
        if !self.may_stand(now) && !transfer {
            return;
        }
        self.fail_follower_reads(out);
        let ballot = self.next_ballot();
        if self.role == Role::Leader {
            self.leave_leadership(out);
        }
        self.role = Role::Candidate;
        self.leader = NodeId::NONE;
        self.votes.clear();
        self.reset_election(now);
        self.promise(ballot);
        self.start_campaign(now, transfer, out);
    }

    fn start_campaign(&mut self, now: Instant, transfer: bool, out: &mut Effects) {
        self.campaign = Some(Campaign {
            from: self.commit + 1,
            transfer,
            answers: Vec::new(),
            found: BTreeMap::new(),
            memberships: Vec::new(),
            ask_again_at: now,
            goes_on: false,
            led: self.leads.at(self.commit),
            takes_lowest: self.is(Canary::TakeLowestBallot),
        });
        self.ask_for_promises(now, out);
        self.own_promise_written(now, out);
    }

    /// A snapshot filled the slots that nobody could give.
    pub(super) fn campaign_goes_on(&mut self, now: Instant, out: &mut Effects) {
        let transfer = self.campaign.as_ref().map(|campaign| campaign.transfer);
        if let (Some(transfer), Role::Candidate) = (transfer, self.role) {
            self.start_campaign(now, transfer, out);
        }
    }

    /// Asks everybody who has not answered in full.
    fn ask_for_promises(&mut self, now: Instant, out: &mut Effects) {
        let after = self.journal.gate_of(self.promise_write);
        let heartbeat = self.config.heartbeat;
        let Some(mut campaign) = self.campaign.take() else { return };
        campaign.ask_again_at = now + heartbeat;
        for to in self.asked_by(&campaign) {
            let answer = campaign.answers.iter().find(|answer| answer.node == to);
            if let Some(from) = answer.map_or(Some(campaign.from), |answer| answer.next) {
                let body = Body::Prepare { from, transfer: campaign.transfer };
                self.send(out, to, body, after);
            }
        }
        self.campaign = Some(campaign);
    }

    /// Whose promises may be needed.
    fn asked_by(&self, campaign: &Campaign) -> Vec<NodeId> {
        let mut voters = self.other_voters();
        voters.extend(campaign.memberships().flat_map(|(_, m)| m.voters.iter().copied()));
        voters.sort_unstable();
        voters.dedup();
        voters.retain(|node| *node != self.me());
        voters
    }

    /// Questions and answers may be lost. While somebody's answer still comes, part by part, the
    /// others would miss a leader and stand themselves, and the answers to them would take no less
    /// time.
    pub(super) fn tick_campaign(&mut self, now: Instant, out: &mut Effects) {
        let Some(mut campaign) = self.campaign.take_if(|it| now >= it.ask_again_at) else {
            return;
        };
        if core::mem::take(&mut campaign.goes_on) {
            let body = Body::Prepare { from: WAIT, transfer: campaign.transfer };
            let gives =
                |to: NodeId| campaign.answers.iter().any(|it| it.node == to && it.next.is_some());
            let others = self.asked_by(&campaign).into_iter().filter(|to| !gives(*to));
            let after = self.journal.gate_of(self.promise_write);
            others.for_each(|to| self.send(out, to, body.clone(), after));
        }
        self.campaign = Some(campaign);
        self.ask_for_promises(now, out);
    }

    /// The candidate's own promise counts once it is durable: it is an acceptor like the others.
    pub(super) fn own_promise_written(&mut self, now: Instant, out: &mut Effects) {
        let Some(campaign) = &self.campaign else { return };
        let counted = campaign.answers.iter().any(|answer| answer.node == self.me());
        if counted || !self.journal.is_done(self.promise_write) {
            return;
        }
        let entries = self.slots.runs(campaign.from, self.slots.last_index()).collect();
        let promise = Promise {
            from: campaign.from,
            commit: self.known_chosen(),
            entries,
            damaged: self.told_damaged(),
            next: None,
            base: self.slots.base().index,
        };
        self.promised_by(now, self.me(), self.promised, promise, out);
    }

    /// Another ballot is in the way.
    pub(super) fn promise_refused(&mut self, now: Instant, _from: NodeId, ballot: Ballot) {
        self.seen = self.seen.max(ballot.round);
        if self.role == Role::Candidate && ballot > self.promised {
            self.campaign = None;
            self.role = self.resting_role();
            let timeout = self.config.election_timeout;
            self.election_at = now + self.rng.duration(timeout / 50, timeout / 5);
        }
    }

    pub(super) fn promised_by(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        promise: Promise,
        out: &mut Effects,
    ) {
        if ballot != self.promised || self.role != Role::Candidate {
            return;
        }
        if promise.commit == Index::MAX {
            return; // No log is so long: the peer lies.
        }
        let Some(mut campaign) = self.campaign.take() else { return };
        if from != self.me() && !self.asked_by(&campaign).contains(&from) {
            self.campaign = Some(campaign);
            return; // Nobody asked it, and what it knows to be chosen may be a lie.
        }
        let known = campaign.memberships.len();
        let taken = campaign.take(from, promise, ballot);
        let more = campaign.answers.iter().any(|a| a.node == from && a.next.is_some());
        let new_members =
            campaign.memberships.len() > known && !self.is(Canary::IgnoreFoundMembers);
        if self.is(Canary::IgnoreFoundMembers) {
            campaign.memberships.clear();
        }
        // Nobody is asked before this one's own promise is written: who answers sooner lies.
        let is_written = self.journal.is_done(self.promise_write);
        let won = taken && is_written && self.is_won(&campaign);
        campaign.goes_on |= taken && more;
        self.campaign = Some(campaign);
        if won {
            self.lead(now);
        } else if taken && (more || new_members) {
            // Begun anew it would have to be told everything again.
            self.reset_election(now);
            self.ask_for_promises(now, out);
        }
    }

    /// A campaign ends without success. Were there slots of which too few acceptors can speak?
    pub(super) fn in_vain(&mut self, out: &mut Effects) {
        let blocked = match &self.campaign {
            Some(campaign) => self.blocked_by(campaign),
            // One that cannot even stand waits for others, who may be no better off.
            None => self.damaged.first().map(|range| (*range.start(), *range.end())),
        };
        let Some((first, last)) = blocked else {
            self.vain = 0;
            return;
        };
        self.vain = self.vain.saturating_add(1);
        if self.vain == VAIN_CAMPAIGNS {
            out.events.push(Event::Unreadable { first, last });
        }
    }

    /// The first damaged slots that keep the campaign from success, though a quorum answered: of
    /// the members as far as they are known for certain, or of later ones that are chosen. The
    /// first may be lost with the service's state.
    fn blocked_by(&self, campaign: &Campaign) -> Option<(Index, Index)> {
        let chosen = campaign.chosen();
        let later = campaign.memberships().filter(|(index, _)| *index <= chosen);
        let mut all = core::iter::once(self.membership()).chain(later.map(|(_, members)| members));
        all.find_map(|members| self.blocked_among(members, campaign))
    }

    fn blocked_among(&self, members: &Membership, campaign: &Campaign) -> Option<(Index, Index)> {
        let quorum = |speaks: &dyn Fn(&Answer) -> bool| {
            let spoke = |n| campaign.answers.iter().any(|a| a.node == n && speaks(a));
            self.spec.vote(members, |n| spoke(n).then_some(true)) == VoteResult::Won
        };
        if !quorum(&|answer| answer.next.is_none()) {
            return None;
        }
        let chosen = campaign.chosen();
        let spoken_of = |slot| quorum(&|answer| answer.can_speak_of(slot));
        let found = |slot: &Index| campaign.found.contains_key(slot);
        let untold = campaign.untold(chosen).find(|slot| !found(slot) || !spoken_of(*slot));
        let untold = untold.map(|slot| {
            let ends = campaign.answers.iter().flat_map(|answer| &answer.damaged);
            let ends = ends.filter(|range| range.contains(&slot)).map(|range| *range.end());
            (slot, ends.max().unwrap_or(slot))
        });
        let ranges = campaign.answers.iter().flat_map(|answer| &answer.damaged);
        let blocked = ranges.filter_map(|range| {
            let (start, end) = ((*range.start()).max(chosen + 1), *range.end());
            (start <= end && !spoken_of(start)).then_some((start, end))
        });
        blocked.chain(untold).min()
    }

    /// Whether enough is known to propose in every slot.
    fn is_won(&self, campaign: &Campaign) -> bool {
        let chosen = campaign.chosen();
        if !campaign.has_all_up_to(chosen) {
            return false;
        }
        // Slots that somebody has to speak of: of what is chosen those whose values nobody gave
        // who knows that. Beyond, one slot stands for each stretch between the ends of damaged
        // ranges, of which the first may have begun before what is chosen ends.
        let mut slots: Vec<Index> = campaign.untold(chosen).collect();
        let certain_to = slots.first().map_or(chosen, |slot| slot - 1);
        let damaged = campaign.answers.iter().flat_map(|answer| &answer.damaged);
        let edges = damaged.flat_map(|range| [*range.start(), range.end().saturating_add(1)]);
        slots.extend(edges.chain([chosen + 1]).filter(|slot| *slot > chosen));
        let answers = |members: &Membership| {
            let quorum = |speaks: &dyn Fn(&Answer) -> bool| {
                let answered =
                    |n| campaign.answers.iter().any(|a| a.node == n && speaks(a)).then_some(true);
                if self.is(Canary::CountMinority) {
                    return members.voters.iter().any(|&node| answered(node).is_some());
                }
                self.spec.vote(members, answered) == VoteResult::Won
            };
            quorum(&|answer| answer.next.is_none())
                && slots.iter().all(|slot| quorum(&|answer| answer.can_speak_of(*slot)))
        };
        let mut chain = campaign.memberships().collect::<Vec<_>>();
        chain.sort_unstable_by_key(|(index, _)| *index);
        let mut members = self.membership();
        let mut answered = answers(members);
        for (index, next) in chain {
            let next_answered = answers(next);
            // Nothing is left to be found out where all values are known to be chosen.
            let certain = *index <= certain_to;
            let stands_in = next_answered && *index <= chosen && self.meet(members, next);
            if !(answered || certain || stands_in) {
                return false;
            }
            (members, answered) = (next, next_answered);
        }
        answered
    }

    /// Whether whoever `before` needed to choose a value has one in common with whoever of `after`
    /// promise a ballot.
    fn meet(&self, before: &Membership, after: &Membership) -> bool {
        if before.voters.is_empty() {
            return false; // They are not known.
        }
        let new = after.voters.iter().filter(|node| !before.voters.contains(node)).count();
        let chose = self.spec.sizes(before.voters.len()).replication;
        let promise = self.spec.sizes(after.voters.len()).election;
        chose + promise > before.voters.len() + new
    }
}

impl Campaign {
    /// Takes in a part of an acceptor's answer; false if it is not what was asked for, or a lie.
    fn take(&mut self, node: NodeId, promise: Promise, ballot: Ballot) -> bool {
        let Promise { from, commit, entries, damaged, next, base } = promise;
        let known = self.answers.iter().position(|answer| answer.node == node);
        let expected = known.map_or(Some(self.from), |at| self.answers[at].next);
        if expected != Some(from) || base >= self.from || next.is_some_and(|next| next <= from) {
            return false; // Also one that can give only a snapshot, which is on its way.
        }
        let mut before = from - 1;
        for entry in entries.iter().flat_map(|run| run.iter()) {
            let lower = entry.ballot < ballot || entry.index <= commit;
            if entry.index <= before || next.is_some_and(|next| entry.index >= next) || !lower {
                return false;
            }
            before = entry.index;
        }
        for entry in entries.iter().flat_map(|run| run.iter()) {
            self.note(entry.index <= commit, entry);
        }
        let answer = Answer { node, commit, next, damaged };
        match known {
            // A part may be older than what was chosen since: the least that was ever said holds.
            Some(at) => {
                let commit = self.answers[at].commit.min(commit);
                self.answers[at] = Answer { commit, ..answer };
            }
            None => self.answers.push(answer),
        }
        true
    }

    fn note(&mut self, chosen: bool, entry: &Entry) {
        let lowest = self.takes_lowest;
        let rank = |(chosen, entry): &(bool, Entry)| match lowest {
            true => (false, Ballot::new(u64::MAX - entry.ballot.round, entry.ballot.node)),
            false => (*chosen, entry.ballot),
        };
        let new = (chosen, entry.clone());
        let before = self.found.get(&entry.index);
        if before.is_some_and(|before| rank(before) >= rank(&new)) {
            return;
        }
        self.found.insert(entry.index, new);
        self.memberships.retain(|(index, _)| *index != entry.index);
        if let Payload::Members { membership, .. } = &entry.payload {
            self.memberships.push((entry.index, (**membership).clone()));
        }
    }

    /// Every slot up to here is chosen: some acceptor that answered in full says so.
    pub fn chosen(&self) -> Index {
        let full = self.answers.iter().filter(|answer| answer.next.is_none());
        full.map(|answer| answer.commit).max().unwrap_or(0).max(self.from - 1)
    }

    /// Whether something was found in each slot up to there.
    fn has_all_up_to(&self, chosen: Index) -> bool {
        let found = self.found.range(self.from..chosen.saturating_add(1)).count() as u64;
        found == chosen.saturating_add(1) - self.from
    }

    /// Slots up to there whose value nobody gave who knows that it is chosen.
    fn untold(&self, chosen: Index) -> impl Iterator<Item = Index> + '_ {
        (self.from..=chosen).filter(|slot| !self.is_chosen(*slot))
    }

    /// Changes of members that may be in force.
    fn memberships(&self) -> impl Iterator<Item = &(Index, Membership)> {
        self.memberships.iter().filter(|(index, _)| !self.is_dead(*index))
    }

    /// Whether what was found in a slot was never chosen, and cannot be: a leader of a later ballot
    /// than it was accepted under said that it leads in a slot before it. It did so behind all that
    /// it found, so that a quorum had promised it that ballot without having accepted anything
    /// there. Above all a change of members must not be taken up again: who was removed since may
    /// be gone, and whom it removes may be needed.
    fn is_dead(&self, slot: Index) -> bool {
        let Some((false, entry)) = self.found.get(&slot) else { return false };
        let named = self.found.range(..slot).filter_map(|(_, (_, e))| e.payload.named_ballot());
        named.chain([self.led]).any(|led| led > entry.ballot)
    }

    fn is_chosen(&self, slot: Index) -> bool {
        self.found.get(&slot).is_some_and(|(chosen, _)| *chosen)
    }

    /// What each acceptor that answered knows to be chosen, and can read.
    pub fn commits(&self) -> impl Iterator<Item = (NodeId, Index)> + '_ {
        let lost = |answer: &Answer| {
            answer.damaged.iter().map(|range| range.start().saturating_sub(1)).min()
        };
        self.answers
            .iter()
            .map(move |answer| (answer.node, answer.commit.min(lost(answer).unwrap_or(Index::MAX))))
    }

    /// Slots after `chosen` whose values contradict another's: there is a later leader's first
    /// value before an earlier one's.
    fn yielding(&self, chosen: Index) -> Vec<Index> {
        let named = self.found.values().filter_map(|(_, entry)| {
            let (index, accepted) = (entry.index, entry.ballot);
            entry.payload.named_ballot().map(|named| FoundLead { index, accepted, named })
        });
        let (known, found): (Vec<_>, Vec<_>) = named.partition(|lead| lead.index <= chosen);
        yielding(known.last().map_or(self.led, |lead| lead.named), found)
    }

    /// The entries up to `chosen` as they are, those after it under `ballot`, gaps filled.
    /// The bugs are deliberate: what was accepted, or what it contradicts, is ignored.
    pub fn repaired(&self, ballot: Ballot, bug: Option<Canary>) -> (Vec<Entry>, Vec<Entry>) {
        let chosen = self.chosen();
        let ignore = bug == Some(Canary::IgnoreAccepted);
        let yielding = match bug {
            Some(Canary::RepeatAnyLead) => Vec::new(),
            _ => self.yielding(chosen),
        };
        let end = self.found.keys().next_back().copied().unwrap_or(0);
        let known = (self.from..=chosen).filter_map(|slot| self.found.get(&slot));
        let known = known.map(|(_, entry)| entry.clone()).collect();
        let named = |entry: &Entry| entry.payload.named_ballot();
        let before = self.found.range(..=chosen).filter_map(|(_, (_, entry))| named(entry));
        let mut led = before.fold(self.led, Ballot::max);
        let repaired = (chosen + 1..=end).map(|index| {
            let found = self.found.get(&index).map(|(_, entry)| entry);
            let dead = found.is_none_or(|entry| entry.ballot < led);
            let dead = dead && bug != Some(Canary::RepeatAnyLead);
            led = found.and_then(named).unwrap_or(led).max(led);
            let live = found.filter(|_| !dead && !ignore && !yielding.contains(&index));
            let payload = live.map_or(Payload::Noop, |entry| entry.payload.clone());
            Entry { index, ballot, payload }
        });
        (known, repaired.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn begun(led: u64) -> Campaign {
        Campaign {
            from: 1,
            transfer: false,
            answers: vec![],
            found: BTreeMap::new(),
            memberships: vec![],
            ask_again_at: Instant::ZERO,
            goes_on: false,
            led: Ballot::new(led, NodeId(1)),
            takes_lowest: false,
        }
    }

    /// Nodes 2 and 1 led in rounds 2 and 3. What 1 proposed last in round 1, and nobody else heard
    /// of, is behind where another said that it leads.
    #[test]
    fn a_change_behind_a_later_leaders_first_value_is_not_taken_up_again() {
        let members = Payload::members(Membership::of([NodeId(1), NodeId(2)]), bytes::Bytes::new());
        let entry =
            |index, round, payload| Entry { index, ballot: Ballot::new(round, NodeId(1)), payload };
        let lead = |round| Payload::Lead(Ballot::new(round, NodeId(1)));
        let payload = |campaign: &Campaign, slot: usize| {
            let (_, repaired) = campaign.repaired(Ballot::new(9, NodeId(1)), None);
            repaired[slot - 1].payload.clone()
        };
        let mut campaign = begun(1);
        campaign.note(false, &entry(1, 3, lead(2)));
        campaign.note(false, &entry(4, 1, members.clone()));
        assert_eq!(campaign.memberships().count(), 0);
        assert_eq!(payload(&campaign, 4), Payload::Noop);
        assert_eq!(payload(&campaign, 1), lead(2));
        // Accepted under the ballot of whoever led, or a later one, it counts.
        campaign.note(false, &entry(4, 2, members.clone()));
        assert_eq!(campaign.memberships().count(), 1);
        assert_eq!(payload(&campaign, 4), members);
        // The same if what was chosen before it began names the later leader.
        let mut campaign = begun(2);
        campaign.note(false, &entry(4, 1, members.clone()));
        assert_eq!((campaign.memberships().count(), payload(&campaign, 4)), (0, Payload::Noop));
        // What is known to be chosen is never dead.
        campaign.note(true, &entry(4, 1, members));
        assert_eq!(campaign.memberships().count(), 1);
    }

    #[test]
    fn a_chosen_value_outranks_every_ballot() {
        let mut campaign = begun(0);
        let entry =
            |round, payload| Entry { index: 1, ballot: Ballot::new(round, NodeId(1)), payload };
        campaign.note(false, &entry(5, Payload::Noop));
        campaign.note(true, &entry(2, Payload::Command(bytes::Bytes::from_static(b"v"))));
        campaign.note(false, &entry(9, Payload::Noop));
        assert!(campaign.is_chosen(1));
        assert_eq!(campaign.found[&1].1.ballot.round, 2);
    }
}
