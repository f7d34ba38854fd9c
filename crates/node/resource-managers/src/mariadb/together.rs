//! All statements of a bundle's branch in one request, where that can be: they are many, and each
//! would be a round trip of its own.
//!
//! The client protocol has no way to run several prepared statements at once, but the server can be
//! told in words: `EXECUTE IMMEDIATE text USING values`. Texts are sent in hexadecimal, and values
//! only if they are numbers, truth values or NULL, so that there is nothing to quote. The server
//! stops at the first statement that fails.

use crate::sql;
use crate::work::{Parameter, SqlWork, Statement};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

/// What is run in one request: statements that tell how many rows they affected, and no rows.
const WRITES: [&str; 4] = ["insert", "update", "delete", "replace"];

/// The statements of a branch in one request; nothing, if they need requests of their own.
pub(super) fn all(work: &SqlWork) -> Option<String> {
    let one = |statement: &Statement| {
        let text = statement.sql.to_ascii_lowercase();
        if !sql::begins_with(&text, &WRITES) || text.contains("returning") {
            return None;
        }
        let values: Option<Vec<String>> = statement.parameters.iter().map(literal).collect();
        let hex = sql::hex(&statement.sql);
        let using = match values?.join(", ") {
            none if none.is_empty() => none,
            values => format!(" USING {values}"),
        };
        Some(format!("EXECUTE IMMEDIATE CONVERT(X'{hex}' USING utf8mb4){using}"))
    };
    let all: Option<Vec<String>> = work.statements.iter().map(one).collect();
    Some(all?.join("; "))
}

fn literal(parameter: &Parameter) -> Option<String> {
    match parameter {
        Parameter::Boolean(value) => Some(u8::from(*value).to_string()),
        Parameter::Integer(value) => Some(value.to_string()),
        Parameter::Null { .. } => Some("NULL".to_owned()),
        Parameter::Float(_) | Parameter::Text(_) => None,
    }
}

/// How many rows each statement of a request affected, up to the first that failed, and why.
pub(super) async fn run(
    session: &mut Conn,
    request: &str,
) -> (Vec<u64>, Result<(), mysql_async::Error>) {
    let mut affected = Vec::new();
    let mut answers = match session.query_iter(request).await {
        Ok(answers) => answers,
        Err(error) => return (affected, Err(error)),
    };
    let ended = loop {
        affected.push(answers.affected_rows());
        if answers.is_empty() {
            break answers.drop_result().await;
        }
        // Goes on to the next answer: there are no rows.
        if let Err(error) = answers.for_each(|_: Row| ()).await {
            break Err(error);
        }
    };
    if let Err(mysql_async::Error::Server(_)) = &ended {
        // The driver keeps a refusal until it is asked for the answer behind: this is no number.
        affected.pop();
    }
    (affected, ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(sql: &str, parameters: Vec<Parameter>) -> Statement {
        Statement { sql: sql.to_owned(), parameters, affects: None }
    }

    fn request(statements: Vec<Statement>) -> Option<String> {
        all(&SqlWork { statements, ..SqlWork::default() })
    }

    #[test]
    fn what_needs_no_quotes_goes_in_one_request() {
        let values = vec![Parameter::Integer(i64::MIN), Parameter::Boolean(true), Parameter::NULL];
        let both = vec![statement("UPDATE a", values), statement("DELETE b", vec![])];
        let expected = "EXECUTE IMMEDIATE CONVERT(X'5550444154452061' USING utf8mb4) USING \
                        -9223372036854775808, 1, NULL; \
                        EXECUTE IMMEDIATE CONVERT(X'44454c4554452062' USING utf8mb4)";
        assert_eq!(request(both).as_deref(), Some(expected));
    }

    #[test]
    fn texts_and_rows_have_requests_of_their_own() {
        let update = || statement("UPDATE a", vec![]);
        for other in [
            statement("UPDATE a", vec![Parameter::Text("x".to_owned())]),
            statement("UPDATE a", vec![Parameter::Float(0.1)]),
            statement("SELECT 1", vec![]),
            statement("DELETE FROM a RETURNING b", vec![]),
        ] {
            assert_eq!(request(vec![update(), other]), None);
        }
    }
}
