//! What requests must have in common to go together, and how several are made one.

use super::stop::Waiting;
use crate::request::{Branch, BranchWork, Request};
use crate::service::Inner;
use quorate_atomic_commit::Protocol;
use quorate_base::GroupId;
use quorate_resource_managers::{Isolation, MERGED_STATEMENTS, SHARED_STATEMENTS, SqlWork, Work};
use quorate_transactions::{BranchRecord, MAX_CARRIED};
use std::time::Duration;

/// How long a bundle may stay undecided; then everybody goes alone, unless its decision is being
/// written.
const PATIENCE: Duration = Duration::from_millis(500);
/// The same of one with branches in databases, which run the statements of all.
const PATIENCE_OUTSIDE: Duration = Duration::from_secs(1);
/// Bytes of the largest request that is carried.
const SMALL: usize = 16 << 10;

const _: () = assert!(MAX_CARRIED <= quorate_keyspace::branch::MAX_TXNS);
const _: () = assert!(MAX_CARRIED * SHARED_STATEMENTS <= MERGED_STATEMENTS);

impl Request {
    /// Whether it may be carried with others.
    pub fn may_ride(&self) -> bool {
        !self.alone
            && self.branches.len() > 1
            && self.bytes <= SMALL
            && self.patience >= 2 * patience(&self.branches)
            && self.branches.iter().all(|branch| branch.work.may_ride())
    }
}

/// How long a bundle of such branches may stay undecided.
pub(super) fn patience(branches: &[Branch]) -> Duration {
    match branches.iter().all(|branch| matches!(branch.work, BranchWork::Keyspace { .. })) {
        true => PATIENCE,
        false => PATIENCE_OUTSIDE,
    }
}

impl BranchWork {
    fn may_ride(&self) -> bool {
        match self {
            BranchWork::Keyspace { .. } => true,
            BranchWork::Manager(kind, Work::Sql(work)) => work.may_share(*kind),
            BranchWork::Manager(_, Work::Http(_) | Work::Prepared(_)) => false,
        }
    }
}

/// What the requests of a line have in common of one branch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seat {
    /// Its name, the keyspace, and what a compare that fails means.
    Keyspace(String, GroupId, bool),
    /// Its name, the database, and the isolation in it.
    Database(String, String, Option<Isolation>),
}

/// What requests must have in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    /// How their participants agree.
    pub protocol: Protocol,
    /// Their branches.
    pub seats: Vec<Seat>,
}

/// Nothing, if there is a participant at which each goes by itself.
pub(super) fn line(inner: &Inner, request: &Request, branches: &[BranchRecord]) -> Option<Line> {
    let one = |(branch, record): (&Branch, &BranchRecord)| match &branch.work {
        BranchWork::Keyspace { or_else, .. } => {
            Some(Seat::Keyspace(branch.name.clone(), record.group, *or_else))
        }
        BranchWork::Manager(_, work) => {
            let Work::Sql(work) = work else { return None };
            let (name, participant) = (branch.name.clone(), branch.participant.clone());
            let seat = Seat::Database(name, participant, work.isolation);
            inner.shares(branch).then_some(seat)
        }
    };
    let seats = request.branches.iter().zip(branches).map(one).collect::<Option<_>>()?;
    Some(Line { protocol: request.protocol, seats })
}

/// One branch for all that are asked of the same participant.
pub(super) fn merged(some: &[Waiting]) -> (Vec<Branch>, Vec<BranchRecord>) {
    let Some(first) = some.first() else { return (Vec::new(), Vec::new()) };
    let one = |(index, branch): (usize, &Branch)| {
        let all = || some.iter().filter_map(move |it| it.branches.get(index));
        let work = match &branch.work {
            BranchWork::Keyspace { or_else, .. } => {
                let txns = all().flat_map(|it| it.work.txns().iter().cloned()).collect();
                BranchWork::Keyspace { txns, or_else: *or_else }
            }
            BranchWork::Manager(kind, _) => {
                let merged = SqlWork::merged(all().filter_map(|it| it.work.sql()));
                BranchWork::Manager(*kind, Work::Sql(merged))
            }
        };
        Branch { work, ..branch.clone() }
    };
    (first.branches.iter().enumerate().map(one).collect(), first.records.clone())
}

/// Whose this statement is of a branch that holds those of all.
pub(super) fn rider(some: &[Waiting], (branch, statement): (u16, usize)) -> Option<usize> {
    let mut before = 0;
    some.iter().position(|it| {
        let work = it.branches.get(usize::from(branch)).and_then(|branch| branch.work.sql());
        before += work.map_or(0, |work| work.statements.len());
        statement <= before
    })
}
