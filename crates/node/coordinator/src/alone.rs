//! For tests: a node alone, and records of transactions that an earlier life of it has begun.
#![allow(clippy::unwrap_used)]

use crate::fake::Fake;
use crate::request::{Branch, BranchWork, Request};
use crate::service::{Settings, Transactions};
use crate::store::Store;
use quorate_atomic_commit::Protocol;
use quorate_base::{ClusterId, NodeId};
use quorate_host::{DEFAULT, Node, NodeConfig, NodeHandle, member_id};
use quorate_keyspace::command::{Member, Txn};
use quorate_mvcc::Revision;
use quorate_resource_managers::{Kind, Participants, ResourceManager};
use quorate_transactions::records::OPEN;
use quorate_transactions::{BranchRecord, Owner, Record, Stage, StoreRequest, Stored};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until it is so.
pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let ended = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < ended, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A node alone, with the records of transactions.
pub(crate) struct Alone {
    pub store: Store,
    pub handle: NodeHandle,
    pub runtime: Runtime,
    // Dropped in this order.
    _node: Node,
    _folder: tempfile::TempDir,
}

impl Alone {
    pub fn start() -> Alone {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let peer_urls = vec!["http://127.0.0.1:1".to_owned()];
        let id = member_id(&peer_urls, "test");
        let me = Member { id, name: "alone".to_owned(), peer_urls, ..Member::default() };
        let mut config = NodeConfig::new(folder.path().join("data"), ClusterId(7), me);
        config.heartbeat = Duration::from_millis(20);
        config.election_timeout = Duration::from_millis(100);
        let node = Node::start(config, runtime.handle().clone()).unwrap();
        let handle = node.handle();
        let store = Store(runtime.block_on(handle.transactions(PATIENCE)).unwrap());
        Alone { store, handle, runtime, _node: node, _folder: folder }
    }

    /// Who has begun the records.
    pub fn asker(&self) -> Owner {
        Owner { node: self.handle.node(), run: 0 }
    }

    /// A record of an undecided transaction, whose branches nobody was asked for.
    pub fn record(&self) -> Record {
        let group = self.handle.keyspace(DEFAULT).unwrap().id();
        let branch = |name: &str| BranchRecord::keyspace(name, DEFAULT, group);
        Record {
            owner: self.asker(),
            asker: self.asker(),
            asked: 1,
            patience_ms: 600_000,
            stage: Stage::Open,
            branches: vec![branch("a"), branch("b")],
            ..Record::void(self.asker(), 1, "")
        }
    }

    /// Begins so many more.
    pub fn begin_records(&self, n: usize) {
        let known = self.ids().len();
        let request = StoreRequest { number: 1, at: None, record: self.record(), free_as_of: 0 };
        let ids: Vec<String> = (known..known + n).map(|n| format!("t-{n:05}")).collect();
        for some in ids.chunks(50) {
            let batch: Vec<(&str, &StoreRequest)> =
                some.iter().map(|id| (id.as_str(), &request)).collect();
            let stored = self.runtime.block_on(self.store.write_all(&batch)).unwrap();
            assert!(stored.iter().all(|it| matches!(it, Stored::Done(_))), "{stored:?}");
        }
    }

    /// The ids of those that are open, in order.
    pub fn ids(&self) -> Vec<String> {
        let all = self.store.list(OPEN, "", u64::MAX).unwrap();
        all.into_iter().map(|(id, _)| id).collect()
    }

    /// The transactions of the node, over no participants outside.
    pub fn transactions(&self, settings: Settings) -> Transactions {
        self.transactions_over(&[], settings)
    }

    /// The same, over these.
    pub fn transactions_over(&self, managers: &[&Arc<Fake>], settings: Settings) -> Transactions {
        let _guard = self.runtime.enter();
        let kept = |it: &&Arc<Fake>| (it.name().to_owned(), (Kind::Postgres, (*it).clone() as _));
        let managers: Participants = managers.iter().map(kept).collect();
        Transactions::start(self.handle.clone(), managers, settings)
    }

    /// Keeps a record, in the place of the one of this revision: its revision.
    pub fn keep(&self, id: &str, at: Option<Revision>, record: Record) -> Revision {
        let request = StoreRequest { number: 1, at, record, free_as_of: 0 };
        match self.runtime.block_on(self.store.write(id, &request)).unwrap() {
            Stored::Done(revision) => revision,
            Stored::Lost => panic!("{id} is not as of {at:?}"),
        }
    }

    /// What a client asks for whose record is like that above.
    pub fn request(&self, id: &str) -> Request {
        let work = BranchWork::Keyspace { txns: [Txn::default()].into(), or_else: false };
        let branch = |name: &str, participant: &str| Branch {
            name: name.to_owned(),
            participant: participant.to_owned(),
            work: work.clone(),
        };
        Request {
            id: id.to_owned(),
            content: self.record().content,
            bytes: 1,
            patience: Duration::from_secs(10),
            protocol: Protocol::TwoPhase,
            alone: true,
            branches: vec![branch("a", DEFAULT)],
        }
    }

    /// Nobody's.
    pub fn stranger(&self) -> Owner {
        Owner { node: NodeId(1), run: 9 }
    }
}
