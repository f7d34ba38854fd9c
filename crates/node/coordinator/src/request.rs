//! What a client asks for, and whether it can be.

use crate::error::RunError;
use quorate_atomic_commit::Protocol;
use quorate_keyspace::command::{Operation, Txn};
use quorate_resource_managers::{BRANCH_LIMIT, Kind, PARTICIPANT_LIMIT, SqlWork, Work};
use quorate_transactions::{MAX_BRANCHES, check_id};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of the longest name of a keyspace.
const KEYSPACE_LIMIT: usize = 64;
/// The shortest and the longest time that a transaction may stay undecided.
const PATIENCE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(600);
/// Bytes of a transaction: keys, values, statements, bodies.
pub const MAX_BYTES: usize = 1 << 20;

/// A transaction to be run.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// Its id, chosen by the client: whoever asks again under the same one gets the same outcome.
    pub id: String,
    /// The hash of everything else.
    pub content: u128,
    /// Bytes of it.
    pub bytes: usize,
    /// How long it may stay undecided.
    pub patience: Duration,
    /// How its participants agree.
    pub protocol: Protocol,
    /// Whether it may not be carried with others.
    pub alone: bool,
    /// Its branches.
    pub branches: Vec<Branch>,
}

/// One branch.
#[derive(Clone, PartialEq, Debug)]
pub struct Branch {
    /// Its name within the transaction.
    pub name: String,
    /// What its participant is called.
    pub participant: String,
    /// What it does there.
    pub work: BranchWork,
}

/// What a branch does.
#[derive(Clone, PartialEq, Debug)]
pub enum BranchWork {
    /// In a keyspace: compares, then operations.
    Keyspace {
        /// These: a client's one, or one of each client that a bundle carries.
        txns: Arc<[Txn]>,
        /// Whether the other list is done where a compare does not hold; otherwise that is a no.
        or_else: bool,
    },
    /// At a participant outside.
    Manager(Kind, Work),
}

impl BranchWork {
    /// What is done in a database by statements.
    pub(crate) fn sql(&self) -> Option<&SqlWork> {
        match self {
            BranchWork::Manager(_, Work::Sql(work)) => Some(work),
            _ => None,
        }
    }

    /// What is done in a keyspace.
    pub(crate) fn txns(&self) -> &[Txn] {
        match self {
            BranchWork::Keyspace { txns, .. } => txns,
            BranchWork::Manager(..) => &[],
        }
    }
}

/// How the participants of these branches agree, where nobody says: their votes decide if all of
/// them are keyspaces, whose votes are replicated.
pub fn usual_protocol(branches: &[Branch]) -> Protocol {
    match branches.iter().all(|branch| matches!(branch.work, BranchWork::Keyspace { .. })) {
        true => Protocol::PaxosCommit,
        false => Protocol::TwoPhase,
    }
}

impl Request {
    /// Whether it is told of keys in keyspaces, and not only that it is done.
    pub(crate) fn reads(&self) -> bool {
        self.branches.iter().flat_map(|branch| branch.work.txns()).any(reads)
    }

    /// Checks what can be checked without asking anybody.
    pub(crate) fn check(&self) -> Result<(), RunError> {
        let invalid = |why: String| Err(RunError::Invalid(why));
        check_id(&self.id).map_err(|why| RunError::Invalid(why.to_string()))?;
        if !matches!(self.protocol, Protocol::TwoPhase | Protocol::PaxosCommit) {
            return invalid(format!(
                "the protocol {} is not run between nodes: say two-phase or paxos-commit",
                self.protocol
            ));
        }
        let usual = usual_protocol(&self.branches);
        if self.protocol == Protocol::PaxosCommit && usual != Protocol::PaxosCommit {
            return invalid(
                "paxos-commit is for keyspaces alone, whose votes are replicated: with databases \
                 and HTTP services say two-phase"
                    .to_owned(),
            );
        }
        if !PATIENCE.contains(&self.patience) {
            let (least, most) = (PATIENCE.start(), PATIENCE.end());
            return invalid(format!(
                "a transaction may stay undecided for {least:?} to {most:?}, not {:?}",
                self.patience
            ));
        }
        let n = self.branches.len();
        if n == 0 || n > MAX_BRANCHES {
            return invalid(format!("a transaction has 1 to {MAX_BRANCHES} branches, not {n}"));
        }
        let (mut names, mut participants) = (BTreeSet::new(), BTreeSet::new());
        for branch in &self.branches {
            branch.check()?;
            if !names.insert(branch.name.as_str()) {
                return invalid(format!("two branches are called {:?}", branch.name));
            }
            let keyspace = matches!(branch.work, BranchWork::Keyspace { .. });
            if !participants.insert((keyspace, branch.participant.as_str())) {
                return invalid(format!(
                    "the participant {:?} is named by two branches: make one of both",
                    branch.participant
                ));
            }
        }
        Ok(())
    }
}

impl Branch {
    /// Whether the application has prepared it itself.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.work, BranchWork::Manager(_, Work::Prepared(_)))
    }

    fn check(&self) -> Result<(), RunError> {
        let wrong = |why: String| Err(RunError::Invalid(format!("branch {:?}: {why}", self.name)));
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.name.is_empty() || self.name.len() > BRANCH_LIMIT || !self.name.chars().all(good) {
            return wrong(format!(
                "a branch's name has 1 to {BRANCH_LIMIT} letters, digits, '.', '_' and '-'"
            ));
        }
        let limit = match self.work {
            BranchWork::Keyspace { .. } => KEYSPACE_LIMIT,
            BranchWork::Manager(..) => PARTICIPANT_LIMIT,
        };
        if self.participant.is_empty() || self.participant.len() > limit {
            return wrong(format!("a participant's name has 1 to {limit} bytes"));
        }
        match &self.work {
            BranchWork::Keyspace { txns, or_else } => {
                if txns.iter().any(reads_old) {
                    return wrong("a branch reads the present: name no revision".to_owned());
                }
                if !or_else && txns.iter().any(|txn| !txn.failure.is_empty()) {
                    return wrong("operations for \"else\" need or_else".to_owned());
                }
                Ok(())
            }
            BranchWork::Manager(_, work) => {
                work.validate().or_else(|error| wrong(error.to_string()))
            }
        }
    }
}

fn reads(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match operation {
        Operation::Range(_) => true,
        Operation::Put(put) => put.prev_kv,
        Operation::Delete(delete) => delete.prev_kv,
        Operation::Txn(inner) => reads(inner),
        Operation::Claim(_) | Operation::Release(_) => false,
    })
}

fn reads_old(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match operation {
        Operation::Range(range) => range.revision != 0,
        Operation::Txn(inner) => reads_old(inner),
        Operation::Put(_) | Operation::Delete(_) | Operation::Claim(_) | Operation::Release(_) => {
            false
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(names: &[(&str, &str)]) -> Request {
        let work = BranchWork::Keyspace { txns: [Txn::default()].into(), or_else: false };
        let branch = |(name, participant): &(&str, &str)| Branch {
            name: (*name).to_owned(),
            participant: (*participant).to_owned(),
            work: work.clone(),
        };
        Request {
            id: "t".to_owned(),
            content: 1,
            bytes: 1,
            patience: Duration::from_secs(1),
            protocol: Protocol::TwoPhase,
            alone: false,
            branches: names.iter().map(branch).collect(),
        }
    }

    #[test]
    fn who_says_alone_does_not_ride_whatever_the_protocol() {
        let two = || request(&[("a", "orders"), ("b", "stock")]);
        for protocol in [Protocol::TwoPhase, Protocol::PaxosCommit] {
            assert!(Request { protocol, ..two() }.may_ride());
            assert!(!Request { protocol, alone: true, ..two() }.may_ride());
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        assert_eq!(request(&[("a", "orders"), ("b", "stock")]).check(), Ok(()));
        let why = |request: Request| request.check().unwrap_err().to_string();
        assert!(why(request(&[])).contains("1 to 32 branches, not 0"));
        let many: Vec<String> = (0..33).map(|n| format!("b{n}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|n| (n.as_str(), n.as_str())).collect();
        assert!(why(request(&many)).contains("not 33"));
        assert!(why(request(&[("a", "x"), ("a", "y")])).contains("two branches are called \"a\""));
        let twice = why(request(&[("a", "x"), ("b", "x")]));
        assert!(twice.contains("\"x\" is named by two branches"), "{twice}");
        assert!(why(request(&[("a b", "x")])).contains("branch \"a b\""));
        let three = Request { protocol: Protocol::ThreePhase, ..request(&[("a", "x")]) };
        assert!(why(three).contains("three-phase is not run"));
        let work = quorate_resource_managers::HttpWork::default();
        let outside = Branch {
            name: "b".to_owned(),
            participant: "y".to_owned(),
            work: BranchWork::Manager(Kind::Http, Work::Http(work)),
        };
        let mut mixed = request(&[("a", "x")]);
        assert_eq!(usual_protocol(&mixed.branches), Protocol::PaxosCommit);
        mixed.branches.push(outside);
        assert_eq!(usual_protocol(&mixed.branches), Protocol::TwoPhase);
        mixed.protocol = Protocol::PaxosCommit;
        assert!(why(mixed).contains("say two-phase"));
        let long = Request { patience: Duration::from_secs(700), ..request(&[("a", "x")]) };
        assert!(why(long).contains("undecided"));
        assert!(why(Request { id: "a b".into(), ..request(&[("a", "x")]) }).contains("id is made"));
    }
}
