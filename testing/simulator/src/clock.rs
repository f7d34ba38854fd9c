//! A node's clock: it drifts, and every start of the node begins at another number.

use quorate_base::Instant;

/// A node's monotonic clock as a function of true (virtual) time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    reads_then: Instant,
    /// Parts per million by which it runs fast (or slow, if negative).
    drift_ppm: i64,
}

impl Clock {
    /// A clock that reads `reads` at `now`.
    pub fn new(now: Instant, reads: Instant, drift_ppm: i64) -> Self {
        Clock { started: now, reads_then: reads, drift_ppm }
    }

    /// What it reads at a true time.
    pub fn read(&self, now: Instant) -> Instant {
        let passed = i128::from(now.0.saturating_sub(self.started.0));
        let shown = passed + passed * i128::from(self.drift_ppm) / 1_000_000;
        Instant(self.reads_then.0.saturating_add(u64::try_from(shown).unwrap_or(0)))
    }

    /// The first true time at which it reads `reading` or more.
    pub fn when(&self, reading: Instant) -> Instant {
        let shown = i128::from(reading.0.saturating_sub(self.reads_then.0));
        let passed = shown * 1_000_000 / i128::from(1_000_000 + self.drift_ppm);
        let mut at =
            Instant(self.started.0.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)));
        while self.read(at) < reading && at != Instant::FAR {
            at = Instant(at.0 + 1);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_waking_agree() {
        for drift in [-50_000, -3, 0, 7, 50_000] {
            let clock = Clock::new(Instant(1_000), Instant(77), drift);
            for reading in [0, 77, 78, 1_000_000, 123_456_789_012] {
                let at = clock.when(Instant(reading));
                assert!(clock.read(at) >= Instant(reading), "{drift} {reading}");
                assert!(at.0 == 1_000 || clock.read(Instant(at.0 - 1)) < Instant(reading));
            }
        }
    }
}
