//! A hosted node as the API's backend.

use crate::backend::{
    Backend, BackendError, Consensus, Identity, Listener, NoKeyspace, Storage, Subscription,
};
use quorate_base::NodeId;
use quorate_driver::RequestError;
use quorate_host::{AdminError, KeyspaceHandle, KeyspaceRefusal, NodeHandle, Subscriber};
use quorate_keyspace::command::{Command, MemberChange};
use quorate_keyspace::{EventBatch, LeaseAnswer, Question, Reader, Reply, codec};
use quorate_mvcc::FjallEngine;
use quorate_replicated_log::{Change, Role};
use quorate_service::SnapshotSource;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of the time that a removal may take: how much the member may take to be let go from everything.
const PART_TO_LET_GO: f64 = 0.8;
/// Learners a cluster may have: as in etcd.
const MAX_LEARNERS: usize = 1;

/// A running node, and one of its keyspaces.
#[derive(Clone)]
pub struct HostBackend {
    node: NodeHandle,
    it: KeyspaceHandle,
}

impl HostBackend {
    /// The API's view of this node and its default keyspace.
    pub fn new(node: NodeHandle) -> HostBackend {
        let it = (*node).clone();
        HostBackend { node, it }
    }
}

fn refused(error: RequestError) -> BackendError {
    match error {
        RequestError::Unavailable => BackendError::NoLeader,
        RequestError::DeadlineExceeded => BackendError::Timeout,
        RequestError::TooManyRequests => BackendError::TooManyRequests,
        RequestError::TooLarge => BackendError::TooLarge,
        RequestError::ChangeInProgress => BackendError::ChangeInProgress,
        RequestError::BadChange => BackendError::BadChange,
        RequestError::Outdated => BackendError::ChangeInProgress,
        RequestError::NotReady => BackendError::LearnerNotReady,
        RequestError::TransferFailed => BackendError::TransferFailed,
        RequestError::Stopped => BackendError::Stopped,
        RequestError::UnknownGroup => {
            BackendError::Internal("the keyspace is not on this node".to_owned())
        }
    }
}

fn impossible(error: AdminError) -> BackendError {
    match error {
        AdminError::Impossible(why) => BackendError::Impossible(why),
        AdminError::Unavailable => BackendError::NoLeader,
        AdminError::Failed(error) => refused(error),
        other => BackendError::Internal(other.to_string()),
    }
}

fn encoded(command: &Command) -> Result<bytes::Bytes, BackendError> {
    // The API's own limit on nesting is tighter than the codec's.
    codec::encode(command).map_err(|_| BackendError::TooLarge)
}

/// What a change of the member list means to the log.
fn log_change(change: &MemberChange) -> Change {
    match change {
        MemberChange::Add(member) if member.learner => Change::AddLearner(member.id),
        MemberChange::Add(member) => Change::AddVoter(member.id),
        MemberChange::Promote(id) => Change::Promote(*id),
        MemberChange::Remove(id) => Change::Remove(*id),
        MemberChange::UpdatePeers { .. } | MemberChange::Publish { .. } => Change::Keep,
    }
}

impl Backend for HostBackend {
    type Engine = FjallEngine;

    fn keyspace(&self, name: &str) -> Result<Self, NoKeyspace> {
        match self.node.keyspace(name) {
            Ok(it) if it.is_own() => Err(NoKeyspace::Reserved),
            Ok(it) => Ok(HostBackend { node: self.node.clone(), it }),
            Err(KeyspaceRefusal::Unknown) => Err(NoKeyspace::Unknown),
            Err(KeyspaceRefusal::NotYet) => Err(NoKeyspace::NotYet),
            Err(elsewhere) => Err(NoKeyspace::Elsewhere(elsewhere.to_string())),
        }
    }

    fn is_closed(&self) -> bool {
        self.it.is_closed()
    }

    fn identity(&self) -> Identity {
        Identity { cluster: self.it.cluster(), member: self.it.node() }
    }

    fn consensus(&self) -> Consensus {
        let now = self.it.consensus();
        Consensus {
            leader: now.leader,
            term: now.term,
            commit: now.commit,
            applied: now.applied,
            is_learner: now.role == Role::Learner,
        }
    }

    fn storage(&self) -> Storage {
        let size = self.it.reader().sizes().logical_bytes;
        Storage { size, quota: self.it.space().quota_bytes }
    }

    fn fits(&self, bytes: u64) -> bool {
        let space = self.it.space();
        space.quota_bytes == 0 || space.fits(self.it.reader().sizes().logical_bytes, bytes)
    }

    fn reader(&self) -> &Reader<FjallEngine> {
        self.it.reader()
    }

    async fn propose(&self, command: Command, timeout: Duration) -> Result<Reply, BackendError> {
        self.it.propose(encoded(&command)?, timeout).await.map_err(refused)
    }

    async fn read_barrier(&self, timeout: Duration) -> Result<(), BackendError> {
        self.it.read(timeout).await.map(drop).map_err(refused)
    }

    async fn query(
        &self,
        question: Question,
        timeout: Duration,
    ) -> Result<LeaseAnswer, BackendError> {
        let answer = self.it.query(question.encode(), timeout).await.map_err(refused)?;
        LeaseAnswer::decode(answer)
            .map_err(|error| BackendError::Internal(format!("the leader's answer: {error}")))
    }

    async fn change_members(
        &self,
        change: MemberChange,
        timeout: Duration,
    ) -> Result<Reply, BackendError> {
        let end = Instant::now() + timeout;
        let wanted = log_change(&change);
        let context = encoded(&Command::Member(change.clone()))?;
        let mut leaves = match change {
            MemberChange::Remove(id) => Some(id),
            _ => None,
        };
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // Judged by the latest member list, not by what this node happens to have.
            self.read_barrier(left).await?;
            let judged = self.it.consensus().applied;
            self.reader().check_member(&change, MAX_LEARNERS).map_err(BackendError::Refused)?;
            if let Some(id) = leaves.take() {
                let let_go = self.node.let_go(id, left.mul_f64(PART_TO_LET_GO)).await;
                let_go.map_err(impossible)?;
                continue;
            }
            match self.it.change(wanted.clone(), judged, context.clone(), left).await {
                Err(RequestError::Outdated) if Instant::now() < end => {}
                answer => return answer.map_err(refused),
            }
        }
    }

    async fn transfer_leadership(&self, to: NodeId, timeout: Duration) -> Result<(), BackendError> {
        self.it.transfer(to, timeout).await.map_err(refused)
    }

    async fn defragment(&self) -> Result<(), BackendError> {
        // The engine gives space back by itself as it compacts; nothing has to stand still.
        Ok(())
    }

    async fn snapshot(&self) -> Result<Box<dyn SnapshotSource>, BackendError> {
        self.it.snapshot().await.map_err(BackendError::Internal)
    }

    fn subscribe(&self, listener: Arc<dyn Listener>) -> Subscription {
        let ear: Arc<dyn Subscriber<EventBatch>> = Arc::new(Ear(listener));
        self.it.subscribe(&ear);
        Subscription::new(ear)
    }
}

/// The host tells subscribers; the API listens.
struct Ear(Arc<dyn Listener>);

impl Subscriber<EventBatch> for Ear {
    fn publish(&self, publications: &[EventBatch]) {
        self.0.publish(publications);
    }

    fn jump(&self) {
        self.0.jump();
    }
}
