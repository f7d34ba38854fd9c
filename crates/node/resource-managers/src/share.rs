//! Whether branches of several transactions may be run as one transaction of their database, one
//! after the other, and that one branch.
//!
//! Invariant: what shares is done as if each were a transaction of its own, in their order. Within
//! one transaction a statement sees all that those before it did; what it must not see is what they
//! left in the session, and what it must not be is a part of a transaction that it can tell from
//! its own. So whatever could do either does not share.

use crate::sql;
use crate::work::{SqlWork, Statement};

/// The most statements of a branch that shares: those of others wait for them.
pub const SHARED_STATEMENTS: usize = 8;
/// The most statements of branches that share one transaction, together.
pub const MERGED_STATEMENTS: usize = 512;

/// What a statement does not have, in lower case, if it shares: whatever sets or reads what belongs
/// to a session, or to the transaction as such. As parts of words, so that nothing is missed; a
/// word that only looks so costs company, and nothing else.
const OF_SESSION: [&str; 12] = [
    // Settings and variables. MariaDB's begin with `@`.
    "set_config",
    "@",
    // Locks that outlive the transaction, or that it has already.
    "get_lock",
    "release_",
    "advisory",
    // What the last statement did.
    "last_insert_id",
    "lastval",
    "currval",
    "found_rows",
    "row_count",
    // The transaction's own name.
    "txid_current",
    "pg_current_xact",
];

impl SqlWork {
    /// Whether it may be run in one transaction with others that may, of the same isolation.
    pub fn may_share(&self) -> bool {
        !self.read_only
            && self.statements.len() <= SHARED_STATEMENTS
            && self.statements.iter().all(may_share)
    }

    /// One branch that does what all of these do, in their order. They may share.
    pub fn merged<'a>(all: impl Iterator<Item = &'a SqlWork>) -> SqlWork {
        let mut merged = SqlWork::default();
        for work in all {
            merged.isolation = work.isolation;
            merged.statements.extend_from_slice(&work.statements);
        }
        merged
    }
}

fn may_share(statement: &Statement) -> bool {
    let text = statement.sql.to_ascii_lowercase();
    !sql::is_call(&text) && !OF_SESSION.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Isolation;

    fn work(all: &[&str]) -> SqlWork {
        let one = |sql: &&str| Statement { sql: (*sql).to_owned(), ..Statement::default() };
        SqlWork { statements: all.iter().map(one).collect(), ..SqlWork::default() }
    }

    #[test]
    fn rows_are_read_and_written_in_company() {
        let update = "UPDATE account SET balance = balance - $1 WHERE id = $2";
        assert!(work(&[update, "select 1 FOR UPDATE", "INSERT INTO t VALUES (1)"]).may_share());
        assert!(work(&[update; SHARED_STATEMENTS]).may_share());
        assert!(!work(&[update; SHARED_STATEMENTS + 1]).may_share());
        assert!(!SqlWork { read_only: true, ..work(&["SELECT 1"]) }.may_share());
    }

    #[test]
    fn what_the_next_could_see_in_the_session_goes_alone() {
        for sql in [
            "CALL p()",
            "SELECT Set_Config('a', 'b', false)",
            "SELECT @a := 1",
            "SELECT pg_try_advisory_lock(1)",
            "SELECT GET_LOCK('a', 1)",
            "INSERT INTO t SELECT LAST_INSERT_ID()",
            "INSERT INTO t VALUES (currval('s'))",
            "INSERT INTO t VALUES (txid_current())",
        ] {
            assert!(!work(&["SELECT 1", sql]).may_share(), "{sql}");
        }
    }

    #[test]
    fn merged_they_do_the_same_in_their_order() {
        let isolation = Some(Isolation::Serializable);
        let all = [work(&["SELECT 1", "SELECT 2"]), work(&["SELECT 3"])];
        let all = all.map(|work| SqlWork { isolation, ..work });
        let expected = SqlWork { isolation, ..work(&["SELECT 1", "SELECT 2", "SELECT 3"]) };
        assert_eq!(SqlWork::merged(all.iter()), expected);
    }
}
