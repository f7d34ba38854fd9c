//! Ids for leases whose callers name none: 16 bits of the member, 32 of the second, 15 of a
//! counter. One that happens to exist is found out when the grant is applied.

use quorate_base::NodeId;
use quorate_mvcc::LeaseId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) struct LeaseIds {
    member: u64,
    count: AtomicU64,
}

impl LeaseIds {
    pub fn new(member: NodeId) -> LeaseIds {
        LeaseIds { member: member.0, count: AtomicU64::new(0) }
    }

    /// The next id, never zero.
    #[allow(clippy::disallowed_methods)] // Another number would do as well.
    pub fn next(&self) -> LeaseId {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        // A counter that wraps within a second borrows from the next one.
        let low = (seconds << 15).wrapping_add(count) & ((1 << 47) - 1);
        let member = (self.member ^ (self.member >> 16) ^ (self.member >> 32)) & 0xffff;
        let id = (member << 47 | low) & (i64::MAX as u64);
        LeaseId::try_from(id).unwrap_or(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_positive_and_differ() {
        let ids = LeaseIds::new(NodeId(u64::MAX));
        let mut seen: Vec<LeaseId> = (0..1000).map(|_| ids.next()).collect();
        assert!(seen.iter().all(|id| *id > 0));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }
}
