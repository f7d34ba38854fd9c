//! The thread that makes writes durable.
//!
//! Invariant: everything that came while the last sync ran is joined into one write and one sync;
//! there is no timer. Batches are reported in order. A failure is reported once and ends the
//! thread: nothing may be believed durable any more until the log is opened anew.

use crate::driver_thread::LogWork;
use crate::inbox::{Inbox, Item};
use crate::mailbox::Mailbox;
use quorate_disk::Disk;
use quorate_driver::Event;
use quorate_wal::{Batch, BatchId, Wal, WalError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// How often a full disk is tried again, and an asynchronous one is asked.
const PAUSE: Duration = Duration::from_millis(50);

/// Everything the log thread holds.
pub(crate) struct LogThread<D, R, P> {
    pub wal: Wal<D>,
    pub work: Arc<Mailbox<LogWork>>,
    pub inbox: Arc<Inbox<R, P>>,
    /// Set while the disk is too full for what waits.
    pub disk_full: Arc<AtomicBool>,
}

/// What waits to be submitted, joined: the log reports it as its last batch.
#[derive(Default)]
struct Joined {
    ids: Vec<BatchId>,
    batch: Option<Batch>,
}

impl Joined {
    fn add(&mut self, mut next: Batch) {
        self.ids.push(next.id);
        match &mut self.batch {
            Some(batch) => {
                batch.id = next.id;
                batch.writes.append(&mut next.writes);
            }
            None => self.batch = Some(next),
        }
    }
}

impl<D: Disk, R, P> LogThread<D, R, P> {
    /// Runs until it is stopped or the log fails.
    pub fn run(mut self) {
        let mut taken = Vec::new();
        let mut waiting = Joined::default();
        let mut submitted: Vec<BatchId> = Vec::new();
        let mut stop = false;
        while !stop {
            let pause = waiting.batch.is_some() || !submitted.is_empty();
            self.work.take(&mut taken, pause.then_some(PAUSE));
            for work in taken.drain(..) {
                match work {
                    LogWork::Batch(batch) => waiting.add(batch),
                    LogWork::Stop => stop = true,
                }
            }
            if let Some(batch) = waiting.batch.take() {
                match self.wal.submit(batch) {
                    Ok(()) => {
                        submitted.append(&mut waiting.ids);
                        self.full(false);
                    }
                    Err(WalError::Full { batch }) => {
                        waiting.batch = Some(batch);
                        self.full(true);
                    }
                    Err(error) => {
                        submitted.append(&mut waiting.ids);
                        return self.fail(&submitted, &error);
                    }
                }
            }
            while let Some((last, result)) = self.wal.poll() {
                if let Err(error) = result {
                    return self.fail(&submitted, &error);
                }
                let done = submitted.partition_point(|id| *id <= last);
                let events = submitted.drain(..done);
                self.inbox.items.push_all(
                    events.map(|batch| Item::Event(Event::LogDone { batch, result: Ok(()) })),
                );
            }
        }
    }

    fn full(&self, full: bool) {
        if self.disk_full.swap(full, Relaxed) != full {
            match full {
                true => tracing::error!("the disk is full: the log waits for room"),
                false => tracing::info!("there is room on the disk again: the log goes on"),
            }
        }
    }

    fn fail(&self, submitted: &[BatchId], error: &WalError) {
        let Some(batch) = submitted.first().copied() else { return };
        let result = Err(error.to_string());
        self.inbox.items.push(Item::Event(Event::LogDone { batch, result }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_base::GroupId;
    use quorate_disk::MemoryDisk;
    use quorate_replicated_log::{Entries, HardState, Write, WriteId};
    use quorate_wal::WalOptions;

    fn batch(id: u64) -> Batch {
        let write = Write {
            id: WriteId(id),
            reset: None,
            compact: None,
            truncate_from: None,
            entries: Entries::default(),
            hard_state: Some(HardState { commit: id, ..HardState::default() }),
        };
        Batch { id: BatchId(id), writes: vec![(GroupId(1), write)] }
    }

    #[test]
    fn what_waits_is_joined_into_one_sync_and_reported_in_order() {
        let (wal, _) = Wal::open(MemoryDisk::new(), WalOptions::small()).unwrap();
        let work = Arc::new(Mailbox::new());
        let inbox = Arc::new(Inbox::<u32, u32>::new());
        work.push_all((1..=50).map(|id| LogWork::Batch(batch(id))));
        work.push(LogWork::Stop);
        let thread = LogThread { wal, work, inbox: inbox.clone(), disk_full: Arc::default() };
        thread.run();
        let mut items = Vec::new();
        inbox.items.take(&mut items, Some(Duration::ZERO));
        let ids: Vec<u64> = items
            .into_iter()
            .map(|item| match item {
                Item::Event(Event::LogDone { batch, result: Ok(()) }) => batch.0,
                _ => 0,
            })
            .collect();
        assert_eq!(ids, (1..=50).collect::<Vec<_>>());
    }
}
