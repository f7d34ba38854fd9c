//! How a transaction and its branches are called in other people's databases.
//!
//! A name must be found again by whoever recovers, told apart from everybody else's, and fit into
//! every database: PostgreSQL takes 199 bytes, XA takes 64 for the transaction and 64 for the
//! branch. Invariant: a name that exists keeps these limits, and is made of letters, digits and
//! `.`, `_`, `-`, `:`, `~` only, so that it can stand in SQL where no parameter may.

use crate::error::Error;
use crate::sql;
use quorate_base::ClusterId;
use std::fmt;
use std::sync::Arc;

/// The longest id of a transaction, in bytes: a UUID with its hyphens.
pub const TXID_LIMIT: usize = 36;
/// The longest name of a participant, in bytes.
pub const PARTICIPANT_LIMIT: usize = 31;
/// The longest name of a branch, in bytes.
pub const BRANCH_LIMIT: usize = 32;
/// The first epoch that does not fit beside the longest id.
pub const EPOCH_LIMIT: u64 = 1 << 28;
/// PostgreSQL's limit of a transaction identifier, in bytes.
pub const POSTGRES_GID_LIMIT: usize = 199;
/// XA's limit of a `gtrid`, in bytes.
pub const GTRID_LIMIT: usize = 64;
/// XA's limit of a `bqual`, in bytes.
pub const BQUAL_LIMIT: usize = 64;
/// What marks our branches among XA's: "Q1".
pub const XA_FORMAT_ID: u32 = 0x5131;

/// What the ids of transactions that carry others begin with, and no client's does.
const BUNDLE: char = '~';

/// The version of this scheme; a later one begins otherwise.
const SCHEME: &str = "q1";

/// A transaction: `q1:<cluster>:<epoch>:<txid>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionName {
    cluster: ClusterId,
    epoch: u64,
    text: Arc<str>,
}

impl TransactionName {
    /// The name of transaction `txid`, as the coordinator of this epoch drives it.
    ///
    /// # Errors
    /// The caller's: `txid` is empty, too long, or has a character that no name may have.
    pub fn new(cluster: ClusterId, epoch: u64, txid: &str) -> Result<TransactionName, Error> {
        let client = txid.strip_prefix(BUNDLE).unwrap_or(txid);
        checked("a transaction's id", client, TXID_LIMIT - (txid.len() - client.len()))?;
        if epoch >= EPOCH_LIMIT {
            return Err(Error::Caller(format!("epoch {epoch} is not below {EPOCH_LIMIT}")));
        }
        let text: Arc<str> = format!("{SCHEME}:{cluster}:{epoch:x}:{txid}").into();
        assert!(text.len() <= GTRID_LIMIT, "the limits of the parts add up");
        Ok(TransactionName { cluster, epoch, text })
    }

    /// Reads a name. Nothing, if it is not exactly as [`TransactionName::new`] writes it.
    pub fn parse(text: &str) -> Option<TransactionName> {
        let mut parts = text.splitn(4, ':');
        let (scheme, cluster, epoch, txid) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let cluster = ClusterId(u64::from_str_radix(cluster, 16).ok()?);
        let epoch = u64::from_str_radix(epoch, 16).ok()?;
        let name = TransactionName::new(cluster, epoch, txid).ok()?;
        (scheme == SCHEME && name.as_str() == text).then_some(name)
    }

    /// What the names of all transactions of a cluster begin with.
    pub fn prefix(cluster: ClusterId) -> String {
        format!("{SCHEME}:{cluster}:")
    }

    /// The cluster that coordinates it.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The coordinator's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The id that the client gave.
    pub fn txid(&self) -> &str {
        self.text.rsplit(':').next().unwrap_or_default()
    }

    /// Whether it carries others. Its coordinator alone makes its branches: nobody hands one in.
    pub fn is_bundle(&self) -> bool {
        self.txid().starts_with(BUNDLE)
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// One branch of a transaction: the transaction's name, and `<participant>:<branch>`.
///
/// The participant is in the name because XA's branches are a whole server's: of two participants
/// that are two databases of one server, each must know its own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchName {
    transaction: TransactionName,
    qualifier: Arc<str>,
}

impl BranchName {
    /// Branch `branch` of this transaction at this participant.
    ///
    /// # Errors
    /// The caller's: a name is empty, too long, or has a character that no name may have.
    pub fn new(
        transaction: TransactionName,
        participant: &str,
        branch: &str,
    ) -> Result<BranchName, Error> {
        check_participant(participant)?;
        check_branch(branch)?;
        let qualifier: Arc<str> = format!("{participant}:{branch}").into();
        assert!(qualifier.len() <= BQUAL_LIMIT, "the limits of the parts add up");
        Ok(BranchName { transaction, qualifier })
    }

    /// Reads the two parts of a name. Nothing, if they are not exactly as we write them.
    pub fn parse(transaction: &str, qualifier: &str) -> Option<BranchName> {
        let (participant, branch) = qualifier.split_once(':')?;
        BranchName::new(TransactionName::parse(transaction)?, participant, branch).ok()
    }

    /// Its transaction.
    pub fn transaction(&self) -> &TransactionName {
        &self.transaction
    }

    /// Whose it is.
    pub fn participant(&self) -> &str {
        self.qualifier.split(':').next().unwrap_or_default()
    }

    /// Its name within the transaction.
    pub fn branch(&self) -> &str {
        self.qualifier.rsplit(':').next().unwrap_or_default()
    }

    /// Participant and branch: XA's `bqual`, and the fence's column `branch`.
    pub fn qualifier(&self) -> &str {
        &self.qualifier
    }

    /// PostgreSQL's transaction identifier: `q1:<cluster>:<epoch>:<txid>:<participant>:<branch>`.
    pub fn postgres_gid(&self) -> String {
        let gid = self.to_string();
        assert!(gid.len() <= POSTGRES_GID_LIMIT, "the limits of the parts add up");
        gid
    }

    /// Reads a PostgreSQL transaction identifier of ours.
    pub fn from_postgres_gid(gid: &str) -> Option<BranchName> {
        let (before, _) = gid.rsplit_once(':')?;
        let (transaction, _) = before.rsplit_once(':')?;
        BranchName::parse(transaction, gid.get(transaction.len() + 1..)?)
    }

    /// XA's identifier as SQL has it: `X'<gtrid>',X'<bqual>',<formatID>`. In hexadecimal, which no
    /// character set or SQL mode reads in another way.
    pub fn xid(&self) -> String {
        format!(
            "X'{}',X'{}',{XA_FORMAT_ID}",
            sql::hex(self.transaction.as_str()),
            sql::hex(&self.qualifier)
        )
    }

    /// That it is this participant's.
    pub(crate) fn check_belongs(&self, participant: &str) -> Result<(), Error> {
        match self.participant() == participant {
            true => Ok(()),
            false => Err(Error::Caller(format!("{self} is not a branch of {participant}"))),
        }
    }
}

/// That a participant may be called so.
pub(crate) fn check_participant(name: &str) -> Result<(), Error> {
    checked("a participant's name", name, PARTICIPANT_LIMIT)
}

/// That a branch may be called so.
pub(crate) fn check_branch(name: &str) -> Result<(), Error> {
    checked("a branch's name", name, BRANCH_LIMIT)
}

/// The characters of a name: none of them needs quoting, and `:` stays free to part names.
fn checked(what: &str, text: &str, limit: usize) -> Result<(), Error> {
    if text.is_empty() || text.len() > limit {
        let length = text.len();
        return Err(Error::Caller(format!("{what} has {length} bytes; allowed are 1 to {limit}")));
    }
    match text.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-".contains(*c)) {
        None => Ok(()),
        Some(c) => Err(Error::Caller(format!(
            "{what} has the character {c:?}; allowed are ASCII letters, digits, `.`, `_` and `-`"
        ))),
    }
}

impl fmt::Display for TransactionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TransactionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transaction, self.qualifier)
    }
}

impl fmt::Debug for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_names_fit_into_every_database() {
        let txid = "x".repeat(TXID_LIMIT);
        let name = TransactionName::new(ClusterId(u64::MAX), EPOCH_LIMIT - 1, &txid).unwrap();
        assert_eq!(name.as_str().len(), GTRID_LIMIT);
        assert_eq!((name.txid(), name.epoch()), (txid.as_str(), EPOCH_LIMIT - 1));
        let participant = "p".repeat(PARTICIPANT_LIMIT);
        let branch = BranchName::new(name, &participant, &"b".repeat(BRANCH_LIMIT)).unwrap();
        assert_eq!(branch.qualifier().len(), BQUAL_LIMIT);
        assert_eq!((branch.participant(), branch.branch().len()), (&*participant, BRANCH_LIMIT));
        assert!(branch.postgres_gid().len() <= POSTGRES_GID_LIMIT);
        assert_eq!(BranchName::from_postgres_gid(&branch.postgres_gid()), Some(branch));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let new = |epoch, txid: &str| {
            TransactionName::new(ClusterId(7), epoch, txid).map_err(|e| e.to_string())
        };
        assert!(new(1, "").unwrap_err().contains("1 to 36"));
        assert!(new(1, &"x".repeat(37)).unwrap_err().contains("37 bytes"));
        assert!(new(1, "it's").unwrap_err().contains('\''));
        assert!(new(EPOCH_LIMIT, "x").unwrap_err().contains("epoch"));
        assert!(BranchName::new(new(1, "x").unwrap(), "a", "a:b").is_err());
        for text in ["~", "a~", "~~a"] {
            assert!(new(1, text).is_err(), "{text}");
        }
        assert!(new(1, &format!("~{}", "x".repeat(TXID_LIMIT))).is_err());
        let bundle = new(1, &format!("~{}", "x".repeat(TXID_LIMIT - 1))).unwrap();
        assert!(bundle.is_bundle() && !new(1, "x").unwrap().is_bundle());
        assert_eq!(TransactionName::parse(bundle.as_str()), Some(bundle));
    }

    #[test]
    fn only_what_we_write_is_ours() {
        let ours = TransactionName::new(ClusterId(0xab), 16, "t-1").unwrap();
        assert_eq!(ours.as_str(), "q1:ab:10:t-1");
        assert_eq!(TransactionName::parse("q1:ab:10:t-1"), Some(ours));
        for foreign in ["", "q1", "q2:ab:10:t", "q1:AB:10:t", "q1:0ab:1:t", "q1:ab::t", "q1:ab:1:"]
        {
            assert_eq!(TransactionName::parse(foreign), None, "{foreign}");
        }
        for foreign in ["q1:ab:10:t", "q1:ab:10:t:p", "q1:ab:10:t:p:", "q1:ab:10:t:p:b:c", "t:p:b"]
        {
            assert_eq!(BranchName::from_postgres_gid(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn the_xid_is_hexadecimal() {
        let name = TransactionName::new(ClusterId(1), 2, "t").unwrap();
        let branch = BranchName::new(name, "a", "b").unwrap();
        assert_eq!(branch.xid(), "X'71313a313a323a74',X'613a62',20785");
    }
}
