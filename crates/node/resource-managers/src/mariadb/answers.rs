//! What the server's errors mean.

use crate::error::Error;
use mysql_async::{DriverError, Error as Driver};
use std::sync::Arc;

/// No such branch, or one that another session holds: the server does not say which.
pub(super) const NO_SUCH_XID: u16 = 1397;
/// The branch was rolled back; also what a branch that wrote nothing gets.
pub(super) const ROLLED_BACK: u16 = 1402;
/// The key is there already.
pub(super) const DUPLICATE: u16 = 1062;
/// A lock was waited for in vain.
pub(super) const LOCK_WAIT: u16 = 1205;
/// The branch exists already.
pub(super) const DUPLICATE_XID: u16 = 1440;
/// The statement took longer than it may.
pub(super) const STATEMENT_TIMEOUT: u16 = 1969;

/// Access denied: to the server, to the database, without a password.
const CREDENTIALS: [u16; 3] = [1044, 1045, 1698];
/// The user may not do that with the table, or with one of its columns.
const DENIED: [&str; 2] = ["1142", "1143"];
/// The session ends: shut-down, killed, network, idle for too long, too many connections.
const ENDED: [u16; 9] = [1040, 1053, 1077, 1158, 1159, 1160, 1161, 1927, 4031];
const NO_SUCH_TABLE: u16 = 1146;

/// The server's error number, if it was the server that spoke.
pub(super) fn code(error: &Driver) -> Option<u16> {
    match error {
        Driver::Server(error) => Some(error.code),
        _ => None,
    }
}

/// Whether the code of a refusal says that the user may not do that.
pub(super) fn is_denied(code: &str) -> bool {
    DENIED.contains(&code)
}

/// Our error for the driver's or the server's.
pub(super) fn error(manager: &Arc<str>, user: &str, doing: &'static str, error: &Driver) -> Error {
    let manager = manager.clone();
    match error {
        Driver::Server(server) => {
            let said = server.message.clone();
            match server.code {
                code if CREDENTIALS.contains(&code) => {
                    Error::Credentials { manager, user: user.to_owned(), said }
                }
                code if ENDED.contains(&code) => Error::Unreachable { manager, doing, said },
                NO_SUCH_TABLE if said.contains("quorate_fence") => {
                    Error::NotSetUp { manager, said }
                }
                code => Error::Refused { manager, doing, code: code.to_string(), said },
            }
        }
        Driver::Driver(DriverError::StmtParamsMismatch { required, supplied }) => {
            Error::Caller(format!("it has {supplied} parameters where {required} are needed"))
        }
        other => Error::Unreachable { manager, doing, said: other.to_string() },
    }
}
