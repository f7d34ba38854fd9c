//! From a data directory to a running node.
//!
//! The directory: `LOCK`, `IDENTITY`, `RUN`, the log in `log/`, the state in `state/`.
//!
//! Invariants: nothing is served before the identity is checked, the run number is durable and
//! the log is recovered. A cluster's first state is the same on every founder and ends at index 1,
//! which no entry ever has: whoever joins later is behind it and is sent the state.

use crate::apply_thread::{self, ApplyThread};
use crate::board::Board;
use crate::config::NodeConfig;
use crate::driver_thread::DriverThread;
use crate::error::StartError;
use crate::handle::{HostedKeyspace, KEYSPACE, NodeHandle, Shared};
use crate::inbox::{Door, Inbox};
use crate::log_thread::LogThread;
use crate::mailbox::Mailbox;
use crate::node::{APPLY, DRIVER, LOG, Node, PERSIST, thread};
use crate::peers::Peers;
use crate::run_number;
use crate::subscribers::Subscribers;
use crate::upkeep;
use bytes::Bytes;
use parking_lot::Mutex;
use quorate_base::{Ballot, Instant, Position};
use quorate_disk::{Clock, DirectoryLock, OsClock, OsDisk};
use quorate_driver::{Driver, DriverConfig, ServiceHost};
use quorate_keyspace::{Config as KeyspaceConfig, LessorConfig, SpaceGuard};
use quorate_mvcc::{FjallEngine, FjallSettings};
use quorate_raft::Raft;
use quorate_replicated_log::{
    Base, Config, Entries, Epoch, Limits, Membership, Recovered, ReplicatedLog, Write, WriteId,
};
use quorate_service::Service;
use quorate_transport::{Config as TransportConfig, Transport, TransportError, peer_address};
use quorate_wal::{Batch, BatchId, Identity, RecoveredGroup, Wal, WalOptions};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::runtime::Handle;

/// Smallest log segment, in bytes: for very small disks.
const SEGMENT_BYTES_MIN: u64 = 8 << 20;

/// Makes the replica of a log from its settings and what was found on disk.
pub type LogEngine = fn(Config, Recovered, Instant) -> Box<dyn ReplicatedLog>;

/// What was found in the data directory, opened.
struct Opened {
    lock: DirectoryLock,
    disk: OsDisk,
    run: u64,
    wal: Wal<OsDisk>,
    keyspace: HostedKeyspace,
    recovered: Recovered,
}

impl Node {
    /// Starts a node whose log is replicated by Raft: [`Node::start_with`].
    ///
    /// # Errors
    /// [`StartError`]
    pub fn start(config: NodeConfig, runtime: Handle) -> Result<Node, StartError> {
        Node::start_with(config, runtime, |config, recovered, now| {
            Box::new(Raft::new(config, now, recovered))
        })
    }

    /// Starts a node whose log is replicated by `engine`, with its network tasks on `runtime`. It
    /// serves at once; whether it has a leader yet is for [`NodeHandle::consensus`] to tell.
    ///
    /// # Errors
    /// [`StartError`], which says whose fault it is and what to do.
    pub fn start_with(
        config: NodeConfig,
        runtime: Handle,
        engine: LogEngine,
    ) -> Result<Node, StartError> {
        config.check()?;
        let listeners = listen(&config)?;
        let opened = open(&config)?;
        assemble(config, listeners, opened, runtime, engine)
    }
}

fn listen(config: &NodeConfig) -> Result<Vec<TcpListener>, StartError> {
    let bind = |address: &std::net::SocketAddr| {
        TcpListener::bind(address).map_err(|source| {
            StartError::Transport(TransportError::Listen { address: address.to_string(), source })
        })
    };
    config.listen_peers.iter().map(bind).collect()
}

fn open(config: &NodeConfig) -> Result<Opened, StartError> {
    let lock = DirectoryLock::acquire(&config.data_dir)?;
    let mut disk = OsDisk::open(&config.data_dir)?;
    let identity = Identity { cluster: config.cluster, node: config.me.id };
    identity.establish(&mut disk)?;
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
        Some(group) => resume(group, keyspace.base())?,
        None => found(&mut wal, &mut keyspace, first)?,
    };
    Ok(Opened { lock, disk, run, wal, keyspace, recovered })
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
        hard_state: None,
    };
    wal.submit(Batch { id: BatchId(0), writes: vec![(KEYSPACE, write)] })?;
    while let Some((_, result)) = wal.poll() {
        result?;
    }
    Ok(Recovered { base: first.clone(), applied: first, ..Recovered::default() })
}

fn assemble(
    config: NodeConfig,
    listeners: Vec<TcpListener>,
    opened: Opened,
    runtime: Handle,
    engine: LogEngine,
) -> Result<Node, StartError> {
    let Opened { lock, disk, run, wal, keyspace, recovered } = opened;
    let me = config.me.id;
    let clock = OsClock::new();
    let now = clock.now();
    let board = Arc::new(Board::new());
    let inbox = Arc::new(Inbox::new());
    let directory = Arc::new(Mutex::new(Bytes::new()));
    let seed = run.rotate_left(40) ^ me.0 ^ clock.unix_nanos();
    let advertise = config.me.peer_urls.first().and_then(|url| peer_address(url).ok());
    let door = Door { inbox: inbox.clone(), board: board.clone(), directory: directory.clone() };
    let transport_config = TransportConfig {
        advertise: advertise.unwrap_or_default(),
        seed,
        ..TransportConfig::of(config.cluster, me)
    };
    let transport = Transport::start(transport_config, listeners, Arc::new(door), runtime.clone())?;
    let transport = Arc::new(transport);
    let reader = keyspace.reader();
    let mut peers = Peers::new(transport.clone(), config.cluster, directory);
    peers.introduce(&config.members);
    peers.update(&reader.members(), &reader.removed_members());

    let was_member = recovered.applied.membership.contains(me);
    board.membership.lock().clone_from(&recovered.applied.membership);
    board.set_applied(recovered.applied.position.index);
    let log = engine(log_config(&config, seed), recovered, now);
    let mut driver = Driver::new(driver_config(&config, run));
    let (shown, term) = ((log.role(), log.leader()), log.status().ballot.round);
    board.set_role(shown.0, shown.1, term);
    driver.add_group(now, KEYSPACE, log);

    let (log_work, apply_work) = (Arc::new(Mailbox::new()), Arc::new(Mailbox::new()));
    let (persist_work, disk_full) = (Arc::new(Mailbox::new()), Arc::new(AtomicBool::new(false)));
    let shared = Arc::new(Shared {
        cluster: config.cluster,
        node: me,
        clock,
        inbox: inbox.clone(),
        log: log_work.clone(),
        apply: apply_work.clone(),
        persister: persist_work.clone(),
        board: board.clone(),
        subscribers: Arc::new(Subscribers::new()),
        transport: transport.clone(),
        reader,
        space: SpaceGuard {
            member: me,
            quota_bytes: config.quota_bytes,
            reserve_bytes: reserve_bytes(&config, &disk),
        },
    });
    let log_thread = LogThread {
        wal,
        work: log_work.clone(),
        inbox: inbox.clone(),
        disk_full: disk_full.clone(),
    };
    let apply_thread = ApplyThread {
        clock,
        group: KEYSPACE,
        host: ServiceHost::new(keyspace),
        work: apply_work.clone(),
        inbox: inbox.clone(),
        persister: persist_work.clone(),
        subscribers: shared.subscribers.clone(),
        failed: false,
        members_changed: Box::new(move |keyspace: &HostedKeyspace| {
            let reader = keyspace.reader();
            peers.update(&reader.members(), &reader.removed_members());
        }),
    };
    let driver_thread = DriverThread {
        clock,
        driver,
        inbox: inbox.clone(),
        transport,
        log: log_work,
        apply: apply_work,
        board,
        group: KEYSPACE,
        node: me,
        shown,
        term,
        was_member,
        disk_full,
    };
    let persist_inbox = inbox.clone();
    let persist = move || apply_thread::persist(KEYSPACE, &persist_work, &persist_inbox);
    let threads = vec![
        thread(LOG, &shared, move || log_thread.run())?,
        thread(APPLY, &shared, move || apply_thread.run())?,
        thread(PERSIST, &shared, persist)?,
        thread(DRIVER, &shared, move || driver_thread.run())?,
    ];
    let handle = NodeHandle(shared.clone());
    let tasks = vec![
        runtime.spawn(upkeep::publish(handle.clone(), config.me)).abort_handle(),
        runtime.spawn(upkeep::mind_space(handle, disk)).abort_handle(),
    ];
    let election_timeout = config.election_timeout;
    Ok(Node { shared, threads, tasks, runtime, election_timeout, _lock: lock })
}

fn log_config(config: &NodeConfig, seed: u64) -> Config {
    Config {
        node: config.me.id,
        epoch: Epoch(0),
        heartbeat: config.heartbeat,
        election_timeout: config.election_timeout,
        lease_clock_drift_ppm: config.lease_clock_drift_ppm,
        seed,
        limits: Limits::default(),
    }
}

fn driver_config(config: &NodeConfig, run: u64) -> DriverConfig {
    DriverConfig {
        node: config.me.id,
        run,
        retry_interval: config.election_timeout,
        persist_interval: std::time::Duration::from_secs(1),
        limits: config.limits,
    }
}

/// At most an eighth of the disk is kept free.
fn reserve_bytes(config: &NodeConfig, disk: &OsDisk) -> u64 {
    let free = disk.free_bytes().unwrap_or(u64::MAX);
    config.free_bytes_min.min(free / 8)
}
