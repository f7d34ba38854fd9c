//! The end of some runs: more is lost than can be made up for. Then nothing may go on as if it had
//! never been: nobody leads, nothing is acknowledged or applied, and the replicas say which entries
//! are missing.
//!
//! Everybody loses their state, which stands for all entries up to its log's base; of these nobody
//! can speak any more.

use crate::clients::Wish;
use crate::counters::Happening;
use crate::world::{GROUP, World};
use bytes::Bytes;
use quorate_base::Index;
use quorate_checkers::{End, Op, Request, Violation};
use quorate_replicated_log::Role;
use std::time::Duration;

/// A replica that stands in vain says so within a few election timeouts.
const PATIENCE: Duration = Duration::from_secs(12);

impl World<'_> {
    /// Every voter loses its state, in some runs.
    pub fn go_beyond_repair(&mut self) {
        let members = self.members();
        if !self.plan.beyond || members.voters.len() < 3 || members.is_joint() {
            return;
        }
        let voters: Vec<u64> = members.voters.iter().map(|node| node.0).collect();
        if voters.iter().any(|id| self.nodes[*id as usize - 1].running.is_none()) {
            return; // One is ruined, or retires.
        }
        self.line(0, format_args!("everybody loses their state"));
        for id in 1..=self.plan.ids {
            self.crash(id);
        }
        // Learners and those that were removed have a state as well, and could give it.
        for node in self.nodes.iter_mut().filter(|node| node.run > 0) {
            node.engine.damage();
            node.state_damaged = true;
        }
        self.record.blocked.clear();
        self.run_until(self.now + PATIENCE);
        let acknowledged = self.ask_in_vain(voters[0]);
        if self.violation.is_some() {
            return;
        }
        let named = |ranges: &[(Index, Index)]| ranges.iter().any(|(first, _)| *first == 1);
        let goes_on = voters.iter().find(|id| self.goes_on(**id));
        let what = match goes_on {
            Some(id) => format!("node {id} leads or has applied something"),
            None if acknowledged => "a write was acknowledged".to_owned(),
            None if !named(&self.record.blocked) => {
                format!("nobody says that entry 1 is missing: {:?}", self.record.blocked)
            }
            None => return self.count(Happening::StoodStill),
        };
        self.check(Err(Violation::new("stands still where nobody can read", what)));
    }

    fn ask_in_vain(&mut self, id: u64) -> bool {
        let (seat, before) = (self.seats.len() - 1, self.record.history.len());
        let (key, value) = (Bytes::from_static(b"end"), Bytes::from_static(b"in vain"));
        self.ask(seat, Wish::Ask(Request::Op(Op::Put { key, value, lease: 0 })), id);
        self.run_until(self.now + PATIENCE);
        let asked = self.record.history.get(before);
        asked.is_some_and(|asked| matches!(asked.end, End::Answered { .. }))
    }

    fn goes_on(&self, id: u64) -> bool {
        let running = self.nodes[id as usize - 1].running.as_ref();
        let applied = running.and_then(|it| it.driver.as_ref()?.applied(GROUP));
        let leads = running.is_some_and(|running| running.role == Role::Leader);
        leads || applied.is_some_and(|base| base.position.index > 0)
    }
}
