//! The order of everything: by time, then by node, then by when it was scheduled.

use quorate_base::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What is to happen, and when.
#[derive(Debug)]
pub struct Queue<T> {
    order: BinaryHeap<Reverse<(Instant, u32, u64, usize)>>,
    slots: Vec<Option<T>>,
    free: Vec<usize>,
    sequence: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { order: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), sequence: 0 }
    }
}

impl<T> Queue<T> {
    /// Schedules `what` for `at`; `node` orders what happens at the same moment.
    pub fn push(&mut self, at: Instant, node: u32, what: T) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(what);
                slot
            }
            None => {
                self.slots.push(Some(what));
                self.slots.len() - 1
            }
        };
        self.sequence += 1;
        self.order.push(Reverse((at, node, self.sequence, slot)));
    }

    /// When the next thing is to happen.
    pub fn next_at(&self) -> Option<Instant> {
        self.order.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next thing, and when.
    pub fn pop(&mut self) -> Option<(Instant, T)> {
        let Reverse((at, _, _, slot)) = self.order.pop()?;
        let what = self.slots[slot].take()?;
        self.free.push(slot);
        Some((at, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_broken_by_node_and_then_by_age() {
        let mut queue = Queue::default();
        for (at, node, what) in [(5, 2, 'd'), (5, 1, 'b'), (1, 9, 'a'), (5, 1, 'c')] {
            queue.push(Instant(at), node, what);
        }
        let order: String = std::iter::from_fn(|| queue.pop().map(|(_, what)| what)).collect();
        assert_eq!(order, "abcd");
        queue.push(Instant(1), 1, 'e');
        assert_eq!(queue.pop(), Some((Instant(1), 'e')));
    }
}
