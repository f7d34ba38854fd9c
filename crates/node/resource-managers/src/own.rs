//! A branch of the application's own: it runs and prepares the branch in its own session, and hands
//! in the id.
//!
//! Invariant: the id is nobody's choice. It is the branch's own name, so that a branch can be
//! handed in to the transaction it was made for and to no other, and recovery finds it where the
//! application never comes.

use crate::fence;
use crate::name::BranchName;
use crate::spec::Kind;

/// What an application has to say to the participant, around its own work, so that its branch can
/// be handed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnBranch {
    /// The id to hand in.
    pub id: String,
    /// What comes before its work: statements, or for HTTP the headers that name the branch.
    pub before: Vec<String>,
    /// What comes behind it.
    pub after: Vec<String>,
}

impl OwnBranch {
    /// What to say for this branch at a participant of this kind.
    pub fn new(kind: Kind, branch: &BranchName) -> OwnBranch {
        let (id, xid) = (branch.to_string(), branch.xid());
        let (before, after) = match kind {
            Kind::Postgres => (
                vec!["BEGIN".to_owned()],
                vec![fence::insert(branch), format!("PREPARE TRANSACTION '{id}'")],
            ),
            Kind::MariaDb => (
                vec![format!("XA START {xid}")],
                vec![fence::insert(branch), format!("XA END {xid}"), format!("XA PREPARE {xid}")],
            ),
            Kind::Http => {
                let transaction = format!("Quorate-Transaction: {}", branch.transaction());
                (vec![transaction, format!("Quorate-Branch: {}", branch.qualifier())], Vec::new())
            }
        };
        OwnBranch { id, before, after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::TransactionName;
    use quorate_base::ClusterId;

    #[test]
    fn the_fence_row_is_the_last_statement_before_the_end() {
        let transaction = TransactionName::new(ClusterId(7), 1, "order-17").unwrap();
        let branch = BranchName::new(transaction, "bank", "debit").unwrap();
        let own = OwnBranch::new(Kind::Postgres, &branch);
        assert_eq!(own.id, "q1:7:1:order-17:bank:debit");
        let fence = "INSERT INTO quorate_fence (gid, branch, kind) \
                     VALUES ('q1:7:1:order-17', 'bank:debit', 'commit')";
        assert_eq!(own.before, ["BEGIN"]);
        assert_eq!(own.after, [fence, "PREPARE TRANSACTION 'q1:7:1:order-17:bank:debit'"]);
        let own = OwnBranch::new(Kind::MariaDb, &branch);
        let words: Vec<_> = own.before.iter().chain(&own.after).map(|it| &it[..6]).collect();
        assert_eq!(words, ["XA STA", "INSERT", "XA END", "XA PRE"]);
        assert_eq!(BranchName::from_postgres_gid(&own.id), Some(branch));
    }
}
