//! A disk with files on it, in memory: what processes see, and what a power failure leaves.
//!
//! A pure state machine: no thread, no clock. [`crate::mount`] is how processes get at it.
//!
//! Invariant: what was synced, and not damaged by an injected fault, is there after
//! [`Disk::power_off`]. Anything else is kept or lost as the seed decides.

mod content;
mod file;
mod tree;

use content::PAGE_BYTES;
use file::File;
use fuser::Errno;
use quorate_base::Rng;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use tree::Tree;

pub(crate) use tree::Names;

/// A file's number.
pub(crate) type Ino = u64;
/// The root directory's.
pub(crate) const ROOT: Ino = 1;

/// Which changes of names a power failure may undo.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Ordering {
    /// Each for itself, unless its directory was synced since. A file's sync says nothing of its
    /// name. This is all that POSIX promises.
    #[default]
    None,
    /// The latest only: changes are in a journal, and any sync writes all of it. So do ext4 and
    /// XFS by default.
    Journal,
}

/// What a disk is like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What decides everything that is random.
    pub seed: u64,
    /// How much it takes, in bytes.
    pub capacity_bytes: u64,
    /// What is promised of names.
    pub ordering: Ordering,
    /// How many of a million unsynced sectors and names survive a power failure; drawn anew for
    /// each failure where nothing is given.
    pub keep_ppm: Option<u32>,
    /// The longest that a sync takes, in microseconds; how long each does is random. Power that
    /// fails meanwhile finds all of it unsynced.
    pub sync_delay_us: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let (capacity_bytes, ordering) = (1 << 30, Ordering::None);
        Settings { seed: 1, capacity_bytes, ordering, keep_ppm: None, sync_delay_us: 0 }
    }
}

/// Errors on demand.
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    /// The how-manieth sync from now on fails with `EIO`, once: 1 is the next.
    pub failing_sync: u64,
    /// The same for writes; nothing of it is written.
    pub failing_write: u64,
    /// Syncs succeed and do nothing: a disk that lies, for showing that somebody notices.
    pub lying_syncs: bool,
}

/// What power failures and failed syncs did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Loss {
    /// Unsynced sectors that survived.
    pub sectors_kept: u64,
    /// Unsynced sectors that did not.
    pub sectors_lost: u64,
    /// Files of which one sector survived and another did not.
    pub files_torn: u64,
    /// Truncations that came undone.
    pub truncations_lost: u64,
    /// Unsynced changes of names that survived.
    pub names_kept: u64,
    /// Unsynced changes of names that did not.
    pub names_lost: u64,
}

impl std::ops::AddAssign for Loss {
    fn add_assign(&mut self, other: Loss) {
        self.sectors_kept += other.sectors_kept;
        self.sectors_lost += other.sectors_lost;
        self.files_torn += other.files_torn;
        self.truncations_lost += other.truncations_lost;
        self.names_kept += other.names_kept;
        self.names_lost += other.names_lost;
    }
}

/// How much of what was not synced survives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settle {
    pub keep_ppm: u32,
}

/// What a number stands for. Other metadata than a length is not modelled: it is durable at once.
#[derive(Default, Debug)]
pub(crate) struct Inode {
    pub is_directory: bool,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Names that it has.
    pub links: u32,
    /// How often the kernel holds it.
    lookups: u64,
    file: File,
}

impl Inode {
    pub fn new(is_directory: bool, mode: u16, uid: u32, gid: u32) -> Inode {
        Inode { is_directory, mode, uid, gid, ..Inode::default() }
    }

    fn is_used(&self) -> bool {
        self.links > 0 || self.lookups > 0
    }

    pub fn bytes(&self) -> u64 {
        self.file.content().len()
    }

    pub fn allocated_bytes(&self) -> u64 {
        self.file.content().pages() * PAGE_BYTES as u64
    }
}

/// The disk.
#[derive(Debug)]
pub(crate) struct Disk {
    nodes: BTreeMap<Ino, Inode>,
    tree: Tree,
    next: Ino,
    rng: Rng,
    settings: Settings,
    pub faults: Faults,
    pub loss: Loss,
}

impl Disk {
    /// An empty disk.
    pub fn new(settings: Settings) -> Disk {
        let root = Inode { is_directory: true, mode: 0o755, links: 1, ..Inode::default() };
        Disk {
            nodes: BTreeMap::from([(ROOT, root)]),
            tree: Tree::new(settings.ordering),
            next: ROOT + 1,
            rng: Rng::new(settings.seed),
            settings,
            faults: Faults::default(),
            loss: Loss::default(),
        }
    }

    /// How long the next sync is to take, in microseconds.
    pub fn sync_delay_us(&mut self) -> u64 {
        self.rng.below(self.settings.sync_delay_us + 1)
    }

    /// Sets how much the disk takes; what is there stays.
    pub fn set_capacity(&mut self, bytes: u64) {
        self.settings.capacity_bytes = bytes;
    }

    /// What a number stands for.
    pub fn node(&self, ino: Ino) -> Result<&Inode, Errno> {
        self.nodes.get(&ino).ok_or(Errno::ENOENT)
    }

    pub fn node_mut(&mut self, ino: Ino) -> Result<&mut Inode, Errno> {
        self.nodes.get_mut(&ino).ok_or(Errno::ENOENT)
    }

    /// The names in a directory.
    pub fn names(&self, directory: Ino) -> Result<&Names, Errno> {
        self.tree.names(directory).ok_or(Errno::ENOTDIR)
    }

    fn find(&self, directory: Ino, name: &OsStr) -> Result<Ino, Errno> {
        self.names(directory)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// Finds a name for the kernel, which holds what it finds until [`Disk::release`].
    pub fn look_up(&mut self, directory: Ino, name: &OsStr) -> Result<Ino, Errno> {
        let ino = self.find(directory, name)?;
        self.hold(ino)
    }

    fn hold(&mut self, ino: Ino) -> Result<Ino, Errno> {
        self.node_mut(ino)?.lookups += 1;
        Ok(ino)
    }

    /// The kernel holds it so many times less.
    pub fn release(&mut self, ino: Ino, times: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(times);
            self.collect_if_gone(ino);
        }
    }

    /// Makes a file or directory, held by the kernel.
    pub fn make(&mut self, directory: Ino, name: &OsStr, node: Inode) -> Result<Ino, Errno> {
        if self.names(directory)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let ino = self.next;
        self.next += 1;
        if node.is_directory {
            self.tree.add_directory(ino);
        }
        self.nodes.insert(ino, Inode { links: 1, ..node });
        self.tree.link(directory, name, ino);
        self.hold(ino)
    }

    /// Gives a file a further name.
    pub fn link(&mut self, ino: Ino, directory: Ino, name: &OsStr) -> Result<Ino, Errno> {
        if self.names(directory)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if self.node(ino)?.is_directory {
            return Err(Errno::EPERM);
        }
        self.node_mut(ino)?.links += 1;
        self.tree.link(directory, name, ino);
        self.hold(ino)
    }

    /// Removes a name; `of_directory` says of what kind it must be.
    pub fn unlink(
        &mut self,
        directory: Ino,
        name: &OsStr,
        of_directory: bool,
    ) -> Result<(), Errno> {
        let ino = self.find(directory, name)?;
        self.may_remove(ino, of_directory)?;
        self.tree.unlink(directory, name, ino);
        self.lose_link(ino);
        Ok(())
    }

    fn may_remove(&self, ino: Ino, of_directory: bool) -> Result<(), Errno> {
        match (self.node(ino)?.is_directory, of_directory) {
            (true, false) => Err(Errno::EISDIR),
            (false, true) => Err(Errno::ENOTDIR),
            (true, true) if !self.names(ino)?.is_empty() => Err(Errno::ENOTEMPTY),
            _ => Ok(()),
        }
    }

    fn lose_link(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.links = node.links.saturating_sub(1);
            self.collect_if_gone(ino);
        }
    }

    /// Gives a file another name, replacing what had it.
    pub fn rename(
        &mut self,
        from: (Ino, &OsStr),
        to: (Ino, &OsStr),
        replace: bool,
    ) -> Result<(), Errno> {
        let ino = self.find(from.0, from.1)?;
        let there = self.names(to.0)?.get(to.1).copied();
        match there {
            Some(there) if there == ino => return Ok(()),
            Some(_) if !replace => return Err(Errno::EEXIST),
            Some(there) => self.may_remove(there, self.node(ino)?.is_directory)?,
            None => {}
        }
        self.tree.rename(from, to, ino);
        if let Some(there) = there {
            self.lose_link(there);
        }
        Ok(())
    }

    /// Up to `len` bytes of a file.
    pub fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        Ok(self.node(ino)?.file.content().read(offset, len))
    }

    /// Writes all of `data`, or nothing.
    pub fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Result<(), Errno> {
        if strikes(&mut self.faults.failing_write) {
            return Err(Errno::EIO);
        }
        self.check_room(ino, offset, data.len() as u64)?;
        let node = self.nodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        node.file.write(offset, data, &mut self.rng);
        Ok(())
    }

    /// Gives room to a part of a file.
    pub fn allocate(&mut self, ino: Ino, offset: u64, len: u64, keep: bool) -> Result<(), Errno> {
        self.check_room(ino, offset, len)?;
        self.node_mut(ino)?.file.allocate(offset, len, keep);
        Ok(())
    }

    fn check_room(&self, ino: Ino, offset: u64, len: u64) -> Result<(), Errno> {
        // What cannot fit is refused before its pages are counted.
        if offset.checked_add(len).is_none() {
            return Err(Errno::EFBIG);
        }
        if len > self.settings.capacity_bytes {
            return Err(Errno::ENOSPC);
        }
        let needed = self.node(ino)?.file.needs(offset, len);
        match needed == 0 || needed <= self.free_pages() {
            true => Ok(()),
            false => Err(Errno::ENOSPC),
        }
    }

    /// Sets a file's length.
    pub fn resize(&mut self, ino: Ino, bytes: u64) -> Result<(), Errno> {
        self.node_mut(ino)?.file.resize(bytes);
        Ok(())
    }

    /// Makes a file or a directory durable.
    pub fn sync(&mut self, ino: Ino) -> Result<(), Errno> {
        let node = self.nodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        if strikes(&mut self.faults.failing_sync) {
            let how = Settle { keep_ppm: 500_000 };
            node.file.settle(how, &mut self.rng, &mut self.loss);
            return Err(Errno::EIO);
        }
        if self.faults.lying_syncs {
            return Ok(());
        }
        if node.is_directory {
            self.tree.sync_directory(ino);
            self.collect();
        } else {
            node.file.sync();
            self.tree.file_synced();
        }
        Ok(())
    }

    /// Pages there are, and pages that are free.
    pub fn pages(&self) -> (u64, u64) {
        (self.settings.capacity_bytes / PAGE_BYTES as u64, self.free_pages())
    }

    fn free_pages(&self) -> u64 {
        let used = self.nodes.values().filter(|node| node.is_used());
        let used: u64 = used.map(|node| node.file.content().pages()).sum();
        (self.settings.capacity_bytes / PAGE_BYTES as u64).saturating_sub(used)
    }

    /// The power fails: what is left is what was durable, and what of the rest the seed spares.
    pub fn power_off(&mut self) {
        let drawn = [0, 100_000, 500_000, 900_000, 1_000_000];
        let keep_ppm = self.rng.pick(&drawn).copied().unwrap_or(500_000);
        let how = Settle { keep_ppm: self.settings.keep_ppm.unwrap_or(keep_ppm) };
        for node in self.nodes.values_mut() {
            node.file.settle(how, &mut self.rng, &mut self.loss);
            node.file.forget();
            (node.lookups, node.links) = (0, 0);
        }
        let found = self.tree.power_off(how, &mut self.rng, &mut self.loss);
        self.nodes.retain(|ino, _| found.contains(ino));
        for directory in found {
            let names: Vec<Ino> = self
                .tree
                .names(directory)
                .map_or_else(Vec::new, |names| names.values().copied().collect());
            for ino in names {
                if let Some(node) = self.nodes.get_mut(&ino) {
                    node.links += 1;
                }
            }
        }
        // Faults are of the machine, not of the disk: they end with the power.
        self.faults = Faults { lying_syncs: self.faults.lying_syncs, ..Faults::default() };
    }

    fn collect_if_gone(&mut self, ino: Ino) {
        let unused = self.nodes.get(&ino).is_some_and(|node| !node.is_used());
        if ino != ROOT && unused && !self.tree.may_return(ino) {
            self.nodes.remove(&ino);
            self.tree.remove_directory(ino);
        }
    }

    /// Removes what nobody can reach any more.
    fn collect(&mut self) {
        let unused: Vec<Ino> =
            self.nodes.iter().filter(|(_, node)| !node.is_used()).map(|(ino, _)| *ino).collect();
        unused.into_iter().for_each(|ino| self.collect_if_gone(ino));
    }
}

/// Whether a fault strikes now, counting down to it.
fn strikes(left: &mut u64) -> bool {
    let now = *left == 1;
    *left = left.saturating_sub(1);
    now
}

#[cfg(test)]
mod tests;
