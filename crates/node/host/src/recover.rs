//! From a data directory to a recovered log and state.
//!
//! The directory: `LOCK`, `IDENTITY`, `RUN`, `BIRTH`, `BIRTHS`, `PROTOCOL`, the log in `log/`, the
//! default keyspace's state in `state/`, that of all others in `keyspaces/`.
//!
//! Invariants: the identity is checked before anything else is read; the run number is durable
//! before the node is put together. A cluster's first state is the same on every founder and ends
//! at index 1, which no entry ever has: whoever joins later is behind it and is sent the state.

use crate::births::{self, Births};
use crate::config::NodeConfig;
use crate::error::StartError;
use crate::handle::{HostedKeyspace, KEYSPACE};
use crate::protocol;
use crate::run_number;
use crate::states;
use crate::upkeep;
use quorate_base::{Ballot, GroupId, NodeId, Position};
use quorate_disk::{DirectoryLock, OsDisk};
use quorate_mvcc::FjallShelf;
use quorate_replicated_log::{Base, Membership, Protocol, Recovered, Write};
use quorate_service::Service;
use quorate_wal::{Batch, BatchId, Identity, RecoveredGroup, Wal, WalOptions};
use std::collections::BTreeMap;

/// Smallest log segment, in bytes: for very small disks.
const SEGMENT_BYTES_MIN: u64 = 8 << 20;

/// What was found in the data directory, opened.
pub(crate) struct Opened {
    pub lock: DirectoryLock,
    pub disk: OsDisk,
    pub run: u64,
    /// This data directory's birth, and the peers'.
    pub birth: u64,
    pub births: Births,
    pub protocol: Protocol,
    pub wal: Wal<OsDisk>,
    pub keyspace: HostedKeyspace,
    pub recovered: Recovered,
    /// Where the states of all other keyspaces are.
    pub shelf: FjallShelf,
    /// What the log holds of them.
    pub others: BTreeMap<GroupId, RecoveredGroup>,
}

/// Opens, checks and recovers what is in the data directory.
///
/// `drawn` becomes the birth of a directory that is made now.
pub(crate) fn open(config: &NodeConfig, drawn: u64) -> Result<Opened, StartError> {
    let lock = DirectoryLock::acquire(&config.data_dir)?;
    let mut disk = OsDisk::open(&config.data_dir)?;
    let identity = Identity { cluster: config.cluster, node: config.me.id };
    identity.establish(&mut disk)?;
    let protocol = protocol::establish(&mut disk, config.protocol)?;
    let run = run_number::next(&mut disk)?;
    let birth = births::own(&mut disk, drawn)?;
    let births = Births::open(OsDisk::open(&config.data_dir)?)?;
    let log_disk = OsDisk::open(&config.data_dir.join("log"))?;
    let options = WalOptions {
        unnamed_protocol: protocol,
        ..wal_options(config, identity, upkeep::disk_bytes(&log_disk))
    };
    let (mut wal, mut recovery) = Wal::open(log_disk, options)?;
    tracing::info!(report = ?recovery.report, run, "the log is recovered");
    let first = first_base(config, protocol);
    let log = recovery.groups.remove(&KEYSPACE);
    let mut keyspace = states::open_default(config, &first, log.as_ref())?;
    let recovered = match log {
        Some(log) => {
            // What a killed process left in the machine's cache is found, yet not durable: a
            // replica that took it for durable might let go of the log that it would need.
            keyspace.persist()().map_err(|error| StartError::State(error.to_string()))?;
            resume(&mut wal, log, keyspace.base())?
        }
        None => found(&mut wal, &mut keyspace, first)?,
    };
    let others = recovery.groups;
    let shelf = states::open_shelf(config, &others)?;
    Ok(Opened { lock, disk, run, birth, births, protocol, wal, keyspace, recovered, shelf, others })
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

/// Where a group begins that these nodes found.
pub(crate) fn founded_by(voters: &[NodeId], protocol: Protocol) -> Base {
    let membership = Membership::of(voters.iter().copied());
    Base::first(Position::new(1, Ballot::ZERO), membership, protocol)
}

/// Opens the state of a group other than the default keyspace's: with what the log holds of it,
/// or, where that is nothing, at `first`, whatever an earlier replica left on the shelf. The
/// last is what the log has yet to be told of where it begins.
pub(crate) fn open_other(
    config: &NodeConfig,
    shelf: &FjallShelf,
    group: GroupId,
    found: Option<RecoveredGroup>,
    first: Base,
) -> Result<(HostedKeyspace, Recovered, Option<Write>), StartError> {
    let state = |error: &dyn std::fmt::Display| StartError::State(error.to_string());
    if found.is_none() {
        shelf.remove(group.0).map_err(|e| state(&e))?;
    }
    let mut keyspace = states::open_other(config, shelf, group, found.as_ref(), first.clone())?;
    keyspace.persist()().map_err(|e| state(&e))?;
    match found {
        Some(found) => {
            let damaged = |what: String| StartError::Damaged { what };
            let (recovered, write) =
                quorate_driver::resume(found, keyspace.base()).map_err(damaged)?;
            Ok((keyspace, recovered, write))
        }
        None => {
            let begun =
                Recovered { base: first.clone(), applied: first.clone(), ..Recovered::default() };
            Ok((keyspace, begun, Some(Write::begin(first))))
        }
    }
}

/// Where the group begins: with its founders at index 1, or, for a node that joins, nowhere yet.
fn first_base(config: &NodeConfig, protocol: Protocol) -> Base {
    if config.join {
        return Base { protocol, ..Base::default() };
    }
    let voters = config.members.iter().filter(|m| !m.learner).map(|m| m.id);
    let mut membership = Membership::of(voters);
    membership.learners = config.members.iter().filter(|m| m.learner).map(|m| m.id).collect();
    membership.learners.sort_unstable();
    Base::first(Position::new(1, Ballot::ZERO), membership, protocol)
}

/// The log and the state of an earlier run, put together.
fn resume(
    wal: &mut Wal<OsDisk>,
    group: RecoveredGroup,
    applied: Base,
) -> Result<Recovered, StartError> {
    let damaged = |what| StartError::Damaged { what };
    let (recovered, first) = quorate_driver::resume(group, applied).map_err(damaged)?;
    if let Some(write) = first {
        tracing::info!(base = ?recovered.base, "the state is ahead of the log, which follows");
        submit(wal, write)?;
    }
    Ok(recovered)
}

fn submit(wal: &mut Wal<OsDisk>, write: Write) -> Result<(), StartError> {
    wal.submit(Batch { id: BatchId(0), writes: vec![(KEYSPACE, write)] })?;
    while let Some((_, result)) = wal.poll() {
        result?;
    }
    Ok(())
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
    submit(wal, Write::begin(first.clone()))?;
    Ok(Recovered { base: first.clone(), applied: first, ..Recovered::default() })
}
