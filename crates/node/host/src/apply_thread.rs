//! The threads that run the services, and the one beside them that makes their state durable.
//!
//! A group's service belongs to one of these threads for as long as the replica is open, so that
//! its work is done in order. Invariant: subscribers hear of a change before whoever asked for it
//! gets the answer.

use crate::hosted::Hosted;
use crate::inbox::{Inbox, Item};
use crate::mailbox::Mailbox;
use crate::states;
use crate::subscribers::Subscribers;
use quorate_base::GroupId;
use quorate_disk::{Clock, OsClock};
use quorate_driver::{Done, Event, ReceiveState, ServiceHost, Work};
use quorate_keyspace::EventBatch;
use quorate_replicated_log::Payload;
use quorate_service::{Persist, Service};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What looks at the service once its members may have changed.
type Heed<S> = Box<dyn FnMut(&S) + Send>;

/// Something to be done with the service between two applies.
pub(crate) type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Finished work is handed over at the latest when there is this much of it.
const FINISHED_MAX: usize = 64;

/// For an apply thread.
pub(crate) enum ApplyWork<S: Service> {
    /// For a group's service.
    Work(GroupId, Work),
    /// Something to be done with a group's service at hand.
    Job(GroupId, Job<S>),
    /// A group's service is run here from now on.
    Open(Box<Seat<S>>),
    /// It is not any more, and its state is to be removed.
    Close(GroupId),
    /// End.
    Stop,
}

/// For the persist thread.
pub(crate) enum PersistWork {
    /// Run this.
    Persist(GroupId, Persist),
    /// Remove what is left of this group.
    Remove(GroupId),
    /// End, once every apply thread has said so.
    Stop,
}

/// One group's service.
pub(crate) struct Seat<S: Service> {
    pub group: GroupId,
    pub host: ServiceHost<S>,
    pub subscribers: Arc<Subscribers<S::Publication>>,
    /// Where its durable state is.
    pub root: PathBuf,
    /// Set once the service cannot go on: what it would do next must not be asked of it.
    pub failed: bool,
    /// Called once the members or their addresses may have changed.
    pub members_changed: Option<Heed<S>>,
}

/// Everything an apply thread holds.
pub(crate) struct ApplyThread<S: Service> {
    pub clock: OsClock,
    pub seats: BTreeMap<GroupId, Seat<S>>,
    pub work: Arc<Mailbox<ApplyWork<S>>>,
    pub inbox: Arc<Inbox<S>>,
    pub persister: Arc<Mailbox<PersistWork>>,
}

type Finished<S> = Vec<Done<<S as Service>::Reply, <S as Service>::Publication>>;

/// Should the thread panic, nobody waits for what it was to do.
struct Watch<S: Service>(Arc<Mailbox<ApplyWork<S>>>, Arc<Mailbox<PersistWork>>);

impl<S: Service> Drop for Watch<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.close());
            self.1.push(PersistWork::Stop);
        }
    }
}

impl<S: Service> ApplyThread<S> {
    /// Runs until it is stopped; then makes all that was applied durable.
    pub fn run(mut self) {
        let _watch = Watch(self.work.clone(), self.persister.clone());
        let mut work = Vec::new();
        // Of one group at a time.
        let (mut finished, mut of) = (Finished::<S>::new(), GroupId(0));
        let mut stop = false;
        while !stop {
            self.work.take(&mut work, None);
            for work in work.drain(..) {
                match work {
                    ApplyWork::Work(group, work) => {
                        if group != of || finished.len() >= FINISHED_MAX {
                            self.hand_over(of, &mut finished);
                            of = group;
                        }
                        if let Some(seat) = self.seats.get_mut(&group).filter(|s| !s.failed) {
                            seat.work(self.clock, work, &self.persister, &mut finished);
                        }
                    }
                    ApplyWork::Job(group, job) => {
                        if let Some(seat) = self.seats.get_mut(&group).filter(|s| !s.failed) {
                            job(seat.host.service_mut());
                        }
                    }
                    ApplyWork::Open(seat) => {
                        self.seats.insert(seat.group, *seat);
                    }
                    ApplyWork::Close(group) => {
                        self.hand_over(of, &mut finished);
                        self.seats.remove(&group);
                        self.persister.push(PersistWork::Remove(group));
                    }
                    ApplyWork::Stop => stop = true,
                }
            }
            self.hand_over(of, &mut finished);
        }
        drop(self.work.close());
        for seat in self.seats.values_mut().filter(|seat| !seat.failed) {
            let job = seat.host.service_mut().persist();
            self.persister.push(PersistWork::Persist(seat.group, job));
        }
        self.persister.push(PersistWork::Stop);
    }

    fn hand_over(&self, group: GroupId, finished: &mut Finished<S>) {
        if finished.is_empty() {
            return;
        }
        // Of the service's next timeouts only the last counts.
        let last = finished.iter().rposition(|done| matches!(done, Done::Timeout { .. }));
        let mut at = 0;
        let kept = finished.drain(..).filter(|done| {
            at += 1;
            !matches!(done, Done::Timeout { .. }) || Some(at - 1) == last
        });
        let items = kept.map(|done| Item::Event(Event::ServiceDone { group, done }));
        self.inbox.items.push_all(items);
    }
}

impl<S: Service> Seat<S> {
    /// A group's service that nothing of the node follows.
    pub fn new(hosted: &Hosted, service: S, root: PathBuf) -> Self
    where
        S: Service<Publication = EventBatch>,
    {
        Seat {
            group: hosted.group,
            host: ServiceHost::new(service),
            subscribers: hosted.subscribers.clone(),
            root,
            failed: false,
            members_changed: None,
        }
    }

    fn work(
        &mut self,
        clock: OsClock,
        work: Work,
        persister: &Mailbox<PersistWork>,
        finished: &mut Finished<S>,
    ) {
        let members = match &work {
            Work::Apply(entries) => {
                entries.iter().any(|entry| matches!(entry.payload, Payload::Members { .. }))
            }
            _ => false,
        };
        let from = finished.len();
        if let Some(job) = self.host.run(clock.now(), work, finished) {
            persister.push(PersistWork::Persist(self.group, job));
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
        if self.failed && self.host.is_damaged() {
            states::condemn(&self.root);
        }
        if jumped {
            self.subscribers.jump();
        }
        if let Some(changed) = self.members_changed.as_mut().filter(|_| jumped || members) {
            changed(self.host.service());
        }
    }
}

/// Runs persist jobs, one after the other, beside the applies of `threads` threads. `remove` is
/// what removes a group's state.
pub(crate) fn persist<S: Service>(
    threads: usize,
    work: &Mailbox<PersistWork>,
    inbox: &Inbox<S>,
    remove: impl Fn(GroupId) -> Result<(), String>,
) {
    let (mut taken, mut stopped) = (Vec::new(), 0);
    while stopped < threads {
        work.take(&mut taken, None);
        for work in taken.drain(..) {
            let (group, outcome) = match work {
                PersistWork::Persist(group, job) => {
                    (group, job().map(Some).map_err(|error| error.to_string()))
                }
                PersistWork::Remove(group) => (group, remove(group).map(|()| None)),
                PersistWork::Stop => {
                    stopped += 1;
                    continue;
                }
            };
            let event = match outcome {
                Ok(Some(index)) => Event::ServiceDone { group, done: Done::Persisted { index } },
                Ok(None) => continue,
                Err(reason) => {
                    // Whatever group it was: the node cannot go on. The default keyspace is there.
                    let group = crate::handle::KEYSPACE;
                    Event::ServiceDone { group, done: Done::Failed { reason } }
                }
            };
            inbox.items.push(Item::Event(event));
        }
    }
}
