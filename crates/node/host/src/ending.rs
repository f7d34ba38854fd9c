//! Whether and how the node has ended.

use crate::error::End;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::watch;

/// The end of a node. Invariant: it has one reason, the first that was given.
pub(crate) struct Ending {
    /// How the node ended, once it has.
    pub end: watch::Sender<Option<End>>,
    ended: AtomicBool,
}

impl Ending {
    pub fn new() -> Self {
        Ending { end: watch::Sender::new(None), ended: AtomicBool::new(false) }
    }

    /// Whether the node has ended: cheap.
    pub fn is_over(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Ends the node, once: the first reason counts.
    pub fn finish(&self, end: End) {
        self.ended.store(true, Relaxed);
        self.end.send_if_modified(|current| match current {
            None => {
                *current = Some(end);
                true
            }
            Some(_) => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts() {
        let ending = Ending::new();
        assert!(!ending.is_over());
        ending.finish(End::Removed);
        ending.finish(End::Stopped);
        assert_eq!(*ending.end.borrow(), Some(End::Removed));
        assert!(ending.is_over());
    }
}
