//! Until when a call may take. Every call to a participant has one.

use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// The longest a deadline may be away: locks of a prepared branch stop everybody else.
const LONGEST: Duration = Duration::from_secs(3600);

/// A point in time on the monotonic clock of this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// So far from now; an hour at the most.
    pub fn within(time: Duration) -> Deadline {
        Deadline(Instant::now() + time.min(LONGEST))
    }

    /// What is left.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The same, or sooner.
    pub(crate) fn at_most(self, time: Duration) -> Deadline {
        self.min(Deadline::within(time))
    }

    /// Runs `work` until the deadline; nothing, if that came first.
    pub(crate) async fn bound<T>(self, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.0, work).await.ok()
    }

    /// What is left in whole milliseconds, at least one: in SQL, zero means "for ever".
    pub(crate) fn left_ms(self) -> u64 {
        u64::try_from(self.left().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// How long to wait for locks: less than what is left, so that there is time to roll back and
    /// to say why.
    pub(crate) fn lock_wait_ms(self) -> u64 {
        (self.left_ms() * 4 / 5).max(1)
    }
}
