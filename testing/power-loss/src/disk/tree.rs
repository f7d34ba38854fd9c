//! The names of files, and which of them a power failure would leave.
//!
//! Invariant: `durable` is what the directories' last syncs made of them; `pending` are the
//! changes since, in the order they were made.

use super::{Ino, Loss, Ordering, ROOT, Settle};
use quorate_base::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

/// As many changes of names may wait for a sync; older ones were written back by themselves.
const MOST_PENDING: usize = 64;

/// The names in a directory.
pub(crate) type Names = BTreeMap<OsString, Ino>;

#[derive(Default, Debug)]
struct Directory {
    now: Names,
    durable: Names,
}

/// A change of one name, or of two at once.
#[derive(Clone, Debug)]
struct Change {
    /// The name that stops meaning this file.
    from: Option<(Ino, OsString)>,
    /// The name that means it from now on.
    to: Option<(Ino, OsString)>,
    ino: Ino,
}

impl Change {
    fn touches(&self, directory: Ino) -> bool {
        [&self.from, &self.to].into_iter().flatten().any(|(of, _)| *of == directory)
    }
}

/// All directories.
#[derive(Debug)]
pub(crate) struct Tree {
    directories: BTreeMap<Ino, Directory>,
    pending: Vec<Change>,
    ordering: Ordering,
}

impl Tree {
    /// An empty root.
    pub fn new(ordering: Ordering) -> Tree {
        let directories = BTreeMap::from([(ROOT, Directory::default())]);
        Tree { directories, pending: Vec::new(), ordering }
    }

    /// The names in a directory, if it is one.
    pub fn names(&self, directory: Ino) -> Option<&Names> {
        self.directories.get(&directory).map(|d| &d.now)
    }

    /// Makes `ino` an empty directory.
    pub fn add_directory(&mut self, ino: Ino) {
        self.directories.insert(ino, Directory::default());
    }

    /// Gives a file a name.
    pub fn link(&mut self, directory: Ino, name: &OsStr, ino: Ino) {
        self.change(Change { from: None, to: Some((directory, name.to_owned())), ino });
    }

    /// Takes a name from a file.
    pub fn unlink(&mut self, directory: Ino, name: &OsStr, ino: Ino) {
        self.change(Change { from: Some((directory, name.to_owned())), to: None, ino });
    }

    /// Gives a file another name; whatever had it loses it.
    pub fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr), ino: Ino) {
        let own = |(directory, name): (Ino, &OsStr)| Some((directory, name.to_owned()));
        self.change(Change { from: own(from), to: own(to), ino });
    }

    fn change(&mut self, change: Change) {
        self.apply(&change, |directory| &mut directory.now);
        self.pending.push(change);
        if self.pending.len() > MOST_PENDING {
            let oldest = self.pending.remove(0);
            self.make_durable(vec![oldest]);
        }
    }

    fn apply(&mut self, change: &Change, which: impl Fn(&mut Directory) -> &mut Names) {
        if let Some((directory, name)) = &change.from
            && let Some(names) = self.directories.get_mut(directory).map(&which)
            && names.get(name) == Some(&change.ino)
        {
            names.remove(name);
        }
        if let Some((directory, name)) = &change.to
            && let Some(names) = self.directories.get_mut(directory).map(&which)
        {
            names.insert(name.clone(), change.ino);
        }
    }

    fn make_durable(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.apply(&change, |directory| &mut directory.durable);
        }
    }

    /// Makes a directory's names durable; in order, this makes all others durable too.
    pub fn sync_directory(&mut self, directory: Ino) {
        let all = std::mem::take(&mut self.pending);
        let (now, later) = match self.ordering {
            Ordering::None => all.into_iter().partition(|change| change.touches(directory)),
            Ordering::Journal => (all, Vec::new()),
        };
        self.pending = later;
        self.make_durable(now);
    }

    /// What a file's sync does to names: in order, a journal is written up to its end.
    pub fn file_synced(&mut self) {
        if self.ordering == Ordering::Journal {
            let all = std::mem::take(&mut self.pending);
            self.make_durable(all);
        }
    }

    /// Decides which unsynced changes reached the disk, and forgets the rest; the files that are
    /// still to be found.
    pub fn power_off(&mut self, how: Settle, rng: &mut Rng, loss: &mut Loss) -> BTreeSet<Ino> {
        let all = std::mem::take(&mut self.pending);
        let before = all.len();
        let kept: Vec<Change> = match self.ordering {
            Ordering::None => all.into_iter().filter(|_| rng.chance_ppm(how.keep_ppm)).collect(),
            Ordering::Journal => {
                all.into_iter().take_while(|_| rng.chance_ppm(how.keep_ppm)).collect()
            }
        };
        loss.names_kept += kept.len() as u64;
        loss.names_lost += (before - kept.len()) as u64;
        self.make_durable(kept);
        for directory in self.directories.values_mut() {
            directory.now = directory.durable.clone();
        }
        let found = self.reachable();
        self.directories.retain(|ino, _| found.contains(ino));
        found
    }

    fn reachable(&self) -> BTreeSet<Ino> {
        let mut found = BTreeSet::from([ROOT]);
        let mut next = vec![ROOT];
        while let Some(directory) = next.pop() {
            for ino in self.names(directory).into_iter().flat_map(Names::values) {
                if found.insert(*ino) {
                    next.push(*ino);
                }
            }
        }
        found
    }

    /// A directory that has no name any more.
    pub fn remove_directory(&mut self, ino: Ino) {
        self.directories.remove(&ino);
    }

    /// Whether a power failure could still bring this file back.
    pub fn may_return(&self, ino: Ino) -> bool {
        self.pending.iter().any(|change| change.ino == ino)
            || self.directories.values().any(|d| d.durable.values().any(|other| *other == ino))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Ino = 7;
    const OTHER: Ino = 8;
    const DIRECTORY: Ino = 9;
    const HALF: Settle = Settle { keep_ppm: 500_000 };
    const NOTHING: Settle = Settle { keep_ppm: 0 };

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    fn names(tree: &Tree) -> Vec<String> {
        let names = tree.names(ROOT).unwrap();
        names.iter().map(|(name, ino)| format!("{}={ino}", name.display())).collect()
    }

    /// What may be found after the power failed, over many seeds.
    fn outcomes(make: impl Fn() -> Tree) -> BTreeSet<Vec<String>> {
        let left = |seed| {
            let mut tree = make();
            tree.power_off(HALF, &mut Rng::new(seed), &mut Loss::default());
            names(&tree)
        };
        (0..200).map(left).collect()
    }

    fn set(all: &[&[&str]]) -> BTreeSet<Vec<String>> {
        all.iter().map(|names| names.iter().map(ToString::to_string).collect()).collect()
    }

    fn with_one(ordering: Ordering) -> Tree {
        let mut tree = Tree::new(ordering);
        tree.link(ROOT, name("a"), FILE);
        tree.sync_directory(ROOT);
        tree
    }

    #[test]
    fn a_name_is_durable_only_once_its_directory_was_synced() {
        let mut tree = with_one(Ordering::None);
        tree.link(ROOT, name("b"), OTHER);
        tree.file_synced();
        tree.power_off(NOTHING, &mut Rng::new(1), &mut Loss::default());
        assert_eq!(names(&tree), ["a=7"]);
        tree.link(ROOT, name("b"), OTHER);
        tree.sync_directory(ROOT);
        tree.power_off(NOTHING, &mut Rng::new(1), &mut Loss::default());
        assert_eq!(names(&tree), ["a=7", "b=8"]);
    }

    #[test]
    fn a_rename_is_done_wholly_or_not_at_all() {
        let outcomes = outcomes(|| {
            let mut tree = with_one(Ordering::None);
            tree.link(ROOT, name("b"), OTHER);
            tree.sync_directory(ROOT);
            tree.rename((ROOT, name("a")), (ROOT, name("b")), FILE);
            tree
        });
        assert_eq!(outcomes, set(&[&["a=7", "b=8"], &["b=7"]]));
    }

    #[test]
    fn without_order_a_later_change_may_survive_an_earlier_one() {
        let change = |ordering| {
            move || {
                let mut tree = with_one(ordering);
                tree.unlink(ROOT, name("a"), FILE);
                tree.link(ROOT, name("b"), OTHER);
                tree
            }
        };
        let any = set(&[&["a=7"], &[], &["a=7", "b=8"], &["b=8"]]);
        assert_eq!(outcomes(change(Ordering::None)), any);
        assert_eq!(outcomes(change(Ordering::Journal)), set(&[&["a=7"], &[], &["b=8"]]));
    }

    #[test]
    fn a_journal_makes_all_earlier_names_durable_with_any_sync() {
        let mut tree = with_one(Ordering::Journal);
        tree.link(ROOT, name("b"), OTHER);
        tree.file_synced();
        tree.power_off(NOTHING, &mut Rng::new(1), &mut Loss::default());
        assert_eq!(names(&tree), ["a=7", "b=8"]);
    }

    #[test]
    fn what_is_in_a_directory_that_was_lost_is_lost() {
        let mut tree = Tree::new(Ordering::None);
        tree.add_directory(DIRECTORY);
        tree.link(ROOT, name("d"), DIRECTORY);
        tree.link(DIRECTORY, name("f"), FILE);
        tree.sync_directory(DIRECTORY);
        assert!(tree.may_return(FILE));
        let found = tree.power_off(NOTHING, &mut Rng::new(1), &mut Loss::default());
        assert_eq!(found, BTreeSet::from([ROOT]));
        assert!(!tree.may_return(FILE));
    }
}
