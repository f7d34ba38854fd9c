//! When a member runs out of space, and when it has space again.
//!
//! The NOSPACE alarm is replicated, so every replica refuses the same writes; raising and
//! clearing it is each member's own affair, because quotas and disks may differ. Whoever runs a
//! node asks its [`SpaceGuard`] now and then, and before or after a write that may not fit, and
//! proposes the command it gets. Proposing it twice does no harm.

use crate::command::{Alarm, Command};
use quorate_base::NodeId;

/// Watches one member's space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceGuard {
    /// The member.
    pub member: NodeId,
    /// How many logical bytes the keyspace may have; zero: no bound.
    pub quota_bytes: u64,
    /// How many bytes must stay free on the member's disk; zero: no bound.
    pub reserve_bytes: u64,
}

impl SpaceGuard {
    /// The command that is called for, if any. `logical_bytes` is the keyspace's size, `free_bytes`
    /// what is free on the disk (as far as known), `raised` whether this member's alarm is raised.
    ///
    /// The alarm is cleared only once a tenth of the quota, or twice the reserve, is free:
    /// otherwise it would come and go with every write.
    pub fn check(
        &self,
        logical_bytes: u64,
        free_bytes: Option<u64>,
        raised: bool,
    ) -> Option<Command> {
        let quota = if self.quota_bytes == 0 { u64::MAX } else { self.quota_bytes };
        let free = free_bytes.unwrap_or(u64::MAX);
        let raise = match raised {
            false => logical_bytes > quota || free < self.reserve_bytes,
            true => {
                logical_bytes > quota - quota / 10 || free < self.reserve_bytes.saturating_mul(2)
            }
        };
        let command = Command::Alarm { raise, member: self.member, alarm: Alarm::NoSpace };
        (raise != raised).then_some(command)
    }

    /// Whether a write that adds `bytes` still fits. The write that does not is refused by the
    /// member that got it, before it is proposed.
    pub fn fits(&self, logical_bytes: u64, bytes: u64) -> bool {
        self.quota_bytes == 0 || logical_bytes.saturating_add(bytes) <= self.quota_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm(raise: bool) -> Option<Command> {
        Some(Command::Alarm { raise, member: NodeId(7), alarm: Alarm::NoSpace })
    }

    #[test]
    fn the_quota_raises_the_alarm_and_room_clears_it() {
        let guard = SpaceGuard { member: NodeId(7), quota_bytes: 1_000, reserve_bytes: 0 };
        assert_eq!(guard.check(1_000, None, false), None);
        assert_eq!(guard.check(1_001, None, false), alarm(true));
        assert_eq!(guard.check(1_001, None, true), None);
        assert_eq!(guard.check(901, None, true), None, "not yet: it would be raised again soon");
        assert_eq!(guard.check(900, None, true), alarm(false));
        assert!(guard.fits(990, 10) && !guard.fits(990, 11));
    }

    #[test]
    fn a_full_disk_raises_the_alarm_whatever_the_quota() {
        let guard = SpaceGuard { member: NodeId(7), quota_bytes: 0, reserve_bytes: 100 };
        assert_eq!(guard.check(u64::MAX, Some(100), false), None);
        assert_eq!(guard.check(0, Some(99), false), alarm(true));
        assert_eq!(guard.check(0, Some(199), true), None);
        assert_eq!(guard.check(0, Some(200), true), alarm(false));
        assert!(guard.fits(u64::MAX, u64::MAX));
    }
}
