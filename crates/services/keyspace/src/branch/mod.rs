//! Branches of distributed transactions: the keyspace as a participant of atomic commit.
//!
//! A branch is a mini-transaction ([`Txn`]), or several that stand or fall together, each seeing
//! what those before it did. It is *prepared* (evaluated, and its keys locked) by one entry of the
//! group's log, and *committed* or *rolled back* by a later one. What holds, and why histories
//! across keyspaces are strictly serializable, is argued in `docs/branches.md`.
//!
//! Invariants:
//!
//! - A prepared branch is ended by its coordinator's word alone, and can always be committed: what
//!   it read, what it writes and the leases it uses cannot change meanwhile.
//! - Locks are taken all together or not at all, and held until the outcome is applied (strict
//!   two-phase locking). Who waits holds nothing in this group.
//! - Whoever waits, waits for the older only ([`Age`]): so nobody waits in a circle, whatever
//!   other groups do. A two-phase branch that would have to wait for a younger one votes no.
//! - An outcome is final until the coordinator says that it may be forgotten. A rollback of a
//!   branch never heard of is an outcome, too: it refuses the prepare that comes late.

mod age;
mod bytes;
mod lock_set;
mod lock_table;
mod patience;
mod prepare;
mod records;
mod table;
mod waiting;

pub use age::Age;
pub(crate) use bytes::{read_branch_command, write_branch_command};
pub use lock_set::LockSet;
pub(crate) use lock_table::LockTable;
pub use patience::LockConfig;
pub(crate) use patience::Patience;
pub(crate) use table::{Branches, Change};

use crate::codec;
use crate::command::{Command, Txn};
use crate::reply::{KeyspaceError, TxnOutcome};
use ::bytes::Bytes;
use quorate_mvcc::Revision;
use std::fmt;
use std::sync::Arc;

/// Bytes of a transaction's id.
pub const MAX_TRANSACTION_BYTES: usize = 64;
/// Branches that wait or are prepared, and commands that wait, in one keyspace.
pub const MAX_LIVE: usize = 4_096;
/// Bytes of their commands.
pub const MAX_LIVE_BYTES: usize = 64 << 20;
/// Outcomes that no coordinator has allowed to be forgotten yet.
pub const MAX_OUTCOMES: usize = 65_536;
/// Commands that may come together.
pub const MAX_TOGETHER: usize = 256;
/// Transactions in one branch.
pub const MAX_TXNS: usize = 128;

/// Names a branch: a transaction, and a number within it that its coordinator chose.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BranchId {
    /// The transaction: 1 to [`MAX_TRANSACTION_BYTES`] bytes, unique for ever.
    pub transaction: Bytes,
    /// The branch. A keyspace takes part in a transaction once.
    pub number: u32,
}

impl fmt::Display for BranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transaction.escape_ascii(), self.number)
    }
}

/// What a coordinator asks of a branch. All can be asked again, with the same answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BranchCommand {
    /// Evaluate it, lock what it touches, and vote.
    Prepare(Prepare),
    /// Apply it, at one revision for each of its transactions, and release its locks.
    Commit {
        /// The branch.
        id: BranchId,
        /// The attempt.
        epoch: u64,
    },
    /// Release its locks; remember that it is void.
    Rollback {
        /// The branch.
        id: BranchId,
        /// The attempt.
        epoch: u64,
    },
    /// Every participant has the outcome: forget it.
    Forget {
        /// The branch.
        id: BranchId,
        /// The attempt.
        epoch: u64,
    },
    /// Tell the vote. A branch that has given none is rolled back, and never says yes; one that is
    /// prepared stays so, and hears earlier attempts no more.
    Resolve {
        /// The branch.
        id: BranchId,
        /// The attempt that asks, later than the one that prepared it.
        epoch: u64,
    },
    /// Several at once, of different branches, done in order, each with an outcome of its own. None
    /// waits: where a prepare would have to, the outcome is [`BranchOutcome::Waiting`], and it has
    /// to be asked alone.
    Together(Vec<Part>),
}

/// One of several commands that come together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    command: BranchCommand,
    /// Its bytes as a command of its own.
    body: Bytes,
}

impl Part {
    /// # Errors
    /// [`BadPart`]
    pub fn new(command: BranchCommand) -> Result<Part, BadPart> {
        match &command {
            BranchCommand::Together(_) => return Err(BadPart::Nested),
            BranchCommand::Prepare(prepare) if prepare.one_phase => return Err(BadPart::OnePhase),
            _ => {}
        }
        let whole = Command::Branch(command);
        let body = codec::encode(&whole).map_err(BadPart::Unencodable)?;
        let Command::Branch(command) = whole else { return Err(BadPart::Nested) };
        Ok(Part { command, body })
    }

    /// Bytes of it.
    pub fn size(&self) -> usize {
        self.body.len()
    }
}

/// Why a command cannot come together with others. The coordinator's doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadPart {
    /// It is several itself.
    Nested,
    /// It commits at once, and may have to wait before.
    OnePhase,
    /// It has no bytes.
    Unencodable(codec::Unencodable),
}

/// A branch to be prepared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prepare {
    /// The branch.
    pub id: BranchId,
    /// Which attempt of the transaction this is: a later one is greater.
    pub epoch: u64,
    /// When this attempt began, as its coordinator counts: smaller is older. The same for all
    /// branches of the attempt.
    pub priority: u64,
    /// What it does, in order: 1 to [`MAX_TXNS`]. All see the present, and what those before them
    /// did; the results of their ranges come with the vote.
    pub txns: Arc<[Txn]>,
    /// Whether `failure` is done when a compare does not hold. Otherwise the vote is no.
    pub or_else: bool,
    /// Whether the keyspace is the only participant: then a yes commits at once.
    pub one_phase: bool,
}

/// What one of a branch's transactions did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// The store's revision right after it.
    pub revision: Revision,
    /// What it did.
    pub outcome: TxnOutcome,
}

/// How a branch stands after a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BranchOutcome {
    /// It is prepared: the vote is yes. What its transactions would do, each; the revisions of what
    /// they write are a guess until it is committed.
    Prepared(Vec<Done>),
    /// It is committed.
    Committed {
        /// The last revision that did it; of a branch that changed nothing, the one it was done at.
        revision: Revision,
        /// What its transactions did, each; nothing if this is told again.
        done: Option<Vec<Done>>,
    },
    /// It is rolled back; to a prepare, the vote is no.
    RolledBack(No),
    /// Nothing is known of it any more.
    Forgotten,
    /// It still waits for its locks, and another request has asked since: that one will be told.
    /// Or it would have to wait, and came together with others: it has to be asked alone.
    Waiting,
    /// Of each of several, in order.
    Together(Vec<BranchOutcome>),
    /// The command makes no sense now, and nothing was changed.
    Refused(BranchError),
}

/// What a keyspace says of a branch that it knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BranchInfo {
    /// The branch.
    pub id: BranchId,
    /// Its latest attempt.
    pub epoch: u64,
    /// How it stands.
    pub state: BranchState,
}

/// How a branch stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BranchState {
    /// It waits for its locks.
    Waiting,
    /// It has its locks and waits for its coordinator's decision.
    Prepared {
        /// Its priority.
        priority: u64,
    },
    /// It was committed at that revision.
    Committed(Revision),
    /// It was rolled back.
    RolledBack(No),
}

/// Why a branch is rolled back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum No {
    /// Its coordinator said so.
    Told,
    /// A compare does not hold.
    CompareFailed,
    /// It would have to wait for a younger branch. To be tried again as a younger one.
    Conflict {
        /// The priority of the youngest branch in its way.
        priority: u64,
    },
    /// It waited longer than the keyspace lets anyone wait.
    Waited,
    /// The keyspace refuses it.
    Refused(KeyspaceError),
    /// One of its transactions compares a revision that another of them makes: which that is turns
    /// out at the commit, and could turn a yes into a no.
    OwnRevision,
}

/// Why a command on a branch makes no sense. The coordinator's doing, every one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BranchError {
    /// The command belongs to an earlier attempt than the branch.
    OldEpoch {
        /// The branch's attempt.
        current: u64,
    },
    /// The branch was asked for with another content in the same attempt.
    OtherContent,
    /// An earlier attempt is prepared: it has to be rolled back first.
    StillPrepared {
        /// That attempt.
        epoch: u64,
    },
    /// To be committed, but never heard of, or forgotten.
    Unknown,
    /// To be committed, but it still waits for its locks.
    NotPrepared,
    /// To be committed, but it was rolled back.
    RolledBack,
    /// To be rolled back, but it was committed.
    Committed {
        /// The revision that did it.
        revision: Revision,
    },
    /// To be forgotten, but it has no outcome yet.
    Undecided,
    /// The transaction has another branch in this keyspace.
    Twice,
    /// There are as many branches, waiting commands or outcomes as there may be.
    TooMany,
    /// A range reads an old revision: a branch reads the present.
    OldRevision,
    /// The transaction's id is empty or too long.
    BadId,
    /// It has no transaction, or too many.
    BadCount,
}

impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            No::Told => write!(f, "the coordinator rolled it back"),
            No::CompareFailed => write!(f, "a compare does not hold"),
            No::Conflict { priority } => {
                write!(f, "it met a lock of a younger transaction (priority {priority}): try again")
            }
            No::Waited => write!(f, "it waited too long for a lock"),
            No::Refused(why) => write!(f, "the keyspace refuses it: {why:?}"),
            No::OwnRevision => {
                write!(f, "it compares a revision that is not known before it commits")
            }
        }
    }
}

impl fmt::Display for BranchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BranchError::OldEpoch { current } => {
                write!(f, "the branch is at attempt {current} already")
            }
            BranchError::OtherContent => write!(f, "the branch was prepared with other content"),
            BranchError::StillPrepared { epoch } => {
                write!(f, "attempt {epoch} is still prepared: roll it back first")
            }
            BranchError::Unknown => {
                write!(f, "no such branch: it was never prepared or is forgotten")
            }
            BranchError::NotPrepared => write!(f, "the branch still waits for its locks"),
            BranchError::RolledBack => write!(f, "the branch was rolled back"),
            BranchError::Committed { revision } => {
                write!(f, "the branch was committed at revision {revision}")
            }
            BranchError::Undecided => write!(f, "the branch has no outcome yet"),
            BranchError::Twice => {
                write!(f, "the transaction has another branch in this keyspace: make one of both")
            }
            BranchError::TooMany => {
                write!(f, "the keyspace has too many branches: end and forget some first")
            }
            BranchError::OldRevision => write!(f, "a branch reads the present: name no revision"),
            BranchError::BadId => {
                write!(f, "a transaction's id has 1 to {MAX_TRANSACTION_BYTES} bytes")
            }
            BranchError::BadCount => {
                write!(f, "a branch has 1 to {MAX_TXNS} transactions")
            }
        }
    }
}
