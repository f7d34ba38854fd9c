//! Branches that somebody ended against the decision: alarms, which only people end.
//!
//! What a transaction's coordinator meets is in its record, which stays open for it. What a scan of
//! a participant meets is kept beside the records, under `a/` and the branch's name. Invariant: an
//! alarm is removed by an acknowledgement alone.

use crate::error::RunError;
use crate::service::{Inner, Transactions, kind_of, store_error};
use crate::store::{Store, StoreError};
use crate::takeover::{Why, take};
use quorate_resource_managers::{BranchName, Deadline, Heuristic};
use quorate_transactions::records::OPEN;
use quorate_transactions::{Alarm, BranchState, Record};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an acknowledgement may take.
const LIMIT: Duration = Duration::from_secs(10);
/// The pause between two looks, and between two tries to write one down.
const PAUSE: Duration = Duration::from_millis(50);
/// How many are listed.
const MOST: u64 = 10_000;

impl Inner {
    /// Writes an alarm down, in the background, until that has succeeded.
    pub(crate) fn raise(self: &Arc<Inner>, branch: &BranchName, heuristic: Heuristic) {
        let Some((kind, _)) = self.managers.get(branch.participant()) else { return };
        let alarm = Alarm {
            transaction: branch.transaction().txid().to_owned(),
            branch: branch.branch().to_owned(),
            kind: kind_of(*kind),
            participant: branch.participant().to_owned(),
            what: heuristic.to_string(),
            since_ms: self.moment().wall_ms,
        };
        let (inner, name) = (Arc::downgrade(self), branch.to_string());
        tokio::spawn(async move {
            while let Some(inner) = inner.upgrade().filter(|inner| !inner.node.has_ended()) {
                let written = match inner.store() {
                    Some(store) => store.note_alarm(&name, &alarm).await,
                    None => Err(StoreError::Away),
                };
                match written {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(name, %error, "an alarm is not kept yet"),
                }
                drop(inner);
                sleep(PAUSE).await;
            }
        });
    }
}

/// The alarms in a record.
fn in_record<'a>(id: &'a str, record: &'a Record) -> impl Iterator<Item = Alarm> + 'a {
    record.branches.iter().filter_map(move |branch| match &branch.state {
        BranchState::Heuristic(what) => Some(Alarm {
            transaction: id.to_owned(),
            branch: branch.name.clone(),
            kind: branch.kind,
            participant: branch.participant.clone(),
            what: what.clone(),
            since_ms: record.changed_ms,
        }),
        _ => None,
    })
}

/// Whether an alarm is the same as another, wherever each was met.
fn is_same(a: &Alarm, b: &Alarm) -> bool {
    (&a.transaction, &a.branch, &a.participant) == (&b.transaction, &b.branch, &b.participant)
}

impl Transactions {
    /// All alarms that nobody has acknowledged.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn alarms(&self, by: Deadline) -> Result<Vec<Alarm>, RunError> {
        let store = self.store(by).await?;
        let read = store.0.read(READ_TIMEOUT.min(by.left())).await;
        read.map_err(|e| store_error(StoreError::Request(e)))?;
        let open = store.list(OPEN, "", false, MOST).map_err(store_error)?;
        let mut all: Vec<Alarm> =
            open.iter().flat_map(|(id, (record, _))| in_record(id, record)).collect();
        for (_, alarm) in store.alarms(MOST).map_err(store_error)? {
            if !all.iter().any(|known| is_same(known, &alarm)) {
                all.push(alarm);
            }
        }
        Ok(all)
    }

    /// Ends the alarms about a transaction, or about one branch of it, because people have seen to
    /// them; which they were. A transaction that waited for nothing else is over then.
    ///
    /// # Errors
    /// [`RunError`]; an unknown one, if there is no such alarm.
    pub async fn acknowledge(
        &self,
        id: &str,
        branch: Option<&str>,
        by: Deadline,
    ) -> Result<Vec<Alarm>, RunError> {
        let store = self.store(by).await?;
        let known = store.find(id, READ_TIMEOUT.min(by.left())).await.map_err(store_error)?;
        // An alarm about one that a bundle carries is about the bundle.
        let id = known.as_ref().map_or(id, |known| &known.id);
        let meant = |alarm: &Alarm| {
            alarm.transaction == id && branch.is_none_or(|branch| alarm.branch == branch)
        };
        let mut ended = self.acknowledge_record(&store, (id, by), meant).await?;
        let beside = store.alarms(MOST).map_err(store_error)?.into_iter();
        let beside: Vec<(String, Alarm)> = beside.filter(|(_, alarm)| meant(alarm)).collect();
        if !beside.is_empty() {
            let names: Vec<String> = beside.iter().map(|(name, _)| name.clone()).collect();
            store.remove_alarms(&names).await.map_err(store_error)?;
        }
        for (_, alarm) in beside {
            if !ended.iter().any(|known| is_same(known, &alarm)) {
                ended.push(alarm);
            }
        }
        if ended.is_empty() {
            let about = branch.map(|name| format!(", branch {name:?}")).unwrap_or_default();
            let why = format!("there is no alarm about the transaction {id:?}{about}");
            return Err(RunError::Unknown(why));
        }
        for known in self.0.recovery.alarms() {
            if known.branch.transaction().txid() == id
                && branch.is_none_or(|branch| known.branch.branch() == branch)
            {
                self.0.recovery.acknowledge(&known.branch);
            }
        }
        tracing::info!(id, alarms = ended.len(), "alarms are acknowledged");
        Ok(ended)
    }

    /// The same, of those in its record. Whoever acknowledges drives the transaction from then on.
    async fn acknowledge_record(
        &self,
        store: &Store,
        (id, by): (&str, Deadline),
        meant: impl Fn(&Alarm) -> bool,
    ) -> Result<Vec<Alarm>, RunError> {
        let (inner, deadline) = (&self.0, by.min(Deadline::within(LIMIT)));
        let mut ended = Vec::new();
        loop {
            let kept = store.read(id, READ_TIMEOUT.min(by.left())).await.map_err(store_error)?;
            let Some((record, revision)) = kept else { return Ok(ended) };
            let alarms: Vec<Alarm> = in_record(id, &record).filter(&meant).collect();
            if alarms.is_empty() {
                return Ok(ended);
            }
            if deadline.left().is_zero() {
                return Err(RunError::Unavailable(format!(
                    "the alarm about {id:?} could not be acknowledged in time: try again"
                )));
            }
            let branches = (0u16..).zip(&record.branches);
            let branches: Vec<u16> = branches
                .filter(|(_, it)| alarms.iter().any(|alarm| alarm.branch == it.name))
                .map(|(index, _)| index)
                .collect();
            let live = match inner.live.get(id) {
                Some(live) => Some(live),
                None => take(inner, id.to_owned(), (record, revision), Why::Acknowledged),
            };
            if let Some(live) = live {
                live.acknowledge(&branches);
                ended = alarms;
            }
            sleep(PAUSE).await;
        }
    }
}
