//! What the driver thread publishes about a group, to be read by anyone without asking it.
//!
//! Each figure is atomic by itself; together they may be of neighbouring moments. Safety never
//! rests on them.

use parking_lot::Mutex;
use quorate_base::{Index, NodeId};
use quorate_replicated_log::{Epoch, Membership, Protocol, Role};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use tokio::sync::watch;

/// How consensus stands, as this node sees it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Consensus {
    /// What this node does.
    pub role: Role,
    /// Whom it takes for the leader, or nobody.
    pub leader: NodeId,
    /// The round, which Raft calls term.
    pub term: u64,
    /// Known to be committed up to here.
    pub commit: Index,
    /// Applied up to here.
    pub applied: Index,
    /// Which epoch the log is in.
    pub epoch: Epoch,
    /// The protocol of that epoch.
    pub protocol: Protocol,
}

/// The published figures.
pub(crate) struct Board {
    role: AtomicU8,
    leader: AtomicU64,
    term: AtomicU64,
    commit: AtomicU64,
    applied: AtomicU64,
    /// The number of the epoch, and below it, in the last byte, its protocol.
    epoch: AtomicU64,
    /// Tells whoever waits that the leader changed.
    pub leader_changed: watch::Sender<NodeId>,
    /// The members as of the applied entries.
    pub membership: Mutex<Membership>,
}

const ROLES: [Role; 5] =
    [Role::Follower, Role::PreCandidate, Role::Candidate, Role::Leader, Role::Learner];

impl Board {
    pub fn new() -> Self {
        Board {
            role: AtomicU8::new(0),
            leader: AtomicU64::new(0),
            term: AtomicU64::new(0),
            commit: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            leader_changed: watch::Sender::new(NodeId::NONE),
            membership: Mutex::default(),
        }
    }

    pub fn read(&self) -> Consensus {
        let applied = self.applied.load(Relaxed);
        let epoch = self.epoch.load(Relaxed);
        let protocol = Protocol::ALL.get((epoch & 0xff) as usize).copied().unwrap_or_default();
        Consensus {
            role: ROLES.get(usize::from(self.role.load(Relaxed))).copied().unwrap_or_default(),
            leader: NodeId(self.leader.load(Relaxed)),
            term: self.term.load(Relaxed),
            commit: self.commit.load(Relaxed).max(applied),
            applied,
            epoch: Epoch(u32::try_from(epoch >> 8).unwrap_or(u32::MAX)),
            protocol,
        }
    }

    pub fn set_role(&self, role: Role, leader: NodeId, term: u64) {
        let number = ROLES.iter().position(|r| *r == role).unwrap_or(0);
        self.role.store(number as u8, Relaxed);
        self.leader.store(leader.0, Relaxed);
        self.term.store(term, Relaxed);
        self.leader_changed
            .send_if_modified(|current| std::mem::replace(current, leader) != leader);
    }

    pub fn set_epoch(&self, epoch: Epoch, protocol: Protocol) {
        let number = Protocol::ALL.iter().position(|p| *p == protocol).unwrap_or(0);
        self.epoch.store(u64::from(epoch.0) << 8 | number as u64, Relaxed);
    }

    pub fn set_commit(&self, index: Index) {
        self.commit.fetch_max(index, Relaxed);
    }

    pub fn set_applied(&self, index: Index) {
        self.applied.fetch_max(index, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read() {
        let board = Board::new();
        for role in ROLES {
            board.set_role(role, NodeId(7), 3);
            assert_eq!((board.read().role, board.read().leader), (role, NodeId(7)));
        }
        for protocol in Protocol::ALL {
            board.set_epoch(Epoch(u32::MAX), protocol);
            let read = board.read();
            assert_eq!((read.epoch, read.protocol), (Epoch(u32::MAX), protocol));
        }
        board.set_commit(9);
        board.set_applied(8);
        assert_eq!((board.read().commit, board.read().applied, board.read().term), (9, 8, 3));
        assert_eq!(*board.leader_changed.borrow(), NodeId(7));
    }
}
