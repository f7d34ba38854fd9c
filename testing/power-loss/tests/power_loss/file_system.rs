//! The mounted file system under ordinary system calls, before and after a power failure.

use quorate_power_loss::{Ordering, PoweredDisk, Settings};
use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A disk of which nothing unsynced survives, and where it is.
pub struct Mounted {
    disk: PoweredDisk,
    _place: TempDir,
}

impl Mounted {
    /// Nothing, where file systems cannot be mounted; that was said then.
    pub fn new(test: &str, settings: Settings) -> Option<Mounted> {
        let place = tempfile::tempdir().unwrap();
        match PoweredDisk::mount(place.path(), settings) {
            Ok(disk) => Some(Mounted { disk, _place: place }),
            Err(error) => {
                crate::cannot_mount(test, &error);
                None
            }
        }
    }

    fn forgetful(test: &str) -> Option<Mounted> {
        Mounted::new(test, Settings { keep_ppm: Some(0), ..Settings::default() })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.disk.mountpoint().join(name)
    }

    pub fn lose_power(&mut self) {
        self.disk.freeze();
        self.disk.power_off().unwrap();
        self.disk.power_on().unwrap();
    }
}

fn sync_directory(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn ordinary_work_is_done_as_anywhere_else() {
    let Some(mounted) = Mounted::forgetful("ordinary work") else { return };
    let (a, b) = (mounted.path("a"), mounted.path("b"));
    let large: Vec<u8> = (0..5_000_000u32).map(|i| i as u8).collect();
    fs::write(&a, &large).unwrap();
    assert_eq!(fs::read(&a).unwrap(), large);
    fs::rename(&a, &b).unwrap();
    assert_eq!(fs::read(&a).unwrap_err().kind(), ErrorKind::NotFound);
    let mut appended = OpenOptions::new().append(true).open(&b).unwrap();
    appended.write_all(b"more").unwrap();
    assert_eq!(b.metadata().unwrap().len(), 5_000_004);
    let deep = mounted.path("x/y/z");
    fs::create_dir_all(&deep).unwrap();
    for i in 0..300 {
        fs::write(deep.join(format!("file number {i}")), b"").unwrap();
    }
    assert_eq!(fs::read_dir(&deep).unwrap().count(), 300);
    fs::remove_dir_all(mounted.path("x")).unwrap();
    let names: Vec<_> = fs::read_dir(mounted.disk.mountpoint()).unwrap().collect();
    assert_eq!(names.len(), 1);
    fs::hard_link(&b, &a).unwrap();
    assert_eq!(a.metadata().unwrap().nlink(), 2);
}

#[test]
fn a_removed_file_is_read_on_by_whoever_has_it_open() {
    let Some(mounted) = Mounted::forgetful("removed while open") else { return };
    fs::write(mounted.path("a"), b"still here").unwrap();
    let mut open = File::open(mounted.path("a")).unwrap();
    fs::remove_file(mounted.path("a")).unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
}

#[test]
fn what_was_synced_survives_and_nothing_else() {
    let Some(mut mounted) = Mounted::forgetful("synced or not") else { return };
    let path = mounted.path("a");
    let file = File::create(&path).unwrap();
    file.write_all_at(b"synced", 0).unwrap();
    file.sync_data().unwrap();
    sync_directory(mounted.disk.mountpoint());
    file.write_all_at(b"UNSYNC", 0).unwrap();
    fs::write(mounted.path("b"), b"never synced").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"UNSYNC", "processes see it");
    drop(file);
    mounted.lose_power();
    assert_eq!(fs::read(&path).unwrap(), b"synced");
    assert!(!mounted.path("b").exists());
    assert!(mounted.disk.loss().sectors_lost >= 2);
}

#[test]
fn a_new_name_needs_a_sync_of_its_directory_or_a_journal() {
    for (ordering, survives) in [(Ordering::None, false), (Ordering::Journal, true)] {
        let settings = Settings { keep_ppm: Some(0), ordering, ..Settings::default() };
        let Some(mut mounted) = Mounted::new("new names", settings) else { return };
        let file = File::create(mounted.path("draft")).unwrap();
        file.write_all_at(b"1", 0).unwrap();
        file.sync_all().unwrap();
        fs::rename(mounted.path("draft"), mounted.path("final")).unwrap();
        File::create(mounted.path("other")).unwrap().sync_all().unwrap();
        drop(file);
        mounted.lose_power();
        assert_eq!(mounted.path("final").exists(), survives, "{ordering:?}");
    }
}

#[test]
fn synchronous_writes_need_no_sync() {
    let Some(mut mounted) = Mounted::forgetful("O_DSYNC") else { return };
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::DSYNC;
    let path = mounted.path("a");
    let file = File::from(rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).unwrap());
    sync_directory(mounted.disk.mountpoint());
    file.write_all_at(b"safe", 0).unwrap();
    drop(file);
    mounted.lose_power();
    assert_eq!(fs::read(&path).unwrap(), b"safe");
}

#[test]
fn a_lock_is_held_until_its_file_is_closed() {
    let Some(mounted) = Mounted::forgetful("locks") else { return };
    let first = File::create(mounted.path("LOCK")).unwrap();
    let second = File::open(mounted.path("LOCK")).unwrap();
    rustix::fs::flock(&first, FlockOperation::NonBlockingLockExclusive).unwrap();
    let refused = rustix::fs::flock(&second, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(refused, Err(rustix::io::Errno::WOULDBLOCK));
    drop(first);
    rustix::fs::flock(&second, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn errors_and_a_full_disk_reach_the_process() {
    let capacity_bytes = 1 << 20;
    let settings = Settings { capacity_bytes, ..Settings::default() };
    let Some(mounted) = Mounted::new("errors", settings) else { return };
    let file = File::create(mounted.path("a")).unwrap();
    file.write_all_at(b"1", 0).unwrap();
    mounted.disk.set_faults(|faults| faults.failing_sync = 1);
    let failed: io::Error = file.sync_data().unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    file.sync_data().unwrap();
    mounted.disk.set_faults(|faults| faults.failing_write = 1);
    assert!(file.write_all_at(b"2", 0).is_err());
    let full = file.write_all_at(&[1; 1 << 20], 4096).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    let there = rustix::fs::statvfs(mounted.disk.mountpoint()).unwrap();
    assert_eq!(there.f_blocks * there.f_frsize, capacity_bytes);
    mounted.disk.set_capacity(4 << 20);
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 2 << 20).unwrap();
    assert!(file.metadata().unwrap().blocks() * 512 >= 2 << 20);
    assert!(file.metadata().unwrap().len() <= 1 << 20);
}

#[test]
fn nothing_is_answered_while_the_power_is_frozen() {
    let Some(mounted) = Mounted::forgetful("frozen") else { return };
    let path = mounted.path("a");
    fs::write(&path, b"before").unwrap();
    mounted.disk.freeze();
    let writer = std::thread::spawn(move || fs::write(&path, b"after").map_err(|e| e.kind()));
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!writer.is_finished(), "a frozen disk answers");
    mounted.disk.let_go();
    assert!(writer.join().unwrap().is_err());
}
