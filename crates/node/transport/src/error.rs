//! What can go wrong between nodes, and whose fault it is.

use quorate_base::codec::DecodeError;
use quorate_base::{ClusterId, NodeId};
use std::fmt;
use std::io;

/// A message with more items than a receiver accepts: it is not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Oversized {
    /// How many.
    pub items: usize,
}

/// Why a peer does not let a node in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The caller belongs to another cluster.
    WrongCluster,
    /// The caller wanted another node, or is not who it says it is.
    WrongNode,
    /// No version of the protocol is spoken by both.
    WrongVersion,
    /// The caller was removed from the cluster.
    Removed,
    /// There are too many connections already.
    Busy,
    /// The caller's data directory is not the one that was known under its name.
    Forgot,
}

/// What went wrong. The text names who is at fault; whoever logs it adds the peer's name.
#[derive(Debug)]
pub enum TransportError {
    /// The caller's: an address cannot be listened on.
    Listen {
        /// The address.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The caller's: not an address of a peer.
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The network's: a connection broke, or could not be made.
    Network {
        /// What was tried.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The network's or the peer's: it took too long.
    Timeout {
        /// What was tried.
        doing: &'static str,
    },
    /// The peer's: it refused us.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Its words.
        reason: String,
    },
    /// The peer's: we refused it.
    WeRefused {
        /// Why.
        refusal: Refusal,
        /// Our words, which it was told.
        reason: String,
    },
    /// The peer's: it does not speak this protocol at all.
    NotAPeer,
    /// The peer's: a frame longer than allowed, or a damaged one.
    Frame(FrameError),
    /// The peer's: a frame whose content makes no sense.
    Content(DecodeError),
    /// The peer's: somebody else answered.
    WrongAnswer {
        /// The cluster that answered.
        cluster: ClusterId,
        /// The node that answered.
        node: NodeId,
    },
    /// The peer's: a frame of a kind that does not belong here.
    Unexpected {
        /// The kind.
        kind: u8,
    },
}

/// What is wrong with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// Longer than allowed.
    TooLong {
        /// What was claimed, in bytes.
        claimed: u64,
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// Its checksum does not fit.
    Checksum {
        /// What was claimed.
        claimed: u32,
        /// What was computed.
        computed: u32,
    },
    /// Its reserved bytes are not zero.
    Reserved,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLong { claimed, limit } => {
                write!(f, "a frame of {claimed} bytes, where {limit} are allowed")
            }
            FrameError::Checksum { claimed, computed } => {
                write!(f, "a frame with checksum {claimed:08x}, where {computed:08x} is right")
            }
            FrameError::Reserved => write!(f, "a frame whose reserved bytes are not zero"),
        }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransportError::Listen { address, source } => {
                write!(f, "cannot listen for peers on {address}: {source}")
            }
            TransportError::Address { address, reason } => {
                write!(f, "{address:?} is not the address of a peer: {reason}")
            }
            TransportError::Network { doing, source } => {
                write!(f, "the network failed while {doing}: {source}")
            }
            TransportError::Timeout { doing } => write!(f, "took too long: {doing}"),
            TransportError::Refused { reason, .. } => write!(f, "the peer refused us: {reason}"),
            TransportError::WeRefused { reason, .. } => write!(f, "refused the peer: {reason}"),
            TransportError::NotAPeer => {
                write!(f, "the other side does not speak Quorate's peer protocol")
            }
            TransportError::Frame(error) => write!(f, "the peer sent {error}"),
            TransportError::Content(error) => write!(f, "the peer sent a malformed frame: {error}"),
            TransportError::WrongAnswer { cluster, node } => {
                write!(f, "node {node} of cluster {cluster} answered instead of the one wanted")
            }
            TransportError::Unexpected { kind } => {
                write!(f, "the peer sent a frame of kind {kind}, which does not belong here")
            }
        }
    }
}

impl std::error::Error for TransportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TransportError::Listen { source, .. } | TransportError::Network { source, .. } => {
                Some(source)
            }
            TransportError::Content(error) => Some(error),
            _ => None,
        }
    }
}

impl From<FrameError> for TransportError {
    fn from(error: FrameError) -> Self {
        TransportError::Frame(error)
    }
}

impl From<DecodeError> for TransportError {
    fn from(error: DecodeError) -> Self {
        TransportError::Content(error)
    }
}
