//! Which node asks for nearly all that a group does for transactions: its leader had better be
//! there.
//!
//! A transaction's groups are asked by the one node that drives it. Where they are led there as
//! well, what it asks of all of them is one write and one message to each follower, and nothing is
//! forwarded first.

use alloc::collections::BTreeMap;
use quorate_base::NodeId;

/// What one node has asked of a group, counted since some time ago.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Asks {
    /// Commands of any kind,
    pub all: u64,
    /// and those that are for transactions.
    pub transactions: u64,
}

/// Of fewer commands for transactions between two looks nothing is concluded.
const MANY: u64 = 20;
/// So many looks, one after the other, must show the same node,
const LOOKS: u32 = 3;
/// and so many that show nobody are put up with, before it is forgotten: leaders do not move for
/// every pause.
const PATIENCE: u32 = 60;

/// Who asks for nearly all of one group, as one node sees it.
#[derive(Clone, Default, Debug)]
pub struct Asking {
    before: Option<BTreeMap<NodeId, Asks>>,
    /// Who did at the last look, and how many looks showed the same.
    streak: Option<(NodeId, u32)>,
    known: Option<NodeId>,
    /// How many looks it is known yet.
    left: u32,
}

impl Asking {
    /// Looks at the counts of all nodes. Who asks for nearly all, and has for a while.
    pub fn look(&mut self, counts: impl Iterator<Item = (NodeId, Asks)>) -> Option<NodeId> {
        let now: BTreeMap<NodeId, Asks> = counts.collect();
        let shown = self.before.replace(now).and_then(|before| self.shown(&before));
        self.streak = shown.map(|node| match self.streak {
            Some((same, looks)) if same == node => (node, looks + 1),
            _ => (node, 1),
        });
        match self.streak {
            Some((node, looks)) if looks >= LOOKS => {
                (self.known, self.left) = (Some(node), PATIENCE);
            }
            Some((node, _)) if self.known == Some(node) => self.left = PATIENCE,
            _ => {
                self.left = self.left.saturating_sub(1);
                self.known = self.known.filter(|_| self.left > 0);
            }
        }
        self.known
    }

    /// Who asked for at least three quarters of it since the look before.
    fn shown(&self, before: &BTreeMap<NodeId, Asks>) -> Option<NodeId> {
        let since = |(node, now): (&NodeId, &Asks)| {
            let then = before.get(node).copied().unwrap_or_default();
            let all = now.all.saturating_sub(then.all);
            (all, now.transactions.saturating_sub(then.transactions), *node)
        };
        let asked = || self.before.iter().flatten().map(since);
        let total: u64 = asked().map(|(all, _, _)| all).sum();
        let (all, transactions, node) = asked().max()?;
        (transactions >= MANY && all >= total - total / 4).then_some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: NodeId = NodeId(1);
    const THERE: NodeId = NodeId(2);

    #[derive(Default)]
    struct World {
        asking: Asking,
        counts: BTreeMap<NodeId, Asks>,
    }

    impl World {
        /// A look after each of the nodes has asked for so much more, all for transactions.
        fn look(&mut self, more: [u64; 2]) -> Option<NodeId> {
            for (node, more) in [HERE, THERE].into_iter().zip(more) {
                let asks = self.counts.entry(node).or_default();
                asks.all += more;
                asks.transactions += more;
            }
            self.asking.look(self.counts.iter().map(|(node, asks)| (*node, *asks)))
        }
    }

    #[test]
    fn who_asks_for_nearly_all_is_known_after_a_while_and_for_a_while() {
        let mut world = World::default();
        assert_eq!(world.look([1_000, 0]), None, "what was before is not counted");
        assert_eq!(world.look([75, 25]), None);
        assert_eq!(world.look([100, 0]), None);
        assert_eq!(world.look([75, 25]), Some(HERE));
        for _ in 1..PATIENCE {
            assert_eq!(world.look([0, 0]), Some(HERE), "a pause");
        }
        assert_eq!(world.look([74, 26]), None, "a long one");
        assert_eq!(world.look([100, 0]), None);
        assert_eq!(world.look([0, 100]), None);
        assert_eq!(world.look([100, 0]), None, "each in turn is nobody");
    }

    #[test]
    fn another_one_takes_its_place_as_soon_as_it_would_be_known() {
        let mut world = World::default();
        for _ in 0..=LOOKS {
            world.look([100, 0]);
        }
        assert_eq!(world.look([0, 100]), Some(HERE));
        assert_eq!(world.look([100, 0]), Some(HERE));
        assert_eq!(world.look([0, 100]), Some(HERE));
        assert_eq!(world.look([0, 100]), Some(HERE));
        assert_eq!(world.look([0, 100]), Some(THERE));
    }

    #[test]
    fn little_and_what_is_not_for_transactions_shows_nobody() {
        let mut world = World::default();
        assert!((0..10).all(|_| world.look([MANY - 1, 0]).is_none()));
        for n in 0..10 {
            let asks = Asks { all: n * 1_000, transactions: n };
            assert_eq!(world.asking.look([(HERE, asks)].into_iter()), None);
        }
        // A replica that was closed and opened again counts from nothing.
        assert_eq!(World::default().asking.look([].into_iter()), None);
        assert_eq!(world.asking.look([(HERE, Asks::default())].into_iter()), None);
    }
}
