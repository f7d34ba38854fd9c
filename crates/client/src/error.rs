//! Why a call brought no answer, and what that means for what it wanted done.

use std::fmt;
use tonic::Status;

/// Why a call failed.
#[derive(Clone, Debug)]
pub enum Error {
    /// The caller named an endpoint that is none.
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server refused, and would refuse again.
    Refused(Box<Status>),
    /// Nobody could be asked in time. Nothing was done.
    Unavailable {
        /// The last failure.
        last: String,
    },
    /// It was sent, and no answer came: it may or may not have been done, now or later.
    Unknown {
        /// The last failure.
        last: String,
    },
}

impl Error {
    /// Whether nobody could be asked, or nobody answered: another time may bring more luck.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Error::Unavailable { .. } | Error::Unknown { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Endpoint { endpoint, why } => write!(f, "endpoint `{endpoint}`: {why}"),
            Error::Refused(status) => {
                write!(f, "the server refused: {} ({:?})", status.message(), status.code())
            }
            Error::Unavailable { last } => {
                write!(f, "no endpoint could serve the call, nothing was done: {last}")
            }
            Error::Unknown { last } => {
                write!(f, "no answer came, whether it was done is unknown: {last}")
            }
        }
    }
}

impl std::error::Error for Error {}
