//! What can go wrong with the log, and whose fault it is.

use crate::batch::Batch;
use crate::identity::Identity;
use quorate_disk::DiskError;
use std::fmt;

/// Why the log could not do something. The disk, another version, another node's directory or
/// the caller; a bug of the log itself is an assertion.
#[derive(Debug)]
pub enum WalError {
    /// The disk refused something while the log was opened.
    Disk(DiskError),
    /// A write or sync failed earlier. Nothing more is accepted, now or after waiting: which
    /// bytes are durable can only be found out by opening the log anew.
    Poisoned {
        /// The first failure.
        cause: String,
    },
    /// The disk is full. Nothing was written; the batch comes back and may be submitted again
    /// once there is room. Batches without entries, or with a compaction or reset beside them, are
    /// still accepted, from a reserve.
    Full {
        /// The batch.
        batch: Batch,
    },
    /// A record is larger than the log's limit. Nothing was written.
    TooLarge {
        /// The record's bytes.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The options contradict each other.
    Options(&'static str),
    /// The data was written by a later version of the software.
    NewerFormat {
        /// Which file.
        what: String,
        /// Its format.
        found: u32,
        /// The newest format that this version reads.
        known: u32,
    },
    /// The data belongs to another cluster or node.
    Foreign {
        /// Whose it is.
        found: Identity,
        /// Whose it should be.
        expected: Identity,
    },
    /// More is damaged than redundancy can attribute to entries: what was promised is unknown.
    Damaged {
        /// What, and where.
        what: String,
    },
    /// The disk did not complete at once where that was asked for.
    NotInline,
}

impl fmt::Display for WalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalError::Disk(error) => error.fmt(f),
            WalError::Poisoned { cause } => {
                write!(f, "the log stopped after a failure and must be opened anew: {cause}")
            }
            WalError::Full { .. } => write!(f, "the log's disk is full: no new entries are taken"),
            WalError::TooLarge { bytes, limit } => {
                write!(f, "a log record of {bytes} bytes is over the limit of {limit}")
            }
            WalError::Options(why) => write!(f, "log options: {why}"),
            WalError::NewerFormat { what, found, known } => write!(
                f,
                "{what} has format {found}; this version reads up to {known}: start the version \
                 that wrote it, or give this node an empty data directory and add it anew"
            ),
            WalError::Foreign { found, expected } => write!(
                f,
                "the data belongs to node {} of cluster {}, not to node {} of cluster {}: use \
                 that node's configuration or another data directory",
                found.node, found.cluster, expected.node, expected.cluster
            ),
            WalError::Damaged { what } => write!(
                f,
                "damaged beyond attribution: {what}: remove this member from its cluster, empty \
                 its data directory and add it anew"
            ),
            WalError::NotInline => write!(f, "the disk does not complete operations at once"),
        }
    }
}

impl std::error::Error for WalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WalError::Disk(error) => Some(error),
            _ => None,
        }
    }
}

impl From<DiskError> for WalError {
    fn from(error: DiskError) -> Self {
        WalError::Disk(error)
    }
}
