//! Finding a place in a long deque of which nearly always the newest part is asked for.

use alloc::collections::VecDeque;

/// Like [`VecDeque::partition_point`], but looks from the back in steps that double: a place near
/// the end is found without touching the rest, which is not in any cache.
pub fn partition_from_back<T>(items: &VecDeque<T>, is_before: impl Fn(&T) -> bool) -> usize {
    // Invariant: everything from `end` on is past the place.
    let (mut end, mut step) = (items.len(), 1);
    while end > 0 {
        let at = end.saturating_sub(step);
        if is_before(&items[at]) {
            return at + 1 + bisect(items, at + 1, end, is_before);
        }
        end = at;
        step *= 2;
    }
    0
}

/// How many of the items in `start..end` are before the place.
fn bisect<T>(
    items: &VecDeque<T>,
    start: usize,
    end: usize,
    is_before: impl Fn(&T) -> bool,
) -> usize {
    let (mut low, mut high) = (start, end);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(&items[middle]) { low = middle + 1 } else { high = middle }
    }
    low - start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_what_a_plain_search_finds() {
        let mut items = VecDeque::with_capacity(64);
        // The deque wraps around its memory.
        (0..40).for_each(|_| items.push_back(0));
        items.clear();
        for length in 0..50u64 {
            for place in 0..=length + 1 {
                let is_before = |item: &u64| *item < place;
                let wanted = items.partition_point(is_before);
                assert_eq!(partition_from_back(&items, is_before), wanted, "{place} of {length}");
            }
            items.push_back(length);
        }
    }
}
