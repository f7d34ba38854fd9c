//! What the server's errors mean.

use crate::error::Error;
use std::sync::Arc;
use tokio_postgres::error::SqlState;

/// Our error for the driver's or the server's.
///
/// A connection that the server ends (57P01 and its like) is as lost as one that the network ends:
/// it says nothing about what was under way.
pub(super) fn error(
    manager: &Arc<str>,
    user: &str,
    doing: &'static str,
    error: &tokio_postgres::Error,
) -> Error {
    let manager = manager.clone();
    let Some(db) = error.as_db_error() else {
        let mut said = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            said = format!("{said}: {cause}");
            source = cause.source();
        }
        let ours = said.contains("password missing");
        return match ours {
            true => Error::Credentials { manager, user: user.to_owned(), said },
            false => Error::Unreachable { manager, doing, said },
        };
    };
    let said = match db.hint() {
        Some(hint) => format!("{}. {hint}", db.message()),
        None => db.message().to_owned(),
    };
    let code = db.code().code();
    match code.get(..2) {
        Some("28") => Error::Credentials { manager, user: user.to_owned(), said },
        Some("08") | Some("58") => Error::Unreachable { manager, doing, said },
        _ if ended(db.code()) => Error::Unreachable { manager, doing, said },
        _ if *db.code() == SqlState::UNDEFINED_TABLE && said.contains("quorate_fence") => {
            Error::NotSetUp { manager, said }
        }
        _ => Error::Refused { manager, doing, code: code.to_owned(), said },
    }
}

fn ended(code: &SqlState) -> bool {
    [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW]
        .contains(code)
}

/// Whether the server says this.
pub(super) fn is(error: &tokio_postgres::Error, state: &SqlState) -> bool {
    error.code() == Some(state)
}
