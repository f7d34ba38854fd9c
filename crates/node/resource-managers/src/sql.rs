//! The little of SQL that must be understood: with which word a statement begins.

/// What a branch may do: read and write rows. Whatever begins otherwise could end the transaction,
/// as COMMIT does anywhere and every definition of a table does in MariaDB, or is not undone by a
/// rollback, as SET is not.
const ALLOWED: [&str; 9] =
    ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "WITH", "VALUES", "CALL"];

/// Whether a branch may have this statement.
///
/// # Errors
/// Why not, as the end of a sentence that began with the statement's name.
pub(crate) fn check(sql: &str) -> Result<(), String> {
    let word = first_word(sql)?;
    match ALLOWED.iter().any(|allowed| word.eq_ignore_ascii_case(allowed)) {
        true => Ok(()),
        false => Err(format!(
            "begins with {word:?}; a branch reads and writes rows only: {}",
            ALLOWED.join(", ")
        )),
    }
}

/// Whether a statement calls a procedure.
pub(crate) fn is_call(sql: &str) -> bool {
    first_word(sql).is_ok_and(|word| word.eq_ignore_ascii_case("CALL"))
}

/// A text as hexadecimal digits, which need no quotes of their own and no character set.
pub(crate) fn hex(text: &str) -> String {
    use std::fmt::Write;
    let mut digits = String::with_capacity(2 * text.len());
    for byte in text.bytes() {
        // Into a text it never fails.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// Whether a statement begins with one of these words, which are in lower case as it is.
pub(crate) fn begins_with(sql: &str, words: &[&str]) -> bool {
    first_word(sql).is_ok_and(|word| words.contains(&word))
}

/// The first word behind blanks, comments and opening parentheses.
fn first_word(sql: &str) -> Result<&str, String> {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '(');
        if rest.starts_with("/*!") || rest.starts_with("/*M!") {
            return Err("begins with a comment that MariaDB would execute".to_owned());
        } else if rest.starts_with("--") || rest.starts_with('#') {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            // PostgreSQL ends a comment at a lone carriage return too, MariaDB does not.
            if line.trim_end_matches('\r').contains('\r') {
                return Err("begins with a comment that has a carriage return".to_owned());
            }
            rest = after;
        } else if let Some(comment) = rest.strip_prefix("/*") {
            // PostgreSQL nests comments and MariaDB does not: nested ones are refused.
            let (inside, after) = comment.split_once("*/").unwrap_or((comment, ""));
            if inside.contains("/*") {
                return Err("begins with nested comments".to_owned());
            }
            rest = after;
        } else {
            break;
        }
    }
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    match &rest[..end] {
        "" => Err("has no first word".to_owned()),
        word => Ok(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_may_be_read_and_written() {
        for sql in ["SELECT 1", "\n -- why\n update t set a = 1", "/* x */(SELECT 1)", "call p()"] {
            check(sql).unwrap();
        }
    }

    #[test]
    fn a_call_is_known_as_one() {
        for sql in ["CALL p()", " /* x */ call p()", "-- SELECT\nCaLl p()"] {
            assert!(is_call(sql), "{sql:?}");
        }
        for sql in ["SELECT call FROM t", "COMMIT", "/*! CALL p() */", ""] {
            assert!(!is_call(sql), "{sql:?}");
        }
    }

    #[test]
    fn nothing_that_could_end_the_transaction_passes() {
        for sql in [
            "COMMIT",
            "rollback",
            "BEGIN",
            "/* SELECT */ COMMIT",
            "-- SELECT\nEND",
            "XA END 'x'",
            "PREPARE TRANSACTION 'x'",
            "SET autocommit = 1",
            "CREATE TABLE t (a int)",
            "LOCK TABLES",
            "/*! COMMIT */",
            "/*M! COMMIT */ SELECT 1",
            "/* /* */ COMMIT",
            "",
            ";COMMIT",
            "SAVEPOINT s",
            "# SELECT\rCOMMIT",
            "-- x\rCOMMIT /*\nSELECT 1 */",
            "\u{feff}COMMIT",
        ] {
            assert!(check(sql).is_err(), "{sql:?}");
        }
    }
}
