//! One batch of entries being applied: what each entry says, and who is answered.
//!
//! Invariant: a request is carried out once, when it is admitted or, if it meets the locks of a
//! branch, when they are free; then it is answered.

use crate::apply::Execution;
use crate::asked::Asks;
use crate::canary::{Bug, Canary};
use crate::codec;
use crate::command::Command;
use crate::keyspace::EventBatch;
use crate::lessor::Lessor;
use crate::reply::{KeyspaceError, Outcome, Reply};
use crate::state::State;
use bytes::Bytes;
use quorate_base::codec::DecodeError;
use quorate_base::{NodeId, RequestId};
use quorate_mvcc::{Engine, WriteTxn};
use quorate_replicated_log::{Entry, Membership, Payload};
use quorate_service::{Applied, Envelope, ServiceError};

/// What applying brings forth.
pub(crate) type Answers = Applied<Reply, EventBatch>;

/// See the module.
pub(crate) struct Batch<'a, 's, E: Engine> {
    pub txn: &'a mut WriteTxn<'s, E>,
    pub state: &'a mut State,
    pub lessor: &'a mut Lessor,
    pub canary: Canary,
    /// Whose sessions changed.
    pub sessions: Vec<NodeId>,
    /// Who asked for what was carried out.
    pub asks: Asks,
}

impl<'s, E: Engine> Batch<'_, 's, E> {
    pub fn entry(&mut self, entry: &Entry, applied: &mut Answers) -> Result<(), ServiceError> {
        let unreadable =
            |e: DecodeError| ServiceError::Command(format!("entry {}: {e}", entry.index));
        let (bytes, log) = match &entry.payload {
            Payload::Noop | Payload::Lead(_) | Payload::Seal { .. } => (None, None),
            Payload::Command(bytes) => (Some(bytes), None),
            Payload::Members { membership, context } => {
                (Some(context).filter(|context| !context.is_empty()), Some(&**membership))
            }
        };
        self.state.base.apply(entry.index, &entry.payload);
        if let Some(bytes) = bytes {
            let envelope = Envelope::decode(bytes.clone()).map_err(unreadable)?;
            self.envelope(envelope, log, applied, unreadable)?;
        }
        Ok(())
    }

    fn envelope(
        &mut self,
        envelope: Envelope,
        log: Option<&Membership>,
        applied: &mut Answers,
        unreadable: impl Fn(DecodeError) -> ServiceError,
    ) -> Result<(), ServiceError> {
        let Envelope { request, body } = envelope;
        // Every replica must be able to read what it skips: else they would part later.
        let command = codec::decode(body.clone()).map_err(unreadable)?;
        if self.state.board.members.was_removed(request.node) {
            return Ok(());
        }
        if !self.sessions.contains(&request.node) {
            self.sessions.push(request.node);
        }
        let admitted = self.state.sessions.admit(request);
        if !admitted && !self.canary.sings(Bug::ApplyRetriedRequest) {
            // Whoever asked is answered by the first application.
            return Ok(());
        }
        self.asks.count(request.node, matches!(command, Command::Branch(_)));
        self.perform(request, command, body, log, applied)
    }

    fn perform(
        &mut self,
        request: RequestId,
        command: Command,
        body: Bytes,
        log: Option<&Membership>,
        applied: &mut Answers,
    ) -> Result<(), ServiceError> {
        let command = match command {
            Command::Branch(command) => return self.branch(request, command, body, applied),
            Command::Unqueue { entries } => {
                self.answer(request, Ok(Outcome::Unqueued), applied);
                return self.unqueue(&entries, applied);
            }
            command if self.state.branches.is_idle() => command,
            command => match self.wait_if_locked(request, command, body, applied) {
                Some(command) => command,
                None => return Ok(()),
            },
        };
        let result = self.execution(log).run(command)?;
        self.answer(request, result, applied);
        Ok(())
    }

    pub fn execution<'b>(&'b mut self, log: Option<&'b Membership>) -> Execution<'b, 's, E> {
        // Who leads now: what waited must not speak for an earlier leader.
        let ballot = self.state.base.position.ballot;
        Execution::new(self.txn, self.state, self.lessor, ballot, log, self.canary)
    }

    pub fn answer(
        &self,
        request: RequestId,
        result: Result<Outcome, KeyspaceError>,
        applied: &mut Answers,
    ) {
        applied.replies.push((request, Reply { revision: self.txn.revision(), result }));
    }
}
