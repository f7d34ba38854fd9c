//! The groups that have a replica on this node, and what is known of the others.

use crate::apply_thread::{ApplyWork, Seat};
use crate::board::Board;
use crate::driver_thread::Post;
use crate::handle::HostedKeyspace;
use crate::keyspaces::{Record, SYSTEM};
use crate::mailbox::Mailbox;
use crate::subscribers::Subscribers;
use parking_lot::RwLock;
use quorate_base::{GroupId, NodeId};
use quorate_driver::CommandCheck;
use quorate_keyspace::{EventBatch, Reader};
use quorate_mvcc::{FjallEngine, Revision};
use quorate_replicated_log::{ReplicatedLog, Write};
use quorate_service::Service;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// One group's replica on this node, as its users see it.
pub(crate) struct Hosted {
    pub group: GroupId,
    pub name: String,
    pub board: Arc<Board>,
    pub subscribers: Arc<Subscribers<EventBatch>>,
    pub reader: Reader<FjallEngine>,
    /// The mailbox of the thread that applies its entries.
    pub apply: Arc<Mailbox<ApplyWork<HostedKeyspace>>>,
}

impl Hosted {
    pub fn new(
        group: GroupId,
        name: &str,
        reader: Reader<FjallEngine>,
        apply: Arc<Mailbox<ApplyWork<HostedKeyspace>>>,
    ) -> Hosted {
        Hosted {
            group,
            name: name.to_owned(),
            board: Arc::new(Board::new()),
            subscribers: Arc::new(Subscribers::new()),
            reader,
            apply,
        }
    }
}

/// A replica that is about to begin, on its way to the driver thread.
pub(crate) struct Opening<S: Service> {
    pub group: GroupId,
    pub log: Box<dyn ReplicatedLog>,
    pub check: CommandCheck,
    /// What the log has yet to be told of where it begins.
    pub first: Option<Write>,
    pub seat: Seat<S>,
    pub post: Post<S>,
}

/// Why a keyspace cannot be used on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyspaceRefusal {
    /// The caller's: there is none of that name.
    Unknown,
    /// It is on these nodes, not on this one.
    Elsewhere(Vec<NodeId>),
    /// This node is about to open it, or does not know yet whether there is one.
    NotYet,
}

impl fmt::Display for KeyspaceRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyspaceRefusal::Unknown => f.write_str("there is no such keyspace"),
            KeyspaceRefusal::Elsewhere(nodes) => {
                f.write_str("the keyspace has no replica on this node, but on")?;
                nodes.iter().try_for_each(|node| write!(f, " {node}"))
            }
            KeyspaceRefusal::NotYet => f.write_str("this node is about to open the keyspace"),
        }
    }
}

impl std::error::Error for KeyspaceRefusal {}

/// A keyspace as the directory knows it, and the revision of its record there.
pub(crate) type Listed = (Record, Revision);

#[derive(Default)]
struct Inner {
    hosted: BTreeMap<GroupId, Arc<Hosted>>,
    names: BTreeMap<String, GroupId>,
    /// The directory as this node has applied it; nothing until it was read.
    listed: Option<BTreeMap<GroupId, Listed>>,
    /// Who is about to leave the cluster, by the same.
    leaving: BTreeSet<NodeId>,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Table(RwLock<Inner>);

impl Table {
    pub fn insert(&self, hosted: Arc<Hosted>) {
        let mut inner = self.0.write();
        inner.names.insert(hosted.name.clone(), hosted.group);
        inner.hosted.insert(hosted.group, hosted);
    }

    pub fn remove(&self, group: GroupId) -> Option<Arc<Hosted>> {
        self.0.write().hosted.remove(&group)
    }

    /// The directory says this now.
    pub fn set_listed(&self, listed: BTreeMap<GroupId, Listed>, leaving: BTreeSet<NodeId>) {
        let mut inner = self.0.write();
        inner.leaving = leaving;
        inner.names.retain(|_, group| *group <= SYSTEM);
        inner.names.extend(listed.iter().map(|(group, (r, _))| (r.name.clone(), *group)));
        inner.listed = Some(listed);
    }

    pub fn hosted(&self, group: GroupId) -> Option<Arc<Hosted>> {
        self.0.read().hosted.get(&group).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Hosted>> {
        self.0.read().hosted.values().cloned().collect()
    }

    /// What the directory says of a group.
    pub fn listed(&self, group: GroupId) -> Option<Listed> {
        self.0.read().listed.as_ref()?.get(&group).cloned()
    }

    /// The members that are to have no replicas, as far as this node has heard.
    pub fn leaving(&self) -> BTreeSet<NodeId> {
        self.0.read().leaving.clone()
    }

    /// Whether the directory was read.
    pub fn is_read(&self) -> bool {
        self.0.read().listed.is_some()
    }

    /// The name of a group's keyspace.
    pub fn name_of(&self, group: GroupId) -> Option<String> {
        let inner = self.0.read();
        let named = inner.names.iter().find(|(_, known)| **known == group);
        named.map(|(name, _)| name.clone())
    }

    /// What the directory says of the groups that have no replica here.
    pub fn listed_elsewhere(&self) -> Vec<(GroupId, Record)> {
        let inner = self.0.read();
        let listed = inner.listed.iter().flatten();
        let elsewhere = listed.filter(|(group, _)| !inner.hosted.contains_key(group));
        elsewhere.map(|(group, (record, _))| (*group, record.clone())).collect()
    }

    /// How many replicas each node has, of the listed groups.
    pub fn load(&self) -> BTreeMap<NodeId, usize> {
        let mut load = BTreeMap::new();
        for (record, _) in self.0.read().listed.iter().flat_map(BTreeMap::values) {
            for node in &record.replicas {
                *load.entry(*node).or_default() += 1;
            }
        }
        load
    }

    pub fn named(&self, name: &str) -> Result<Arc<Hosted>, KeyspaceRefusal> {
        let inner = self.0.read();
        let Some(group) = inner.names.get(name) else {
            let known = inner.listed.is_some();
            return Err(if known { KeyspaceRefusal::Unknown } else { KeyspaceRefusal::NotYet });
        };
        if let Some(hosted) = inner.hosted.get(group) {
            return Ok(hosted.clone());
        }
        let record = inner.listed.as_ref().and_then(|listed| listed.get(group));
        Err(record.map_or(KeyspaceRefusal::NotYet, |(record, _)| {
            KeyspaceRefusal::Elsewhere(record.replicas.clone())
        }))
    }
}
