//! One run, from the first account to the verdict.

use crate::clients::{Members, Mover};
use crate::faults::{Fault, Faults};
use crate::ledger::{Ledger, Told};
use crate::lists::Scribe;
use crate::outside::Outside;
use crate::places::{Map, Place, protocol};
use crate::report::Report;
use crate::requests::open;
use crate::{audit, judge, lists};
use futures_util::future::join_all;
use quorate_base::Rng;
use quorate_end_to_end::{Caller, Cluster, Network, Party, eventually, ports};
use quorate_wire::quorate::CreateKeyspaceRequest;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const NODES: usize = 3;
/// The databases as parties of the network, beside the nodes.
pub(crate) const POSTGRES: Party = NODES;
pub(crate) const MARIADB: Party = NODES + 1;
const PATIENCE: Duration = Duration::from_secs(60);
/// Accounts that are opened by one request.
const TOGETHER: u64 = 100;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Accounts, at all places together.
    pub accounts: u64,
    /// Keyspaces, under Raft and Paxos by turns.
    pub keyspaces: u64,
    /// Whether accounts are in PostgreSQL and MariaDB, too.
    pub databases: bool,
    /// For how long money is moved.
    pub time: Duration,
    /// What decides who moves what, and who dies when.
    pub seed: u64,
    /// Clients that move money.
    pub clients: u64,
    /// Clients that read.
    pub readers: u64,
    /// Clients that append to lists, and read them.
    pub scribes: u64,
    /// Whether anybody dies.
    pub faults: bool,
    /// Whether money is moved without transactions: the run must fail.
    pub broken: bool,
}

impl Trial {
    /// Runs it.
    ///
    /// # Errors
    /// A database that is not installed.
    pub fn run(&self) -> Result<Report, String> {
        assert!(self.keyspaces >= 2, "money moves between two places at least");
        assert!(
            !(self.broken && self.databases),
            "only keyspaces are written without transactions"
        );
        let map = Map::new(self.accounts, self.keyspaces, self.databases);
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let mut outside = match self.databases {
            true => Some(runtime.block_on(Outside::open(map.circles))?),
            false => None,
        };
        let network = Network::default();
        let arguments: Vec<Vec<String>> = (0..NODES)
            .map(|node| {
                let file = folder.path().join(format!("participants-{node}.toml"));
                match &outside {
                    Some(outside) => {
                        let ports = gates(&network, &runtime, node, outside);
                        Outside::write_participants(&file, ports);
                    }
                    None => std::fs::write(&file, "").unwrap(),
                }
                vec!["--participants".to_owned(), file.to_str().unwrap().to_owned()]
            })
            .collect();
        let mut cluster = Cluster::start_behind(&network, &arguments);
        let members = members(&cluster);
        let ledger = Arc::new(Ledger::new(map));
        open_accounts(&cluster, &members, &ledger.map);

        let mut rng = Rng::new(self.seed);
        let began = Instant::now();
        let clients = self.start(&cluster, &members, &ledger, &mut rng);
        let mut faults = Faults {
            cluster: &mut cluster,
            network,
            outside: outside.as_mut(),
            members: members.clone(),
            ledger: ledger.clone(),
            rng: rng.fork(1),
            counts: BTreeMap::new(),
        };
        match self.faults {
            true => faults.run(began + self.time),
            false => std::thread::sleep(self.time),
        }
        let counts = faults.counts;
        let time = began.elapsed();
        ledger.stop.store(true, Relaxed);
        let (outside, runtime) = (outside.as_ref(), &cluster.runtime);
        let (settled, told) = runtime.block_on(async {
            let settling = judge::settled(&ledger, &members, outside);
            let (settled, joined) = futures_util::future::join(settling, join_all(clients)).await;
            joined.into_iter().for_each(|client| client.unwrap());
            // What the clients began last.
            judge::settled(&ledger, &members, outside).await;
            let told = judge::outcomes(&ledger, &members).await;
            judge::judge(&ledger, &members, outside, &told).await;
            lists::judge(&ledger, &members, self.scribes).await;
            (settled, told)
        });
        Ok(report(&ledger, &told, counts, settled, time))
    }

    /// The clients.
    fn start(
        &self,
        cluster: &Cluster,
        members: &Members,
        ledger: &Arc<Ledger>,
        rng: &mut Rng,
    ) -> Vec<tokio::task::JoinHandle<()>> {
        let movers = (0..self.clients).map(|me| {
            let mover = Mover::new(me, members, ledger, rng.fork(1_000 + me), self.broken);
            cluster.runtime.spawn(mover.run())
        });
        let mut all: Vec<_> = movers.collect();
        all.extend((0..self.readers).map(|me| {
            let reader = audit::run(me, members.clone(), ledger.clone(), rng.fork(2_000 + me));
            cluster.runtime.spawn(reader)
        }));
        all.extend((0..self.scribes).map(|me| {
            let scribe = Scribe::new(me, members, ledger, rng.fork(3_000 + me), self.broken);
            cluster.runtime.spawn(scribe.run())
        }));
        all
    }
}

/// The ports at which a node reaches the databases.
fn gates(network: &Network, runtime: &Runtime, node: Party, outside: &Outside) -> [u16; 2] {
    let servers = [(POSTGRES, outside.postgres.port()), (MARIADB, outside.mariadb.port())];
    servers.map(|(party, target)| {
        let port = ports(1);
        network.gate(runtime.handle(), (port, target), party, Caller::Known(node));
        port
    })
}

/// Who they are.
fn members(cluster: &Cluster) -> Members {
    let addresses = cluster.nodes.iter().map(|node| node.client.clone()).collect();
    let id = |node| cluster.status(node).and_then(|it| it.header).map(|it| it.member_id);
    let ids = (0..cluster.nodes.len()).map(|node| {
        let mut found = None;
        eventually("a member says who it is", PATIENCE, || {
            found = id(node);
            found.is_some()
        });
        found.unwrap_or_default()
    });
    Members { addresses, ids: ids.collect() }
}

/// The figures.
fn report(
    ledger: &Ledger,
    told: &[Told],
    faults: BTreeMap<Fault, u64>,
    settled: Duration,
    time: Duration,
) -> Report {
    let mut doubts: Vec<Vec<Duration>> =
        ledger.doubts.lock().iter().map(|doubt| doubt.each.clone()).collect();
    // Where nothing was under way, nothing was measured.
    doubts.retain(|each| !each.is_empty());
    let mut each: Vec<Duration> = doubts.concat();
    let mut last: Vec<Duration> = doubts.iter().filter_map(|d| d.iter().max().copied()).collect();
    each.sort_unstable();
    last.sort_unstable();
    let ended = |commits| told.iter().filter(|it| it.commits == Some(commits)).count();
    let places = ledger.map.places.len();
    Report {
        accounts: (ledger.map.circles * places as u64, places),
        transfers: told.len(),
        committed: ended(true),
        rolled_back: ended(false),
        unanswered: ledger.told.lock().iter().filter(|it| it.commits.is_none()).count(),
        audits: ledger.audits.load(Relaxed),
        lists: ledger.lists.committed(),
        appends: ledger.lists.take_history(),
        faults,
        doubts: last,
        each,
        settled,
        time,
        wrong: ledger.wrongs(),
    }
}

/// The keyspaces, and every account in them.
fn open_accounts(cluster: &Cluster, members: &Members, map: &Map) {
    for (n, place) in (0u64..).zip(&map.places) {
        let Place::Keyspace(name) = place else { continue };
        let client = members.any(None);
        eventually("a keyspace is made", PATIENCE, || {
            let request = CreateKeyspaceRequest {
                name: name.clone(),
                protocol: protocol(n).to_owned(),
                ..CreateKeyspaceRequest::default()
            };
            match cluster.runtime.block_on(client.keyspace_create(request)) {
                Ok(_) => true,
                Err(error) => error.to_string().contains("already"),
            }
        });
        let client = members.any(Some(name));
        let mut firsts: Vec<u64> =
            (0..map.circles.div_ceil(TOGETHER)).map(|n| n * TOGETHER).collect();
        eventually("the accounts are there", PATIENCE, || {
            let some: Vec<u64> = firsts.iter().take(16).copied().collect();
            let opened = some
                .iter()
                .map(|first| client.txn(open(*first..map.circles.min(first + TOGETHER))));
            let opened = cluster.runtime.block_on(join_all(opened));
            let done: Vec<u64> =
                some.into_iter().zip(opened).filter(|(_, it)| it.is_ok()).map(|(n, _)| n).collect();
            firsts.retain(|first| !done.contains(first));
            firsts.is_empty()
        });
    }
}
