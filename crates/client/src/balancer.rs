//! Which endpoint is asked next: in turn, and those that failed lately only when nothing else is
//! left.

use std::time::{Duration, Instant};

const FIRST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Default, Debug)]
struct Health {
    /// Failures in a row.
    failures: u32,
    rests_until: Option<Instant>,
}

/// The health of each endpoint, and whose turn it is.
#[derive(Clone, Debug)]
pub(crate) struct Balancer {
    health: Vec<Health>,
    next: usize,
}

impl Balancer {
    /// For so many endpoints (at least one); `first` is asked first.
    pub(crate) fn new(endpoints: usize, first: usize) -> Self {
        Balancer { health: vec![Health::default(); endpoints], next: first % endpoints.max(1) }
    }

    /// Whom to ask now: the next that does not rest, or the one whose rest ends first.
    pub(crate) fn pick(&mut self, now: Instant) -> usize {
        let n = self.health.len();
        let order = (0..n).map(|i| (self.next + i) % n);
        // An endpoint without a rest, or with one that is over, counts as rested since `now`.
        let rest = |i: usize| self.health[i].rests_until.map_or(now, |until| until.max(now));
        let picked = order.min_by_key(|i| rest(*i)).unwrap_or(0);
        self.next = picked + 1;
        picked
    }

    /// Whether it has failed, and is left alone.
    pub(crate) fn rests(&self, endpoint: usize, now: Instant) -> bool {
        let until = self.health.get(endpoint).and_then(|health| health.rests_until);
        until.is_some_and(|until| now < until)
    }

    /// It could not be reached, or did not answer.
    pub(crate) fn failed(&mut self, endpoint: usize, now: Instant) {
        if let Some(health) = self.health.get_mut(endpoint) {
            let rest = FIRST_REST.saturating_mul(1 << health.failures.min(16)).min(LONGEST_REST);
            health.failures += 1;
            health.rests_until = Some(now + rest);
        }
    }

    /// It answered.
    pub(crate) fn answered(&mut self, endpoint: usize) {
        if let Some(health) = self.health.get_mut(endpoint) {
            *health = Health::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_take_turns() {
        let (mut balancer, now) = (Balancer::new(3, 1), Instant::now());
        let picks: Vec<_> = (0..4).map(|_| balancer.pick(now)).collect();
        assert_eq!(picks, [1, 2, 0, 1]);
    }

    #[test]
    fn who_failed_rests_longer_each_time() {
        let (mut balancer, now) = (Balancer::new(2, 0), Instant::now());
        balancer.failed(0, now);
        assert_eq!([balancer.pick(now), balancer.pick(now)], [1, 1]);
        let later = now + FIRST_REST;
        assert_eq!(balancer.pick(later), 0);
        balancer.failed(0, later);
        assert_eq!(balancer.pick(later + FIRST_REST), 1);
        assert_eq!(balancer.pick(later + 2 * FIRST_REST), 0);
        balancer.answered(0);
        balancer.failed(0, later);
        assert_eq!(balancer.health[0].rests_until, Some(later + FIRST_REST));
    }

    #[test]
    fn when_all_rest_the_first_to_wake_is_asked() {
        let (mut balancer, now) = (Balancer::new(2, 0), Instant::now());
        balancer.failed(0, now);
        balancer.failed(0, now);
        balancer.failed(1, now);
        assert_eq!(balancer.pick(now), 1);
    }
}
