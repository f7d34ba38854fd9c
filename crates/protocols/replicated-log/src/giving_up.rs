//! When a leader gives up by itself: one rule for every engine.
//!
//! A leader that hears no quorum, whose disk stalls, or whose entries stop being committed is in
//! the way of another. How it is judged rests on nothing but what it has seen and the time.

use crate::effects::StepDown;
use core::time::Duration;
use quorate_base::Instant;

/// What a leader that does not decide alone has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leadership {
    /// A quorum, itself included, was heard from at this time or later.
    pub heard: Instant,
    /// How long it goes on without hearing one.
    pub patience: Duration,
    /// How long it waits for its disk, and for others to hold what it sends.
    pub stall_timeout: Duration,
    /// Since when its oldest unfinished write waits.
    pub writing_since: Option<Instant>,
    /// Since when something waits to be committed while nothing is.
    pub committing_since: Option<Instant>,
    /// A follower takes in a snapshot: it moves on unseen, and a new leader would only start over.
    pub catching_up: bool,
}

impl Leadership {
    /// Why it must give up now, if it must; and until when, whatever happens meanwhile, the answer
    /// stays no.
    pub fn must_step_down(&self, now: Instant) -> (Option<StepDown>, Instant) {
        let silent = self.heard + self.patience;
        // A quorum is only ever heard from later than that, and a wait that is yet to begin begins
        // after now.
        let waiting = self.writing_since.into_iter().chain(self.committing_since);
        let waiting = waiting.fold(now, Instant::min);
        let steady_until = silent.min(waiting + self.stall_timeout);
        let stalled = now - self.stall_timeout;
        let before = |since: Option<Instant>| since.is_some_and(|at| at < stalled);
        let reason = if silent < now {
            Some(StepDown::NoQuorum)
        } else if before(self.writing_since) {
            Some(StepDown::DiskStalled)
        } else if before(self.committing_since) && !self.catching_up {
            Some(StepDown::NoProgress)
        } else {
            None
        };
        (reason, steady_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    const STEADY: Leadership = Leadership {
        heard: at(950),
        patience: Duration::from_millis(100),
        stall_timeout: Duration::from_millis(500),
        writing_since: None,
        committing_since: None,
        catching_up: false,
    };

    fn judged(leadership: Leadership) -> (Option<StepDown>, Instant) {
        leadership.must_step_down(at(1_000))
    }

    #[test]
    fn who_hears_a_quorum_goes_on_until_its_patience_ends() {
        assert_eq!(judged(STEADY), (None, at(1_050)));
        let (reason, _) = judged(Leadership { heard: at(900), ..STEADY });
        assert_eq!(reason, None, "its patience ends only just now");
        let (reason, _) = judged(Leadership { heard: at(899), ..STEADY });
        assert_eq!(reason, Some(StepDown::NoQuorum));
    }

    #[test]
    fn a_wait_ends_it_after_the_stall_timeout() {
        let patient = Leadership { patience: Duration::from_secs(9), ..STEADY };
        assert_eq!(judged(patient), (None, at(1_500)), "a wait may begin now");
        let writing = |ms| Leadership { writing_since: Some(at(ms)), ..patient };
        assert_eq!(judged(writing(700)), (None, at(1_200)));
        assert_eq!(judged(writing(500)).0, None);
        assert_eq!(judged(writing(499)).0, Some(StepDown::DiskStalled));
        let committing = |ms| Leadership { committing_since: Some(at(ms)), ..patient };
        assert_eq!(judged(committing(600)), (None, at(1_100)));
        assert_eq!(judged(committing(499)).0, Some(StepDown::NoProgress));
        let waited_for = Leadership { catching_up: true, ..committing(499) };
        assert_eq!(judged(waited_for).0, None, "a snapshot is on its way");
    }
}
