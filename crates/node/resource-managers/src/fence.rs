//! The fence: a table in every database, with one row for each branch that is over.
//!
//! A branch writes its row in its own transaction, so the row is visible exactly if the branch is
//! committed: the only proof of commit. A rollback writes the same key in a transaction of its
//! own, so that a prepare that comes late collides with it. Invariant: a key's row, once visible,
//! never changes; it is only removed, by `forget`.

/// What a row says of its branch: the column `kind`.
pub(crate) const COMMIT: &str = "commit";
/// The same, of one that was rolled back.
pub(crate) const ROLLBACK: &str = "rollback";

/// Creates the table in PostgreSQL. Harmless if it is there.
pub const POSTGRES_SETUP: &str = "\
CREATE TABLE IF NOT EXISTS quorate_fence (
    gid text COLLATE \"C\" NOT NULL,
    branch text COLLATE \"C\" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('commit', 'rollback')),
    written_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (gid, branch)
)";

/// Creates the table in MariaDB. Harmless if it is there.
pub const MARIADB_SETUP: &str = "\
CREATE TABLE IF NOT EXISTS quorate_fence (
    gid varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    branch varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    kind enum('commit', 'rollback') NOT NULL,
    written_at timestamp NOT NULL DEFAULT current_timestamp(),
    PRIMARY KEY (gid, branch)
) ENGINE = InnoDB";

use crate::name::BranchName;

/// The statement with which a branch writes its row: the last before it is prepared. For an
/// application that prepares its own branch.
pub fn insert(branch: &BranchName) -> String {
    insert_kind(branch, COMMIT)
}

pub(crate) fn insert_kind(branch: &BranchName, kind: &str) -> String {
    format!("INSERT {}", row(branch, kind))
}

/// The same, if there is no row of this key: in MariaDB's words, and so that the right to update is
/// not needed. A lock on the key is an error, as ever.
pub(crate) fn insert_if_absent(branch: &BranchName, kind: &str) -> String {
    format!("INSERT IGNORE {}", row(branch, kind))
}

fn row(branch: &BranchName, kind: &str) -> String {
    // Names have no character that needs quoting.
    let (gid, branch) = (branch.transaction().as_str(), branch.qualifier());
    format!("INTO quorate_fence (gid, branch, kind) VALUES ('{gid}', '{branch}', '{kind}')")
}

/// The question for a branch's row.
pub(crate) fn select(branch: &BranchName) -> String {
    format!("SELECT kind FROM quorate_fence WHERE {}", key(branch))
}

/// The rows of branches that are over and whose transactions are forgotten.
pub(crate) fn delete(branches: &[BranchName]) -> String {
    let keys: Vec<String> = branches.iter().map(|b| format!("({})", key(b))).collect();
    format!("DELETE FROM quorate_fence WHERE {}", keys.join(" OR "))
}

/// The same, row by row, in a transaction that locks nothing but these rows. One statement for many
/// rows would in MariaDB lock others that it passes, and the gaps where new branches insert theirs.
pub(crate) fn delete_each(branches: &[BranchName]) -> String {
    let rows: Vec<String> =
        branches.iter().map(|b| format!("DELETE FROM quorate_fence WHERE {}", key(b))).collect();
    format!(
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION; {}; COMMIT",
        rows.join("; ")
    )
}

fn key(branch: &BranchName) -> String {
    let (gid, branch) = (branch.transaction().as_str(), branch.qualifier());
    format!("gid = '{gid}' AND branch = '{branch}'")
}
