//! A queue into one thread, emptied whole.
//!
//! Many threads put items in; one takes all that is there at a time and sleeps when there is
//! nothing. Invariant: at most one wake-up per emptying, however many items were put in: whoever
//! finds the owner awake leaves it alone. Nothing stays in a closed queue: what comes later is
//! dropped, so that whoever waits for its outcome is not left waiting.

use parking_lot::{Condvar, Mutex};
use std::time::Duration;

/// The queue.
pub(crate) struct Mailbox<T> {
    inner: Mutex<Inner<T>>,
    filled: Condvar,
}

struct Inner<T> {
    items: Vec<T>,
    asleep: bool,
    closed: bool,
}

impl<T> Mailbox<T> {
    /// An empty queue.
    pub fn new() -> Self {
        let inner = Inner { items: Vec::new(), asleep: false, closed: false };
        Mailbox { inner: Mutex::new(inner), filled: Condvar::new() }
    }

    /// Puts one item in.
    pub fn push(&self, item: T) {
        self.push_all(std::iter::once(item));
    }

    /// Puts items in, together.
    pub fn push_all(&self, items: impl IntoIterator<Item = T>) {
        let mut inner = self.inner.lock();
        if inner.closed {
            return;
        }
        inner.items.extend(items);
        let wake = !inner.items.is_empty() && std::mem::take(&mut inner.asleep);
        drop(inner);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Puts an item in unless there are `limit` already or the queue is closed; then it comes back.
    pub fn try_push(&self, item: T, limit: usize) -> Result<(), T> {
        let mut inner = self.inner.lock();
        if inner.items.len() >= limit || inner.closed {
            return Err(item);
        }
        inner.items.push(item);
        let wake = std::mem::take(&mut inner.asleep);
        drop(inner);
        if wake {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes nothing in any more; returns what is left.
    pub fn close(&self) -> Vec<T> {
        let mut inner = self.inner.lock();
        inner.closed = true;
        std::mem::take(&mut inner.items)
    }

    /// Moves all there is into `into`, which must be empty; waits for something to be there, at
    /// most for `timeout` if one is given.
    pub fn take(&self, into: &mut Vec<T>, timeout: Option<Duration>) {
        debug_assert!(into.is_empty(), "what was taken before is done");
        let mut inner = self.inner.lock();
        if inner.items.is_empty() && timeout != Some(Duration::ZERO) {
            inner.asleep = true;
            match timeout {
                // A spurious wake-up finds nothing, which every caller takes for a timeout.
                Some(timeout) => drop(self.filled.wait_for(&mut inner, timeout)),
                None => {
                    while inner.items.is_empty() {
                        inner.asleep = true;
                        self.filled.wait(&mut inner);
                    }
                }
            }
            inner.asleep = false;
        }
        std::mem::swap(&mut inner.items, into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn everything_put_in_by_many_comes_out_once_and_in_order() {
        let mailbox = Arc::new(Mailbox::new());
        let writers: Vec<_> = (0..4u64)
            .map(|writer| {
                let mailbox = mailbox.clone();
                std::thread::spawn(move || {
                    for n in 0..5_000u64 {
                        mailbox.push((writer, n));
                    }
                })
            })
            .collect();
        let (mut next, mut taken) = ([0; 4], Vec::new());
        while next.iter().sum::<u64>() < 20_000 {
            mailbox.take(&mut taken, None);
            for (writer, n) in taken.drain(..) {
                assert_eq!(n, next[writer as usize]);
                next[writer as usize] += 1;
            }
        }
        writers.into_iter().for_each(|w| w.join().unwrap());
    }

    #[test]
    fn waiting_ends_and_a_full_mailbox_gives_back() {
        let mailbox = Mailbox::new();
        let mut taken = Vec::new();
        mailbox.take(&mut taken, Some(Duration::from_millis(1)));
        assert!(taken.is_empty());
        assert_eq!(mailbox.try_push(1, 1), Ok(()));
        assert_eq!(mailbox.try_push(2, 1), Err(2));
        mailbox.take(&mut taken, Some(Duration::ZERO));
        assert_eq!(taken, [1]);
        mailbox.push(3);
        assert_eq!(mailbox.close(), [3]);
        mailbox.push(4);
        assert_eq!(mailbox.try_push(5, 9), Err(5));
        assert!(mailbox.close().is_empty());
    }
}
