//! What participants outside remember of a transaction: fence rows in databases, a service's
//! barrier. They bear the names of the branches, and every attempt has names of its own.
//!
//! Invariant: all of it is forgotten before the record is, and nothing later. As long as there is
//! the record nobody begins another transaction of its id, whose branches would have the names of
//! this one's; and of the last attempt a row may be the proof that it was committed.

use crate::manager::name;
use crate::service::{Inner, READ_TIMEOUT, kind_of};
use crate::store::StoreError;
use quorate_base::ClusterId;
use quorate_resource_managers::{BranchName, EPOCH_LIMIT};
use quorate_transactions::records::{Known, Over};
use quorate_transactions::{BranchRecord, Kind, Record, Stray};
use std::collections::{BTreeMap, BTreeSet};

/// A participant outside.
pub(crate) type Participant = (Kind, String);

fn outside(record: &Record) -> impl Iterator<Item = &BranchRecord> {
    record.branches.iter().filter(|branch| branch.kind != Kind::Keyspace)
}

/// Who may remember something of a transaction.
pub(crate) fn participants(over: &Over) -> BTreeSet<Participant> {
    let own = outside(&over.record).map(|branch| (branch.kind, branch.participant.clone()));
    let strays = named(over).map(|(kind, name)| (kind, name.participant().to_owned()));
    own.chain(strays).collect()
}

fn named(over: &Over) -> impl Iterator<Item = (Kind, BranchName)> + '_ {
    let read = |stray: &Stray| Some((stray.kind, BranchName::from_postgres_gid(&stray.name)?));
    over.strays.iter().filter_map(read)
}

/// All that each participant may remember of these: the branches of every attempt, and strays. The
/// names are made one by one, for there may be many attempts.
pub(crate) fn of(
    cluster: ClusterId,
    due: &[Over],
) -> BTreeMap<Participant, impl Iterator<Item = BranchName>> {
    let mut all = BTreeMap::<Participant, Vec<(&Over, &BranchRecord)>>::new();
    let mut strays = BTreeMap::<Participant, Vec<BranchName>>::new();
    for over in due {
        for branch in outside(&over.record) {
            let participant = (branch.kind, branch.participant.clone());
            all.entry(participant).or_default().push((over, branch));
        }
        for (kind, name) in named(over) {
            let participant = (kind, name.participant().to_owned());
            all.entry(participant.clone()).or_default();
            strays.entry(participant).or_default().push(name);
        }
    }
    let every_attempt = move |(over, branch): (&Over, &BranchRecord)| {
        let (id, participant, called) =
            (over.id.clone(), branch.participant.clone(), branch.name.clone());
        let attempts = attempts(&over.record);
        attempts.filter_map(move |attempt| name(cluster, &id, attempt, &participant, &called).ok())
    };
    all.into_iter()
        .map(|(participant, branches)| {
            let strays = strays.remove(&participant).unwrap_or_default();
            (participant, branches.into_iter().flat_map(every_attempt).chain(strays))
        })
        .collect()
}

/// The epochs in which branches were asked. What takes a transaction over asks nobody to prepare,
/// so that there is none between two attempts.
fn attempts(record: &Record) -> std::ops::RangeInclusive<u32> {
    1..=record.asked.min(u32::try_from(EPOCH_LIMIT - 1).unwrap_or(u32::MAX))
}

/// Whether this branch is one of an attempt of the record.
fn has(record: &Record, branch: &BranchName) -> bool {
    let attempt = u32::try_from(branch.transaction().epoch());
    attempt.is_ok_and(|attempt| attempts(record).contains(&attempt))
        && outside(record)
            .any(|it| it.name == branch.branch() && it.participant == branch.participant())
}

impl Inner {
    /// The same for several of one transaction, whatever its record says.
    pub(crate) async fn note_strays(
        &self,
        id: &str,
        branches: &[BranchName],
    ) -> Result<(), StoreError> {
        let store = self.store().ok_or(StoreError::Away)?;
        for branch in branches {
            // Each note changes the record's revision.
            if let Some(known) = store.find(id, READ_TIMEOUT).await? {
                self.note_stray(&known, branch).await?;
            }
        }
        Ok(())
    }

    /// Sees to it that this branch, which is about to be rolled back, is forgotten with the record
    /// that says so.
    pub(crate) async fn note_stray(
        &self,
        known: &Known,
        branch: &BranchName,
    ) -> Result<(), StoreError> {
        if !known.carried && has(&known.record, branch) {
            return Ok(());
        }
        let Some((kind, _)) = self.managers.get(branch.participant()) else { return Ok(()) };
        let stray = Stray { kind: kind_of(*kind), name: branch.to_string() };
        let store = self.store().ok_or(StoreError::Away)?;
        store.note_stray((&known.id, (known.record.clone(), known.revision)), stray).await
    }
}
