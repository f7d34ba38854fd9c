//! What a site is told.

use crate::effects::WriteId;
use crate::message::Message;
use crate::vote::{Outcome, Vote};
use quorate_base::Instant;

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// To the coordinator: run the transaction. Whoever has not voted by the deadline is taken
    /// to have voted No. Given once for an attempt, ever: after a restart that left no record, the
    /// next attempt has the next epoch.
    Begin {
        /// The deadline.
        deadline: Instant,
    },
    /// To the coordinator: abort, if that is still open.
    Cancel,
    /// To a participant: the application itself has done the branch's work; prepare it.
    Prepare,
    /// A message arrived.
    Message(Message),
    /// This write and all before it are durable.
    Written {
        /// The write.
        id: WriteId,
    },
    /// The resource has done what it was ordered to.
    Resource(Answer),
    /// Drop all memory of a transaction that is completed everywhere.
    Forget,
}

/// What the resource did.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// Prepare: done (a Yes is durable), or not.
    Prepared(Vote),
    /// Commit: done, with proof.
    Committed,
    /// Roll back: done.
    RolledBack,
    /// The branch had been finished by hand, with this outcome, before the order came.
    Heuristic(Outcome),
}
