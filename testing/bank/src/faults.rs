//! Who dies, and who is only away for a while: by a seed.
//!
//! One member at a time, so that a quorum lives; a database meanwhile, or by itself.

use crate::clients::Members;
use crate::doubt;
use crate::ledger::Ledger;
use crate::outside::Outside;
use crate::trial::{MARIADB, POSTGRES};
use quorate_base::Rng;
use quorate_end_to_end::{Cluster, Network, Party, around};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// What can happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// A member is killed, and started again.
    NodeKilled,
    /// A member stands still for a while.
    NodePaused,
    /// A member hears no other for a while, and no other hears it.
    NodeCutOff,
    /// Two members do not hear each other for a while, and both hear the third.
    PairCut,
    /// One member is not heard by another for a while, but hears it.
    OneWayCut,
    /// A database cannot be reached by some members for a while.
    DatabaseCutOff,
    /// PostgreSQL is killed, and started again.
    PostgresKilled,
    /// PostgreSQL stands still for a while.
    PostgresPaused,
    /// MariaDB is killed, and started again.
    MariaDbKilled,
    /// MariaDB stands still for a while.
    MariaDbPaused,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::NodeKilled => "node killed",
            Fault::NodePaused => "node paused",
            Fault::NodeCutOff => "node cut off",
            Fault::PairCut => "pair cut",
            Fault::OneWayCut => "one-way cut",
            Fault::DatabaseCutOff => "database cut off",
            Fault::PostgresKilled => "PostgreSQL killed",
            Fault::PostgresPaused => "PostgreSQL paused",
            Fault::MariaDbKilled => "MariaDB killed",
            Fault::MariaDbPaused => "MariaDB paused",
        })
    }
}

/// Lets things happen.
pub struct Faults<'a> {
    pub cluster: &'a mut Cluster,
    pub network: Network,
    pub outside: Option<&'a mut Outside>,
    pub members: Members,
    pub ledger: Arc<Ledger>,
    pub rng: Rng,
    pub counts: BTreeMap<Fault, u64>,
}

impl Faults<'_> {
    /// Until then. At the end everybody is there again.
    pub fn run(&mut self, until: Instant) {
        // However little time there is, a coordinator dies, and another is cut off.
        self.pause(MS(200), MS(1_200));
        self.kill_node();
        self.cut_off();
        while Instant::now() < until {
            self.pause(MS(200), MS(1_200));
            match self.rng.below(8) {
                0..=1 => self.kill_node(),
                2 => self.pause_node(),
                3..=4 => self.partition(),
                5 if self.outside.is_some() => self.cut_database_off(),
                _ if self.outside.is_some() => self.database(),
                5 => self.partition(),
                _ => self.kill_node(),
            }
        }
    }

    fn pause(&mut self, from: Duration, to: Duration) {
        std::thread::sleep(self.rng.duration(from, to));
    }

    fn count(&mut self, fault: Fault) {
        *self.counts.entry(fault).or_default() += 1;
    }

    fn victim(&mut self) -> usize {
        usize::try_from(self.rng.below(self.cluster.nodes.len() as u64)).unwrap_or(0)
    }

    fn kill_node(&mut self) {
        let victim = self.victim();
        let mut flights = self.ledger.flights_of(victim);
        let soon = Instant::now() + MS(10_000);
        while flights.is_empty() && Instant::now() < soon {
            // It is to die with something under way; the first ones wait until there are records.
            std::thread::sleep(MS(1));
            flights = self.ledger.flights_of(victim);
        }
        self.cluster.nodes[victim].kill();
        let since = Instant::now();
        self.count(Fault::NodeKilled);
        let (ledger, members) = (self.ledger.clone(), self.members.clone());
        let watched = doubt::watch(ledger, members, victim, flights, since);
        let watched = self.cluster.runtime.spawn(watched);
        // It stays away until nothing of it is in doubt: the others must be able to end it.
        self.pause(MS(300), MS(1_500));
        self.cluster.runtime.block_on(watched).unwrap();
        if self.outside.is_some() && self.rng.chance_ppm(300_000) {
            // A database is away as well, with one member less to finish what it missed.
            self.database();
        }
        self.cluster.nodes[victim].start_again();
        self.cluster.settled();
    }

    fn pause_node(&mut self) {
        let victim = self.victim();
        self.cluster.nodes[victim].signal(Signal::STOP);
        self.count(Fault::NodePaused);
        self.pause(MS(300), MS(2_500));
        self.cluster.nodes[victim].signal(Signal::CONT);
        self.cluster.settled();
    }

    /// Some members do not hear others, in the middle of whatever they do.
    fn partition(&mut self) {
        match self.rng.below(3) {
            0 => self.cut_off(),
            kind => {
                let one = self.victim();
                let other = (one + 1 + self.victim() % 2) % self.cluster.nodes.len();
                let back = (kind == 1).then_some((other, one));
                self.cut(std::iter::once((one, other)).chain(back).collect());
                self.count(if kind == 1 { Fault::PairCut } else { Fault::OneWayCut });
                self.heal();
            }
        }
    }

    fn cut_off(&mut self) {
        let victim = self.victim();
        let others = (0..self.cluster.nodes.len()).filter(|node| *node != victim);
        self.cut(around(victim, others));
        self.count(Fault::NodeCutOff);
        self.heal();
    }

    /// Half of the time whoever is cut off is told so: its connections end.
    fn cut(&mut self, links: Vec<(Party, Party)>) {
        match self.rng.chance_ppm(500_000) {
            true => self.network.sever(links),
            false => self.network.cut(links),
        }
    }

    /// Mends the network after a while; sometimes a database dies meanwhile.
    fn heal(&mut self) {
        self.pause(MS(300), MS(3_000));
        if self.outside.is_some() && self.rng.chance_ppm(300_000) {
            self.database();
        }
        self.network.mend();
        self.cluster.settled();
    }

    /// One, two or all members do not reach a database that others may reach.
    fn cut_database_off(&mut self) {
        let database: Party = if self.rng.chance_ppm(500_000) { POSTGRES } else { MARIADB };
        let (first, count) = (self.victim(), 1 + self.victim());
        let nodes = self.cluster.nodes.len();
        self.cut(around(database, (first..first + count).map(|node| node % nodes)));
        self.count(Fault::DatabaseCutOff);
        self.pause(MS(300), MS(3_000));
        self.network.mend();
    }

    fn database(&mut self) {
        let (kill, postgres) = (self.rng.chance_ppm(500_000), self.rng.chance_ppm(500_000));
        let away = self.rng.duration(MS(100), MS(2_000));
        let Some(outside) = self.outside.as_mut() else { return };
        let sleep = || std::thread::sleep(away);
        let fault = match (kill, postgres) {
            (true, true) => {
                outside.postgres.kill();
                sleep();
                outside.postgres.start_again();
                Fault::PostgresKilled
            }
            (true, false) => {
                outside.mariadb.kill();
                sleep();
                outside.mariadb.start_again();
                Fault::MariaDbKilled
            }
            (false, true) => {
                outside.postgres.pause();
                sleep();
                outside.postgres.go_on();
                Fault::PostgresPaused
            }
            (false, false) => {
                outside.mariadb.pause();
                sleep();
                outside.mariadb.go_on();
                Fault::MariaDbPaused
            }
        };
        self.count(fault);
    }
}
