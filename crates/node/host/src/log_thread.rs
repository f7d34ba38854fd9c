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
use quorate_service::Service;
use quorate_wal::{Batch, BatchId, Wal, WalError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// How often a full disk is tried again, and an asynchronous one is asked.
const PAUSE: Duration = Duration::from_millis(50);

/// Everything the log thread holds.
pub(crate) struct LogThread<D, S: Service> {
    pub wal: Wal<D>,
    pub work: Arc<Mailbox<LogWork>>,
    pub inbox: Arc<Inbox<S>>,
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

impl<D: Disk, S: Service> LogThread<D, S> {
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
            let by = self.wal.held_back();
            if !by.is_empty() {
                self.inbox.items.push(Item::Event(Event::LogHeld { by }));
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
    use crate::handle::HostedKeyspace;
    use bytes::Bytes;
    use quorate_base::{Ballot, GroupId, NodeId};
    use quorate_disk::{Completion, DiskError, MemoryDisk, Operation, OperationId};
    use quorate_replicated_log::{Entries, Entry, HardState, Payload, Write, WriteId};
    use quorate_wal::WalOptions;
    use std::collections::VecDeque;
    use std::io;

    fn batch(id: u64) -> Batch {
        let write = Write {
            id: WriteId(id),
            reset: None,
            compact: None,
            truncate_from: None,
            entries: Entries::default(),
            slots: Vec::new(),
            hard_state: Some(HardState { commit: id, ..HardState::default() }),
        };
        Batch { id: BatchId(id), writes: vec![(GroupId(1), write)] }
    }

    #[test]
    fn what_waits_is_joined_into_one_sync_and_reported_in_order() {
        let (wal, _) = Wal::open(MemoryDisk::new(), WalOptions::small()).unwrap();
        let work = Arc::new(Mailbox::new());
        let inbox = Arc::new(Inbox::<HostedKeyspace>::new());
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
    /// A disk whose syncs fail, or that is full, once it is told to.
    struct Faulty {
        disk: MemoryDisk,
        failing: Arc<AtomicBool>,
        full: Arc<AtomicBool>,
        next: u64,
        completed: VecDeque<Completion>,
    }

    impl Disk for Faulty {
        fn list(&self) -> Result<Vec<String>, DiskError> {
            self.disk.list()
        }
        fn len(&self, file: &str) -> Result<u64, DiskError> {
            self.disk.len(file)
        }
        fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
            self.disk.read(file, offset, len)
        }
        fn submit(&mut self, operation: Operation) -> OperationId {
            let kind = match &operation {
                Operation::Sync { .. } if self.failing.load(Relaxed) => io::ErrorKind::Other,
                Operation::Create { .. } if self.full.load(Relaxed) => io::ErrorKind::StorageFull,
                _ => {
                    let id = self.disk.submit(operation);
                    let completion = self.disk.poll().unwrap();
                    assert_eq!(completion.id, id);
                    self.next += 1;
                    let id = OperationId(self.next);
                    self.completed.push_back(Completion { id, ..completion });
                    return id;
                }
            };
            self.next += 1;
            let id = OperationId(self.next);
            let error = DiskError { doing: "syncing".into(), source: kind.into() };
            self.completed.push_back(Completion { id, result: Err(error) });
            id
        }
        fn poll(&mut self) -> Option<Completion> {
            self.completed.pop_front()
        }
    }

    struct Rig {
        work: Arc<Mailbox<LogWork>>,
        inbox: Arc<Inbox<HostedKeyspace>>,
        failing: Arc<AtomicBool>,
        full: Arc<AtomicBool>,
        disk_full: Arc<AtomicBool>,
        thread: std::thread::JoinHandle<()>,
    }

    fn rig() -> Rig {
        let (failing, full): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
        let disk = Faulty {
            disk: MemoryDisk::new(),
            failing: failing.clone(),
            full: full.clone(),
            next: 0,
            completed: VecDeque::new(),
        };
        let (wal, _) = Wal::open(disk, WalOptions { spares: 0, ..WalOptions::small() }).unwrap();
        let (work, inbox) = (Arc::new(Mailbox::new()), Arc::new(Inbox::new()));
        let disk_full = Arc::new(AtomicBool::new(false));
        let thread = LogThread {
            wal,
            work: work.clone(),
            inbox: inbox.clone(),
            disk_full: disk_full.clone(),
        };
        let thread = std::thread::spawn(move || thread.run());
        Rig { work, inbox, failing, full, disk_full, thread }
    }

    impl Rig {
        /// The next batches done.
        fn done(&self) -> Vec<(u64, Result<(), String>)> {
            let mut items = Vec::new();
            self.inbox.items.take(&mut items, Some(Duration::from_secs(5)));
            // On a full disk it also tells who keeps it from having room again.
            let told =
                |item: &Item<HostedKeyspace>| matches!(item, Item::Event(Event::LogHeld { .. }));
            if !items.is_empty() && items.iter().all(told) {
                return self.done();
            }
            items.retain(|item| !told(item));
            let done = items.into_iter().map(|item| match item {
                Item::Event(Event::LogDone { batch, result }) => (batch.0, result),
                _ => panic!("the log thread reports nothing else"),
            });
            done.collect()
        }
    }

    #[test]
    fn a_failed_sync_is_reported_and_ends_the_thread() {
        let rig = rig();
        rig.work.push(LogWork::Batch(batch(1)));
        assert_eq!(rig.done(), [(1, Ok(()))]);
        rig.failing.store(true, Relaxed);
        rig.work.push(LogWork::Batch(batch(2)));
        let done = rig.done();
        assert!(matches!(&done[..], [(2, Err(why))] if why.contains("syncing")), "{done:?}");
        rig.thread.join().unwrap();
    }

    fn entries(id: u64) -> Batch {
        let payload = Payload::Command(Bytes::from(vec![0; 60_000]));
        let entry = Entry { index: id, ballot: Ballot::new(1, NodeId(1)), payload };
        let mut batch = batch(id);
        batch.writes[0].1.entries = Entries::new(vec![entry]);
        batch
    }

    #[test]
    fn a_full_disk_makes_the_log_wait_and_go_on() {
        let rig = rig();
        rig.full.store(true, Relaxed);
        let mut last = 0;
        while !rig.disk_full.load(Relaxed) {
            last += 1;
            rig.work.push(LogWork::Batch(entries(last)));
            std::thread::sleep(Duration::from_millis(2));
            assert!(last < 1_000, "the log is full some day");
        }
        rig.full.store(false, Relaxed);
        let mut done = Vec::new();
        while done.len() < last as usize {
            done.extend(rig.done());
        }
        assert_eq!(done, (1..=last).map(|id| (id, Ok(()))).collect::<Vec<_>>());
        assert!(!rig.disk_full.load(Relaxed));
        rig.work.push(LogWork::Stop);
        rig.thread.join().unwrap();
    }
}
