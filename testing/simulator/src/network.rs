//! The network between nodes: each direction of each pair is a link of its own.
//!
//! Invariant: what a message suffers is decided when it is sent and is a function of the seed;
//! a cut link drops, a clogged link holds back, neither invents.

use crate::counters::{Counters, Happening};
use quorate_base::{Instant, Rng};
use std::time::Duration;

/// How the network behaves.
#[derive(Clone, Default, Debug)]
pub struct NetworkPlan {
    /// The shortest time a message takes.
    pub delay_least: Duration,
    /// The longest time it usually takes.
    pub delay_most: Duration,
    /// How often it takes up to twenty times longer.
    pub straggler_ppm: u32,
    /// How often it is lost.
    pub loss_ppm: u32,
    /// How often it comes twice.
    pub duplicate_ppm: u32,
    /// How often sending clogs the link for a while.
    pub clog_ppm: u32,
    /// How often sending breaks the connection.
    pub reset_ppm: u32,
}

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Fate {
    /// When it arrives, if it does.
    pub arrives: Option<Instant>,
    /// When it arrives again, if it does.
    pub again: Option<Instant>,
    /// The connection broke.
    pub reset: bool,
}

#[derive(Clone, Copy, Default, Debug)]
struct Link {
    cut: bool,
    clogged_until: Instant,
    last_arrival: Instant,
}

/// All links.
#[derive(Debug)]
pub struct Network {
    plan: NetworkPlan,
    rng: Rng,
    size: usize,
    links: Vec<Link>,
}

impl Network {
    /// A whole network between nodes 1 to `size`.
    pub fn new(plan: NetworkPlan, rng: Rng, size: usize) -> Self {
        Network { plan, rng, size, links: vec![Link::default(); size * size] }
    }

    fn link(&mut self, from: u64, to: u64) -> &mut Link {
        &mut self.links[(from as usize - 1) * self.size + to as usize - 1]
    }

    /// Decides what becomes of a message that is sent now.
    pub fn send(&mut self, now: Instant, from: u64, to: u64, counters: &mut Counters) -> Fate {
        if self.link(from, to).cut {
            counters.add(Happening::MessageCut);
            return Fate::default();
        }
        if self.rng.chance_ppm(self.plan.reset_ppm) {
            return Fate { reset: true, ..Fate::default() };
        }
        if self.rng.chance_ppm(self.plan.loss_ppm) {
            counters.add(Happening::MessageLost);
            return Fate::default();
        }
        if self.rng.chance_ppm(self.plan.clog_ppm) {
            let held = self.rng.duration(Duration::from_millis(20), Duration::from_millis(800));
            self.link(from, to).clogged_until = now + held;
            counters.add(Happening::LinkClogged);
        }
        let arrives = self.arrival(now, from, to);
        let link = self.link(from, to);
        if arrives < link.last_arrival {
            counters.add(Happening::MessageReordered);
        }
        link.last_arrival = link.last_arrival.max(arrives);
        let twice = self.rng.chance_ppm(self.plan.duplicate_ppm);
        if twice {
            counters.add(Happening::MessageDuplicated);
        }
        let again = twice.then(|| {
            let later = self.arrival(now, from, to);
            later + self.rng.duration(Duration::ZERO, Duration::from_millis(200))
        });
        Fate { arrives: Some(arrives), again, reset: false }
    }

    fn arrival(&mut self, now: Instant, from: u64, to: u64) -> Instant {
        let mut delay = self.rng.duration(self.plan.delay_least, self.plan.delay_most);
        if self.rng.chance_ppm(self.plan.straggler_ppm) {
            delay *= self.rng.between(2, 20) as u32;
        }
        now.max(self.link(from, to).clogged_until) + delay
    }

    /// Whether any link is cut.
    pub fn is_cut(&self) -> bool {
        self.links.iter().any(|link| link.cut)
    }

    /// Whether messages get through in this direction.
    pub fn is_open(&self, from: u64, to: u64) -> bool {
        !self.links[(from as usize - 1) * self.size + to as usize - 1].cut
    }

    /// Cuts or mends one direction.
    pub fn set_cut(&mut self, from: u64, to: u64, cut: bool) {
        self.link(from, to).cut = cut;
    }

    /// Mends every link.
    pub fn mend(&mut self) {
        self.links.fill(Link::default());
    }

    /// Loses, repeats and breaks nothing from now on (the run is healing).
    pub fn heal(&mut self) {
        self.mend();
        self.plan.loss_ppm = 0;
        self.plan.duplicate_ppm = 0;
        self.plan.clog_ppm = 0;
        self.plan.reset_ppm = 0;
        self.plan.straggler_ppm = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        let plan = NetworkPlan {
            delay_least: Duration::from_micros(100),
            delay_most: Duration::from_millis(2),
            straggler_ppm: 50_000,
            loss_ppm: 100_000,
            duplicate_ppm: 100_000,
            clog_ppm: 1_000,
            reset_ppm: 1_000,
        };
        Network::new(plan, Rng::new(1), 3)
    }

    #[test]
    fn messages_suffer_everything_and_a_cut_is_one_way() {
        let (mut network, mut counters) = (network(), Counters::default());
        network.set_cut(1, 2, true);
        let mut arrived = 0;
        for i in 0..5_000 {
            let now = Instant(i * 1_000_000);
            assert_eq!(network.send(now, 1, 2, &mut counters), Fate::default());
            let fate = network.send(now, 2, 1, &mut counters);
            assert!(fate.arrives.is_none_or(|at| at > now));
            arrived += usize::from(fate.arrives.is_some());
        }
        assert!((4_000..4_700).contains(&arrived), "{arrived}");
        for what in [
            Happening::MessageLost,
            Happening::MessageDuplicated,
            Happening::MessageReordered,
            Happening::LinkClogged,
        ] {
            assert!(counters.get(what) > 0, "{what:?}");
        }
        network.heal();
        assert!(network.send(Instant(0), 1, 2, &mut counters).arrives.is_some());
    }
}
