//! One database for many small states: a node with hundreds of keyspaces has four tables, of which
//! history has eight trees, one journal and one set of threads, not hundreds of each.
//!
//! The keys of a state begin with `g`, its place (eight bytes) and the number of its generation
//! (four bytes), big-endian. Under `p` and the place, in the meta table, is the number of the
//! present generation. Invariant: what no pointer names is no state, whatever is left of it; it is
//! removed a piece at a time ([`FjallShelf::sweep`]).

use super::fjall::FjallEngine;
use super::generations;
use super::tables::{FjallSettings, LANES, Tables, after, pair};
use super::{Change, Table};
use crate::error::Error;
use bytes::Bytes;
use fjall::Readable;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const STATE: u8 = b'g';
const POINTER: u8 = b'p';
/// Bytes of a key before the state's own.
const PREFIX_BYTES: usize = 1 + 8 + 4;
/// Keys that one sweep removes at most, and in one batch.
const SWEEP_KEYS: usize = 16_384;
const SWEEP_BATCH: usize = 1_024;

/// Many states in one database. A clone is another handle of the same shelf.
#[derive(Clone)]
pub struct FjallShelf(Arc<Shelf>);

pub(super) struct Shelf {
    pub tables: Tables,
    pub poisoned: Arc<AtomicBool>,
    /// Batches written, and how many of them are durable.
    written: AtomicU64,
    persisted: Mutex<u64>,
    /// Prefixes of what is no state any more.
    garbage: Mutex<Vec<Vec<u8>>>,
}

/// What the keys of a generation begin with.
pub(super) fn prefix(place: u64, number: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX_BYTES);
    out.push(STATE);
    out.extend_from_slice(&place.to_be_bytes());
    // Generations are made by snapshots received: there are never so many.
    out.extend_from_slice(&(number as u32).to_be_bytes());
    out
}

/// What says which tree of history a key of a state is in, or keys that begin like this. Places are
/// given one after the other, so that those made together are in different trees.
pub(super) fn lane(lsm_key: &[u8]) -> usize {
    match lsm_key {
        [STATE, _, _, _, _, _, _, _, last, ..] => usize::from(*last),
        _ => 0,
    }
}

fn pointer(place: u64) -> Bytes {
    let mut out = vec![POINTER];
    out.extend_from_slice(&place.to_be_bytes());
    Bytes::from(out)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number in four bytes, big-endian.
fn number_in(bytes: &[u8]) -> Result<u64, Error> {
    let bytes: [u8; 4] = bytes
        .try_into()
        .map_err(|_| Error::Corrupt(format!("a generation of {} bytes", bytes.len())))?;
    Ok(u64::from(u32::from_be_bytes(bytes)))
}

impl Shelf {
    /// Generations found at each place, named by a pointer or not.
    fn found(&self) -> Result<BTreeSet<Vec<u8>>, Error> {
        let mut found = BTreeSet::new();
        let at = self.tables.snapshot();
        for tree in Table::ALL.iter().flat_map(|table| self.tables.trees(*table)) {
            let mut from = vec![STATE];
            // From the first key of one generation on to the first key of the next.
            while let Some(guard) = at.range(tree, from.clone()..vec![STATE + 1]).next() {
                let (key, _) = pair(guard, 0)?;
                let Some(prefix) = key.get(..PREFIX_BYTES) else {
                    return Err(Error::Corrupt("a key that belongs to no state".into()));
                };
                found.insert(prefix.to_vec());
                from = after(prefix).unwrap_or_default();
            }
        }
        Ok(found)
    }

    /// The generation that a place's pointer names; where there is none, a new one.
    pub fn present(&self, place: u64) -> Result<u64, Error> {
        if let Some(number) = self.tables.get(Table::Meta, &[], &pointer(place))? {
            return number_in(&number);
        }
        // What an earlier state of this place left behind must not be taken for the new one.
        let start = prefix(place, 0);
        let (mut last, at) = (0, self.tables.snapshot());
        for table in Table::ALL {
            let all = (&[][..], None);
            if let Some(guard) = self.tables.range(&at, table, &start[..9], all).next_back() {
                let (key, _) = pair(guard, 9)?;
                last = last.max(number_in(key.get(..4).unwrap_or_default())?);
            }
        }
        self.write_pointer(place, Some(last + 1))?;
        Ok(last + 1)
    }

    fn write_pointer(&self, place: u64, number: Option<u64>) -> Result<(), Error> {
        let value = number.map(|number| Bytes::copy_from_slice(&(number as u32).to_be_bytes()));
        self.write(&[], [(Table::Meta, pointer(place), value)].into_iter())
    }

    /// Makes a generation the present one, durably.
    pub fn point(&self, place: u64, number: u64) -> Result<(), Error> {
        self.write_pointer(place, Some(number))?;
        self.persist()
    }

    pub fn write(
        &self,
        prefix: &[u8],
        batch: impl ExactSizeIterator<Item = Change>,
    ) -> Result<(), Error> {
        self.tables.write(prefix, batch)?;
        // Counted only now: a persist that counts it must have it.
        self.written.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Makes all that was written before this call durable, unless another call just did: many
    /// states that ask for it at once share one sync.
    pub fn persist(&self) -> Result<(), Error> {
        let wanted = self.written.load(Ordering::Acquire);
        let mut persisted = lock(&self.persisted);
        if *persisted >= wanted {
            return Ok(());
        }
        let upto = self.written.load(Ordering::Acquire);
        self.tables.persist()?;
        *persisted = upto;
        Ok(())
    }

    pub fn discard(&self, prefix: Vec<u8>) {
        lock(&self.garbage).push(prefix);
    }
}

impl FjallShelf {
    /// Opens the shelf whose files are in `root`, which is made if it does not exist. Fails if
    /// another process has it open.
    ///
    /// # Errors
    /// The disk's, or damage.
    pub fn open(root: &Path, settings: &FjallSettings) -> Result<Self, Error> {
        generations::create_root(root)?;
        generations::check(root)?;
        let current = generations::read_current(root)?;
        let number = current.unwrap_or(1);
        let directory = generations::directory(root, number);
        let tables = match Tables::open(directory.clone(), settings, LANES) {
            // The first start was cut short.
            Err(_) if current.is_none() && Tables::hold_nothing(&directory)? => {
                generations::remove(root, number)?;
                Tables::open(directory, settings, LANES)?
            }
            opened => opened?,
        };
        generations::write_current(root, number)?;
        let shelf = Shelf {
            tables,
            poisoned: Arc::default(),
            // What is found may be in the machine's cache only: the first persist syncs it.
            written: AtomicU64::new(1),
            persisted: Mutex::new(0),
            garbage: Mutex::default(),
        };
        let mut garbage = Vec::new();
        for prefix in shelf.found()? {
            let place: [u8; 8] = prefix[1..9].try_into().unwrap_or_default();
            let pointer = pointer(u64::from_be_bytes(place));
            let present = shelf.tables.get(Table::Meta, &[], &pointer)?;
            if present.as_deref() != Some(&prefix[9..]) {
                garbage.push(prefix);
            }
        }
        *lock(&shelf.garbage) = garbage;
        Ok(FjallShelf(Arc::new(shelf)))
    }

    /// The state at this place, begun if there is none. One engine per place at a time.
    ///
    /// # Errors
    /// The disk's, or damage.
    pub fn engine(&self, place: u64) -> Result<FjallEngine, Error> {
        FjallEngine::at(&self.0, place)
    }

    /// The places that have a state.
    ///
    /// # Errors
    /// The disk's, or damage.
    pub fn places(&self) -> Result<Vec<u64>, Error> {
        let at = self.0.tables.snapshot();
        let pointers = self.0.tables.range(&at, Table::Meta, &[POINTER], (&[], None));
        pointers
            .map(|guard| {
                let (key, _) = pair(guard, 1)?;
                let place: [u8; 8] = key[..]
                    .try_into()
                    .map_err(|_| Error::Corrupt("a pointer to a state at no place".into()))?;
                Ok(u64::from_be_bytes(place))
            })
            .collect()
    }

    /// Gives the state at this place up, durably; nobody may use its engine any more.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove(&self, place: u64) -> Result<(), Error> {
        let Some(number) = self.0.tables.get(Table::Meta, &[], &pointer(place))? else {
            return Ok(());
        };
        self.0.write_pointer(place, None)?;
        self.0.persist()?;
        self.0.discard(prefix(place, number_in(&number)?));
        Ok(())
    }

    /// Makes all that was written before this call durable.
    ///
    /// # Errors
    /// The disk's.
    pub fn persist(&self) -> Result<(), Error> {
        self.0.persist()
    }

    /// Removes a piece of what is no state any more; whether there is more to do.
    ///
    /// # Errors
    /// The disk's.
    pub fn sweep(&self) -> Result<bool, Error> {
        let Some(prefix) = lock(&self.0.garbage).last().cloned() else { return Ok(false) };
        let (tables, at) = (&self.0.tables, self.0.tables.snapshot());
        let mut left = SWEEP_KEYS;
        for table in Table::ALL {
            let mut batch = Vec::new();
            for guard in tables.range(&at, table, &prefix, (&[], None)).take(left) {
                let (key, _) = pair(guard, 0)?;
                batch.push((table, key, None));
                left -= 1;
                if batch.len() == SWEEP_BATCH {
                    self.0.write(&[], std::mem::take(&mut batch).into_iter())?;
                }
            }
            self.0.write(&[], batch.into_iter())?;
            if left == 0 {
                return Ok(true);
            }
        }
        let mut garbage = lock(&self.0.garbage);
        garbage.retain(|known| *known != prefix);
        Ok(!garbage.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_in_any_tree_is_found_and_swept() {
        let dir = tempfile::tempdir().unwrap();
        let open = || FjallShelf::open(dir.path(), &FjallSettings::default()).unwrap();
        let shelf = open();
        for place in 0..9 {
            let change = (Table::History, Bytes::from_static(b"k"), Some(Bytes::new()));
            shelf.0.write(&prefix(place, 1), [change].into_iter()).unwrap();
        }
        shelf.persist().unwrap();
        drop(shelf);
        let shelf = open();
        assert!(!shelf.0.tables.are_empty());
        while shelf.sweep().unwrap() {}
        assert!(shelf.0.tables.are_empty());
    }
}
