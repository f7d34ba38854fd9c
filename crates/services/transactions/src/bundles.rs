//! Bundles with branches in databases: those are asked before there is a record, and what has none
//! nobody else can commit. Where the records answer, the first one waits for the votes, and so is
//! the decision.
//!
//! Invariant: once a record that says that it is committed was asked for, nothing is rolled back on
//! the strength of its not being there, unless another record has taken its place.

use crate::canary::Bug;
use crate::coordinator::{Coordinator, Effect, Moment, Phase};
use crate::record::{Stage, Verdict};
use quorate_atomic_commit as commit;
use quorate_atomic_commit::Reason;
use std::sync::Arc;

impl Coordinator {
    /// Of those whom this bundle carries somebody else has begun one, so that it cannot be. It gets
    /// a record that carries nobody and rolls it back: what its participants outside keep of it is
    /// forgotten with that.
    pub(crate) fn disband(&mut self, moment: Moment, out: &mut Vec<Effect>) {
        self.record.carried = Arc::default();
        self.held = None;
        let reason = "one of those whom it was to carry was begun elsewhere".to_owned();
        self.record.stage = Stage::Decided(Verdict::Abort { branch: None, reason });
        self.phase = Phase::Deciding;
        self.store(moment, out);
    }

    /// Whether all have said yes, databases among them, and there is still no record.
    pub(crate) fn waits_with_locks(&self) -> bool {
        self.at.is_none()
            && self.held == Some(commit::Decision::Commit)
            && !self.record.is_in_keyspaces()
    }

    /// The record cannot be written in time: when it can, it says that this is rolled back.
    pub(crate) fn let_databases_go(&mut self, out: &mut Vec<Effect>) {
        let why = "its record could not be written before the deadline";
        let reason = Reason::Refused(why.to_owned());
        self.held = Some(commit::Decision::Abort { branch: None, reason });
        self.settle_all(false, out);
    }

    /// There is a record already. If that cannot be what it has asked for itself, a branch of it
    /// was found, and it is void: what is outside is for who finds it. Else it may be committed, by
    /// somebody who has taken it over.
    pub(crate) fn refused_any(&mut self, out: &mut Vec<Effect>) {
        if !self.staked {
            return self.withdraw(out);
        }
        if self.settings.canary.sings(Bug::WithdrawStaked) {
            self.settle_all(false, out);
        }
        self.depose(out);
    }

    pub(crate) fn is_disbanded(&self) -> bool {
        let aborts = self.record.stage.verdict().is_some_and(|verdict| !verdict.commits());
        self.at.is_none() && aborts && !self.record.is_in_keyspaces()
    }
}
