//! What can go wrong with a participant, whose fault it is, and what to do about it.

use std::fmt;
use std::sync::Arc;

/// What went wrong. `manager` is the name that the configuration gives to the participant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The caller's: a name, a limit or a statement. Nothing was tried.
    Caller(String),
    /// The configuration's: the participant does not let this user in.
    Credentials {
        /// Which participant.
        manager: Arc<str>,
        /// As whom we came.
        user: String,
        /// Its words.
        said: String,
    },
    /// The participant's administrator's: a setting makes it unfit for transactions.
    Setting {
        /// Which participant.
        manager: Arc<str>,
        /// The setting.
        setting: String,
        /// What it is.
        found: String,
        /// What it must be, and why.
        wanted: String,
    },
    /// The participant's administrator's: the fence table is missing, or we may not use it.
    NotSetUp {
        /// Which participant.
        manager: Arc<str>,
        /// Its words.
        said: String,
    },
    /// The network's or the participant's: no connection, or it broke.
    Unreachable {
        /// Which participant.
        manager: Arc<str>,
        /// What was tried.
        doing: &'static str,
        /// The words of whoever noticed.
        said: String,
    },
    /// The participant's or the network's: no answer before the deadline.
    TooLate {
        /// Which participant.
        manager: Arc<str>,
        /// What was tried.
        doing: &'static str,
    },
    /// Ours, by configuration: all connections that we may open are in use.
    Busy {
        /// Which participant.
        manager: Arc<str>,
        /// How many connections there may be.
        connections: usize,
    },
    /// The participant's: it refused.
    Refused {
        /// Which participant.
        manager: Arc<str>,
        /// What was tried.
        doing: &'static str,
        /// Its code: SQLSTATE, MariaDB's number or HTTP's status.
        code: String,
        /// Its words.
        said: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Caller(what) => f.write_str(what),
            Error::Credentials { manager, user, said } => write!(
                f,
                "{manager} does not let user {user:?} in: {said}. Correct the user or the \
                 password in the configuration of {manager}"
            ),
            Error::Setting { manager, setting, found, wanted } => {
                write!(f, "{manager} has {setting} = {found}: {wanted}")
            }
            Error::NotSetUp { manager, said } => write!(
                f,
                "{manager} has no usable table quorate_fence: {said}. \
                 docs/resource-managers.md has what it must be"
            ),
            Error::Unreachable { manager, doing, said } => {
                write!(f, "{manager} could not be reached while {doing}: {said}")
            }
            Error::TooLate { manager, doing } => {
                write!(f, "{manager} gave no answer before the deadline while {doing}")
            }
            Error::Busy { manager, connections } => write!(
                f,
                "all {connections} connections to {manager} were in use until the deadline"
            ),
            Error::Refused { manager, doing, code, said } => {
                write!(f, "{manager} refused while {doing}: {said} ({code})")
            }
        }
    }
}

impl std::error::Error for Error {}
