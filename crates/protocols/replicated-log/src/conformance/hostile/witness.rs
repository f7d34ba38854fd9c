//! Everybody who ever heard the replica: what it says must fit what it said before, in whatever
//! life, and what its disk has.

use super::super::disk::Disk;
use super::ensure;
use crate::{AppendOutcome, Body, Entry, Payload, Send};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use quorate_base::{Ballot, Index, NodeId};

/// Who the replica is.
const ME: NodeId = NodeId(1);

#[derive(Default)]
pub(super) struct Witness {
    /// To whom each round was promised.
    rounds: BTreeMap<u64, NodeId>,
    /// What it proposed under its own ballots.
    proposed: BTreeMap<(Ballot, Index), Payload>,
    /// The highest ballot that it promised, or accepted anything under.
    highest: Ballot,
    /// How much is chosen, or so it was told by whoever has the ballot.
    told: BTreeMap<Ballot, Index>,
}

impl Witness {
    /// The highest round that anybody was promised, or that it has accepted in.
    pub fn promised(&self) -> u64 {
        self.highest.round
    }

    /// It is told something: true or not, it may go by what leaders say of earlier ballots' values.
    pub fn tell(&mut self, ballot: Ballot, body: &Body) {
        let commit = match body {
            Body::Accept(accept) => accept.commit,
            Body::Heartbeat { commit, .. } => *commit,
            _ => return,
        };
        let told = self.told.entry(ballot).or_default();
        *told = commit.max(*told);
    }

    /// Something leaves it, with its disk as it is and so much known to be committed.
    pub fn hear(&mut self, send: &Send, disk: &Disk, commit: Index) -> Result<(), String> {
        let ballot = send.message.ballot;
        match &send.message.body {
            // Who leads under a later ballot of the round has it anyway, by the promises of others.
            Body::Promise(_) if self.told.contains_key(&ballot) => {
                self.highest = self.highest.max(ballot);
                Ok(())
            }
            Body::VoteReply { granted: true } | Body::Promise(_) => self.promises(ballot, send.to),
            // Under Paxos a candidate's own promise; under Raft its own vote.
            Body::Prepare { .. } | Body::Vote { .. } => self.promises(ballot, ME),
            Body::Accept(accept) => self.proposes(ballot, &accept.entries),
            Body::Append(append) => self.proposes(ballot, &append.entries),
            Body::Accepted(accepted) => {
                self.accepts(ballot)?;
                let chosen = self.told.get(&ballot).map_or(commit, |told| commit.max(*told));
                let own = |entry: &Entry| entry.ballot == ballot || entry.index <= chosen;
                holds(disk, 1, accepted.upto, own)?;
                let (first, last) = accepted.beyond;
                holds(disk, first, last, own)
            }
            Body::AppendReply(reply) => {
                let AppendOutcome::Accepted { matched } = reply.outcome else { return Ok(()) };
                self.accepts(ballot)?;
                holds(disk, 1, matched, |_| true)
            }
            _ => Ok(()),
        }
    }

    fn promises(&mut self, ballot: Ballot, to: NodeId) -> Result<(), String> {
        let first = *self.rounds.entry(ballot.round).or_insert(to);
        ensure(first == to, &format!("round {} is promised to {first} and {to}", ballot.round))?;
        // An answer may be given again, or come late out of the gate; a new one is higher.
        self.highest = self.highest.max(ballot);
        Ok(())
    }

    fn accepts(&mut self, ballot: Ballot) -> Result<(), String> {
        let kept = ballot.round >= self.highest.round;
        ensure(kept, &format!("accepts {ballot}, having promised {}", self.highest))?;
        self.highest = self.highest.max(ballot);
        Ok(())
    }

    /// One ballot has one value in a slot.
    fn proposes(&mut self, ballot: Ballot, entries: &[Entry]) -> Result<(), String> {
        for entry in entries.iter().filter(|e| e.ballot == ballot && ballot.node == ME) {
            let at = (ballot, entry.index);
            let first = self.proposed.entry(at).or_insert_with(|| entry.payload.clone());
            ensure(*first == entry.payload, &format!("two values for {:?}", entry.position()))?;
        }
        Ok(())
    }
}

/// What it says that it has is on its disk.
fn holds(
    disk: &Disk,
    first: Index,
    last: Index,
    right: impl Fn(&Entry) -> bool,
) -> Result<(), String> {
    let first = first.max(disk.base().position.index + 1);
    let held = disk.entries().filter(|e| (first..=last).contains(&e.index) && right(e)).count();
    let wanted = last.saturating_add(1).saturating_sub(first);
    ensure(held as u64 == wanted, &format!("of {first} to {last} it has {held} on its disk"))
}
