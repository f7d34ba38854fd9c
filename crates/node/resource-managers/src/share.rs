//! Whether branches of several transactions may be run as one transaction of their database, one
//! after the other, and that one branch.
//!
//! Invariant: what shares is done as if each were a transaction of its own, in their order. Within
//! one transaction a statement sees all that those before it did. It must not see what they left in
//! the session, nor read as of a moment before its own transaction would have begun. So only
//! statements share that call no functions but harmless ones, which are listed, and in MariaDB,
//! where all reads of a transaction are as of its first, only those that read nothing without a
//! lock. What triggers, views, defaults, operators and casts do is not seen here, nor a function
//! that is called as if it were a column.

use crate::spec::Kind;
use crate::sql;
use crate::work::{Isolation, SqlWork, Statement};

/// The most statements of a branch that shares: those of others wait for them.
pub const SHARED_STATEMENTS: usize = 8;
/// The most statements of branches that share one transaction, together.
pub const MERGED_STATEMENTS: usize = 512;

/// Words that may stand before an opening parenthesis: SQL's own, as far as no function can be
/// called so, and functions of both databases that leave nothing behind in the session and tell
/// nothing of it. Others may be anything.
const HARMLESS: &str = "\
    abs all and any as avg between case cast ceil char coalesce concat count decimal \
    distinct else except exists extract floor from greatest having in interval intersect \
    least length like limit lower ltrim max min mod not now nullif numeric on or replace \
    returning round row rtrim select some substring sum then trim union upper using values \
    varchar when where";

/// What a statement does not have, in lower case, if it shares: a variable of MariaDB's session,
/// PostgreSQL's own tables, of which one sets what is set (`UPDATE pg_settings`), a sequence's last
/// value, and comments and escapes, behind which any of that could hide.
const OF_SESSION: [&str; 9] = ["@", "pg_", "previous", "currval", "lastval", "u&", "/*", "--", "#"];

impl SqlWork {
    /// Whether it may be run in one transaction with others that may, of the same isolation.
    pub fn may_share(&self, kind: Kind) -> bool {
        let as_of_first = kind == Kind::MariaDb
            && matches!(self.isolation, None | Some(Isolation::RepeatableRead));
        !self.read_only
            && self.statements.len() <= SHARED_STATEMENTS
            && self.statements.iter().all(|statement| may_share(statement, as_of_first))
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

fn may_share(statement: &Statement, as_of_first: bool) -> bool {
    let text = statement.sql.to_ascii_lowercase();
    let reads = ["select", "with", "values"];
    !sql::is_call(&text)
        && !OF_SESSION.iter().any(|word| text.contains(word))
        && !(as_of_first && (text.contains("select") || sql::begins_with(&text, &reads)))
        && calls_nothing_else(&text)
}

/// Whether before every opening parenthesis there is a harmless word, or none, or the table of an
/// INSERT. Texts in quotes are looked at as well: what looks like a call in one costs company only.
fn calls_nothing_else(text: &str) -> bool {
    let mut before = text;
    while let Some(at) = before.rfind('(') {
        before = before[..at].trim_end();
        let start = before.rfind(|c: char| !is_of_name(c)).map_or(0, |at| at + 1);
        let (rest, word) = before.split_at(start);
        let rest = rest.trim_end();
        let table = || rest.ends_with("into") || (word == "conflict" && rest.ends_with(" on"));
        let named = rest.ends_with('.');
        // Only operators, commas and parentheses may stand directly before one.
        let none = word.is_empty() && !before.ends_with(['"', '`', '\'', ']', '$', '.']);
        let harmless = HARMLESS.split(' ').any(|known| known == word);
        if named || !(none || harmless || table()) {
            return false;
        }
    }
    true
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.' || c == '$' || !c.is_ascii()
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
        let update = "UPDATE account SET balance = balance - $1 WHERE id = $2 AND (a OR b)";
        for sql in [
            update,
            "select 1 FOR UPDATE",
            "INSERT INTO t VALUES (1)",
            "insert into \tsome_table (a, b) values ($1, coalesce($2, now()))",
            "UPDATE t SET a = round(b * (c + 1), 2) WHERE id IN (SELECT id FROM u)",
            "INSERT INTO t(a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET n = t.n + 1 RETURNING (n)",
        ] {
            assert!(work(&["SELECT 1", sql]).may_share(Kind::Postgres), "{sql}");
        }
        assert!(work(&[update; SHARED_STATEMENTS]).may_share(Kind::Postgres));
        assert!(!work(&[update; SHARED_STATEMENTS + 1]).may_share(Kind::Postgres));
        let reads = SqlWork { read_only: true, ..work(&["SELECT 1"]) };
        assert!(!reads.may_share(Kind::Postgres));
    }

    #[test]
    fn what_the_next_could_see_in_the_session_goes_alone() {
        for sql in [
            "CALL p()",
            "SELECT Set_Config('a', 'b', false)",
            "SELECT pg_catalog.set_config ('a', 'b', false)",
            "SELECT \"set_config\"('a', 'b', false)",
            "SELECT `f` ('a')",
            "SELECT f/**/('a')",
            "SELECT @a := 1",
            "SELECT pg_try_advisory_lock(1)",
            "INSERT INTO t SELECT LAST_INSERT_ID()",
            "INSERT INTO t VALUES (currval('s'))",
            "INSERT INTO t VALUES (PREVIOUS VALUE FOR s)",
            "INSERT INTO t VALUES (txid_current())",
            "UPDATE t SET a = now(use_tenant(1))",
            "SELECT lower.use_tenant(1)",
            "SELECT größe(1)",
            "SELECT tenant . lower('acme')",
            "SELECT \"tenant\". lower('acme')",
            "SELECT set('app.tenant', '7')",
            "SELECT conflict(1)",
            "INSERT INTO t VALUES (PREVIOUS  VALUE FOR s)",
            "INSERT INTO t VALUES (s.currval)",
            "UPDATE pg_settings SET setting = $1 WHERE name = $2",
            "UPDATE U&\"pg\\005fsettings\" SET setting = $1",
        ] {
            assert!(!work(&["SELECT 1", sql]).may_share(Kind::Postgres), "{sql}");
        }
    }

    #[test]
    fn in_mariadb_what_reads_as_of_the_first_read_goes_alone() {
        let update = "UPDATE t SET a = a + ? WHERE id = ?";
        for sql in ["SELECT 1", " (select a FROM t)", "WITH x AS (SELECT 1) UPDATE t", "VALUES (1)"]
        {
            let two = work(&[update, sql]);
            assert!(!two.may_share(Kind::MariaDb), "{sql}");
            let repeatable = SqlWork { isolation: Some(Isolation::RepeatableRead), ..two.clone() };
            assert!(!repeatable.may_share(Kind::MariaDb), "{sql}");
            let committed = SqlWork { isolation: Some(Isolation::ReadCommitted), ..two };
            assert!(committed.may_share(Kind::MariaDb), "{sql}");
        }
        assert!(work(&[update, "INSERT INTO t VALUES (?)"]).may_share(Kind::MariaDb));
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
