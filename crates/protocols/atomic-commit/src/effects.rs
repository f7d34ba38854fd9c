//! What a site wants done.

use crate::ids::BranchId;
use crate::message::Message;
use crate::record::Record;
use crate::vote::Decision;
use alloc::vec::Vec;

/// Numbers a site's writes, from 1. Durable means: this one and every earlier one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct WriteId(pub u64);

/// A record to be remembered.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Write {
    /// Its number.
    pub id: WriteId,
    /// What to remember, after all earlier records.
    pub record: Record,
    /// Somebody waits for it. Others may become durable whenever it is convenient, but do: a send
    /// may be held back by one.
    pub forced: bool,
}

/// A message to another site, or to this one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Send {
    /// What, and to whom.
    pub message: Message,
    /// It may only leave once this write is durable.
    pub after: Option<WriteId>,
}

/// What the participant's resource is to do. Orders are carried out in order, are idempotent, and
/// are answered by `Input::Resource`; a prepare that follows a rollback is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Order {
    /// Do the branch's work so that it survives everything, and keep its locks.
    Prepare,
    /// Do the branch's work and commit it.
    CommitAlone,
    /// Commit what is prepared. Answered only when there is proof that it took effect.
    Commit,
    /// Roll back what is prepared, is being prepared, or was never heard of.
    Rollback,
    /// Drop what was kept as proof.
    Forget,
}

/// Something the host should know.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// This site knows how the transaction ends, and will for ever. Once per run.
    Decided(Decision),
    /// Every participant has proven that it applied the decision (or has nothing to apply): the
    /// host may give `Input::Forget` to all sites once no message of it can be under way any more.
    Completed,
    /// A branch was finished by hand against the decision.
    Heuristic(BranchId),
    /// The host asked for something that this site refuses; nothing has happened.
    Refused(Refusal),
    /// A message was of no use.
    Ignored(Ignored),
}

/// Why something the host asked for was not done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// This attempt was begun before, or is decided already: look at the status.
    NotNew,
    /// It is too late to cancel, or the decision lies elsewhere.
    TooLate,
    /// Somebody may still need what this site remembers.
    StillNeeded,
}

/// Why a message was ignored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ignored {
    /// Of another transaction, or for another site.
    NotMine,
    /// Of an earlier attempt: that one is aborted already.
    EarlierEpoch,
    /// From a site that the transaction does not have, or with other terms.
    UnknownSite,
    /// It contradicts what this site knows for certain: the sender is at fault.
    Impossible,
}

/// A batch of effects, reused from step to step.
#[derive(Default, Debug)]
pub struct Effects {
    /// For the log, in order.
    pub writes: Vec<Write>,
    /// For the network.
    pub sends: Vec<Send>,
    /// For the resource, in order.
    pub orders: Vec<Order>,
    /// The rest.
    pub events: Vec<Event>,
}

impl Effects {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
            && self.sends.is_empty()
            && self.orders.is_empty()
            && self.events.is_empty()
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.writes.clear();
        self.sends.clear();
        self.orders.clear();
        self.events.clear();
    }
}
