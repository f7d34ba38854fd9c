//! What a transport counts, per peer.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

/// Shared by a peer's two streams and by its readers.
#[derive(Default, Debug)]
pub(crate) struct Counters {
    pub(crate) sent_messages: AtomicU64,
    pub(crate) sent_frames: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) dropped_full: AtomicU64,
    pub(crate) dropped_oversized: AtomicU64,
    pub(crate) dropped_newer: AtomicU64,
    pub(crate) connects: AtomicU64,
    pub(crate) connected: AtomicBool,
    pub(crate) version: AtomicU8,
}

/// A peer, as the transport sees it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PeerStats {
    /// Messages handed to the network.
    pub sent_messages: u64,
    /// Frames they went in.
    pub sent_frames: u64,
    /// Bytes of those.
    pub sent_bytes: u64,
    /// Messages dropped because too much waited already.
    pub dropped_full: u64,
    /// Messages dropped because no frame can hold them.
    pub dropped_oversized: u64,
    /// Messages dropped because the peer's older version of the protocol has no form for them.
    pub dropped_newer: u64,
    /// Connections made.
    pub connects: u64,
    /// Whether the ordinary stream is there now.
    pub connected: bool,
    /// The version of the protocol that was spoken on it last.
    pub version: u8,
}

impl Counters {
    pub(crate) fn read(&self) -> PeerStats {
        PeerStats {
            sent_messages: self.sent_messages.load(Relaxed),
            sent_frames: self.sent_frames.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
            dropped_full: self.dropped_full.load(Relaxed),
            dropped_oversized: self.dropped_oversized.load(Relaxed),
            dropped_newer: self.dropped_newer.load(Relaxed),
            connects: self.connects.load(Relaxed),
            connected: self.connected.load(Relaxed),
            version: self.version.load(Relaxed),
        }
    }
}
