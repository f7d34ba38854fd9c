//! What all services share: the backend, who answers, and the checks before every request.

use crate::backend::{Backend, Identity, Listener, Subscription};
use crate::call::Call;
use crate::convert;
use crate::errors::{Refusal, unread};
use crate::leader::Leadership;
use crate::lease_ids::LeaseIds;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::watch::Hub;
use quorate_keyspace::RangeStream;
use quorate_keyspace::command::{Alarm, Command, Range};
use quorate_keyspace::reply::{Outcome, RangeOutcome};
use quorate_mvcc::Revision;
use quorate_wire::etcdserverpb::ResponseHeader;
use std::sync::Arc;
use tonic::Status;

/// The shared part of the services. Cloning is cheap.
pub(crate) struct Node<B>(Arc<Shared<B>>);

pub(crate) struct Shared<B> {
    pub backend: B,
    pub identity: Identity,
    pub options: Options,
    pub metrics: Arc<Metrics>,
    pub hub: Arc<Hub>,
    pub leadership: Leadership,
    pub lease_ids: LeaseIds,
    _subscription: Subscription,
}

impl<B> Clone for Node<B> {
    fn clone(&self) -> Self {
        Node(self.0.clone())
    }
}

impl<B> std::ops::Deref for Node<B> {
    type Target = Shared<B>;
    fn deref(&self) -> &Shared<B> {
        &self.0
    }
}

impl<B: Backend> Node<B> {
    /// Puts the parts together and subscribes to the backend's changes.
    pub fn new(backend: B, options: Options) -> Node<B> {
        let metrics = Arc::new(Metrics::new(backend.identity()));
        Node::counted(backend, options, metrics)
    }

    /// The same node with another keyspace.
    pub fn with(&self, backend: B) -> Node<B> {
        Node::counted(backend, self.options.clone(), self.metrics.clone())
    }

    fn counted(backend: B, options: Options, metrics: Arc<Metrics>) -> Node<B> {
        let hub = Hub::new(backend.reader().revision(), options.recent_event_bytes);
        let subscription = backend.subscribe(hub.clone());
        // What was applied between the two lines above is read from history.
        hub.jump();
        let identity = backend.identity();
        let leadership = Leadership::new(backend.consensus().leader);
        let lease_ids = LeaseIds::new(identity.member);
        Node(Arc::new(Shared {
            backend,
            identity,
            options,
            metrics,
            hub,
            leadership,
            lease_ids,
            _subscription: subscription,
        }))
    }

    /// The header of an answer as of `revision`.
    pub fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.identity.cluster.0,
            member_id: self.identity.member.0,
            revision: convert::wire(revision),
            raft_term: self.backend.consensus().term,
        }
    }

    /// The header of an answer that has nothing to do with one revision.
    pub fn header_now(&self) -> ResponseHeader {
        self.header(self.backend.reader().revision())
    }

    /// The circumstances of a request that came through tonic.
    pub fn call<T>(&self, request: &tonic::Request<T>) -> Result<Call, Status> {
        Call::new(request.metadata().as_ref(), 0, self.options.request_timeout())
    }

    /// The checks before every request. A learner serves only what `learner` says it may.
    pub fn admit(&self, call: &Call, learner: bool) -> Result<(), Status> {
        let consensus = self.backend.consensus();
        if consensus.is_learner && !learner {
            return Err(Refusal::NotSupportedForLearner.into());
        }
        if call.require_leader && consensus.leader.is_none() {
            return Err(Refusal::NoLeader.into());
        }
        Ok(())
    }

    /// Reads a range of this node's state, with the header of the answer.
    pub fn read(&self, range: &Range) -> Result<(ResponseHeader, RangeOutcome), Status> {
        let (revision, outcome) = self.backend.reader().range_at(range).map_err(unread)?;
        Ok((self.header(revision), outcome))
    }

    /// Reads a range so that it is linearizable: everything that was acknowledged anywhere before
    /// the call is in it. Where a branch of a distributed transaction has a lock, its outcome is
    /// waited for: it may be known elsewhere already.
    pub async fn read_latest(
        &self,
        range: Range,
        call: &Call,
    ) -> Result<(ResponseHeader, RangeOutcome), Status> {
        self.backend.read_barrier(call.timeout).await?;
        match self.backend.reader().range_unlocked(&range).map_err(unread)? {
            Some((revision, outcome)) => Ok((self.header(revision), outcome)),
            None => {
                let (header, range) = self.unlock(range, call).await?;
                let (_, outcome) = self.read(&range)?;
                Ok((header, outcome))
            }
        }
    }

    /// The same, piece by piece.
    pub async fn stream_latest(
        &self,
        range: Range,
        call: &Call,
    ) -> Result<RangeStream<B::Engine>, Status> {
        self.backend.read_barrier(call.timeout).await?;
        match self.backend.reader().stream_unlocked(&range).map_err(unread)? {
            Some(stream) => Ok(stream),
            None => {
                let (_, range) = self.unlock(range, call).await?;
                self.backend.reader().stream(&range).map_err(unread)
            }
        }
    }

    /// Waits in the keyspace's own line until nobody has a lock of the range: the range as of
    /// that moment's revision.
    async fn unlock(&self, range: Range, call: &Call) -> Result<(ResponseHeader, Range), Status> {
        let barrier = Command::Barrier { ranges: vec![range.range.clone()] };
        match self.propose(barrier, call).await? {
            (header, Outcome::Barrier) => {
                let revision = convert::revision(header.revision);
                Ok((header, Range { revision, ..range }))
            }
            _ => Err(wrong_outcome()),
        }
    }

    /// Refuses what this member's quota has no room for, and raises the alarm that says so, as
    /// etcd does: it is cleared once there is room again.
    pub async fn make_sure_it_fits(&self, call: &Call) -> Result<(), Status> {
        if self.backend.fits(call.size as u64) {
            return Ok(());
        }
        let member = self.identity.member;
        if !self.backend.reader().raised(Alarm::NoSpace, Some(member)) {
            let raise = Command::Alarm { raise: true, member, alarm: Alarm::NoSpace };
            self.propose(raise, call).await?;
        }
        Err(Refusal::NoSpace.into())
    }

    /// Proposes a command and tells the revision and outcome of a success.
    pub async fn propose(
        &self,
        command: Command,
        call: &Call,
    ) -> Result<(ResponseHeader, Outcome), Status> {
        if call.size > self.options.max_request_bytes {
            return Err(Refusal::RequestTooLarge.into());
        }
        let pending = self.metrics.proposal();
        let reply = match self.backend.propose(command, call.timeout).await {
            Ok(reply) => reply,
            Err(error) => {
                pending.failed();
                return Err(error.into());
            }
        };
        drop(pending);
        let outcome = reply.result.map_err(Refusal::from)?;
        Ok((self.header(reply.revision), outcome))
    }
}

/// The keyspace answered a command with the outcome of another: a bug of ours.
pub(crate) fn wrong_outcome() -> Status {
    Status::internal("the keyspace answered with another command's outcome")
}
