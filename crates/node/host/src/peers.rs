//! Keeps the transport's peers and the answer to inquiries in step with the member table.

use crate::directory::Directory;
use bytes::Bytes;
use parking_lot::Mutex;
use quorate_base::{ClusterId, NodeId};
use quorate_keyspace::command::Member;
use quorate_replicated_log::Protocol;
use quorate_transport::{Transport, peer_address};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the transport was last told.
pub(crate) struct Peers {
    pub transport: Arc<Transport>,
    pub cluster: ClusterId,
    pub protocol: Protocol,
    pub directory: Arc<Mutex<Bytes>>,
    removed: BTreeSet<NodeId>,
}

impl Peers {
    pub fn new(
        transport: Arc<Transport>,
        (cluster, protocol): (ClusterId, Protocol),
        directory: Arc<Mutex<Bytes>>,
    ) -> Self {
        Peers { transport, cluster, protocol, directory, removed: BTreeSet::new() }
    }

    /// Makes these nodes peers, without taking them for the members.
    pub fn introduce(&self, members: &[Member]) {
        for member in members {
            let addresses: Vec<String> =
                member.peer_urls.iter().filter_map(|url| peer_address(url).ok()).collect();
            if !addresses.is_empty() {
                self.transport.set_peer(member.id, addresses);
            }
        }
    }

    /// The member table is this now, and these have left for ever.
    pub fn update(&mut self, members: &[Member], removed: &[NodeId]) {
        for gone in removed {
            if self.removed.insert(*gone) {
                self.transport.remove_peer(*gone);
            }
        }
        self.introduce(members);
        let directory =
            Directory { cluster: self.cluster, protocol: self.protocol, members: members.to_vec() };
        *self.directory.lock() = directory.encode();
    }
}
