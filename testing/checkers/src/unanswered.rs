//! Deletes that were never answered. Nothing in a revision says which of them made it where several
//! could have: it is only to be possible that each revision had one, and none made two. That is
//! a matching, which an augmenting path extends if any can (Berge, 1957; the search is Kuhn's).

use std::collections::{BTreeMap, BTreeSet};

/// Which operation each revision is put down to, so far.
#[derive(Default, Debug)]
pub(crate) struct Unanswered {
    /// The operations that could have made a revision.
    could: BTreeMap<u64, Vec<usize>>,
    /// The revision that is put down to an operation.
    made: BTreeMap<usize, u64>,
}

impl Unanswered {
    /// Puts a revision down to one of the operations that `could` have made it, if need be by
    /// putting others down to others; whether that can be.
    pub fn put_down(&mut self, revision: u64, could: Vec<usize>) -> bool {
        self.could.insert(revision, could);
        let found = self.find(revision, &mut BTreeSet::new());
        if !found {
            self.could.remove(&revision);
        }
        found
    }

    fn find(&mut self, revision: u64, tried: &mut BTreeSet<usize>) -> bool {
        for operation in self.could.get(&revision).cloned().unwrap_or_default() {
            if !tried.insert(operation) {
                continue;
            }
            let free = match self.made.get(&operation).copied() {
                Some(other) => self.find(other, tried),
                None => true,
            };
            if free {
                self.made.insert(operation, revision);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::Unanswered;

    #[test]
    fn a_revision_is_put_down_to_another_where_only_that_explains_all() {
        let mut unanswered = Unanswered::default();
        assert!(unanswered.put_down(2, vec![7, 8]));
        assert!(unanswered.put_down(3, vec![7]));
        assert!(unanswered.put_down(4, vec![8, 9]));
        assert!(!unanswered.put_down(5, vec![7, 8, 9]), "four revisions of three operations");
        assert!(!unanswered.put_down(6, vec![]));
        assert!(unanswered.put_down(7, vec![7, 8, 9, 10]));
    }
}
