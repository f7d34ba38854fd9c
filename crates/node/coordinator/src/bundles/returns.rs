//! How soon those come back who were answered: learned, so that the next ones wait for them where
//! it is worth it, and only so long.

use std::time::{Duration, Instant};

/// The longest that the next ones wait.
pub(super) const LINGER: Duration = Duration::from_millis(10);

/// What was learned of one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Returns {
    /// How long it takes until most are back. Longer than [`LINGER`]: too long to be waited for.
    usual: Duration,
    counting: Option<Counting>,
}

/// Those who are counted as they come back.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Counting {
    since: Instant,
    answered: usize,
    back: usize,
}

impl Returns {
    pub fn new() -> Returns {
        Returns { usual: LINGER / 2, counting: None }
    }

    /// So many were answered now. Until the present ones are back, or do not come any more, they
    /// are not counted: there were others then.
    pub fn answered(&mut self, answered: usize, now: Instant) {
        if let Some(counting) = &self.counting {
            if now - counting.since <= LINGER {
                return;
            }
            self.usual = Duration::MAX;
        }
        self.counting = Some(Counting { since: now, answered, back: 0 });
    }

    /// Somebody has come: one of them, or new, which makes no difference to who waits.
    pub fn came(&mut self, now: Instant) {
        let Some(counting) = &mut self.counting else { return };
        counting.back += 1;
        if 4 * counting.back < 3 * counting.answered {
            return;
        }
        let took = now - counting.since;
        self.counting = None;
        // What is a little too long is waited for in vain; too short, and all ride twice as often.
        self.usual = match took < self.usual && self.usual <= LINGER {
            true => (self.usual + took) / 2,
            false => took,
        };
    }

    /// They were not answered, but sent elsewhere.
    pub fn forget(&mut self) {
        self.counting = None;
    }

    /// How long they are waited for, after a ride that took so long.
    pub fn patience(&self, took: Duration) -> Duration {
        if self.usual > LINGER {
            return Duration::ZERO;
        }
        // The last of them come later than most; and whoever is left behind waits for a whole ride,
        // while nobody waits any longer once all are there.
        (3 * self.usual).max(took).min(2 * took).min(LINGER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIDE: Duration = Duration::from_secs(3_600);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn who_is_usually_back_soon_is_waited_for() {
        let (mut it, start) = (Returns::new(), Instant::now());
        assert_eq!(it.patience(ms(4)), ms(8), "nothing is known yet");
        for (n, took) in (0..).zip([2, 2, 4, 2]) {
            let now = start + ms(100) * n;
            it.answered(8, now);
            (0..5).for_each(|_| it.came(now));
            it.came(now + ms(took));
            (0..2).for_each(|_| it.came(now + ms(50)));
        }
        // 5, then 3.5, 2.75, 4, 3.
        assert_eq!(it.patience(ms(6)), ms(9));
        assert_eq!(it.patience(ms(9) + ms(1) / 2), ms(9) + ms(1) / 2, "a ride at least,");
        assert_eq!(it.patience(ms(1)), ms(2), "never much longer than one,");
        assert_eq!(it.patience(RIDE), LINGER, "nor very long");
    }

    #[test]
    fn who_comes_late_or_never_is_not_waited_for_until_that_changes() {
        let (mut it, start) = (Returns::new(), Instant::now());
        it.answered(8, start);
        (0..5).for_each(|_| it.came(start + ms(1)));
        it.answered(2, start + ms(3));
        assert!(it.patience(RIDE) > ms(0), "they may still come");
        it.answered(8, start + ms(100));
        assert_eq!(it.patience(RIDE), ms(0));
        (0..8).for_each(|_| it.came(start + ms(120)));
        assert_eq!(it.patience(RIDE), ms(0), "they came, but late");
        it.answered(8, start + ms(200));
        (0..8).for_each(|_| it.came(start + ms(202)));
        assert!(it.patience(RIDE) > ms(0));
        it.answered(8, start + ms(300));
        it.forget();
        it.answered(8, start + ms(400));
        assert!(it.patience(RIDE) > ms(0), "nobody was expected");
    }
}
