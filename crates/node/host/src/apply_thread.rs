//! The thread that runs the service, and the one beside it that makes its state durable.
//!
//! Invariant: subscribers hear of a change before whoever asked for it gets the answer.

use crate::driver_thread::ApplyWork;
use crate::inbox::{Inbox, Item};
use crate::mailbox::Mailbox;
use crate::subscribers::Subscribers;
use quorate_base::GroupId;
use quorate_disk::{Clock, OsClock};
use quorate_driver::{Done, Event, ReceiveState, ServiceHost, Work};
use quorate_replicated_log::Payload;
use quorate_service::{Persist, Service};
use std::sync::Arc;

/// Something to be done with the service between two applies.
pub(crate) type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Finished work is handed over at the latest when there is this much of it.
const FINISHED_MAX: usize = 64;

/// For the persist thread.
pub(crate) enum PersistWork {
    /// Run this.
    Persist(Persist),
    /// End.
    Stop,
}

/// Everything the apply thread holds.
pub(crate) struct ApplyThread<S: Service> {
    pub clock: OsClock,
    pub group: GroupId,
    pub host: ServiceHost<S>,
    pub work: Arc<Mailbox<ApplyWork<Job<S>>>>,
    pub inbox: Arc<Inbox<S::Reply, S::Publication>>,
    pub persister: Arc<Mailbox<PersistWork>>,
    pub subscribers: Arc<Subscribers<S::Publication>>,
    /// Set once the service cannot go on: what it would do next must not be asked of it.
    pub failed: bool,
    /// Called once the members or their addresses may have changed.
    pub members_changed: Box<dyn FnMut(&S) + Send>,
}

type Finished<S> = Vec<Done<<S as Service>::Reply, <S as Service>::Publication>>;

impl<S: Service> ApplyThread<S> {
    /// Runs until it is stopped; then makes all that was applied durable.
    pub fn run(mut self) {
        let mut work = Vec::new();
        let mut finished = Finished::<S>::new();
        let mut stop = false;
        while !stop {
            self.work.take(&mut work, None);
            for work in work.drain(..) {
                match work {
                    ApplyWork::Work(_) | ApplyWork::Job(_) if self.failed => {}
                    ApplyWork::Work(work) => self.work(work, &mut finished),
                    ApplyWork::Job(job) => job(self.host.service_mut()),
                    ApplyWork::Stop => stop = true,
                }
                if finished.len() >= FINISHED_MAX {
                    self.hand_over(&mut finished);
                }
            }
            self.hand_over(&mut finished);
        }
        drop(self.work.close());
        if !self.failed {
            self.persister.push(PersistWork::Persist(self.host.service_mut().persist()));
        }
        self.persister.push(PersistWork::Stop);
    }

    fn work(&mut self, work: Work, finished: &mut Finished<S>) {
        let members = match &work {
            Work::Apply(entries) => {
                entries.iter().any(|entry| matches!(entry.payload, Payload::Members { .. }))
            }
            _ => false,
        };
        let from = finished.len();
        if let Some(job) = self.host.run(self.clock.now(), work, finished) {
            self.persister.push(PersistWork::Persist(job));
        }
        let mut jumped = false;
        for done in &mut finished[from..] {
            match done {
                Done::Applied { applied, .. } => {
                    let publications = std::mem::take(&mut applied.publications);
                    if !publications.is_empty() {
                        self.subscribers.publish(&publications);
                    }
                }
                Done::Received { state: ReceiveState::Installed, .. } => jumped = true,
                Done::Failed { .. } => self.failed = true,
                _ => {}
            }
        }
        if jumped {
            self.subscribers.jump();
        }
        if jumped || members {
            (self.members_changed)(self.host.service());
        }
    }

    fn hand_over(&mut self, finished: &mut Finished<S>) {
        // Of the service's next timeouts only the last counts.
        let last = finished.iter().rposition(|done| matches!(done, Done::Timeout { .. }));
        let mut at = 0;
        let group = self.group;
        let kept = finished.drain(..).filter(|done| {
            at += 1;
            !matches!(done, Done::Timeout { .. }) || Some(at - 1) == last
        });
        let items = kept.map(|done| Item::Event(Event::ServiceDone { group, done }));
        self.inbox.items.push_all(items);
    }
}

/// Runs persist jobs, one after the other, beside the applies.
pub(crate) fn persist<R, P>(group: GroupId, work: &Mailbox<PersistWork>, inbox: &Inbox<R, P>) {
    let mut taken = Vec::new();
    loop {
        work.take(&mut taken, None);
        for work in taken.drain(..) {
            let done = match work {
                PersistWork::Persist(job) => match job() {
                    Ok(index) => Done::Persisted { index },
                    Err(error) => Done::Failed { reason: error.to_string() },
                },
                PersistWork::Stop => return,
            };
            inbox.items.push(Item::Event(Event::ServiceDone { group, done }));
        }
    }
}
