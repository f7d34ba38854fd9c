//! An engine in memory, deterministic, whose crashes are a method: for the simulator and tests.
//!
//! Every key holds its versions by batch number; a view is a number, so that opening one costs
//! nothing. A version that no view can see any more is dropped by later writes, in order. The
//! durable image is one more such view, and the keys written since are what a crash undoes.

use super::{Change, Engine, Pair, Scan, Source, Staging, Table};
use crate::error::Error;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// How many pairs a scan copies out at a time.
const PAGE_PAIRS: usize = 64;

/// The versions of one key, ascending by batch; none marks a removal.
type Versions = Vec<(u64, Option<Bytes>)>;

/// An engine that keeps everything in memory. A clone is another handle of the same engine.
#[derive(Clone, Debug, Default)]
pub struct MemoryEngine(Arc<Mutex<Handle>>);

#[derive(Debug, Default)]
struct Handle {
    state: Arc<State>,
    /// Makes the next persist fail, and with it everything after.
    fail_next_persist: bool,
    poisoned: bool,
}

#[derive(Debug, Default)]
struct State {
    tables: RwLock<Tables>,
    /// Nothing can be read any more.
    damaged: AtomicBool,
}

#[derive(Debug, Default)]
struct Tables {
    tables: [BTreeMap<Bytes, Versions>; 4],
    /// The last batch.
    batch: u64,
    /// The last durable batch.
    durable: u64,
    /// What was written since the durable batch, and by which batch.
    undurable: Vec<(u64, Table, Bytes)>,
    /// Batches that open views are at, and how many are.
    views: BTreeMap<u64, usize>,
    /// Superseded versions: the batch that superseded them, and where they are.
    garbage: VecDeque<(u64, Table, Bytes)>,
    /// Bytes of keys and values.
    bytes: u64,
}

impl Tables {
    fn at(&self, table: Table, key: &[u8], batch: u64) -> Option<&Bytes> {
        let versions = self.tables[table as usize].get(key)?;
        version_at(versions, batch)
    }

    fn write(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        let batch = self.batch;
        let map = &mut self.tables[table as usize];
        if value.is_none() && !map.contains_key(&key) {
            return;
        }
        self.bytes += (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64;
        let versions = map.entry(key.clone()).or_default();
        match versions.last_mut() {
            Some(last) if last.0 == batch => last.1 = value,
            Some(_) => {
                versions.push((batch, value));
                self.garbage.push_back((batch, table, key.clone()));
            }
            None => {
                versions.push((batch, value));
            }
        }
        self.undurable.push((batch, table, key));
    }

    /// Drops versions that neither a view nor the durable image can see.
    fn collect(&mut self) {
        let oldest_view = self.views.keys().next().copied().unwrap_or(self.batch);
        let oldest = oldest_view.min(self.durable);
        while let Some((superseded_by, _, _)) = self.garbage.front()
            && *superseded_by <= oldest
        {
            let Some((_, table, key)) = self.garbage.pop_front() else { return };
            let map = &mut self.tables[table as usize];
            let Some(versions) = map.get_mut(&key) else { continue };
            let keep = versions.partition_point(|(at, _)| *at <= oldest).saturating_sub(1);
            let dropped = versions.drain(..keep);
            self.bytes = self.bytes.saturating_sub(
                dropped.map(|(_, v)| v.map_or(0, |v| v.len()) + key.len()).sum::<usize>() as u64,
            );
            if let [(at, None)] = versions[..]
                && at <= oldest
            {
                map.remove(&key);
                self.bytes = self.bytes.saturating_sub(key.len() as u64);
            }
        }
    }

    /// Forgets all but the durable batches and the first `keep` after them.
    fn crash(&mut self, keep: u64) {
        let last = self.durable.saturating_add(keep).min(self.batch);
        let mut lost = 0;
        for (batch, table, key) in std::mem::take(&mut self.undurable) {
            let map = &mut self.tables[table as usize];
            let Some(versions) = map.get_mut(&key).filter(|_| batch > last) else { continue };
            let kept = versions.partition_point(|(at, _)| *at <= last);
            let sizes = versions.drain(kept..).map(|(_, v)| v.map_or(0, |v| v.len()) + key.len());
            lost += sizes.sum::<usize>() as u64;
            if versions.is_empty() {
                map.remove(&key);
            }
        }
        self.garbage.retain(|(superseded_by, _, _)| *superseded_by <= last);
        self.bytes = self.bytes.saturating_sub(lost);
        (self.batch, self.durable) = (last, last);
    }
}

fn version_at(versions: &Versions, batch: u64) -> Option<&Bytes> {
    let seen = versions.partition_point(|(at, _)| *at <= batch);
    versions.get(seen.checked_sub(1)?)?.1.as_ref()
}

impl State {
    fn read<T>(&self, f: impl FnOnce(&Tables) -> T) -> T {
        f(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, f: impl FnOnce(&mut Tables) -> T) -> T {
        f(&mut self.tables.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        MemoryEngine::default()
    }

    fn handle<T>(&self, f: impl FnOnce(&mut Handle) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn state(&self) -> Arc<State> {
        self.handle(|h| h.state.clone())
    }

    /// A power failure: what was made durable is left, and the first `keep` batches after that,
    /// for a real disk may have more than was asked of it. Healthy again. Views opened before must
    /// not be used any more.
    pub fn crash(&self, keep: u64) {
        self.handle(|h| {
            h.poisoned = false;
            h.fail_next_persist = false;
            h.state.change(|t| t.crash(keep));
        });
    }

    /// How many views are open, of the present state.
    pub fn views(&self) -> usize {
        self.state().read(|t| t.views.values().sum())
    }

    /// A disk fault: what is read has a wrong checksum from now on, until the state is replaced.
    pub fn damage(&self) {
        self.state().damaged.store(true, Ordering::Relaxed);
    }

    /// A disk fault: the next persist fails, and then everything until the next crash.
    pub fn fail_next_persist(&self) {
        self.handle(|h| h.fail_next_persist = true);
    }
}

impl Engine for MemoryEngine {
    type View = MemoryView;
    type Staging = MemoryStaging;

    fn write(&self, batch: Vec<Change>) -> Result<(), Error> {
        self.handle(|h| {
            if h.poisoned {
                return Err(Error::Poisoned);
            }
            h.state.change(|t| {
                t.batch += 1;
                for (table, key, value) in batch {
                    t.write(table, key, value);
                }
                t.collect();
            });
            Ok(())
        })
    }

    fn persist(&self) -> Result<(), Error> {
        self.handle(|h| {
            if h.poisoned {
                return Err(Error::Poisoned);
            }
            if h.fail_next_persist {
                h.poisoned = true;
                return Err(Error::Disk("simulated sync failure".into()));
            }
            h.state.change(|t| {
                t.durable = t.batch;
                t.undurable.clear();
            });
            Ok(())
        })
    }

    fn view(&self) -> MemoryView {
        let state = self.state();
        let batch = state.change(|t| {
            *t.views.entry(t.batch).or_default() += 1;
            t.batch
        });
        MemoryView(Arc::new(OpenView { state, batch }))
    }

    fn disk_bytes(&self) -> u64 {
        self.state().read(|t| t.bytes)
    }

    fn stage(&self) -> Result<MemoryStaging, Error> {
        Ok(MemoryStaging(Tables::default()))
    }

    fn install(&self, staging: MemoryStaging) -> Result<(), Error> {
        let mut tables = staging.0;
        tables.undurable.clear();
        self.handle(|h| {
            if h.poisoned {
                return Err(Error::Poisoned);
            }
            let (tables, damaged) = (RwLock::new(tables), AtomicBool::new(false));
            h.state = Arc::new(State { tables, damaged });
            Ok(())
        })
    }
}

/// A state of a [`MemoryEngine`] that later writes do not change.
#[derive(Clone, Debug)]
pub struct MemoryView(Arc<OpenView>);

#[derive(Debug)]
struct OpenView {
    state: Arc<State>,
    batch: u64,
}

impl Drop for OpenView {
    fn drop(&mut self) {
        self.state.change(|t| {
            if let Some(n) = t.views.get_mut(&self.batch) {
                *n -= 1;
                if *n == 0 {
                    t.views.remove(&self.batch);
                }
            }
        });
    }
}

impl State {
    fn check(&self) -> Result<(), Error> {
        match self.damaged.load(Ordering::Relaxed) {
            true => Err(Error::Corrupt("simulated damage".into())),
            false => Ok(()),
        }
    }
}

impl MemoryView {
    fn page(&self, table: Table, from: Bound<&[u8]>, to: Bound<&[u8]>, back: bool) -> Vec<Pair> {
        let visible = |(key, versions): (&Bytes, &Versions)| {
            Some((key.clone(), version_at(versions, self.0.batch)?.clone()))
        };
        self.0.state.read(|t| {
            let pairs = t.tables[table as usize].range::<[u8], _>((from, to));
            match back {
                false => pairs.filter_map(visible).take(PAGE_PAIRS).collect(),
                true => pairs.rev().filter_map(visible).take(PAGE_PAIRS).collect(),
            }
        })
    }

    fn pages(&self, table: Table, from: &[u8], to: Option<&[u8]>, back: bool) -> Scan<'_> {
        if let Err(error) = self.0.state.check() {
            return Box::new(std::iter::once(Err(error)));
        }
        if to.is_some_and(|to| to <= from) {
            return Box::new(std::iter::empty());
        }
        Box::new(Pages {
            view: self,
            table,
            from: Bound::Included(Bytes::copy_from_slice(from)),
            to: to.map_or(Bound::Unbounded, |to| Bound::Excluded(Bytes::copy_from_slice(to))),
            back,
            page: Vec::new().into_iter(),
            done: false,
        })
    }
}

struct Pages<'a> {
    view: &'a MemoryView,
    table: Table,
    from: Bound<Bytes>,
    to: Bound<Bytes>,
    back: bool,
    page: std::vec::IntoIter<Pair>,
    done: bool,
}

impl Iterator for Pages<'_> {
    type Item = Result<Pair, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(pair) = self.page.next() {
            return Some(Ok(pair));
        }
        if self.done {
            return None;
        }
        let bound = |b: &Bound<Bytes>| b.as_ref().map(|k| k.clone());
        let (from, to) = (bound(&self.from), bound(&self.to));
        let (from, to) = (from.as_ref().map(|k| &k[..]), to.as_ref().map(|k| &k[..]));
        // Both ends excluded at one key is empty, and the map would not take it.
        let page = match (from, to) {
            (Bound::Excluded(a), Bound::Excluded(b)) if a >= b => Vec::new(),
            _ => self.view.page(self.table, from, to, self.back),
        };
        self.done = page.len() < PAGE_PAIRS;
        if let Some((key, _)) = page.last() {
            let end = Bound::Excluded(key.clone());
            match self.back {
                false => self.from = end,
                true => self.to = end,
            }
        }
        self.page = page.into_iter();
        self.page.next().map(Ok)
    }
}

impl Source for MemoryView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.0.state.check()?;
        Ok(self.0.state.read(|t| t.at(table, key, self.0.batch).cloned()))
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> Scan<'_> {
        self.pages(table, from, to, false)
    }

    fn scan_back(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> Scan<'_> {
        self.pages(table, from, to, true)
    }
}

/// A whole state being received by a [`MemoryEngine`].
#[derive(Debug)]
pub struct MemoryStaging(Tables);

impl Staging for MemoryStaging {
    fn write(&mut self, pairs: Vec<(Table, Bytes, Bytes)>) -> Result<(), Error> {
        for (table, key, value) in pairs {
            self.0.write(table, key, Some(value));
        }
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.0.at(table, key, u64::MAX).cloned())
    }
}
