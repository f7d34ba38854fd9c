//! Linearizable reads: what is this protocol's own about them.

use super::replica::MultiPaxos;
use crate::canary::Canary;
use quorate_base::NodeId;
use quorate_replicated_log::{AnswerReads, Body, Config, Effects, Reads, Standing};

impl AnswerReads for MultiPaxos {
    fn reads(&mut self) -> &mut Reads {
        &mut self.reads
    }

    fn settings(&self) -> &Config {
        &self.config
    }

    fn standing(&self) -> Standing {
        Standing {
            role: self.role,
            leader: self.leader,
            commit: self.commit,
            // Everything that it found in phase 1 is chosen.
            knows_all: self.commit >= self.repaired_to,
            is_over: self.is_sealed() && !self.is(Canary::ReadAfterSeal),
            hands_over: self.transfer.is_some() || self.offered,
        }
    }

    fn decides_alone(&self) -> bool {
        self.is_only_voter() || self.is(Canary::ReadWithoutQuorum)
    }

    fn confirmed(&self, own: u64) -> u64 {
        self.spec.reached(self.membership(), 0, |node| {
            if node == self.me() { own } else { self.followers.get(node).map_or(0, |p| p.probe) }
        })
    }

    fn tell(&self, out: &mut Effects, to: NodeId, body: Body) {
        self.send(out, to, body, None);
    }

    fn send_probe(&mut self, out: &mut Effects) {
        self.send_heartbeats(out);
    }
}
