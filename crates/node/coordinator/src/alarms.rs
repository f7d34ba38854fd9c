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
use quorate_transactions::{Alarm, BranchState, Record};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an acknowledgement may take.
const LIMIT: Duration = Duration::from_secs(10);
/// The pause between two looks, and between two tries to write one down.
const PAUSE: Duration = Duration::from_millis(50);
/// How many are listed.
const MOST: usize = 10_000;

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

/// Alarms, each once, wherever it was met.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Alarms {
    /// They: those in records first.
    pub all: Vec<Alarm>,
    /// Whether there are more than these.
    pub more: bool,
    known: BTreeSet<[String; 3]>,
}

impl Alarms {
    /// Adds one, if there is room.
    fn add(&mut self, alarm: Alarm) -> ControlFlow<()> {
        let what = [&alarm.transaction, &alarm.branch, &alarm.participant].map(String::clone);
        if self.known.contains(&what) {
            return ControlFlow::Continue(());
        }
        if self.all.len() == MOST {
            self.more = true;
            return ControlFlow::Break(());
        }
        self.known.insert(what);
        self.all.push(alarm);
        ControlFlow::Continue(())
    }

    /// Adds those of a record that is not over.
    pub(crate) fn of_record(&mut self, id: &str, record: &Record) -> ControlFlow<()> {
        in_record(id, record).try_for_each(|alarm| self.add(alarm))
    }

    /// Adds those that are kept beside the records, as this node's replica has them.
    pub(crate) fn kept_beside(&mut self, store: &Store) -> Result<(), StoreError> {
        store.each_alarm(|_, alarm| self.add(alarm))
    }
}

impl Transactions {
    /// The alarms that nobody has acknowledged: up to 10,000 of them.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn alarms(&self, by: Deadline) -> Result<Alarms, RunError> {
        let store = self.store(by).await?;
        let read = store.0.read(READ_TIMEOUT.min(by.left())).await;
        read.map_err(|e| store_error(StoreError::Request(e)))?;
        let mut found = Alarms::default();
        store.each_open(|id, record| found.of_record(id, record)).map_err(store_error)?;
        found.kept_beside(&store).map_err(store_error)?;
        Ok(found)
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
        let mut ended = Alarms::default();
        for alarm in self.acknowledge_record(&store, (id, by), meant).await? {
            // A transaction has fewer branches than there is room.
            let _ = ended.add(alarm);
        }
        let mut beside = Vec::new();
        let look = |name: String, alarm: Alarm| match meant(&alarm) {
            true => {
                beside.push(name);
                ended.add(alarm)
            }
            false => ControlFlow::Continue(()),
        };
        store.each_alarm(look).map_err(store_error)?;
        store.remove_alarms(&beside).await.map_err(store_error)?;
        let ended = ended.all;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::{Alone, eventually};
    use crate::service::Settings;
    use quorate_transactions::{Kind, Stage, Verdict};

    fn alarm(n: usize) -> Alarm {
        Alarm {
            transaction: format!("order-{n}"),
            branch: "debit".to_owned(),
            kind: Kind::Postgres,
            participant: "bank".to_owned(),
            what: "it is gone".to_owned(),
            since_ms: n as u64,
        }
    }

    #[test]
    fn each_alarm_is_told_once_and_what_is_left_out_is_said() {
        let mut found = Alarms::default();
        assert!((0..MOST).all(|n| found.add(alarm(n)).is_continue()));
        // The same, met elsewhere at another time.
        assert!(found.add(Alarm { since_ms: 9, ..alarm(3) }).is_continue());
        assert!(!found.more && found.all.len() == MOST);
        assert!(found.add(alarm(MOST)).is_break());
        assert!(found.more && found.all.len() == MOST);
    }

    #[test]
    fn who_drove_it_lets_go_when_another_member_has_ended_it() {
        let world = Alone::start();
        let transactions = world.transactions(Settings::default());
        let mut record = Record { stage: Stage::Decided(Verdict::Commit), ..world.record() };
        for branch in &mut record.branches {
            branch.state = BranchState::Heuristic("by hand".to_owned());
        }
        world.keep("t", None, record);
        let look = || world.store.look("t").unwrap().unwrap();
        let live = {
            let _guard = world.runtime.enter();
            take(&transactions.0, "t".to_owned(), look(), Why::Acknowledged)
        };
        assert!(live.is_some());
        eventually("it is driven here", || look().0.epoch == 2);

        let (mut record, at) = look();
        (record.epoch, record.owner) = (3, world.stranger());
        record.stage = Stage::Finished(Verdict::Commit);
        for branch in &mut record.branches {
            branch.state = BranchState::Acknowledged("by hand".to_owned());
        }
        world.keep("t", Some(at), record);
        eventually("it is driven here no more", || transactions.0.live.get("t").is_none());
        let by = Deadline::within(Duration::from_secs(60));
        let again = world.runtime.block_on(transactions.run(world.request("t"), false, by));
        assert!(again.unwrap().is_finished());
    }
}
