//! Periods in which nothing succeeded: how an outage looks from outside.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Shorter ones are not told apart from a busy machine's hiccups.
pub const SHORTEST: Duration = Duration::from_millis(100);

/// A period without a success.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pause {
    /// When it began, by the wall clock, in seconds since 1970.
    pub began_unix: f64,
    /// How long it was.
    pub length: Duration,
}

/// Gathers them from all clients.
#[derive(Debug)]
pub struct Pauses {
    began: Instant,
    began_unix: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Instant,
    pauses: Vec<(Instant, Duration)>,
}

impl Pauses {
    /// None yet; the first may begin at `began`, which is now or later.
    #[allow(clippy::disallowed_methods)] // Of a report, which people compare with logs.
    pub fn new(began: Instant) -> Pauses {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let until = began.saturating_duration_since(Instant::now()).as_secs_f64();
        let state = Mutex::new(State { last: began, pauses: Vec::new() });
        Pauses { began, began_unix: unix + until, state }
    }

    /// Something succeeded, or the time is over.
    pub fn success(&self, at: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let length = at.saturating_duration_since(state.last);
        if length >= SHORTEST {
            let began = state.last;
            state.pauses.push((began, length));
        }
        state.last = state.last.max(at);
    }

    /// The wall clock at `at`, in seconds since 1970.
    pub fn unix(&self, at: Instant) -> f64 {
        self.began_unix + at.saturating_duration_since(self.began).as_secs_f64()
    }

    /// All so far, in the order of their ends.
    pub fn all(&self) -> Vec<Pause> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |(began, length): &(Instant, Duration)| Pause {
            began_unix: self.unix(*began),
            length: *length,
        };
        state.pauses.iter().map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_what_lies_between_two_successes() {
        let began = Instant::now();
        let pauses = Pauses::new(began);
        for ms in [50, 90, 300, 310, 305, 500] {
            pauses.success(began + Duration::from_millis(ms));
        }
        let all = pauses.all();
        let lengths: Vec<u128> = all.iter().map(|pause| pause.length.as_millis()).collect();
        assert_eq!(lengths, [210, 190]);
        assert!((all[1].began_unix - all[0].began_unix - 0.22).abs() < 1e-6);
    }
}
