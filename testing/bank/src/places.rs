//! Where the accounts are.
//!
//! Account `c` of every place belongs to circle `c`. Money moves within a circle only, so that a
//! circle's money is a constant that readers can check.

use quorate_base::Rng;

/// What every account has at the beginning.
pub const BALANCE: i64 = 1_000;
/// The circles that half of all transfers choose, where the load is hot.
pub const HOT: u64 = 8;

/// One place that keeps accounts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A keyspace of this name.
    Keyspace(String),
    /// The PostgreSQL database.
    Postgres,
    /// The MariaDB database.
    MariaDb,
}

impl Place {
    /// Whether readers are promised to see it together with others.
    pub fn is_keyspace(&self) -> bool {
        matches!(self, Place::Keyspace(_))
    }
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Map {
    /// The places: keyspaces first.
    pub places: Vec<Place>,
    /// How many circles there are: accounts at each place.
    pub circles: u64,
}

impl Map {
    /// So many accounts over so many keyspaces, Raft and Paxos by turns, and over the databases.
    pub fn new(accounts: u64, keyspaces: u64, databases: bool) -> Map {
        let name = |n: u64| Place::Keyspace(format!("{}-{n}", protocol(n)));
        let mut places: Vec<Place> = (0..keyspaces).map(name).collect();
        if databases {
            places.extend([Place::Postgres, Place::MariaDb]);
        }
        let circles = accounts.div_ceil(places.len() as u64).max(1);
        Map { places, circles }
    }

    /// The names of the keyspaces.
    pub fn keyspaces(&self) -> Vec<&str> {
        self.places
            .iter()
            .filter_map(|place| match place {
                Place::Keyspace(name) => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }

    /// A circle: any, or as often one of a few.
    pub fn circle(&self, rng: &mut Rng) -> u64 {
        match rng.chance_ppm(500_000) {
            true => rng.below(self.circles.min(HOT)),
            false => rng.below(self.circles),
        }
    }
}

/// The protocol of a keyspace.
pub fn protocol(n: u64) -> &'static str {
    if n.is_multiple_of(2) { "raft" } else { "paxos" }
}

/// The key of a circle's account in a keyspace: of one length, so that their order is that of the
/// circles.
pub fn key(circle: u64) -> String {
    format!("a/{circle:08}")
}
