//! `openraft`, over a log in memory and a network that calls functions, on a runtime of one thread.

use crate::{Measured, Shape, thread_cpu};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::{EntryResponder, IOFlushed, LogState, RaftLogStorage, RaftStateMachine};
use openraft::{
    Config, EntryPayload, OptionalSend, RaftLogReader, RaftNetworkFactory, RaftNetworkV2,
    RaftSnapshotBuilder, SnapshotPolicy,
};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Debug, Display};
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Command(Bytes);

impl Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

openraft::declare_raft_types!(
    Types: D = Command, R = (), NodeId = u64, Node = (),
);

type Entry = openraft::alias::EntryOf<Types>;
type Raft = openraft::Raft<Types, Machine>;
/// The replicas, once they are made: by their number less one.
type Peers = Arc<[OnceLock<Raft>; 3]>;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    vote: Option<VoteOf<Types>>,
    /// The entry of index 0 first; nothing is ever purged.
    entries: Vec<Entry>,
}

impl Log {
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.0.lock().expect("nobody panicked"))
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at + 1,
            Bound::Unbounded => 0,
        };
        self.with(|log| {
            let held = log.entries.len() as u64;
            let to = match range.end_bound() {
                Bound::Included(at) => held.min(at + 1),
                Bound::Excluded(at) => held.min(*at),
                Bound::Unbounded => held,
            };
            Ok(log.entries[from.min(to) as usize..to as usize].to_vec())
        })
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<Types>>, io::Error> {
        Ok(self.with(|log| log.vote))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let last_log_id = self.with(|log| log.entries.last().map(|entry| entry.log_id));
        Ok(LogState { last_purged_log_id: None, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> Result<(), io::Error> {
        self.with(|log| log.vote = Some(*vote));
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.with(|log| log.entries.extend(entries));
        done.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> Result<(), io::Error> {
        let keep = last.map_or(0, |id| id.index + 1);
        self.with(|log| log.entries.truncate(keep as usize));
        Ok(())
    }

    async fn purge(&mut self, _upto: LogIdOf<Types>) -> Result<(), io::Error> {
        Ok(())
    }
}

/// Counts what is applied.
#[derive(Default)]
struct Machine {
    last: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
    bytes: Arc<AtomicU64>,
}

/// There are no snapshots: nothing is purged.
struct NoSnapshots;

fn no_snapshots<T>() -> Result<T, io::Error> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "no snapshots are taken"))
}

impl RaftSnapshotBuilder<Types> for NoSnapshots {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, ()>, io::Error> {
        no_snapshots()
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = NoSnapshots;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>), io::Error> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.last = Some(entry.log_id);
            if let Some(members) = entry.get_membership() {
                self.membership = StoredMembershipOf::<Types>::new(self.last, members);
            }
            if let EntryPayload::Normal(command) = &entry.payload {
                self.bytes.fetch_add(command.0.len() as u64, Relaxed);
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> NoSnapshots {
        NoSnapshots
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMetaOf<Types>,
        _snapshot: (),
    ) -> Result<(), io::Error> {
        no_snapshots()
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, ()>>, io::Error> {
        Ok(None)
    }
}

struct Network(Peers);

/// The way to one replica.
struct Link(Peers, u64);

impl Link {
    fn raft(&self) -> Result<&Raft, Unreachable<Types>> {
        let starting = || Unreachable::new(&io::Error::other("it is not there yet"));
        self.0[self.1 as usize - 1].get().ok_or_else(starting)
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _node: &()) -> Link {
        Link(self.0.clone(), target)
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let answer = self.raft()?.append_entries(rpc).await;
        Ok(answer.map_err(|error| Unreachable::new(&error))?)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let answer = self.raft()?.vote(rpc).await;
        Ok(answer.map_err(|error| Unreachable::new(&error))?)
    }

    async fn full_snapshot(
        &mut self,
        _vote: VoteOf<Types>,
        _snapshot: SnapshotOf<Types, ()>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(Unreachable::new(&io::Error::other("no snapshots are taken")).into())
    }
}

/// Three replicas, the first of which leads, and what they applied.
async fn cluster() -> (Peers, [Arc<AtomicU64>; 3]) {
    let config = Config {
        heartbeat_interval: 50,
        election_timeout_min: 2_000,
        election_timeout_max: 4_000,
        snapshot_policy: SnapshotPolicy::Never,
        ..Config::default()
    };
    let config = Arc::new(config.validate().expect("a valid configuration"));
    let peers: Peers = Arc::new([const { OnceLock::new() }; 3]);
    let applied = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
    for (id, bytes) in (1..).zip(&applied) {
        let machine = Machine { bytes: bytes.clone(), ..Machine::default() };
        let network = Network(peers.clone());
        let raft = Raft::new(id, config.clone(), network, Log::default(), machine).await;
        let taken = peers[id as usize - 1].set(raft.expect("it starts"));
        assert!(taken.is_ok(), "each is made once");
    }
    let leader = peers[0].get().expect("made above");
    let members: BTreeMap<u64, ()> = (1..=3).map(|id| (id, ())).collect();
    leader.initialize(members).await.expect("it is new");
    let elected = leader.wait(Some(Duration::from_secs(10)));
    elected.current_leader(1, "the first leads").await.expect("elected while nothing else happens");
    (peers, applied)
}

async fn drive(commands: u64, shape: Shape) -> Measured {
    let (peers, applied) = cluster().await;
    let leader = peers[0].get().expect("it leads");
    let payload = vec![7; shape.size];
    let start = thread_cpu();
    let (mut proposed, mut outstanding, mut under_way) = (0, 0, VecDeque::new());
    while proposed < commands || !under_way.is_empty() {
        let count = (shape.window - outstanding).min(shape.batch).min(commands - proposed);
        if count > 0 {
            let batch: Vec<_> =
                (0..count).map(|_| Command(Bytes::copy_from_slice(&payload))).collect();
            let answers = leader.client_write_many(batch).await.expect("the leader takes it");
            under_way.push_back((count, answers));
            (proposed, outstanding) = (proposed + count, outstanding + count);
        }
        if (outstanding == shape.window || proposed == commands)
            && let Some((count, mut answers)) = under_way.pop_front()
        {
            while let Some(answer) = answers.next().await {
                answer.expect("it runs").expect("it is applied");
            }
            outstanding -= count;
        }
    }
    let bytes = commands * shape.size as u64;
    while applied.iter().any(|replica| replica.load(Relaxed) < bytes) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let cpu = thread_cpu() - start;
    for raft in peers.iter().filter_map(OnceLock::get) {
        raft.shutdown().await.expect("it ends");
    }
    Measured { cpu, applied: [0, 1, 2].map(|at: usize| applied[at].load(Relaxed)) }
}

pub fn run(commands: u64, shape: Shape) -> Measured {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime of one thread").block_on(drive(commands, shape))
}
