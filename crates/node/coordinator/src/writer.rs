//! Writes records, all that wait with one command of their keyspace: what a transaction's record
//! costs is shared by as many as are under way. While one is under way, the next ones gather. Ends,
//! which nobody waits for, wait a moment for a beginning to go with.
//!
//! Invariant: every write gets exactly one answer, or an error, after which it is made again.

use crate::service::Inner;
use crate::store::StoreError;
use parking_lot::Mutex;
use quorate_transactions::{Stage, StoreRequest, Stored};
use std::sync::Weak;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// How long an end may wait for company.
const END_PAUSE: Duration = Duration::from_millis(5);
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

/// The writes that wait. There are never more than transactions that this node drives.
#[derive(Default)]
pub(crate) struct Writer {
    waiting: Mutex<Vec<Waiting>>,
    wake: Notify,
    /// The same, for ends.
    wake_later: Notify,
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
        let mut bytes = 0;
        let fits = |it: &&Waiting| {
            bytes += it.bytes;
            bytes <= MOST_BYTES
        };
        let n = waiting.iter().take(MOST).take_while(fits).count();
        let n = n.max(waiting.len().min(1));
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
        let written = store.write_all(&batch).await;
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
