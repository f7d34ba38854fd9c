//! Who this node is: as its data directory says; else, founding a cluster, as its peer URLs and
//! the token say; else, joining one, as the cluster says.

use super::settings::Settings;
use crate::exit::Failure;
use quorate_base::{ClusterId, NodeId};
use quorate_disk::OsDisk;
use quorate_host::{Directory, cluster_id, member_id};
use quorate_keyspace::command::Member;
use quorate_replicated_log::Protocol;
use quorate_wal::Identity;
use std::time::Duration;

/// A node's place in its cluster.
#[derive(Debug)]
pub struct Place {
    pub cluster: ClusterId,
    pub me: NodeId,
    /// How the cluster's log is replicated.
    pub protocol: Protocol,
    /// Founders, or whom a joiner can reach.
    pub members: Vec<Member>,
}

/// How often a joiner asks again whether it was added, and for how long.
const JOIN_INTERVAL: Duration = Duration::from_millis(500);
const JOIN_ATTEMPTS: u32 = 20;

/// Finds the node's place.
pub async fn find(settings: &Settings) -> Result<Place, Failure> {
    let told = |error| Failure::Machine(format!("data directory: {error}"));
    let made_for = quorate_host::stored_protocol(&settings.data_dir).map_err(told)?;
    if let (Some(made_for), Some(wanted)) = (made_for, settings.protocol)
        && made_for != wanted
    {
        return Err(Failure::Usage(format!(
            "--protocol {wanted}: the data directory {} was made for {made_for}; leave the flag \
             away, or give another --data-dir",
            settings.data_dir.display()
        )));
    }
    let protocol = made_for.or(settings.protocol);
    if !settings.join {
        return Ok(founder(settings, protocol.unwrap_or_default()));
    }
    if let Some(identity) = stored(settings)? {
        // It has joined before, and knows its peers from its own state.
        let (cluster, me) = (identity.cluster, identity.node);
        let protocol = protocol.unwrap_or_default();
        return Ok(Place { cluster, me, protocol, members: Vec::new() });
    }
    joiner(settings).await
}

fn founder(settings: &Settings, protocol: Protocol) -> Place {
    let members: Vec<Member> = settings
        .initial_cluster
        .iter()
        .map(|(name, peer_urls)| Member {
            id: member_id(peer_urls, &settings.token),
            name: name.clone(),
            peer_urls: peer_urls.clone(),
            client_urls: Vec::new(),
            learner: false,
        })
        .collect();
    let ids: Vec<NodeId> = members.iter().map(|member| member.id).collect();
    let me = members.iter().find(|m| m.name == settings.name).map_or(NodeId::NONE, |m| m.id);
    // Founders that disagree on the protocol found different clusters, and refuse each other.
    let token = match protocol {
        Protocol::Raft => settings.token.clone(),
        other => format!("{} {other}", settings.token),
    };
    Place { cluster: cluster_id(&ids, &token), me, protocol, members }
}

fn stored(settings: &Settings) -> Result<Option<Identity>, Failure> {
    if !settings.data_dir.exists() {
        return Ok(None);
    }
    let told = |e: &dyn std::fmt::Display| Failure::Machine(format!("data directory: {e}"));
    let disk = OsDisk::open(&settings.data_dir).map_err(|e| told(&e))?;
    Identity::read(&disk).map_err(|e| told(&e))
}

async fn joiner(settings: &Settings) -> Result<Place, Failure> {
    let others = settings.initial_cluster.iter().filter(|(name, _)| *name != settings.name);
    let urls: Vec<String> = others.flat_map(|(_, urls)| urls.clone()).collect();
    let mut last = String::new();
    for _ in 0..JOIN_ATTEMPTS {
        match Directory::discover(&urls).await {
            Ok(directory) => match directory.find(&settings.peer_urls) {
                Some(me) => {
                    let (cluster, me, protocol) = (directory.cluster, me.id, directory.protocol);
                    if let Some(wanted) = settings.protocol.filter(|wanted| *wanted != protocol) {
                        return Err(Failure::Usage(format!(
                            "--protocol {wanted}: the cluster to be joined uses {protocol}"
                        )));
                    }
                    return Ok(Place { cluster, me, protocol, members: directory.members });
                }
                None => {
                    last = format!(
                        "the cluster has no member with the peer URLs {}: add it first \
                         (etcdctl member add)",
                        settings.peer_urls.join(",")
                    );
                }
            },
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(JOIN_INTERVAL).await;
    }
    Err(Failure::Unavailable(format!("cannot join: {last}")))
}
