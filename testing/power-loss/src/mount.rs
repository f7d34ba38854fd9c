//! The disk as a mounted file system, over FUSE.
//!
//! The kernel caches pages and attributes, but writes go through to [`Disk`] at once (no write-back
//! cache), so that what a power failure may take is decided there alone. A shared writable mapping
//! is the exception: its pages come when they are synced or the kernel sees fit. Locks are the
//! kernel's. `sync_file_range` finds nothing to do, and makes nothing durable, as its manual says.
//!
//! Invariant: while the power is frozen no request is answered, so that what is on the disk stays
//! as it is until the processes are gone.

use crate::disk::{Disk, Ino, Inode, ROOT};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Nobody but the kernel changes anything, so it may remember what it was told.
const FOR_EVER: Duration = Duration::from_secs(3600);
const KEEP_LENGTH: i32 = 1;
/// `O_DSYNC`, which `O_SYNC` contains.
const SYNCHRONOUS: i32 = 0o10_000;
const PAGE_BYTES: u32 = 4096;
const LONGEST_NAME: u32 = 255;

/// Whether requests are answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Power {
    /// As usual.
    On,
    /// Not at all: they wait.
    Frozen,
    /// All fail: whoever asked is being killed.
    Off,
}

/// What the file system and whoever holds its power switch share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    power: Power,
    disk: Disk,
    next_handle: u64,
    /// What is to be read from the directories that are open, as it was when they were opened.
    listings: BTreeMap<u64, Vec<Entry>>,
}

type Entry = (Ino, FileType, OsString);

impl Shared {
    pub fn new(disk: Disk) -> Arc<Shared> {
        let listings = BTreeMap::new();
        let state = State { power: Power::On, disk, next_handle: 1, listings };
        Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns the switch.
    pub fn set(&self, power: Power) {
        self.lock().power = power;
        self.changed.notify_all();
    }

    /// The disk, whatever the power.
    pub fn with<T>(&self, act: impl FnOnce(&mut Disk) -> T) -> T {
        act(&mut self.lock().disk)
    }

    /// Runs a request when there is power.
    fn serve<T>(&self, act: impl FnOnce(&mut State) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut state = self.lock();
        while state.power == Power::Frozen {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.power {
            Power::On => act(&mut state),
            _ => Err(Errno::EIO),
        }
    }

    /// Runs a sync, which takes its time. What it is to save is in danger until its end.
    fn sync(&self, ino: INodeNo) -> Result<(), Errno> {
        let delay = self.serve(|state| Ok(state.disk.sync_delay_us()))?;
        if delay > 0 {
            std::thread::sleep(Duration::from_micros(delay));
        }
        self.serve(|state| state.disk.sync(ino.0))
    }
}

/// What is mounted.
#[derive(Debug)]
pub(crate) struct Mount(pub Arc<Shared>);

fn attributes(ino: Ino, node: &Inode) -> FileAttr {
    let epoch = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(ino),
        size: node.bytes(),
        blocks: node.allocated_bytes() / 512,
        atime: epoch,
        mtime: epoch,
        ctime: epoch,
        crtime: epoch,
        kind: kind(node),
        perm: node.mode,
        nlink: if node.is_directory { 2 } else { node.links },
        uid: node.uid,
        gid: node.gid,
        rdev: 0,
        blksize: PAGE_BYTES,
        flags: 0,
    }
}

fn kind(node: &Inode) -> FileType {
    match node.is_directory {
        true => FileType::Directory,
        false => FileType::RegularFile,
    }
}

fn new_node(request: &Request, mode: u32, umask: u32, is_directory: bool) -> Inode {
    let mode = (mode & !umask & 0o7777) as u16;
    Inode::new(is_directory, mode, request.uid(), request.gid())
}

fn described(disk: &Disk, ino: Ino) -> Result<FileAttr, Errno> {
    Ok(attributes(ino, disk.node(ino)?))
}

fn entry(reply: ReplyEntry, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attributes) => reply.entry(&FOR_EVER, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn attr(reply: ReplyAttr, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attributes) => reply.attr(&FOR_EVER, &attributes),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Mount {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Larger requests make filling a log segment fast; what is not granted is not needed.
        let _ = config.set_max_write(1 << 20);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(
            reply,
            self.0.serve(|state| {
                let ino = state.disk.look_up(parent.0, name)?;
                described(&state.disk, ino)
            }),
        );
    }

    fn forget(&self, _: &Request, ino: INodeNo, times: u64) {
        // Not answered and not waited for: it says nothing about what is durable.
        self.0.with(|disk| disk.release(ino.0, times));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attr(reply, self.0.serve(|state| described(&state.disk, ino.0)));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        attr(
            reply,
            self.0.serve(|state| {
                if let Some(size) = size {
                    state.disk.resize(ino.0, size)?;
                }
                let node = state.disk.node_mut(ino.0)?;
                node.mode = mode.map_or(node.mode, |mode| (mode & 0o7777) as u16);
                node.uid = uid.unwrap_or(node.uid);
                node.gid = gid.unwrap_or(node.gid);
                described(&state.disk, ino.0)
            }),
        );
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let node = new_node(request, mode, umask, true);
        entry(
            reply,
            self.0.serve(|state| {
                let ino = state.disk.make(parent.0, name, node)?;
                described(&state.disk, ino)
            }),
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let node = new_node(request, mode, umask, false);
        let made = self.0.serve(|state| {
            let ino = state.disk.make(parent.0, name, node)?;
            described(&state.disk, ino)
        });
        match made {
            Ok(attributes) => {
                let (handle, flags) = (FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
                reply.created(&FOR_EVER, &attributes, Generation(0), handle, flags);
            }
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.0.serve(|state| state.disk.unlink(parent.0, name, false)));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.0.serve(|state| state.disk.unlink(parent.0, name, true)));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let (from, to) = ((parent.0, name), (new_parent.0, new_name));
        empty(reply, self.0.serve(|state| state.disk.rename(from, to, replace)));
    }

    fn link(&self, _: &Request, ino: INodeNo, to: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(
            reply,
            self.0.serve(|state| {
                let ino = state.disk.link(ino.0, to.0, name)?;
                described(&state.disk, ino)
            }),
        );
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.serve(|state| state.disk.node(ino.0).map(|_| ())) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.serve(|state| state.disk.read(ino.0, offset, size as usize)) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.0.serve(|state| state.disk.write(ino.0, offset, data));
        let synchronous = flags.0 & SYNCHRONOUS != 0;
        match written.and_then(|()| if synchronous { self.0.sync(ino) } else { Ok(()) }) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // A closed file is no safer than an open one.
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _data: bool, reply: ReplyEmpty) {
        // The length is needed to read the data, so that there is no difference here.
        empty(reply, self.0.sync(ino));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _data: bool, reply: ReplyEmpty) {
        empty(reply, self.0.sync(ino));
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        // Holes and the like are not needed by anybody here.
        if mode & !KEEP_LENGTH != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let keep = mode & KEEP_LENGTH != 0;
        empty(reply, self.0.serve(|state| state.disk.allocate(ino.0, offset, length, keep)));
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self.0.serve(|state| {
            let this = (ino.0, FileType::Directory, OsString::from("."));
            // Where it leads is the kernel's business; the number is for show.
            let above = (ROOT, FileType::Directory, OsString::from(".."));
            let mut entries = vec![this, above];
            for (name, ino) in state.disk.names(ino.0)? {
                entries.push((*ino, kind(state.disk.node(*ino)?), name.clone()));
            }
            state.next_handle += 1;
            state.listings.insert(state.next_handle, entries);
            Ok(state.next_handle)
        });
        match opened {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let filled = self.0.serve(|state| {
            let entries = state.listings.get(&handle.0).ok_or(Errno::EBADF)?;
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            for (at, (ino, kind, name)) in entries.iter().enumerate().skip(from) {
                if reply.add(INodeNo(*ino), at as u64 + 1, *kind, name) {
                    break;
                }
            }
            Ok(())
        });
        match filled {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.0.lock().listings.remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (all, free) = self.0.with(|disk| disk.pages());
        let files = u64::from(u32::MAX);
        reply.statfs(all, free, free, files, files, PAGE_BYTES, LONGEST_NAME, PAGE_BYTES);
    }
}
