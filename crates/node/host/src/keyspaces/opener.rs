//! The thread that opens and closes replicas as the directory says.

use super::directory::{self, Directory};
use super::record::{Phase, Record};
use super::{FIRST_GROUP, SYSTEM, SYSTEM_NAME};
use crate::apply_thread::Seat;
use crate::config::NodeConfig;
use crate::error::{End, StartError};
use crate::handle::{HostedKeyspace, Shared};
use crate::hosted::{Hosted, Opening};
use crate::inbox::Item;
use crate::recover;
use crate::start::{self, LogEngine, apply_of};
use crate::states;
use crate::subscribers::Subscriber;
use quorate_base::GroupId;
use quorate_disk::Clock;
use quorate_keyspace::EventBatch;
use quorate_mvcc::{FjallShelf, Revision};
use quorate_replicated_log::{Base, Config};
use quorate_service::Service;
use quorate_wal::RecoveredGroup;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The directory is looked at when it changes, and this often in any case.
const INTERVAL: Duration = Duration::from_millis(500);

/// For this thread.
pub(crate) enum OpenerWork {
    /// The directory may have changed.
    Look,
    /// Nothing is left of the replica that was closed.
    Closed(GroupId),
    /// End.
    Stop,
}

/// Everything that thread holds.
pub(crate) struct Opener {
    shared: Arc<Shared>,
    shelf: FjallShelf,
    config: NodeConfig,
    engine: LogEngine,
    seed: u64,
    /// What the log holds of groups that were not opened yet in this run.
    found: BTreeMap<GroupId, RecoveredGroup>,
    /// Closed, and not yet gone.
    closing: BTreeSet<GroupId>,
    /// The directory as it was looked at last.
    seen: Option<Revision>,
    /// Keeps this thread told of the directory's changes.
    ear: Arc<dyn Subscriber<EventBatch>>,
}

/// Wakes the opener when the directory changes.
struct Ear(Arc<Shared>);

impl Subscriber<EventBatch> for Ear {
    fn publish(&self, _: &[EventBatch]) {
        self.jump();
    }

    fn jump(&self) {
        self.0.opener.push(OpenerWork::Look);
    }
}

impl Opener {
    pub fn new(
        shared: Arc<Shared>,
        shelf: FjallShelf,
        config: NodeConfig,
        engine: LogEngine,
        seed: u64,
        found: BTreeMap<GroupId, RecoveredGroup>,
    ) -> Opener {
        let ear = Arc::new(Ear(shared.clone()));
        let closing = BTreeSet::new();
        Opener { shared, shelf, config, engine, seed, found, closing, seen: None, ear }
    }

    /// Runs until it is stopped, or something fails: then the node ends.
    pub fn run(mut self) {
        let mut taken = Vec::new();
        if let Err(error) = self.tidy().and_then(|()| self.look()) {
            self.fail(&error);
        }
        loop {
            self.shared.opener.take(&mut taken, Some(INTERVAL));
            for work in taken.drain(..) {
                match work {
                    OpenerWork::Look => {}
                    OpenerWork::Closed(group) => {
                        self.closing.remove(&group);
                        self.seen = None;
                    }
                    OpenerWork::Stop => return,
                }
            }
            if self.shared.ending.is_over() {
                continue;
            }
            let swept = self.shelf.sweep().map_err(|error| StartError::State(error.to_string()));
            if let Err(error) = swept.and_then(|_| self.look()) {
                self.fail(&error);
            }
        }
    }

    fn fail(&self, error: &StartError) {
        tracing::error!(%error, "cannot open or close a keyspace: the node stops");
        self.shared.ending.finish(End::Failed(error.to_string()));
        self.shared.inbox.items.push(Item::Stop);
    }

    /// Removes the states that the log knows nothing of: of replicas that were being closed, or
    /// opened, when an earlier run ended.
    fn tidy(&self) -> Result<(), StartError> {
        let state = |error: quorate_mvcc::Error| StartError::State(error.to_string());
        for place in self.shelf.places().map_err(state)? {
            if !self.found.contains_key(&GroupId(place)) {
                self.shelf.remove(place).map_err(state)?;
            }
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), StartError> {
        let Some(system) = self.open_directory()? else { return Ok(()) };
        if self.seen == Some(system.reader.revision()) {
            return Ok(());
        }
        let directory = directory::read(&system.reader)
            .map_err(|error| StartError::State(error.to_string()))?;
        self.seen = Some(directory.revision);
        self.shared.table.set_listed(directory.listed.clone(), directory.leaving.clone());
        self.close_all_but(&directory)?;
        for (group, (record, _)) in &directory.listed {
            let mine = record.replicas.contains(&self.shared.node);
            let open = self.shared.table.hosted(*group).is_some();
            if mine && !open && !self.closing.contains(group) {
                // What was just read must outlast what is done on the strength of it.
                self.shelf.persist().map_err(|error| StartError::State(error.to_string()))?;
                self.open(*group, &record.name, founders(record))?;
            }
        }
        Ok(())
    }

    /// The directory's own replica, opened once it is known who founds it.
    fn open_directory(&mut self) -> Result<Option<Arc<Hosted>>, StartError> {
        if let Some(system) = self.shared.table.hosted(SYSTEM) {
            return Ok(Some(system));
        }
        let voters = self.shared.default.reader.directory_voters();
        if voters.is_none() && !self.found.contains_key(&SYSTEM) {
            return Ok(None);
        }
        // Who is not among the founders is made a member, and sent the state, by those who are.
        let protocol = self.shared.protocol;
        let nowhere = Base { protocol, ..Base::default() };
        let founders = voters.filter(|voters| voters.contains(&self.shared.node));
        let first =
            founders.map(|voters| recover::founded_by(&voters, protocol)).unwrap_or(nowhere);
        let system = self.open(SYSTEM, SYSTEM_NAME, first)?;
        system.subscribers.add(&self.ear);
        Ok(Some(system))
    }

    fn open(&mut self, group: GroupId, name: &str, first: Base) -> Result<Arc<Hosted>, StartError> {
        let found = self.found.remove(&group);
        let (known, founding) = (found.is_some(), first.position.index > 0);
        let (keyspace, recovered, first) =
            recover::open_other(&self.config, &self.shelf, group, found, first)?;
        let shared = &self.shared;
        let apply = apply_of(&shared.applies, group);
        let hosted = Arc::new(Hosted::new(group, name, keyspace.reader(), apply));
        let seed = self.seed ^ group.0.rotate_left(17);
        let applied = recovered.applied.clone();
        let config = start::timed(start::log_config(&self.config, seed), group);
        let (protocol, epoch) = (recovered.base.protocol, recovered.base.epoch);
        tracing::info!(%group, name, %protocol, known, founding, "a keyspace is opened");
        let config = Config { epoch, ..config };
        let log = (self.engine)(protocol, config, recovered, shared.clock.now());
        let post = start::post(&hosted, &applied, &*log);
        let seat = Seat::new(&hosted, keyspace, states::others_root(&self.config));
        let check = HostedKeyspace::check;
        let opening = Opening { group, log, check, first, seat, post };
        shared.inbox.items.push(Item::Open(Box::new(opening)));
        shared.table.insert(hosted.clone());
        Ok(hosted)
    }

    /// Closes what this node should have no replica of, as far as the directory knows.
    fn close_all_but(&mut self, directory: &Directory) -> Result<(), StartError> {
        let node = self.shared.node;
        let gone = |group: GroupId| match directory.listed.get(&group) {
            Some((record, _)) => !record.replicas.contains(&node),
            None => group.0 >= FIRST_GROUP && group.0 < directory.next,
        };
        let open = self.shared.table.all().into_iter().map(|hosted| hosted.group);
        let all: Vec<GroupId> =
            open.chain(self.found.keys().copied()).filter(|g| gone(*g)).collect();
        if all.is_empty() {
            return Ok(());
        }
        // See the invariant of `keyspaces`.
        self.shelf.persist().map_err(|error| StartError::State(error.to_string()))?;
        for group in all {
            tracing::info!(%group, "a keyspace's replica is closed");
            if self.shared.table.remove(group).is_some() {
                self.closing.insert(group);
            }
            self.found.remove(&group);
            self.shared.inbox.items.push(Item::Close(group));
        }
        Ok(())
    }
}

/// Where a replica of this keyspace begins if the log knows nothing of it: with the founders, or,
/// once others have begun it, nowhere yet.
fn founders(record: &Record) -> Base {
    match record.phase {
        Phase::Founding => recover::founded_by(&record.founders, record.protocol),
        Phase::Serving => Base { protocol: record.protocol, ..Base::default() },
    }
}
