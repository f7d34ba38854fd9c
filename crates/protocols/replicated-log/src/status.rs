//! What a replica knows of itself, for people, metrics, placement and tests. Never for safety.

use crate::epoch::Epoch;
use crate::interface::Protocol;
use crate::membership::Membership;
use alloc::vec::Vec;
use quorate_base::{Ballot, Index, NodeId, Position};

/// What a replica does at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Role {
    /// Follows, or waits for a leader.
    #[default]
    Follower,
    /// Asks whether it could be elected.
    PreCandidate,
    /// Asks to be elected.
    Candidate,
    /// Leads.
    Leader,
    /// Receives the log without a vote.
    Learner,
}

/// A replica's view of itself and, when it leads, of its peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The epoch of its log.
    pub epoch: Epoch,
    /// The protocol of that epoch.
    pub protocol: Protocol,
    /// Its role.
    pub role: Role,
    /// The highest ballot it has seen, and whom it was promised to.
    pub ballot: Ballot,
    /// Who leads, if known.
    pub leader: NodeId,
    /// Its log begins after this.
    pub base: Position,
    /// Its log ends here.
    pub last: Position,
    /// Its log is durable up to here.
    pub durable: Index,
    /// Committed up to here.
    pub commit: Index,
    /// Applied up to here.
    pub applied: Index,
    /// The members in force.
    pub membership: Membership,
    /// Filled by a leader: its followers, in order of node.
    pub peers: Vec<PeerStatus>,
}

/// A leader's view of one follower.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// The follower.
    pub node: NodeId,
    /// Its log is known to agree up to here.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    /// Whether it was heard from within the last election timeout.
    pub active: bool,
    /// Whether it is being sent a snapshot.
    pub snapshot: bool,
}
