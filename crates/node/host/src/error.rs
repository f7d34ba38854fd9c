//! Why a node cannot start, or cannot go on, and what to do about it.

use quorate_disk::DiskError;
use quorate_transport::TransportError;
use quorate_wal::WalError;
use std::fmt;

/// Why a node did not start.
#[derive(Debug)]
pub enum StartError {
    /// The caller's: the configuration contradicts itself.
    Config(String),
    /// The disk's.
    Disk(DiskError),
    /// The log's: the disk, another cluster's or a newer version's data; the text says what to do.
    Log(WalError),
    /// The state's: likewise.
    State(String),
    /// The disk's: something was found that cannot be read.
    Damaged {
        /// What.
        what: String,
    },
    /// The network's or the caller's: nobody can be listened to.
    Transport(TransportError),
    /// The operating system gives no thread.
    Thread(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(why) => write!(f, "configuration: {why}"),
            StartError::Disk(error) => error.fmt(f),
            StartError::Log(error) => write!(f, "log: {error}"),
            StartError::State(why) => write!(f, "state: {why}"),
            StartError::Damaged { what } => write!(
                f,
                "{what} is damaged: remove this member from its cluster, empty its data directory \
                 and add it anew"
            ),
            StartError::Transport(error) => error.fmt(f),
            StartError::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Disk(error) => Some(error),
            StartError::Log(error) => Some(error),
            StartError::Transport(error) => Some(error),
            StartError::Thread(error) => Some(error),
            _ => None,
        }
    }
}

impl From<DiskError> for StartError {
    fn from(error: DiskError) -> Self {
        StartError::Disk(error)
    }
}

impl From<WalError> for StartError {
    fn from(error: WalError) -> Self {
        StartError::Log(error)
    }
}

impl From<TransportError> for StartError {
    fn from(error: TransportError) -> Self {
        StartError::Transport(error)
    }
}

/// How a running node ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// It was asked to.
    Stopped,
    /// It left the cluster.
    Removed,
    /// It could not go on, for this reason; it recovers when it is started again.
    Failed(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Stopped => f.write_str("stopped"),
            End::Removed => f.write_str(
                "this node was removed from the cluster: its data directory is of no more use; to \
                 join again, empty it and add the node as a new member",
            ),
            End::Failed(why) => write!(f, "cannot go on: {why}"),
        }
    }
}
