//! From a data directory to a recovered log and state.
//!
//! The directory: `LOCK`, `IDENTITY`, `RUN`, the log in `log/`, the state in `state/`.
//!
//! Invariants: the identity is checked before anything else is read; the run number is durable
//! before the node is put together. A cluster's first state is the same on every founder and ends
//! at index 1, which no entry ever has: whoever joins later is behind it and is sent the state.

use crate::config::NodeConfig;
use crate::error::StartError;
use crate::handle::{HostedKeyspace, KEYSPACE};
use crate::protocol;
use crate::run_number;
use crate::upkeep;
use quorate_base::{Ballot, Position};
use quorate_disk::{DirectoryLock, OsDisk};
use quorate_keyspace::{Config as KeyspaceConfig, LessorConfig};
use quorate_mvcc::{FjallEngine, FjallSettings};
use quorate_replicated_log::{Base, Entries, Membership, Protocol, Recovered, Write, WriteId};
use quorate_service::Service;
use quorate_wal::{Batch, BatchId, Identity, RecoveredGroup, Wal, WalOptions};

/// Smallest log segment, in bytes: for very small disks.
const SEGMENT_BYTES_MIN: u64 = 8 << 20;

/// What was found in the data directory, opened.
pub(crate) struct Opened {
    pub lock: DirectoryLock,
    pub disk: OsDisk,
    pub run: u64,
    pub protocol: Protocol,
    pub wal: Wal<OsDisk>,
    pub keyspace: HostedKeyspace,
    pub recovered: Recovered,
}

/// Opens, checks and recovers what is in the data directory.
pub(crate) fn open(config: &NodeConfig) -> Result<Opened, StartError> {
    let lock = DirectoryLock::acquire(&config.data_dir)?;
    let mut disk = OsDisk::open(&config.data_dir)?;
    let identity = Identity { cluster: config.cluster, node: config.me.id };
    identity.establish(&mut disk)?;
    let protocol = protocol::establish(&mut disk, config.protocol)?;
    let run = run_number::next(&mut disk)?;
    let log_disk = OsDisk::open(&config.data_dir.join("log"))?;
    let options = wal_options(config, identity, upkeep::disk_bytes(&log_disk));
    let (mut wal, mut recovery) = Wal::open(log_disk, options)?;
    tracing::info!(report = ?recovery.report, run, "the log is recovered");
    let state = |error: &dyn std::fmt::Display| StartError::State(error.to_string());
    let settings = FjallSettings { cache_bytes: config.cache_bytes, ..FjallSettings::default() };
    let engine =
        FjallEngine::open(&config.data_dir.join("state"), settings).map_err(|e| state(&e))?;
    let first = first_base(config);
    let members = if config.join { Vec::new() } else { config.members.clone() };
    let lessor =
        LessorConfig { checkpoint_interval: config.lease_checkpoints, ..LessorConfig::default() };
    let keyspace_config =
        KeyspaceConfig { base: first.clone(), members, lessor, ..KeyspaceConfig::default() };
    let mut keyspace = HostedKeyspace::open(engine, keyspace_config).map_err(|e| state(&e))?;
    let recovered = match recovery.groups.remove(&KEYSPACE) {
        Some(group) => {
            // What a killed process left in the machine's cache is found, yet not durable: a
            // replica that took it for durable might let go of the log that it would need.
            keyspace.persist()().map_err(|e| state(&e))?;
            resume(group, keyspace.base())?
        }
        None => found(&mut wal, &mut keyspace, first)?,
    };
    Ok(Opened { lock, disk, run, protocol, wal, keyspace, recovered })
}

/// On a small disk the segments are smaller, so that a few of them and the state fit.
fn wal_options(config: &NodeConfig, owner: Identity, disk_bytes: Option<u64>) -> WalOptions {
    let fitting = disk_bytes.unwrap_or(u64::MAX) / 16 / 4_096 * 4_096;
    let wanted = config.segment_bytes.max(SEGMENT_BYTES_MIN);
    let options = WalOptions { segment_bytes: wanted, owner, ..WalOptions::default() };
    if fitting >= wanted {
        return options;
    }
    let record = config.limits.command_bytes as u64 + (64 << 10);
    WalOptions {
        segment_bytes: fitting.clamp(SEGMENT_BYTES_MIN, wanted),
        max_record_bytes: record,
        max_block_bytes: record.max(1 << 20),
        spares: 0,
        ..options
    }
}

/// Where the group begins: with its founders at index 1, or, for a node that joins, nowhere yet.
fn first_base(config: &NodeConfig) -> Base {
    if config.join {
        return Base::default();
    }
    let voters = config.members.iter().filter(|m| !m.learner).map(|m| m.id);
    let mut membership = Membership::of(voters);
    membership.learners = config.members.iter().filter(|m| m.learner).map(|m| m.id).collect();
    membership.learners.sort_unstable();
    Base { position: Position::new(1, Ballot::ZERO), membership }
}

/// The log and the state of an earlier run, put together.
fn resume(group: RecoveredGroup, applied: Base) -> Result<Recovered, StartError> {
    if applied.position.index < group.base.position.index {
        let what = format!(
            "the state, which ends at entry {}, while the log begins after entry {}, ",
            applied.position.index, group.base.position.index
        );
        return Err(StartError::Damaged { what });
    }
    Ok(Recovered {
        base: group.base,
        hard_state: group.hard_state,
        entries: group.entries,
        damaged: group.damaged,
        applied,
    })
}

/// The first run: the state is made durable, then the log remembers where it begins.
fn found(
    wal: &mut Wal<OsDisk>,
    keyspace: &mut HostedKeyspace,
    first: Base,
) -> Result<Recovered, StartError> {
    let applied = keyspace.base();
    if applied != first {
        let what = format!("the log, which is missing: the state ends at {:?}", applied.position);
        return Err(StartError::Damaged { what });
    }
    keyspace.persist()().map_err(|error| StartError::State(error.to_string()))?;
    let write = Write {
        id: WriteId(0),
        reset: Some(first.clone()),
        compact: None,
        truncate_from: None,
        entries: Entries::default(),
        slots: Vec::new(),
        hard_state: None,
    };
    wal.submit(Batch { id: BatchId(0), writes: vec![(KEYSPACE, write)] })?;
    while let Some((_, result)) = wal.poll() {
        result?;
    }
    Ok(Recovered { base: first.clone(), applied: first, ..Recovered::default() })
}
