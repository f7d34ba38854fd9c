//! The disk as a whole: what is left after a power failure, errors on demand, room.

use super::*;

fn disk(ordering: Ordering, keep_ppm: u32) -> Disk {
    let keep_ppm = Some(keep_ppm);
    Disk::new(Settings { capacity_bytes: 1 << 20, ordering, keep_ppm, ..Settings::default() })
}

fn file(disk: &mut Disk, name: &str, data: &[u8]) -> Ino {
    let ino = disk.make(ROOT, OsStr::new(name), Inode::default()).unwrap();
    disk.write(ino, 0, data).unwrap();
    ino
}

fn content(disk: &Disk, name: &str) -> Option<Vec<u8>> {
    let ino = disk.find(ROOT, OsStr::new(name)).ok()?;
    Some(disk.read(ino, 0, usize::MAX).unwrap())
}

#[test]
fn a_file_needs_its_own_sync_and_its_directorys() {
    let mut disk = disk(Ordering::None, 0);
    let both = file(&mut disk, "both", b"1");
    let named = file(&mut disk, "named", b"2");
    disk.sync(both).unwrap();
    disk.sync(ROOT).unwrap();
    let synced = file(&mut disk, "synced", b"3");
    disk.sync(synced).unwrap();
    disk.power_off();
    assert_eq!(content(&disk, "both").unwrap(), b"1");
    assert_eq!(content(&disk, "named").unwrap(), b"", "a name without its bytes");
    assert_eq!(content(&disk, "synced"), None, "bytes without a name");
    assert!(disk.node(synced).is_err() && disk.node(named).is_ok());
    assert_eq!((disk.loss.sectors_lost, disk.loss.names_lost), (1, 1));
}

#[test]
fn what_replaced_a_file_may_be_undone_until_the_directory_is_synced() {
    let mut disk = disk(Ordering::None, 0);
    for (name, data) in [("CURRENT", b"1"), ("draft", b"2")] {
        let ino = file(&mut disk, name, data);
        disk.sync(ino).unwrap();
    }
    disk.sync(ROOT).unwrap();
    let (draft, current) = (OsStr::new("draft"), OsStr::new("CURRENT"));
    disk.rename((ROOT, draft), (ROOT, current), true).unwrap();
    assert_eq!(content(&disk, "CURRENT").unwrap(), b"2");
    disk.power_off();
    assert_eq!(content(&disk, "CURRENT").unwrap(), b"1");
    disk.rename((ROOT, draft), (ROOT, current), true).unwrap();
    disk.sync(ROOT).unwrap();
    disk.power_off();
    assert_eq!(content(&disk, "CURRENT").unwrap(), b"2");
    assert_eq!(content(&disk, "draft"), None);
}

#[test]
fn a_removed_file_gives_its_room_back_and_may_return() {
    let mut disk = disk(Ordering::None, 0);
    let ino = file(&mut disk, "a", &[7; 8192]);
    disk.sync(ino).unwrap();
    disk.sync(ROOT).unwrap();
    let all = disk.pages().0;
    assert_eq!(disk.pages().1, all - 2);
    disk.unlink(ROOT, OsStr::new("a"), false).unwrap();
    assert_eq!(disk.read(ino, 0, 1).unwrap(), [7], "who has it open reads on");
    assert_eq!(disk.pages().1, all - 2);
    disk.release(ino, 1);
    assert_eq!(disk.pages().1, all);
    disk.power_off();
    assert_eq!(content(&disk, "a").unwrap(), [7; 8192]);
    disk.unlink(ROOT, OsStr::new("a"), false).unwrap();
    disk.sync(ROOT).unwrap();
    assert!(disk.node(ino).is_err(), "nobody can reach it any more");
}

#[test]
fn errors_come_when_they_are_asked_for_and_once() {
    let mut disk = disk(Ordering::None, 1_000_000);
    let ino = file(&mut disk, "a", b"1");
    disk.faults.failing_sync = 2;
    assert!(disk.sync(ino).is_ok());
    assert_eq!(disk.sync(ino), Err(Errno::EIO));
    assert!(disk.sync(ino).is_ok());
    disk.faults.failing_write = 1;
    assert_eq!(disk.write(ino, 0, b"2"), Err(Errno::EIO));
    assert!(disk.write(ino, 0, b"3").is_ok());
    assert_eq!(content(&disk, "a").unwrap(), b"3");
}

#[test]
fn a_full_disk_takes_no_more_but_what_it_has_may_be_overwritten() {
    let mut disk = disk(Ordering::None, 0);
    let ino = file(&mut disk, "a", &[1; 1 << 20]);
    assert_eq!(disk.pages().1, 0);
    assert_eq!(disk.write(ino, 1 << 20, b"x"), Err(Errno::ENOSPC));
    assert_eq!(disk.allocate(ino, 1 << 20, 1, true), Err(Errno::ENOSPC));
    assert_eq!(disk.write(ino, u64::MAX, b"x"), Err(Errno::EFBIG));
    disk.write(ino, 0, &[2; 1 << 20]).unwrap();
    disk.resize(ino, 4096).unwrap();
    disk.write(ino, 4096, b"x").unwrap();
    disk.set_capacity(4096);
    assert_eq!(disk.pages(), (1, 0));
}

#[test]
fn a_lying_disk_loses_what_it_said_was_safe() {
    let mut disk = disk(Ordering::None, 0);
    let ino = file(&mut disk, "a", b"1");
    disk.sync(ino).unwrap();
    disk.sync(ROOT).unwrap();
    disk.faults.lying_syncs = true;
    disk.write(ino, 0, b"2").unwrap();
    disk.sync(ino).unwrap();
    disk.power_off();
    assert_eq!(content(&disk, "a").unwrap(), b"1");
}

#[test]
fn the_same_seed_loses_the_same() {
    let run = |seed| {
        let mut disk = Disk::new(Settings { seed, ..Settings::default() });
        let ino = file(&mut disk, "a", &[1; 1 << 16]);
        disk.sync(ino).unwrap();
        disk.sync(ROOT).unwrap();
        disk.write(ino, 100, &[2; 50_000]).unwrap();
        disk.power_off();
        (content(&disk, "a"), disk.loss)
    };
    assert_eq!(run(5), run(5));
    assert!((1..20).any(|seed| run(seed) != run(5)));
}

#[test]
fn names_are_made_and_removed_as_posix_says() {
    let mut disk = disk(Ordering::None, 0);
    let directory = Inode { is_directory: true, ..Inode::default() };
    let d = disk.make(ROOT, OsStr::new("d"), directory).unwrap();
    let f = file(&mut disk, "f", b"");
    disk.link(f, d, OsStr::new("g")).unwrap();
    assert_eq!(disk.node(f).unwrap().links, 2);
    assert_eq!(disk.link(d, ROOT, OsStr::new("e")), Err(Errno::EPERM));
    assert_eq!(disk.make(ROOT, OsStr::new("d"), Inode::default()), Err(Errno::EEXIST));
    assert_eq!(disk.unlink(ROOT, OsStr::new("d"), false), Err(Errno::EISDIR));
    assert_eq!(disk.unlink(ROOT, OsStr::new("d"), true), Err(Errno::ENOTEMPTY));
    assert_eq!(disk.unlink(ROOT, OsStr::new("f"), true), Err(Errno::ENOTDIR));
    assert_eq!(disk.unlink(ROOT, OsStr::new("none"), false), Err(Errno::ENOENT));
    let (f, g) = ((ROOT, OsStr::new("f")), (ROOT, OsStr::new("d")));
    assert_eq!(disk.rename(f, g, true), Err(Errno::EISDIR));
    assert_eq!(disk.rename(f, g, false), Err(Errno::EEXIST));
    disk.unlink(d, OsStr::new("g"), false).unwrap();
    disk.unlink(ROOT, OsStr::new("d"), true).unwrap();
    assert!(disk.names(d).is_ok(), "it may return");
    disk.sync(ROOT).unwrap();
    disk.release(d, 1);
    assert!(disk.names(d).is_err());
}
