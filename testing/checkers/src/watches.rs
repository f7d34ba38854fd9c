//! A watch delivers every change of its keys, once, in order of revision, each revision whole.

use crate::history::Span;
use crate::revisions::Truth;
use crate::store::Change;
use crate::violation::Violation;

const PROMISE: &str = "watch completeness and order";

/// One watcher, across all its reconnections.
#[derive(Clone, Debug)]
pub struct WatchLog {
    span: Span,
    next: u64,
}

impl WatchLog {
    /// A watcher of `span` from revision `start` on.
    pub fn new(span: Span, start: u64) -> Self {
        WatchLog { span, next: start }
    }

    /// What it watches.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// The revision it waits for, and would ask for after a broken connection.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// It was told what `revision` changed.
    pub fn told(
        &mut self,
        truth: &Truth,
        revision: u64,
        changes: &[Change],
    ) -> Result<(), Violation> {
        if revision < self.next {
            let text = format!("told revision {revision} when waiting for {}", self.next);
            return Err(Violation::new(PROMISE, text));
        }
        if revision > truth.last() {
            let text = format!("told revision {revision} when {} was the last", truth.last());
            return Err(Violation::new(PROMISE, text));
        }
        self.nothing_missed(truth, revision - 1)?;
        let expected = self.of(truth, revision);
        if !expected.iter().copied().eq(changes) {
            let text = format!("at revision {revision} told {changes:?}, not {expected:?}");
            return Err(Violation::new(PROMISE, text));
        }
        self.next = revision + 1;
        Ok(())
    }

    /// It was told that everything up to `revision` has been told.
    pub fn progress(&mut self, truth: &Truth, revision: u64) -> Result<(), Violation> {
        self.nothing_missed(truth, revision)?;
        self.next = self.next.max(revision + 1);
        Ok(())
    }

    /// It was cancelled because history before `compacted` is gone; it starts again there. Only
    /// right if it waited for what is gone.
    pub fn compacted(&mut self, compacted: u64) -> Result<(), Violation> {
        if compacted < self.next {
            let text =
                format!("cancelled by compaction {compacted} when waiting for {}", self.next);
            return Err(Violation::new(PROMISE, text));
        }
        self.next = compacted;
        Ok(())
    }

    /// Everything has settled: nothing up to the last revision may be untold.
    pub fn nothing_missed(&self, truth: &Truth, up_to: u64) -> Result<(), Violation> {
        for revision in self.next..=up_to.min(truth.last()) {
            let missed = self.of(truth, revision);
            if !missed.is_empty() {
                let text = format!("not told {missed:?} of revision {revision}");
                return Err(Violation::new(PROMISE, text));
            }
        }
        Ok(())
    }

    fn of<'t>(&self, truth: &'t Truth, revision: u64) -> Vec<&'t Change> {
        truth.changes(revision).iter().filter(|c| self.span.contains(c.key())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_base::Instant;

    fn delete(key: &'static str) -> Change {
        Change::Delete(Bytes::from_static(key.as_bytes()))
    }

    #[test]
    fn gaps_repeats_and_strangers_are_found() {
        let mut truth = Truth::default();
        for (revision, key) in [(2, "a"), (3, "b"), (4, "a"), (5, "a")] {
            assert!(truth.record(1, revision, &[delete(key)], Instant::ZERO).is_ok());
        }
        let watch = WatchLog::new(Span::one(Bytes::from_static(b"a")), 2);
        let mut good = watch.clone();
        assert!(good.told(&truth, 2, &[delete("a")]).is_ok());
        assert!(good.clone().told(&truth, 2, &[delete("a")]).is_err(), "told again");
        assert!(good.clone().told(&truth, 5, &[delete("a")]).is_err(), "4 is missing");
        assert!(good.clone().told(&truth, 3, &[delete("b")]).is_err(), "not watched");
        assert!(good.told(&truth, 4, &[delete("a")]).is_ok());
        assert!(good.nothing_missed(&truth, 5).is_err());
        assert!(good.progress(&truth, 4).is_ok());
        assert!(good.progress(&truth, 5).is_err());
        assert!(good.compacted(4).is_err(), "it waits for 5, which is not gone");
        assert!(good.compacted(6).is_ok());
    }
}
