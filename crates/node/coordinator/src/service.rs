//! Transactions at this node: their participants, their records, and what clients ask about them.

use crate::bundles::Bundles;
use crate::counts::Counters;
use crate::error::RunError;
use crate::live::AllLive;
use crate::open::Open;
use crate::oracle::Records;
use crate::outbox::{self, Outboxes};
use crate::report::Report;
use crate::request::{Branch, BranchWork, Request};
use crate::store::{Store, StoreError};
use crate::takeover::Taken;
use crate::writer::{self, Writer};
use crate::{orphans, takeover, tidy};
use parking_lot::Mutex;
use quorate_base::{GroupId, Instant, NodeId};
use quorate_host::{AdminError, Description, NodeHandle, TRANSACTIONS};
use quorate_resource_managers as rm;
use quorate_resource_managers::{
    Deadline, Participants, Recovery, RecoverySettings, ResourceManager,
};
use quorate_transactions::records::{FINISHED, Kept, OPEN};
use quorate_transactions::{Carried, Kind, Moment, Owner, Stage, SuspicionSettings, is_bundle_id};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long the records' keyspace may take to be there.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the records may take to confirm what is shown: less than clients wait for one member.
const CONFIRM_TIMEOUT: Duration = Duration::from_millis(1_500);
/// For how long a participant that was found fit is taken for fit.
const FIT: Duration = Duration::from_secs(10);

/// What can be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// When a coordinator is taken for lost.
    pub suspicion: SuspicionSettings,
    /// How long the outcome of a transaction is remembered after its end.
    pub retention: Duration,
    /// How prepared branches outside are looked for.
    pub recovery: RecoverySettings,
    /// How many open records are loaded at a time when the node starts.
    pub page: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            suspicion: SuspicionSettings::default(),
            retention: Duration::from_secs(3_600),
            recovery: RecoverySettings::default(),
            page: 1_000,
        }
    }
}

/// Transactions at this node. Cloning is cheap; what it started ends with the last clone.
#[derive(Clone)]
pub struct Transactions(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub node: NodeHandle,
    pub me: Owner,
    pub live: AllLive,
    pub bundles: Bundles,
    pub writer: Writer,
    pub outboxes: Outboxes,
    pub recovery: Recovery,
    /// What is taken over.
    pub taken: Taken,
    /// The records of those that are not over, as far as they were heard of.
    pub open: Mutex<Open>,
    pub counters: Counters,
    pub managers: Participants,
    /// When each was last found fit.
    fit: Mutex<BTreeMap<String, std::time::Instant>>,
    start: tokio::time::Instant,
}

impl Inner {
    /// Now.
    #[allow(clippy::disallowed_methods)] // What nothing is decided by.
    pub fn moment(&self) -> Moment {
        let nanos = self.start.elapsed().as_nanos();
        let now = Instant(u64::try_from(nanos).unwrap_or(u64::MAX));
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Moment { now, wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
    }

    /// A moment of the coordinator's as one of the runtime's.
    pub fn instant(&self, at: Instant) -> tokio::time::Instant {
        self.start + Duration::from_nanos(at.0)
    }

    /// The records, if this node has a replica of them.
    pub fn store(&self) -> Option<Store> {
        self.node.keyspace(TRANSACTIONS).ok().map(Store)
    }

    /// The participant outside of this kind and name.
    pub fn manager(&self, kind: Kind, name: &str) -> Result<Arc<dyn ResourceManager>, RunError> {
        match self.managers.get(name) {
            Some((known, manager)) if kind_of(*known) == kind => Ok(manager.clone()),
            _ => Err(unknown_participant(kind, name)),
        }
    }

    /// The same, borrowed.
    pub fn manager_ref(&self, kind: Kind, name: &str) -> Result<&dyn ResourceManager, RunError> {
        match self.managers.get(name) {
            Some((known, manager)) if kind_of(*known) == kind => Ok(&**manager),
            _ => Err(unknown_participant(kind, name)),
        }
    }

    /// Finds a branch's participant, and whether it is fit.
    pub(crate) async fn find(
        &self,
        transaction: &str,
        branch: &Branch,
        deadline: Deadline,
    ) -> Result<(Kind, GroupId), RunError> {
        let (name, participant) = (&branch.name, &branch.participant);
        match &branch.work {
            BranchWork::Keyspace { .. } => match self.node.keyspace(participant) {
                Ok(keyspace) if keyspace.is_own() => Err(RunError::Invalid(format!(
                    "branch {name:?}: the keyspace {participant:?} is the cluster's own"
                ))),
                Ok(keyspace) => Ok((Kind::Keyspace, keyspace.id())),
                // This member may not have heard of it yet.
                Err(quorate_host::KeyspaceRefusal::Unknown) => {
                    let listed = self.node.list_keyspaces(READ_TIMEOUT.min(deadline.left())).await;
                    Err(missing(branch, listed))
                }
                Err(refusal) => Err(RunError::Unavailable(format!(
                    "branch {name:?}: {participant:?}: {refusal}"
                ))),
            },
            BranchWork::Manager(kind, work) => {
                let kind = kind_of(*kind);
                if let rm::Work::Prepared(handed_in) = work {
                    self.check_own(transaction, branch, handed_in)?;
                }
                let manager = self.manager_ref(kind, participant)?;
                self.check(manager, deadline).await?;
                Ok((kind, GroupId(0)))
            }
        }
    }

    /// Whether the branch's participant takes several clients' transactions as one.
    pub(crate) fn shares(&self, branch: &Branch) -> bool {
        match &branch.work {
            BranchWork::Keyspace { .. } => true,
            BranchWork::Manager(kind, _) => self
                .manager_ref(kind_of(*kind), &branch.participant)
                .is_ok_and(ResourceManager::shares),
        }
    }

    /// The participant was not reached: whoever comes next asks whether it is there.
    pub(crate) fn doubt_fitness(&self, participant: &str) {
        self.fit.lock().remove(participant);
    }

    pub(crate) async fn check(
        &self,
        manager: &dyn ResourceManager,
        by: Deadline,
    ) -> Result<(), RunError> {
        let name = manager.name().to_owned();
        let known = self.fit.lock().get(&name).copied();
        if known.is_some_and(|at| at.elapsed() < FIT) {
            return Ok(());
        }
        let mut checked = manager.check(by).await;
        if let Err(rm::Error::NotSetUp { .. }) = checked {
            // Where the user may make the fence table, nobody else has to. That it fails may mean
            // that somebody else has made it at the same time: what is there counts.
            let _ = manager.set_up(by).await;
            checked = manager.check(by).await;
        }
        match checked {
            Ok(()) => {
                self.fit.lock().insert(name, std::time::Instant::now());
                Ok(())
            }
            Err(error @ (rm::Error::Unreachable { .. } | rm::Error::TooLate { .. })) => {
                Err(RunError::Unavailable(error.to_string()))
            }
            Err(error @ rm::Error::Busy { .. }) => Err(RunError::Unavailable(error.to_string())),
            Err(error) => Err(RunError::Unfit(error.to_string())),
        }
    }
}

/// Why a branch cannot be run whose keyspace this member does not know, by what the directory says:
/// there is none, or another member may run it.
fn missing(branch: &Branch, listed: Result<Vec<Description>, AdminError>) -> RunError {
    let (name, participant) = (&branch.name, &branch.participant);
    match listed {
        Ok(all) if all.iter().all(|known| known.name != *participant) => {
            let why = format!("there is no keyspace {participant:?}");
            let make = "make it with `quorate keyspace create`";
            RunError::Unknown(format!("branch {name:?}: {why}: {make}"))
        }
        Ok(_) => RunError::Unavailable(format!(
            "branch {name:?}: this node has not heard of the keyspace {participant:?} yet"
        )),
        Err(error) => RunError::Unavailable(format!(
            "branch {name:?}: this node does not know the keyspace {participant:?}, and whether \
             there is one cannot be said: {error}"
        )),
    }
}

fn unknown_participant(kind: Kind, name: &str) -> RunError {
    let kind = kind.name();
    RunError::Unknown(format!(
        "this node is configured with no participant {kind} = {name:?}: add it to the file of \
         --participants of every node"
    ))
}

pub(crate) fn kind_of(kind: rm::Kind) -> Kind {
    match kind {
        rm::Kind::Postgres => Kind::Postgres,
        rm::Kind::MariaDb => Kind::MariaDb,
        rm::Kind::Http => Kind::Http,
    }
}

pub(crate) fn store_error(error: StoreError) -> RunError {
    match error {
        StoreError::Request(_) | StoreError::Away => RunError::Unavailable(error.to_string()),
        other => RunError::Internal(other.to_string()),
    }
}

impl Transactions {
    /// Transactions of this node, over these participants outside. What it does in the background
    /// runs on the present runtime.
    pub fn start(node: NodeHandle, managers: Participants, settings: Settings) -> Transactions {
        let me = Owner { node: node.node(), run: node.run() };
        let inner = Arc::new_cyclic(|inner| {
            let all = managers.values().map(|(_, manager)| manager.clone()).collect();
            let oracle = Arc::new(Records(inner.clone()));
            Inner {
                node,
                me,
                live: AllLive::default(),
                bundles: Bundles::default(),
                writer: Writer::default(),
                outboxes: Outboxes::default(),
                recovery: Recovery::new(all, oracle, settings.recovery),
                taken: Taken::new(),
                open: Mutex::new(Open::new(settings.page)),
                counters: Counters::default(),
                managers,
                fit: Mutex::default(),
                start: tokio::time::Instant::now(),
            }
        });
        writer::start(&Arc::downgrade(&inner));
        tokio::spawn(outbox::watch(Arc::downgrade(&inner)));
        tokio::spawn(takeover::watch(Arc::downgrade(&inner), settings.suspicion));
        tokio::spawn(orphans::watch(Arc::downgrade(&inner)));
        tokio::spawn(tidy::watch(Arc::downgrade(&inner), settings.retention));
        if !inner.managers.is_empty() {
            let inner = inner.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = inner.recovery.run() => {}
                    _ = inner.node.ended() => {}
                }
            });
        }
        Transactions(inner)
    }

    /// Whether this may be carried with others, as far as this node knows of its participants.
    pub fn may_ride(&self, request: &Request) -> bool {
        request.may_ride() && request.branches.iter().all(|branch| self.0.shares(branch))
    }

    /// The participants outside that this node is configured with.
    pub fn participants(&self) -> &Participants {
        &self.0.managers
    }

    pub(crate) async fn store(&self, by: Deadline) -> Result<Store, RunError> {
        let made = self.0.node.transactions(STORE_TIMEOUT.min(by.left())).await;
        made.map(Store).map_err(|error| match error {
            AdminError::Unavailable | AdminError::NotServing(_) => RunError::Unavailable(
                "the records of transactions cannot be reached from this node at the moment"
                    .to_owned(),
            ),
            other => RunError::Unavailable(format!("the records of transactions: {other}")),
        })
    }

    /// The transactions that are not over, and up to `limit` of the latest that are. Here and
    /// elsewhere: whoever asks is answered by the deadline, if only that there is no answer yet.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn list(&self, limit: u64, by: Deadline) -> Result<Vec<Report>, RunError> {
        let store = self.store(by).await?;
        let read = store.0.read(READ_TIMEOUT.min(by.left())).await;
        read.map_err(|e| store_error(StoreError::Request(e)))?;
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut all = Vec::new();
        for prefix in [OPEN, FINISHED] {
            let records = store.latest(prefix, most, by).await.map_err(store_error)?;
            all.extend(records.into_iter().flat_map(|(id, kept)| reports(&id, kept)).take(most));
        }
        Ok(all)
    }

    /// One transaction; nothing, if there is none of this id, or none any more. Where the records
    /// do not answer, as this node's replica knows it.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn show(&self, id: &str, by: Deadline) -> Result<Option<Report>, RunError> {
        let store = self.store(by).await?;
        let (known, unconfirmed) = match store.find(id, CONFIRM_TIMEOUT.min(by.left())).await {
            Ok(known) => (known, String::new()),
            // A record that is there has its worth, for it only ever goes on. One that is not there
            // may be there elsewhere.
            Err(error @ StoreError::Request(_)) => match store.look_for(id) {
                // It is over, for ever.
                Ok(Some(known)) if matches!(known.record.stage, Stage::Finished(_)) => {
                    (Some(known), String::new())
                }
                Ok(Some(known)) => (Some(known), unconfirmed(&store.0.membership().voters)),
                _ => return Err(store_error(error)),
            },
            Err(error) => return Err(store_error(error)),
        };
        Ok(known.map(|known| Report { unconfirmed, ..Report::known(id, known) }))
    }
}

/// Why a record could not be read as of everything acknowledged before, if these decide on it.
fn unconfirmed(voters: &[NodeId]) -> String {
    match voters {
        [one] => format!(
            "the records wait for member {one}, which alone decides on them and did not answer in \
             time"
        ),
        all => format!(
            "the records wait for most of the {} members that decide on them: too few answered in \
             time",
            all.len()
        ),
    }
}

/// What a record tells: of a bundle, how those stand that it carries. An aborted one carries nobody
/// any more: it is told of itself while it has to be ended somewhere.
fn reports(id: &str, (record, _): Kept) -> Vec<Report> {
    let aborts = record.stage.verdict().is_some_and(|verdict| !verdict.commits());
    if is_bundle_id(id) && aborts {
        return match record.stage {
            Stage::Finished(_) => Vec::new(),
            _ => vec![Report::of(id, record)],
        };
    }
    if record.carried.is_empty() {
        return vec![Report::of(id, record)];
    }
    let bundle = || Some(id.to_owned());
    let one = |it: &Carried| Report { bundle: bundle(), ..Report::of(&it.id, record.clone()) };
    record.carried.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::Alone;
    use quorate_host::DEFAULT;

    /// The directory decides, and not what this member has heard of it.
    #[test]
    fn a_keyspace_that_this_member_has_not_heard_of_may_be_there() {
        let world = Alone::start();
        let transactions = world.transactions(Settings::default());
        let branch = |participant: &str| Branch {
            participant: participant.to_owned(),
            ..world.request("t").branches.remove(0)
        };
        let listed = || world.runtime.block_on(world.handle.list_keyspaces(READ_TIMEOUT));
        let heard_late = missing(&branch(DEFAULT), listed());
        assert!(matches!(heard_late, RunError::Unavailable(_)), "{heard_late}");
        let unknown = missing(&branch("nowhere"), Err(AdminError::Unavailable));
        assert!(matches!(unknown, RunError::Unavailable(_)), "{unknown}");
        let none = missing(&branch("nowhere"), listed());
        assert!(matches!(none, RunError::Unknown(_)), "{none}");

        let by = Deadline::within(Duration::from_secs(60));
        let nowhere = branch("nowhere");
        let found = world.runtime.block_on(transactions.0.find("t", &nowhere, by));
        assert_eq!(found, Err(none));
    }
}
