//! Writes records, all that wait with one command of their keyspace: what a transaction's record
//! costs is shared by as many as are under way. While one is under way, the next ones gather. Ends,
//! which nobody waits for, wait a moment for a beginning to go with.
//!
//! Invariants: every write gets exactly one answer, or an error, after which it is made again. The
//! writes of one command are of different ids, carried ones among them: all of its conditions are
//! looked at before any of its changes is made.

use crate::service::Inner;
use crate::store::StoreError;
use parking_lot::Mutex;
use quorate_transactions::{Stage, StoreRequest, Stored};
use std::collections::BTreeSet;
use std::sync::Weak;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// How long an end may wait for company.
const END_PAUSE: Duration = Duration::from_millis(10);
/// Records that take longer to answer may not answer at all.
const SOON: Duration = Duration::from_millis(100);
/// Records in one command,
const MOST: usize = 64;
/// and their bytes: far less than a command may have, and more than any record has.
const MOST_BYTES: usize = 512 << 10;

struct Waiting {
    id: String,
    request: StoreRequest,
    bytes: usize,
    reply: oneshot::Sender<Result<Stored, StoreError>>,
}

impl Waiting {
    /// What its conditions are about.
    fn ids(&self) -> impl Iterator<Item = &str> {
        let carried = self.request.record.carried.iter().map(|carried| carried.id.as_str());
        std::iter::once(self.id.as_str()).chain(carried)
    }
}

/// The writes that wait. There are never more than transactions that this node drives.
#[derive(Default)]
pub(crate) struct Writer {
    waiting: Mutex<Vec<Waiting>>,
    wake: Notify,
    /// The same, for ends.
    wake_later: Notify,
    health: Mutex<Health>,
}

/// How the records answer.
#[derive(Clone, Copy, Default)]
struct Health {
    /// Whether the last write was answered.
    answered: bool,
    /// Since when the one that is under way waits.
    waits: Option<Instant>,
}

impl Writer {
    /// Writes a record, once. An error leaves open whether it was written.
    pub async fn write(&self, id: &str, request: &StoreRequest) -> Result<Stored, StoreError> {
        let (reply, answer) = oneshot::channel();
        let bytes = request.record.encode().len();
        let waiting = Waiting { id: id.to_owned(), request: request.clone(), bytes, reply };
        self.waiting.lock().push(waiting);
        match request.at.is_some() && matches!(request.record.stage, Stage::Finished(_)) {
            true => self.wake_later.notify_one(),
            false => self.wake.notify_one(),
        }
        answer.await.unwrap_or(Err(StoreError::Away))
    }

    /// Whether the records answer, as far as was seen.
    pub fn answers(&self) -> bool {
        let Health { answered, waits } = *self.health.lock();
        answered && waits.is_none_or(|since| since.elapsed() < SOON)
    }

    fn begins(&self) {
        self.health.lock().waits = Some(Instant::now());
    }

    fn ended(&self, answered: bool) {
        *self.health.lock() = Health { answered, waits: None };
    }

    /// Waits until something is to be written.
    async fn due(&self) {
        tokio::select! {
            () = self.wake.notified() => {}
            () = self.wake_later.notified() => {
                let _ = timeout(END_PAUSE, self.wake.notified()).await;
            }
        }
    }

    fn take(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock();
        let (mut n, mut bytes, mut ids) = (0, 0, BTreeSet::new());
        for it in waiting.iter().take(MOST) {
            bytes += it.bytes;
            let others = it.ids().all(|id| ids.insert(id));
            // One alone always fits.
            if n > 0 && (bytes > MOST_BYTES || !others) {
                break;
            }
            n += 1;
        }
        drop(ids);
        let taken = waiting.drain(..n).collect();
        if !waiting.is_empty() {
            self.wake.notify_one();
        }
        taken
    }
}

/// Starts to write, for as long as the node lives.
pub(crate) fn start(inner: &Weak<Inner>) {
    tokio::spawn(write(inner.clone()));
}

async fn write(inner: Weak<Inner>) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        tokio::select! {
            () = inner.writer.due() => {}
            _ = inner.node.ended() => return,
        }
        let taken = inner.writer.take();
        if taken.is_empty() {
            continue;
        }
        let Some(store) = inner.store() else {
            // Dropping the replies says so.
            continue;
        };
        let batch: Vec<(&str, &StoreRequest)> =
            taken.iter().map(|it| (it.id.as_str(), &it.request)).collect();
        inner.writer.begins();
        let written = store.write_all(&batch).await;
        inner.writer.ended(written.is_ok());
        match written {
            Ok(all) => {
                for (it, stored) in taken.into_iter().zip(all) {
                    // Whoever asked may be gone.
                    let _ = it.reply.send(Ok(stored));
                }
            }
            Err(error) => {
                for it in taken {
                    let _ = it.reply.send(Err(error.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_transactions::{Carried, Owner, Record};

    fn wait(writer: &Writer, id: &str, carried: &[&str]) {
        let carried = carried.iter().map(|id| Carried { id: (*id).to_owned(), content: 1 });
        let record = Record {
            content: 1,
            protocol: quorate_atomic_commit::Protocol::PaxosCommit,
            owner: Owner::default(),
            asker: Owner::default(),
            epoch: 1,
            asked: 1,
            began_ms: 0,
            patience_ms: 0,
            changed_ms: 0,
            stage: Stage::Open,
            branches: Vec::new(),
            carried: carried.collect(),
        };
        let (id, request) =
            (id.to_owned(), StoreRequest { number: 1, at: None, record, free_as_of: 0 });
        let (reply, _) = oneshot::channel();
        writer.waiting.lock().push(Waiting { id, request, bytes: 1, reply });
    }

    #[test]
    fn records_answer_when_they_have_and_do_not_keep_waiting() {
        let writer = Writer::default();
        let waits = |since| writer.health.lock().waits = Some(since);
        assert!(!writer.answers(), "nobody has asked");
        writer.begins();
        assert!(!writer.answers());
        writer.ended(true);
        assert!(writer.answers());
        writer.begins();
        assert!(writer.answers(), "it has just begun");
        waits(Instant::now().checked_sub(2 * SOON).unwrap());
        assert!(!writer.answers());
        writer.ended(false);
        assert!(!writer.answers());
    }

    #[test]
    fn one_command_has_nothing_twice_to_say_of_an_id() {
        let writer = Writer::default();
        wait(&writer, "a", &[]);
        wait(&writer, "~1", &["b", "c"]);
        wait(&writer, "c", &[]);
        wait(&writer, "d", &[]);
        wait(&writer, "~2", &["e", "d"]);
        let taken = || writer.take().into_iter().map(|it| it.id).collect::<Vec<_>>();
        assert_eq!(taken(), ["a", "~1"]);
        assert_eq!(taken(), ["c", "d"]);
        assert_eq!(taken(), ["~2"]);
        assert!(taken().is_empty());
    }
}
