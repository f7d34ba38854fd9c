//! Putting a node together and setting it going.
//!
//! Invariant: everything is recovered and every port is taken before the first thread starts.

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
use crate::recover::{self, Opened};
use crate::subscribers::Subscribers;
use crate::upkeep;
use bytes::Bytes;
use parking_lot::Mutex;
use quorate_base::Instant;
use quorate_disk::{Clock, OsClock, OsDisk};
use quorate_driver::{Driver, DriverConfig, ServiceHost};
use quorate_keyspace::SpaceGuard;
use quorate_paxos::MultiPaxos;
use quorate_raft::Raft;
use quorate_replicated_log::{Config, Epoch, Limits, Protocol, Recovered, ReplicatedLog};
use quorate_service::Service;
use quorate_transport::{Config as TransportConfig, Transport, TransportError, peer_address};
use quorate_wal::Wal;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use tokio::runtime::Handle;

/// Makes the replica of a log from its settings and what was found on disk.
pub type LogEngine = fn(Protocol, Config, Recovered, Instant) -> Box<dyn ReplicatedLog>;

/// The engine of a protocol.
fn engine_of(
    protocol: Protocol,
    config: Config,
    recovered: Recovered,
    now: Instant,
) -> Box<dyn ReplicatedLog> {
    match protocol {
        Protocol::Raft => Box::new(Raft::new(config, now, recovered)),
        Protocol::Paxos => Box::new(MultiPaxos::new(config, now, recovered)),
    }
}

impl Node {
    /// Starts a node whose log is replicated as its settings say: [`Node::start_with`].
    ///
    /// # Errors
    /// [`StartError`]
    pub fn start(config: NodeConfig, runtime: Handle) -> Result<Node, StartError> {
        Node::start_with(config, runtime, engine_of)
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
        let opened = recover::open(&config)?;
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

fn assemble(
    mut config: NodeConfig,
    listeners: Vec<TcpListener>,
    opened: Opened,
    runtime: Handle,
    engine: LogEngine,
) -> Result<Node, StartError> {
    let Opened { lock, disk, run, protocol, wal, keyspace, recovered } = opened;
    config.protocol = Some(protocol);
    let clock = OsClock::new();
    let seed = run.rotate_left(40) ^ config.me.id.0 ^ clock.unix_nanos();
    let (shared, peers) = share(&config, &runtime, listeners, seed, clock, &keyspace, &disk)?;
    let was_member = recovered.applied.membership.contains(config.me.id);
    let board = &shared.board;
    board.membership.lock().clone_from(&recovered.applied.membership);
    board.set_applied(recovered.applied.position.index);
    let now = clock.now();
    let log = engine(protocol, log_config(&config, seed), recovered, now);
    let (shown, term) = ((log.role(), log.leader()), log.status().ballot.round);
    board.set_role(shown.0, shown.1, term);
    let mut driver = Driver::new(driver_config(&config, run));
    driver.add_group(now, KEYSPACE, log, HostedKeyspace::check);
    let disk_full = Arc::new(AtomicBool::new(false));
    let driver_thread = DriverThread {
        clock,
        driver,
        inbox: shared.inbox.clone(),
        transport: shared.transport.clone(),
        log: shared.log.clone(),
        apply: shared.apply.clone(),
        board: shared.board.clone(),
        group: KEYSPACE,
        node: config.me.id,
        shown,
        term,
        was_member,
        disk_full: disk_full.clone(),
    };
    let mut threads = start_workers(&shared, wal, keyspace, peers, disk_full)?;
    threads.push(thread(DRIVER, &shared, move || driver_thread.run())?);
    let handle = NodeHandle(shared.clone());
    let tasks = vec![
        runtime.spawn(upkeep::publish(handle.clone(), config.me)).abort_handle(),
        runtime.spawn(upkeep::mind_space(handle, disk)).abort_handle(),
    ];
    let election_timeout = config.election_timeout;
    Ok(Node { shared, threads, tasks, runtime, election_timeout, _lock: lock })
}

/// What the node's parts share; with it the transport, which listens from now on.
fn share(
    config: &NodeConfig,
    runtime: &Handle,
    listeners: Vec<TcpListener>,
    seed: u64,
    clock: OsClock,
    keyspace: &HostedKeyspace,
    disk: &OsDisk,
) -> Result<(Arc<Shared>, Peers), StartError> {
    let (board, inbox) = (Arc::new(Board::new()), Arc::new(Inbox::new()));
    let directory = Arc::new(Mutex::new(Bytes::new()));
    let door = Door { inbox: inbox.clone(), board: board.clone(), directory: directory.clone() };
    let advertise = config.me.peer_urls.first().and_then(|url| peer_address(url).ok());
    let settings = TransportConfig {
        advertise: advertise.unwrap_or_default(),
        seed,
        ..TransportConfig::of(config.cluster, config.me.id)
    };
    let transport = Transport::start(settings, listeners, Arc::new(door), runtime.clone())?;
    let transport = Arc::new(transport);
    let reader = keyspace.reader();
    let mut peers = Peers::new(
        transport.clone(),
        (config.cluster, config.protocol.unwrap_or_default()),
        directory,
    );
    peers.introduce(&config.members);
    peers.update(&reader.members(), &reader.removed_members());
    let space = SpaceGuard {
        member: config.me.id,
        quota_bytes: config.quota_bytes,
        reserve_bytes: reserve_bytes(config, disk),
    };
    let shared = Shared {
        cluster: config.cluster,
        node: config.me.id,
        clock,
        inbox,
        log: Arc::new(Mailbox::new()),
        apply: Arc::new(Mailbox::new()),
        persister: Arc::new(Mailbox::new()),
        board,
        subscribers: Arc::new(Subscribers::new()),
        transport,
        reader,
        space,
    };
    Ok((Arc::new(shared), peers))
}

/// Starts the threads that work for the driver.
fn start_workers(
    shared: &Arc<Shared>,
    wal: Wal<OsDisk>,
    keyspace: HostedKeyspace,
    mut peers: Peers,
    disk_full: Arc<AtomicBool>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let log_thread =
        LogThread { wal, work: shared.log.clone(), inbox: shared.inbox.clone(), disk_full };
    let apply_thread = ApplyThread {
        clock: shared.clock,
        group: KEYSPACE,
        host: ServiceHost::new(keyspace),
        work: shared.apply.clone(),
        inbox: shared.inbox.clone(),
        persister: shared.persister.clone(),
        subscribers: shared.subscribers.clone(),
        failed: false,
        members_changed: Box::new(move |keyspace: &HostedKeyspace| {
            let reader = keyspace.reader();
            peers.update(&reader.members(), &reader.removed_members());
        }),
    };
    let (persister, inbox) = (shared.persister.clone(), shared.inbox.clone());
    Ok(vec![
        thread(LOG, shared, move || log_thread.run())?,
        thread(APPLY, shared, move || apply_thread.run())?,
        thread(PERSIST, shared, move || apply_thread::persist(KEYSPACE, &persister, &inbox))?,
    ])
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
