//! What can go wrong, and whose fault it is.

use crate::key_value::Revision;
use std::fmt;

/// Why the store could not do something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The caller asked for a revision whose history was compacted.
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can be read.
        compacted: Revision,
    },
    /// The caller asked for a revision that is yet to come.
    Future {
        /// What was asked for.
        requested: Revision,
        /// The latest there is.
        current: Revision,
    },
    /// The caller's key is longer than [`crate::MAX_KEY_BYTES`].
    KeyTooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The disk failed, and what it holds may not be believed until the node starts again.
    Disk(String),
    /// The disk is full. Nothing was changed that had not been before.
    Full(String),
    /// An earlier sync or write failed: nothing is taken any more until the node starts again.
    Poisoned,
    /// The disk gave back something that the store never wrote.
    Corrupt(String),
    /// The state was written by a newer version.
    NewerFormat {
        /// Its format.
        found: u64,
        /// The newest this version reads.
        supported: u64,
    },
    /// A peer sent a snapshot that makes no sense.
    Peer(String),
    /// Whoever wrote this state has closed it, and its keys may be somebody else's by now.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Compacted { requested, compacted } => {
                write!(f, "revision {requested} was compacted; the oldest is {compacted}")
            }
            Error::Future { requested, current } => {
                write!(f, "revision {requested} is yet to come; the latest is {current}")
            }
            Error::KeyTooLong { bytes } => {
                write!(f, "a key of {bytes} bytes is over the limit of {}", crate::MAX_KEY_BYTES)
            }
            Error::Disk(why) => write!(f, "the state's disk failed: {why}"),
            Error::Full(why) => write!(f, "the state's disk is full: {why}"),
            Error::Poisoned => write!(f, "an earlier write of the state failed; restart the node"),
            Error::Corrupt(why) => write!(f, "the state on disk is damaged: {why}"),
            Error::NewerFormat { found, supported } => {
                write!(f, "the state has format {found}, but this version reads up to {supported}")
            }
            Error::Peer(why) => write!(f, "a peer sent a bad snapshot: {why}"),
            Error::Closed => write!(f, "the state was closed here: ask another member"),
        }
    }
}

impl std::error::Error for Error {}
