//! One fjall database with the four tables in it, as trees.
//!
//! History has several trees where the database holds several states: each state has the tree of
//! its *lane*. Keys of history come in order in each state, and a tree that takes them in order has
//! nothing to merge; of two states in one tree each new key is between old ones of the other.
//!
//! fjall syncs its journal before it writes a memtable out, so that after a crash the trees agree
//! on one prefix of the batches. Batches stay in the journal's buffer until a persist, for the
//! consensus log has them: a batch costs no system call of its own.

use super::generations::{self, disk_error};
use super::journal;
use super::shelf;
use super::{Change, Pair, Table};
use crate::error::Error;
use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy};
use fjall::{
    AbstractTree, Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot,
};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MIB: u64 = 1024 * 1024;

/// How much memory and disk the engine may take beside the data itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FjallSettings {
    /// Blocks kept in memory, in bytes.
    pub cache_bytes: u64,
    /// What a table may gather in memory before it is written out, in bytes, by table number. Of
    /// history, each lane half of that, where there are several.
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
            // though they are compacted more often; history is inserted in order. What is in the
            // meta table, sessions and branches, is soon overwritten or removed: most of it ends in
            // memory, if there is room.
            memtable_bytes: [8 * MIB, 4 * MIB, 2 * MIB, 16 * MIB],
            journal_bytes: 128 * MIB,
            // With two, the first asks the queue over and over while the second compacts.
            worker_threads: 3,
        }
    }
}

/// The database and its trees. A clone is another handle. Fields are dropped in order.
#[derive(Clone)]
pub(super) struct Tables {
    /// Of all tables but history.
    trees: [Keyspace; 3],
    /// By lane.
    history: Arc<[Keyspace]>,
    database: Database,
    directory: PathBuf,
}

/// The longest key that fjall takes. It panics over longer ones, also where it looks for them.
const LONGEST: usize = u16::MAX as usize;

/// The trees of history in a new database that many states share. Never fewer than there were:
/// what is in a database is looked for by number.
pub(super) const LANES: usize = 8;

/// Where fjall keeps its trees, each in a folder named by the tree's number; 0 is its own.
const TREES: &str = "keyspaces";

/// What is in a directory; nothing, if it is not there.
fn files_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|e| e.path())).collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Names what was tried, and tells a full disk and a newer format from a bad disk.
fn engine_error(doing: &'static str) -> impl Fn(fjall::Error) -> Error {
    move |e| match &e {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => match io.kind() {
            // A file is missing, or shorter than it was: the disk works, what it held is gone.
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                Error::Corrupt(format!("{doing}: {io}"))
            }
            _ => disk_error(doing, io),
        },
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

impl Tables {
    /// Opens what is in `directory`. A new database has so many lanes.
    pub fn open(directory: PathBuf, settings: &FjallSettings, lanes: usize) -> Result<Self, Error> {
        let opening = engine_error("opening the state");
        let cut = journal::cut_torn_end(&directory)?;
        let database = Database::builder(&directory)
            .cache_size(settings.cache_bytes)
            .manual_journal_persist(true)
            .max_journaling_size(settings.journal_bytes.max(64 * MIB))
            .worker_threads(settings.worker_threads.max(1))
            .open()
            .map_err(&opening)?;
        let table = |name: &str, table: Table| {
            database.keyspace(name, || options(settings, table, lanes)).map_err(&opening)
        };
        // It is the last to be made: where it is there, so are all lanes that there will be, but
        // for what power took with it at the very first start.
        let lanes = match database.keyspace_exists(LAST) {
            true => (0..LANES).rfind(|lane| database.keyspace_exists(&lane_name(*lane))),
            false => lanes.checked_sub(1),
        };
        let history = (0..=lanes.unwrap_or(0)).map(|lane| table(&lane_name(lane), Table::History));
        let history = history.collect::<Result<Arc<[_]>, Error>>()?;
        let (current, index) = (table("current", Table::Current)?, table("index", Table::Index)?);
        let trees = [table(LAST, Table::Meta)?, current, index];
        let all = trees.iter().chain(&*history);
        let persisted = all.filter_map(|t| t.tree.get_highest_persisted_seqno()).max();
        if persisted.is_some_and(|seqno| cut.contradicts(seqno)) {
            let why = "opening the state: its journal has a hole in front of what tables hold";
            return Err(Error::Corrupt(why.to_owned()));
        }
        // fjall leaves the names of the trees' folders to the page cache. Were some lost, the next
        // start would make those trees anew under other numbers, and play the journal, which knows
        // trees by number, into whichever tree has the number then.
        generations::sync_directory(&directory.join(TREES))?;
        Ok(Tables { trees, history, database, directory })
    }

    /// Whether nothing was ever written to a database that does not open: its journals hold zeros
    /// only, and no tree but fjall's own has a file of pairs.
    pub fn hold_nothing(directory: &Path) -> Result<bool, Error> {
        let unreadable = |e| disk_error(format_args!("looking into {}", directory.display()), &e);
        for file in files_in(directory).map_err(unreadable)? {
            if file.extension().is_some_and(|e| e == "jnl")
                && std::fs::read(&file).map_err(unreadable)?.iter().any(|byte| *byte != 0)
            {
                return Ok(false);
            }
        }
        for tree in files_in(&directory.join(TREES)).map_err(unreadable)? {
            let own = tree.file_name().is_some_and(|name| name == "0");
            if !own && !files_in(&tree.join("tables")).map_err(unreadable)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub fn are_empty(&self) -> bool {
        self.trees.iter().chain(&*self.history).all(|tree| tree.is_empty().unwrap_or(false))
    }

    pub fn disk_bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }

    /// The trees of a table.
    pub fn trees(&self, table: Table) -> &[Keyspace] {
        match table {
            Table::History => &self.history,
            other => std::slice::from_ref(&self.trees[other as usize]),
        }
    }

    /// The tree that has a key, or all keys that begin like this.
    fn tree(&self, table: Table, lsm_key: &[u8]) -> &Keyspace {
        match table {
            Table::History => &self.history[shelf::lane(lsm_key) % self.history.len()],
            other => &self.trees[other as usize],
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        self.database.snapshot()
    }

    /// Writes a batch whose keys all get `prefix` in front.
    pub fn write(
        &self,
        prefix: &[u8],
        batch: impl ExactSizeIterator<Item = Change>,
    ) -> Result<(), Error> {
        let mut out = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), batch.len());
        // fjall keeps short keys in place: one buffer for all of them spares an allocation each.
        let mut lsm_key = Vec::with_capacity(64);
        for (table, key, value) in batch {
            lsm_key.clear();
            lsm_key.extend_from_slice(prefix);
            lsm_key.extend_from_slice(&key);
            let tree = self.tree(table, &lsm_key);
            match value {
                Some(value) => out.insert(tree, &lsm_key[..], &value[..]),
                None => out.remove(tree, &lsm_key[..]),
            }
        }
        out.commit().map_err(engine_error("writing the state"))
    }

    /// Syncs the journal's files first without, then with the journal's lock, so that writers
    /// wait for the short second sync only.
    pub fn persist(&self) -> Result<(), Error> {
        let persisting = engine_error("syncing the state");
        self.database.persist(PersistMode::Buffer).map_err(&persisting)?;
        let path = &self.directory;
        let unreadable = |e| disk_error(format_args!("syncing {}", path.display()), &e);
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
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

    /// The value under a key, now.
    pub fn get(&self, table: Table, prefix: &[u8], key: &[u8]) -> Result<Option<Bytes>, Error> {
        let Some(lsm_key) = short(lsm_key(prefix, key)) else { return Ok(None) };
        let found = self.tree(table, &lsm_key).get(lsm_key).map_err(lsm_read)?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The value under a key, as of a snapshot.
    pub fn get_at(
        &self,
        at: &Snapshot,
        table: Table,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<Bytes>, Error> {
        let Some(lsm_key) = short(lsm_key(prefix, key)) else { return Ok(None) };
        let found = at.get(self.tree(table, &lsm_key), lsm_key);
        Ok(found.map_err(lsm_read)?.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The pairs with this prefix from `from` to `to`, as of a snapshot.
    pub fn range(
        &self,
        at: &Snapshot,
        table: Table,
        prefix: &[u8],
        (from, to): (&[u8], Option<&[u8]>),
    ) -> fjall::Iter {
        let from = from_bound(lsm_key(prefix, from));
        let to = match to {
            Some(to) => to_bound(lsm_key(prefix, to)),
            None => after(prefix).map_or(Bound::Unbounded, Bound::Excluded),
        };
        at.range(self.tree(table, prefix), (from, to))
    }
}

/// The tree that is made last.
const LAST: &str = "meta";

/// The name of a lane's tree.
fn lane_name(lane: usize) -> String {
    match lane {
        0 => "history".to_owned(),
        lane => format!("history-{lane}"),
    }
}

/// The first level of a tree on disk holds four tables of this size. Memtables hold keys of several
/// states, and so overlap all of it when they are merged into it; history, which is most of what
/// there is, comes in order in each state, and moves on from a small first level for next to
/// nothing.
const TABLE_BYTES: u64 = 16 * MIB;

fn options(settings: &FjallSettings, table: Table, lanes: usize) -> KeyspaceCreateOptions {
    let memtable_bytes = match table {
        Table::History if lanes > 1 => settings.memtable_bytes[table as usize] / 2,
        _ => settings.memtable_bytes[table as usize],
    };
    let compaction = Leveled::default().with_table_target_size(TABLE_BYTES);
    let options = match table {
        // Its files are mostly apart from each other, so that it is known which one has a key; and
        // that it is there is known anyway.
        Table::History => KeyspaceCreateOptions::default().filter_policy(FilterPolicy::disabled()),
        _ => KeyspaceCreateOptions::default(),
    };
    options
        .compaction_strategy(Arc::new(compaction))
        .manual_journal_persist(true)
        .max_memtable_size(memtable_bytes)
        .data_block_size_policy(BlockSizePolicy::all(4 * 1024))
        .data_block_compression_policy(CompressionPolicy::disabled())
        // Whoever looks into history or the index knows that it is there.
        .expect_point_read_hits(matches!(table, Table::History | Table::Index))
}

/// The key as fjall has it.
fn lsm_key(prefix: &[u8], key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(prefix.len() + key.len());
    out.extend_from_slice(prefix);
    out.extend_from_slice(key);
    out
}

/// A key that can be there.
fn short(lsm_key: Vec<u8>) -> Option<Vec<u8>> {
    (lsm_key.len() <= LONGEST).then_some(lsm_key)
}

/// From this key on. Of keys that can be there a longer one precedes those behind its beginning.
fn from_bound(mut lsm_key: Vec<u8>) -> Bound<Vec<u8>> {
    if lsm_key.len() <= LONGEST {
        return Bound::Included(lsm_key);
    }
    lsm_key.truncate(LONGEST);
    Bound::Excluded(lsm_key)
}

/// Up to before this key. Of keys that can be there its beginning is the last before a longer one.
fn to_bound(mut lsm_key: Vec<u8>) -> Bound<Vec<u8>> {
    if lsm_key.len() <= LONGEST {
        return Bound::Excluded(lsm_key);
    }
    lsm_key.truncate(LONGEST);
    Bound::Included(lsm_key)
}

/// The least key after all that begin with `prefix`, if there is one.
pub(super) fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut out = prefix[..=last].to_vec();
    out[last] += 1;
    Some(out)
}

/// A pair as it was written, without the prefix.
pub(super) fn pair(guard: Guard, prefix_bytes: usize) -> Result<Pair, Error> {
    let (key, value) = guard.into_inner().map_err(lsm_read)?;
    let key = key.get(prefix_bytes..).unwrap_or_default();
    Ok((Bytes::copy_from_slice(key), Bytes::copy_from_slice(&value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_keeps_to_its_lanes() {
        for lanes in [1, LANES] {
            let dir = tempfile::tempdir().unwrap();
            let settings = FjallSettings::default();
            for opened in 0..2 {
                // Of one that is there the number counts for nothing.
                let asked = if opened == 0 { lanes } else { 3 };
                let tables = Tables::open(dir.path().to_owned(), &settings, asked).unwrap();
                assert_eq!(tables.trees(Table::History).len(), lanes);
                for place in 0..20 {
                    let prefix = shelf::prefix(place, 1);
                    let (key, value) = (Bytes::from_static(b"k"), Bytes::from(place.to_string()));
                    let found = tables.get(Table::History, &prefix, &key).unwrap();
                    assert_eq!(found, Some(value.clone()).filter(|_| opened > 0));
                    let change = (Table::History, key, Some(value));
                    tables.write(&prefix, [change].into_iter()).unwrap();
                    let all =
                        tables.range(&tables.snapshot(), Table::History, &prefix, (&[], None));
                    assert_eq!(all.count(), 1);
                }
                let used = tables.trees(Table::History).iter().filter(|it| !it.is_empty().unwrap());
                assert_eq!(used.count(), lanes);
                tables.persist().unwrap();
            }
        }
    }

    /// Power may take the names of some trees' folders with it that were made at the first start.
    #[test]
    fn lanes_that_were_lost_before_anything_was_written_are_made_anew() {
        let settings = FjallSettings::default();
        for lost in 1..=LANES + 3 {
            let dir = tempfile::tempdir().unwrap();
            drop(Tables::open(dir.path().to_owned(), &settings, LANES).unwrap());
            std::fs::remove_dir_all(dir.path().join(TREES).join(lost.to_string())).unwrap();
            let mut all = Vec::new();
            for _ in 0..2 {
                let Ok(tables) = Tables::open(dir.path().to_owned(), &settings, LANES) else {
                    // It is begun anew: nothing was ever written.
                    assert!(Tables::hold_nothing(dir.path()).unwrap());
                    break;
                };
                all.push(tables.trees(Table::History).len());
            }
            assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{lost}: {all:?}");
        }
    }

    #[test]
    fn what_follows_a_prefix() {
        assert_eq!(after(b"k"), Some(b"l".to_vec()));
        assert_eq!(after(&[1, 0xff, 0xff]), Some(vec![2]));
        assert_eq!(after(&[0xff]), None);
    }
}
