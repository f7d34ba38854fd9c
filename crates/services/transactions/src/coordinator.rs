//! One transaction, as whoever drives it sees it: what it is told, and what it wants done.
//!
//! Invariants: one write of the record is under way at a time; the host is told no decision before
//! there is a record, and no participant is told to commit but by what the record says, or by votes
//! that nobody can take back. What has no record yet may be rolled back: nobody can commit it.

use crate::canary::{Bug, Canary};
use crate::record::{BranchRecord, BranchState, Carried, Owner, Record, Stage};
use quorate_atomic_commit as commit;
use quorate_atomic_commit::two_phase;
use quorate_atomic_commit::{Config, Epoch, Key, Protocol, Terms, TransactionId};
use quorate_base::Instant;
use std::sync::Arc;
use std::time::Duration;

/// What a coordinator is set to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// After this long without a vote the branch is asked again. The host repeats what got no
    /// answer by itself, so this is for a host that does not.
    pub retry: Duration,
    /// A deliberate bug.
    pub canary: Canary,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { retry: Duration::from_secs(3_600), canary: Canary::NONE }
    }
}

/// A transaction that is to begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// The hash of what the client asked for.
    pub content: u128,
    /// How the participants agree: two-phase commit or Paxos Commit.
    pub protocol: Protocol,
    /// Who drives it.
    pub owner: Owner,
    /// How long it may stay undecided.
    pub patience: Duration,
    /// Its branches: at least one.
    pub branches: Vec<BranchRecord>,
    /// The transactions that it carries, if it is a bundle.
    pub carried: Arc<[Carried]>,
    /// The revision of the records as of which its ids were seen to be free; zero: nobody looked.
    pub free_as_of: u64,
    /// How long the first record of a bundle with branches in databases may wait for the votes, so
    /// that it is the decision; zero, where the records may not answer: what has locked rows waits
    /// for them.
    pub first_record: Duration,
}

/// The time, as the host has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// Monotonic.
    pub now: Instant,
    /// Milliseconds since 1970: for people, and for priorities, which nothing depends on.
    pub wall_ms: u64,
}

/// What a participant answered when it was asked to prepare.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Vote {
    /// It is prepared.
    Yes,
    /// It only read, and has ended.
    ReadOnly,
    /// It is rolled back.
    No {
        /// Why.
        reason: String,
        /// It can be tried again, with a priority above this one.
        again: Option<u64>,
    },
    /// As the only participant it has committed; a keyspace, at this revision.
    Done(u64),
}

/// What a participant answered when it was told a decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// It is proven to be committed; in a keyspace, at this revision.
    Committed(u64),
    /// It is rolled back, and will not prepare any more.
    RolledBack,
    /// Somebody ended it against the decision.
    Heuristic(String),
    /// It has heard of a later epoch: somebody else drives the transaction.
    Superseded,
}

/// What a participant's vote turned out to be when it was asked to close it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// It is prepared.
    Yes,
    /// It is committed already; in a keyspace, at this revision.
    Committed(u64),
    /// It is not prepared and never will be: why, if it said so itself before it was asked.
    No(Option<String>),
    /// It has heard of a later epoch: somebody else drives the transaction.
    Superseded,
}

/// How a write of the record ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// It is durable, at this revision.
    Done(u64),
    /// The record was not as expected: it is somebody else's now.
    Lost,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A write has ended.
    Stored {
        /// Its number.
        number: u64,
        /// How.
        stored: Stored,
    },
    /// A branch voted.
    Voted {
        /// Its index.
        branch: u16,
        /// In which epoch it had been asked.
        epoch: u32,
        /// How.
        vote: Vote,
    },
    /// A branch's vote is closed.
    Resolved {
        /// Its index.
        branch: u16,
        /// In which epoch it had been asked to close it.
        epoch: u32,
        /// What it is.
        found: Found,
    },
    /// A branch has ended.
    Settled {
        /// Its index.
        branch: u16,
        /// In which epoch it had been told.
        epoch: u32,
        /// How.
        end: End,
    },
    /// A participant does not answer, or not as hoped; it is asked again.
    Trouble {
        /// The branch's index.
        branch: u16,
        /// What, in words.
        what: String,
    },
    /// People have seen to a branch that was ended against the decision.
    Acknowledge {
        /// Its index.
        branch: u16,
    },
    /// Its client does not want it any more: it is rolled back, unless it is decided.
    Cancel,
    /// Time has passed.
    Tick,
    /// Write down what is waited for, so that everybody can see it and that somebody is at work.
    Note,
    /// The record is so in a replica of the store: of use where nothing is written that would tell.
    Seen {
        /// The revision of the replica.
        as_of: u64,
        /// That of the record in it; none, if there is none.
        record: Option<u64>,
    },
}

/// The record is to be so from now on, if it is still as of `at`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreRequest {
    /// Numbers the writes of this coordinator.
    pub number: u64,
    /// The revision of the present record; none, if there must be none, not even a finished one.
    pub at: Option<u64>,
    /// The record.
    pub record: Record,
    /// The revision as of which its ids, those that it carries among them, were seen to be free;
    /// zero, if nobody looked.
    pub free_as_of: u64,
}

/// What is to be done. All but the last three are answered by an [`Input`], and may be repeated
/// until they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Write the record.
    Store(StoreRequest),
    /// Ask a branch to prepare.
    Prepare {
        /// Its index.
        branch: u16,
        /// The attempt.
        epoch: u32,
        /// The attempt's priority, the same for all branches: smaller is older.
        priority: u64,
        /// It is the only one: it may commit at once.
        alone: bool,
    },
    /// Close a branch's vote, and learn it.
    Resolve {
        /// Its index.
        branch: u16,
        /// The epoch now.
        epoch: u32,
    },
    /// Tell a branch how it ends.
    Settle {
        /// Its index.
        branch: u16,
        /// Commit it, or roll it back.
        commit: bool,
        /// The epoch in which it was asked to prepare.
        asked: u32,
        /// The epoch now.
        epoch: u32,
    },
    /// It is decided, for ever: the record says how, or under Paxos Commit the votes do.
    Decided,
    /// It is over. If it was never taken over, its keyspaces may forget it once nothing that was
    /// asked of them on its behalf is under way any more: late copies are void then, because they
    /// come from a living node that has settled them. What a lost node sent may still arrive, even
    /// a prepare and the commit after it, and must find the outcome: that is forgotten only when
    /// the record is.
    Finished {
        /// Whether they may.
        forget: bool,
    },
    /// Somebody else drives it now.
    Deposed,
}

/// Where the coordinator is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// The first record, or the next attempt's, is being written.
    Beginning,
    /// It collects votes.
    Voting,
    /// An attempt met a younger transaction: it is rolled back, to be made again.
    Retreating,
    /// It asks its only participant how that has decided.
    Asking,
    /// The record says that this coordinator has taken it over, once that is written.
    Claiming,
    /// It closes the votes, and learns them.
    Resolving,
    /// Somebody else began a transaction of this id first: what was asked here is rolled back.
    Withdrawing,
    /// The decision is being written.
    Deciding,
    /// The decision is being carried out.
    Settling,
    /// The end is being written.
    Finishing,
    /// Nothing is left to be done here.
    Over,
}

/// Why a transaction is rolled back that its client does not want any more.
pub const CANCELLED: &str = "it was cancelled";

/// Drives one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coordinator {
    pub(crate) settings: Settings,
    pub(crate) id: u128,
    /// The record as it is, or as it will be when the write under way has ended.
    pub(crate) record: Record,
    /// Its revision in the store; none before it is there.
    pub(crate) at: Option<u64>,
    /// The number of the write under way, if there is one.
    pub(crate) writing: Option<u64>,
    pub(crate) writes: u64,
    /// See [`Start::free_as_of`].
    pub(crate) free_as_of: u64,
    /// When the first record is written at the latest, if it waits for the votes.
    pub(crate) first_by: Option<Instant>,
    /// Whether the first record says that it is committed: whoever is refused it cannot tell
    /// whether it is there, and driven by somebody else.
    pub(crate) staked: bool,
    /// Whether its client does not want it any more.
    pub(crate) cancelled: bool,
    /// Whether the record has what people must be able to see, and the store does not.
    pub(crate) unsaved: bool,
    /// Whether something is waited for of which the record in the store does not tell.
    pub(crate) troubled: bool,
    pub(crate) phase: Phase,
    /// What the votes have come to while the first write of the record, or a note, was under way.
    pub(crate) held: Option<commit::Decision>,
    /// Whether the host was told the decision.
    pub(crate) told: bool,
    pub(crate) site: two_phase::Coordinator,
    pub(crate) deadline: Instant,
    pub(crate) priority: u64,
    /// Why the last attempt was given up, and which branch caused it.
    pub(crate) setback: Option<(u16, String)>,
}

impl Coordinator {
    /// Begins a transaction. `id` is the hash of its id.
    ///
    /// Panics without a branch, or with more than there may be: the host checks what comes from
    /// outside.
    pub fn begin(
        settings: Settings,
        id: u128,
        start: Start,
        moment: Moment,
        out: &mut Vec<Effect>,
    ) -> Coordinator {
        let n = start.branches.len();
        assert!(n > 0 && n <= crate::MAX_BRANCHES, "a transaction of {n} branches");
        let record = Record {
            content: start.content,
            protocol: start.protocol,
            owner: start.owner,
            asker: start.owner,
            epoch: 1,
            asked: 1,
            began_ms: moment.wall_ms,
            patience_ms: u64::try_from(start.patience.as_millis()).unwrap_or(u64::MAX),
            changed_ms: moment.wall_ms,
            stage: Stage::Open,
            branches: start.branches,
            carried: start.carried,
        };
        let deadline = moment.now + start.patience;
        let mut it = Coordinator::of(settings, id, record, None, deadline);
        it.priority = moment.wall_ms;
        it.free_as_of = start.free_as_of;
        let waits = it.record.is_eager() && !it.record.is_in_keyspaces();
        if waits && !start.first_record.is_zero() {
            it.first_by = Some(moment.now + start.first_record);
        } else {
            it.store(moment, out);
        }
        if it.record.is_eager() {
            it.attempt(moment, out);
        }
        it
    }

    /// Takes over a transaction whose record is `record`, at revision `at`, because its owner is
    /// lost.
    ///
    /// Panics if it is finished: then there is nothing to take over.
    pub fn take_over(
        settings: Settings,
        id: u128,
        kept: (Record, u64),
        owner: Owner,
        moment: Moment,
        out: &mut Vec<Effect>,
    ) -> Coordinator {
        let node = kept.0.owner.node;
        let lost = format!("its coordinator {node} was lost before it had decided");
        Coordinator::take_from(settings, id, kept, (owner, lost), moment, out)
    }

    /// The same, because its client does not want it any more.
    pub fn take_to_cancel(
        settings: Settings,
        id: u128,
        kept: (Record, u64),
        owner: Owner,
        moment: Moment,
        out: &mut Vec<Effect>,
    ) -> Coordinator {
        Coordinator::take_from(settings, id, kept, (owner, CANCELLED.to_owned()), moment, out)
    }

    fn take_from(
        settings: Settings,
        id: u128,
        (record, at): (Record, u64),
        (owner, lost): (Owner, String),
        moment: Moment,
        out: &mut Vec<Effect>,
    ) -> Coordinator {
        assert!(!matches!(record.stage, Stage::Finished(_)), "what is finished has no owner");
        let mut it = Coordinator::of(settings, id, record, Some(at), moment.now);
        it.record.owner = owner;
        if !settings.canary.sings(Bug::TakeOverKeepsEpoch) {
            it.record.epoch = it.record.epoch.saturating_add(1);
        }
        it.phase = Phase::Claiming;
        let asks = !settings.canary.sings(Bug::TakeOverAborts);
        match it.record.stage {
            Stage::Open if it.record.is_decided_by_votes() && asks => {
                it.setback = Some((0, lost));
                it.store(moment, out);
            }
            Stage::Open if !it.record.is_alone() => it.bury(lost, moment, out),
            _ => it.store(moment, out),
        }
        it
    }

    fn of(
        settings: Settings,
        id: u128,
        record: Record,
        at: Option<u64>,
        deadline: Instant,
    ) -> Coordinator {
        let site = new_site(settings, id, &record);
        Coordinator {
            settings,
            id,
            record,
            at,
            writing: None,
            writes: 0,
            free_as_of: 0,
            first_by: None,
            staked: false,
            cancelled: false,
            unsaved: false,
            troubled: false,
            phase: Phase::Beginning,
            held: None,
            told: false,
            site,
            deadline,
            priority: 0,
            setback: None,
        }
    }

    /// The record as it is, or will be when the write under way has ended.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether the host was told that it is decided.
    pub fn is_told(&self) -> bool {
        self.told
    }

    /// Whether nothing is left to be done here.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// The epoch in which votes are wanted, while they are.
    pub fn asks(&self) -> Option<u32> {
        (self.phase == Phase::Voting).then_some(self.record.asked)
    }

    /// When the next tick is due, at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        use quorate_atomic_commit::AtomicCommit;
        match self.phase {
            Phase::Voting if self.record.is_alone() || self.waits_with_locks() => {
                Some(self.deadline)
            }
            // It is decided, and waits for the record.
            Phase::Voting if self.held.is_some() => None,
            Phase::Voting => self.site.next_timeout().into_iter().chain(self.first_by).min(),
            Phase::Retreating => Some(self.deadline),
            _ => None,
        }
    }

    /// Writes the record as it is now.
    pub(crate) fn store(&mut self, moment: Moment, out: &mut Vec<Effect>) {
        assert!(self.writing.is_none(), "one write at a time");
        self.record.changed_ms = moment.wall_ms;
        (self.unsaved, self.troubled, self.first_by) = (false, false, None);
        self.writes += 1;
        self.writing = Some(self.writes);
        let (number, at, record) = (self.writes, self.at, self.record.clone());
        let free_as_of = self.free_as_of;
        out.push(Effect::Store(StoreRequest { number, at, record, free_as_of }));
    }

    pub(crate) fn branch(&mut self, index: u16) -> Option<&mut BranchRecord> {
        self.record.branches.get_mut(usize::from(index))
    }

    pub(crate) fn state(&self, index: u16) -> Option<&BranchState> {
        self.record.branches.get(usize::from(index)).map(|branch| &branch.state)
    }
}

/// Two-phase commit's own coordinator of the record's present attempt, which has not begun.
pub(crate) fn new_site(settings: Settings, id: u128, record: &Record) -> two_phase::Coordinator {
    let config = Config { retry: settings.retry, ..Config::default() };
    let key = Key { transaction: TransactionId(id), epoch: Epoch(record.asked) };
    two_phase::Coordinator::restore(config, key, terms(record), &[])
}

pub(crate) fn terms(record: &Record) -> Terms {
    // There are never so many: the record is checked.
    Terms { branches: u16::try_from(record.branches.len()).unwrap_or(u16::MAX), acceptors: 0 }
}
