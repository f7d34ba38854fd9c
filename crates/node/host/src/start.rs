//! Putting a node together and setting it going.
//!
//! Invariant: everything is recovered and every port is taken before the first thread starts.

use crate::apply_thread::{self, ApplyThread, Seat};
use crate::births::Births;
use crate::config::NodeConfig;
use crate::driver_thread::{DriverThread, Post};
use crate::ending::Ending;
use crate::error::StartError;
use crate::handle::{DEFAULT, HostedKeyspace, KEYSPACE, NodeHandle, Shared};
use crate::hosted::{Hosted, Table};
use crate::inbox::{Door, Inbox};
use crate::keyspaces::{self, FIRST_GROUP, Opener, OpenerWork};
use crate::log_thread::LogThread;
use crate::mailbox::Mailbox;
use crate::node::{APPLY, DRIVER, LOG, Node, OPEN, PERSIST, thread};
use crate::peers::Peers;
use crate::recover::{self, Opened};
use crate::states;
use crate::upkeep;
use bytes::Bytes;
use parking_lot::Mutex;
use quorate_base::{GroupId, Instant};
use quorate_disk::{Clock, OsClock, OsDisk};
use quorate_driver::{Canary, Driver, DriverConfig, Engines};
use quorate_keyspace::SpaceGuard;
use quorate_mvcc::FjallShelf;
use quorate_paxos::MultiPaxos;
use quorate_raft::Raft;
use quorate_replicated_log::{Base, Config, Epoch, Limits, Protocol, Recovered, ReplicatedLog};
use quorate_service::Service;
use quorate_transport::{Config as TransportConfig, Transport, TransportError, peer_address};
use quorate_wal::Wal;
use std::collections::VecDeque;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;

/// The heartbeats of a keyspace that is not the default one are so many times rarer.
const CALM: u32 = 4;

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
        let opened = recover::open(&config, OsClock::new().unix_nanos())?;
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
    let Opened { lock, disk, run, birth, births, .. } = opened;
    let Opened { protocol, wal, keyspace, recovered, shelf, others, .. } = opened;
    config.protocol = Some(protocol);
    let clock = OsClock::new();
    let seed = run.rotate_left(40) ^ config.me.id.0 ^ clock.unix_nanos();
    let births = (birth, births);
    let found = (&keyspace, &disk, births);
    let (shared, peers) = share(&config, &runtime, listeners, (run, seed, clock), found)?;
    let was_member = recovered.applied.membership.contains(config.me.id);
    let now = clock.now();
    let applied = recovered.applied.clone();
    let (base, at) = (recovered.base.clone(), log_config(&config, seed));
    let at = Config { epoch: base.epoch, ..at };
    let log = engine(base.protocol, at.clone(), recovered, now);
    let post = post(&shared.default, &applied, &*log);
    let mut driver = Driver::new(driver_config(&config, run));
    driver.set_engines(engines(engine, at));
    driver.add_group(now, KEYSPACE, log, HostedKeyspace::check);
    let disk_full = Arc::new(AtomicBool::new(false));
    let driver_thread = DriverThread {
        clock,
        driver,
        inbox: shared.inbox.clone(),
        transport: shared.transport.clone(),
        log: shared.log.clone(),
        applies: shared.applies.clone(),
        posts: [(KEYSPACE, post)].into(),
        closing: VecDeque::new(),
        ending: shared.ending.clone(),
        node: config.me.id,
        was_member,
        disk_full: disk_full.clone(),
    };
    let state = (keyspace, states::default_root(&config));
    let mut threads = start_workers(&shared, wal, state, peers, &shelf, disk_full)?;
    threads.push(thread(DRIVER, &shared, move || driver_thread.run())?);
    let opener = Opener::new(shared.clone(), shelf, config.clone(), engine, seed, others);
    threads.push(thread(OPEN, &shared, move || opener.run())?);
    let handle = NodeHandle::new(shared.clone());
    let election_timeout = config.election_timeout;
    let tasks = vec![
        runtime.spawn(upkeep::publish(handle.clone(), config.me)).abort_handle(),
        runtime.spawn(upkeep::mind_space(handle.clone(), disk)).abort_handle(),
        runtime.spawn(keyspaces::follow_members(handle.clone())).abort_handle(),
        runtime.spawn(keyspaces::place_leaders(handle, election_timeout)).abort_handle(),
    ];
    Ok(Node { shared, threads, tasks, runtime, election_timeout, _lock: lock })
}

/// What the driver thread knows of a group at first; the board shows it.
pub(crate) fn post(
    hosted: &Hosted,
    applied: &Base,
    log: &dyn ReplicatedLog,
) -> Post<HostedKeyspace> {
    let status = log.status();
    let (shown, term) = ((log.role(), log.leader()), status.ballot.round);
    hosted.board.membership.lock().clone_from(&applied.membership);
    hosted.board.set_applied(applied.position.index);
    hosted.board.set_role(shown.0, shown.1, term);
    hosted.board.set_epoch(status.epoch, status.protocol);
    Post { board: hosted.board.clone(), apply: hosted.apply.clone(), shown, term }
}

/// Threads that apply the entries of all keyspaces but the default one.
const OTHER_APPLIES: usize = 2;

/// The apply thread's mailbox of a group: the default keyspace has one of its own.
pub(crate) fn apply_of<T: Clone>(applies: &[T], group: GroupId) -> T {
    let others = applies.len() as u64 - 1;
    let at = if group == KEYSPACE || others == 0 { 0 } else { 1 + group.0 % others };
    applies[at as usize].clone()
}

/// What the node's parts share; with it the transport, which listens from now on.
fn share(
    config: &NodeConfig,
    runtime: &Handle,
    listeners: Vec<TcpListener>,
    (run, seed, clock): (u64, u64, OsClock),
    (keyspace, disk, (birth, births)): (&HostedKeyspace, &OsDisk, (u64, Births)),
) -> Result<(Arc<Shared>, Peers), StartError> {
    let (ending, inbox) = (Arc::new(Ending::new()), Arc::new(Inbox::new()));
    let directory = Arc::new(Mutex::new(Bytes::new()));
    let births = Mutex::new(births);
    let (to, end) = (inbox.clone(), ending.clone());
    let door = Door { inbox: to, ending: end, directory: directory.clone(), births };
    let advertise = config.me.peer_urls.first().and_then(|url| peer_address(url).ok());
    let settings = TransportConfig {
        advertise: advertise.unwrap_or_default(),
        seed,
        birth,
        ..TransportConfig::of(config.cluster, config.me.id)
    };
    let transport = Transport::start(settings, listeners, Arc::new(door), runtime.clone())?;
    let transport = Arc::new(transport);
    let reader = keyspace.reader();
    let protocol = config.protocol.unwrap_or_default();
    let mut peers = Peers::new(transport.clone(), (config.cluster, protocol), directory);
    peers.introduce(&config.members);
    peers.update(&reader.members(), &reader.removed_members());
    let space = SpaceGuard {
        member: config.me.id,
        quota_bytes: config.quota_bytes,
        reserve_bytes: reserve_bytes(config, disk),
    };
    let applies: Vec<_> = (0..=OTHER_APPLIES).map(|_| Arc::new(Mailbox::new())).collect();
    let default = Arc::new(Hosted::new(KEYSPACE, DEFAULT, reader, apply_of(&applies, KEYSPACE)));
    let table = Table::default();
    table.insert(default.clone());
    let shared = Shared {
        cluster: config.cluster,
        node: config.me.id,
        run,
        protocol,
        one_vote: config.one_vote_for_transactions,
        clock,
        inbox,
        log: Arc::new(Mailbox::new()),
        applies,
        persister: Arc::new(Mailbox::new()),
        opener: Arc::new(Mailbox::new()),
        ending,
        transport,
        default,
        table,
        space,
    };
    Ok((Arc::new(shared), peers))
}

/// Starts the threads that work for the driver.
fn start_workers(
    shared: &Arc<Shared>,
    wal: Wal<OsDisk>,
    (keyspace, root): (HostedKeyspace, PathBuf),
    mut peers: Peers,
    shelf: &FjallShelf,
    disk_full: Arc<AtomicBool>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let log_thread =
        LogThread { wal, work: shared.log.clone(), inbox: shared.inbox.clone(), disk_full };
    let mut threads = vec![thread(LOG, shared, move || log_thread.run())?];
    let seat = Seat {
        members_changed: Some(Box::new(move |keyspace: &HostedKeyspace| {
            let reader = keyspace.reader();
            peers.update(&reader.members(), &reader.removed_members());
        })),
        ..Seat::new(&shared.default, keyspace, root)
    };
    let mut seat = Some(seat);
    for work in &shared.applies {
        let apply_thread = ApplyThread {
            clock: shared.clock,
            seats: seat.take().map(|seat| (seat.group, seat)).into_iter().collect(),
            work: work.clone(),
            inbox: shared.inbox.clone(),
            persister: shared.persister.clone(),
        };
        threads.push(thread(APPLY, shared, move || apply_thread.run())?);
    }
    let (node, shelf, number) = (shared.clone(), shelf.clone(), shared.applies.len());
    let remove = move |group: GroupId| {
        shelf.remove(group.0).map_err(|error| error.to_string())?;
        node.opener.push(OpenerWork::Closed(group));
        Ok(())
    };
    let (persister, inbox) = (shared.persister.clone(), shared.inbox.clone());
    let persist = move || apply_thread::persist(number, &persister, &inbox, remove);
    threads.push(thread(PERSIST, shared, persist)?);
    Ok(threads)
}

/// Makes the engines of epochs to come: each with a seed of its own, for the ids of its reads.
fn engines(engine: LogEngine, settings: Config) -> Engines {
    Box::new(move |now, group, recovered| {
        let epoch = recovered.base.epoch;
        let seed = settings.seed ^ group.0.rotate_left(24) ^ u64::from(epoch.0).rotate_left(32);
        let config = Config { epoch, opens: true, seed, ..timed(settings.clone(), group) };
        engine(recovered.base.protocol, config, recovered, now)
    })
}

pub(crate) fn log_config(config: &NodeConfig, seed: u64) -> Config {
    Config {
        node: config.me.id,
        epoch: Epoch(0),
        opens: false,
        heartbeat: config.heartbeat,
        election_timeout: config.election_timeout,
        patience: config.election_timeout,
        lease_clock_drift_ppm: config.lease_clock_drift_ppm,
        seed,
        limits: Limits::default(),
    }
}

/// The times of a group. There may be hundreds of keyspaces beside the default one, so each of
/// them has its heartbeats less often, and more patience with a leader that says nothing. A leader
/// whose process is gone is not waited for so long: its connections break, and that is told at
/// once.
pub(crate) fn timed(config: Config, group: GroupId) -> Config {
    if group.0 < FIRST_GROUP {
        return config;
    }
    Config { heartbeat: config.heartbeat * CALM, patience: config.patience * CALM, ..config }
}

/// How far apart heartbeats leave. A timer fires a little late, and the next heartbeat is due a
/// whole interval after that: were it no more than the interval, every second would be missed.
fn grid(heartbeat: Duration) -> Duration {
    heartbeat + heartbeat / 4
}

fn driver_config(config: &NodeConfig, run: u64) -> DriverConfig {
    DriverConfig {
        node: config.me.id,
        run,
        retry_interval: config.election_timeout,
        persist_interval: Duration::from_secs(1),
        leading_grid: grid(config.heartbeat),
        calm_grid: (GroupId(FIRST_GROUP), grid(config.heartbeat * CALM)),
        limits: config.limits,
        canary: Canary::None,
    }
}

/// At most an eighth of the disk is kept free.
fn reserve_bytes(config: &NodeConfig, disk: &OsDisk) -> u64 {
    let free = disk.free_bytes().unwrap_or(u64::MAX);
    config.free_bytes_min.min(free / 8)
}
