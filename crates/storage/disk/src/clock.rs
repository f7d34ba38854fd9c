//! Time, asked for only at the edge: everything below is told it.

use quorate_base::Instant;
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of time.
pub trait Clock: Send + Sync {
    /// Monotonic time since this clock was made.
    fn now(&self) -> Instant;

    /// Wall-clock time in nanoseconds since 1970. For people; safety never depends on it.
    fn unix_nanos(&self) -> u64;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct OsClock {
    start: std::time::Instant,
}

impl OsClock {
    /// A clock that starts now.
    pub fn new() -> Self {
        OsClock { start: std::time::Instant::now() }
    }
}

impl Default for OsClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for OsClock {
    fn now(&self) -> Instant {
        // Saturates after 584 years.
        Instant(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    #[allow(clippy::disallowed_methods)]
    fn unix_nanos(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
    }
}
