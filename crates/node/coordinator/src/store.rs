//! The records of transactions in the keyspace `transactions`.
//!
//! Its keys are those of `quorate_transactions::records`, and `a/` and a branch's name: an alarm
//! about it, which people have not acknowledged.

use bytes::Bytes;
use quorate_driver::RequestError;
use quorate_host::KeyspaceHandle;
use quorate_keyspace::command::{Command, Delete, Operation, Put, Txn};
use quorate_keyspace::reply::Outcome;
use quorate_keyspace::{KeyspaceError, ReadError, codec};
use quorate_mvcc::{KeyRange, Revision};
use quorate_resource_managers::Deadline;
use quorate_transactions::records::{self, Kept, Known, LookError, OPEN, Over, as_of, key};
use quorate_transactions::{Alarm, MAX_STRAYS, Record, StoreRequest, Stored, Stray};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::task::yield_now;

/// How long one write may take before it is made again.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// What alarms begin with that no open record tells of.
pub(crate) const ALARM: &str = "a/";
/// How many are read at a time, where all are looked at.
const PAGE: u64 = 1_000;
/// Records, with whom they carry and their strays, that are removed with one command.
const MOST_REMOVED: usize = 500;

/// The records.
#[derive(Clone)]
pub(crate) struct Store(pub KeyspaceHandle);

/// Why a record could not be written or read.
#[derive(Clone, Debug)]
pub(crate) enum StoreError {
    /// This node has no replica of the records.
    Away,
    /// Not now: whether it was written is not known.
    Request(RequestError),
    /// The keyspace refuses it.
    Refused(KeyspaceError),
    /// Somebody else has changed it meanwhile.
    Moved,
    /// It is there, or not, but cannot be read.
    Look(LookError),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreError::Away => f.write_str("the records cannot be reached from this node yet"),
            StoreError::Request(error) => {
                write!(f, "the keyspace of the transactions' records did not answer: {error}")
            }
            StoreError::Refused(error) => {
                write!(f, "the keyspace of the transactions' records refuses: {error}")
            }
            StoreError::Moved => f.write_str("the transaction's record has changed meanwhile"),
            StoreError::Look(error) => error.fmt(f),
        }
    }
}

impl From<LookError> for StoreError {
    fn from(error: LookError) -> StoreError {
        StoreError::Look(error)
    }
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> StoreError {
        StoreError::Look(error.into())
    }
}

impl Store {
    /// Writes a record, once. An error leaves open whether it was written.
    pub async fn write(&self, id: &str, request: &StoreRequest) -> Result<Stored, StoreError> {
        let stored = self.write_all(&[(id, request)]).await?;
        Ok(stored.into_iter().next().unwrap_or(Stored::Lost))
    }

    /// Writes records of different ids, carried ones among them, with one command, each on its own
    /// condition. An error leaves open whether they were written.
    pub async fn write_all(
        &self,
        batch: &[(&str, &StoreRequest)],
    ) -> Result<Vec<Stored>, StoreError> {
        let (revision, outcome) = self.propose(&records::write_all(batch), WRITE_TIMEOUT).await?;
        Ok(records::written(batch, revision, outcome))
    }

    async fn propose(
        &self,
        command: &Command,
        timeout: Duration,
    ) -> Result<(Revision, Outcome), StoreError> {
        let Ok(body) = codec::encode(command) else {
            return Err(StoreError::Request(RequestError::TooLarge));
        };
        let reply = self.0.propose(body, timeout).await.map_err(StoreError::Request)?;
        Ok((reply.revision, reply.result.map_err(StoreError::Refused)?))
    }

    /// The record of this id as of everything acknowledged before the call.
    pub async fn read(&self, id: &str, timeout: Duration) -> Result<Option<Kept>, StoreError> {
        self.0.read(timeout).await.map_err(StoreError::Request)?;
        self.look(id)
    }

    /// What is known of a client's transaction as of everything acknowledged before the call.
    pub async fn find(&self, id: &str, timeout: Duration) -> Result<Option<Known>, StoreError> {
        self.0.read(timeout).await.map_err(StoreError::Request)?;
        self.look_for(id)
    }

    /// What is known of a client's transaction as far as this node knows.
    pub fn look_for(&self, id: &str) -> Result<Option<Known>, StoreError> {
        Ok(records::look_for(self.0.reader(), id)?)
    }

    /// The record of this id as far as this node knows.
    pub fn look(&self, id: &str) -> Result<Option<Kept>, StoreError> {
        Ok(records::look(self.0.reader(), id)?)
    }

    /// Up to `limit` records that begin with `prefix`, after the id `after`, as far as this node
    /// knows. Records that cannot be read are passed over.
    pub fn list(
        &self,
        prefix: &str,
        after: &str,
        limit: u64,
    ) -> Result<Vec<(String, Kept)>, StoreError> {
        let page = self.list_raw(prefix, after, limit)?;
        Ok(page.into_iter().filter_map(|(id, value, at)| kept(id, value, at)).collect())
    }

    /// The records that begin with `prefix` and changed last, latest first, as far as this node
    /// knows. All are looked at, and no more kept in memory than are told.
    pub async fn latest(
        &self,
        prefix: &str,
        limit: usize,
        by: Deadline,
    ) -> Result<Vec<(String, Kept)>, StoreError> {
        let (mut newest, mut after) = (BTreeMap::new(), String::new());
        loop {
            let page = self.list_raw(prefix, &after, PAGE)?;
            let Some((last, ..)) = page.last() else { break };
            after.clone_from(last);
            for (id, value, revision) in page {
                newest.insert((revision, id), value);
                if newest.len() > limit {
                    newest.pop_first();
                }
            }
            if by.left().is_zero() {
                return Err(StoreError::Request(RequestError::DeadlineExceeded));
            }
            yield_now().await;
        }
        let newest = newest.into_iter().rev();
        Ok(newest.filter_map(|((at, id), value)| kept(id, value, at)).collect())
    }

    /// Up to `limit` records that begin with `prefix`, as their bytes, with their revisions.
    pub fn list_raw(
        &self,
        prefix: &str,
        after: &str,
        limit: u64,
    ) -> Result<Vec<(String, Bytes, Revision)>, StoreError> {
        Ok(records::list(self.0.reader(), prefix, after, limit)?)
    }

    /// Shows every record that is open, as far as this node knows, until `look` has seen enough.
    pub fn each_open(
        &self,
        mut look: impl FnMut(&str, &Record) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        each(
            |after| self.list_raw(OPEN, after, PAGE),
            |id, value| match Record::decode(value) {
                Ok(record) => look(&id, &record),
                Err(error) => {
                    tracing::error!(id, %error, "cannot read a transaction's record");
                    ControlFlow::Continue(())
                }
            },
        )
    }

    /// What there is besides of these records, which are over, as far as this node knows. One whose
    /// strays cannot be read is passed over.
    pub fn over(&self, finished: Vec<(String, Kept)>) -> Result<Vec<Over>, StoreError> {
        let mut all = Vec::with_capacity(finished.len());
        for (id, (record, revision)) in finished {
            match records::strays(self.0.reader(), &id) {
                Ok((strays, noted)) => all.push(Over { id, record, revision, strays, noted }),
                Err(LookError::Decode(error)) => {
                    tracing::error!(id, %error, "cannot read a transaction's strays");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(all)
    }

    /// Keeps a branch as a stray of a record, if that is still as of its revision. An error leaves
    /// open whether it is kept.
    pub async fn note_stray(
        &self,
        (id, kept): (&str, Kept),
        stray: Stray,
    ) -> Result<(), StoreError> {
        let (mut all, noted) = records::strays(self.0.reader(), id)?;
        if all.contains(&stray) {
            return Ok(());
        }
        if all.len() >= MAX_STRAYS {
            let name = stray.name;
            tracing::warn!(id, name, "too many strays of one transaction: its row stays");
            return Ok(());
        }
        all.push(stray);
        let command = records::note_strays(id, &kept, noted, &all);
        match self.propose(&command, WRITE_TIMEOUT).await?.1 {
            Outcome::Txn(done) if done.succeeded => Ok(()),
            _ => Err(StoreError::Moved),
        }
    }

    /// Removes finished records with their strays, each if they are still as of their revisions,
    /// and forgets whom they carried.
    pub async fn remove(&self, finished: &[Over]) -> Result<(), StoreError> {
        let mut rest = finished;
        while !rest.is_empty() {
            let mut room = MOST_REMOVED;
            let fits = |over: &&Over| {
                let wanted = 2 + over.record.carried.len() + usize::from(over.noted > 0);
                room.checked_sub(wanted).map(|left| room = left).is_some()
            };
            let (some, others) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            rest = others;
            self.propose(&records::remove(some), WRITE_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Keeps an alarm about the branch of this name, if there is none yet.
    pub async fn note_alarm(&self, name: &str, alarm: &Alarm) -> Result<(), StoreError> {
        let key = key(ALARM, name);
        let command = Command::Txn(Txn {
            compare: vec![as_of(key.clone(), 0)],
            success: vec![Operation::Put(Put { key, value: alarm.encode(), ..Put::default() })],
            failure: Vec::new(),
        });
        self.propose(&command, WRITE_TIMEOUT).await.map(drop)
    }

    /// Shows every alarm that is kept beside the records, as far as this node knows, with the name
    /// of its branch, until `look` has seen enough. What cannot be read is told and passed over.
    pub fn each_alarm(
        &self,
        mut look: impl FnMut(String, Alarm) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        each(
            |after| self.list_raw(ALARM, after, PAGE),
            |name, value| match Alarm::decode(value) {
                Ok(alarm) => look(name, alarm),
                Err(error) => {
                    tracing::error!(name, %error, "cannot read an alarm");
                    ControlFlow::Continue(())
                }
            },
        )
    }

    /// Removes alarms, by the names of their branches.
    pub async fn remove_alarms(&self, names: &[String]) -> Result<(), StoreError> {
        for some in names.chunks(64) {
            let delete = |name: &String| {
                let range = KeyRange::One(key(ALARM, name));
                Operation::Delete(Delete { range, prev_kv: false })
            };
            let success = some.iter().map(delete).collect();
            self.propose(&Command::Txn(Txn { success, ..Txn::default() }), WRITE_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Forgets the history of records before a revision.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.propose(&Command::Compact { revision }, WRITE_TIMEOUT).await.map(drop)
    }
}

/// A record from its bytes. One that cannot be read is passed over.
fn kept(id: String, value: Bytes, revision: Revision) -> Option<(String, Kept)> {
    match Record::decode(value) {
        Ok(record) => Some((id, (record, revision))),
        Err(error) => {
            tracing::error!(id, %error, "cannot read a transaction's record");
            None
        }
    }
}

/// Shows everything there is, page by page, until `look` has seen enough.
fn each(
    page: impl Fn(&str) -> Result<Vec<(String, Bytes, Revision)>, StoreError>,
    mut look: impl FnMut(String, Bytes) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut after = String::new();
    loop {
        let some = page(&after)?;
        let Some((last, ..)) = some.last() else { return Ok(()) };
        after.clone_from(last);
        for (name, value, _) in some {
            if look(name, value).is_break() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::Alone;

    #[test]
    fn the_latest_come_first_and_no_more_than_are_wanted() {
        let world = Alone::start();
        for id in ["m", "z", "a", "k"] {
            world.keep(id, None, world.record());
        }
        let by = Deadline::within(Duration::from_secs(60));
        let latest = |most| {
            let found = world.runtime.block_on(world.store.latest(OPEN, most, by));
            found.unwrap().into_iter().map(|(id, _)| id).collect::<Vec<_>>()
        };
        assert_eq!(latest(3), ["k", "a", "z"]);
        assert_eq!(latest(9), ["k", "a", "z", "m"]);
        let late = Deadline::within(Duration::ZERO);
        let found = world.runtime.block_on(world.store.latest(OPEN, 3, late));
        assert!(matches!(found, Err(StoreError::Request(RequestError::DeadlineExceeded))));
    }

    #[test]
    fn all_pages_are_looked_at_until_enough_was_seen() {
        let all: Vec<String> = (0..2_345).map(|n| format!("{n:05}")).collect();
        let page = |after: &str| {
            let rest = all.iter().filter(|name| name.as_str() > after).take(1_000);
            Ok(rest.map(|name| (name.clone(), Bytes::new(), 1)).collect())
        };
        let mut seen = Vec::new();
        let every = each(page, |name, _| {
            seen.push(name);
            ControlFlow::Continue(())
        });
        assert!(every.is_ok() && seen == all, "{} are seen", seen.len());
        let mut n = 0;
        let some = each(page, |_, _| {
            n += 1;
            if n < 1_500 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert!(some.is_ok() && n == 1_500);
        let away = each(|_| Err(StoreError::Away), |_, _| ControlFlow::Continue(()));
        assert!(matches!(away, Err(StoreError::Away)));
    }
}
