//! A node's life: logs, listen, start, serve, stop.

use super::compaction::{Compactor, Retention};
use super::coordinator::Coordinator;
use super::room::{Room, start_anew};
use super::runtimes::{self, Beside};
use super::settings::Settings;
use super::{identity, participants};
use crate::exit::Failure;
use quorate_base::GroupId;
use quorate_coordinator::{Settings as Coordination, Transactions};
use quorate_disk::OsDisk;
use quorate_etcd::backend::HostBackend;
use quorate_etcd::{Door, Options, serve_doors};
use quorate_host::{End, KeyspaceHandle, Node, NodeConfig, NodeHandle, StartError};
use quorate_keyspace::codec;
use quorate_keyspace::command::{Command, Member};
use quorate_replicated_log::Role;
use quorate_resource_managers::Participants;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// How long an automatic compaction may take to be replicated.
const COMPACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the node to its end.
pub fn run(settings: &Settings, stop_with_stdin: bool) -> Result<(), Failure> {
    log_to_stderr(settings);
    let peers = Beside::start("quorate-peers")?;
    let mut workers = Vec::new();
    for number in 1..settings.worker_threads {
        workers.push(Beside::start(&format!("quorate-api-{number}"))?);
    }
    let runtimes = Runtimes {
        peers: peers.handle().clone(),
        workers: workers.iter().map(|worker| worker.handle().clone()).collect(),
    };
    runtimes::here()?.block_on(live(settings, runtimes, stop_with_stdin))
}

/// Where the node's tasks run, beside the main thread.
struct Runtimes {
    peers: Handle,
    /// Serve connections of clients, together with the main thread.
    workers: Vec<Handle>,
}

fn log_to_stderr(settings: &Settings) {
    // The state engine tells of every table it flushes; that is for its own debugging.
    let level = settings.log_level;
    let quiet = level.min(tracing_subscriber::filter::LevelFilter::WARN);
    let filter = tracing_subscriber::EnvFilter::new(format!(
        "{level},fjall={quiet},lsm_tree={quiet},h2={quiet},hyper={quiet},tonic={quiet}"
    ));
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match settings.log_json {
        true => logger.json().try_init(),
        false => logger.with_ansi(false).try_init(),
    };
    if let Err(error) = set {
        eprintln!("warning: no logs: {error}");
    }
}

async fn live(
    settings: &Settings,
    runtimes: Runtimes,
    stop_with_stdin: bool,
) -> Result<(), Failure> {
    let clients = listen(settings).await?;
    let place = identity::find(settings).await?;
    let me = Member {
        id: place.me,
        name: settings.name.clone(),
        peer_urls: settings.peer_urls.clone(),
        client_urls: settings.client_urls.clone(),
        learner: false,
    };
    let participants = participants::open(settings, place.cluster)?;
    let mut config = NodeConfig::new(settings.data_dir.clone(), place.cluster, me);
    config.members = place.members;
    config.join = settings.join;
    config.listen_peers.clone_from(&settings.listen_peers);
    config.protocol = Some(place.protocol);
    config.one_vote_for_transactions = settings.coordinator == Coordinator::Unreplicated;
    config.heartbeat = settings.heartbeat;
    config.election_timeout = settings.election_timeout;
    config.lease_clock_drift_ppm = settings.lease_clock_drift_ppm;
    config.quota_bytes = settings.quota_bytes;
    config.limits.catch_up_entries = settings.snapshot_count;
    // A command is its request in another coding, and an envelope.
    config.limits.command_bytes = settings.max_request_bytes.saturating_mul(2).max(1 << 20);
    tracing::info!(
        name = %settings.name, node = %place.me, cluster = %place.cluster,
        protocol = %place.protocol, data_dir = %settings.data_dir.display(), "starting"
    );
    let peers = runtimes.peers;
    let started = tokio::task::spawn_blocking(move || Node::start(config, peers)).await;
    let node = started.map_err(|e| Failure::Failed(e.to_string()))?.map_err(start_failure)?;
    let room = OsDisk::open(&settings.data_dir)
        .map(|disk| Room::new(disk, node.handle().space().reserve_bytes));
    let room = room.map_err(|error| Failure::Machine(error.to_string()))?;
    let mut told = pin!(told_to_stop(stop_with_stdin));
    let end =
        serve_until_end(settings, (node, participants), clients, runtimes.workers, told.as_mut());
    match end.await? {
        End::Stopped => Ok(()),
        End::Failed(_) if room.is_short() => tokio::select! {
            asked = told => asked.map(|by| tracing::info!(by, "stopping")),
            () = room.is_back() => Err(start_anew()),
        },
        end @ (End::Removed | End::Failed(_)) => Err(Failure::Failed(end.to_string())),
    }
}

async fn listen(settings: &Settings) -> Result<Vec<Door>, Failure> {
    let all = settings.listen_clients.iter().map(|address| (address, None));
    let of_one = settings.listen_keyspaces.iter().map(|(name, at)| (at, Some(name.clone())));
    let mut doors = Vec::new();
    for (address, keyspace) in all.chain(of_one) {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Failure::Machine(format!("cannot listen for clients on {address}: {error}"))
        })?;
        doors.push(Door { listener, keyspace });
    }
    Ok(doors)
}

/// Whose fault it is decides the exit code.
fn start_failure(error: StartError) -> Failure {
    match &error {
        StartError::Config(_) => Failure::Usage(error.to_string()),
        _ => Failure::Machine(error.to_string()),
    }
}

async fn serve_until_end(
    settings: &Settings,
    (node, participants): (Node, Participants),
    clients: Vec<Door>,
    workers: Vec<Handle>,
    told: impl Future<Output = Result<&'static str, Failure>>,
) -> Result<End, Failure> {
    let handle = node.handle();
    let transactions = Transactions::start(handle.clone(), participants, Coordination::default());
    let (ends, stopping) = watch::channel(false);
    let control = quorate_control::routes(&handle, &transactions, settings.max_txn_ops, stopping);
    let options = Options {
        max_request_bytes: settings.max_request_bytes,
        max_txn_ops: settings.max_txn_ops,
        max_concurrent_streams: settings.max_concurrent_streams,
        election_timeout: settings.election_timeout,
        progress_notify_interval: settings.progress_notify_interval,
        control: Some(control),
        measures: Some(quorate_control::measures(&transactions)),
        workers,
        ..Options::default()
    };
    let (stop, stopping) = oneshot::channel::<()>();
    let backend = HostBackend::new(handle.clone());
    let serving = tokio::spawn(serve_doors(clients, backend, options, async {
        // A dropped sender stops it as well.
        let _ = stopping.await;
    }));
    let ready = tokio::spawn(announce(handle.clone(), settings.listen_clients.clone()));
    let compacting = tokio::spawn(compact(handle.clone(), settings.retention));
    let asked = tokio::select! {
        asked = told => Some(asked?),
        _ = handle.ended() => None,
    };
    if let Some(by) = asked {
        tracing::info!(by, "stopping");
    }
    ready.abort();
    compacting.abort();
    // The clients first: what they already asked may still be answered.
    drop(stop);
    // Nobody may be there to hear it.
    let _ = ends.send(true);
    if serving.await.is_err() {
        tracing::error!("serving clients failed");
    }
    let end = node.shutdown().await;
    tracing::info!(%end, "ended");
    Ok(end)
}

/// Says so once there is a leader, and every time before that means waiting.
async fn announce(handle: NodeHandle, addresses: Vec<SocketAddr>) {
    let leader = handle.leader_changed(quorate_base::NodeId::NONE).await;
    for address in addresses {
        tracing::info!(%address, %leader, "ready to serve client requests");
    }
}

/// Forgets old history, in every keyspace that this node leads.
async fn compact(handle: NodeHandle, retention: Retention) {
    let Some(interval) = retention.interval() else { return };
    let mut ticks = tokio::time::interval(interval);
    let mut compactors: BTreeMap<GroupId, Compactor> = BTreeMap::new();
    loop {
        ticks.tick().await;
        let hosted = handle.hosted();
        compactors.retain(|group, _| hosted.iter().any(|it| it.id() == *group));
        for keyspace in hosted {
            let compactor =
                compactors.entry(keyspace.id()).or_insert_with(|| Compactor::new(retention));
            if let Some(target) = compactor.look(keyspace.reader().revision())
                && keyspace.consensus().role == Role::Leader
            {
                compact_one(&keyspace, target).await;
            }
        }
    }
}

async fn compact_one(keyspace: &KeyspaceHandle, revision: u64) {
    let name = keyspace.name();
    let Ok(body) = codec::encode(&Command::Compact { revision }) else { return };
    match keyspace.propose(body, COMPACTION_TIMEOUT).await {
        Ok(_) => tracing::info!(name, revision, "history is compacted"),
        Err(error) => tracing::warn!(name, revision, ?error, "cannot compact history"),
    }
}

/// Waits for Ctrl-C, SIGTERM or the end of standard input; tells which.
async fn told_to_stop(stop_with_stdin: bool) -> Result<&'static str, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (gone, supervisor) = oneshot::channel::<()>();
    if stop_with_stdin {
        // A plain thread: reading standard input cannot be given up, and must not hold up the end.
        std::thread::spawn(move || {
            let mut rest = [0u8; 64];
            let mut stdin = std::io::stdin();
            while matches!(stdin.read(&mut rest), Ok(n) if n > 0) {}
            // The node may have ended for another reason.
            let _ = gone.send(());
        });
    } else {
        std::mem::forget(gone);
    }
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        _ = supervisor => "the end of the supervisor",
    })
}
