//! The record of a transaction: all that a coordinator must know to end what another began.

use quorate_atomic_commit::Protocol;
use quorate_base::{GroupId, NodeId};
use std::sync::Arc;

/// Branches that a transaction may have.
pub const MAX_BRANCHES: usize = 32;
/// Transactions that a bundle may carry.
pub const MAX_CARRIED: usize = 64;

/// One run of a coordinator: nobody else ever has the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Owner {
    /// The node.
    pub node: NodeId,
    /// One life of it.
    pub run: u64,
}

/// What a participant is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A keyspace of this cluster.
    Keyspace,
    /// A PostgreSQL database.
    Postgres,
    /// A MariaDB database.
    MariaDb,
    /// An HTTP service.
    Http,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::Keyspace, Kind::Postgres, Kind::MariaDb, Kind::Http];

    /// How people write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Keyspace => "keyspace",
            Kind::Postgres => "postgres",
            Kind::MariaDb => "mariadb",
            Kind::Http => "http",
        }
    }
}

/// How a branch stands, as far as its coordinator knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BranchState {
    /// It was, or is about to be, asked to prepare, and has not voted.
    Asked,
    /// It voted yes.
    Prepared,
    /// It only read, and has ended.
    ReadOnly,
    /// It voted no, and is rolled back.
    Refused(String),
    /// It is proven to be committed; in a keyspace, at this revision.
    Committed(u64),
    /// It is proven to be rolled back.
    RolledBack,
    /// Somebody ended it against the decision. An alarm: the transaction is kept until people have
    /// seen to it.
    Heuristic(String),
    /// The same, and people have seen to it: nothing is waited for any more.
    Acknowledged(String),
}

impl BranchState {
    /// Whether the branch has nothing to lose: it holds nothing, and never will.
    pub fn is_void(&self) -> bool {
        use BranchState::{ReadOnly, Refused, RolledBack};
        matches!(self, ReadOnly | Refused(_) | RolledBack)
    }

    /// Whether a decision has to be told.
    pub fn is_open(&self) -> bool {
        matches!(self, BranchState::Asked | BranchState::Prepared)
    }
}

/// How a branch voted: its state goes on, this stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Voted {
    /// Yes.
    Yes,
    /// It only read.
    ReadOnly,
    /// No.
    No,
}

impl Voted {
    /// How people write it.
    pub fn name(self) -> &'static str {
        match self {
            Voted::Yes => "yes",
            Voted::ReadOnly => "read-only",
            Voted::No => "no",
        }
    }
}

/// One branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BranchRecord {
    /// What the client calls it.
    pub name: String,
    /// What its participant is.
    pub kind: Kind,
    /// What the participant is called.
    pub participant: String,
    /// The keyspace's group, which is never another's; zero for others.
    pub group: GroupId,
    /// How it stands.
    pub state: BranchState,
    /// How it voted in the present attempt, as far as its coordinator has heard. For people, as
    /// are the times: nothing is decided by them.
    pub vote: Option<Voted>,
    /// When its coordinator heard that, as `began_ms`; zero, if it has not.
    pub voted_ms: u64,
    /// When its end was proven, or found to be against the decision; zero, if it was not.
    pub ended_ms: u64,
    /// What its coordinator waits for, in words; empty if for nothing in particular.
    pub trouble: String,
}

impl BranchRecord {
    /// A branch in a keyspace that is about to be asked.
    pub fn keyspace(name: &str, keyspace: &str, group: GroupId) -> BranchRecord {
        BranchRecord {
            name: name.to_owned(),
            kind: Kind::Keyspace,
            participant: keyspace.to_owned(),
            group,
            state: BranchState::Asked,
            vote: None,
            voted_ms: 0,
            ended_ms: 0,
            trouble: String::new(),
        }
    }

    /// It is asked, in an attempt of its own.
    pub(crate) fn ask(&mut self) {
        self.state = BranchState::Asked;
        (self.vote, self.voted_ms, self.ended_ms) = (None, 0, 0);
    }

    /// Its vote is heard.
    pub(crate) fn voted(&mut self, vote: Voted, state: BranchState, wall_ms: u64) {
        (self.vote, self.voted_ms) = (Some(vote), wall_ms);
        match state.is_open() {
            true => self.state = state,
            false => self.ended(state, wall_ms),
        }
    }

    /// How it ended is known.
    pub(crate) fn ended(&mut self, state: BranchState, wall_ms: u64) {
        (self.state, self.ended_ms) = (state, wall_ms);
    }
}

/// How a transaction ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Everywhere.
    Commit,
    /// Nowhere.
    Abort {
        /// The branch that caused it, if one did: its index.
        branch: Option<u16>,
        /// Why.
        reason: String,
    },
}

impl Verdict {
    /// Whether it is to commit.
    pub fn commits(&self) -> bool {
        *self == Verdict::Commit
    }
}

/// How far a transaction has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Undecided.
    Open,
    /// Decided, and not yet applied everywhere.
    Decided(Verdict),
    /// Decided, and applied everywhere.
    Finished(Verdict),
}

impl Stage {
    /// How the transaction ends, if that is decided.
    pub fn verdict(&self) -> Option<&Verdict> {
        match self {
            Stage::Open => None,
            Stage::Decided(verdict) | Stage::Finished(verdict) => Some(verdict),
        }
    }
}

/// A client's transaction that is carried by another, a *bundle*: it takes effect if and only if
/// the bundle does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Carried {
    /// Its id.
    pub id: String,
    /// The hash of what its client asked for.
    pub content: u128,
}

/// The record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The hash of what the client asked for.
    pub content: u128,
    /// How the participants agree.
    pub protocol: Protocol,
    /// Who drives it.
    pub owner: Owner,
    /// Who began it: its branches in keyspaces bear its name, so that those of somebody else who
    /// began a transaction of the same id at the same time are told from them.
    pub asker: Owner,
    /// Counts the attempts and the changes of owner.
    pub epoch: u32,
    /// The epoch in which the branches were asked to prepare.
    pub asked: u32,
    /// When it began, by its first owner's clock, in milliseconds since 1970. For people.
    pub began_ms: u64,
    /// How long it may stay undecided, in milliseconds.
    pub patience_ms: u64,
    /// When the record was last changed, by the owner's clock. For people, and for how long a
    /// finished record is kept.
    pub changed_ms: u64,
    /// How far it has come.
    pub stage: Stage,
    /// Its branches.
    pub branches: Vec<BranchRecord>,
    /// The transactions that it carries, in the order in which they are done, if it is a bundle.
    /// Their own records, if they get any, come after this one is aborted.
    pub carried: Arc<[Carried]>,
}

impl Record {
    /// The record of a transaction that nobody ever began: a branch of it was found, and it is
    /// void. Made by `owner`, now, and why.
    pub fn void(owner: Owner, wall_ms: u64, why: &str) -> Record {
        Record {
            content: 0,
            protocol: Protocol::TwoPhase,
            owner,
            asker: Owner::default(),
            epoch: 1,
            asked: 0,
            began_ms: wall_ms,
            patience_ms: 0,
            changed_ms: wall_ms,
            stage: Stage::Finished(Verdict::Abort { branch: None, reason: why.to_owned() }),
            branches: Vec::new(),
            carried: Arc::default(),
        }
    }

    /// Whether its only participant decides by itself.
    pub fn is_alone(&self) -> bool {
        self.branches.len() == 1
    }

    /// Whether its branches are asked beside the first write of the record, not after it: where
    /// nobody else asks for branches of the same names. Those in keyspaces bear the asker's name,
    /// and those of a bundle its id, which nobody else makes.
    pub fn is_eager(&self) -> bool {
        !self.is_alone() && (self.is_in_keyspaces() || !self.carried.is_empty())
    }

    /// Whether all of its participants are keyspaces.
    pub fn is_in_keyspaces(&self) -> bool {
        self.branches.iter().all(|branch| branch.kind == Kind::Keyspace)
    }

    /// Whether the votes are the decision, so that nobody may decide without them: as in Paxos
    /// Commit every participant's vote is chosen by a consensus of its own, the log of its group.
    pub fn is_decided_by_votes(&self) -> bool {
        self.protocol == Protocol::PaxosCommit && !self.is_alone() && self.is_in_keyspaces()
    }

    /// Whether nobody ever began it: a branch of it was found, and the record says that it is void.
    pub fn is_void(&self) -> bool {
        self.asked == 0
    }

    /// Whether nothing is left to be done but by people: an alarm is all that keeps it.
    pub fn waits_for_people(&self) -> bool {
        let alarm = |branch: &BranchRecord| matches!(branch.state, BranchState::Heuristic(_));
        matches!(self.stage, Stage::Decided(_))
            && self.branches.iter().any(alarm)
            && self.open_branches().next().is_none()
    }

    /// The branches that a decision still has to reach.
    pub fn open_branches(&self) -> impl Iterator<Item = u16> + '_ {
        let all = (0u16..).zip(&self.branches);
        all.filter(|(_, branch)| branch.state.is_open()).map(|(index, _)| index)
    }
}
