//! What the driver thread publishes about the group, to be read by anyone without asking it.
//!
//! Each figure is atomic by itself; together they may be of neighbouring moments. Safety never
//! rests on them.

use crate::error::End;
use parking_lot::Mutex;
use quorate_base::{Index, NodeId};
use quorate_replicated_log::{Membership, Role};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
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
}

/// The published figures.
pub(crate) struct Board {
    role: AtomicU8,
    leader: AtomicU64,
    term: AtomicU64,
    commit: AtomicU64,
    applied: AtomicU64,
    /// Tells whoever waits that the leader changed.
    pub leader_changed: watch::Sender<NodeId>,
    /// How the node ended, once it has.
    pub end: watch::Sender<Option<End>>,
    ended: AtomicBool,
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
            leader_changed: watch::Sender::new(NodeId::NONE),
            end: watch::Sender::new(None),
            ended: AtomicBool::new(false),
            membership: Mutex::default(),
        }
    }

    pub fn read(&self) -> Consensus {
        let applied = self.applied.load(Relaxed);
        Consensus {
            role: ROLES.get(usize::from(self.role.load(Relaxed))).copied().unwrap_or_default(),
            leader: NodeId(self.leader.load(Relaxed)),
            term: self.term.load(Relaxed),
            commit: self.commit.load(Relaxed).max(applied),
            applied,
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

    pub fn set_commit(&self, index: Index) {
        self.commit.fetch_max(index, Relaxed);
    }

    pub fn set_applied(&self, index: Index) {
        self.applied.fetch_max(index, Relaxed);
    }

    /// Whether the node has ended: cheap.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Ends the node, once: the first reason counts.
    pub fn finish(&self, end: End) {
        self.ended.store(true, Relaxed);
        self.end.send_if_modified(|current| match current {
            None => {
                *current = Some(end);
                true
            }
            Some(_) => false,
        });
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
        board.set_commit(9);
        board.set_applied(8);
        assert_eq!((board.read().commit, board.read().applied, board.read().term), (9, 8, 3));
        assert_eq!(*board.leader_changed.borrow(), NodeId(7));
        board.finish(End::Removed);
        board.finish(End::Stopped);
        assert_eq!(*board.end.borrow(), Some(End::Removed));
    }
}
