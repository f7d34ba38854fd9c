//! The states on disk: opened, and set aside where they are damaged.
//!
//! A state is what entries did; other replicas have it too. So a replica whose state cannot be read
//! goes on with an empty one in its place: its log keeps what it promised, and a leader sends the
//! state. The damaged one is kept beside it, as `state.damaged` or `keyspaces.damaged`. Invariant:
//! nothing is set aside that no other replica could have.

use crate::config::NodeConfig;
use crate::error::StartError;
use crate::handle::HostedKeyspace;
use quorate_base::{GroupId, NodeId};
use quorate_keyspace::command::Member;
use quorate_keyspace::{Config as KeyspaceConfig, LessorConfig};
use quorate_mvcc::{FjallEngine, FjallSettings, FjallShelf};
use quorate_replicated_log::Base;
use quorate_service::{Service, ServiceError};
use quorate_wal::RecoveredGroup;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the default keyspace's state is.
pub(crate) fn default_root(config: &NodeConfig) -> PathBuf {
    config.data_dir.join("state")
}

/// Where the states of all others are.
pub(crate) fn others_root(config: &NodeConfig) -> PathBuf {
    config.data_dir.join("keyspaces")
}

/// Remembers that the state in `root` is damaged, for the next start.
pub(crate) fn condemn(root: &Path) {
    if let Err(error) = FjallEngine::condemn(root) {
        tracing::error!(%error, "cannot remember that the state is damaged");
    }
}

fn settings(config: &NodeConfig) -> FjallSettings {
    FjallSettings { cache_bytes: config.cache_bytes, ..FjallSettings::default() }
}

/// How a keyspace is opened.
fn keyspace_config(config: &NodeConfig, base: Base, members: Vec<Member>) -> KeyspaceConfig {
    let lessor =
        LessorConfig { checkpoint_interval: config.lease_checkpoints, ..LessorConfig::default() };
    KeyspaceConfig { base, members, lessor, ..KeyspaceConfig::default() }
}

fn told(error: &dyn std::fmt::Display) -> StartError {
    StartError::State(error.to_string())
}

/// Whether other replicas have this group's state too.
fn has_peers(me: NodeId, log: &RecoveredGroup) -> bool {
    log.base.membership.voters != [me]
}

/// Whether the log cannot tell where it begins, and so by what rules it goes on.
fn lost_its_beginning(log: &RecoveredGroup) -> bool {
    log.base == Base::default() && *log != RecoveredGroup::default()
}

/// Whether log and state do not fit together because the state was lost.
fn falls_short(state: &Base, log: &RecoveredGroup) -> bool {
    let behind = state.position.index < log.base.position.index || state.epoch < log.base.epoch;
    behind && *state != quorate_driver::lost_state(log)
}

/// The default keyspace's state, begun at `first` if there is none; if it is damaged, and others
/// have it, an empty one in its place.
pub(crate) fn open_default(
    config: &NodeConfig,
    first: &Base,
    log: Option<&RecoveredGroup>,
) -> Result<HostedKeyspace, StartError> {
    let members = if config.join { Vec::new() } else { config.members.clone() };
    let why = match try_default(config, first.clone(), members) {
        Ok(keyspace) => match log {
            Some(log) if falls_short(&keyspace.base(), log) => "it ends before the log begins",
            _ => return Ok(keyspace),
        }
        .to_owned(),
        Err(ServiceError::Damaged(why)) => why,
        Err(error) => return Err(told(&error)),
    };
    let Some(log) = log.filter(|log| has_peers(config.me.id, log)) else {
        return Err(StartError::State(alone(&why)));
    };
    if lost_its_beginning(log) {
        let what = format!("where the log begins, as well as the state ({why}),");
        return Err(StartError::Damaged { what });
    }
    set_aside(&default_root(config), &why)?;
    let empty = try_default(config, quorate_driver::lost_state(log), Vec::new());
    empty.map_err(|error| told(&error))
}

fn try_default(
    config: &NodeConfig,
    base: Base,
    members: Vec<Member>,
) -> Result<HostedKeyspace, ServiceError> {
    let engine = FjallEngine::open(&default_root(config), settings(config)).map_err(judged)?;
    HostedKeyspace::open(engine, keyspace_config(config, base, members))
}

/// Tells damage from a disk that fails now.
fn judged(error: quorate_mvcc::Error) -> ServiceError {
    match error {
        quorate_mvcc::Error::Corrupt(_) => ServiceError::Damaged(error.to_string()),
        error => ServiceError::Disk(error.to_string()),
    }
}

fn alone(why: &str) -> String {
    format!(
        "{why}; no other replica is known to have it, so this node does not go on without: bring \
         back its data directory, as it was in a backup"
    )
}

fn set_aside(root: &Path, why: &str) -> Result<(), StartError> {
    tracing::error!(
        %why, root = %root.display(),
        "the state is damaged: it is set aside (`.damaged`), and had from a peer"
    );
    FjallEngine::set_aside(root).map_err(|error| told(&error))
}

/// The states of all other keyspaces; if they are damaged, and others have them, none.
pub(crate) fn open_shelf(
    config: &NodeConfig,
    logs: &BTreeMap<GroupId, RecoveredGroup>,
) -> Result<FjallShelf, StartError> {
    let settings = settings(config);
    let settings = FjallSettings { cache_bytes: config.cache_bytes / 2, ..settings };
    let root = others_root(config);
    match FjallShelf::open(&root, &settings).map_err(judged) {
        Ok(shelf) => Ok(shelf),
        Err(ServiceError::Damaged(why)) => {
            if let Some((group, _)) = logs.iter().find(|(_, log)| !has_peers(config.me.id, log)) {
                return Err(StartError::State(alone(&format!("group {group}: {why}"))));
            }
            if let Some((group, _)) = logs.iter().find(|(_, log)| lost_its_beginning(log)) {
                let what = format!("where the log of group {group} begins, as well as its state,");
                return Err(StartError::Damaged { what });
            }
            set_aside(&root, &why)?;
            FjallShelf::open(&root, &settings).map_err(|error| told(&error))
        }
        Err(error) => Err(told(&error)),
    }
}

/// The state on the shelf of a group of which the log holds `log`, begun at `first` if there is
/// none. One that is damaged condemns the shelf: the node ends, and begins with a new one.
pub(crate) fn open_other(
    config: &NodeConfig,
    shelf: &FjallShelf,
    group: GroupId,
    log: Option<&RecoveredGroup>,
    first: Base,
) -> Result<HostedKeyspace, StartError> {
    // The log began after the state was durable: a state that is begun now was there before.
    let first = log.map(quorate_driver::lost_state).unwrap_or(first);
    let engine = shelf.engine(group.0).map_err(judged);
    let opened = engine.and_then(|engine| {
        HostedKeyspace::open(engine, keyspace_config(config, first, Vec::new()))
    });
    let why = match opened {
        Ok(keyspace) => match log {
            Some(log) if falls_short(&keyspace.base(), log) => {
                format!("the state of group {group} ends before its log begins")
            }
            _ => return Ok(keyspace),
        },
        Err(ServiceError::Damaged(why)) => format!("group {group}: {why}"),
        Err(error) => return Err(told(&error)),
    };
    condemn(&others_root(config));
    Err(StartError::State(format!("{why}: started again, the node has its states from its peers")))
}
