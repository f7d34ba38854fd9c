//! What an account in a keyspace has, and how a transfer divides money.

use crate::places::{Map, Place};
use quorate_base::Rng;

/// The value of an account in a keyspace. Readers are promised nothing of databases, so what has
/// left the keyspaces for them is noted beside what is there: both together are constant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holding {
    /// The money on the account.
    pub balance: i64,
    /// What left the keyspaces of its circle for databases, less what came back, by transfers that
    /// noted it here.
    pub left: i64,
}

impl Holding {
    /// Reads a value.
    pub fn parse(text: &str) -> Option<Holding> {
        let (balance, left) = text.split_once(' ')?;
        Some(Holding { balance: balance.parse().ok()?, left: left.parse().ok()? })
    }

    /// Its value.
    pub fn text(self) -> String {
        format!("{} {}", self.balance, self.left)
    }
}

/// Who gets and gives how much: the index of a place and the change there.
pub type Shares = Vec<(usize, i64)>;

/// A transfer between two to four places: one gives to each of the others.
pub fn shares(map: &Map, rng: &mut Rng) -> Shares {
    let mut order: Vec<usize> = (0..map.places.len()).collect();
    rng.shuffle(&mut order);
    let most = (order.len() as u64).min(4);
    order.truncate(usize::try_from(rng.between(2, most)).unwrap_or(2));
    let amount = i64::try_from(rng.between(1, 5)).unwrap_or(1);
    let others = i64::try_from(order.len() - 1).unwrap_or(1);
    let mut all: Shares = order.iter().map(|place| (*place, amount)).collect();
    all[0].1 = -amount * others;
    all.sort_unstable();
    all
}

/// What leaves the keyspaces for databases by these shares.
pub fn leaving(map: &Map, shares: &Shares) -> i64 {
    let outside = shares.iter().filter(|(place, _)| !map.places[*place].is_keyspace());
    outside.map(|(_, share)| share).sum()
}

/// Where that is noted: the first keyspace, if there is one.
pub fn notes(map: &Map, shares: &Shares) -> Option<usize> {
    let mut all = shares.iter().map(|(place, _)| *place);
    all.find(|place| matches!(map.places[*place], Place::Keyspace(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_transfer_makes_money_or_loses_it() {
        let (map, mut rng) = (Map::new(60, 4, true), Rng::new(1));
        assert_eq!(map.circles, 10);
        let mut sizes = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            let shares = shares(&map, &mut rng);
            assert_eq!(shares.iter().map(|(_, share)| share).sum::<i64>(), 0);
            let mut places: Vec<usize> = shares.iter().map(|(place, _)| *place).collect();
            places.dedup();
            assert_eq!(places.len(), shares.len(), "a place twice");
            sizes.insert(shares.len());
            let inside: i64 =
                shares.iter().filter(|(p, _)| map.places[*p].is_keyspace()).map(|(_, s)| s).sum();
            assert_eq!(inside + leaving(&map, &shares), 0);
            assert_eq!(notes(&map, &shares).is_none(), shares.iter().all(|(p, _)| *p > 3));
        }
        assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [2, 3, 4]);
        let holding = Holding { balance: -3, left: 12 };
        assert_eq!(Holding::parse(&holding.text()), Some(holding));
    }
}
