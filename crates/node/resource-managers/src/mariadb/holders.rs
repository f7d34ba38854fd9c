//! Which session holds which prepared branch.
//!
//! Invariant: no session is kept for longer than the server keeps it. Somebody else may have
//! finished its branch, and then nobody ever asks for the session again.

use crate::name::BranchName;
use crate::pool::Lease;
use mysql_async::Conn;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::SESSION_LIMIT;

/// The sessions that hold a prepared branch, and the numbers of those that were lost.
#[derive(Default)]
pub(super) struct Holders {
    held: Mutex<BTreeMap<BranchName, (Lease<Conn>, Instant)>>,
    lost: Mutex<BTreeMap<BranchName, (u32, Instant)>>,
}

impl Holders {
    /// Whether a session of ours holds the branch, prepared.
    pub(super) fn has(&self, branch: &BranchName) -> bool {
        self.let_go();
        self.held.lock().contains_key(branch)
    }

    /// Keeps the session of a branch that is prepared.
    pub(super) fn hold(&self, branch: &BranchName, session: Lease<Conn>) {
        self.held.lock().insert(branch.clone(), (session, Instant::now()));
    }

    /// Closes the sessions that the server has ended by itself; in how long it will end the next.
    ///
    /// The server has counted since it sent the answer that we count from: what we close, it has
    /// closed. Where it is late, because it stood still, our closing ends the session, and the
    /// branch stays prepared for whoever finishes it.
    pub(super) fn let_go(&self) -> Option<Duration> {
        let left = |since: &Instant| SESSION_LIMIT.saturating_sub(since.elapsed());
        let mut held = self.held.lock();
        held.retain(|_, (_, since)| !left(since).is_zero());
        held.values().map(|(_, since)| left(since)).min()
    }

    /// The session of a branch, to finish it with. Until it has ended well it counts as lost, so
    /// that nothing need be noted if whoever uses it is dropped.
    pub(super) fn take(&self, branch: &BranchName) -> Option<Lease<Conn>> {
        self.let_go();
        let (session, _) = self.held.lock().remove(branch)?;
        self.lose(branch, session.id());
        Some(session)
    }

    /// Notes that this session may hold the branch and is out of our reach.
    pub(super) fn lose(&self, branch: &BranchName, session: u32) {
        let mut lost = self.lost.lock();
        // The server has ended older ones by itself; a number may be somebody else's by now.
        lost.retain(|_, (_, since)| since.elapsed() < SESSION_LIMIT);
        lost.insert(branch.clone(), (session, Instant::now()));
    }

    /// The session that may still hold the branch at the server.
    pub(super) fn lost(&self, branch: &BranchName) -> Option<u32> {
        let lost = self.lost.lock();
        let (session, since) = lost.get(branch)?;
        (since.elapsed() < SESSION_LIMIT).then_some(*session)
    }

    /// Notes that nobody holds the branch any more.
    pub(super) fn over(&self, branch: &BranchName) {
        self.lost.lock().remove(branch);
    }
}
