//! Transactions that the votes decide, as in Paxos Commit, and beginners who come second.
//!
//! Every participant is a group, and what it voted is an entry of its log: chosen once and for
//! ever by a consensus of its own. So a commit needs no record of the decision. Whoever takes such
//! a transaction over must find out what was chosen: it proposes No under a later epoch to every
//! participant, and gets that, or the Yes that was there before (Gray and Lamport, *Consensus on
//! Transaction Commit*, section 4.2; `docs/paxos-commit.md`).
//!
//! Invariant: a transaction that the votes decide is aborted only by who holds its record, through
//! a write of the record; and who takes it over writes its own claim first. So of an owner that
//! aborts and one that takes over, one is deposed before anything is told.

use crate::coordinator::{Coordinator, Effect, Found, Moment, Phase};
use crate::record::{BranchState, Kind, Voted};
use crate::steps::cut;
use quorate_atomic_commit::{BranchId, Decision, Reason};

impl Coordinator {
    /// Whether all votes are Yes, and are the decision.
    pub(crate) fn votes_decide(&self) -> bool {
        let found = |state: &BranchState| {
            matches!(state, BranchState::Prepared | BranchState::Committed(_))
        };
        self.record.is_decided_by_votes()
            && self.record.branches.iter().all(|branch| found(&branch.state))
    }

    /// Closes the votes.
    pub(crate) fn resolve(&mut self, out: &mut Vec<Effect>) {
        self.phase = Phase::Resolving;
        for branch in &mut self.record.branches {
            branch.state = BranchState::Asked;
        }
        let epoch = self.record.epoch;
        let open = self.record.open_branches();
        out.extend(open.map(|branch| Effect::Resolve { branch, epoch }));
    }

    pub(crate) fn resolved(
        &mut self,
        moment: Moment,
        index: u16,
        found: Found,
        out: &mut Vec<Effect>,
    ) {
        if self.state(index) != Some(&BranchState::Asked) {
            return;
        }
        let state = match found {
            Found::Yes => BranchState::Prepared,
            Found::Committed(revision) => BranchState::Committed(revision),
            Found::No(why) => {
                let lost = self.setback.take();
                let voted = why.is_some();
                let why = why.or(lost.map(|(_, why)| why)).unwrap_or_default();
                let reason = Reason::Refused(cut(&why));
                if let Some(branch) = self.branch(index) {
                    branch.trouble.clear();
                    match voted {
                        true => branch.voted(Voted::No, BranchState::RolledBack, moment.wall_ms),
                        false => branch.ended(BranchState::RolledBack, moment.wall_ms),
                    }
                }
                let branch = Some(BranchId(index + 1));
                return self.decide(moment, &Decision::Abort { branch, reason }, out);
            }
            Found::Superseded => return self.depose(out),
        };
        if let Some(branch) = self.branch(index) {
            branch.trouble.clear();
            branch.voted(Voted::Yes, state, moment.wall_ms);
        }
        if self.votes_decide() {
            self.decide(moment, &Decision::Commit, out);
        }
    }

    /// There is a record of this id already, and it is somebody else's: nothing that was asked
    /// here can ever be committed.
    pub(crate) fn withdraw(&mut self, out: &mut Vec<Effect>) {
        self.phase = Phase::Withdrawing;
        self.held = None;
        let outside = self.record.branches.iter_mut().filter(|it| it.kind != Kind::Keyspace);
        // Found by a scan, which notes what is left there for it to be forgotten.
        outside.for_each(|branch| branch.state = BranchState::RolledBack);
        self.settle_all(false, out);
        self.withdraw_further(out);
    }

    pub(crate) fn withdrawn(&mut self, index: u16, out: &mut Vec<Effect>) {
        if let Some(branch) = self.branch(index) {
            branch.state = BranchState::RolledBack;
        }
        self.withdraw_further(out);
    }

    fn withdraw_further(&mut self, out: &mut Vec<Effect>) {
        if self.record.open_branches().next().is_none() {
            self.depose(out);
        }
    }
}
