//! What a branch does: SQL statements with parameters and expectations, or an HTTP action.
//!
//! Invariant: the coordinator alone ends a transaction, so a statement that could end it is refused
//! before anything is sent. A statement begins with one of a few words; each database is asked to
//! run it as *one* statement, which makes a second one behind a semicolon an error there.

use crate::error::Error;
use crate::name::{BranchName, POSTGRES_GID_LIMIT};
use crate::share::MERGED_STATEMENTS;
use crate::sql;
use serde::{Deserialize, Serialize};

/// The most statements of a branch.
pub const STATEMENTS_LIMIT: usize = 64;
/// The longest statement, in bytes.
pub const SQL_LIMIT: usize = 64 << 10;
/// The most parameters of a statement.
pub const PARAMETERS_LIMIT: usize = 256;
/// The longest path of an action, in bytes.
pub const ACTION_LIMIT: usize = 1024;
/// The most a branch's statements, parameters and body may have together, in bytes.
pub const WORK_LIMIT: usize = 1 << 20;

/// What a branch does at its participant.
#[derive(Clone, PartialEq, Debug)]
pub enum Work {
    /// At a database.
    Sql(SqlWork),
    /// At an HTTP participant.
    Http(HttpWork),
    /// At either: the application has prepared it itself, under this id. It is adopted, not run.
    Prepared(String),
}

impl Work {
    /// Whether it can be done at all.
    ///
    /// # Errors
    /// The caller's.
    pub fn validate(&self) -> Result<(), Error> {
        match self {
            Work::Sql(work) => work.validate(),
            Work::Http(work) => work.validate(),
            Work::Prepared(id) => match BranchName::from_postgres_gid(id) {
                Some(_) => Ok(()),
                None => Err(refused(format!(
                    "{:?} is no id of a branch: ask for it by `quorate txn name`",
                    id.chars().take(POSTGRES_GID_LIMIT).collect::<String>()
                ))),
            },
        }
    }
}

/// Statements, run in their order in one transaction.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SqlWork {
    /// The statements.
    pub statements: Vec<Statement>,
    /// Whether nothing is written: the database enforces it, and there is no second phase.
    #[serde(default)]
    pub read_only: bool,
    /// The isolation level, if not the database's default.
    #[serde(default)]
    pub isolation: Option<Isolation>,
}

/// An isolation level of standard SQL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Each statement sees what was committed before it.
    ReadCommitted,
    /// All statements see the same.
    RepeatableRead,
    /// As if the transactions of this database ran one after the other.
    Serializable,
}

impl Isolation {
    /// As SQL says it.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Isolation::ReadCommitted => "READ COMMITTED",
            Isolation::RepeatableRead => "REPEATABLE READ",
            Isolation::Serializable => "SERIALIZABLE",
        }
    }
}

/// One statement.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Statement {
    /// Its text, with the database's own placeholders: `$1` for PostgreSQL, `?` for MariaDB.
    pub sql: String,
    /// The parameters, in their order.
    #[serde(default, rename = "with")]
    pub parameters: Vec<Parameter>,
    /// How many rows it must affect, or return; with another number the branch votes no.
    #[serde(default)]
    pub affects: Option<u64>,
}

/// A parameter of a statement.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Parameter {
    /// A truth value.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// A text, and everything the database reads from text: dates, decimals, UUIDs, JSON.
    Text(String),
    /// `{ null = true }`.
    Null {
        /// Always true; TOML has no null.
        null: bool,
    },
}

impl Parameter {
    /// SQL's NULL.
    pub const NULL: Parameter = Parameter::Null { null: true };

    fn bytes(&self) -> usize {
        match self {
            Parameter::Text(text) => text.len(),
            _ => 8,
        }
    }
}

/// An action of an HTTP participant, which it can try, confirm and cancel.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpWork {
    /// The path of the action below the participant's URL; it begins with `/`.
    pub action: String,
    /// What the participant gets as JSON when it is to try.
    #[serde(default)]
    pub body: Option<toml::Table>,
}

impl SqlWork {
    /// Whether it can be run at all.
    ///
    /// # Errors
    /// The caller's: too many or too large statements, or one that could end the transaction.
    pub fn validate(&self) -> Result<(), Error> {
        self.validate_up_to(STATEMENTS_LIMIT)
    }

    /// The same of one that may be of several clients.
    pub(crate) fn validate_merged(&self) -> Result<(), Error> {
        self.validate_up_to(MERGED_STATEMENTS)
    }

    fn validate_up_to(&self, limit: usize) -> Result<(), Error> {
        let count = self.statements.len();
        if count == 0 || count > limit {
            return Err(refused(format!(
                "a branch has {count} statements; allowed are 1 to {limit}"
            )));
        }
        let bytes: usize = self.statements.iter().map(Statement::bytes).sum();
        if bytes > WORK_LIMIT {
            return Err(refused(format!("a branch of {bytes} bytes; allowed are {WORK_LIMIT}")));
        }
        let mut each = self.statements.iter().enumerate();
        each.try_for_each(|(i, statement)| statement.validate(i + 1))
    }
}

impl HttpWork {
    /// Whether it can be asked for at all.
    ///
    /// # Errors
    /// The caller's: no path, or one that leads elsewhere.
    pub fn validate(&self) -> Result<(), Error> {
        let action = &self.action;
        if action.len() > ACTION_LIMIT {
            let bytes = action.len();
            return Err(refused(format!("an action of {bytes} bytes; allowed are {ACTION_LIMIT}")));
        }
        let fine = |c: char| c.is_ascii_alphanumeric() || "/._~-".contains(c);
        if !action.starts_with('/') || !action.chars().all(fine) {
            return Err(refused(format!(
                "the action {action:?} is no path: it begins with `/` and has ASCII letters, \
                 digits and `._~-` only"
            )));
        }
        if action.split('/').any(|part| part == "..") || action.starts_with("/quorate/") {
            return Err(refused(format!("the action {action:?} leads out of the actions")));
        }
        Ok(())
    }
}

impl Statement {
    fn bytes(&self) -> usize {
        self.sql.len() + self.parameters.iter().map(Parameter::bytes).sum::<usize>()
    }

    fn validate(&self, number: usize) -> Result<(), Error> {
        let (bytes, parameters) = (self.sql.len(), self.parameters.len());
        if bytes > SQL_LIMIT {
            return Err(refused(format!(
                "statement {number} has {bytes} bytes; allowed are {SQL_LIMIT}"
            )));
        }
        if parameters > PARAMETERS_LIMIT {
            return Err(refused(format!(
                "statement {number} has {parameters} parameters; allowed are {PARAMETERS_LIMIT}"
            )));
        }
        if self.parameters.iter().any(|p| matches!(p, Parameter::Null { null: false })) {
            return Err(refused(format!("statement {number}: write `null = true`, or a value")));
        }
        if self.sql.contains('\0') {
            return Err(refused(format!("statement {number} has a zero byte")));
        }
        sql::check(&self.sql).map_err(|why| refused(format!("statement {number} {why}")))
    }
}

fn refused(what: String) -> Error {
    Error::Caller(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(sql: &str) -> Statement {
        Statement { sql: sql.to_owned(), ..Statement::default() }
    }

    fn refusal(statements: Vec<Statement>) -> String {
        let work = SqlWork { statements, ..SqlWork::default() };
        work.validate().map_err(|e| e.to_string()).unwrap_err()
    }

    #[test]
    fn limits_are_named_with_their_unit() {
        assert!(refusal(vec![]).contains("0 statements"));
        assert!(refusal(vec![statement("SELECT 1"); 65]).contains("allowed are 1 to 64"));
        assert!(
            refusal(vec![statement(&format!("SELECT {}", "1".repeat(SQL_LIMIT)))])
                .contains("bytes; allowed are 65536")
        );
        let mut many = statement("SELECT 1");
        many.parameters = vec![Parameter::NULL; 257];
        assert!(refusal(vec![many]).contains("257 parameters"));
        let mut large = statement("SELECT 1");
        large.parameters = vec![Parameter::Text("x".repeat(WORK_LIMIT))];
        assert!(refusal(vec![large]).contains("1048576"));
        assert!(refusal(vec![statement("SELECT 1"), statement("COMMIT")]).contains("statement 2"));
    }

    #[test]
    fn an_action_stays_below_the_participant() {
        let check = |action: &str| HttpWork { action: action.to_owned(), body: None }.validate();
        check("/rooms/12-a").unwrap();
        for bad in ["", "rooms", "//[", "/a b", "/a?b", "/../x", "/quorate/confirm", "/é"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check(&"/".repeat(ACTION_LIMIT + 1)).unwrap_err().to_string().contains("1025"));
    }

    #[test]
    fn a_branch_is_read_from_toml_and_misspelling_is_an_error() {
        let text = "isolation = 'serializable'\n[[statements]]\nsql = 'UPDATE t SET a = $1'\n\
                    with = [1, 'x', true, 0.5, { null = true }]\naffects = 1\n";
        let work: SqlWork = toml::from_str(text).unwrap();
        work.validate().unwrap();
        assert_eq!(work.isolation, Some(Isolation::Serializable));
        let expected = [
            Parameter::Integer(1),
            Parameter::Text("x".to_owned()),
            Parameter::Boolean(true),
            Parameter::Float(0.5),
            Parameter::NULL,
        ];
        assert_eq!(work.statements[0].parameters, expected);
        assert!(toml::from_str::<SqlWork>("statement = []").is_err());
    }
}
