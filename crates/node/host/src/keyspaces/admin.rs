//! What operators ask: make, list, describe and drop keyspaces.

use super::directory::{self, Directory};
use super::record::{ONE_VOTE, Phase, Record};
use super::{MAX_KEYSPACES, SYSTEM, SYSTEM_NAME, TRANSACTIONS, name};
use crate::handle::{DEFAULT, KEYSPACE, KeyspaceHandle, NodeHandle};
use crate::hosted::{KeyspaceRefusal, Listed};
use quorate_base::{GroupId, NodeId};
use quorate_driver::RequestError;
use quorate_placement::choose;
use quorate_replicated_log::{MAX_VOTERS, Protocol};
use std::fmt;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How often whoever waits for a keyspace to serve looks.
const LOOK: Duration = Duration::from_millis(10);

/// A keyspace to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewKeyspace {
    /// Its name.
    pub name: String,
    /// How many replicas it gets: an odd number, at most as many as the cluster has voters.
    pub replicas: usize,
    /// How its log is replicated.
    pub protocol: Protocol,
}

/// A keyspace, described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: GroupId,
    /// How its log is replicated now, where the node that was asked has a replica; otherwise how
    /// it was when the keyspace was made.
    pub protocol: Protocol,
    /// How many replicas it should have.
    pub wanted: usize,
    /// Where they are.
    pub replicas: Vec<NodeId>,
    /// Whether it serves; it does not yet, shortly after it was made.
    pub serving: bool,
    /// Its leader, as far as the node that was asked knows: it has a replica.
    pub leader: NodeId,
    /// The latest revision and the number of keys of that node's replica, if it has one.
    pub state: Option<(u64, u64)>,
}

/// Why a keyspace was not made, described or dropped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminError {
    /// The caller's: a name or a number that cannot be.
    Invalid(String),
    /// There is one of that name already.
    Exists,
    /// There is none of that name.
    Unknown,
    /// The guard does not hold: it is another keyspace than was meant, or nobody was sure.
    Guard(String),
    /// The cluster cannot have it as it is now.
    Impossible(String),
    /// The directory is not there yet, or has no leader.
    Unavailable,
    /// It was made, and has no leader so far.
    NotServing(GroupId),
    /// The request to the directory failed.
    Failed(RequestError),
    /// The node failed.
    Internal(String),
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminError::Invalid(why) | AdminError::Guard(why) | AdminError::Impossible(why) => {
                f.write_str(why)
            }
            AdminError::Exists => f.write_str("there is a keyspace of that name already"),
            AdminError::Unknown => f.write_str("there is no keyspace of that name"),
            AdminError::Unavailable => {
                f.write_str("the directory of keyspaces cannot be reached at the moment")
            }
            AdminError::NotServing(group) => write!(
                f,
                "the keyspace was made (id {}) but has no leader yet: it will have one as \
                 soon as most of its replicas' nodes run",
                group.0
            ),
            AdminError::Failed(error) => write!(f, "the directory did not answer: {error}"),
            AdminError::Internal(why) => write!(f, "the node failed: {why}"),
        }
    }
}

impl std::error::Error for AdminError {}

impl From<RequestError> for AdminError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Unavailable => AdminError::Unavailable,
            other => AdminError::Failed(other),
        }
    }
}

impl NodeHandle {
    /// Makes a keyspace and waits for it to serve.
    ///
    /// # Errors
    /// [`AdminError`]
    pub async fn create_keyspace(
        &self,
        new: &NewKeyspace,
        timeout: Duration,
    ) -> Result<Description, AdminError> {
        name::check(&new.name).map_err(AdminError::Invalid)?;
        if name::is_reserved(&new.name) {
            return Err(AdminError::Exists);
        }
        if new.replicas.is_multiple_of(2) || new.replicas > MAX_VOTERS {
            let most = MAX_VOTERS - 1;
            let why = format!(
                "{} replicas: it must be an odd number up to {most}, for one more than an odd \
                 number survives no more failures",
                new.replicas
            );
            return Err(AdminError::Invalid(why));
        }
        self.make_keyspace(new, timeout).await
    }

    /// The keyspace of the records of transactions, which is made if there is none.
    ///
    /// # Errors
    /// [`AdminError`]: `Unavailable` where this node has no replica of it, or not yet.
    pub async fn transactions(&self, timeout: Duration) -> Result<KeyspaceHandle, AdminError> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.keyspace(TRANSACTIONS) {
                Ok(found) => return Ok(found),
                // Every voter gets one: this one may have been asked before its own is there.
                Err(KeyspaceRefusal::Elsewhere(_)) if !self.membership().is_voter(self.node()) => {
                    return Err(AdminError::Unavailable);
                }
                Err(KeyspaceRefusal::Elsewhere(_) | KeyspaceRefusal::NotYet) => sleep(LOOK).await,
                Err(KeyspaceRefusal::Unknown) => {
                    let voters = match self.shared().one_vote {
                        true => 1,
                        false => self.membership().voters.len().clamp(1, MAX_VOTERS),
                    };
                    // An odd number; its leader adds the others.
                    let replicas = voters - usize::from(voters.is_multiple_of(2));
                    let name = TRANSACTIONS.to_owned();
                    let new = NewKeyspace { name, replicas, protocol: self.shared().protocol };
                    match self.make_keyspace(&new, left(deadline)).await {
                        Ok(_) | Err(AdminError::Exists) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            if Instant::now() >= deadline {
                return Err(AdminError::Unavailable);
            }
        }
    }

    /// The directory, which a node that has just started opens soon.
    pub(super) async fn directory_by(
        &self,
        deadline: Instant,
    ) -> Result<KeyspaceHandle, AdminError> {
        loop {
            if let Some(directory) = self.directory() {
                return Ok(directory);
            }
            if Instant::now() >= deadline {
                return Err(AdminError::Unavailable);
            }
            sleep(LOOK).await;
        }
    }

    async fn make_keyspace(
        &self,
        new: &NewKeyspace,
        timeout: Duration,
    ) -> Result<Description, AdminError> {
        let deadline = Instant::now() + timeout;
        let system = self.directory_by(deadline).await?;
        loop {
            let directory = current(&system, left(deadline)).await?;
            if directory.listed.values().any(|(record, _)| record.name == new.name) {
                return Err(AdminError::Exists);
            }
            if directory.listed.len() >= MAX_KEYSPACES {
                let why = format!("the directory is full: it holds {MAX_KEYSPACES} keyspaces");
                return Err(AdminError::Impossible(why));
            }
            let record = self.place(new, &directory)?;
            let txn = directory::create(&directory, &record);
            if directory::change(&system, txn, left(deadline)).await? {
                let group = GroupId(directory.next);
                self.serving(&system, group, deadline).await?;
                return self.describe_keyspace(&new.name, left(deadline)).await;
            }
        }
    }

    /// Chooses where a keyspace will be.
    fn place(&self, new: &NewKeyspace, directory: &Directory) -> Result<Record, AdminError> {
        let mut load = std::collections::BTreeMap::new();
        for (record, _) in directory.listed.values() {
            for node in &record.replicas {
                *load.entry(*node).or_default() += 1;
            }
        }
        let mut voters = self.membership().voters;
        voters.retain(|voter| !directory.leaving.contains(voter));
        let chosen = choose(&voters, &load, new.replicas).ok_or_else(|| {
            let (wanted, voters) = (new.replicas, voters.len());
            let why = format!("{wanted} replicas need {wanted} voters: the cluster has {voters}");
            AdminError::Impossible(why)
        })?;
        let wanted = match new.name == TRANSACTIONS && self.shared().one_vote {
            true => {
                let at = chosen.first().copied().unwrap_or_default();
                tracing::warn!(%at, "the records of transactions are not replicated: see \
                    docs/transactions.md");
                ONE_VOTE
            }
            false => new.replicas as u64,
        };
        Ok(Record {
            name: new.name.clone(),
            protocol: new.protocol,
            phase: Phase::Founding,
            wanted,
            founders: chosen.clone(),
            replicas: chosen,
        })
    }

    /// Waits until a keyspace has had a leader, and, if it has a replica here, that it is open.
    async fn serving(
        &self,
        system: &KeyspaceHandle,
        group: GroupId,
        deadline: Instant,
    ) -> Result<(), AdminError> {
        loop {
            if let Some((record, _)) = system.node.table.listed(group)
                && record.phase == Phase::Serving
                && (!record.replicas.contains(&self.node())
                    || self.group(group).is_some_and(|it| !it.consensus().leader.is_none()))
            {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(AdminError::NotServing(group));
            }
            sleep(LOOK).await;
        }
    }

    /// Every keyspace, in order of name.
    ///
    /// # Errors
    /// [`AdminError`]
    pub async fn list_keyspaces(&self, timeout: Duration) -> Result<Vec<Description>, AdminError> {
        let deadline = Instant::now() + timeout;
        let system = self.directory_by(deadline).await?;
        let directory = current(&system, left(deadline)).await?;
        let mut all = vec![self.own(KEYSPACE, DEFAULT), self.own(SYSTEM, SYSTEM_NAME)];
        all.extend(directory.listed.iter().map(|(group, listed)| self.describe(*group, listed)));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The keyspace of this name.
    ///
    /// # Errors
    /// [`AdminError`]
    pub async fn describe_keyspace(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Result<Description, AdminError> {
        let all = self.list_keyspaces(timeout).await?;
        all.into_iter().find(|known| known.name == name).ok_or(AdminError::Unknown)
    }

    /// Drops a keyspace with all that is in it, for ever, if it is the group that was meant.
    ///
    /// # Errors
    /// [`AdminError`]
    pub async fn drop_keyspace(
        &self,
        name: &str,
        group: GroupId,
        timeout: Duration,
    ) -> Result<(), AdminError> {
        if name::is_reserved(name) {
            let why = format!("the keyspace {name} is the cluster's own and cannot be dropped");
            return Err(AdminError::Impossible(why));
        }
        let deadline = Instant::now() + timeout;
        let system = self.directory_by(deadline).await?;
        loop {
            let directory = current(&system, left(deadline)).await?;
            let of_name = |(_, (record, _)): &(&GroupId, &Listed)| record.name == name;
            let found = directory.listed.iter().find(of_name);
            let (known, listed) = found.ok_or(AdminError::Unknown)?;
            if *known != group {
                let (known, meant) = (known.0, group.0);
                let why = format!(
                    "the keyspace {name} has id {known}, not {meant}: describe it, and be sure \
                     that it is the one to be dropped"
                );
                return Err(AdminError::Guard(why));
            }
            let txn = directory::remove(group, listed);
            if directory::change(&system, txn, left(deadline)).await? {
                return Ok(());
            }
        }
    }

    fn describe(&self, group: GroupId, (record, _): &Listed) -> Description {
        let hosted = self.group(group);
        Description {
            name: record.name.clone(),
            group,
            protocol: hosted.as_ref().map_or(record.protocol, |it| it.consensus().protocol),
            wanted: match record.has_one_vote() {
                true => 1,
                false => usize::try_from(record.wanted).unwrap_or(usize::MAX),
            },
            replicas: record.replicas.clone(),
            serving: record.phase == Phase::Serving,
            leader: hosted.as_ref().map_or(NodeId::NONE, |it| it.consensus().leader),
            state: hosted.map(|it| (it.reader().revision(), it.reader().sizes().keys)),
        }
    }

    /// One of the cluster's own keyspaces, which all members have replicas of.
    fn own(&self, group: GroupId, name: &str) -> Description {
        let hosted = self.group(group);
        let members = hosted.as_ref().map(|it| it.membership()).unwrap_or_default();
        let consensus = hosted.as_ref().map(|it| it.consensus());
        let leader = consensus.map_or(NodeId::NONE, |it| it.leader);
        let replicas: Vec<NodeId> =
            members.voters.iter().chain(&members.learners).copied().collect();
        Description {
            name: name.to_owned(),
            group,
            protocol: consensus.map_or(self.shared().protocol, |it| it.protocol),
            wanted: replicas.len(),
            replicas,
            serving: !leader.is_none(),
            leader,
            state: hosted.map(|it| (it.reader().revision(), it.reader().sizes().keys)),
        }
    }
}

pub(super) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// The directory with all that was acknowledged anywhere.
pub(super) async fn current(
    system: &KeyspaceHandle,
    timeout: Duration,
) -> Result<Directory, AdminError> {
    system.read(timeout).await?;
    directory::read(system.reader()).map_err(|error| AdminError::Internal(error.to_string()))
}
