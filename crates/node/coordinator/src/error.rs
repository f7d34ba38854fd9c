//! Why a transaction was not run, and whose fault it is.

use std::fmt;

/// Why a transaction was not run, or how it ends is not known. Nothing was prepared, unless said
/// otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RunError {
    /// The caller's: it cannot be, or is beyond a limit.
    Invalid(String),
    /// The caller's: a keyspace or a database that is not there.
    Unknown(String),
    /// The caller's: there was another transaction of this id.
    OtherContent(String),
    /// A participant is not fit for transactions as it is: what to change.
    Unfit(String),
    /// This node cannot run it, or not now: another may.
    Unavailable(String),
    /// There is no answer yet. The transaction may be under way: ask for it by its id.
    InDoubt(String),
    /// The node failed.
    Internal(String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Invalid(why)
            | RunError::Unknown(why)
            | RunError::OtherContent(why)
            | RunError::Unfit(why)
            | RunError::Unavailable(why)
            | RunError::InDoubt(why) => f.write_str(why),
            RunError::Internal(why) => write!(f, "the node failed: {why}"),
        }
    }
}

impl std::error::Error for RunError {}
