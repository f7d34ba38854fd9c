//! The production engine: fjall, a log-structured merge tree, one tree per table.
//!
//! fjall syncs its journal before it writes a memtable out, so that after a crash the trees agree
//! on one prefix of the batches. Batches stay in the journal's buffer until a persist, for the
//! consensus log has them: a batch costs no system call of its own.

use super::generations::{self, disk_error};
use super::{Change, Engine, Scan, Source, Staging, Table};
use crate::error::Error;
use bytes::Bytes;
use fjall::config::{BlockSizePolicy, CompressionPolicy};
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};
use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

const MIB: u64 = 1024 * 1024;

/// How much memory and disk the engine may take beside the data itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FjallSettings {
    /// Blocks kept in memory, in bytes.
    pub cache_bytes: u64,
    /// What a table may gather in memory before it is written out, in bytes, by table number.
    pub memtable_bytes: [u64; 4],
    /// What the journal may take on disk, in bytes; at least 64 MiB.
    pub journal_bytes: u64,
    /// Threads that write memtables out and compact tables.
    pub worker_threads: usize,
}

impl Default for FjallSettings {
    fn default() -> Self {
        FjallSettings {
            cache_bytes: 64 * MIB,
            // Measured: random inserts cost cache misses, so that small memtables win there even
            // though they are compacted more often; history is inserted in order.
            memtable_bytes: [MIB, 4 * MIB, 2 * MIB, 16 * MIB],
            journal_bytes: 128 * MIB,
            // With two, the first asks the queue over and over while the second compacts.
            worker_threads: 3,
        }
    }
}

/// An engine on disk. A clone is another handle of the same engine.
#[derive(Clone)]
pub struct FjallEngine(Arc<Shared>);

struct Shared {
    root: PathBuf,
    settings: FjallSettings,
    present: RwLock<Arc<Generation>>,
    /// The number of the last generation made, installed or not.
    last_number: AtomicU64,
    poisoned: AtomicBool,
}

/// One whole state on disk. Fields are dropped in order: the database before its directory.
struct Generation {
    tables: [Keyspace; 4],
    database: Database,
    place: Place,
}

/// A state's directory, removed with its last user unless the state is the present one.
struct Place {
    root: PathBuf,
    number: u64,
    keep: AtomicBool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.keep.load(Ordering::Acquire) {
            // What cannot be removed now is a leftover, removed at the next start.
            let _ = generations::remove(&self.root, self.number);
        }
    }
}

/// Names what was tried, and tells a full disk and a newer format from a bad disk.
fn engine_error(doing: &'static str) -> impl Fn(fjall::Error) -> Error {
    move |e| match &e {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => {
            disk_error(doing, io)
        }
        fjall::Error::Poisoned => Error::Poisoned,
        fjall::Error::Locked => Error::Disk(format!("{doing}: another process has it open")),
        fjall::Error::InvalidVersion(Some(found)) => {
            Error::NewerFormat { found: u64::from(u8::from(*found)), supported: 3 }
        }
        _ => Error::Corrupt(format!("{doing}: {e}")),
    }
}

fn lsm_read(e: fjall::Error) -> Error {
    engine_error("reading the state")(e)
}

impl Generation {
    fn open(root: &Path, number: u64, settings: &FjallSettings) -> Result<Self, Error> {
        let place = Place { root: root.to_path_buf(), number, keep: AtomicBool::new(true) };
        let opening = engine_error("opening the state");
        let database = Database::builder(generations::directory(root, number))
            .cache_size(settings.cache_bytes)
            .manual_journal_persist(true)
            .max_journaling_size(settings.journal_bytes.max(64 * MIB))
            .worker_threads(settings.worker_threads.max(1))
            .open()
            .map_err(&opening)?;
        let table = |name, table: Table| {
            database.keyspace(name, || options(settings, table)).map_err(&opening)
        };
        let tables = [
            table("meta", Table::Meta)?,
            table("current", Table::Current)?,
            table("index", Table::Index)?,
            table("history", Table::History)?,
        ];
        Ok(Generation { tables, database, place })
    }

    fn write(&self, batch: impl ExactSizeIterator<Item = Change>) -> Result<(), Error> {
        let mut out = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), batch.len());
        // fjall keeps short keys in place: one buffer for all of them spares an allocation each.
        let mut lsm_key = Vec::with_capacity(64);
        for (table, key, value) in batch {
            let keyspace = &self.tables[table as usize];
            lsm_key.clear();
            lsm_key.push(KEY_PREFIX);
            lsm_key.extend_from_slice(&key);
            match value {
                Some(value) => out.insert(keyspace, &lsm_key[..], &value[..]),
                None => out.remove(keyspace, &lsm_key[..]),
            }
        }
        out.commit().map_err(engine_error("writing the state"))
    }

    /// Syncs the journal's files first without, then with the journal's lock, so that writers
    /// wait for the short second sync only.
    fn persist(&self) -> Result<(), Error> {
        let persisting = engine_error("syncing the state");
        self.database.persist(PersistMode::Buffer).map_err(&persisting)?;
        let path = generations::directory(&self.place.root, self.place.number);
        let unreadable = |e| disk_error(format_args!("syncing {}", path.display()), &e);
        for entry in std::fs::read_dir(&path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            if file.extension().is_some_and(|e| e == "jnl") {
                match File::open(&file) {
                    Ok(file) => file.sync_data().map_err(unreadable)?,
                    // A journal that was written out whole is removed at any time.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => return Err(unreadable(e)),
                }
            }
        }
        self.database.persist(PersistMode::SyncData).map_err(&persisting)
    }
}

fn options(settings: &FjallSettings, table: Table) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .max_memtable_size(settings.memtable_bytes[table as usize])
        .data_block_size_policy(BlockSizePolicy::all(4 * 1024))
        .data_block_compression_policy(CompressionPolicy::disabled())
        // Whoever looks into history or the index knows that it is there.
        .expect_point_read_hits(matches!(table, Table::History | Table::Index))
}

/// fjall has no empty keys: each of ours has a byte in front.
const KEY_PREFIX: u8 = b'k';

/// The key as fjall has it.
fn lsm_key(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1);
    out.push(KEY_PREFIX);
    out.extend_from_slice(key);
    out
}

/// The other way.
fn own_key(key: &[u8]) -> Bytes {
    Bytes::copy_from_slice(key.get(1..).unwrap_or_default())
}

impl FjallEngine {
    /// Opens the engine whose files are in `root`, which is made if it does not exist. Fails if
    /// another process has it open.
    pub fn open(root: &Path, settings: FjallSettings) -> Result<Self, Error> {
        generations::create_root(root)?;
        let number = match generations::read_current(root)? {
            Some(number) if generations::list(root)?.contains(&number) => number,
            Some(number) => {
                let path = generations::directory(root, number);
                return Err(Error::Corrupt(format!("{} is missing", path.display())));
            }
            None => first_number(root, &settings)?,
        };
        let present = Arc::new(Generation::open(root, number, &settings)?);
        generations::write_current(root, number)?;
        for leftover in generations::list(root)?.into_iter().filter(|n| *n != number) {
            generations::remove(root, leftover)?;
        }
        Ok(FjallEngine(Arc::new(Shared {
            root: root.to_path_buf(),
            settings,
            present: RwLock::new(present),
            last_number: AtomicU64::new(number),
            poisoned: AtomicBool::new(false),
        })))
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
}

/// Without `CURRENT` this is the first start, or the first start was cut short: then what is
/// there is empty. Anything else is refused rather than overwritten.
fn first_number(root: &Path, settings: &FjallSettings) -> Result<u64, Error> {
    for number in generations::list(root)? {
        let found = Generation::open(root, number, settings);
        if found.is_ok_and(|g| g.tables.iter().all(|t| t.is_empty().unwrap_or(false))) {
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
        self.poison_on_error(self.present().write(batch.into_iter()))
    }

    fn persist(&self) -> Result<(), Error> {
        self.check_healthy()?;
        self.poison_on_error(self.present().persist())
    }

    fn view(&self) -> FjallView {
        let generation = self.present();
        FjallView { snapshot: generation.database.snapshot(), generation }
    }

    fn disk_bytes(&self) -> u64 {
        self.present().database.disk_space().unwrap_or(0)
    }

    fn stage(&self) -> Result<FjallStaging, Error> {
        self.check_healthy()?;
        let number = self.0.last_number.fetch_add(1, Ordering::AcqRel) + 1;
        let generation = Generation::open(&self.0.root, number, &self.0.settings)?;
        generation.place.keep.store(false, Ordering::Release);
        Ok(FjallStaging(generation))
    }

    fn install(&self, staging: FjallStaging) -> Result<(), Error> {
        self.check_healthy()?;
        let new = staging.0;
        new.persist()?;
        generations::sync_directory(&self.0.root)?;
        // From here on either state may be what a crash leaves, and both are whole.
        new.place.keep.store(true, Ordering::Release);
        self.poison_on_error(generations::write_current(&self.0.root, new.place.number))?;
        let mut present = self.0.present.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *present, Arc::new(new));
        drop(present);
        old.place.keep.store(false, Ordering::Release);
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
        let from = Bound::Included(lsm_key(from));
        let to = to.map_or(Bound::Unbounded, |to| Bound::Excluded(lsm_key(to)));
        self.snapshot.range(&self.generation.tables[table as usize], (from, to))
    }
}

fn pair(guard: Guard) -> Result<super::Pair, Error> {
    let (key, value) = guard.into_inner().map_err(lsm_read)?;
    Ok((own_key(&key), Bytes::copy_from_slice(&value)))
}

fn is_empty_range(from: &[u8], to: Option<&[u8]>) -> bool {
    to.is_some_and(|to| to <= from)
}

impl Source for FjallView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let found = self.snapshot.get(&self.generation.tables[table as usize], lsm_key(key));
        Ok(found.map_err(lsm_read)?.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> Scan<'_> {
        match is_empty_range(from, to) {
            true => Box::new(std::iter::empty()),
            false => Box::new(self.pairs(table, from, to).map(pair)),
        }
    }

    fn scan_back(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> Scan<'_> {
        match is_empty_range(from, to) {
            true => Box::new(std::iter::empty()),
            false => Box::new(self.pairs(table, from, to).rev().map(pair)),
        }
    }
}

/// A whole state being received by a [`FjallEngine`], in a directory of its own.
pub struct FjallStaging(Generation);

impl Staging for FjallStaging {
    fn write(&mut self, pairs: Vec<(Table, Bytes, Bytes)>) -> Result<(), Error> {
        self.0.write(pairs.into_iter().map(|(table, key, value)| (table, key, Some(value))))
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let found = self.0.tables[table as usize].get(lsm_key(key)).map_err(lsm_read)?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }
}
