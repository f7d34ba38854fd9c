//! Who is told what arrives.

use crate::error::Refusal;
use bytes::Bytes;
use quorate_base::NodeId;
use quorate_driver::PeerMessage;

/// The transport's owner. Called from the transport's tasks: nothing here may block.
pub trait Receiver: Send + Sync + 'static {
    /// Messages arrived, in order of sending; `messages` is to be drained.
    fn deliver(&self, from: NodeId, messages: &mut Vec<PeerMessage>);

    /// An established ordinary stream to or from this peer broke.
    fn lost(&self, node: NodeId);

    /// This peer does not let us in.
    fn refused(&self, by: NodeId, refusal: Refusal);

    /// Whether a peer is the one that was known under its name, by the birth of its data directory;
    /// a new one is remembered, durably, first. Nothing, if that fails. It happens once for a peer.
    fn recognizes(&self, _node: NodeId, _birth: u64) -> Option<bool> {
        Some(true)
    }

    /// Whether more than enough has arrived and is not yet worked off: reading pauses then, and
    /// the peers' queues take the strain.
    fn congested(&self) -> bool;

    /// What an inquiry is answered: the owner's own encoding.
    fn directory(&self) -> Bytes;
}
