//! What is noted for the checkers while the world runs.

use crate::counters::Happening;
use crate::neighbours::Neighbourhood;
use crate::switches::Switches;
use crate::trace::StableHasher;
use crate::world::{GROUP, Happens, World};
use quorate_base::{Ballot, Index, NodeId};
use quorate_checkers::{AppliedLogs, Elections, LeaseBook, Operation, StateHashes, Truth};
use quorate_driver::PeerMessage;
use quorate_replicated_log::{Base, Body, Entries, Entry, Epoch, Membership, Payload, Protocol};
use quorate_wal::Batch;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::time::Duration;

/// Everything noted.
pub struct Record {
    /// What clients asked and were told.
    pub history: Vec<Operation>,
    /// What each revision changed.
    pub truth: Truth,
    /// What was written and applied.
    pub logs: AppliedLogs,
    /// The replicas' states.
    pub hashes: StateHashes,
    /// Who led.
    pub elections: Elections,
    /// What was promised about leases.
    pub leases: LeaseBook,
    /// Whether the latest members are in joint consensus.
    pub joint: bool,
    /// The latest members, and where they came into force.
    pub membership: (Index, Membership),
    /// Whoever was a member at any time.
    pub members_ever: BTreeSet<u64>,
    /// Of the further groups.
    pub neighbourhood: Neighbourhood,
    /// Each node's last written index and its round, if known.
    tails: Vec<Option<(Index, u64)>>,
    /// The epoch of each node's log.
    epochs: Vec<Epoch>,
    /// The entries that replicas said to be missing.
    pub blocked: Vec<(Index, Index)>,
    /// The latest epoch that anybody opened, and its protocol.
    pub latest: (Epoch, Protocol),
    /// How changes of protocols went.
    pub switches: Switches,
}

impl Record {
    /// Nothing yet, of so many nodes.
    pub fn new(ids: u64, founders: u64, protocol: Protocol) -> Record {
        Record {
            history: Vec::new(),
            truth: Truth::default(),
            logs: AppliedLogs::default(),
            hashes: StateHashes::default(),
            elections: Elections::default(),
            leases: LeaseBook::default(),
            joint: false,
            membership: (0, Membership::default()),
            members_ever: (1..=founders).collect(),
            neighbourhood: Neighbourhood::default(),
            tails: vec![None; ids as usize],
            epochs: vec![Epoch(0); ids as usize],
            blocked: Vec::new(),
            latest: (Epoch(0), protocol),
            switches: Switches::default(),
        }
    }
}

impl World<'_> {
    /// A node's log is given a batch.
    pub fn record_batch(&mut self, id: u64, batch: &Batch) {
        for (_, write) in batch.writes.iter().filter(|(group, _)| *group == GROUP) {
            if write.truncate_from.is_some() {
                self.count(Happening::LogTruncated);
            }
            if write.compact.is_some() {
                self.count(Happening::LogCompacted);
            }
            if let Some(base) = &write.reset {
                self.record.epochs[id as usize - 1] = base.epoch;
            }
            let place = (id, self.record.epochs[id as usize - 1].0);
            if write.reset.is_some() || write.truncate_from.is_some() {
                self.record.tails[id as usize - 1] = None;
            }
            for entry in write.slots.iter().flat_map(|run| run.iter()) {
                // What follows what says nothing where every slot is for itself.
                let content = content(entry);
                let result =
                    self.record.logs.wrote(place, entry.index, entry.ballot, content, None);
                self.check(result);
            }
            for entry in write.entries.iter() {
                let tail = &mut self.record.tails[id as usize - 1];
                let before = tail.filter(|(index, _)| index + 1 == entry.index).map(|(_, r)| r);
                *tail = Some((entry.index, entry.ballot.round));
                let content = content(entry);
                let result =
                    self.record.logs.wrote(place, entry.index, entry.ballot, content, before);
                self.check(result);
            }
        }
    }

    /// A node starts, its log in this epoch: nobody knows how much of what it wrote last it still
    /// has.
    pub fn forget_tail(&mut self, id: u64, epoch: Epoch) {
        self.record.tails[id as usize - 1] = None;
        self.record.epochs[id as usize - 1] = epoch;
    }

    /// A node's log went on in another epoch.
    pub fn record_epoch(&mut self, id: u64, base: &Base) {
        self.count(Happening::EpochOpened);
        if self.network.is_cut() {
            self.count(Happening::EpochOpenedInPartition);
        }
        self.line(id, format_args!("opens epoch {} of {}", base.epoch, base.protocol));
        self.record.latest = self.record.latest.max((base.epoch, base.protocol));
        self.note_epoch(id, base);
    }

    /// A node's service, which was at `before`, is given the committed entries that follow.
    pub fn record_applied(&mut self, id: u64, before: &Base, entries: &Entries) {
        for entry in entries.iter() {
            let content = content(entry);
            self.trace.note(self.now, id, 36, entry.index ^ content);
            // Under Paxos the same value may have been accepted under different ballots.
            let ballot = match before.protocol {
                Protocol::Raft => entry.ballot,
                Protocol::Paxos => Ballot::ZERO,
            };
            let result = self.record.logs.applied(id, entry.index, ballot, content);
            self.check(result);
            if let Payload::Lead(ballot) = entry.payload {
                let result = self.record.logs.led(id, entry.index, ballot);
                self.check(result);
            }
        }
    }

    /// A node sends a message: the vote it gives, it has given for ever.
    pub fn record_sent(&mut self, from: NodeId, to: NodeId, message: &PeerMessage) {
        if let PeerMessage::Log { group: GROUP, message } = message
            && message.body == (Body::VoteReply { granted: true })
        {
            let result =
                self.record.elections.voted(from, (message.epoch.0, message.ballot.round), to);
            self.check(result);
        }
    }

    /// A node says that the members changed.
    pub fn record_members(&mut self, base: &Base) {
        if base.position.index <= self.record.membership.0 {
            return;
        }
        let before = self.members();
        self.record.membership = (base.position.index, base.membership.clone());
        let now = &base.membership;
        self.record.joint = now.is_joint();
        self.record.members_ever.extend(now.all().iter().map(|node| node.0));
        for node in before.all() {
            // The operator shuts down whoever was removed, in his own time.
            if !now.contains(node) {
                let at = self.soon(Duration::from_secs(3));
                self.queue.push(at, node.0 as u32, Happens::Retire(node.0));
            }
        }
    }

    /// How far anybody who runs has applied the log: as far as `members` is known to be right.
    pub fn applied_anywhere(&self) -> Index {
        let running = self.nodes.iter().filter_map(|node| node.running.as_ref());
        let bases = running.filter_map(|running| running.driver.as_ref()?.applied(GROUP));
        bases.map(|base| base.position.index).max().unwrap_or(0).max(self.record.membership.0)
    }

    /// The members, as far as anybody has applied them.
    pub fn members(&self) -> Membership {
        match &self.record.membership {
            (0, _) => Membership::of((1..=self.plan.nodes).map(NodeId)),
            (_, membership) => membership.clone(),
        }
    }
}

fn content(entry: &Entry) -> u64 {
    let mut hasher = StableHasher::default();
    entry.payload.hash(&mut hasher);
    hasher.finish()
}
