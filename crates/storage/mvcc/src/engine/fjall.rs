//! The production engine: one state in fjall's log-structured merge trees.
//!
//! A state is either a database of its own, in a directory that is replaced whole, or a stretch
//! of the keys of a database that many states share ([`FjallShelf`]). Invariant: a state is
//! replaced by one change of a pointer, after all of the new one is durable.

use super::generations;
use super::shelf::{self, Shelf};
use super::tables::{FjallSettings, Tables, pair};
use super::{Change, Engine, Scan, Source, Staging, Table};
use crate::error::Error;
use bytes::Bytes;
use fjall::Snapshot;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// fjall has no empty keys: each key of a state with a database of its own has a byte in front.
const KEY_PREFIX: &[u8] = b"k";

/// An engine on disk. A clone is another handle of the same engine.
#[derive(Clone)]
pub struct FjallEngine(Arc<Shared>);

struct Shared {
    home: Home,
    present: RwLock<Arc<Generation>>,
    /// The number of the last generation made, installed or not.
    last_number: AtomicU64,
    poisoned: Arc<AtomicBool>,
}

/// Where a state's generations are.
enum Home {
    /// Each in a directory of its own.
    Directories { root: PathBuf, settings: FjallSettings },
    /// All in one database, beside other states.
    Shelf { shelf: Arc<Shelf>, place: u64 },
}

/// One whole state on disk. Fields are dropped in order: the database before its directory.
struct Generation {
    tables: Tables,
    prefix: Vec<u8>,
    number: u64,
    remains: Remains,
}

/// What is left of a generation after its last use, unless it is the present one.
enum Remains {
    Directory { root: PathBuf, number: u64, keep: AtomicBool },
    Stretch { shelf: Arc<Shelf>, prefix: Vec<u8>, keep: AtomicBool },
}

impl Remains {
    fn keep(&self, keep: bool) {
        let (Remains::Directory { keep: flag, .. } | Remains::Stretch { keep: flag, .. }) = self;
        flag.store(keep, Ordering::Release);
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        match self {
            Remains::Directory { root, number, keep } if !keep.load(Ordering::Acquire) => {
                // What cannot be removed now is a leftover, removed at the next start.
                let _ = generations::remove(root, *number);
            }
            Remains::Stretch { shelf, prefix, keep } if !keep.load(Ordering::Acquire) => {
                shelf.discard(std::mem::take(prefix));
            }
            _ => {}
        }
    }
}

impl Generation {
    fn in_directory(root: &Path, number: u64, settings: &FjallSettings) -> Result<Self, Error> {
        let keep = AtomicBool::new(true);
        let remains = Remains::Directory { root: root.to_path_buf(), number, keep };
        let tables = Tables::open(generations::directory(root, number), settings, 1)?;
        Ok(Generation { tables, prefix: KEY_PREFIX.to_vec(), number, remains })
    }

    fn on_shelf(shelf: &Arc<Shelf>, place: u64, number: u64) -> Self {
        let prefix = shelf::prefix(place, number);
        let keep = AtomicBool::new(true);
        let remains = Remains::Stretch { shelf: shelf.clone(), prefix: prefix.clone(), keep };
        Generation { tables: shelf.tables.clone(), prefix, number, remains }
    }

    fn write(&self, batch: impl ExactSizeIterator<Item = Change>) -> Result<(), Error> {
        self.tables.write(&self.prefix, batch)
    }
}

impl FjallEngine {
    /// Opens the engine whose files are in `root`, which is made if it does not exist. Fails if
    /// another process has it open.
    pub fn open(root: &Path, settings: FjallSettings) -> Result<Self, Error> {
        generations::create_root(root)?;
        generations::check(root)?;
        let number = match generations::read_current(root)? {
            Some(number) if generations::list(root)?.contains(&number) => number,
            Some(number) => {
                let path = generations::directory(root, number);
                return Err(Error::Corrupt(format!("{} is missing", path.display())));
            }
            None => first_number(root, &settings)?,
        };
        let present = Arc::new(Generation::in_directory(root, number, &settings)?);
        generations::write_current(root, number)?;
        for leftover in generations::list(root)?.into_iter().filter(|n| *n != number) {
            generations::remove(root, leftover)?;
        }
        let home = Home::Directories { root: root.to_path_buf(), settings };
        Ok(FjallEngine::new(home, present, Arc::default()))
    }

    /// The state at a place of a shelf, begun if there is none.
    pub(super) fn at(shelf: &Arc<Shelf>, place: u64) -> Result<Self, Error> {
        let number = shelf.present(place)?;
        let present = Arc::new(Generation::on_shelf(shelf, place, number));
        let home = Home::Shelf { shelf: shelf.clone(), place };
        Ok(FjallEngine::new(home, present, shelf.poisoned.clone()))
    }

    fn new(home: Home, present: Arc<Generation>, poisoned: Arc<AtomicBool>) -> Self {
        let last_number = AtomicU64::new(present.number);
        FjallEngine(Arc::new(Shared { home, present: RwLock::new(present), last_number, poisoned }))
    }

    /// Moves the files in `root`, which turned out damaged, to `<root>.damaged` beside it, in place
    /// of what was there.
    pub fn set_aside(root: &Path) -> Result<(), Error> {
        generations::set_aside(root)
    }

    /// Remembers that the state in `root` is damaged: it is not opened any more. For damage that
    /// only a later read would find again.
    pub fn condemn(root: &Path) -> Result<(), Error> {
        generations::condemn(root)
    }

    fn present(&self) -> Arc<Generation> {
        self.0.present.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn check_healthy(&self) -> Result<(), Error> {
        match self.0.poisoned.load(Ordering::Acquire) {
            true => Err(Error::Poisoned),
            false => Ok(()),
        }
    }

    /// After a failed write or sync nothing unsynced may be believed, and no sync repeated.
    fn poison_on_error<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_err() {
            self.0.poisoned.store(true, Ordering::Release);
        }
        result
    }

    /// Makes a state that is whole the present one. At any crash it is either this or the old.
    fn point_at(&self, new: &Generation) -> Result<(), Error> {
        match &self.0.home {
            Home::Directories { root, .. } => {
                new.tables.persist()?;
                generations::sync_directory(root)?;
                new.remains.keep(true);
                self.poison_on_error(generations::write_current(root, new.number))
            }
            Home::Shelf { shelf, place } => {
                // The database keeps a prefix of its batches: the pointer comes after the state.
                new.remains.keep(true);
                self.poison_on_error(shelf.point(*place, new.number))
            }
        }
    }
}

/// Without `CURRENT` this is the first start, or the first start was cut short: then what is
/// there is empty, or not whole and without data. Anything else is refused, not overwritten.
fn first_number(root: &Path, settings: &FjallSettings) -> Result<u64, Error> {
    for number in generations::list(root)? {
        let empty = match Generation::in_directory(root, number, settings) {
            Ok(found) => found.tables.are_empty(),
            Err(_) => Tables::hold_nothing(&generations::directory(root, number))?,
        };
        if empty {
            generations::remove(root, number)?;
        } else {
            let path = generations::directory(root, number);
            return Err(Error::Corrupt(format!("CURRENT is missing beside {}", path.display())));
        }
    }
    Ok(1)
}

impl Engine for FjallEngine {
    type View = FjallView;
    type Staging = FjallStaging;

    fn write(&self, batch: Vec<Change>) -> Result<(), Error> {
        self.check_healthy()?;
        let (generation, batch) = (self.present(), batch.into_iter());
        self.poison_on_error(match &self.0.home {
            Home::Directories { .. } => generation.write(batch),
            Home::Shelf { shelf, .. } => shelf.write(&generation.prefix, batch),
        })
    }

    fn persist(&self) -> Result<(), Error> {
        self.check_healthy()?;
        self.poison_on_error(match &self.0.home {
            Home::Directories { .. } => self.present().tables.persist(),
            Home::Shelf { shelf, .. } => shelf.persist(),
        })
    }

    fn view(&self) -> FjallView {
        let generation = self.present();
        FjallView { snapshot: generation.tables.snapshot(), generation }
    }

    fn disk_bytes(&self) -> u64 {
        self.present().tables.disk_bytes()
    }

    fn stage(&self) -> Result<FjallStaging, Error> {
        self.check_healthy()?;
        let number = self.0.last_number.fetch_add(1, Ordering::AcqRel) + 1;
        let generation = match &self.0.home {
            Home::Directories { root, settings } => {
                Generation::in_directory(root, number, settings)?
            }
            Home::Shelf { shelf, place } => Generation::on_shelf(shelf, *place, number),
        };
        generation.remains.keep(false);
        Ok(FjallStaging(generation))
    }

    fn install(&self, staging: FjallStaging) -> Result<(), Error> {
        self.check_healthy()?;
        let new = staging.0;
        // After the pointer was written either state may be what a crash leaves; both are whole.
        self.point_at(&new)?;
        let mut present = self.0.present.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *present, Arc::new(new));
        drop(present);
        old.remains.keep(false);
        Ok(())
    }
}

/// A state of a [`FjallEngine`] that later writes do not change. The snapshot goes first.
#[derive(Clone)]
pub struct FjallView {
    snapshot: Snapshot,
    generation: Arc<Generation>,
}

impl FjallView {
    fn pairs(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> fjall::Iter {
        let Generation { tables, prefix, .. } = &*self.generation;
        tables.range(&self.snapshot, table, prefix, (from, to))
    }
}

fn is_empty_range(from: &[u8], to: Option<&[u8]>) -> bool {
    to.is_some_and(|to| to <= from)
}

impl Source for FjallView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let Generation { tables, prefix, .. } = &*self.generation;
        tables.get_at(&self.snapshot, table, prefix, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> Scan<'_> {
        let skip = self.generation.prefix.len();
        match is_empty_range(from, to) {
            true => Box::new(std::iter::empty()),
            false => Box::new(self.pairs(table, from, to).map(move |guard| pair(guard, skip))),
        }
    }

    fn scan_back(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> Scan<'_> {
        let skip = self.generation.prefix.len();
        match is_empty_range(from, to) {
            true => Box::new(std::iter::empty()),
            false => {
                Box::new(self.pairs(table, from, to).rev().map(move |guard| pair(guard, skip)))
            }
        }
    }
}

/// A whole state being received by a [`FjallEngine`], beside the present one.
pub struct FjallStaging(Generation);

impl Staging for FjallStaging {
    fn write(&mut self, pairs: Vec<(Table, Bytes, Bytes)>) -> Result<(), Error> {
        self.0.write(pairs.into_iter().map(|(table, key, value)| (table, key, Some(value))))
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.0.tables.get(table, &self.0.prefix, key)
    }
}
