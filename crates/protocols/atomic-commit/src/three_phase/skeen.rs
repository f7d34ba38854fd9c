//! The termination of 1981: a test subject. It holds as long as sites only crash and the network
//! only delays for less than the patience; a partition splits it.
//!
//! Rule (Skeen, *Nonblocking Commit Protocols*, section 6, with the backup coordinator as any site
//! that lost its patience): ask everybody who can be reached; if one of them has pre-committed,
//! pre-commit the others and commit; else abort.

use super::{others, patience};
use crate::effects::{Effects, WriteId};
use crate::ids::Address;
use crate::message::Body;
use crate::record::Record;
use crate::seat::Seat;
use crate::vote::Outcome;
use alloc::collections::BTreeSet;
use quorate_base::{Ballot, Instant};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Step {
    Idle,
    /// Backup coordinator: hears whoever answers in time.
    Gathering {
        pre_committed: bool,
    },
    /// Waits for acknowledged pre-commits, from whoever can be reached.
    PreCommitting {
        acknowledged: BTreeSet<Address>,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Skeen {
    pre_committed: bool,
    write: Option<WriteId>,
    step: Step,
}

impl Skeen {
    pub fn restore(records: &[Record]) -> Self {
        let pre_committed = records.iter().any(|record| matches!(record, Record::Ballots { .. }));
        Skeen { pre_committed, write: None, step: Step::Idle }
    }

    pub fn accepted(&self) -> Option<Outcome> {
        self.pre_committed.then_some(Outcome::Commit)
    }

    fn accept(&mut self, seat: &mut Seat, out: &mut Effects) {
        if !self.pre_committed {
            self.pre_committed = true;
            let accepted = Some((Ballot::ZERO, Outcome::Commit));
            let record = Record::Ballots { promised: Ballot::ZERO, accepted };
            self.write = Some(seat.write(record, true, out));
        }
    }

    pub fn pre_commit(&mut self, now: Instant, seat: &mut Seat, out: &mut Effects) {
        self.accept(seat, out);
        let (ballot, outcome) = (Ballot::ZERO, Outcome::Commit);
        for site in others(seat) {
            seat.send(site, Body::PreDecide { ballot, outcome }, None, out);
        }
        self.step = Step::PreCommitting { acknowledged: BTreeSet::new() };
        seat.timer = Some(patience(now, seat));
    }

    pub fn message(
        &mut self,
        from: Address,
        body: Body,
        seat: &mut Seat,
        out: &mut Effects,
    ) -> Option<Outcome> {
        match (body, &mut self.step) {
            (Body::PreDecide { ballot, .. }, _) => {
                self.accept(seat, out);
                seat.send(from, Body::PreDecided { ballot }, self.write, out);
                None
            }
            (Body::Elect { ballot }, _) => {
                let accepted = self.accepted().map(|outcome| (Ballot::ZERO, outcome));
                seat.send(from, Body::Elected { ballot, accepted }, self.write, out);
                None
            }
            (Body::Elected { accepted, .. }, Step::Gathering { pre_committed }) => {
                *pre_committed |= accepted.is_some();
                None
            }
            (Body::PreDecided { .. }, Step::PreCommitting { acknowledged }) => {
                acknowledged.insert(from);
                (acknowledged.len() == others(seat).count()).then_some(Outcome::Commit)
            }
            _ => None,
        }
    }

    /// Whoever has not answered by now is taken for dead.
    pub fn tick(&mut self, now: Instant, seat: &mut Seat, out: &mut Effects) -> Option<Outcome> {
        match self.step {
            Step::Idle => {
                self.step = Step::Gathering { pre_committed: self.pre_committed };
                for site in others(seat) {
                    seat.send(site, Body::Elect { ballot: Ballot::ZERO }, None, out);
                }
                seat.set_timer(now, seat.config.retry);
                None
            }
            Step::Gathering { pre_committed: true } => {
                self.pre_commit(now, seat, out);
                None
            }
            Step::Gathering { pre_committed: false } => Some(Outcome::Abort),
            Step::PreCommitting { .. } => Some(Outcome::Commit),
        }
    }
}
